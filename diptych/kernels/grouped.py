"""Convolution in groups of 2, 4 or 8 channels on the channel-blocked layout: groups that lie inside one block.

out[n, b, oh, ow, l] = epilogue(bias[b, l] + sum over taps, j of x[n, b, oh*s + kh*d, ow*s + kw*d, l - l % g + j] * w[b, kh, kw, j, l])

As in a depthwise convolution a vector of channels makes a vector of channels; each input column is shuffled g times, so
that every lane meets each channel of its group. As a dense product of 16 by 16 channels 16 / g times as much is multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val
from diptych.ir.kernel import Expr, Kernel, Operand
from diptych.kernels.access import shuffle
from diptych.kernels.base import emits
from diptych.kernels.columns import RowEnd
from diptych.kernels.nest import block_rows, expr_cost, split_work

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index, Var
    from diptych.targets.base import Target

__all__ = ["BLOCK", "GroupedParams", "make_grouped"]

BLOCK = 16
_FEWEST = 7  # sums that hide the latency of an FMA


@dataclass(frozen=True, slots=True)
class GroupedParams:
    """Operands: x[N, B, H, W, 16] (padded), w[B, KH, KW, g, 16], bias[B, 16] if `bias`, epilogue operands, out."""

    group: int  # channels of a group
    strides: tuple[int, int]
    dilations: tuple[int, int]
    bias: bool
    epilogue: Expr
    columns: int  # of a tile
    lanes: int
    dim: int
    block: int

    def __str__(self) -> str:
        return f"by {self.group} s{self.strides} d{self.dilations} tile={self.columns}x{self.lanes} [{self.epilogue}]"


def make_grouped(x: Operand, w: Operand, bias: Operand | None, out: Operand, strides: tuple[int, int],
                 dilations: tuple[int, int], target: Target, *, epilogue: Expr | None = None,
                 extras: Sequence[Operand] = ()) -> Kernel:  # fmt: skip
    """Convolution of f32 in groups of w.shape[3] channels, over x that is padded already. The inner 16 lanes of every
    operand are contiguous (an epilogue operand's may have stride 0)."""
    epilogue = epilogue or Expr.identity()
    for o in (x, w, out, *((bias,) if bias else ())):
        if o.dtype != "f32" or o.shape[-1] != BLOCK or o.strides[-1] != 1:
            raise ValueError(f"grouped: operand {o} is not f32 with {BLOCK} contiguous channels inside")
    group = w.shape[3]
    if BLOCK % group:
        raise ValueError(f"grouped: groups of {group} channels do not fill a block of {BLOCK}")
    width, kw = out.shape[3], w.shape[2]
    lanes = min(BLOCK, target.lanes(4))
    # Registers: one accumulator a column, the weights of a window row for one channel, a column and what is made of it.
    most = max(2, min(12, target.registers - 3 - min(kw, 6)))
    if target.registers <= 16:
        most = min(most, 8)
    columns = next((t for t in range(min(most, width), _FEWEST - 1, -1) if width % t == 0), min(most, max(1, width)))
    dim, block, work = split_work(out.shape[:3], max(1, 2048 // max(1, width * group)), 1)
    if 0 in out.shape:
        work = 0
    per_vector = prod(w.shape[1:4]) + 2 + expr_cost(epilogue) / 2
    cost = 20 + prod(out.shape) / lanes * per_vector / 3.0
    params = GroupedParams(group, strides, dilations, bias is not None, epilogue, columns, lanes, dim, block)
    return Kernel("grouped", params, (x, w, *((bias,) if bias else ()), *extras, out), 1, work, cost)


@emits("grouped")
def emit_grouped(fn: Fn, kernel: Kernel) -> None:
    """Row by row of outputs."""
    p: GroupedParams = kernel.params
    with block_rows(fn, kernel.operands[-1].shape[:3], p.dim, p.block) as (n, b, row):
        _Rows(fn, kernel, n, b, row).emit()


class _Rows:
    """One row of outputs of one block of channels."""

    def __init__(self, fn: Fn, kernel: Kernel, n: Index, b: Index, row: Index) -> None:
        self.fn = fn
        self.p: GroupedParams = kernel.params
        self.x, self.w, *rest = kernel.operands
        self.out, self.extras = rest[-1], rest[self.p.bias : -1]
        pointers = [fn.args[f"p{i}"] for i in range(len(kernel.operands))]
        first = fn.imul(row, self.p.strides[0])
        self.x_row = fn.at(pointers[0], fn.dot([n, b, first], self.x.strides[:3]))
        self.w_block = fn.at(pointers[1], fn.imul(b, self.w.strides[0]))
        self.bias = fn.at(pointers[2], fn.imul(b, rest[0].strides[0])) if self.p.bias else None
        starts = [
            fn.at(pointer, fn.dot([n, b, row], o.strides[:3]))
            for pointer, o in zip(pointers[2 + self.p.bias :], (*self.extras, self.out), strict=True)
        ]
        self.end = RowEnd(fn, self.p.epilogue, self.p.lanes, self.extras, self.out, starts)

    def emit(self) -> None:
        fn, p, width = self.fn, self.p, self.out.shape[3]
        for lane in self.lanes():
            with fn.loop(0, width // p.columns, name="tile") as tile:
                self.tile(fn.imul(tile, p.columns), lane, p.columns)
            if width % p.columns:
                self.tile(width - width % p.columns, lane, width % p.columns)

    def lanes(self) -> Iterator[Index]:
        """First lanes of the vectors of a block: known ones where a group is longer than a vector."""
        if self.p.group > self.p.lanes:
            yield from range(0, BLOCK, self.p.lanes)
        else:
            with self.fn.loop(0, BLOCK, self.p.lanes, name="lane") as lane:
                yield lane

    def tile(self, column: Index, lane: Index, columns: int) -> None:
        fn, p = self.fn, self.p
        s, d, kw = p.strides[1], p.dilations[1], self.w.shape[2]
        start = fn.load(fn.at(self.bias, lane), "f32", p.lanes) if self.bias is not None else fn.const(0, "f32", p.lanes)
        acc: list[Var] = [fn.var("f32", start.ir, p.lanes) for _ in range(columns)]
        x = fn.at(self.x_row, fn.imul(column, s * self.x.strides[3]))
        w = fn.at(self.w_block, lane)
        with fn.loop(0, self.w.shape[1], name="kh") as kh:
            x_at = fn.at(x, fn.imul(kh, p.dilations[0] * self.x.strides[2]))
            w_at = fn.at(w, fn.imul(kh, self.w.strides[1]))
            sums = [Val(a.get(), "f32", p.lanes) for a in acc]
            for j in range(p.group):
                weights = [
                    fn.load(fn.at(w_at, k * self.w.strides[2] + j * self.w.strides[3]), "f32", p.lanes) for k in range(kw)
                ]
                for offset in sorted({t * s + k * d for t in range(columns) for k in range(kw)}):
                    value = self.channel(fn.at(x_at, offset * self.x.strides[3]), lane, j)
                    for k in range(kw):
                        t, apart = divmod(offset - k * d, s)
                        if not apart and 0 <= t < columns:
                            sums[t] = fn.fma(value, weights[k], sums[t])
            for a, v in zip(acc, sums, strict=True):
                a.set(v.ir)
        self.end.finish(acc, column, lane)

    def channel(self, pixel: ir.Value, lane: Index, j: int) -> Val:
        """Channel j of each lane's group."""
        fn, p = self.fn, self.p
        if isinstance(lane, int):
            return fn.splat(fn.load(fn.at(pixel, lane - lane % p.group + j)), p.lanes)
        v = fn.load(fn.at(pixel, lane), "f32", p.lanes)
        return shuffle(fn, v, None, [i - i % p.group + j for i in range(p.lanes)])
