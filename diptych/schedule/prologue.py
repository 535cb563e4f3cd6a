"""Which contractions take the elementwise operators before them into their kernel."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from diptych.ops.base import attributes

if TYPE_CHECKING:
    from diptych.ir import Graph, Node

__all__ = ["takes_prologue"]

_FEW_PIXELS = 16


def takes_prologue(graph: Graph, node: Node) -> str | None:
    """Why a blocked_conv cannot take an expression of its input into its kernel; None when it can."""
    a = attributes(node.op)
    w, out = graph.types[node.inputs[1]], graph.types[node.outputs[0]]
    if any(v not in graph.constants for v in node.inputs[1:]):
        return "the weights are not constant"
    if any(k != 1 for k in w.shape[2:]) or any(s != 1 for s in a["strides"]) or any(any(p) for p in a["pads"]):
        return "the window is not one pixel: each would be worked out several times"
    if a["groups"] != 1 or a["plain_input"]:
        return "the input is not read in blocks of channels, all of them by every output"
    if prod((out.shape[0], *out.shape[2:-1])) < _FEW_PIXELS:
        return "few pixels: each thread reads a part of the weights, and all of the input"
    return None
