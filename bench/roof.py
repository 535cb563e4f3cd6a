"""What the machine can do at this moment: programs that only multiply and add, and that only read, called like a model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diptych.ir.types import TensorType
from diptych.runtime import Executable, aligned_bytes
from diptych.targets.host import host

__all__ = ["Timed", "multiplier", "reader", "turns"]

Timed = tuple[Callable[..., Any], list[Any]]  # a call and its arguments

_CHAINS, _STREAMS = 12, 4
_ROUNDS = 20_000


def multiplier(threads: int) -> tuple[Timed, float]:
    """Multiply-adds on registers by every thread, and how many operations that is."""
    lanes = host().lanes(4)
    v = f"<{lanes} x float>"
    one = f"<{', '.join(['float 1.0'] * lanes)}>"
    lines = [f"  %a{i} = phi {v} [ zeroinitializer, %entry ], [ %b{i}, %loop ]" for i in range(_CHAINS)]
    lines += [f"  %b{i} = call {v} @llvm.fma.v{lanes}f32({v} %x, {v} %x, {v} %a{i})" for i in range(_CHAINS)]
    text = f"""
declare {v} @llvm.fma.v{lanes}f32({v}, {v}, {v})
{_head(f'''  %px = getelementptr i8, ptr %weights, i64 0
  %x0 = load {v}, ptr %px, align 4
  %x = fadd {v} %x0, {one}''')}
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
{chr(10).join(lines)}
  %i1 = add i64 %i, 1
  %go = icmp ult i64 %i1, {_ROUNDS}
  br i1 %go, label %loop, label %done
{_tail(v, _CHAINS)}"""
    return _program(text, 64, threads), 2.0 * lanes * _CHAINS * _ROUNDS * threads


def reader(nbytes: int, threads: int, from_memory: bool) -> Timed:
    """Every thread reads its share of `nbytes` as four streams, with prefetches where they lie beyond the caches."""
    lanes = host().lanes(4)
    v, per_line = f"<{lanes} x float>", 16 // lanes
    starts = [line for s in range(_STREAMS) for line in
              (f"  %o{s} = mul i64 %length, {s}", f"  %s{s} = getelementptr i8, ptr %own, i64 %o{s}")]  # fmt: skip
    lines, count = [], _STREAMS * per_line
    lines += [f"  %a{i} = phi {v} [ zeroinitializer, %entry ], [ %b{i}, %loop ]" for i in range(count)]
    for s in range(_STREAMS):
        lines.append(f"  %p{s} = getelementptr i8, ptr %s{s}, i64 %i")
        if from_memory:
            lines.append(f"  %f{s} = getelementptr i8, ptr %p{s}, i64 1024")
            lines.append(f"  call void @llvm.prefetch.p0(ptr %f{s}, i32 0, i32 2, i32 1)")
        for j in range(per_line):
            i = s * per_line + j
            lines.append(f"  %q{i} = getelementptr i8, ptr %p{s}, i64 {4 * lanes * j}")
            lines.append(f"  %v{i} = load {v}, ptr %q{i}, align {4 * lanes}")
            lines.append(f"  %b{i} = fadd {v} %a{i}, %v{i}")
    text = f"""
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
{_head(f'''  %lines = udiv i64 {nbytes // 64}, %nth
  %each = udiv i64 %lines, {_STREAMS}
  %length = mul i64 %each, 64
  %share = mul i64 %length, {_STREAMS}
  %first = mul i64 %ith, %share
  %own = getelementptr i8, ptr %weights, i64 %first
{chr(10).join(starts)}''')}
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
{chr(10).join(lines)}
  %i1 = add i64 %i, 64
  %go = icmp ult i64 %i1, %length
  br i1 %go, label %loop, label %done
{_tail(v, count)}"""
    return _program(text, nbytes, threads)


def turns(calls: Sequence[Timed], seconds: float, turn: float = 0.02) -> list[float]:
    """Nanoseconds of each call: the least of the medians of its turns, which are taken one after the other."""
    best = [float("inf")] * len(calls)
    for call, args in calls:
        call(*args)
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end:
        for i, (call, args) in enumerate(calls):
            times, stop = [], time.perf_counter() + turn
            while not times or time.perf_counter() < stop:
                begin = time.perf_counter_ns()
                call(*args)
                times.append(time.perf_counter_ns() - begin)
            best[i] = min(best[i], statistics.median(times))
    return best


def _head(start: str) -> str:
    return f"""define void @diptych_run(i64 %ith, i64 %nth, ptr %ctx) {{
entry:
  %arena = load ptr, ptr %ctx
  %wat = getelementptr i8, ptr %ctx, i64 8
  %weights = load ptr, ptr %wat
{start}
  br label %loop"""


def _tail(v: str, count: int) -> str:
    """The sum of all registers goes where nobody looks, that the loop is not for nothing."""
    lines, last = [], "%b0"
    for i in range(1, count):
        lines.append(f"  %c{i} = fadd {v} {last}, %b{i}")
        last = f"%c{i}"
    return f"""done:
{chr(10).join(lines)}
  %mine = mul i64 %ith, 64
  %to = getelementptr i8, ptr %arena, i64 %mine
  store {v} {last}, ptr %to, align 4
  ret void
}}
"""


def _program(text: str, nbytes: int, threads: int) -> Timed:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = host()
    machine = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small"
    )
    module = llvm.parse_assembly(text)
    module.verify()
    code: bytes = machine.emit_object(module)
    weights = aligned_bytes(max(nbytes, 64))
    weights[:] = 0
    x = TensorType((1, 16))
    made = Executable(code, weights=weights, arena_bytes=64 * threads, inputs=[("x", x)], outputs=[("y", x)], threads=threads)
    return made.call, [np.zeros((1, 16), np.float32)]
