"""Winograd convolution of few tiles: weights are transformed in registers, on their way from memory to the products.

Where a small image has a handful of tiles (four of F(4, 3) at 7 x 7), a transformed weight serves as many products only:
storing it and loading it again would cost more than making it. So the products of some points and all tiles are held in
accumulators while the channels run by; for each of them the weights of a panel are loaded, combined to one row of points
(G g, then times G^T), and each of these vectors is used at once. Row after row goes through the weights of a panel anew,
which lie in L2 by then; those of the next panel are fetched meanwhile.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val, register_type
from diptych.ir.kernel import Kernel, Operand
from diptych.kernels.base import emits
from diptych.kernels.tile import PANEL
from diptych.kernels.winograd import ProductParams, m_floats, nanoseconds
from diptych.kernels.winograd_output import OutputWriter
from diptych.kernels.winograd_points import matrices
from diptych.kernels.winograd_transform import apply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.ir.kernel import Expr
    from diptych.kernels.contract import Side
    from diptych.kernels.winograd import WinogradGeometry
    from diptych.targets.base import Target

__all__ = ["make_few", "passes"]

_TAPS = 9
_COLUMNS = {  # how the points of a row are cut so that those of opposite sign, which share their sums, stay together
    6: {6: ((0, 1, 2, 3, 4, 5),), 3: ((0, 1, 2), (3, 4, 5)), 2: ((1, 2), (3, 4), (0, 5))},
    4: {4: ((0, 1, 2, 3),), 2: ((1, 2), (0, 3))},
}


def passes(m: int, tiles: int, target: Target) -> tuple[tuple[int, ...], ...] | None:
    """The points of a row, cut into those whose products with all tiles fit the registers; None if not even two do."""
    room = target.registers * 3 // 4
    return next((cut for width, cut in _COLUMNS[m + 2].items() if width * tiles <= room), None)


def make_few(v: Operand, w: Operand, extras: Sequence[Operand], out: Operand, geometry: WinogradGeometry, expr: Expr,
             sides: Sequence[Side], out_side: Side) -> Kernel:  # fmt: skip
    """Products and output transform of one block of all tiles; v has shape `geometry.v_shape` and comes of the `bare`
    matrices, w is [panels, 1, 1, channels, taps * 16] (`raw_shape`). `sides` walk the epilogue operands as in a contraction."""
    assert geometry.per_block == geometry.tiles and w.shape[1:3] == (1, 1)
    params = ProductParams(geometry, w.shape[0], 1, expr, tuple(sides), out_side, ((geometry.tiles, 1),), True, False)
    return Kernel("winograd_few", params, (v, w, *extras, out), 1, w.shape[0], nanoseconds(params), 4 * m_floats(params))


@emits("winograd_few")
def emit_few(fn: Fn, kernel: Kernel) -> None:
    """One work item: one panel."""
    p: ProductParams = kernel.params
    g, w = p.geometry, kernel.operands[1]
    cut = passes(g.m, g.tiles, fn.target)
    assert cut is not None
    writer = OutputWriter(fn, kernel)
    depth = g.channels // g.chunks
    turns = (g.m + 2) * len(cut)
    step = -(-_TAPS * PANEL // turns)  # floats of the weights of the next chunk to fetch with each channel of a turn
    with fn.loop(fn.args["begin"], fn.args["end"], name="panel") as panel:
        source = fn.at(fn.args["p1"], fn.imul(panel, w.strides[0]))
        with fn.loop(0, g.chunks, name="chunk") as chunk:
            first = fn.imul(chunk, depth)
            weights, v = fn.at(source, fn.imul(first, _TAPS * PANEL)), fn.at(fn.args["p0"], first)
            later = fn.at(weights, depth * _TAPS * PANEL)
            for turn, (row, points) in enumerate(product(range(g.m + 2), cut)):
                _turn(fn, kernel, row, points, weights, v, chunk, fn.at(later, turn * depth * step), step)
        with fn.loop(0, g.tiles, name="tile") as t:
            writer.tile(fn.at(fn.args["scratch"], fn.imul(t, PANEL)), t, panel)


def _turn(fn: Fn, kernel: Kernel, row: int, points: Sequence[int], weights: ir.Value, v: ir.Value, chunk: Index,
          later: ir.Value, step: int) -> None:  # fmt: skip
    """M += the products of some points of a row, all tiles, one panel and one chunk of channels (the first one stores)."""
    p: ProductParams = kernel.params
    g, (_, v_point, v_tile, _) = p.geometry, kernel.operands[0].strides
    n, lanes = g.m + 2, min(PANEL, fn.target.lanes(4))
    vec, tiles = register_type("f32", lanes), range(g.tiles)
    for off in range(0, PANEL, lanes):
        acc = [[fn.var(vec, fn.const(0.0, "f32", lanes).ir) for _ in tiles] for _ in points]
        with fn.loop(0, g.channels // g.chunks, name="c") as c:
            for i in range(0, step if off == 0 else 0, min(step, PANEL)):
                fn.prefetch(fn.at(later, fn.iadd(fn.imul(c, step), i)), 2)
            us = _weights(fn, g.m, row, points, fn.at(weights, fn.iadd(fn.imul(c, _TAPS * PANEL), off)))
            for j, u, sums in zip(points, us, acc, strict=True):
                for t, total in zip(tiles, sums, strict=True):
                    x = fn.load(fn.at(v, fn.iadd(c, (row * n + j) * v_point + t * v_tile)))
                    total.set(fn.fma(fn.splat(x, lanes), u, Val(total.get(), "f32", lanes)).ir)
        places = [(fn.at(fn.args["scratch"], ((row * n + j) * g.tiles + t) * PANEL + off), total)
                  for j, sums in zip(points, acc, strict=True) for t, total in zip(tiles, sums, strict=True)]  # fmt: skip
        if g.chunks > 1:
            with fn.if_(fn.b.icmp_signed(">", fn.index(chunk), fn.index(0))):
                for at, total in places:
                    total.set(fn.b.fadd(fn.load(at, "f32", lanes).ir, total.get()))
        for at, total in places:
            fn.store(Val(total.get(), "f32", lanes), at)


def _weights(fn: Fn, m: int, row: int, points: Sequence[int], source: ir.Value) -> list[Val]:
    """Transformed weights of one channel and some points of a row."""
    _, g, _ = matrices(m, bare=True)
    lanes = min(PANEL, fn.target.lanes(4))
    live = [i for i in range(3) if g[row, i]]
    half = []
    for j in range(3):
        taps = [fn.load(fn.at(source, (3 * i + j) * PANEL), "f32", lanes) for i in live]
        half += apply(fn, g[row : row + 1, live], taps)
    return apply(fn, g[list(points)], half)
