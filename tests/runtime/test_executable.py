"""Calls: right results on every path, precise errors, many threads at once, fork, exit."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from objects import add_ir, barriers_ir, compile_ir

from diptych.errors import FormatError, InputError
from diptych.errors import __file__ as errors_file
from diptych.ir.types import TensorType
from diptych.runtime import Executable, aligned_bytes, pool_of

N = 64


def _adder(threads: int = 1, shape: tuple[int, ...] = (N,), release_gil: bool | None = None) -> Executable:
    t = TensorType(shape)
    return Executable(
        compile_ir(add_ir(t.size)), weights=aligned_bytes(0), arena_bytes=t.nbytes, release_gil=release_gil,
        inputs=[("a", t), ("b", t)], outputs=[("c", t)], threads=threads,
    )  # fmt: skip


_SWAP = """
define void @diptych_run(i64 %ith, i64 %nth, ptr %ctx) {
  %wa = getelementptr i8, ptr %ctx, i64 8
  %w = load ptr, ptr %wa
  %scale = load float, ptr %w
  %ioa = getelementptr i8, ptr %ctx, i64 16
  %io = load ptr, ptr %ioa
  %a = load ptr, ptr %io
  %ba = getelementptr ptr, ptr %io, i64 1
  %b = load ptr, ptr %ba
  %xa = getelementptr ptr, ptr %io, i64 2
  %x = load ptr, ptr %xa
  %ya = getelementptr ptr, ptr %io, i64 3
  %y = load ptr, ptr %ya
  %f = load float, ptr %a
  %g = fmul float %f, %scale
  store float %g, ptr %y
  %i = load i64, ptr %b
  store i64 %i, ptr %x
  ret void
}
"""


def _swap() -> Executable:
    """(f32 scalar, i64[1]) -> (i64[1], f32 scalar times 2.5)."""
    weights = aligned_bytes(64)
    weights[:4] = np.frombuffer(np.float32(2.5).tobytes(), np.uint8)
    f, i = TensorType((), "f32"), TensorType((1,), "i64")
    return Executable(
        compile_ir(_SWAP), weights=weights, arena_bytes=0, inputs=[("f", f), ("i", i)], outputs=[("i2", i), ("f2", f)]
    )


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(N,), (1,), (3, 5, 7), (1000,)])
def test_every_share_of_work_and_every_barrier(threads: int, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    model = _adder(threads, shape)
    for _ in range(30):
        a, b = rng.standard_normal((2, *shape), np.float32)
        c = model(a, b)
        assert type(c) is np.ndarray
        assert (c.shape, c.dtype) == (shape, np.float32)
        assert c.flags.owndata
        assert np.array_equal(c, a + b)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_barrier_stress(threads: int) -> None:
    rounds = 2000 if threads <= (os.cpu_count() or 1) else 100
    model = Executable(
        compile_ir(barriers_ir(rounds)), weights=aligned_bytes(0), arena_bytes=64, inputs=[],
        outputs=[("count", TensorType((2,), "i64"))], threads=threads,
    )  # fmt: skip
    for _ in range(3):
        assert model().tolist() == [rounds, threads]


def test_rank_zero_weights_and_several_outputs() -> None:
    model = _swap()
    result = model(np.float32(3.0).reshape(()), np.array([7]))
    assert type(result) is tuple
    i, f = result
    assert (i.tolist(), f.shape, float(f)) == ([7], (), 7.5)
    assert float(model(np.float32(2.0), np.array([1]))[1]) == 5.0  # a NumPy scalar is an array of rank 0


def test_zero_size_tensors() -> None:
    empty = np.zeros((2, 0, 3), np.float32)
    model = _adder(2, (2, 0, 3))
    assert model(empty, empty).shape == (2, 0, 3)
    model.run_into([empty, empty], [empty.copy()])


def test_nan_and_infinity_pass_untouched() -> None:
    a = np.full(N, 1.0, np.float32)
    a[:4] = [np.nan, np.inf, -np.inf, -0.0]
    b = np.zeros(N, np.float32)
    assert np.array_equal(_adder()(a, b), a + b, equal_nan=True)


class _Mine(np.ndarray[Any, Any]):
    pass


class _Foreign:
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return np.ones(N, np.float32)


def test_inputs_that_are_converted() -> None:
    model, one = _adder(), np.ones(N, np.float32)
    plain = np.arange(N, dtype=np.float32)
    read_only = plain.copy()
    read_only.flags.writeable = False
    shifted = np.zeros(4 * N + 1, np.uint8)[1:].view(np.float32)
    shifted[:] = plain
    wide = np.zeros(2 * N, np.float32)
    wide[::2] = plain
    for x in (read_only, shifted, wide[::2], plain[::-1][::-1], plain.astype(">f4"), plain.view(_Mine), plain.astype("f2")):
        for _ in range(2):
            assert np.array_equal(model(x, one), plain + 1)
    assert np.array_equal(model(_Foreign(), plain), plain + 1)  # type: ignore[arg-type]
    fortran = np.asfortranarray(plain.reshape(8, 8))
    assert np.array_equal(_adder(1, (8, 8))(fortran, fortran), fortran * 2)


def test_integers_of_equal_layout_and_exact_casts() -> None:
    model, f = _swap(), np.zeros((), np.float32)
    for dtype in (np.longlong, np.int32, np.uint16, np.int8, np.int64):
        assert model(f, np.array([100], dtype))[0].tolist() == [100]
    with pytest.raises(InputError, match=r"input 'i'.*i64\[1\].*uint64"):
        model(f, np.array([1], np.uint64))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([1.0] * N, r"input 'b': expected an array f32\[64\], got list; .*numpy.asarray"),
        (None, "got NoneType"),
        (2.0, "got float"),
        (np.zeros(N + 1, np.float32), r"input 'b': expected shape \[64\] .*got \[65\]"),
        (np.zeros((1, N), np.float32), r"got \[1, 64\]"),
        (np.zeros(N), r"input 'b': expected f32\[64\], got dtype float64.*astype\('float32'\)"),
        (np.zeros(N, np.int32), "got dtype int32"),
        (np.zeros(N, bool), "got dtype bool"),
        (np.zeros(N, "c8"), "complex64"),
        (np.zeros(N, object), "object"),
    ],
)
def test_inputs_that_are_refused(bad: Any, message: str) -> None:
    good = np.zeros(N, np.float32)
    with pytest.raises(InputError, match=message):
        _adder()(good, bad)


def test_wrong_number_of_inputs() -> None:
    x = np.zeros(N, np.float32)
    for given in ((), (x,), (x, x, x)):
        with pytest.raises(InputError, match=rf"takes 2 inputs \(a: f32\[64\], b: f32\[64\]\), {len(given)} were given"):
            _adder()(*given)


def test_bf16_is_its_bit_pattern() -> None:
    t = TensorType((2,), "bf16")
    text = """
define void @diptych_run(i64 %ith, i64 %nth, ptr %ctx) {
  %ioa = getelementptr i8, ptr %ctx, i64 16
  %io = load ptr, ptr %ioa
  %a = load ptr, ptr %io
  %ba = getelementptr ptr, ptr %io, i64 1
  %b = load ptr, ptr %ba
  %v = load i32, ptr %a
  store i32 %v, ptr %b
  ret void
}
"""
    code = compile_ir(text)
    model = Executable(code, weights=aligned_bytes(0), arena_bytes=0, inputs=[("x", t)], outputs=[("y", t)])
    bits = np.array([0x3F80, 0xC000], np.uint16)
    assert np.array_equal(model(bits), bits)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert np.array_equal(model(np.array([1.0, -2.0], ml_dtypes.bfloat16)), bits)
    with pytest.raises(InputError, match="bit patterns"):
        model(np.zeros(2, np.uint8))


def test_run_into() -> None:
    model, a, b = _adder(2), np.arange(N, dtype=np.float32), np.ones(N, np.float32)
    out = np.zeros(N, np.float32)
    assert model.run_into([a, b], [out]) is None  # type: ignore[func-returns-value]
    assert np.array_equal(out, a + b)
    model.run_into([a.astype(">f4"), b], [out])
    assert np.array_equal(out, a + b)
    x = a.copy()
    model.run_into([x, b], [x])  # in place: the input is copied, or the first phase would read results
    assert np.array_equal(x, a + b)
    read_only = out.copy()
    read_only.flags.writeable = False
    for bad, message in [
        ([read_only], "writeable"),
        ([np.zeros(2 * N, np.float32)[::2]], "C-contiguous"),
        ([np.zeros(N)], r"output 'c': expected f32\[64\], got float64"),
        ([np.zeros(N - 1, np.float32)], r"got float32 \[63\]"),
        ([out, out], "1 outputs"),
        ([[0.0] * N], "got list"),
    ]:
        with pytest.raises(InputError, match=message):
            model.run_into([a, b], bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="takes 2 inputs"):
        model.run_into([a], [out])


def test_outputs_that_share_memory_are_refused() -> None:
    both = np.zeros(16, np.uint8)
    with pytest.raises(InputError, match="'i2' and 'f2' share memory"):
        _swap().run_into([np.zeros((), np.float32), np.zeros(1, np.int64)],
                         [both[:8].view(np.int64), both[4:8].view(np.float32).reshape(())])  # fmt: skip


def test_what_an_executable_must_be_made_of() -> None:
    code, t = compile_ir(add_ir(4)), TensorType((4,))
    with pytest.raises(InputError, match="64 bytes"):
        Executable(code, weights=aligned_bytes(65)[1:], arena_bytes=0, inputs=[], outputs=[("c", t)])
    with pytest.raises(InputError, match="threads=0"):
        Executable(code, weights=aligned_bytes(0), arena_bytes=0, inputs=[], outputs=[("c", t)], threads=0)
    with pytest.raises(FormatError, match="no symbol 'absent'"):
        Executable(code, entry="absent", weights=aligned_bytes(0), arena_bytes=0, inputs=[], outputs=[("c", t)])


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("release_gil", [True, False])
def test_eight_python_threads_at_once(threads: int, release_gil: bool) -> None:
    model = _adder(threads, (500,), release_gil)
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for i in range(150):
            a, b = rng.standard_normal((2, 500), np.float32)
            if i % 10 == 0:
                a = a.astype(">f4")
            if not np.array_equal(model(a, b), a + b):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(s,)) for s in range(8)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong
    assert len(model._core.frames) <= 8 * 4


def test_references_are_neither_lost_nor_kept() -> None:
    model, a, b = _adder(), np.ones(N, np.float32), np.ones(N, np.float32)
    swap, f, i = _swap(), np.zeros((), np.float32), np.zeros(1, np.int64)
    out, strided = np.zeros(N, np.float32), np.ones(2 * N, np.float32)[::2]
    objects = (a, b, f, i, out, strided, np.dtype(np.float32), None, NotImplemented)
    for _ in range(2):
        before = [sys.getrefcount(o) for o in objects]
        for _ in range(100):
            model(a, b)
            model(strided, b)
            model.run_into([a, b], [out])
            swap(f, i)
        after = [sys.getrefcount(o) for o in objects]
    assert all(abs(x - y) < 20 for x, y in zip(before, after)), (before, after)
    result = model(a, b)
    assert sys.getrefcount(result) == 2
    seen = weakref.ref(result)
    del result
    assert seen() is None


def test_memory_goes_with_the_last_reference() -> None:
    model = _adder()
    a = np.ones(N, np.float32)
    model(a, a)
    core, call = weakref.ref(model._core), model.call
    del model
    assert np.array_equal(call(a, a), a + a)  # the builtin alone keeps everything alive
    del call
    gc.collect()
    assert core() is None


def test_large_arenas_and_weights_are_zeroed_and_aligned() -> None:
    big = aligned_bytes((5 << 20) + 3)
    assert (big.ctypes.data % (1 << 21), big.size, int(big.max())) == (0, (5 << 20) + 3, 0)
    assert aligned_bytes(10, 4096).ctypes.data % 4096 == 0
    n = 1 << 20
    model, a = _adder(2, (n,)), np.ones(n, np.float32)
    before = model.memory_bytes
    assert model(a, a).sum() == 2 * n
    assert model.memory_bytes >= before + model.arena_bytes == before + 4 * n
    assert 0 < model.code_bytes <= before


def _in_child(model: Executable, a: np.ndarray[Any, Any]) -> int:
    for _ in range(20):
        if not np.array_equal(model(a, a), a + a):
            return 1
    return 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fork_rebuilds_the_pool() -> None:
    model, a = _adder(2), np.arange(N, dtype=np.float32)
    assert _in_child(model, a) == 0
    assert pool_of(2).live
    child = os.fork()
    if child == 0:
        try:
            fresh = not pool_of(2).live
            code = _in_child(model, a)
            os._exit(code if fresh and pool_of(2).live else 2)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _in_child(model, a) == 0


_EXIT = """
import atexit, sys, threading
sys.path[:0] = {paths!r}
def after():
    print("after", np.array_equal(model(a, a), a + a), flush=True)
atexit.register(after)  # handlers run last-in first-out: this one comes after the pool's own, the next one before it
import numpy as np
from test_executable import _adder, N
a = np.arange(N, dtype=np.float32)
model = _adder({threads})
def before():
    print("before", np.array_equal(model(a, a), a + a), flush=True)
atexit.register(before)
assert np.array_equal(model(a, a), a + a)
{extra}
print("done", flush=True)
"""
_BUSY = """
def forever():
    while True:
        model(a, a)
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
"""


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("extra", ["", _BUSY], ids=["idle", "busy daemons"])
def test_the_interpreter_ends(threads: int, extra: str) -> None:
    paths = [os.path.dirname(__file__), os.fspath(Path(errors_file).parents[1])]
    code = _EXIT.format(paths=paths, threads=threads, extra=extra)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\nbefore True\nafter True\n", done.stderr
    assert done.stderr == ""
