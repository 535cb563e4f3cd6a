"""A convolution that only a depthwise convolution reads becomes part of it: one kernel, no image between in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.kernels.expand import make_expand, row_parts
from diptych.kernels.row_ring import Window
from diptych.ops.base import attributes
from diptych.ops.blocked import BLOCK
from diptych.schedule.joining import join

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.ir import Array, Graph, Node
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["constant_bias", "depthwise_blocks", "is_conv", "join_depthwise", "lower_expand", "packed_window", "reads_alone"]

_FEWEST_COLUMNS = 5  # register tiles do not cross rows here: narrower ones leave the FMA pipelines waiting


def join_depthwise(graph: Graph, groups: list[Group],
                   wanted: Callable[[Group, Group], bool] = lambda before, group: True) -> list[Group]:  # fmt: skip
    """The groups with convolutions joined to the depthwise ones that alone read them; each refusal has its reason.

    `wanted` has the last word on a pair that could be joined.
    """
    return join(graph, groups, is_conv, lambda node: _is_depthwise(graph, node), _objection, wanted,
                "apart they were measured to be faster")  # fmt: skip


def is_conv(group: Group) -> bool:
    """Whether a group is a convolution on blocks, with what is fused into it."""
    return group.anchor is not None and group.anchor.op.name == "blocked_conv"


def _is_depthwise(graph: Graph, node: Node) -> bool:
    if node.op.name != "blocked_conv" or attributes(node.op)["groups"] == 1:
        return False
    shape = graph.types[node.inputs[1]].shape
    return len(shape) == 4 and shape[1] == 1


def _objection(graph: Graph, before: Group, group: Group, uses: dict[int, list[Node]]) -> str:
    """Why two convolutions stay kernels of their own; empty if they become one."""
    one, two = before.anchor, group.anchor
    assert one is not None and two is not None
    a, d = attributes(one.op), attributes(two.op)
    shape, y = graph.types[one.inputs[1]].shape, graph.types[two.inputs[0]].shape
    if a["groups"] != 1 or len(shape) != 4:
        return "only dense convolutions of images are joined"
    if set(a["dilations"]) | set(d["dilations"]) != {1}:
        return "dilated windows"
    if not a["plain_input"] and (shape[2:] != (1, 1) or any(p != (0, 0) for p in a["pads"])):
        return "a window over many channels"
    if y[3] < _FEWEST_COLUMNS:
        return f"rows of {y[3]} pixels are too short for register tiles of their own"
    return reads_alone(graph, before, group, uses)


def reads_alone(graph: Graph, before: Group, group: Group, uses: dict[int, list[Node]]) -> str:
    """Why what `group` makes cannot be worked out row by row as `before` makes its input; empty if it can."""
    one, two = before.anchor, group.anchor
    assert one is not None and two is not None
    value = two.inputs[0]
    if before.prologue or group.prologue:
        return "it has a prologue"
    if value in graph.outputs or [u for u in uses.get(value, []) if u is not two]:
        return "its result is read elsewhere too"
    if any(v not in graph.constants for n in (one, two) for v in n.inputs[1:]):
        return "weights are not constant"
    if not _unary(graph, before, one.outputs[0]) or not _unary(graph, group, two.outputs[0]):
        return "an epilogue reads another operand"
    return ""


def _unary(graph: Graph, group: Group, value: int) -> bool:
    """Whether the epilogue is a function of the anchor's result (and of scalar constants) alone."""
    made = {value, *(v for n in group.epilogue for v in n.outputs)}
    others = {v for n in group.epilogue for v in n.inputs if v not in made}
    return all(v in graph.constants and graph.types[v].size == 1 for v in others)


def depthwise_blocks(array: Array) -> Array:
    """[channels, ...] -> [blocks, ..., 16], zeros beyond the channels."""
    channels = array.shape[0]
    count = -(-channels // BLOCK)
    padded = np.zeros((count * BLOCK, *array.shape[1:]), np.float32)
    padded[:channels] = array
    return np.moveaxis(padded.reshape(count, BLOCK, *array.shape[1:]), 1, -1)


def packed_window(w: Array) -> Array:
    """Weights of the first convolution w[O, C, KH, KW] -> [B, KH, C, KW, 16]."""
    return depthwise_blocks(w.transpose(0, 2, 1, 3))


def constant_bias(ctx: Context, node: Node) -> Array:
    """The bias of a convolution by blocks of channels, zeros if it has none."""
    found = ctx.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return depthwise_blocks(np.zeros(ctx.graph.types[node.inputs[1]].shape[0], np.float32) if found is None else found)


def lower_expand(ctx: Context, group: Group) -> None:
    """The joined convolutions of a group as one kernel."""
    before, two = group.before, group.anchor
    assert before is not None and two is not None and before.anchor is not None
    one = before.anchor
    a, d = attributes(one.op), attributes(two.op)
    w1, w2 = ctx.constant(one.inputs[1]), ctx.constant(two.inputs[1])
    assert w1 is not None and w2 is not None
    x, out = ctx.view(one.inputs[0]), ctx.result(group.results[0])
    if x.strides[-1] != 1:
        x = ctx.copy(x, "convolution input")
    channels = w1.shape[1]
    weights = [ctx.weights(v) for v in (packed_window(w1), constant_bias(ctx, one), depthwise_blocks(w2[:, 0]), constant_bias(ctx, two))]
    first, _ = ctx.expression(before.epilogue, first=(one.outputs[0],), results=before.results)
    second, _ = ctx.expression(group.epilogue, first=(two.outputs[0],), results=group.results)
    one_window = Window(w1.shape[2:], a["strides"], a["pads"])
    window = Window(w2.shape[2:], d["strides"], d["pads"])
    n, blocks, rows, _, _ = out.shape
    parts = row_parts(n, blocks, rows, ctx.graph.types[two.inputs[0]].shape[3], window, ctx.target)
    args = [x, *weights, out]
    result = group.results[0]
    if any(n.op.name == "sum" and attributes(n.op)["axes"] == (2, 3) for n in ctx.graph.uses().get(result, [])):
        ctx.sums[result] = ctx.temp((n, blocks, parts, BLOCK))
        args.append(ctx.sums[result])
    kernel = make_expand(
        [v.operand for v in args], one_window, window, a["plain_input"], channels, first, second, parts, ctx.target
    )
    ctx.call(kernel, args)
