"""Channels-last stretches between convolutions (ConvNeXt, MLP blocks over pixels) kept in blocks of channels.

A tensor [N, *S, C] is to a blocked one what [N, C, *S] is: where a network turns its channels inside for a layer
normalisation or a product over them, and outside again, nothing needs to move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from diptych.ops.base import Elementwise, attributes
from diptych.ops.blocked import BLOCK, BlockedConv
from diptych.ops.norm import LayerNorm
from diptych.passes import layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.ir import Graph, Node, Value
    from diptych.ops.build import Builder

__all__ = ["channels_inside", "channels_last"]


class Walk(Protocol):
    """What the rules need of the layout pass."""

    graph: Graph
    g: Builder

    def plain(self, v: int) -> Value: ...
    def blocked(self, v: int) -> Value: ...
    def is_blocked(self, v: int) -> bool: ...
    def last(self, v: int) -> Value | None: ...


def channels_inside(g: Builder, x: Value) -> Value:
    """[N, C/16, *S, 16] -> [N, *S, C/16, 16]."""
    return g.transpose(x, (0, *range(2, x.rank - 1), 1, x.rank - 1))


def channels_outside(g: Builder, x: Value) -> Value:
    """[N, *S, C/16, 16] -> [N, C/16, *S, 16]."""
    return g.transpose(x, (0, x.rank - 2, *range(1, x.rank - 2), x.rank - 1))


def channels_last(p: Walk, node: Node) -> layout.Forms | None:
    """The result of a node that turns the channels inside or outside, or keeps to channels-last; else None."""
    rule = _RULES.get(node.op.name)
    if rule is None and isinstance(node.op, Elementwise):
        rule = _elementwise
    return rule(p, node) if rule is not None and p.graph.types[node.outputs[0]].dtype == "f32" else None


def _transpose(p: Walk, node: Node) -> layout.Forms | None:
    v, perm = node.inputs[0], attributes(node.op)["perm"]
    t = p.graph.types[v]
    if perm == (0, *range(2, t.rank), 1) and t.rank > 2 and p.is_blocked(v) and t.shape[1] % BLOCK == 0:
        return layout.Forms(last=p.blocked(v))
    found = p.last(v)
    if perm == (0, t.rank - 1, *range(1, t.rank - 1)) and found is not None:
        return layout.Forms(blocked=found)
    return None


def _layer_norm(p: Walk, node: Node) -> layout.Forms | None:
    """Over the channels: in blocked form they are two axes."""
    x, rank = p.last(node.inputs[0]), p.graph.types[node.inputs[0]].rank
    a = attributes(node.op)
    if x is None or a["axis"] % rank != rank - 1:
        return None
    inside = channels_inside(p.g, x)
    affine = [p.g.reshape(p.plain(v), inside.shape[-2:]) for v in node.inputs[1:]]
    return layout.Forms(last=channels_outside(p.g, p.g.emit(LayerNorm(axis=rank - 1, eps=a["eps"]), inside, *affine)))


def _product(p: Walk, node: Node) -> layout.Forms | None:
    """A product with a constant matrix is a 1x1 convolution."""
    x, w = p.last(node.inputs[0]), p.graph.constants.get(node.inputs[1])
    a = attributes(node.op)
    if x is None or w is None or w.ndim != 2 or a["transpose_a"]:
        return None
    w = w if a["transpose_b"] else w.T
    if w.shape[0] % BLOCK or 0 in (*w.shape, *x.shape):
        return None
    ones = (1,) * (x.rank - 3)
    weight = p.g.constant(np.ascontiguousarray(w).reshape(*w.shape, *ones))
    return layout.Forms(last=p.g.emit(BlockedConv(ones, tuple((0, 0) for _ in ones), ones), x, weight))


def _elementwise(p: Walk, node: Node) -> layout.Forms | None:
    """Where every operand of the result's shape is channels-last in blocks, or a constant."""
    shape = p.graph.types[node.outputs[0]].shape
    full = [v for v in node.inputs if p.graph.types[v].shape == shape and v not in p.graph.constants]
    if not full or any(p.last(v) is None for v in full) or any(p.graph.types[v].dtype != "f32" for v in node.inputs):
        return None
    return layout.Forms(last=p.g.emit(node.op, *(_operand(p, v, shape) for v in node.inputs)))


def _operand(p: Walk, v: int, shape: tuple[int, ...]) -> Value:
    """An operand that broadcasts to [N, *S, C], in a form that broadcasts to the blocked one."""
    found = p.last(v)
    if found is not None and p.graph.types[v].shape == shape:
        return found
    x = p.plain(v)
    if x.type.size == 1:
        return p.g.reshape(x, ())
    full = (1,) * (len(shape) - x.rank) + x.shape
    inner = (1, 1) if full[-1] == 1 else (full[-1] // BLOCK, BLOCK)
    return channels_outside(p.g, p.g.reshape(x, (*full[:-1], *inner)))


_RULES: dict[str, Callable[[Walk, Node], layout.Forms | None]] = {
    "transpose": _transpose,
    "layer_norm": _layer_norm,
    "mat_mul": _product,
}
