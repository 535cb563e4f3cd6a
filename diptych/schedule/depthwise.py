"""Depthwise blocked convolutions -> kernel calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.kernels.depthwise import make_depthwise
from diptych.ops.base import attributes
from diptych.schedule.expand import depthwise_blocks
from diptych.schedule.views import View
from diptych.schedule.weights import channel_rows, depthwise_weights

if TYPE_CHECKING:
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["lower_depthwise"]


def lower_depthwise(ctx: Context, group: Group) -> None:
    """blocked_conv with one input channel per group, its bias and epilogue; padding is the kernel's own affair."""
    node = group.anchor
    assert node is not None
    a = attributes(node.op)
    w = ctx.constant(node.inputs[1])
    shape = ctx.graph.types[node.inputs[1]].shape
    x, out = ctx.view(node.inputs[0]), ctx.result(group.results[0])
    channels = shape[0]
    lead = 2 - (len(shape) - 2)  # a sequence is an image of height 1

    def image(view: View) -> View:
        if not lead:
            return view
        return View(view.buffer, view.offset, (*view.shape[:2], 1, *view.shape[2:]),
                    (*view.strides[:2], 0, *view.strides[2:]), view.dtype)  # fmt: skip

    if w is None:
        view = ctx.view(node.inputs[1])
        weights = depthwise_weights(ctx, view.only([0, *range(2, len(shape))]))
        if lead:
            weights = View(weights.buffer, 0, (weights.shape[0], 1, *weights.shape[1:]),
                           (weights.strides[0], 0, *weights.strides[1:]), weights.dtype)  # fmt: skip
    else:
        weights = ctx.weights(depthwise_blocks(w.reshape(channels, *(1,) * lead, *shape[2:])))
    bias = [channel_rows(ctx, v, out.shape[1]) for v in node.inputs[2:]]
    epilogue, extra = ctx.expression(group.epilogue, first=(node.outputs[0],), results=group.results)
    extras = [ctx.view(v).broadcast(out.shape) for v in extra]
    extras = [image(v if v.strides[-1] in (0, 1) else ctx.copy(v, "epilogue operand")) for v in extras]
    x, out = image(x), image(out)
    if x.strides[-1] != 1:
        x = ctx.copy(x, "depthwise input")
    ones, none = (1,) * lead, ((0, 0),) * lead
    made = make_depthwise(
        x.operand, weights.operand, bias[0].operand if bias else None, out.operand, (*ones, *a["strides"]),
        (*none, *a["pads"]), (*ones, *a["dilations"]), ctx.target, epilogue=epilogue,
        extras=[v.operand for v in extras],
    )  # fmt: skip
    ctx.call(made, [x, weights, *bias, *extras, out])
