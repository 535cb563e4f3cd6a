"""An inverted residual as one kernel: 1x1 convolution, depthwise convolution, 1x1 convolution.

y = first(bias1 + x * w1)        z = second(bias2 + depthwise of y)        out = third(bias3 + z * w3, residual)

A work item is some rows of an image, with all channels: it works out a band of rows of z, one block of channels after
another from that block's ring of rows of y, and multiplies the band. Neither y nor z is ever written to memory; rows
of y are made twice only where two items meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val
from diptych.ir.kernel import Kernel
from diptych.kernels.base import emits, evaluate
from diptych.kernels.expand import DepthwiseEmitter, DepthwiseRingParams
from diptych.kernels.row_ring import Window, between, check, first_tiles, ring_rows
from diptych.kernels.tile import PANEL, RegisterTile
from diptych.kernels.tiling import pixel_tiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.ir.kernel import Expr, Operand
    from diptych.targets.base import Target

__all__ = ["ChainParams", "make_chain"]


@dataclass(frozen=True, slots=True)
class ChainParams(DepthwiseRingParams):
    """Operands: x, packed w1, bias1[B, 16], w2[B, KH, KW, 16], bias2[B, 16], w3[B3, C, 16], bias3[B3, 16], what `third`
    reads besides [N, B3, OH, OW, 16], out of that shape."""

    third: Expr  # of the sum with its bias, and the other operands
    depth: int  # channels between
    made: int  # channels of the result
    blocks: int  # of 16 of them
    group: int  # panels of a register tile of the projection
    pixels: tuple[tuple[int, int], ...]  # its register tiles in a row
    band: int  # rows of outputs made together
    parts: int  # items that share the rows of an image

    @property
    def held(self) -> int:
        return PANEL * self.blocks * self.ring * self.width

    @property
    def band_cols(self) -> int:
        return sum(w * n for w, n in self.columns)

    @property
    def scratch(self) -> int:
        return 4 * (self.held + PANEL * self.blocks * self.band * self.band_cols)

    def flops(self, out: tuple[int, ...]) -> int:
        """Of all three convolutions, two per multiply-add; `out` is the shape of the result."""
        n, _, rows, cols, _ = out
        behind = rows * cols * (prod(self.two.kernel) + self.made)
        return 2 * n * self.depth * (self.rows * self.cols * self.taps + behind)

    def __str__(self) -> str:
        return (f"{self.channels} {self.one} -> {self.depth}x{self.rows}x{self.cols} {self.two} -> P={self.panels},{self.group} "
                f"tiles={self.tiles},{self.columns},{self.pixels} band={self.band} parts={self.parts} "
                f"[{self.first}] [{self.second}] [{self.third}]")  # fmt: skip


def make_chain(operands: Sequence[Operand], one: Window, two: Window, plain: bool, channels: int, depth: int, made: int,
               first: Expr, second: Expr, third: Expr, band: int, parts: int, target: Target) -> Kernel:  # fmt: skip
    """All three convolutions of f32; operands as ChainParams has them."""
    check("chain", operands)
    x, out = operands[0], operands[-1]
    n, blocks3, _, out_cols, _ = out.shape
    rows, cols = between(x, one)
    lanes = min(PANEL, target.lanes(4))
    vectors = PANEL // lanes
    blocks = -(-depth // PANEL)
    panels = 2 if blocks % 2 == 0 and 2 * cols * vectors <= target.registers else 1
    group = 2 if vectors == 1 and blocks3 % 2 == 0 else 1
    columns = pixel_tiles(out_cols, min(14, max(2, target.registers - 6)), 1)
    most = max(1, min(28, (target.registers - vectors * group - 1) // (vectors * group)))
    params = ChainParams(
        channels, plain, rows, cols, one, two, first, panels, first_tiles(cols, panels, target), columns,
        ring_rows(two, band), lanes, second, third, depth, made, blocks, group, pixel_tiles(out_cols, most, vectors * group),
        band, parts,
    )  # fmt: skip
    return Kernel("chain", params, tuple(operands), 1, n * parts, params.flops(out.shape) / 60.0, params.scratch)


@emits("chain")
def emit_chain(fn: Fn, kernel: Kernel) -> None:
    """Bands of rows one after another."""
    _Chain(fn, kernel).emit()


class _Chain(DepthwiseEmitter):
    p: ChainParams

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        super().__init__(fn, kernel)
        self.out = kernel.operands[-1]
        self.sides = kernel.operands[7:]
        self.band = fn.at(fn.args["scratch"], self.p.held)
        self.band_block = PANEL * self.p.band * self.p.band_cols

    def emit(self) -> None:
        fn, p = self.fn, self.p
        n, _, out_rows = self.out.shape[:3]
        chunk = -(-out_rows // p.parts)
        (lo, _), s, k = p.two.pads[0], p.two.strides[0], p.two.kernel[0]
        self.clear(fn.const(0, "f32", p.lanes), p.blocks)
        with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
            image, part = fn.unravel(item, (n, p.parts))
            begin = fn.imul(part, chunk)
            end = fn.imin(fn.iadd(begin, chunk), out_rows)
            with fn.loop(begin, end, p.band, name="band") as row0:
                row1 = fn.imin(fn.iadd(row0, p.band), end)
                top = fn.isub(fn.imul(row0, s), lo)
                stop = fn.imin(fn.iadd(fn.isub(fn.imul(fn.isub(row1, 1), s), lo), k), p.rows)
                fresh = fn.b.icmp_signed("==", row0, begin)
                start = fn.b.select(fresh, fn.index(0), fn.imin(fn.iadd(top, k - s), p.rows))
                start = fn.imax(fn.imax(start, top), 0)
                with fn.loop(0, p.blocks // p.panels, name="group") as g:
                    block = fn.imul(g, p.panels)
                    with fn.loop(start, stop, name="made") as made:
                        self.produce(image, block, made, block)
                    with fn.loop(row0, row1, name="row") as row:
                        at = fn.isub(fn.imul(row, s), lo)
                        for q in range(p.panels):
                            b = fn.iadd(block, q)
                            z = fn.iadd(fn.imul(b, self.band_block), fn.imul(fn.isub(row, row0), PANEL * p.band_cols))
                            self.depthwise(b, at, b, fn.at(self.band, z), PANEL)
                for panel, panels, half in self.projections():
                    with fn.loop(row0, row1, name="row") as row:
                        self.project(image, panel, row, fn.isub(row, row0), panels, half)

    def projections(self) -> Iterator[tuple[Index, int, bool]]:
        """(first panel, panels, whether the last has 8 channels) of the register tiles that make all channels."""
        fn, p = self.fn, self.p
        half = 0 < p.made % PANEL <= PANEL // 2
        groups = self.out.shape[1] // p.group
        with fn.loop(0, groups - half, name="panel") as g:
            yield fn.imul(g, p.group), p.group, False
        if half:
            yield (groups - 1) * p.group, p.group, True

    def project(self, image: ir.Value, panel: Index, row: ir.Value, at: ir.Value, panels: int, half: bool) -> None:
        """One row of the result, of some panels, from the band."""
        fn, p = self.fn, self.p
        w = fn.at(self.pointers[5], fn.imul(panel, p.depth * PANEL))
        bias = fn.at(self.pointers[6], fn.imul(panel, PANEL))
        z = fn.at(self.band, fn.imul(at, PANEL * p.band_cols))
        bases = [
            fn.at(pointer, fn.dot([image, panel, row], o.strides[:3]))
            for pointer, o in zip(self.pointers[7:], self.sides, strict=True)
        ]
        whole, rest = divmod(p.depth, PANEL)
        start = 0
        for width, count in p.pixels:
            with fn.loop(0, count, name="tile") as t:
                column = fn.iadd(fn.imul(t, width), start)
                tile = RegisterTile(fn, width, panels, half)
                x = fn.at(z, fn.imul(column, PANEL))

                def step(kb: ir.Value | int, depth: int, x: ir.Value = x, tile: RegisterTile = tile, width: int = width) -> None:
                    xb = fn.at(x, fn.imul(kb, self.band_block))
                    tile.accumulate([fn.at(xb, i * PANEL) for i in range(width)], fn.at(w, fn.imul(kb, PANEL * PANEL)),
                                    depth, 1, p.depth * PANEL)  # fmt: skip

                with fn.loop(0, whole, name="kb") as kb:
                    step(kb, PANEL)
                if rest:
                    step(whole, rest)
                for i, q in product(range(width), range(panels)):
                    lane = 0
                    for var, lanes in zip(tile.acc[i][q], tile.widths(q, panels), strict=True):
                        places = [
                            fn.at(base, fn.iadd(fn.imul(fn.iadd(column, i), o.strides[3]), q * o.strides[1] + lane))
                            for base, o in zip(bases, self.sides, strict=True)
                        ]
                        add = fn.load(fn.at(bias, q * PANEL + lane), "f32", lanes)
                        total = self.math.add(Val(var.get(), "f32", lanes), add)
                        values = [total, *(fn.load(a, "f32", lanes) for a in places[:-1])]
                        fn.store(evaluate(self.math, p.third, values)[0], places[-1])
                        lane += lanes
                    if lane < PANEL:  # nothing reads what is there, but it should be numbers
                        fn.store(fn.const(0, "f32", PANEL - lane), fn.at(places[-1], PANEL // 2))
            start += width * count
