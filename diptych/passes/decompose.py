"""Replace composite operators by their decompositions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.ops.base import Composite
from diptych.passes.rebuild import rebuild

if TYPE_CHECKING:
    from collections.abc import Collection

    from diptych.ir import Graph, Node, Value
    from diptych.ops.build import Builder

__all__ = ["decompose"]


def decompose(graph: Graph, keep: Collection[str] = (), also: Collection[str] = (), f32: Collection[str] = ()) -> Graph:
    """Expand every composite (and the operators named in `also`) except those named in `keep`, to a fixed point.

    Those named in `f32` are kept where their operands are f32.
    """

    def expands(node: Node, graph: Graph) -> bool:
        if node.op.name in keep or not (isinstance(node.op, Composite) or node.op.name in also):
            return False
        return node.op.name not in f32 or any(graph.types[v].dtype != "f32" for v in node.inputs)

    def visit(g: Builder, node: Node, xs: tuple[Value, ...]) -> Value | tuple[Value, ...] | None:
        return node.op.decompose(g, *xs) if expands(node, graph) else None  # type: ignore[attr-defined]

    while any(expands(n, graph) for n in graph.nodes):
        graph = rebuild(graph, visit)
    return graph
