"""A convolution of a plain image and the max-pooling behind it, as one kernel with a rolling buffer of rows.

y[n, b, r, c] = first(bias + sum of the convolution over x)           rows of y live in a ring in the cache, never in memory
out[n, b, oh, ow] = second(max over the window of y[n, b, oh*s - lo + kh, ow*s - lo + kw])

The columns of the windows are reduced first, each once for all outputs that it belongs to. Where `first` leaves nothing
below zero, the order of the bits as unsigned numbers is that of the values, with every NaN above infinity: one
instruction takes a maximum that hands NaN on, where floats need three. That asks for no -0 either, and a sum with a
bias that is not -0 is never -0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import copysign, inf
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val, register_type
from diptych.ir.kernel import Kernel
from diptych.kernels.base import emits, evaluate
from diptych.kernels.row_ring import RingEmitter, RingParams, Window, between, check, first_tiles, ring_rows
from diptych.kernels.tile import PANEL
from diptych.kernels.tiling import pixel_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.ir.kernel import Expr, Operand
    from diptych.targets.base import Target

__all__ = ["ConvPoolParams", "item_panels", "make_conv_pool"]

_SPARE = 6  # registers of a pooling tile that hold no column


@dataclass(frozen=True, slots=True)
class ConvPoolParams(RingParams):
    """Operands: x, packed w, bias[B, 16] without -0 (see RingParams), out[N, B, OH, OW, 16]. `two` is the pool's window."""

    second: Expr
    parts: int  # items that share the rows of an image
    unsigned: bool  # maxima are taken of the bits

    @property
    def scratch(self) -> int:
        return 4 * self.held

    def flops(self, out: tuple[int, ...]) -> int:
        """Of the convolution, two per multiply-add; `out` is the shape of the result."""
        return 2 * out[0] * out[1] * out[-1] * self.rows * self.cols * self.taps

    def __str__(self) -> str:
        return (f"{self.channels} plain {self.one} -> {self.rows}x{self.cols} max {self.two} P={self.panels} "
                f"tiles={self.tiles} ring={self.ring} parts={self.parts} [{self.first}] [{self.second}]")  # fmt: skip


def make_conv_pool(operands: Sequence[Operand], one: Window, two: Window, channels: int, first: Expr, second: Expr,
                   parts: int, target: Target) -> Kernel:  # fmt: skip
    """Convolution and max-pooling of f32; `first` sees the sum with its bias, `second` the maximum.

    `operands` as ConvPoolParams has them, `parts` from `row_cuts`. The extents of the result decide how many windows
    there are; each must begin inside the padded image.
    """
    x, *_, out = operands
    check("conv_pool", operands)
    n, blocks, out_rows, out_cols, _ = out.shape
    rows, cols = between(x, one)
    for o, size, k, s, (lo, _) in zip((out_rows, out_cols), (rows, cols), two.kernel, two.strides, two.pads, strict=True):
        if (o - 1) * s - lo >= size or lo >= k:
            raise ValueError(f"conv_pool: a window of {two} over {rows}x{cols} holds nothing of the image")
    lanes = min(PANEL, target.lanes(4))
    panels = item_panels(blocks, target)
    most = (target.registers - _SPARE - two.kernel[1]) // two.strides[1] + 1
    columns = pixel_tiles(out_cols, max(1, most), 1)
    params = ConvPoolParams(
        channels, True, rows, cols, one, two, first, panels, first_tiles(cols, panels, target), columns, ring_rows(two),
        lanes, second, parts, _is_not_negative(first),
    )  # fmt: skip
    flops = params.flops(out.shape)
    return Kernel("conv_pool", params, tuple(operands), 1, n * blocks // panels * parts, flops / 60.0, params.scratch)


def _is_not_negative(expr: Expr) -> bool:
    """Whether the result is at least zero, not -0, or NaN: the sum limited from below by zero or more, and by nothing less."""
    limits = {expr.inputs + i for i, (value, _) in enumerate(expr.consts) if copysign(1.0, value) > 0 and value >= 0}
    base, safe = expr.inputs + len(expr.consts), set(limits)
    for i, (op, args) in enumerate(expr.steps):
        others = set(args) - safe
        limited = op.name == "relu" or (op.name == "maximum" and others != set(args))
        if (limited and others <= {0}) or (op.name == "minimum" and not others):
            safe.add(base + i)
    return set(expr.results) <= safe - limits


def item_panels(blocks: int, target: Target) -> int:
    """Blocks of channels of a work item."""
    return 2 if blocks % 2 == 0 and target.lanes(4) >= PANEL else 1


@emits("conv_pool")
def emit_conv_pool(fn: Fn, kernel: Kernel) -> None:
    """Rows of outputs one after another; before each, the rows of the image between that it is the first to need."""
    _ConvPool(fn, kernel).emit()


class _ConvPool(RingEmitter):
    p: ConvPoolParams

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        super().__init__(fn, kernel)
        self.out = kernel.operands[3]
        self.dtype = "i32" if self.p.unsigned else "f32"

    def emit(self) -> None:
        fn, p = self.fn, self.p
        n, blocks, out_rows = self.out.shape[:3]
        chunk = -(-out_rows // p.parts)
        self.clear(fn.const(0 if p.unsigned else -inf, "f32", p.lanes), p.panels)
        with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
            image, group, part = fn.unravel(item, (n, blocks // p.panels, p.parts))
            block = fn.imul(group, p.panels)
            begin = fn.imul(part, chunk)
            with fn.loop(begin, fn.imin(fn.iadd(begin, chunk), out_rows), name="row") as row:
                top = self.ready(image, block, row, begin)
                for q in range(p.panels):
                    self.pool(image, fn.iadd(block, q), row, top, q)

    def pool(self, image: ir.Value, block: ir.Value, row: ir.Value, top: ir.Value, panel: int) -> None:
        """One row of outputs from the ring."""
        fn, p = self.fn, self.p
        out = fn.at(self.pointers[3], fn.dot([image, block, row], self.out.strides[:3]))
        lo, hi = fn.imax(fn.isub(0, top), 0), fn.imin(fn.isub(p.rows, top), p.two.kernel[0])
        start = 0
        for width, count in p.columns:
            with fn.loop(0, count, name="tile") as t, fn.loop(0, PANEL, p.lanes, name="lane") as lane:
                column = fn.iadd(fn.imul(t, width), start)
                for j, y in enumerate(self.maxima(column, lane, width, (lo, hi), top, panel)):
                    place = fn.at(out, fn.iadd(fn.imul(fn.iadd(column, j), self.out.strides[3]), lane))
                    fn.store(evaluate(self.math, p.second, [y])[0], place)
            start += width * count

    def maxima(self, column: ir.Value, lane: ir.Value, width: int, taps: tuple[Index, Index], top: ir.Value,
               panel: int) -> list[Val]:  # fmt: skip
        """Of some neighbouring outputs: columns first, then along the row."""
        fn, p = self.fn, self.p
        s, k = p.two.strides[1], p.two.kernel[1]
        used = sorted({j * s + i for j in range(width) for i in range(k)})
        offset = fn.iadd(fn.imul(column, s * PANEL), lane)

        def load(kh: Index) -> list[Val]:
            x = fn.at(self.held(fn.iadd(top, kh), panel), offset)
            return [fn.load(fn.at(x, c * PANEL), self.dtype, p.lanes) for c in used]

        first = load(taps[0])
        acc = [fn.var(self.dtype, v.ir, p.lanes) for v in first]
        with fn.loop(fn.iadd(taps[0], 1), taps[1], name="kh") as kh:
            for a, v in zip(acc, load(kh), strict=True):
                a.set(self.larger(Val(a.get(), self.dtype, p.lanes), v).ir)
        of = {c: Val(a.get(), self.dtype, p.lanes) for c, a in zip(used, acc, strict=True)}
        found = [reduce(self.larger, [of[j * s + i] for i in range(k)]) for j in range(width)]
        return [Val(self.fn.b.bitcast(v.ir, register_type("f32", v.lanes)), "f32", v.lanes) for v in found] if p.unsigned else found

    def larger(self, a: Val, b: Val) -> Val:
        if not self.p.unsigned:
            return self.math.max(a, b)
        b_ = self.fn.b
        return Val(b_.select(b_.icmp_unsigned(">", a.ir, b.ir), a.ir, b.ir), a.dtype, a.lanes)
