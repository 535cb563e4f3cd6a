"""Winograd convolution with weights that come from memory as they are and are transformed where they are used.

U = G g G^T has 4 (F(4, 3)) or 1.8 (F(2, 3)) times the bytes of the weights. Where tiles are few, each of those bytes is
used a few times only and memory sets the pace. Here a thread takes a group of panels and goes through the channels by
stretches: it transforms the weights of one into its L2, multiplies all tiles by them, and meanwhile fetches those of the
next. In a stretch each weight is transformed once, for all tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.codegen.builder import Val
from diptych.ir.kernel import Kernel, Operand
from diptych.kernels.base import emits
from diptych.kernels.tile import PANEL, RegisterTile
from diptych.kernels.winograd import ProductParams, m_floats, nanoseconds, places
from diptych.kernels.winograd_output import OutputWriter
from diptych.kernels.winograd_points import matrices
from diptych.kernels.winograd_weights import transform_window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.ir import Array
    from diptych.ir.kernel import Expr
    from diptych.kernels.contract import Side
    from diptych.kernels.winograd import WinogradGeometry

__all__ = ["make_streamed", "pack_raw", "raw_shape"]

_TAPS = 9


def raw_shape(panels: int, group: int, channels: int, depth: int) -> tuple[int, ...]:
    """Packed weights: [groups of panels, stretches of channels, panels, channels, taps * 16 outputs]."""
    return panels // group, channels // depth, group, depth, _TAPS * PANEL


def pack_raw(w: Array, out: Array) -> None:
    """w[O, C, 3, 3] -> out of `raw_shape`: [groups of panels, stretches of channels, panels, channels, taps * 16 outputs].

    Outputs that are missing in the last panel stay zero.
    """
    groups, stretches, group, depth, _ = out.shape
    places = out.reshape(groups, stretches, group, depth, _TAPS, PANEL)
    for panel in range(groups * group):
        part = w[panel * PANEL : panel * PANEL + PANEL].reshape(-1, stretches, depth, _TAPS)
        places[panel // group, :, panel % group, ..., : len(part)] = part.transpose(1, 2, 3, 0)


def make_streamed(v: Operand, w: Operand, extras: Sequence[Operand], out: Operand, geometry: WinogradGeometry,
                  expr: Expr, sides: Sequence[Side], out_side: Side, tiles: tuple[tuple[int, int], ...]) -> Kernel:  # fmt: skip
    """Products and output transform of one block of all tiles; v has shape `geometry.streamed_v_shape`, w `raw_shape`.

    `sides` walk the epilogue operands as in a contraction.
    """
    groups, stretches, group, depth, _ = w.shape
    assert geometry.per_block == geometry.tiles and stretches * depth == geometry.channels
    assert v.shape == geometry.streamed_v_shape(depth)
    params = ProductParams(geometry, groups * group, group, expr, tuple(sides), out_side, tiles, True, False, False, depth)
    scratch = 4 * (m_floats(params) + geometry.points * _u_point(params))
    return Kernel("winograd_streamed", params, (v, w, *extras, out), 1, groups, nanoseconds(params), scratch)


def _u_point(p: ProductParams) -> int:
    """Floats from one point of the transformed weights to the next: not a power of two, else the points share cache sets."""
    return p.group * p.depth * PANEL + PANEL


@emits("winograd_streamed")
def emit_streamed(fn: Fn, kernel: Kernel) -> None:
    """One work item: one group of panels."""
    p: ProductParams = kernel.params
    g, v, w = p.geometry, kernel.operands[0], kernel.operands[1]
    u = fn.at(fn.args["scratch"], m_floats(p))
    writer = OutputWriter(fn, kernel)
    _, matrix, _ = matrices(g.m, bare=True, stride=g.stride)
    with fn.loop(fn.args["begin"], fn.args["end"], name="group") as group:
        with fn.loop(0, w.shape[1], name="stretch") as stretch:
            source = fn.at(fn.args["p1"], fn.dot([group, stretch], w.strides[:2]))
            with fn.loop(0, p.group * p.depth, name="window") as i:
                transform_window(fn, matrix, fn.at(source, fn.imul(i, _TAPS * PANEL)), PANEL, fn.at(u, fn.imul(i, PANEL)), _u_point(p))
            _multiply(fn, p, fn.at(fn.args["p0"], fn.imul(stretch, v.strides[0])), v.strides, u, stretch, fn.at(source, w.strides[1]))
        with fn.loop(0, g.tiles, name="tile") as t, fn.loop(0, p.group, name="panel") as q:
            m = fn.at(fn.args["scratch"], fn.iadd(fn.imul(t, p.group * PANEL), fn.imul(q, PANEL)))
            writer.tile(m, t, fn.iadd(fn.imul(group, p.group), q))


def _multiply(fn: Fn, p: ProductParams, v: ir.Value, strides: Sequence[int], u: ir.Value, stretch: Index, later: ir.Value) -> None:
    """M += V U of one stretch of channels (the first one stores it), fetching the weights of the next stretch."""
    g, wide, row = p.geometry, p.group * PANEL, -(-p.depth // PANEL) * PANEL
    passes = sum(count for _, count in p.tiles)
    # The weights of the next stretch, spread over the updates of all points and tiles.
    step = -(-_TAPS * p.group * PANEL // (g.points * passes))
    with fn.loop(0, g.points, name="point") as point:
        vf = fn.at(v, fn.imul(point, strides[1]))
        uf = fn.at(u, fn.imul(point, _u_point(p)))
        mf = fn.at(fn.args["scratch"], fn.imul(point, g.tiles * wide))
        first, done = 0, 0
        for width, count in p.tiles:
            with fn.loop(0, count, name="rows") as t:
                tile0 = fn.iadd(fn.imul(t, width), first)
                turn = fn.iadd(fn.imul(point, passes), fn.iadd(t, done))
                ahead = fn.at(later, fn.imul(turn, p.depth * step))
                x0 = fn.at(vf, fn.imul(tile0, row))
                tile = RegisterTile(fn, width, p.group)
                tile.accumulate([fn.at(x0, i * row) for i in range(width)], uf, p.depth, 1, p.depth * PANEL, [ahead], step, 2)
                to = fn.at(mf, fn.imul(tile0, wide))
                with fn.if_(fn.b.icmp_signed(">", fn.index(stretch), fn.index(0))):
                    for at, var in places(fn, tile, to, wide):
                        var.set(fn.b.fadd(fn.load(at, "f32", tile.lanes).ir, var.get()))
                for at, var in places(fn, tile, to, wide):
                    fn.store(Val(var.get(), "f32", tile.lanes), at)
            first += width * count
            done += count
