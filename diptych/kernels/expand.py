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
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel
from diptych.kernels.base import emits, evaluate
from diptych.kernels.nest import expr_cost
from diptych.kernels.tile import PANEL, RegisterTile
from diptych.kernels.tiling import pixel_tiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.ir.kernel import Expr, Operand
    from diptych.targets.base import Target

__all__ = ["ExpandParams", "Window", "make_expand", "row_parts"]

_HEAVY = 12  # an epilogue of more vector work is a pass of its own over a row in L1: its constants stay in registers
_COLUMNS = 14  # output columns of a depthwise tile, at most

Pads = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Window:
    """Kernel, strides and pads over rows and columns."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads

    def __str__(self) -> str:
        return f"{self.kernel[0]}x{self.kernel[1]} s{self.strides} p{self.pads}"


@dataclass(frozen=True, slots=True)
class ExpandParams:
    """Operands: x, packed w1, bias1[B, 16], w2[B, KH, KW, 16], bias2[B, 16], out[N, B, OH, OW, 16], with `sums` also
    sums[N, B, parts, 16].

    x is [N, C/16, H, W, 16], or [N, C, H, W] if `plain`; w1 is [B][KH][C][KW][16], without the window if not `plain`.
    """

    channels: int
    plain: bool
    rows: int  # of the image between the two
    cols: int
    one: Window
    two: Window
    first: Expr
    second: Expr
    panels: int  # blocks of channels of a work item
    tiles: tuple[tuple[int, int], ...]  # register tiles of a row of the first: (columns, how many)
    columns: tuple[tuple[int, int], ...]  # and of the second
    ring: int  # rows kept, a power of two
    parts: int  # items that share the rows of an image
    sums: bool  # the sums of the outputs over each item's pixels are a second result
    lanes: int

    @property
    def width(self) -> int:
        """Columns of a ring row, zeros beside the image included."""
        (lo, _), (_, s), k = self.two.pads[1], self.two.strides, self.two.kernel[1]
        out = sum(w * n for w, n in self.columns)
        return max(lo + self.cols, (out - 1) * s + k)

    @property
    def held(self) -> int:
        """Elements of the ring; the running sums lie behind it."""
        return PANEL * self.panels * self.ring * self.width

    @property
    def scratch(self) -> int:
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
    for o in operands:
        if o.dtype != "f32" or o.strides[-1] != 1:
            raise ValueError(f"expand: operand {o} is not f32 with contiguous lanes inside")
    n, blocks, _, out_cols, _ = out.shape
    rows, cols = (
        (size + lo + hi - k) // s + 1
        for size, k, s, (lo, hi) in zip(x.shape[2:4], one.kernel, one.strides, one.pads, strict=True)
    )
    lanes = min(PANEL, target.lanes(4))
    vectors = PANEL // lanes
    spare = target.registers - 4 if target.registers > 16 else target.registers - 3
    panels = _panels(blocks, cols, target)
    most = max(1, min(28, spare // (vectors * panels)))
    held = two.kernel[0] + max(0, two.strides[0] - 1)
    ring = 1 << (held - 1).bit_length()
    columns = pixel_tiles(out_cols, min(_COLUMNS, max(2, target.registers - 6)), 1)
    params = ExpandParams(
        channels, plain, rows, cols, one, two, first, second, panels, pixel_tiles(cols, most, vectors * panels),
        columns, ring, parts, len(operands) == 7, lanes,
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


@emits("expand")
def emit_expand(fn: Fn, kernel: Kernel) -> None:
    """Rows of outputs one after another; before each, the rows of the image between that it is the first to need."""
    _Expand(fn, kernel).emit()


class _Expand:
    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn, self.math = fn, Math(fn)
        self.p: ExpandParams = kernel.params
        self.x, *_, self.out = kernel.operands[:6]
        self.pointers = [fn.args[f"p{i}"] for i in range(len(kernel.operands))]
        self.totals = fn.at(fn.args["scratch"], self.p.held)
        self.row = self.p.width * PANEL  # elements of a ring row
        self.taps = self.p.channels * prod(self.p.one.kernel)

    def emit(self) -> None:
        fn, p = self.fn, self.p
        n, blocks, out_rows = self.out.shape[:3]
        chunk = -(-out_rows // p.parts)
        (lo, _), s, k = p.two.pads[0], p.two.strides[0], p.two.kernel[0]
        self.clear()
        with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
            image, group, part = fn.unravel(item, (n, blocks // p.panels, p.parts))
            block = fn.imul(group, p.panels)
            begin = fn.imul(part, chunk)
            if p.sums:
                with fn.loop(0, p.panels * PANEL, p.lanes, name="zero") as i:
                    fn.store(fn.const(0, "f32", p.lanes), fn.at(self.totals, i))
            with fn.loop(begin, fn.imin(fn.iadd(begin, chunk), out_rows), name="row") as row:
                top = fn.isub(fn.imul(row, s), lo)
                stop = fn.imin(fn.iadd(top, k), p.rows)
                fresh = fn.b.icmp_signed("==", row, begin)
                start = fn.b.select(fresh, fn.index(0), fn.imin(fn.iadd(top, k - s), p.rows))
                with fn.loop(fn.imax(fn.imax(start, top), 0), stop, name="made") as made:
                    self.produce(image, block, made)
                for q in range(p.panels):
                    self.depthwise(image, fn.iadd(block, q), row, top, q)
            if p.sums:
                flat = fn.dot([image, block, part], [blocks * p.parts * PANEL, p.parts * PANEL, PANEL])
                for q in range(p.panels):
                    with fn.loop(0, PANEL, p.lanes, name="lane") as lane:
                        total = fn.load(fn.at(self.totals, fn.iadd(lane, q * PANEL)), "f32", p.lanes)
                        fn.store(total, fn.at(self.pointers[6], fn.iadd(flat, fn.iadd(lane, q * p.parts * PANEL))))

    def clear(self) -> None:
        """Zeros in the ring's columns beside the image."""
        fn, p, lo = self.fn, self.p, self.p.two.pads[1][0]
        zero = fn.const(0, "f32", p.lanes)
        with fn.loop(0, p.panels * p.ring, name="held") as held:
            row = fn.at(fn.args["scratch"], fn.imul(held, self.row))
            for start, stop in ((0, lo), (lo + p.cols, p.width)):
                with fn.loop(start * PANEL, stop * PANEL, p.lanes, name="zero") as i:
                    fn.store(zero, fn.at(row, i))

    def held(self, row: Index, panel: int) -> ir.Value:
        """Where a row of the image between lies in the ring."""
        fn, p = self.fn, self.p
        slot = fn.b.and_(fn.index(row), fn.index(p.ring - 1))
        return fn.at(fn.args["scratch"], fn.iadd(fn.imul(slot, self.row), panel * p.ring * self.row))

    # -- the first convolution ------------------------------------------------------------------------------------
    def produce(self, image: ir.Value, block: ir.Value, row: ir.Value) -> None:
        """One row of the image between."""
        fn, p = self.fn, self.p
        w = fn.at(self.pointers[1], fn.imul(block, self.taps * PANEL))
        bias = fn.at(self.pointers[2], fn.imul(block, PANEL))
        left = p.two.pads[1][0] * PANEL
        outs = [fn.at(self.held(row, q), left) for q in range(p.panels)]
        heavy = expr_cost(p.first) > _HEAVY
        for column, width in self.spans():
            tile = RegisterTile(fn, width, p.panels)
            (self.window if p.plain else self.pointwise)(tile, image, row, column, w)
            for q, out in enumerate(outs):
                at = fn.at(out, fn.imul(column, PANEL))
                for v in range(PANEL // p.lanes):
                    add = fn.load(fn.at(bias, q * PANEL + v * p.lanes), "f32", p.lanes)
                    for i in range(width):
                        y = self.math.add(Val(tile.acc[i][q][v].get(), "f32", p.lanes), add)
                        place = fn.at(at, i * PANEL + v * p.lanes)
                        fn.store(y if heavy else evaluate(self.math, p.first, [y])[0], place)
        if heavy:
            for out in outs:
                self.apply(p.first, out, p.cols)

    def apply(self, expr: Expr, at: ir.Value, pixels: int, totals: ir.Value | None = None) -> None:
        """The expression over contiguous pixels in place, some vectors at a time; `totals` takes their sum."""
        fn, lanes = self.fn, self.p.lanes
        step = next(u for u in (4, 2, 1) if pixels % u == 0)
        with fn.loop(0, PANEL, lanes, name="lane") as lane:
            total = fn.var("f32", fn.const(0, "f32", lanes).ir, lanes)
            with fn.loop(0, pixels, step, name="apply") as i:
                places = [fn.at(at, fn.iadd(fn.imul(fn.iadd(i, u), PANEL), lane)) for u in range(step)]
                values = [evaluate(self.math, expr, [fn.load(a, "f32", lanes)])[0] for a in places]
                for place, value in zip(places, values, strict=True):
                    fn.store(value, place)
                if totals is not None:
                    total.set(self.math.add(Val(total.get(), "f32", lanes), self.sum(values)).ir)
            if totals is not None:
                self.accumulate(Val(total.get(), "f32", lanes), fn.at(totals, lane))

    def sum(self, values: Sequence[Val]) -> Val:
        """Pairwise sum."""
        while len(values) > 1:
            pairs = [self.math.add(a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
            values = pairs + ([values[-1]] if len(values) % 2 else [])
        return values[0]

    def accumulate(self, value: Val, at: ir.Value) -> None:
        self.fn.store(self.math.add(self.fn.load(at, "f32", self.p.lanes), value), at)

    def spans(self) -> Iterator[tuple[Index, int]]:
        """(first column, columns) of the tiles of a row; those that meet the image's border come with a constant."""
        fn, p, start = self.fn, self.p, 0
        for width, count in p.tiles:
            inside = [t for t in range(count) if self.whole(start + t * width, width)]
            first, last = (inside[0], inside[-1] + 1) if inside else (count, count)
            for t in range(first):
                yield start + t * width, width
            if last > first:
                with fn.loop(first, last, name="tile") as t:
                    yield fn.iadd(fn.imul(t, width), start), width
            for t in range(last, count):
                yield start + t * width, width
            start += width * count

    def whole(self, column: int, width: int) -> bool:
        """Whether no window of these columns reaches over the border of x."""
        if not self.p.plain:
            return True
        (lo, _), s, k = self.p.one.pads[1], self.p.one.strides[1], self.p.one.kernel[1]
        return column * s - lo >= 0 and (column + width - 1) * s - lo + k <= self.x.shape[3]

    def pointwise(self, tile: RegisterTile, image: ir.Value, row: ir.Value, column: Index, w: ir.Value) -> None:
        """A 1x1 convolution of blocked channels."""
        fn, p, strides = self.fn, self.p, self.x.strides
        (sh, sw), per_panel = p.one.strides, self.taps * PANEL
        x = fn.at(self.pointers[0], fn.dot([image, row, column], [strides[0], strides[2] * sh, strides[3] * sw]))
        blocks, rest = divmod(p.channels, PANEL)

        def step(kb: Index, depth: int) -> None:
            at = fn.at(x, fn.imul(kb, strides[1]))
            pixels = [fn.at(at, i * strides[3] * sw) for i in range(len(tile.acc))]
            tile.accumulate(pixels, fn.at(w, fn.imul(kb, PANEL * PANEL)), depth, 1, per_panel)

        with fn.loop(0, blocks, name="kb") as kb:
            step(kb, PANEL)
        if rest:
            step(blocks, rest)

    def window(self, tile: RegisterTile, image: ir.Value, row: ir.Value, column: Index, w: ir.Value) -> None:
        """A window over the few channels of a plain image: its rows in a loop, its columns and channels written out."""
        fn, p, strides = self.fn, self.p, self.x.strides
        (kh, kw), (sh, sw), ((top, _), (left, _)) = p.one.kernel, p.one.strides, p.one.pads
        first = fn.isub(fn.imul(row, sh), top)
        lo, hi = fn.imax(fn.isub(0, first), 0), fn.imin(fn.isub(self.x.shape[2], first), kh)
        start = fn.isub(fn.imul(column, sw), left)
        # Columns of the window that some column of the tile may not read; they depend on a border tile's place alone.
        cut = [] if not isinstance(column, int) else [
            k for k in range(kw) if not all(self.inside(column + j, k) for j in range(len(tile.acc)))
        ]  # fmt: skip
        lo_k = next((k for k in range(kw) if k not in cut), kw)
        hi_k = next((k for k in range(lo_k, kw) if k in cut), kw)
        with fn.loop(lo, hi, name="kh") as i, fn.loop(0, p.channels, name="c") as c:
            place = [image, c, fn.iadd(first, i), start]
            x = fn.at(self.pointers[0], fn.dot(place, strides))
            at = fn.at(w, fn.imul(fn.iadd(fn.imul(i, p.channels), c), kw * PANEL))
            for k in range(kw):
                if not lo_k <= k < hi_k:
                    kept = [j for j in range(len(tile.acc)) if self.inside(int(column) + j, k)]
                    self.update(tile, kept, fn.at(x, k * strides[3]), fn.at(at, k * PANEL))
            # A loop, not written out: neighbouring columns read common elements, and keeping those would spill the sums.
            with fn.loop(lo_k, hi_k, name="kw") as k:
                self.update(tile, range(len(tile.acc)), fn.at(x, fn.imul(k, strides[3])), fn.at(at, fn.imul(k, PANEL)))

    def inside(self, column: int, k: int) -> bool:
        """Whether column k of the window over this column lies in x."""
        return 0 <= column * self.p.one.strides[1] - self.p.one.pads[1][0] + k < self.x.shape[3]

    def update(self, tile: RegisterTile, columns: Iterable[int], x: ir.Value, w: ir.Value) -> None:
        """One input element into some columns of a tile."""
        fn, lanes, step = self.fn, self.p.lanes, self.p.one.strides[1] * self.x.strides[3]
        weights = [
            [fn.load(fn.at(w, q * self.taps * PANEL + v * lanes), "f32", lanes) for v in range(PANEL // lanes)]
            for q in range(self.p.panels)
        ]
        for j in columns:
            value = fn.splat(fn.load(fn.at(x, j * step)), lanes)
            for panel, ws in zip(tile.acc[j], weights, strict=True):
                for var, weight in zip(panel, ws, strict=True):
                    var.set(fn.fma(value, weight, Val(var.get(), "f32", lanes)).ir)

    # -- the second -----------------------------------------------------------------------------------------------
    def depthwise(self, image: ir.Value, block: ir.Value, row: ir.Value, top: ir.Value, panel: int) -> None:
        """One row of outputs from the ring."""
        fn, p = self.fn, self.p
        w = fn.at(self.pointers[3], fn.imul(block, prod(p.two.kernel) * PANEL))
        bias = fn.at(self.pointers[4], fn.imul(block, PANEL))
        out = fn.at(self.pointers[5], fn.dot([image, block, row], self.out.strides[:3]))
        lo, hi = fn.imax(fn.isub(0, top), 0), fn.imin(fn.isub(p.rows, top), p.two.kernel[0])
        heavy = expr_cost(p.second) > _HEAVY
        totals = fn.at(self.totals, panel * PANEL) if p.sums else None
        start = 0
        for width, count in p.columns:
            with fn.loop(0, count, name="tile") as t, fn.loop(0, PANEL, p.lanes, name="lane") as lane:
                column = fn.iadd(fn.imul(t, width), start)
                sums = self.columns(column, lane, width, (lo, hi), top, panel, w, bias)
                values = sums if heavy else [evaluate(self.math, p.second, [y])[0] for y in sums]
                for j, y in enumerate(values):
                    fn.store(y, fn.at(out, fn.iadd(fn.imul(fn.iadd(column, j), self.out.strides[3]), lane)))
                if totals is not None and not heavy:
                    self.accumulate(self.sum(values), fn.at(totals, lane))
            start += width * count
        if heavy:
            self.apply(p.second, out, self.out.shape[3], totals)

    def columns(self, column: ir.Value, lane: ir.Value, width: int, taps: tuple[Index, Index], top: ir.Value, panel: int,
                w: ir.Value, bias: ir.Value) -> list[Val]:  # fmt: skip
        """Sums of some output columns: every column of the ring is loaded once per window row."""
        fn, p = self.fn, self.p
        s, k = p.two.strides[1], p.two.kernel[1]
        start = fn.load(fn.at(bias, lane), "f32", p.lanes)
        acc = [fn.var("f32", start.ir, p.lanes) for _ in range(width)]
        offset = fn.iadd(fn.imul(column, s * PANEL), lane)
        with fn.loop(*taps, name="kh") as kh:
            x = fn.at(self.held(fn.iadd(top, kh), panel), offset)
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
