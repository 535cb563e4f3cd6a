"""Blocked convolutions in groups that lie inside one block of channels -> kernel calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.kernels.grouped import make_grouped
from diptych.ops.base import attributes
from diptych.ops.blocked import BLOCK, in_block
from diptych.schedule.contraction import pad_spatial
from diptych.schedule.expand import depthwise_blocks
from diptych.schedule.views import View
from diptych.schedule.weights import channel_rows

if TYPE_CHECKING:
    from diptych.ir import Array, Graph, Node
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["is_grouped", "lower_grouped"]


def is_grouped(graph: Graph, node: Node) -> bool:
    """Whether a blocked_conv has groups of few channels (and a kernel of its own)."""
    return in_block(graph.types[node.inputs[1]].shape, attributes(node.op)["groups"])


def lower_grouped(ctx: Context, group: Group) -> None:
    """blocked_conv in groups of 2, 4 or 8 channels, its bias and epilogue, over a padded input."""
    node = group.anchor
    assert node is not None
    a = attributes(node.op)
    w = ctx.constant(node.inputs[1])
    if w is None:
        raise ctx.refuse(node, "the weights of groups inside one block must be constant")
    lead = 4 - w.ndim  # a sequence is an image of height 1

    def image(view: View) -> View:
        if not lead:
            return view
        return View(view.buffer, view.offset, (*view.shape[:2], 1, *view.shape[2:]),
                    (*view.strides[:2], 0, *view.strides[2:]), view.dtype)  # fmt: skip

    x, out = ctx.view(node.inputs[0]), ctx.result(group.results[0])
    halo = ctx.halos.get(node.inputs[0])
    if x.strides[-1] != 1:
        x, halo = ctx.copy(x, "convolution input"), None
    if any(p != (0, 0) for p in a["pads"]):
        x = pad_spatial(ctx, x, a["pads"], False, halo)
    weights = ctx.weights(_lanes_of_groups(w.reshape(*w.shape[:2], *(1,) * lead, *w.shape[2:])))
    bias = [channel_rows(ctx, v, out.shape[1]) for v in node.inputs[2:]]
    epilogue, extra = ctx.expression(group.epilogue, first=(node.outputs[0],), results=group.results)
    extras = [ctx.view(v).broadcast(out.shape) for v in extra]
    extras = [image(v if v.strides[-1] in (0, 1) else ctx.copy(v, "epilogue operand")) for v in extras]
    x, out, ones = image(x), image(out), (1,) * lead
    made = make_grouped(
        x.operand, weights.operand, bias[0].operand if bias else None, out.operand, (*ones, *a["strides"]),
        (*ones, *a["dilations"]), ctx.target, epilogue=epilogue, extras=[v.operand for v in extras],
    )  # fmt: skip
    ctx.call(made, [x, weights, *bias, *extras, out])


def _lanes_of_groups(w: Array) -> Array:
    """w[O, g, KH, KW] as [blocks, KH, KW, g, 16]."""
    return np.ascontiguousarray(depthwise_blocks(np.moveaxis(w, 1, -1)).reshape(-1, *w.shape[2:], w.shape[1], BLOCK))
