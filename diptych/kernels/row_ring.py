"""A convolution that is made row by row into a ring of rows in the cache; what its subclasses do with the rows is theirs.

The convolution is either a 1x1 on blocked channels or any window on a plain image of few channels. A row of the ring
has columns beside the image, as many as the second window reaches there: they are filled once, so that who reads the
rows knows no border columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val
from diptych.codegen.math import Math
from diptych.kernels.base import evaluate
from diptych.kernels.nest import expr_cost
from diptych.kernels.tile import PANEL, RegisterTile
from diptych.kernels.tiling import pixel_tiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.ir.kernel import Expr, Kernel, Operand
    from diptych.targets.base import Target

__all__ = ["HEAVY", "RingEmitter", "RingParams", "Window", "between", "check", "first_tiles", "ring_rows", "row_cuts"]

HEAVY = 12  # an epilogue of more vector work is a pass of its own over a row in L1: its constants stay in registers

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
class RingParams:
    """The first convolution, and the ring that its rows are held in. Its operands: x, packed w, bias[B, 16].

    x is [N, C/16, H, W, 16], or [N, C, H, W] if `plain`; w is [B][KH][C][KW][16], without the window if not `plain`.
    """

    channels: int
    plain: bool
    rows: int  # of the image between the two
    cols: int
    one: Window
    two: Window
    first: Expr  # of one register: the sum with its bias
    panels: int  # blocks of channels of a work item
    tiles: tuple[tuple[int, int], ...]  # register tiles of a row of the first: (columns, how many)
    columns: tuple[tuple[int, int], ...]  # and of the second
    ring: int  # rows kept, a power of two
    lanes: int

    @property
    def width(self) -> int:
        """Columns of a ring row, those beside the image included."""
        (lo, _), (_, s), k = self.two.pads[1], self.two.strides, self.two.kernel[1]
        out = sum(w * n for w, n in self.columns)
        return max(lo + self.cols, (out - 1) * s + k)

    @property
    def held(self) -> int:
        """Elements of the ring."""
        return PANEL * self.panels * self.ring * self.width

    @property
    def taps(self) -> int:
        """Products of an element of the image between."""
        return self.channels * prod(self.one.kernel)


def check(name: str, operands: Sequence[Operand]) -> None:
    """Refuse operands that these kernels cannot read."""
    for o in operands:
        if o.dtype != "f32" or o.strides[-1] != 1:
            raise ValueError(f"{name}: operand {o} is not f32 with contiguous lanes inside")


def between(x: Operand, one: Window) -> tuple[int, int]:
    """Rows and columns of the image between the two."""
    rows, cols = (
        (size + lo + hi - k) // s + 1
        for size, k, s, (lo, hi) in zip(x.shape[2:4], one.kernel, one.strides, one.pads, strict=True)
    )
    return rows, cols


def first_tiles(cols: int, panels: int, target: Target) -> tuple[tuple[int, int], ...]:
    """Register tiles of a row of the first convolution."""
    vectors = PANEL // min(PANEL, target.lanes(4))
    spare = target.registers - 4 if target.registers > 16 else target.registers - 3
    most = max(1, min(28, spare // (vectors * panels)))
    return pixel_tiles(cols, most, vectors * panels)


def ring_rows(two: Window, together: int = 1) -> int:
    """Rows of a ring for a window, so many rows of whose outputs are made at a time."""
    held = two.kernel[0] + two.strides[0] * together - 1
    return int(1 << (held - 1).bit_length())


def row_cuts(items: int, out_rows: int, two: Window, threads: int) -> int:
    """Into how many parts the rows of each of so many images are cut: equal loads for the threads, few rows made twice."""
    overlap = max(0, two.kernel[0] - two.strides[0])

    def cost(parts: int) -> int:
        chunk = -(-out_rows // parts)
        return -(-items * parts // threads) * (chunk * two.strides[0] + (overlap if parts > 1 else 0))

    return min(range(1, max(1, min(out_rows, 4 * threads)) + 1), key=lambda parts: (cost(parts), parts))


class RingEmitter:
    """Writes the rows of the first convolution; its subclasses read them."""

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn, self.math = fn, Math(fn)
        self.p: RingParams = kernel.params
        self.x = kernel.operands[0]
        self.pointers = [fn.args[f"p{i}"] for i in range(len(kernel.operands))]
        self.row = self.p.width * PANEL  # elements of a ring row

    def clear(self, value: Val, planes: Index) -> None:
        """`value` in the columns beside the image of so many planes of the ring."""
        fn, p, lo = self.fn, self.p, self.p.two.pads[1][0]
        with fn.loop(0, fn.imul(planes, p.ring), name="held") as held:
            row = fn.at(fn.args["scratch"], fn.imul(held, self.row))
            for start, stop in ((0, lo), (lo + p.cols, p.width)):
                with fn.loop(start * PANEL, stop * PANEL, p.lanes, name="fill") as i:
                    fn.store(value, fn.at(row, i))

    def held(self, row: Index, plane: Index) -> ir.Value:
        """Where a row of a plane (the image between of one block of channels) lies in the ring."""
        fn, p = self.fn, self.p
        slot = fn.b.and_(fn.index(row), fn.index(p.ring - 1))
        flat = fn.iadd(fn.imul(slot, self.row), fn.imul(plane, p.ring * self.row))
        return fn.at(fn.args["scratch"], flat)

    def ready(self, image: ir.Value, block: ir.Value, row: ir.Value, begin: ir.Value) -> ir.Value:
        """Make the rows of the image between that row `row` of outputs is the first to need, where `begin` was the first row
        of all; returns the first one of its window."""
        fn, p = self.fn, self.p
        (lo, _), s, k = p.two.pads[0], p.two.strides[0], p.two.kernel[0]
        top = fn.isub(fn.imul(row, s), lo)
        stop = fn.imin(fn.iadd(top, k), p.rows)
        fresh = fn.b.icmp_signed("==", row, begin)
        start = fn.b.select(fresh, fn.index(0), fn.imin(fn.iadd(top, k - s), p.rows))
        with fn.loop(fn.imax(fn.imax(start, top), 0), stop, name="made") as made:
            self.produce(image, block, made)
        return top

    # -- the first convolution ------------------------------------------------------------------------------------
    def produce(self, image: ir.Value, block: ir.Value, row: ir.Value, plane: Index = 0) -> None:
        """One row of the image between, of the blocks of channels from `block` on, into planes of the ring from `plane` on."""
        fn, p = self.fn, self.p
        w = fn.at(self.pointers[1], fn.imul(block, p.taps * PANEL))
        bias = fn.at(self.pointers[2], fn.imul(block, PANEL))
        left = p.two.pads[1][0] * PANEL
        outs = [fn.at(self.held(row, fn.iadd(plane, q)), left) for q in range(p.panels)]
        heavy = expr_cost(p.first) > HEAVY
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
        (sh, sw), per_panel = p.one.strides, p.taps * PANEL
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
            [fn.load(fn.at(w, q * self.p.taps * PANEL + v * lanes), "f32", lanes) for v in range(PANEL // lanes)]
            for q in range(self.p.panels)
        ]
        for j in columns:
            value = fn.splat(fn.load(fn.at(x, j * step)), lanes)
            for panel, ws in zip(tile.acc[j], weights, strict=True):
                for var, weight in zip(panel, ws, strict=True):
                    var.set(fn.fma(value, weight, Val(var.get(), "f32", lanes)).ir)
