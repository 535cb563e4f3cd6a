"""Convolution to a few channels: sums that are as long as the window is wide, for one or a handful of outputs a pixel.

out[n, o, *t] = epilogue(bias[o] + sum over taps, c of x[n, c, *(t * stride + tap)] * w[o, tap, c])

A panel of 16 outputs would be mostly zeros here. With plain x, vectors run along the pixels, and a weight is a factor of
all of them. With blocked x, vectors are channels of one pixel: as many sums as a vector has lanes are added up across
their lanes at the end, all at once.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Expr, Kernel, Operand
from diptych.kernels.access import keep_lanes, load_lanes, store_lanes, sum_lanes
from diptych.kernels.base import emits, evaluate
from diptych.kernels.nest import expr_cost, items, merged, spans, split_work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.codegen.builder import Fn, Index, Var
    from diptych.targets.base import Target

__all__ = ["NarrowParams", "make_narrow_conv"]

BLOCK = 16
_ACCUMULATORS = 8  # independent sums that hide the latency of an FMA


@dataclass(frozen=True, slots=True)
class NarrowParams:
    """Operands: x (padded), w[O, B, *K, 16] (blocked x) or w[O, C, *K], bias[O] if `bias`, epilogue operands, out.

    `dims` are the images and the pixels, those axes merged that every operand walks as one; `walks` the strides of x
    (times those of the window), epilogue operands and out over them.
    """

    dims: tuple[int, ...]
    walks: tuple[tuple[int, ...], ...]
    channels: int
    x_step: int  # from a channel (blocked x: from a block) to the next
    taps: tuple[int, ...]  # offsets in x
    out_steps: tuple[int, ...]  # from one output channel to the next, of epilogue operands and out
    blocked: bool
    bias: bool
    epilogue: Expr
    dim: int
    block: int
    lanes: int
    wide: int  # pixels worked out together

    def __str__(self) -> str:
        how = "blocked" if self.blocked else "plain"
        return f"of {self.channels} {how} channels, {len(self.taps)} taps, {'x'.join(map(str, self.dims))} pixels [{self.epilogue}]"


def make_narrow_conv(x: Operand, w: Operand, bias: Operand | None, out: Operand, strides: tuple[int, ...],
                     taps: Sequence[int], channels: int, target: Target, *, blocked: bool, epilogue: Expr | None = None,
                     extras: Sequence[Operand] = ()) -> Kernel:  # fmt: skip
    """Convolution of x[N, C, *S] (blocked: [N, C/16, *S, 16]) to the few channels of plain out[N, O, *T], all f32.

    x is padded already; `taps` are the offsets in it that the window's elements lie at."""
    epilogue = epilogue or Expr.identity()
    rank = len(out.shape) - 2
    n, outputs, *spatial = out.shape
    if any(o.dtype != "f32" for o in (x, w, out, *extras)) or len(x.shape) != 2 + rank + blocked or (blocked and x.strides[-1] != 1):
        raise ValueError(f"narrow_conv: {x} and {out} are not the {'blocked' if blocked else 'plain'} input and the plain result of one")
    walks = [(x.strides[0], *(s * t for s, t in zip(x.strides[2 : 2 + rank], strides, strict=True)))]
    walks += [(o.strides[0], *o.strides[2:]) for o in (*extras, out)]
    dims, over = merged((n, *spatial), walks)
    if not dims:
        dims, over = [prod((n, *spatial))], [[0] for _ in walks]
    lanes = min(BLOCK, target.lanes(4))
    if blocked:
        wide = 16 if target.registers >= 24 else 8
        wide = max(wide, lanes)
    else:
        # A row in even steps of several vectors.
        vectors = max(1, dims[-1] // lanes)
        wide = lanes * -(-vectors // -(-vectors // max(1, _ACCUMULATORS // outputs)))
    macs = channels * len(taps) * outputs
    dim, block, work = split_work(dims, max(64, 32768 // max(1, macs)), wide)
    cost = 20 + prod(dims) * (macs / lanes / 3 + outputs * (2 + expr_cost(epilogue)) / lanes)
    steps = tuple(o.strides[1] for o in (*extras, out))
    made = NarrowParams(tuple(dims), tuple(map(tuple, over)), channels, x.strides[1], tuple(taps), steps, blocked, bias is not None,
                        epilogue, dim, block, lanes, wide)  # fmt: skip
    return Kernel("narrow_conv", made, (x, w, *((bias,) if bias else ()), *extras, out), 1, work, cost)


@emits("narrow_conv")
def emit_narrow_conv(fn: Fn, kernel: Kernel) -> None:
    """Loops over the pixels, the last of their axes some at a time."""
    p: NarrowParams = kernel.params
    last = len(p.dims) - 1
    narrow = _Narrow(fn, kernel)
    with items(fn, p.dims, p.dim, p.block) as (lead, _, lo, hi), ExitStack() as stack:
        where: list[Index] = list(lead)
        for d in range(p.dim, last):
            bounds: tuple[Index, Index] = (lo, hi) if d == p.dim else (0, p.dims[d])
            where.append(stack.enter_context(fn.loop(*bounds, name=f"d{d}")))
        if p.dim < last:
            lo, hi = 0, p.dims[last]
        at = [fn.dot(where, walk[:last]) for walk in p.walks]
        step = p.wide if p.blocked else p.lanes
        spans(fn, lo, hi, step, p.wide, p.dims[last] % step, lambda i, lanes, count: narrow.pixels(at, i, lanes, count))


class _Narrow:
    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn, self.math = fn, Math(fn)
        self.p: NarrowParams = kernel.params
        self.x, self.w, *rest = kernel.operands
        self.out = rest[-1]
        self.outputs = self.out.shape[1]
        self.rest = rest[self.p.bias :]
        self.pointers = [fn.args[f"p{i}"] for i in range(len(kernel.operands))]
        self.biases = self.pointers[2] if self.p.bias else None

    def pixels(self, at: Sequence[Index], i: Index, lanes: int, count: int) -> None:
        """`count` pixels from number `i` of the last axis on."""
        fn, p = self.fn, self.p
        at = [fn.iadd(a, fn.imul(i, walk[-1])) for a, walk in zip(at, p.walks, strict=True)]
        if not p.blocked:
            parts = [(v, min(lanes, p.lanes), min(count - v, p.lanes)) for v in range(0, lanes, p.lanes)]
            for o, totals in enumerate(self.along_pixels(at[0], parts)):
                for total, (v, _, kept) in zip(totals, parts, strict=True):
                    self.finish(total, at[1:], o, v, kept)
            return
        for o in range(self.outputs):
            sums = self.along_channels(at[0], o, count)
            for v in range(0, count, p.lanes):
                group = sums[v : v + p.lanes]
                group += [fn.const(0.0, "f32", p.lanes)] * (p.lanes - len(group))
                self.finish(sum_lanes(fn, group, self.math.add), at[1:], o, v, min(p.lanes, count - v))

    # -- sums -----------------------------------------------------------------------------------------------------
    def each_tap(self, stack: ExitStack) -> tuple[Index, Index]:
        """(number, offset) of a tap, in a loop over a table when there are several."""
        fn, p = self.fn, self.p
        if len(p.taps) == 1:
            return 0, p.taps[0]
        name = f"taps.{fn.function.name}"
        table = fn.module.globals.get(name)
        if table is None:
            t = ir.ArrayType(ir.IntType(64), len(p.taps))
            table = ir.GlobalVariable(fn.module, t, name)
            table.initializer, table.global_constant, table.linkage = ir.Constant(t, list(p.taps)), True, "internal"
        tap = stack.enter_context(fn.loop(0, len(p.taps), name="tap"))
        return tap, fn.load(fn.at(table, tap, "i64"), "i64").ir

    def along_pixels(self, at: Index, parts: Sequence[tuple[int, int, int]]) -> list[list[Val]]:
        """The sums of every output for vectors of pixels: (first pixel, lanes, how many of them exist) each."""
        fn, p = self.fn, self.p
        zeros = [fn.const(0.0, "f32", lanes).ir for _, lanes, _ in parts]
        acc: list[list[Var]] = [[fn.var("f32", z, lanes) for z, (_, lanes, _) in zip(zeros, parts, strict=True)] for _ in range(self.outputs)]
        with ExitStack() as stack:
            c = stack.enter_context(fn.loop(0, p.channels, name="channel"))
            tap, offset = self.each_tap(stack)
            here = fn.iadd(fn.iadd(at, offset), fn.imul(c, p.x_step))
            step = p.walks[0][-1]
            xs = [load_lanes(fn, self.pointers[0], fn.iadd(here, v * step), step, "f32", lanes, count) for v, lanes, count in parts]
            weight = fn.iadd(fn.imul(c, len(p.taps)), tap)
            for o, sums in enumerate(acc):
                w = fn.load(fn.at(self.pointers[1], fn.iadd(weight, o * p.channels * len(p.taps))))
                for a, x in zip(sums, xs, strict=True):
                    a.set(fn.fma(x, fn.splat(w, x.lanes), Val(a.get(), "f32", x.lanes)).ir)
        return [[Val(a.get(), "f32", lanes) for a, (_, lanes, _) in zip(sums, parts, strict=True)] for sums in acc]

    def along_channels(self, at: Index, o: int, count: int) -> list[Val]:
        """The sums of output `o` for `count` pixels, each still spread over the lanes."""
        fn, p = self.fn, self.p
        blocks, taps = self.w.shape[1], len(p.taps)
        tail = p.channels % BLOCK
        acc: list[Var] = [fn.var("f32", fn.const(0.0, "f32", p.lanes).ir, p.lanes) for _ in range(count)]

        def block(here: Index, weight: Index, real: int) -> None:
            for first in range(0, real, p.lanes):
                w = fn.load(fn.at(self.pointers[1], fn.iadd(weight, first)), "f32", p.lanes)
                for i, a in enumerate(acc):
                    x = fn.load(fn.at(self.pointers[0], fn.iadd(here, i * p.walks[0][-1] + first)), "f32", p.lanes)
                    # Lanes past the last channel hold anything, NaN among it.
                    x = keep_lanes(fn, x, min(p.lanes, real - first), fn.const(0.0, "f32", p.lanes))
                    a.set(fn.fma(x, w, Val(a.get(), "f32", p.lanes)).ir)

        with ExitStack() as stack:
            tap, offset = self.each_tap(stack)
            here, weight = fn.iadd(at, offset), fn.iadd(fn.imul(tap, BLOCK), o * blocks * taps * BLOCK)
            whole = blocks - bool(tail)
            if whole:
                with fn.loop(0, whole, name="block") as b:
                    block(fn.iadd(here, fn.imul(b, p.x_step)), fn.iadd(weight, fn.imul(b, taps * BLOCK)), BLOCK)
            if tail:
                block(fn.iadd(here, whole * p.x_step), fn.iadd(weight, whole * taps * BLOCK), tail)
        return [Val(a.get(), "f32", p.lanes) for a in acc]

    # -- leaving the registers --------------------------------------------------------------------------------------
    def finish(self, total: Val, at: Sequence[Index], o: int, first: int, count: int) -> None:
        """Bias, epilogue and store of `count` pixels from number `first` of these on."""
        fn, p, lanes = self.fn, self.p, total.lanes
        if self.biases is not None:
            total = self.math.add(total, fn.splat(fn.load(fn.at(self.biases, o)), lanes))
        where = [fn.iadd(a, o * step + first * walk[-1]) for a, step, walk in zip(at, p.out_steps, p.walks[1:], strict=True)]
        values = [total]
        pointers = self.pointers[2 + p.bias :]
        for pointer, place, walk in zip(pointers[:-1], where[:-1], p.walks[1:-1], strict=True):
            values.append(load_lanes(fn, pointer, place, walk[-1], "f32", lanes, count))
        result = fn.splat(evaluate(self.math, p.epilogue, values)[0], lanes)
        store_lanes(fn, result, pointers[-1], where[-1], p.walks[-1][-1], count)
