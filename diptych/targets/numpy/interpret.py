"""Run a Graph node by node through the operators' references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from diptych.errors import GraphError, InputError
from diptych.ir import Array, Graph
from diptych.ir.types import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["interpret"]


def interpret(graph: Graph, inputs: Mapping[str, Array], precision: Literal["f32", "f64"] = "f32",
              keep: bool = False) -> dict[str, Array]:  # fmt: skip
    """Evaluate `graph` on `inputs` (by input name).

    With precision="f64" every f32 value is computed in float64 and f64 arrays are returned: the referee in
    accuracy questions. With keep=True the result also holds every intermediate value, under its number ("%12").
    """
    if set(inputs) != set(graph.input_names):
        raise InputError(f"inputs {sorted(inputs)} given, the graph takes {sorted(graph.input_names)}")
    wide = precision == "f64"

    def expected(v: int) -> np.dtype[np.generic]:
        dtype = graph.types[v].dtype
        return np.dtype(np.float64) if wide and dtype == "f32" else numpy_dtype(dtype)

    env: dict[int, Array] = {}
    for name, v in zip(graph.input_names, graph.inputs, strict=True):
        array = np.asarray(inputs[name])
        if array.shape != graph.types[v].shape:
            raise InputError(f"input {name!r} has shape {array.shape}, expected {graph.types[v].shape}")
        env[v] = array.astype(expected(v), copy=False)
    for v, array in graph.constants.items():
        env[v] = array.astype(expected(v), copy=False)
    last: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        for v in node.inputs:
            last[v] = i
    pinned = set(graph.outputs)
    with np.errstate(all="ignore"):
        for i, node in enumerate(graph.nodes):
            result = node.op.reference(*(env[v] for v in node.inputs))
            results = result if isinstance(result, tuple) else (result,)
            for v, array in zip(node.outputs, results, strict=True):
                array = np.asarray(array)
                if array.shape != graph.types[v].shape:
                    raise GraphError(
                        f"{node.op.name} {node.name}: reference gives shape {array.shape}, type rule {graph.types[v]}"
                    )
                env[v] = array.astype(expected(v), copy=False)
            if not keep:
                for v in node.inputs:
                    if last[v] == i and v not in pinned:
                        env.pop(v, None)
    out = {n: env[v] for n, v in zip(graph.output_names, graph.outputs, strict=True)}
    if keep:
        out.update({f"%{v}": a for v, a in env.items()})
    return out
