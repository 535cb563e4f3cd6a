"""Depthwise convolution on the channel-blocked layout: tiles of output columns held in registers.

out[n, b, oh, ow, c] = epilogue(bias[b, c] + sum over taps of x[n, b, oh*s - lo + kh*d, ..., c] * w[b, kh, kw, c])

Each input column of a tile is loaded once per window row and multiplied into every output column it meets. Padding
costs nothing: window rows outside the input are left out of a loop, window columns outside it at compile time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val
from diptych.ir.kernel import Expr, Kernel, Operand
from diptych.kernels.base import emits
from diptych.kernels.columns import RowEnd
from diptych.kernels.nest import block_rows, expr_cost, split_work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.codegen.builder import Fn, Index, Var
    from diptych.targets.base import Target

__all__ = ["BLOCK", "DepthwiseParams", "make_depthwise"]

BLOCK = 16

Tap = tuple[int, int]  # output column of the tile, window column


@dataclass(frozen=True, slots=True)
class DepthwiseParams:
    """Operands: x[N, B, H, W, 16], w[B, KH, KW, 16] (packed), bias[B, 16] if `bias`, epilogue operands, out."""

    strides: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]
    dilations: tuple[int, int]
    bias: bool
    epilogue: Expr
    columns: int  # of a tile, at most
    lanes: int
    dim: int
    block: int

    def __str__(self) -> str:
        return f"s{self.strides} p{self.pads} d{self.dilations} tile={self.columns}x{self.lanes} [{self.epilogue}]"


def make_depthwise(x: Operand, w: Operand, bias: Operand | None, out: Operand, strides: tuple[int, int],
                   pads: tuple[tuple[int, int], tuple[int, int]], dilations: tuple[int, int], target: Target, *,
                   epilogue: Expr | None = None, extras: Sequence[Operand] = ()) -> Kernel:  # fmt: skip
    """Depthwise convolution of f32. The inner 16 lanes of every operand are contiguous (an epilogue operand's may have
    stride 0); one-dimensional convolutions are images of height 1."""
    epilogue = epilogue or Expr.identity()
    for o in (x, w, out, *((bias,) if bias else ())):
        if o.dtype != "f32" or o.shape[-1] != BLOCK or o.strides[-1] != 1:
            raise ValueError(f"depthwise: operand {o} is not f32 with {BLOCK} contiguous channels inside")
    kw = w.shape[2]
    lanes = min(BLOCK, target.lanes(4))
    # Registers: one accumulator a column, the window row's weights, two input columns in flight.
    most = max(2, min(12, target.registers - 2 - min(kw, 6)))
    if target.registers <= 16:
        most = min(most, 8)
    width = out.shape[3]
    dim, block, work = split_work(out.shape[:3], max(1, 4096 // max(1, width * BLOCK)), 1)
    if 0 in out.shape:
        work = 0
    per_vector = prod(w.shape[1:3]) / 2 + 2 + expr_cost(epilogue) / 2
    cost = 20 + prod(out.shape) / lanes * per_vector / 3.0
    params = DepthwiseParams(strides, pads, dilations, bias is not None, epilogue, most, lanes, dim, block)
    return Kernel("depthwise", params, (x, w, *((bias,) if bias else ()), *extras, out), 1, work, cost)


@emits("depthwise")
def emit_depthwise(fn: Fn, kernel: Kernel) -> None:
    """Row by row of outputs."""
    p: DepthwiseParams = kernel.params
    with block_rows(fn, kernel.operands[-1].shape[:3], p.dim, p.block) as (n, b, row):
        _Rows(fn, kernel, n, b, row).emit()


class _Rows:
    """One row of outputs of one block of channels."""

    def __init__(self, fn: Fn, kernel: Kernel, n: Index, b: Index, row: Index) -> None:
        self.fn = fn
        self.p: DepthwiseParams = kernel.params
        self.x, self.w, *rest = kernel.operands
        self.out = rest[-1]
        self.extras = rest[self.p.bias : -1]
        p = self.p
        self.kernel = self.w.shape[1:3]
        pointers = [fn.args[f"p{i}"] for i in range(len(kernel.operands))]
        s, (lo, _), d = p.strides[0], p.pads[0], p.dilations[0]
        first = fn.isub(fn.imul(row, s), lo)
        self.tap_lo, self.tap_hi = self._taps(first)
        self.x_row = fn.at(pointers[0], fn.dot([n, b, first], self.x.strides[:3]))
        self.x_step = d * self.x.strides[2]
        self.w_block = fn.at(pointers[1], fn.imul(b, self.w.strides[0]))
        self.bias = fn.at(pointers[2], fn.imul(b, rest[0].strides[0])) if p.bias else None
        starts = [
            fn.at(pointer, fn.dot([n, b, row], o.strides[:3]))
            for pointer, o in zip(pointers[2 + p.bias :], (*self.extras, self.out), strict=True)
        ]
        self.end = RowEnd(fn, p.epilogue, p.lanes, self.extras, self.out, starts)

    def _taps(self, first: Index) -> tuple[Index, Index]:
        """Window rows inside the input."""
        p, fn, size, k = self.p, self.fn, self.x.shape[2], self.kernel[0]
        lo, d = p.pads[0][0], p.dilations[0]
        if lo == 0 and (self.out.shape[2] - 1) * p.strides[0] + d * (k - 1) < size:
            return 0, k
        tap_lo = fn.idiv(fn.iadd(fn.imax(fn.isub(0, first), 0), d - 1), d)
        return tap_lo, fn.imin(fn.idiv(fn.imax(fn.iadd(fn.isub(size, first), d - 1), 0), d), k)

    def emit(self) -> None:
        """The row's segments: within one, all tiles meet the border in the same way and share their code."""
        fn, p = self.fn, self.p
        for start, columns, count in self._segments():
            taps = self._valid(start, columns)
            with fn.loop(0, count, name="tile") as tile, fn.loop(0, BLOCK, p.lanes, name="lane") as lane:
                self.tile(fn.iadd(fn.imul(tile, columns), start), lane, taps, columns)

    def _segments(self) -> list[tuple[int, int, int]]:
        """(first column, columns of a tile, tiles).

        Short rows are cut into even tiles, border included: fastest. In long ones the border columns are tiles of their
        own, which is less code, and they are few.
        """
        width, most, k = self.out.shape[3], self.p.columns, self.kernel[1]
        whole = [len(self._valid(c, 1)) == k for c in range(width)]
        left, stop = (whole.index(True), width - whole[::-1].index(True)) if any(whole) else (width, width)
        inner = stop - left
        if width > 4 * most and inner > width // 2:
            fitting = [t for t in (most - 1, most) if t > 1 and inner % t == 0]
            columns = max(fitting, default=most)
            found = [(c, min(most, left - c), 1) for c in range(0, left, most)]
            found.append((left, columns, inner // columns))
            if inner % columns:
                found.append((stop - inner % columns, inner % columns, 1))
            return found + [(c, min(most, width - c), 1) for c in range(stop, width, most)]
        columns = -(-width // max(1, -(-width // most)))
        found = []
        for start in range(0, width, columns):
            size = min(columns, width - start)
            if found and found[-1][1] == size and self._valid(found[-1][0], size) == self._valid(start, size):
                found[-1] = (*found[-1][:2], found[-1][2] + 1)
            else:
                found.append((start, size, 1))
        return found

    def _valid(self, column: int, columns: int) -> list[Tap]:
        s, (lo, _), d = self.p.strides[1], self.p.pads[1], self.p.dilations[1]
        return [
            (j, k)
            for j in range(columns)
            for k in range(self.kernel[1])
            if 0 <= (column + j) * s - lo + k * d < self.x.shape[3]
        ]

    def tile(self, column: Index, lane: Index, taps: list[Tap], columns: int) -> None:
        fn, p = self.fn, self.p
        s, (lo, _), d = p.strides[1], p.pads[1], p.dilations[1]
        start = fn.load(fn.at(self.bias, lane), "f32", p.lanes) if self.bias is not None else fn.const(0, "f32", p.lanes)
        acc: list[Var] = [fn.var("f32", start.ir, p.lanes) for _ in range(columns)]
        x = fn.at(self.x_row, fn.iadd(fn.imul(fn.isub(fn.imul(column, s), lo), self.x.strides[3]), lane))
        w = fn.at(self.w_block, lane)
        with fn.loop(self.tap_lo, self.tap_hi, name="kh") as kh:
            x_at = fn.at(x, fn.imul(kh, self.x_step))
            w_at = fn.at(w, fn.imul(kh, self.w.strides[1]))
            weights = {
                k: fn.load(fn.at(w_at, k * self.w.strides[2]), "f32", p.lanes) for k in sorted({k for _, k in taps})
            }
            sums = [Val(a.get(), "f32", p.lanes) for a in acc]
            for offset in sorted({j * s + k * d for j, k in taps}):
                value = fn.load(fn.at(x_at, offset * self.x.strides[3]), "f32", p.lanes)
                for j, k in taps:
                    if j * s + k * d == offset:
                        sums[j] = fn.fma(value, weights[k], sums[j])
            for a, v in zip(acc, sums, strict=True):
                a.set(v.ir)
        self.end.finish(acc, column, lane)
