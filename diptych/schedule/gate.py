"""Squeeze-and-excite: the factor per channel that a 1x1 convolution's input is multiplied by goes into its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.ir.kernel import Expr
from diptych.kernels.pointwise import make_pointwise
from diptych.ops.base import OPS, attributes
from diptych.schedule.views import View

if TYPE_CHECKING:
    from diptych.ir import Graph, Node
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["join_gates", "scaled_weights"]


def join_gates(graph: Graph, groups: list[Group]) -> list[Group]:
    """The groups with multiplications before convolutions made factors of weights (`Group.gate`); refusals have reasons."""
    alone = {g.results[0]: g for g in groups if g.anchor is None and _is_product(g.epilogue)}
    uses, gone = graph.uses(), set()
    for group in groups:
        node = group.anchor
        if node is None or node.op.name != "blocked_conv" or group.before is not None:
            continue
        before = alone.get(node.inputs[0])
        if before is None and not _is_product(group.prologue):
            continue
        mul = before.epilogue[0] if before else group.prologue[0]
        image, gate = _operands(graph, mul)
        why = "not an image times a factor per channel" if gate is None else _objection(graph, node, uses)
        if why:
            group.refused.append(f"mul {mul.name} not in its weights: {why}")
            continue
        assert gate is not None
        group.gate, group.prologue = (image, gate), []
        if before is not None:
            gone.add(id(before))
    return [g for g in groups if id(g) not in gone]


def _is_product(nodes: list[Node]) -> bool:
    return len(nodes) == 1 and nodes[0].op.name == "mul"


def _operands(graph: Graph, mul: Node) -> tuple[int, int | None]:
    """The image and the factors [N, B, 1, .., 16] of a multiplication."""
    shape = graph.types[mul.outputs[0]].shape
    for image, gate in (mul.inputs, mul.inputs[::-1]):
        own = graph.types[gate].shape
        if graph.types[image].shape == shape and own == (*shape[:2], *(1,) * (len(shape) - 3), shape[-1]):
            return image, gate
    return mul.inputs[0], None


def _objection(graph: Graph, node: Node, uses: dict[int, list[Node]]) -> str:
    """Why a convolution's weights cannot take the factors; empty if they can."""
    a, weight, x = attributes(node.op), node.inputs[1], node.inputs[0]
    n_out, *_, = shape = graph.types[weight].shape
    pixels = graph.types[node.outputs[0]].size // max(1, graph.types[node.outputs[0]].shape[0] * n_out)
    if x in graph.outputs or [u for u in uses.get(x, []) if u is not node]:
        return "the product is read elsewhere too"
    if weight not in graph.constants or a["groups"] != 1 or a["plain_input"]:
        return "not a dense convolution with constant weights"
    if any(k != 1 for k in shape[2:]) or any(p != (0, 0) for p in a["pads"]):
        return "its window is larger than one pixel"
    if pixels < n_out:
        return f"{pixels} pixels are fewer than the {n_out} output channels"
    return ""


def scaled_weights(ctx: Context, weights: View, gate: View, channels: int) -> View:
    """Packed weights [1, panels, channels * 16] times the factors gate[N, B, .., 16]: [N, panels, channels * 16]."""
    n, blocks, lanes = gate.shape[0], gate.shape[1], gate.shape[-1]
    flat = gate.reshape((n, blocks * lanes))
    if flat is None:
        flat = ctx.copy(gate, "factors").reshape((n, blocks * lanes))
        assert flat is not None
    panels = weights.shape[1]
    shape = (n, panels, channels, lanes)
    factors = View(flat.buffer, flat.offset, shape, (flat.strides[0], 0, flat.strides[1], 0), flat.dtype)
    source = View(weights.buffer, weights.offset, shape, (0, channels * lanes, lanes, 1), weights.dtype)
    out = ctx.temp(shape)
    expr = Expr(2, (), ((OPS["mul"](), (0, 1)),), (2,))
    kernel = make_pointwise(shape, expr, [source.operand, factors.operand], [out.operand], ctx.target)
    ctx.call(kernel, [source, factors, out], fused=("mul",))
    return View(out.buffer, 0, (n, panels, channels * lanes), (panels * channels * lanes, channels * lanes, 1), "f32")
