"""What this machine can do, measured in about two seconds and kept in the cache: the roof of every roofline.

Loops written by the code generator for the target: multiply-adds on registers; reading stretches that fit L2, that
fit L3, and that fit neither; threads meeting at the barrier of the runtime. The best of several rounds counts.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from diptych.knowledge import keep_figures, kept_figures
from diptych.runtime.executable import Executable, aligned_bytes
from diptych.runtime.loader import load_object
from diptych.targets import host
from diptych.targets.figures import Figures

if TYPE_CHECKING:
    from collections.abc import Callable

    from llvmlite import ir

    from diptych.targets.base import Target

__all__ = ["calibrate", "figures"]

_ROUNDS = 5
_CHAINS = 12  # independent multiply-adds in flight: more than latency times units of any core
_FMAS = 1_000_000
_BARRIERS = 2000
_STRETCH = 8  # vectors per turn of the reading loop
_DRAM_BYTES = 256 << 20


def figures(threads: int) -> Figures:
    """The kept figures for `threads` threads of this machine, measured now if there are none.

    >>> figures(1).flops > 1e8  # doctest: +SKIP
    True
    """
    target = host.find(None)
    found = kept_figures(target, threads)
    if found is None:
        found = calibrate(target, threads)
        keep_figures(target, threads, found)
    return found


def calibrate(target: Target, threads: int) -> Figures:
    """Measure `target` (this machine's) with `threads` threads."""
    from diptych.codegen.object import object_code

    code = load_object(object_code(_loops(target), target), {})
    multiply = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(code.address("multiply"))
    read = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(code.address("read"))
    clock = ctypes.CFUNCTYPE(ctypes.c_int64)(code.address("clock"))
    sinks = [aligned_bytes(1024) for _ in range(threads)]

    flops = 2.0 * _CHAINS * _FMAS * target.lanes(4)
    peak = _best(threads, lambda i: multiply(_FMAS, sinks[i].ctypes.data), flops)
    blocks = aligned_bytes(_DRAM_BYTES)
    blocks[:] = 1  # else every page is the one zero page, which is always in the cache

    def bandwidth(total: int, each: int) -> float:
        """Every thread reads its own `each` bytes until `total` bytes are read."""
        times = max(1, total // each)

        def one(i: int) -> None:
            read(blocks.ctypes.data + i * each, each, times, sinks[i].ctypes.data)

        return _best(threads, one, float(each * times))

    step = _STRETCH * target.vector_bytes
    l2 = bandwidth(64 << 20, target.l2 // 2 // step * step)
    l3 = bandwidth(64 << 20, max(2 * target.l2, (8 << 20) // threads) // step * step)
    dram = bandwidth(0, _DRAM_BYTES // threads // step * step)

    begin, first = time.perf_counter(), clock()
    time.sleep(0.05)
    ticks = (clock() - first) / (time.perf_counter() - begin)
    return Figures(threads, peak, l2, l3, dram, _barrier(target, threads), ticks, True)


def _best(threads: int, work: Callable[[int], None], amount: float) -> float:
    """Amount per second of all threads together, in the best round."""
    best = 0.0
    here = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    cpus = sorted(here)
    for _ in range(_ROUNDS):
        gate = threading.Barrier(threads)
        seconds = [0.0] * threads

        def one(i: int, gate: threading.Barrier = gate, seconds: list[float] = seconds) -> None:
            if threads <= len(cpus):  # else the system may run several on one CPU, the short while that this takes
                os.sched_setaffinity(0, {cpus[i]})
            gate.wait()
            begin = time.perf_counter()
            work(i)
            seconds[i] = time.perf_counter() - begin

        others = [threading.Thread(target=one, args=(i,)) for i in range(1, threads)]
        for t in others:
            t.start()
        try:
            one(0)
        finally:
            if here:
                os.sched_setaffinity(0, here)
        for t in others:
            t.join()
        best = max(best, threads * amount / max(max(seconds), 1e-9))
    return best


def _barrier(target: Target, threads: int) -> float:
    """Nanoseconds that a meeting of all threads takes."""
    if threads == 1:
        return 0.0
    from llvmlite import ir

    from diptych.codegen.builder import I64, PTR, VOID, Fn
    from diptych.codegen.object import object_code

    module = ir.Module("barrier")
    meet = ir.Function(module, ir.FunctionType(VOID, [PTR, I64]), "diptych_barrier")
    fn = Fn(module, "diptych_run", [("ith", I64), ("nth", I64), ("ctx", PTR)], target)
    with fn.loop(0, _BARRIERS):
        fn.b.call(meet, [fn.args["ctx"], fn.args["nth"]])
    fn.finish()
    run = Executable(
        object_code(module, target), weights=np.zeros(0, np.uint8), arena_bytes=64, inputs=(), outputs=(), threads=threads
    )
    best = float("inf")
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return best / _BARRIERS * 1e9


def _loops(target: Target) -> ir.Module:
    from llvmlite import ir

    from diptych.codegen.builder import I64, PTR, Fn, Val

    lanes = target.lanes(4)
    module = ir.Module("loops")

    fn = Fn(module, "multiply", [("n", I64), ("out", PTR)], target)
    one = fn.load(fn.args["out"], "f32", lanes)  # from memory: the loop must not be folded
    sums = [fn.var("f32", fn.const(float(i), "f32", lanes).ir, lanes) for i in range(_CHAINS)]
    with fn.loop(0, fn.args["n"]):
        for s in sums:
            s.set(fn.fma(Val(s.get(), "f32", lanes), one, one).ir)
    total = sums[0].get()
    for s in sums[1:]:
        total = fn.b.fadd(total, s.get())
    fn.store(Val(total, "f32", lanes), fn.args["out"])
    fn.finish()

    fn = Fn(module, "read", [("p", PTR), ("bytes", I64), ("times", I64), ("out", PTR)], target)
    words = target.vector_bytes // 4
    found = [fn.var("i32", fn.const(0, "i32", words).ir, words) for _ in range(_STRETCH)]
    with fn.loop(0, fn.args["times"]) as turn, fn.loop(0, fn.args["bytes"], _STRETCH * target.vector_bytes) as i:
        for j, f in enumerate(found):
            value = fn.load(fn.at(fn.args["p"], fn.iadd(i, j * target.vector_bytes), "i8"), "i32", words)
            # The turn goes in, so that no turn can be left out for being like the one before.
            mark = fn.splat(Val(fn.b.trunc(turn, ir.IntType(32)), "i32"), words)
            f.set(fn.b.add(f.get(), fn.b.xor(value.ir, mark.ir)))
    all_of = found[0].get()
    for f in found[1:]:
        all_of = fn.b.xor(all_of, f.get())
    fn.store(Val(all_of, "i32", words), fn.args["out"])
    fn.finish()

    fn = Fn(module, "clock", [], target, result=I64)
    fn.finish(fn.intrinsic("llvm.readcyclecounter", I64, []))
    return module
