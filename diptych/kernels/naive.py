"""Products for the cases without a crafted kernel: any dtype, weights that arrive at run time. Right first, then quick."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.kernels.access import load_lanes, store_lanes
from diptych.kernels.base import emits
from diptych.kernels.nest import advance, items, lines, loops, register_dtype, spans, split_work, vector_lanes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.codegen.builder import Fn, Index, Var
    from diptych.targets.base import Target

__all__ = ["ConvParams", "ProductParams", "make_naive_conv", "make_naive_matmul"]

_GRAIN = 20000  # multiplications of a work item
_TILE = 4  # rows, or output channels, that share what is loaded
_PER_NS = 8.0  # multiplications a nanosecond, for vectors of 8


@dataclass(frozen=True, slots=True)
class ProductParams:
    """Operands a[*batch, M, K], b[*batch, K, N], out[*batch, M, N] (strides 0 where they broadcast); items are rows."""

    depth: int
    dim: int
    block: int
    lanes: int

    def __str__(self) -> str:
        return f"K={self.depth}"


@dataclass(frozen=True, slots=True)
class ConvParams:
    """Operands x[N, C, *S] (padded already), w[O, C/groups, *K], bias[O] where there is one, out[N, O, *T].

    Items run over (N, O / tile, *T without its last axis).
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int
    tile: int  # output channels at a time
    dim: int
    block: int
    lanes: int

    def __str__(self) -> str:
        return f"strides={self.strides} dilations={self.dilations} groups={self.groups}"


def make_naive_matmul(a: Operand, b: Operand, out: Operand, target: Target) -> Kernel:
    """out = a @ b for any dtype that has arithmetic; all three over the same batch axes."""
    depth, n = a.shape[-1], out.shape[-1]
    lanes = vector_lanes([out.dtype], target)
    dim, block, work = split_work(out.shape[:-1], max(1, _GRAIN // max(1, depth * n)), _TILE)
    cost = 20 + prod(out.shape) * max(1, depth) / _PER_NS * 8 / lanes
    return Kernel("naive_matmul", ProductParams(depth, dim, block, lanes), (a, b, out), 1, work, cost)


def make_naive_conv(x: Operand, w: Operand, bias: Sequence[Operand], out: Operand, strides: tuple[int, ...],
                    dilations: tuple[int, ...], groups: int, target: Target) -> Kernel:  # fmt: skip
    """Convolution of a padded input, any rank."""
    per_group = out.shape[1] // groups
    tile = next(t for t in range(min(_TILE, per_group), 0, -1) if per_group % t == 0)
    lanes = vector_lanes([out.dtype], target)
    taps = prod(w.shape[1:])
    shape = _conv_shape(out, tile)
    dim, block, work = split_work(shape, max(1, _GRAIN // max(1, taps * tile * out.shape[-1])), 1)
    cost = 20 + prod(out.shape) * taps / _PER_NS * 8 / lanes
    params = ConvParams(strides, dilations, groups, tile, dim, block, lanes)
    return Kernel("naive_conv", params, (x, w, *bias, out), 1, work, cost)


def _conv_shape(out: Operand, tile: int) -> tuple[int, ...]:
    return (out.shape[0], out.shape[1] // tile, *out.shape[2:-1])


class _Sums:
    """Accumulators, wide enough for half precision."""

    def __init__(self, fn: Fn, dtype: str, count: int, lanes: int) -> None:
        self.math, self.stored, self.dtype, self.lanes = Math(fn), dtype, register_dtype(dtype), lanes
        zero = self.math.const(0, self.dtype, lanes).ir
        self.vars: list[Var] = [fn.var(zero.type, zero) for _ in range(count)]

    def add(self, i: int, a: Val, b: Val) -> None:
        """sums[i] += a * b."""
        m = self.math
        a, b = m.cast(a, self.dtype), m.cast(b, self.dtype)
        self.vars[i].set((m.fma(a, b, self[i]) if self.dtype[0] == "f" else m.add(m.mul(a, b), self[i])).ir)

    def __getitem__(self, i: int) -> Val:
        return Val(self.vars[i].get(), self.dtype, self.lanes)


@emits("naive_matmul")
def emit_naive_matmul(fn: Fn, kernel: Kernel) -> None:
    """A few rows by two vectors of columns at a time, along the whole depth."""
    p: ProductParams = kernel.params
    operands = a, b, out = kernel.operands
    rows = out.shape[:-1]
    last = len(rows) - 1

    def block(at: list[Index], row: Index, count: int) -> None:
        where = advance(fn, at, row, (a.strides[last], 0, out.strides[last]))

        def columns(j: Index, lanes: int, kept: int) -> None:
            sums = _Sums(fn, out.dtype, count, lanes)
            with fn.loop(0, p.depth, name="k") as k:
                at_b = fn.iadd(where[1], fn.iadd(fn.imul(k, b.strides[-2]), fn.imul(j, b.strides[-1])))
                bv = load_lanes(fn, fn.args["p1"], at_b, b.strides[-1], b.dtype, lanes, kept)
                for r in range(count):
                    at_a = fn.iadd(where[0], fn.iadd(fn.imul(k, a.strides[-1]), r * a.strides[last]))
                    sums.add(r, fn.splat(fn.load(fn.at(fn.args["p0"], at_a, a.dtype), a.dtype), lanes), bv)
            for r in range(count):
                at_out = fn.iadd(where[2], fn.iadd(fn.imul(j, out.strides[-1]), r * out.strides[last]))
                store_lanes(fn, sums.math.cast(sums[r], out.dtype), fn.args["p2"], at_out, out.strides[-1], kept)

        n = out.shape[-1]
        spans(fn, 0, n, p.lanes, 2 * p.lanes, n % p.lanes, columns)

    with lines(fn, rows, p.dim, p.block, [o.strides for o in operands]) as (at, lo, hi):
        whole = fn.iadd(lo, fn.imul(fn.idiv(fn.isub(hi, lo), _TILE), _TILE))
        with fn.loop(lo, whole, _TILE, name="row") as row:
            block(at, row, _TILE)
        with fn.loop(whole, hi, name="row") as row:
            block(at, row, 1)


@emits("naive_conv")
def emit_naive_conv(fn: Fn, kernel: Kernel) -> None:
    """A few output channels by two vectors along the last axis at a time, over all channels and taps."""
    p: ConvParams = kernel.params
    x, w, *biases, out = kernel.operands
    shape = _conv_shape(out, p.tile)
    per_group, taps = w.shape[1], w.shape[2:]
    out_walk = [out.strides[0], p.tile * out.strides[1], *out.strides[2:-1]]
    x_walk = [x.strides[0], 0, *(s * k for s, k in zip(x.strides[2:-1], p.strides[:-1], strict=True))]
    tap_walk = [s * d for s, d in zip(x.strides[2:], p.dilations, strict=True)]
    step = x.strides[-1] * p.strides[-1]

    def pixels(tile: Index, at_x: Index, at_out: Index, i: Index, lanes: int, kept: int) -> None:
        sums = _Sums(fn, out.dtype, p.tile, lanes)
        group = fn.idiv(tile, out.shape[1] // p.groups // p.tile)
        first = fn.iadd(fn.iadd(at_x, fn.imul(group, per_group * x.strides[1])), fn.imul(i, step))
        at_w = fn.imul(tile, p.tile * w.strides[0])
        ranges: list[tuple[Index, Index]] = [(0, per_group), *((0, k) for k in taps)]
        with loops(fn, ranges, [[x.strides[1], *tap_walk], w.strides[1:]], [first, at_w]) as (now, weight):
            xv = load_lanes(fn, fn.args["p0"], now, step, x.dtype, lanes, kept)
            for r in range(p.tile):
                address = fn.at(fn.args["p1"], fn.iadd(weight, r * w.strides[0]), w.dtype)
                sums.add(r, fn.splat(fn.load(address, w.dtype), lanes), xv)
        for r in range(p.tile):
            total = sums[r]
            if biases:
                at_bias = fn.imul(fn.iadd(fn.imul(tile, p.tile), r), biases[0].strides[0])
                bias = fn.load(fn.at(fn.args["p2"], at_bias, biases[0].dtype), biases[0].dtype)
                total = sums.math.add(total, fn.splat(sums.math.cast(bias, sums.dtype), lanes))
            where = fn.iadd(at_out, fn.iadd(r * out.strides[1], fn.imul(i, out.strides[-1])))
            pointer = fn.args[f"p{len(kernel.operands) - 1}"]
            store_lanes(fn, sums.math.cast(total, out.dtype), pointer, where, out.strides[-1], kept)

    with items(fn, shape, p.dim, p.block) as (lead, _, lo, hi), ExitStack() as stack:
        where = list(lead)
        for d in range(p.dim, len(shape)):
            start, stop = (lo, hi) if d == p.dim else (0, shape[d])
            where.append(stack.enter_context(fn.loop(start, stop, name=f"d{d}")))
        at_x, at_out = fn.dot(where, x_walk), fn.dot(where, out_walk)
        n = out.shape[-1]
        spans(fn, 0, n, p.lanes, 2 * p.lanes, n % p.lanes,
              lambda i, lanes, kept: pixels(where[1], at_x, at_out, i, lanes, kept))  # fmt: skip
