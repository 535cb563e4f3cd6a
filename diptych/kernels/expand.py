"""A convolution and the depthwise convolution that follows it, as one kernel with a rolling buffer of rows.

y[n, b, r, c] = first(bias1 + sum of the convolution over x)          rows of y live in a ring in L1, never in memory
out[n, b, oh, ow] = second(bias2 + sum over taps of y[n, b, oh*s - lo + kh, ..] * w2[b, kh, kw])

A work item is some output rows of some blocks of 16 channels: an image is read once per block, but what the first
convolution makes (up to six times the channels of its input) stays in the cache. The first convolution is either a 1x1
on blocked channels or any window on a plain image of few channels; the ring's columns beside the image are zeros, so
the depthwise part knows no border columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val
from diptych.ir.kernel import Kernel
from diptych.kernels.base import emits, evaluate
from diptych.kernels.nest import expr_cost
from diptych.kernels.row_ring import HEAVY, RingEmitter, RingParams, Window, between, check, first_tiles, ring_rows
from diptych.kernels.tile import PANEL
from diptych.kernels.tiling import pixel_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.ir.kernel import Expr, Operand
    from diptych.targets.base import Target

__all__ = ["ExpandParams", "Window", "make_expand", "row_parts"]

_COLUMNS = 14  # output columns of a depthwise tile, at most


@dataclass(frozen=True, slots=True)
class DepthwiseRingParams(RingParams):
    """Also the depthwise convolution that reads the ring."""

    second: Expr  # of one register: the sum with its bias


@dataclass(frozen=True, slots=True)
class ExpandParams(DepthwiseRingParams):
    """Operands: x, packed w1, bias1[B, 16], w2[B, KH, KW, 16], bias2[B, 16], out[N, B, OH, OW, 16], with `sums` also
    sums[N, B, parts, 16]. See RingParams for the first three."""

    parts: int  # items that share the rows of an image
    sums: bool  # the sums of the outputs over each item's pixels are a second result

    @property
    def scratch(self) -> int:
        """The ring; the running sums lie behind it."""
        return 4 * (self.held + PANEL * self.panels)

    def flops(self, out: tuple[int, ...]) -> int:
        """Of both convolutions, two per multiply-add; `out` is the shape of the result."""
        n, blocks, rows, cols, lanes = out
        first = self.rows * self.cols * self.channels * prod(self.one.kernel)
        return 2 * n * blocks * lanes * (first + rows * cols * prod(self.two.kernel))

    def __str__(self) -> str:
        return (f"{self.channels}{' plain' if self.plain else ''} {self.one} -> {self.rows}x{self.cols} {self.two} "
                f"P={self.panels} tiles={self.tiles} ring={self.ring} parts={self.parts} [{self.first}] [{self.second}]")  # fmt: skip


def make_expand(operands: Sequence[Operand], one: Window, two: Window, plain: bool, channels: int, first: Expr,
                second: Expr, parts: int, target: Target) -> Kernel:  # fmt: skip
    """Convolution and depthwise convolution of f32; the expressions see one register, the sum with its bias.

    `operands` as ExpandParams has them; with a seventh, the sums [N, B, parts, 16] of the result over the pixels of each
    part of the rows are made too. `parts` comes from `row_parts`.
    """
    x, *_, out = operands[:6]
    check("expand", operands)
    n, blocks, _, out_cols, _ = out.shape
    rows, cols = between(x, one)
    lanes = min(PANEL, target.lanes(4))
    panels = _panels(blocks, cols, target)
    columns = pixel_tiles(out_cols, min(_COLUMNS, max(2, target.registers - 6)), 1)
    params = ExpandParams(
        channels, plain, rows, cols, one, two, first, panels, first_tiles(cols, panels, target), columns,
        ring_rows(two), lanes, second, parts, len(operands) == 7,
    )  # fmt: skip
    made = n * blocks * rows * cols * PANEL
    flops = 2.0 * made * channels * prod(one.kernel) + 2.0 * prod(out.shape) * prod(two.kernel)
    cost = flops / 60.0 + made / lanes * expr_cost(first) / 8 + prod(out.shape) / lanes * expr_cost(second) / 8
    work = n * blocks // panels * parts
    return Kernel("expand", params, tuple(operands), len(operands) - 5, work, cost, params.scratch)


def _panels(blocks: int, cols: int, target: Target) -> int:
    """Blocks of channels of an item: two where a row of one does not fill the accumulators."""
    return 2 if blocks % 2 == 0 and 2 * cols * PANEL // min(PANEL, target.lanes(4)) <= target.registers else 1


def row_parts(images: int, blocks: int, out_rows: int, cols: int, two: Window, target: Target) -> int:
    """Into how many parts the rows of an image are cut: equal loads for the threads, few rows made twice at the cuts."""
    items, overlap = images * blocks // _panels(blocks, cols, target), two.kernel[0] - two.strides[0]

    def cost(parts: int) -> float:
        chunk = -(-out_rows // parts)
        work = items * parts * (chunk * two.strides[0] + (overlap if parts > 1 else 0))
        each = items * -(-out_rows // chunk)
        return work * sum(-(-each // threads) * threads / max(1, each) for threads in (2, 2, 4))

    return min(range(1, 9), key=lambda parts: (cost(parts), parts))


class DepthwiseEmitter(RingEmitter):
    """Writes rows of a depthwise convolution of what is in the ring. Operands 3 and 4 are w2[B, KH, KW, 16] and bias2[B, 16]."""

    p: DepthwiseRingParams

    def depthwise(self, block: ir.Value, top: ir.Value, plane: Index, out: ir.Value, stride: int,
                  totals: ir.Value | None = None) -> None:  # fmt: skip
        """One row of outputs from the ring, whose window begins at row `top`; `totals` takes their sum."""
        fn, p = self.fn, self.p
        w = fn.at(self.pointers[3], fn.imul(block, prod(p.two.kernel) * PANEL))
        bias = fn.at(self.pointers[4], fn.imul(block, PANEL))
        lo, hi = fn.imax(fn.isub(0, top), 0), fn.imin(fn.isub(p.rows, top), p.two.kernel[0])
        heavy = expr_cost(p.second) > HEAVY
        start = 0
        for width, count in p.columns:
            with fn.loop(0, count, name="tile") as t, fn.loop(0, PANEL, p.lanes, name="lane") as lane:
                column = fn.iadd(fn.imul(t, width), start)
                sums = self.columns(column, lane, width, (lo, hi), top, plane, w, bias)
                values = sums if heavy else [evaluate(self.math, p.second, [y])[0] for y in sums]
                for j, y in enumerate(values):
                    fn.store(y, fn.at(out, fn.iadd(fn.imul(fn.iadd(column, j), stride), lane)))
                if totals is not None and not heavy:
                    self.accumulate(self.sum(values), fn.at(totals, lane))
            start += width * count
        if heavy:
            self.apply(p.second, out, start, totals)

    def columns(self, column: ir.Value, lane: ir.Value, width: int, taps: tuple[Index, Index], top: ir.Value, plane: Index,
                w: ir.Value, bias: ir.Value) -> list[Val]:  # fmt: skip
        """Sums of some output columns: every column of the ring is loaded once per window row."""
        fn, p = self.fn, self.p
        s, k = p.two.strides[1], p.two.kernel[1]
        start = fn.load(fn.at(bias, lane), "f32", p.lanes)
        acc = [fn.var("f32", start.ir, p.lanes) for _ in range(width)]
        offset = fn.iadd(fn.imul(column, s * PANEL), lane)
        with fn.loop(*taps, name="kh") as kh:
            x = fn.at(self.held(fn.iadd(top, kh), plane), offset)
            at = fn.at(w, fn.iadd(fn.imul(kh, k * PANEL), lane))
            weights = [fn.load(fn.at(at, i * PANEL), "f32", p.lanes) for i in range(k)]
            sums = [Val(a.get(), "f32", p.lanes) for a in acc]
            for i in range((width - 1) * s + k):
                met = [(j, i - j * s) for j in range(width) if 0 <= i - j * s < k]
                if not met:
                    continue
                value = fn.load(fn.at(x, i * PANEL), "f32", p.lanes)
                for j, tap in met:
                    sums[j] = fn.fma(value, weights[tap], sums[j])
            for a, v in zip(acc, sums, strict=True):
                a.set(v.ir)
        return [Val(a.get(), "f32", p.lanes) for a in acc]


@emits("expand")
def emit_expand(fn: Fn, kernel: Kernel) -> None:
    """Rows of outputs one after another; before each, the rows of the image between that it is the first to need."""
    _Expand(fn, kernel).emit()


class _Expand(DepthwiseEmitter):
    p: ExpandParams

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        super().__init__(fn, kernel)
        self.out = kernel.operands[5]
        self.totals = fn.at(fn.args["scratch"], self.p.held)

    def emit(self) -> None:
        fn, p = self.fn, self.p
        n, blocks, out_rows = self.out.shape[:3]
        chunk = -(-out_rows // p.parts)
        self.clear(fn.const(0, "f32", p.lanes), p.panels)
        with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
            image, group, part = fn.unravel(item, (n, blocks // p.panels, p.parts))
            block = fn.imul(group, p.panels)
            begin = fn.imul(part, chunk)
            if p.sums:
                with fn.loop(0, p.panels * PANEL, p.lanes, name="zero") as i:
                    fn.store(fn.const(0, "f32", p.lanes), fn.at(self.totals, i))
            with fn.loop(begin, fn.imin(fn.iadd(begin, chunk), out_rows), name="row") as row:
                top = self.ready(image, block, row, begin)
                for q in range(p.panels):
                    out = fn.at(self.pointers[5], fn.dot([image, fn.iadd(block, q), row], self.out.strides[:3]))
                    totals = fn.at(self.totals, q * PANEL) if p.sums else None
                    self.depthwise(fn.iadd(block, q), top, q, out, self.out.strides[3], totals)
            if p.sums:
                flat = fn.dot([image, block, part], [blocks * p.parts * PANEL, p.parts * PANEL, PANEL])
                for q in range(p.panels):
                    with fn.loop(0, PANEL, p.lanes, name="lane") as lane:
                        total = fn.load(fn.at(self.totals, fn.iadd(lane, q * PANEL)), "f32", p.lanes)
                        fn.store(total, fn.at(self.pointers[6], fn.iadd(flat, fn.iadd(lane, q * p.parts * PANEL))))
