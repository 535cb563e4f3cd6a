"""What a call costs beyond the model itself: a trivial model called from Python, and a barrier between threads.

Run: python bench/call_overhead.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from diptych.ir.types import TensorType
from diptych.runtime import Executable, aligned_bytes, cpu_count

_NOTHING = "define void @diptych_run(i64 %ith, i64 %nth, ptr %ctx) {\n  ret void\n}\n"
_BARRIERS = """
declare void @diptych_barrier(ptr, i64)
define void @diptych_run(i64 %ith, i64 %nth, ptr %ctx) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
  call void @diptych_barrier(ptr %ctx, i64 %nth)
  %i1 = add i64 %i, 1
  %go = icmp ult i64 %i1, ROUNDS
  br i1 %go, label %loop, label %done
done:
  ret void
}
"""


def _compile(text: str) -> bytes:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(text)
    maker = llvm.Target.from_default_triple().create_target_machine(opt=2, reloc="pic", codemodel="small")
    code: bytes = maker.emit_object(module)
    return code


def _model(text: str, inputs: int, threads: int, release_gil: bool | None = None) -> Executable:
    x = TensorType((1, 8))
    return Executable(
        _compile(text),
        weights=aligned_bytes(64),
        arena_bytes=64,
        inputs=[(f"x{i}", x) for i in range(inputs)],
        outputs=[("y", x)],
        threads=threads,
        release_gil=release_gil,
    )


def _nanoseconds(call: Callable[..., Any], *args: Any) -> float:
    """Median over rounds of the mean time of one call, less the cost of the loop."""
    n, rounds, empty = 20_000, 15, []
    times = []
    for _ in range(rounds):
        begin = time.perf_counter_ns()
        for _ in range(n):
            pass
        empty.append((time.perf_counter_ns() - begin) / n)
        begin = time.perf_counter_ns()
        for _ in range(n):
            call(*args)
        times.append((time.perf_counter_ns() - begin) / n)
    return statistics.median(times) - statistics.median(empty)


def main() -> None:
    """Print the table."""
    a = np.zeros((1, 8), np.float32)
    one = _model(_NOTHING, 1, 1)
    print(f"numpy.empty((1, 8), float32)            {_nanoseconds(np.empty, (1, 8), np.float32):8.0f} ns")
    print(f"executable.call(x)                      {_nanoseconds(one.call, a):8.0f} ns")
    print(f"executable(x)                           {_nanoseconds(one, a):8.0f} ns")
    print(f"executable.call(x), GIL given up        {_nanoseconds(_model(_NOTHING, 1, 1, True).call, a):8.0f} ns")
    four = _model(_NOTHING, 4, 1)
    print(f"executable.call(x, x, x, x)             {_nanoseconds(four.call, a, a, a, a):8.0f} ns")
    print(f"executable.run_into([x], [y])           {_nanoseconds(one.run_into, [a], [a.copy()]):8.0f} ns")
    print(f"slow path (a strided input is copied)   {_nanoseconds(one, np.zeros((1, 16), np.float32)[:, ::2]):8.0f} ns")
    rounds = 20_000
    for threads in range(1, cpu_count() + 1):
        start = _nanoseconds(_model(_NOTHING, 1, threads).call, a)
        model = _model(_BARRIERS.replace("ROUNDS", str(rounds)), 1, threads)
        times = []
        for _ in range(15):
            begin = time.perf_counter_ns()
            model.call(a)
            times.append((time.perf_counter_ns() - begin) / rounds)
        low, mid = min(times), statistics.median(times)
        print(f"{threads} threads: call {start:8.0f} ns, barrier {mid:8.1f} ns (best {low:.1f})")


if __name__ == "__main__":
    main()
