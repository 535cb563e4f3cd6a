"""Fold per-channel scales and shifts (batch normalisation above all) into the convolutions before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.ops.base import attributes
from diptych.passes.rebuild import rebuild

if TYPE_CHECKING:
    from diptych.ir import Array, Graph, Node, Value
    from diptych.ops.build import Builder

__all__ = ["fold_affine"]


def _per_channel(array: Array | None, rank: int, channels: int) -> Array | None:
    """A constant that varies along axis 1 only, as [channels]; else None."""
    if array is None or array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(d != 1 for i, d in enumerate(shape) if i != 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (channels,))


def _scaled(conv: Node, w: Array, scale: Array) -> Array:
    """Weights whose output channels are scaled: w[O, C/groups, *K], or w[C, O/groups, *K] of a transposed convolution."""
    ones = (1,) * (w.ndim - 2)
    if conv.op.name == "conv":
        return w * scale.reshape(-1, 1, *ones)
    groups = attributes(conv.op)["groups"]
    per_group = w.reshape(groups, -1, *w.shape[1:]) * scale.reshape(groups, 1, -1, *ones)
    return per_group.reshape(w.shape)


def fold_affine(graph: Graph) -> Graph:
    """conv -> (batch_norm | * constant | + constant)* becomes one conv where no one else reads the values between.

    The products are formed in float64 and rounded once.
    """
    uses: dict[int, int] = {}
    for node in graph.nodes:
        for v in node.inputs:
            uses[v] = uses.get(v, 0) + 1
    for v in graph.outputs:
        uses[v] = uses.get(v, 0) + 1
    convs: dict[int, tuple[Node, tuple[Value, ...]]] = {}  # new value -> the conv that made it, if read once

    def affine(g: Builder, node: Node, xs: tuple[Value, ...]) -> tuple[Value, Array, Array] | None:
        """(x, scale, shift) when the node is x * scale + shift per channel."""
        name = node.op.name
        if name == "batch_norm":
            x, *rest = xs
            arrays = [g.constant_array(r) for r in rest]
            if any(a is None for a in arrays) or attributes(node.op)["axis"] % x.rank != 1:
                return None
            gamma, beta, mean, var = (a.astype(np.float64) for a in arrays if a is not None)
            scale = gamma / np.sqrt(var + attributes(node.op)["eps"])
            return x, scale, beta - mean * scale
        if name in ("add", "sub", "mul") and len(xs) == 2:
            for x, c in ((xs[0], xs[1]), (xs[1], xs[0])):
                if c is xs[0] and name == "sub":
                    continue
                if x.id in convs and x.shape == graph.types[node.outputs[0]].shape:
                    array = _per_channel(g.constant_array(c), x.rank, x.shape[1])
                    if array is not None:
                        one, zero = np.ones(x.shape[1]), np.zeros(x.shape[1])
                        return (x, array, zero) if name == "mul" else (x, one, array if name == "add" else -array)
        return None

    def visit(g: Builder, node: Node, xs: tuple[Value, ...]) -> Value | None:
        found = affine(g, node, xs)
        if found is not None and found[0].id in convs:
            x, scale, shift = found
            conv, operands = convs[x.id]
            w, old = g.constant_array(operands[1]), g.constant_array(operands[2]) if len(operands) > 2 else None
            assert w is not None
            bias = (old.astype(np.float64) if old is not None else 0.0) * scale + shift
            weight = _scaled(conv, w.astype(np.float64), scale)
            new = (operands[0], g.constant(weight.astype(w.dtype)), g.constant(bias.astype(w.dtype)))
            out = g.emit(conv.op, *new, name=conv.name, source=conv.source)
            remember(g, conv, new, out, node.outputs[0])
            return out
        if node.op.name in ("conv", "conv_transpose"):
            out = g.emit(node.op, *xs)
            remember(g, node, xs, out, node.outputs[0])
            return out
        return None

    def remember(g: Builder, conv: Node, operands: tuple[Value, ...], out: Value, old: int) -> None:
        if uses.get(old, 0) == 1 and all(g.constant_array(x) is not None for x in operands[1:]):
            convs[out.id] = (conv, operands)

    return rebuild(graph, visit)
