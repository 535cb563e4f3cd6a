"""The 1x1 convolution behind a joined depthwise one becomes part of that kernel where estimates say that it pays."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.kernels.chain import make_chain
from diptych.kernels.row_ring import Window, ring_rows, row_cuts
from diptych.ops.base import attributes
from diptych.ops.blocked import BLOCK
from diptych.schedule.expand import constant_bias, depthwise_blocks, is_conv, packed_window
from diptych.schedule.joining import join
from diptych.schedule.options import conv_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.ir import Array, Graph, Node
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group
    from diptych.targets.base import Target

__all__ = ["chain_key", "join_chains", "lower_chain", "pays"]

_BAND = 1  # rows of outputs made together: the smallest ring was the fastest
_AGAIN = 1 / 16  # of the rows of the first convolution may be made twice
_PART = 0.75  # of L2, from which on the image between is better not written


def join_chains(graph: Graph, groups: list[Group], wanted: Callable[[Group, Group], bool]) -> list[Group]:
    """The groups with joined depthwise convolutions made part of the 1x1 convolutions that alone read them.

    `wanted` decides on a pair that could be joined. Each refusal has its reason.
    """
    return join(graph, groups, lambda g: g.before is not None and is_conv(g), lambda node: node.op.name == "blocked_conv",
                _objection, wanted, "estimated or measured to be no faster")  # fmt: skip


def _objection(graph: Graph, before: Group, group: Group, uses: dict[int, list[Node]]) -> str:
    """Why a projection stays a kernel of its own; empty if it can be part of what comes before."""
    three = group.anchor
    assert three is not None
    a, shape, value = attributes(three.op), graph.types[three.inputs[1]].shape, three.inputs[0]
    if a["groups"] != 1 or a["plain_input"] or set(shape[2:]) != {1} or set(a["strides"]) != {1} or any(p != (0, 0) for p in a["pads"]):
        return "not a dense 1x1 convolution of every pixel"
    if group.prologue or group.gate is not None:
        return "it has a prologue"
    if value in graph.outputs or [u for u in uses.get(value, []) if u is not three]:
        return "its result is read elsewhere too"
    if any(v not in graph.constants for v in three.inputs[1:]):
        return "weights are not constant"
    return ""


def _nodes(before: Group, group: Group) -> tuple[Node, Node, Node]:
    """The three convolutions."""
    assert before.before is not None
    one, two, three = before.before.anchor, before.anchor, group.anchor
    assert one is not None and two is not None and three is not None
    return one, two, three


def chain_key(graph: Graph, before: Group, group: Group, strict: bool) -> str:
    """What the tuning knows the three convolutions by."""
    return "chain " + " into ".join(conv_key(graph, n, (), strict) for n in _nodes(before, group))


def pays(graph: Graph, before: Group, group: Group, threads: int, target: Target) -> bool:
    """Whether three convolutions are estimated to be faster as one kernel.

    What is saved is the way of the image between to L3 and back; what it costs are rows made twice where work items meet,
    and register tiles that end with the row. docs/decisions/0021 has the measurements.
    """
    _, two, _ = _nodes(before, group)
    a, kernel = attributes(two.op), graph.types[two.inputs[1]].shape[2:]
    y, z = graph.types[two.inputs[0]].shape, graph.types[two.outputs[0]].shape
    window = Window((kernel[0], kernel[1]), a["strides"], a["pads"])
    ring = 4 * prod(z[1:2]) * BLOCK * ring_rows(window, _BAND) * (y[3] + kernel[1])
    cuts = row_cuts(z[0], z[2], window, threads) - 1
    again = cuts * max(0, kernel[0] - window.strides[0]) / y[2]
    return 4 * prod(z[1:]) >= _PART * target.l2 and ring <= target.l2 / 2 and again <= _AGAIN


def lower_chain(ctx: Context, group: Group) -> None:
    """The three joined convolutions of a group as one kernel."""
    second = group.before
    assert second is not None and second.before is not None
    first = second.before
    one, two, three = _nodes(second, group)
    a, d = attributes(one.op), attributes(two.op)
    w1, w2, w3 = (ctx.constant(n.inputs[1]) for n in (one, two, three))
    assert w1 is not None and w2 is not None and w3 is not None
    x, out = ctx.view(one.inputs[0]), ctx.result(group.results[0])
    if x.strides[-1] != 1:
        x = ctx.copy(x, "convolution input")
    arrays = (packed_window(w1), constant_bias(ctx, one), depthwise_blocks(w2[:, 0]), constant_bias(ctx, two),
              _panels(w3), constant_bias(ctx, three))  # fmt: skip
    e1, _ = ctx.expression(first.epilogue, first=(one.outputs[0],), results=first.results)
    e2, _ = ctx.expression(second.epilogue, first=(two.outputs[0],), results=second.results)
    e3, values = ctx.expression(group.epilogue, first=(three.outputs[0],), results=group.results)
    sides = [ctx.view(v).broadcast(out.shape) for v in values]
    sides = [v if v.strides[-1] == 1 else ctx.copy(v, "epilogue operand") for v in sides]
    one_window, window = Window(w1.shape[2:], a["strides"], a["pads"]), Window(w2.shape[2:], d["strides"], d["pads"])
    parts = row_cuts(out.shape[0], out.shape[2], window, ctx.threads)
    args = [x, *(ctx.weights(v) for v in arrays), *sides, out]
    kernel = make_chain(
        [v.operand for v in args], one_window, window, a["plain_input"], w1.shape[1], w3.shape[1], w3.shape[0], e1, e2, e3,
        _BAND, parts, ctx.target,
    )  # fmt: skip
    ctx.call(kernel, args)


def _panels(w: Array) -> Array:
    """w[O, C, 1, 1] -> [panels, C, 16], outputs past O zero."""
    o, c = w.shape[:2]
    panels = -(-o // BLOCK)
    padded = np.zeros((panels * BLOCK, c), np.float32)
    padded[:o] = w.reshape(o, c)
    return np.ascontiguousarray(padded.reshape(panels, BLOCK, c).transpose(0, 2, 1))
