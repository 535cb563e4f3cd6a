"""Scaled dot-product attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Arg, Composite, S, broadcast, op
from diptych.ops.rules import floats, narrowed, widened
from diptych.ops.softmax import Softmax

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["Attention"]


@op
class Attention(Composite):
    """softmax(scale * q k^T + mask) v for q[B,H,S,D], k[B,Hk,T,D], v[B,Hk,T,Dv]; H/Hk query heads share a key head.

    `causal` lets query i see keys 0..i + offset. A query whose keys are all masked with -inf gets zeros, as in
    PyTorch, or NaN, as softmax written out gives.
    """

    scale: float
    causal: bool = False
    offset: int = 0  # with `causal`: how many keys come before that of the first query, as those in a cache
    unseen: str = "zeros"  # what a query gets that sees no key: "zeros" or "nan"

    samples = (
        S((1, 2, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8), scale=0.35),
        S((2, 2, 3, 4), (2, 2, 7, 4), (2, 2, 7, 6), scale=0.5),
        S((2, 3, 6, 8), (2, 3, 6, 8), (2, 3, 6, 8), scale=0.35, causal=True),
        S((1, 2, 3, 8), (1, 2, 8, 8), (1, 2, 8, 8), scale=0.35, causal=True, offset=5),
        S((1, 4, 3, 8), (1, 2, 5, 8), (1, 2, 5, 8), scale=0.25),
        S((1, 4, 5, 8), (1, 1, 5, 8), (1, 1, 5, 8), (1, 1, 5, 5), scale=0.25, causal=True),
        S((2, 2, 4, 8), (2, 2, 9, 8), (2, 2, 9, 8), (2, 1, 1, 9), scale=0.35),
        S((1, 2, 1, 16), (1, 2, 33, 16), (1, 2, 33, 16), scale=0.25),
        S((1, 2, 4, 8), (1, 2, 6, 8), (1, 2, 6, 8), (4, 6), scale=0.35),
        S(Arg((1, 1, 3, 4), "f64"), Arg((1, 1, 3, 4), "f64"), Arg((1, 1, 3, 4), "f64"), scale=0.5),
    )

    def infer(self, q: TensorType, k: TensorType, v: TensorType, mask: TensorType | None = None) -> TensorType:
        floats(q, k, v, mask)
        if {q.rank, k.rank, v.rank} != {4}:
            raise TypeRuleError(f"query {q}, key {k} and value {v} must have rank 4: [batch, heads, length, width]")
        b, h, s, d = q.shape
        if k.shape[0] != b or k.shape[3] != d or v.shape[:3] != k.shape[:3]:
            raise TypeRuleError(
                f"query {q}, key {k} and value {v} do not fit: [B,H,S,D], [B,Hk,T,D], [B,Hk,T,Dv] expected"
            )
        if not k.shape[1] or h % k.shape[1]:
            raise TypeRuleError(f"the {h} query heads of {q} are no multiple of the {k.shape[1]} key heads of {k}")
        if self.unseen not in ("zeros", "nan"):
            raise TypeRuleError(f'unseen is "zeros" or "nan", not {self.unseen!r}')
        if self.offset < 0:
            raise TypeRuleError(f"the first query would see {self.offset + 1} keys; the offset must not be negative")
        if k.shape[2] == 0:
            raise TypeRuleError(f"key {k} holds no positions to attend to")
        scores = (b, h, s, k.shape[2])
        if mask is not None and broadcast(mask.shape, scores) != scores:
            raise TypeRuleError(f"mask {mask} does not broadcast to the scores {scores}")
        return q.with_shape((b, h, s, v.shape[3]))

    def reference(self, q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
        b, h, s, d = q.shape
        shared, t = k.shape[1], k.shape[2]
        wide, keys, values = widened(q) * widened(q).dtype.type(self.scale), widened(k), widened(v)
        scores = np.matmul(wide.reshape(b, shared, h // shared * s, d), keys.swapaxes(2, 3)).reshape(b, h, s, t)
        if mask is not None:
            scores += widened(mask)
        if self.causal:
            scores[:, :, ~np.tri(s, t, self.offset, dtype=np.bool_)] = -np.inf
        top = scores.max(3, keepdims=True)
        with np.errstate(invalid="ignore"):
            e = np.exp(scores - top)
        e /= e.sum(3, keepdims=True)
        if self.unseen == "zeros":
            e[np.broadcast_to(top == -np.inf, e.shape)] = 0
        out = np.matmul(e.reshape(b, shared, h // shared * s, t), values)
        return narrowed(out.reshape(b, h, s, v.shape[3]), q)

    def decompose(self, g: Builder, q: Value, k: Value, v: Value, mask: Value | None = None) -> Value:
        b, h, s, d = q.shape
        shared, t = k.shape[1], k.shape[2]
        # the query heads that share a key head are rows of one product: keys and values are never repeated
        rows = g.reshape(g.mul(q, self.scale), (b, shared, h // shared * s, d))
        scores = g.reshape(g.matmul(rows, k, transpose_b=True), (b, h, s, t))
        if mask is not None:
            scores = g.add(scores, mask)
        if self.causal:
            unseen = np.where(np.tri(s, t, self.offset, dtype=np.bool_), 0.0, -np.inf)
            scores = g.add(scores, g.constant(unseen, scores.dtype))
        weights = g.emit(Softmax(-1), scores)
        if mask is not None and self.unseen == "zeros":  # only a mask can hide every key
            weights = g.where(g.equal(g.max(scores, -1, keepdims=True), -np.inf), 0.0, weights)
        out = g.matmul(g.reshape(weights, (b, shared, h // shared * s, t)), v)
        return g.reshape(out, (b, h, s, v.shape[3]))
