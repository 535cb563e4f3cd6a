"""Convolutions to a few channels, with a plain result -> kernel calls."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from diptych.kernels.narrow import make_narrow_conv
from diptych.kernels.pointwise_pack import make_pack_channels
from diptych.ops.base import attributes
from diptych.ops.blocked import BLOCK, PackChannels
from diptych.schedule.contraction import pad_spatial

if TYPE_CHECKING:
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group
    from diptych.schedule.views import View

__all__ = ["lower_narrow_conv"]


def lower_narrow_conv(ctx: Context, group: Group) -> None:
    """narrow_conv with its bias and epilogue, over a padded input."""
    node = group.anchor
    assert node is not None
    a = attributes(node.op)
    blocked = not a["plain_input"]
    _, c, *kernel = ctx.graph.types[node.inputs[1]].shape
    x, out = ctx.view(node.inputs[0]), ctx.result(group.results[0])
    if 0 in out.shape:
        return
    if any(p != (0, 0) for p in a["pads"]):
        x = pad_spatial(ctx, x, a["pads"], not blocked, ctx.halos.get(node.inputs[0]))
    if blocked and x.strides[-1] != 1:
        x = ctx.copy(x, "convolution input")
    reach = [s * d for s, d in zip(x.strides[2:], a["dilations"], strict=False)]
    taps = [sum(i * r for i, r in zip(where, reach, strict=True)) for where in product(*map(range, kernel))]
    weights = _weights(ctx, node.inputs[1], blocked)
    bias = [ctx.view(v) for v in node.inputs[2:]]
    bias = [v if v.strides[-1] == 1 else ctx.copy(v, "bias") for v in bias]
    epilogue, extra = ctx.expression(group.epilogue, first=(node.outputs[0],), results=group.results)
    extras = [ctx.view(v).broadcast(out.shape) for v in extra]
    made = make_narrow_conv(
        x.operand, weights.operand, bias[0].operand if bias else None, out.operand, a["strides"], taps, c, ctx.target,
        blocked=blocked, epilogue=epilogue, extras=[v.operand for v in extras],
    )  # fmt: skip
    ctx.call(made, [x, weights, *bias, *extras, out])


def _weights(ctx: Context, value: int, blocked: bool) -> View:
    """w[O, C, *K] as it is, or with blocks of channels inside: [O, B, *K, 16]."""
    w = ctx.constant(value)
    if w is not None:
        return ctx.weights(PackChannels().reference(w) if blocked else w)
    view = ctx.view(value)
    if not blocked:
        return ctx.copy(view, "weights")
    out = ctx.temp((view.shape[0], -(-view.shape[1] // BLOCK), *view.shape[2:], BLOCK))
    ctx.call(make_pack_channels(view.operand, out.operand, ctx.target), (view, out), fused=("pack",))
    return out
