"""Exchange operators that commute, so that the costly one meets fewer elements."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from diptych.ops.base import attributes
from diptych.passes.rebuild import rebuild

if TYPE_CHECKING:
    from diptych.ir import Graph, Node, Value
    from diptych.ops.build import Builder

__all__ = ["pool_before_pointwise"]


def pool_before_pointwise(graph: Graph) -> Graph:
    """A 1x1 convolution followed by average pooling: the average first, the convolution on what is left.

    Both are linear, one over channels, the other over pixels; a bias is its own average. That needs windows that lie
    inside the image (no padding is counted), and pays where pooling leaves fewer pixels (the transitions of DenseNet:
    a quarter of the products).
    """
    uses = graph.uses()
    convs: dict[int, tuple[Node, tuple[Value, ...]]] = {}  # new value -> the 1x1 convolution that made it

    def visit(g: Builder, node: Node, xs: tuple[Value, ...]) -> Value | None:
        a = attributes(node.op)
        if node.op.name == "conv" and _is_pointwise(graph, node):
            out = g.emit(node.op, *xs)
            readers = uses.get(node.outputs[0], [])
            if len(readers) == 1 and node.outputs[0] not in graph.outputs:
                convs[out.id] = (node, xs)
            return out
        if node.op.name != "avg_pool" or xs[0].id not in convs:
            return None
        size, left = xs[0].shape[2:], graph.types[node.outputs[0]].shape[2:]
        windows = zip(size, left, a["kernel"], a["strides"], strict=True)
        if any(any(p) for p in a["pads"]) or any((o - 1) * s + k > d for d, o, k, s in windows):
            return None
        if 2 * prod(left) > prod(size):
            return None
        conv, operands = convs[xs[0].id]
        pooled = g.emit(node.op, operands[0])
        return g.emit(conv.op, pooled, *operands[1:], name=conv.name, source=conv.source)

    return rebuild(graph, visit)


def _is_pointwise(graph: Graph, node: Node) -> bool:
    a = attributes(node.op)
    ones = all(k == 1 for k in graph.types[node.inputs[1]].shape[2:])
    return ones and all(s == 1 for s in a["strides"]) and not any(any(p) for p in a["pads"])
