"""1x1 convolutions that take the elementwise operators before them into their kernel."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.kernels.contract import PANEL, Side
from diptych.kernels.staged import StagedParams, make_staged, pack_groups, staged_tiling
from diptych.schedule.contraction import _conv_side, _epilogue, _readable

if TYPE_CHECKING:
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group
    from diptych.schedule.views import View

__all__ = ["lower_staged"]

def lower_staged(ctx: Context, group: Group) -> None:
    """blocked_conv with what stands before and after it."""
    node = group.anchor
    assert node is not None
    w = ctx.constant(node.inputs[1])
    assert w is not None
    o, c = w.shape[:2]
    out, x_type = ctx.result(group.results[0]), ctx.graph.types[node.inputs[0]]
    n, panels, *spatial, _ = out.shape
    outer = spatial[:-2]
    rows, cols = spatial[-2] if len(spatial) > 1 else 1, spatial[-1]
    prologue, values = ctx.expression(group.prologue, results=(node.inputs[0],))
    inputs = [_still(_readable(ctx, ctx.view(v), x_type.shape, -1)) for v in values]
    has_bias = len(node.inputs) > 2
    epilogue, extra = _epilogue(ctx, group, has_bias)
    views = [_still(_readable(ctx, ctx.view(v), out.shape, -1)) for v in extra]
    sides = [_conv_side(v, panels) for v in views]
    if has_bias:
        bias = ctx.constant(node.inputs[2])
        assert bias is not None
        views.insert(0, ctx.weights(np.pad(bias, (0, panels * PANEL - o))))
        sides.insert(0, Side((0,) * (2 + len(outer)), 0, 0, PANEL, 1))

    def side(s: Side) -> Side:
        """Without the stride over groups, of which there is one."""
        return Side((s.batch[0], *s.batch[2:]), s.row, s.col, s.panel, s.lane)

    tiling = staged_tiling(ctx.target, n * prod(outer), rows * cols, panels)
    params = StagedParams(
        (n, *outer), rows, cols, panels, c // PANEL, c % PANEL, prologue,
        tuple(side(_conv_side(v, 1)) for v in inputs), epilogue, tuple(side(s) for s in sides),
        side(_conv_side(out, panels)), tiling,
    )  # fmt: skip
    per_tile = tiling.panels_per_tile
    weights = ctx.packed((panels // per_tile, c, per_tile * PANEL), lambda out: pack_groups(w.reshape(o, c), out))
    args = [*inputs, weights, *views, out]
    ctx.call(make_staged(params, [v.operand for v in args], ctx.target), args)


def _still(view: View) -> View:
    """With strides of 0 where there is nowhere to go, so that equal walks look equal."""
    strides = tuple(0 if d == 1 else s for d, s in zip(view.shape, view.strides, strict=True))
    return replace(view, strides=strides)
