"""The verifier of the Graph level: raises GraphError with the node at fault."""

from __future__ import annotations

from diptych.errors import GraphError
from diptych.ir.graph import Graph
from diptych.ir.types import TensorType, numpy_dtype

__all__ = ["verify"]


def verify(graph: Graph) -> Graph:
    """Check single assignment, order, constants and every type rule; returns the graph, for chaining."""
    count = len(graph.types)
    defined: set[int] = set()

    def define(v: int, what: str) -> None:
        if not 0 <= v < count:
            raise GraphError(f"{what}: value %{v} has no type")
        if v in defined:
            raise GraphError(f"{what}: value %{v} is defined twice")
        defined.add(v)

    if len(graph.inputs) != len(graph.input_names) or len(set(graph.input_names)) != len(graph.input_names):
        raise GraphError("graph inputs and their names do not pair up one to one")
    if len(graph.outputs) != len(graph.output_names) or len(set(graph.output_names)) != len(graph.output_names):
        raise GraphError("graph outputs and their names do not pair up one to one")
    for v in graph.inputs:
        define(v, "input")
    for v, array in graph.constants.items():
        define(v, "constant")
        t = graph.types[v]
        if tuple(array.shape) != t.shape or array.dtype != numpy_dtype(t.dtype):
            raise GraphError(f"constant %{v}: array {array.dtype}{list(array.shape)} is not of type {t}")
    for i, node in enumerate(graph.nodes):
        what = f"node {i} ({node.op.name}{' ' + node.name if node.name else ''})"
        for v in node.inputs:
            if v not in defined:
                raise GraphError(f"{what}: operand %{v} is used before it is defined")
        result = node.op.infer(*(graph.types[v] for v in node.inputs))
        types: tuple[TensorType, ...] = result if isinstance(result, tuple) else (result,)
        if len(types) != len(node.outputs):
            raise GraphError(f"{what}: the type rule gives {len(types)} results, the node has {len(node.outputs)}")
        for v, t in zip(node.outputs, types, strict=True):
            define(v, what)
            if graph.types[v] != t:
                raise GraphError(f"{what}: %{v} has type {graph.types[v]}, the type rule says {t}")
    for v in graph.outputs:
        if v not in defined:
            raise GraphError(f"graph output %{v} is never defined")
    return graph
