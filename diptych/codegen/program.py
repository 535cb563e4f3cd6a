"""Plan -> one LLVM module: its kernels, and `diptych_run(ith, nth, ctx)`, which every thread enters once per call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import I64, PTR, VOID, Fn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.ir.kernel import Kernel, Step
    from diptych.targets.base import Target

__all__ = ["ENTRY", "emit_program"]

ENTRY = "diptych_run"


def emit_program(kernels: Sequence[Kernel], steps: Sequence[Step], scratch_offset: int, scratch_bytes: int,
                 target: Target, emit_kernel: Callable[[ir.Module, Kernel, str, Target], ir.Function],
                 clock: int | None = None) -> ir.Module:  # fmt: skip
    """The module of a model.

    ctx points to {arena, weights, io, ...}; io to the addresses of inputs, then outputs. Step arguments name buffer
    0 (arena), 1 (weights) or 2.. (io). Thread `ith` of `nth` does its share of each parallel step; serial steps are
    thread 0's; `diptych_barrier(ctx, nth)` lets the threads meet. With `clock`, thread 0 writes its cycle counter to
    io buffer number `clock` when each step begins and when the last one ends.
    """
    module = ir.Module("diptych")
    barrier = ir.Function(module, ir.FunctionType(VOID, [PTR, I64]), "diptych_barrier")
    functions = [emit_kernel(module, k, f"k{i}_{k.kind}", target) for i, k in enumerate(kernels)]
    fn = Fn(module, ENTRY, [("ith", I64), ("nth", I64), ("ctx", PTR)], target)
    b, ith, nth, ctx = fn.b, fn.args["ith"], fn.args["nth"], fn.args["ctx"]

    def pointer(base: ir.Value, index: int) -> ir.Value:
        return b.load(fn.at(base, index, "i64"), typ=PTR, align=8)

    bases: dict[int, ir.Value] = {0: pointer(ctx, 0), 1: pointer(ctx, 1)}
    io = pointer(ctx, 2)
    for buffer in sorted({buffer for s in steps for buffer, _ in s.args if buffer >= 2}):
        bases[buffer] = pointer(io, buffer - 2)
    scratch = fn.at(bases[0], fn.iadd(fn.imul(ith, scratch_bytes), scratch_offset), "i8")
    is_first = b.icmp_signed("==", ith, fn.index(0))

    def call(step: Step, begin: ir.Value, end: ir.Value) -> None:
        args = [fn.at(bases[buffer], offset, "i8") for buffer, offset in step.args]
        if kernels[step.kernel].cooperative:
            begin, end = (fn.index(0), fn.index(1)) if step.serial else (ith, nth)
            b.call(functions[step.kernel], [begin, end, ctx, *args])
        else:
            b.call(functions[step.kernel], [begin, end, scratch, *args])

    def tick(n: int) -> None:
        if clock is None:
            return
        with b.if_then(is_first):
            now = fn.intrinsic("llvm.readcyclecounter", I64, [])
            b.store(now, fn.at(pointer(io, clock - 2), n, "i64"), align=8)

    i = 0
    while i < len(steps):
        step = steps[i]
        if step.barrier:
            b.call(barrier, [ctx, nth])
        tick(i)  # after the barrier: waiting for a thread that got more to do counts for the step before
        if not step.serial:
            work = fn.index(kernels[step.kernel].work)
            begin = b.udiv(b.mul(ith, work), nth)
            end = b.udiv(b.mul(b.add(ith, fn.index(1)), work), nth)
            call(step, begin, end)
            i += 1
            continue
        with b.if_then(is_first):  # neighbouring serial steps share one branch
            while True:
                call(steps[i], fn.index(0), fn.index(kernels[steps[i].kernel].work))
                i += 1
                if i == len(steps) or not steps[i].serial or steps[i].barrier or clock is not None:
                    break
    tick(len(steps))
    fn.finish()
    return module
