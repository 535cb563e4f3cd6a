"""The one driver of Graph -> Graph passes: walk the nodes in order and build anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from diptych.ops.build import Builder

if TYPE_CHECKING:
    from diptych.ir import Graph, Node, Value

__all__ = ["Visit", "rebuild"]

# Given the new graph's builder, an old node and its operands there: its results there, or None to copy the node.
Visit = Callable[["Builder", "Node", "tuple[Value, ...]"], "Value | Sequence[Value] | None"]


def rebuild(graph: Graph, visit: Visit) -> Graph:
    """Apply `visit` to every node. Values no one uses any more are dropped."""
    g = Builder(graph.name)
    env = {v: g.input(name, graph.types[v]) for name, v in zip(graph.input_names, graph.inputs, strict=True)}
    for v, array in graph.constants.items():
        env[v] = g.constant(array, graph.types[v].dtype, graph.constant_names.get(v, ""))
    for node in graph.nodes:
        g.layer, g.source = node.name, node.source
        operands = tuple(env[v] for v in node.inputs)
        result = visit(g, node, operands)
        if result is None:
            result = g.copy(node.op, operands, [graph.types[v] for v in node.outputs])  # every pass keeps all types
        elif not isinstance(result, (tuple, list)):
            result = (result,)  # type: ignore[assignment]
        assert not isinstance(result, type(None))
        for v, new in zip(node.outputs, result, strict=True):  # type: ignore[arg-type]
            assert new.type == graph.types[v], f"{node.op.name}: a pass changed {graph.types[v]} to {new.type}"
            env[v] = new
    return g.finish({name: env[v] for name, v in zip(graph.output_names, graph.outputs, strict=True)})
