"""Products of rows keep the axes that their rows have, so that what follows them can be part of their kernel."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from diptych.ops.base import Elementwise, attributes
from diptych.passes.rebuild import rebuild

if TYPE_CHECKING:
    from diptych.ir import Graph, Node, Value
    from diptych.ops.build import Builder

__all__ = ["keep_rows"]


def keep_rows(graph: Graph) -> Graph:
    """reshape([.., K] -> [M, K]), product, elementwise operators, reshape back: the same without the reshapes.

    Frameworks flatten the leading axes before a product and restore them after it; between the two, a residual or an
    activation of the original shape would not be seen to fit.
    """
    whole: dict[int, Value] = {}  # [M, N] value -> the [.., N] value that it is a reshape of

    def flat(g: Builder, x: Value, rows: int) -> Value:
        made = g.reshape(x, (rows, x.shape[-1]))
        whole[made.id] = x
        return made

    def visit(g: Builder, node: Node, xs: tuple[Value, ...]) -> Value | None:
        if not xs:
            return None
        x, op = xs[0], node.op
        if op.name == "reshape":
            shape = graph.types[node.outputs[0]].shape
            if x.id in whole and whole[x.id].shape == shape:
                return whole[x.id]
            lead = next((k for k in range(x.rank - 1, 1, -1) if prod(x.shape[:k]) == shape[0]), 0) if len(shape) == 2 else 0
            return flat(g, g.reshape(x, (*x.shape[:lead], shape[1])), shape[0]) if lead and 0 not in shape else None
        if op.name == "mat_mul" and x.id in whole and xs[1].rank == 2 and not attributes(op)["transpose_a"]:
            return flat(g, g.emit(op, whole[x.id], xs[1]), x.shape[0])
        if isinstance(op, Elementwise) and len(node.outputs) == 1:
            like = [whole[v.id] for v in xs if v.id in whole]
            shape = graph.types[node.outputs[0]].shape
            leads = {v.shape[:-1] for v in like}
            others = all(v.id in whole or v.rank < 2 for v in xs)
            if len(leads) == 1 and others and len(shape) == 2 and all(v.shape[0] == shape[0] for v in xs if v.id in whole):
                return flat(g, g.emit(op, *(whole.get(v.id, v) for v in xs)), shape[0])
        return None

    return rebuild(graph, visit)
