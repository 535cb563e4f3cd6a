"""Which convolutions go the Winograd way, and how they are lowered."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.kernels.winograd import WinogradGeometry, make_input_transform, make_products
from diptych.kernels.winograd_points import transform_weights
from diptych.ops.base import attributes

if TYPE_CHECKING:
    from diptych.ir import Array, Graph, Node
    from diptych.ir.kernel import Expr
    from diptych.kernels.contract import Side
    from diptych.schedule.context import Context
    from diptych.schedule.views import View
    from diptych.targets.base import Target

__all__ = ["choose_winograd", "lower_winograd", "winograd_pads"]

PANEL = 16


@dataclass(frozen=True, slots=True)
class _Cost:
    """Cycles of one core, from the shape of the loops; memory in cycles of both cores' shared bandwidth."""

    compute: float
    stream: float

    @property
    def total(self) -> float:
        return max(self.compute, self.stream)


def choose_winograd(graph: Graph, node: Node, target: Target) -> int:
    """The output tile m of F(m, 3) for a blocked_conv, or 0 when the direct way is faster or the only one."""
    a = attributes(node.op)
    w, out = graph.types[node.inputs[1]], graph.types[node.outputs[0]]
    plain = w.shape[2:] == (3, 3) and a["strides"] == (1, 1) == a["dilations"]
    if not plain or a["groups"] != 1 or a["plain_input"] or w.shape[1] < 16 or out.rank != 5:
        return 0
    c, o, batch = w.shape[1], out.shape[1] * PANEL, out.shape[0]
    rows, cols = out.shape[2:4]
    direct = _Cost(9.0 * c * o * rows * cols * batch / target.lanes(4) / 2 / 0.93, 9.0 * c * o * 4 / 6)
    best, cost = 0, direct.total
    for m, per_in, per_out in ((4, 105.0, 115.0), (2, 45.0, 45.0)):
        g = _geometry(m, rows, cols, c, target)
        tiles = g.tiles * batch
        vectors = 16 / target.lanes(4)
        multiply = g.points * g.blocks * g.per_block * batch * c * o / target.lanes(4) / 2 / 0.85
        transform = tiles * vectors * (c / 16 * per_in + o / 16 * per_out)
        found = _Cost(multiply + transform, g.points * c * o * 4 / 6).total
        if found < 0.9 * cost:
            best, cost = m, found
    return best


def _geometry(m: int, rows: int, cols: int, channels: int, target: Target) -> WinogradGeometry:
    """Blocks of tiles whose transformed input fits half of L2, evenly cut."""
    tiles = -(-rows // m) * -(-cols // m)
    padded = -(-channels // PANEL) * PANEL
    most = max(6, target.l2 // 2 // ((m + 2) ** 2 * padded * 4))
    blocks = -(-tiles // most)
    return WinogradGeometry(m, rows, cols, channels, -(-tiles // blocks))


def winograd_pads(pads: tuple[tuple[int, int], ...], rows: int, cols: int, m: int) -> tuple[tuple[int, int], ...]:
    """Padding with which whole tiles can be read."""
    (top, bottom), (left, right) = pads
    return (top, bottom + -rows % m), (left, right + -cols % m)


def lower_winograd(ctx: Context, x: View, w: Array, m: int, out: View, expr: Expr,
                   views: list[View], sides: list[Side], out_side: Side) -> None:  # fmt: skip
    """Emit the two kernels; x is padded by `winograd_pads` already."""
    c = w.shape[1]
    n, panels, rows, cols, _ = out.shape
    g = _geometry(m, rows, cols, c, ctx.target)
    weights = ctx.packed((panels, g.points, c * PANEL), lambda: transform_weights(w, m))
    v = ctx.temp(g.v_shape(n))
    transform = make_input_transform(x.operand, v.operand, g, ctx.target)
    ctx.call(transform, (x, v), fused=("winograd input transform",))
    products = make_products(v.operand, weights.operand, [e.operand for e in views], out.operand, g, expr, sides,
                             out_side, panels, ctx.target)  # fmt: skip
    assert prod(out.shape)
    ctx.call(products, (v, weights, *views, out))
