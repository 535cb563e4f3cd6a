"""Winograd convolution F(m x m, 3 x 3) on channel-blocked tensors.

V[block of tiles][(m+2)^2][tile][channel] = B^T d B;  per block and group of panels of 16 outputs: M = V * U for each of
the (m+2)^2 points (tiles are the pixels of a register tile), then y = A^T M A, bias, epilogue, store.

Tiles are numbered through the whole batch. Where there are many, one kernel does it all and V is the thread's own, in
its L2 ("winograd"); where there are few and the weights dominate, V is shared: a transform kernel, then a kernel whose
items are groups of panels ("winograd_input", "winograd_products"). Where the weights come from memory at every run, they
come as they are and are transformed on arrival ("winograd_streamed", in `kernels/winograd_streamed.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val
from diptych.ir.kernel import Kernel, Operand
from diptych.kernels.base import emits
from diptych.kernels.contract import Side
from diptych.kernels.tile import PANEL, RegisterTile
from diptych.kernels.winograd_output import OutputWriter
from diptych.kernels.winograd_points import matrices
from diptych.kernels.winograd_transform import transform_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index, Var
    from diptych.ir.kernel import Expr
    from diptych.targets.base import Target

__all__ = ["ProductParams", "WinogradGeometry", "m_floats", "make_fused", "make_input_transform", "make_products", "nanoseconds", "places"]

_CHAIN = 128  # additions in one chain: partial sums of this depth are added up, which rounds less than one long chain


@dataclass(frozen=True, slots=True)
class WinogradGeometry:
    """How a batch of images is cut: outputs rows x cols in tiles of m x m, `per_block` tiles together."""

    m: int
    batch: int
    rows: int
    cols: int
    channels: int
    per_block: int
    stride: int = 1  # 1 or 2

    @property
    def across(self) -> int:
        return -(-self.cols // self.m)

    @property
    def per_image(self) -> int:
        return -(-self.rows // self.m) * self.across

    @property
    def tiles(self) -> int:
        return self.batch * self.per_image

    @property
    def blocks(self) -> int:
        return -(-self.tiles // self.per_block)

    @property
    def points(self) -> int:
        return self.reach**2

    @property
    def reach(self) -> int:
        """Rows and columns of the input that a tile reads."""
        return (self.m - 1) * self.stride + 3

    @property
    def chunks(self) -> int:
        """Parts of the channels that are summed each from zero."""
        return next(n for n in range(max(1, self.channels // _CHAIN), 0, -1) if self.channels % n == 0)

    @property
    def v_row(self) -> int:
        """Floats from one tile's channels to the next one's. Rows a large power of two apart would share cache sets."""
        padded = _whole_lines(self.channels)
        return padded + PANEL if padded % 128 == 0 else padded

    @property
    def v_shape(self) -> tuple[int, ...]:
        return self.blocks, self.points, self.per_block, self.v_row

    def streamed_v_shape(self, depth: int) -> tuple[int, ...]:
        """V where `depth` channels are worked on at once: [stretches, points, tiles * channels of a stretch and a line, so
        that the points do not share cache sets]."""
        return self.channels // depth, self.points, self.tiles * _whole_lines(depth) + PANEL


def _whole_lines(channels: int) -> int:
    return -(-channels // PANEL) * PANEL


@dataclass(frozen=True, slots=True)
class TransformParams:
    """Operands: padded blocked x, V. With a depth, V lies by stretches of so many channels: `streamed_v_shape`."""

    geometry: WinogradGeometry
    depth: int = 0
    bare: bool = False  # as for `matrices`

    def __str__(self) -> str:
        g = self.geometry
        return f"F({g.m},3) {g.rows}x{g.cols}x{g.channels} in {g.tiles} tiles"


@dataclass(frozen=True, slots=True)
class ProductParams:
    """Operands: V (or padded blocked x when fused), U, epilogue operands .. (the bias first, if any), out."""

    geometry: WinogradGeometry
    panels: int
    group: int  # panels that a register tile takes at once; divides `panels`
    expr: Expr
    sides: tuple[Side, ...]
    out: Side
    tiles: tuple[tuple[int, int], ...]
    prefetch: bool  # weights come from beyond L2
    fused: bool
    panel_outer: bool = False  # items of one group are neighbours (its weights stay in cache), else those of one block
    depth: int = 0  # weights come untransformed, so many channels are transformed at once

    def __str__(self) -> str:
        g = self.geometry
        how = "fused " if self.fused else ""
        return f"{how}F({g.m},3) {g.batch}x{g.rows}x{g.cols} {g.channels}->{self.panels * PANEL} by {g.per_block}x{self.group} {self.expr}"


def make_input_transform(x: Operand, v: Operand, geometry: WinogradGeometry, target: Target, depth: int = 0,
                         bare: bool = False) -> Kernel:  # fmt: skip
    """x is [N, Cb, rows + pads, cols + pads, 16], with whole tiles readable; v has shape `geometry.v_shape`, or with a
    `depth` that of `geometry.streamed_v_shape`."""
    work = geometry.tiles * x.shape[1]
    cost = work * 16 / target.lanes(4) * geometry.points * 1.2
    return Kernel("winograd_input", TransformParams(geometry, depth, bare), (x, v), 1, work, cost)


def make_products(v: Operand, u: Operand, extras: Sequence[Operand], out: Operand, geometry: WinogradGeometry, group: int,
                  expr: Expr, sides: Sequence[Side], out_side: Side, tiles: tuple[tuple[int, int], ...],
                  prefetch: bool, panel_outer: bool) -> Kernel:  # fmt: skip
    """The products and the output transform; `sides` walk the epilogue operands as in a contraction.

    u is [panels / group, points, chunks, group, channels / chunks * 16].
    """
    panels = u.shape[0] * group
    params = ProductParams(geometry, panels, group, expr, tuple(sides), out_side, tiles, prefetch, False, panel_outer)
    work = geometry.blocks * u.shape[0]
    return Kernel("winograd_products", params, (v, u, *extras, out), 1, work, nanoseconds(params), 4 * m_floats(params))


def make_fused(x: Operand, u: Operand, extras: Sequence[Operand], out: Operand, geometry: WinogradGeometry, group: int,
               expr: Expr, sides: Sequence[Side], out_side: Side, tiles: tuple[tuple[int, int], ...],
               prefetch: bool) -> Kernel:  # fmt: skip
    """All of it, block of tiles by block of tiles; operands as in `make_input_transform` and `make_products`."""
    panels = u.shape[0] * group
    params = ProductParams(geometry, panels, group, expr, tuple(sides), out_side, tiles, prefetch, True)
    scratch = 4 * (m_floats(params) + prod(geometry.v_shape[1:]))
    return Kernel("winograd", params, (x, u, *extras, out), 1, geometry.blocks, nanoseconds(params), scratch)


def m_floats(p: ProductParams) -> int:
    """Floats of a block's products in a thread's scratch, and of one transformed tile behind them."""
    g = p.geometry
    return g.points * g.per_block * p.group * PANEL + g.m**2 * PANEL


def nanoseconds(p: ProductParams) -> float:
    """A cautious estimate of the time of the products."""
    g = p.geometry
    return 2.0 * g.tiles * g.points * g.channels * p.panels * PANEL / 60.0


@emits("winograd_input")
def emit_input_transform(fn: Fn, kernel: Kernel) -> None:
    """One work item: one tile of one block of 16 channels."""
    p: TransformParams = kernel.params
    g = p.geometry
    x, v = kernel.operands
    with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
        tile, cb = fn.unravel(item, (0, x.shape[1]))
        if p.depth:
            row = _whole_lines(p.depth)
            stretch, part = fn.idiv(cb, row // PANEL), fn.imod(cb, row // PANEL)
            place = fn.dot([stretch, tile, part], (v.strides[0], row, PANEL))
        else:
            place = fn.dot([fn.idiv(tile, g.per_block), fn.imod(tile, g.per_block), cb], (v.strides[0], v.strides[2], PANEL))
        to = fn.at(fn.args["p1"], place)
        _input_tile(fn, g, x, tile, cb, to, v.strides[1], p.bare)


def _input_tile(fn: Fn, g: WinogradGeometry, x: Operand, tile: Index, cb: Index, to: ir.Value, point: int,
                bare: bool = False) -> None:  # fmt: skip
    image, within = fn.idiv(tile, g.per_image), fn.imod(tile, g.per_image)
    ty, tx = fn.idiv(within, g.across), fn.imod(within, g.across)
    source = fn.at(fn.args["p0"], fn.dot([image, cb, fn.imul(ty, g.m * g.stride), fn.imul(tx, g.m * g.stride)], x.strides[:4]))
    _, _, matrix = matrices(g.m, bare, g.stride)
    transform_input(fn, matrix, source, x.strides[2], x.strides[3], to, point)


@emits("winograd_products")
def emit_products(fn: Fn, kernel: Kernel) -> None:
    """One work item: one block of tiles by one group of panels."""
    p: ProductParams = kernel.params
    v = kernel.operands[0]
    groups, blocks = p.panels // p.group, p.geometry.blocks
    with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
        a, b = fn.unravel(item, (groups, blocks) if p.panel_outer else (blocks, groups))
        group, block = (a, b) if p.panel_outer else (b, a)
        _products(fn, kernel, fn.at(fn.args["p0"], fn.imul(block, v.strides[0])), block, group)


@emits("winograd")
def emit_fused(fn: Fn, kernel: Kernel) -> None:
    """One work item: one block of tiles."""
    p: ProductParams = kernel.params
    g, x = p.geometry, kernel.operands[0]
    v = fn.at(fn.args["scratch"], m_floats(p))
    point = g.per_block * g.v_row
    with fn.loop(fn.args["begin"], fn.args["end"], name="block") as block:
        first = fn.imul(block, g.per_block)
        stop = fn.imin(fn.isub(g.tiles, first), g.per_block)
        with fn.loop(0, stop, name="tile") as t, fn.loop(0, x.shape[1], name="cb") as cb:
            to = fn.at(v, fn.iadd(fn.imul(t, g.v_row), fn.imul(cb, PANEL)))
            _input_tile(fn, g, x, fn.iadd(first, t), cb, to, point)
        with fn.loop(0, p.panels // p.group, name="group") as group:
            _products(fn, kernel, v, block, group)


def _products(fn: Fn, kernel: Kernel, v: ir.Value, block: Index, group: Index) -> None:
    """M = V U of one block and group of panels into the scratch, then the output transform of its tiles."""
    p: ProductParams = kernel.params
    g, u = p.geometry, kernel.operands[1]
    us = fn.at(fn.args["p1"], fn.imul(group, u.strides[0]))
    writer = OutputWriter(fn, kernel)
    first_tile = fn.imul(block, g.per_block)
    stop = fn.imin(fn.isub(g.tiles, first_tile), g.per_block)
    chunks = g.chunks
    depth, row, wide = g.channels // chunks, g.v_row, p.group * PANEL
    # While the register tiles of one slice of weights are worked out, they fetch the next one, each its part.
    passes = sum(count for _, count in p.tiles)
    ahead_step = -(-p.group * PANEL // passes) if p.prefetch else 0
    with fn.loop(0, g.points, name="point") as point, fn.loop(0, chunks, name="chunk") as chunk:
        vf = fn.at(v, fn.iadd(fn.imul(point, g.per_block * row), fn.imul(chunk, depth)))
        uf = fn.at(us, fn.iadd(fn.imul(point, u.strides[1]), fn.imul(chunk, u.strides[2])))
        mf = fn.at(fn.args["scratch"], fn.imul(point, g.per_block * wide))
        first, done = 0, 0
        for width, count in p.tiles:
            with fn.loop(0, count, name="rows") as t:
                tile0 = fn.iadd(fn.imul(t, width), first)
                at = fn.iadd(u.strides[2], fn.imul(fn.iadd(t, done), depth * ahead_step))
                ahead = [fn.at(uf, at)] if p.prefetch else []
                x0 = fn.at(vf, fn.imul(tile0, row))
                tile = RegisterTile(fn, width, p.group)
                tile.accumulate([fn.at(x0, i * row) for i in range(width)], uf, depth, 1, u.strides[3], ahead, ahead_step)
                to = fn.at(mf, fn.imul(tile0, wide))
                if chunks > 1:
                    with fn.if_(fn.b.icmp_signed(">", chunk, fn.index(0))):
                        for at, var in places(fn, tile, to, wide):
                            var.set(fn.b.fadd(fn.load(at, "f32", tile.lanes).ir, var.get()))
                for at, var in places(fn, tile, to, wide):
                    fn.store(Val(var.get(), "f32", tile.lanes), at)
            first += width * count
            done += count
    with fn.loop(0, stop, name="tile") as t, fn.loop(0, p.group, name="panel") as q:
        source = fn.at(fn.args["scratch"], fn.iadd(fn.imul(t, wide), fn.imul(q, PANEL)))
        writer.tile(source, fn.iadd(first_tile, t), fn.iadd(fn.imul(group, p.group), q))


def places(fn: Fn, tile: RegisterTile, to: ir.Value, wide: int) -> list[tuple[ir.Value, Var]]:
    """Where each accumulator of a register tile goes, and the accumulator."""
    return [
        (fn.at(to, i * wide + q * PANEL + v * tile.lanes), var)
        for i, row in enumerate(tile.acc)
        for q, panel in enumerate(row)
        for v, var in enumerate(panel)
    ]
