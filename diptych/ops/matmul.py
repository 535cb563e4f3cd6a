"""Matrix product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Arg, Contraction, S, broadcast, op
from diptych.ops.rules import same_dtype, sum_to, widened

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["MatMul"]


@op
class MatMul(Contraction):
    """Matrix product a[..., M, K] @ b[..., K, N]; leading axes broadcast; a flag reads that operand transposed."""

    transpose_a: bool = False
    transpose_b: bool = False

    samples = (
        S((3, 4), (4, 5)),
        S((17, 33), (33, 31)),
        S((1, 1), (1, 1)),
        S((5, 7), (9, 7), transpose_b=True),
        S((7, 5), (7, 9), transpose_a=True),
        S((7, 5), (9, 7), transpose_a=True, transpose_b=True),
        S((2, 3, 4, 5), (2, 3, 5, 6)),
        S((2, 1, 4, 5), (3, 5, 6)),
        S((4, 5), (2, 3, 6, 5), transpose_b=True),
        S((0, 4), (4, 5), grad=False),
        S((3, 0), (0, 5), grad=False),
        S((0, 3, 4), (4, 5), grad=False),
        S(Arg((3, 4), "f64"), Arg((4, 2), "f64")),
        S((1, 64), (64, 40)),
        S((1, 2, 1, 16), (1, 2, 33, 16), transpose_b=True),
        S((3, 1, 9), (3, 9, 17)),
        S((2, 3, 4, 5), (7, 5), transpose_b=True),
        S((3, 2, 5), (5, 7)),
    )

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        same_dtype(a, b)
        if a.dtype in ("bool", "bf16"):
            raise TypeRuleError(f"matrix product of {a.dtype} operands; cast them to f32 or an integer dtype first")
        if a.rank < 2 or b.rank < 2:
            raise TypeRuleError(f"operands {a} and {b} must have rank >= 2; reshape vectors to matrices first")
        m, ka = a.shape[:-3:-1] if self.transpose_a else a.shape[-2:]
        kb, n = b.shape[:-3:-1] if self.transpose_b else b.shape[-2:]
        if ka != kb:
            flags = f"transpose_a={self.transpose_a}, transpose_b={self.transpose_b}"
            raise TypeRuleError(f"inner extents differ: {ka} of {a} and {kb} of {b} ({flags})")
        return a.with_shape((*broadcast(a.shape[:-2], b.shape[:-2]), m, n))

    def reference(self, a: Array, b: Array) -> Array:
        dtype = a.dtype
        a, b = widened(a), widened(b)
        a = np.swapaxes(a, -1, -2) if self.transpose_a else a
        b = np.swapaxes(b, -1, -2) if self.transpose_b else b
        out: Array = np.matmul(a, b)
        return out.astype(dtype, copy=False)

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        (a, b), (dy,), ta, tb = xs, dys, self.transpose_a, self.transpose_b
        if b.rank == 2 and a.rank > 2 and not ta:
            # One matrix for a whole batch: its gradient is one product over all rows, not a sum of products.
            da = g.matmul(dy, b, False, not tb)
            rows, d = g.reshape(a, (-1, a.shape[-1])), g.reshape(dy, (-1, dy.shape[-1]))
            return da, g.matmul(d, rows, True, False) if tb else g.matmul(rows, d, True, False)
        da = g.matmul(b, dy, tb, True) if ta else g.matmul(dy, b, False, not tb)
        db = g.matmul(dy, a, True, ta) if tb else g.matmul(a, dy, not ta, False)
        return sum_to(g, da, a.shape), sum_to(g, db, b.shape)
