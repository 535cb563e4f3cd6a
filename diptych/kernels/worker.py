"""Kernels to object code in processes beside this one: Python writes IR and LLVM compiles it on every core at once.

A worker reads pickled tasks (functions go by their names) from its standard input and answers each with (object code, None)
or (None, error). It is started by `Workers` with this process's own interpreter and module path, and ends when its input does.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.errors import DiptychError

if TYPE_CHECKING:
    from types import TracebackType

    from diptych.ir.kernel import Kernel, Step
    from diptych.targets.base import Target

__all__ = ["Workers", "is_plain", "kernel_object", "processes", "program_object", "serve", "symbol"]

_PLAIN = frozenset({
    "border", "contract", "gather", "pack_channels", "pad", "pointwise", "reduce", "scatter", "unpack_channels", "weight_gradient",
    "winograd", "winograd_weights",
})  # fmt: skip
_READY = b"diptych worker\n"
Task = tuple[Callable[..., bytes], tuple[Any, ...]]  # `kernel_object`, `program_object` or another of a module, and its arguments


def symbol(kernel: Kernel, text: str = "") -> str:
    """The name of a kernel's function: equal kernels have equal names, in every model."""
    import hashlib

    return f"k_{kernel.kind}_{hashlib.sha256((text or repr(kernel)).encode()).hexdigest()[:24]}"


def kernel_object(kernel: Kernel, target: Target) -> bytes:
    """The object code of one kernel; the function is named by `symbol`."""
    from llvmlite import ir

    from diptych.codegen.object import object_code
    from diptych.kernels.base import emit_kernel

    module = ir.Module("kernel")
    emit_kernel(module, kernel, symbol(kernel), target).linkage = ""
    return object_code(module, target, is_plain(kernel, target))


def is_plain(kernel: Kernel, target: Target) -> bool:
    """Whether few passes make code of a kernel that is as fast as all of LLVM's do, at a quarter of their time.

    Measured for the networks that have most kernels, those in training. Tiles of attention spill on AVX2 then, and those of
    contractions on Arm.
    """
    return kernel.kind in _PLAIN and target.triple.startswith("x86_64")


def program_object(kernels: Sequence[Kernel], steps: Sequence[Step], scratch_offset: int, scratch_bytes: int,
                   target: Target, clock: int | None = None) -> bytes:  # fmt: skip
    """The object code of the function that runs the steps of a model; the kernels are in other objects."""
    from llvmlite import ir

    from diptych.codegen.object import object_code
    from diptych.codegen.program import emit_program
    from diptych.kernels.base import signature

    def declare(module: ir.Module, kernel: Kernel, name: str, target: Target) -> ir.Function:
        return ir.Function(module, ir.FunctionType(ir.VoidType(), [t for _, t in signature(kernel)]), symbol(kernel))

    module = emit_program(kernels, steps, scratch_offset, scratch_bytes, target, declare, clock)
    return object_code(module, target, light=True)


def serve(preload: Sequence[str] = ()) -> None:
    """The life of a worker process; it imports the modules `preload` before the first task comes."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes our input
    source = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not meet the answers
    import importlib
    import pkgutil

    import llvmlite.binding  # noqa: F401

    import diptych.kernels

    for module in pkgutil.iter_modules(diptych.kernels.__path__, "diptych.kernels."):
        importlib.import_module(module.name)  # each registers its emitters
    for name in preload:
        importlib.import_module(name)
    gc.freeze()  # IR is made of many small objects: no looking through all of them, and all modules, again and again
    gc.set_threshold(100_000, 10, 100)
    answers.write(_READY)
    answers.flush()
    while True:
        try:
            make, arguments = pickle.load(source)
        except EOFError:
            return
        answer: tuple[bytes | None, BaseException | None]
        try:
            answer = (make(*arguments), None)
        except Exception as e:
            answer = (None, e)
        try:
            made = pickle.dumps(answer)
        except Exception:
            made = pickle.dumps((None, DiptychError(f"{type(answer[1]).__name__}: {answer[1]}")))
        answers.write(made)
        answers.flush()


def processes() -> int:
    """How many worker processes to use: $DIPTYCH_COMPILE_PROCESSES, else one per core; 0 where none can be started."""
    text = os.environ.get("DIPTYCH_COMPILE_PROCESSES", "").strip()
    if text:
        if not text.isdecimal():
            raise DiptychError(f"DIPTYCH_COMPILE_PROCESSES={text!r} is not a number: 0 compiles in this process")
        return int(text)
    if not sys.executable or not Path(sys.executable).name.lower().startswith("python"):
        return 0  # an embedded interpreter: its executable is some other program
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, available)


class Workers:
    """Up to `count` worker processes, started at once, that share the tasks given to `run`, which may be called again and again.

    `preload` names modules that they import while they wait.
    """

    def __init__(self, count: int, preload: Sequence[str] = ()) -> None:
        root = str(Path(__file__).resolve().parents[2])
        program = f"import sys; sys.path[:] = sys.argv[1:]; from diptych.kernels.worker import serve; serve({tuple(preload)})"
        command = [sys.executable, "-S", "-E", "-c", program, root, *(p for p in sys.path if p and p != root)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._started: list[subprocess.Popen[bytes]] = []
        self._ready: set[int] = set()  # process numbers of those that have said so
        for _ in range(count):
            try:
                self._started.append(
                    subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
                )
            except OSError:
                break

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close(kill=kind is not None)

    def close(self, kill: bool = False) -> None:
        """Let the processes end; `kill` does not wait for what they are doing."""
        for p in self._started:
            if kill:
                p.kill()
            for stream in (p.stdin, p.stdout):
                with contextlib.suppress(OSError):
                    assert stream is not None
                    stream.close()
            p.wait()
        self._started = []

    def run(self, tasks: Sequence[Task], on_done: Callable[[int], None] = lambda done: None) -> list[bytes]:
        """The results of the tasks, in their order; `on_done(how many are done)` is called from this thread.

        Tasks that no worker takes (none could be started) are done here.
        """
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for i in range(len(tasks)):
            waiting.put(i)
        done: queue.SimpleQueue[tuple[int, bytes | None, BaseException | None]] = queue.SimpleQueue()
        threads = [
            threading.Thread(target=_feed, args=(p, self._ready, tasks, waiting, done), daemon=True) for p in self._started
        ]
        for t in threads:
            t.start()
        results: dict[int, bytes] = {}
        while len(results) < len(tasks):
            if not any(t.is_alive() for t in threads) and done.empty():
                i = waiting.get()
                make, arguments = tasks[i]
                done.put((i, make(*arguments), None))
            try:
                i, code, error = done.get(timeout=0.2)
            except queue.Empty:
                continue
            if error is not None:
                raise error
            assert code is not None
            results[i] = code
            on_done(len(results))
        for t in threads:
            t.join()
        return [results[i] for i in range(len(tasks))]


def _feed(process: subprocess.Popen[bytes], ready: set[int], tasks: Sequence[Task], waiting: queue.SimpleQueue[int],
          done: queue.SimpleQueue[tuple[int, bytes | None, BaseException | None]]) -> None:  # fmt: skip
    """One worker's share: whatever is next, until nothing is left. A worker that never got ready takes nothing."""
    assert process.stdin is not None and process.stdout is not None
    if process.pid not in ready:
        if process.stdout.readline() != _READY:
            return
        ready.add(process.pid)
    while True:
        try:
            i = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            process.stdin.write(pickle.dumps(tasks[i]))
            process.stdin.flush()
            code, error = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            status = process.wait()
            what = f"a compiler process ended with status {status} at {tasks[i][0].__name__}, task number {i}"
            done.put((i, None, DiptychError(f"{what}; set DIPTYCH_COMPILE_PROCESSES=0 to compile in this process")))
            return
        done.put((i, code, error))
