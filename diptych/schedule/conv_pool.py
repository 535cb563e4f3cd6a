"""The convolution of a plain image that only a max-pooling reads becomes part of it: one kernel, no image between in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.kernels.conv_pool import item_panels, make_conv_pool
from diptych.kernels.row_ring import Window, row_cuts
from diptych.ops.base import attributes
from diptych.schedule.expand import constant_bias, is_conv, packed_window, reads_alone
from diptych.schedule.joining import join

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.ir import Graph, Node
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["join_pools", "lower_conv_pool"]


def join_pools(graph: Graph, groups: list[Group],
               wanted: Callable[[Group, Group], bool] = lambda before, group: True) -> list[Group]:  # fmt: skip
    """The groups with convolutions of plain images joined to the max-poolings that alone read them; refusals have reasons.

    `wanted` has the last word on a pair that could be joined.
    """
    return join(graph, groups, _is_stem, lambda node: node.op.name == "blocked_max_pool", _objection, wanted,
                "apart they were measured to be faster")  # fmt: skip


def _is_stem(group: Group) -> bool:
    return is_conv(group) and group.anchor is not None and bool(attributes(group.anchor.op)["plain_input"])


def _objection(graph: Graph, before: Group, group: Group, uses: dict[int, list[Node]]) -> str:
    """Why convolution and pooling stay kernels of their own; empty if they become one."""
    one, two = before.anchor, group.anchor
    assert one is not None and two is not None
    a, d = attributes(one.op), attributes(two.op)
    shape, y = graph.types[one.inputs[1]].shape, graph.types[two.inputs[0]].shape
    if len(shape) != 4 or a["groups"] != 1:
        return "only dense convolutions of images are joined"
    if set(a["dilations"]) | set(d.get("dilations") or (1,)) != {1}:
        return "dilated windows"
    if any(k < s for k, s in zip(d["kernel"], d["strides"], strict=True)):
        return "the windows leave rows or columns out"
    out = graph.types[two.outputs[0]].shape[2:4]
    for size, o, s, (lo, _) in zip(y[2:4], out, d["strides"], d["pads"], strict=True):
        if (o - 1) * s - lo >= size:
            return "a window holds nothing of the image"
    return reads_alone(graph, before, group, uses)


def lower_conv_pool(ctx: Context, group: Group) -> None:
    """The joined convolution and pooling of a group as one kernel."""
    before, two = group.before, group.anchor
    assert before is not None and two is not None and before.anchor is not None
    one = before.anchor
    a, d = attributes(one.op), attributes(two.op)
    w = ctx.constant(one.inputs[1])
    assert w is not None
    x, out = ctx.view(one.inputs[0]), ctx.result(group.results[0])
    if x.strides[-1] != 1:
        x = ctx.copy(x, "convolution input")
    bias = constant_bias(ctx, one) + np.float32(0)  # the kernel wants no -0
    first, _ = ctx.expression(before.epilogue, first=(one.outputs[0],), results=before.results)
    second, _ = ctx.expression(group.epilogue, first=(two.outputs[0],), results=group.results)
    one_window = Window(w.shape[2:], a["strides"], a["pads"])
    window = Window(d["kernel"], d["strides"], d["pads"])
    n, blocks, rows, *_ = out.shape
    parts = row_cuts(n * blocks // item_panels(blocks, ctx.target), rows, window, ctx.threads)
    args = [x, ctx.weights(packed_window(w)), ctx.weights(bias), out]
    ctx.call(make_conv_pool([v.operand for v in args], one_window, window, w.shape[1], first, second, parts, ctx.target), args)
