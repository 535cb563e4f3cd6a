"""Sorting and selection along an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import OPS, Arg, Loops, S, normalize_axis, op

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["Sort", "TopK"]


def _order(x: Array, axis: int, descending: bool) -> Array:
    """Indices that sort x stably; NaN counts as the largest number."""
    if not descending:
        order: Array = np.argsort(x, axis, kind="stable")
        return order.astype(np.int64, copy=False)
    back: Array = np.argsort(
        np.flip(x, axis), axis, kind="stable"
    )  # equal elements come out in reverse: turn round twice
    order = np.flip(x.shape[axis] - 1 - back, axis)
    return order.astype(np.int64, copy=False)


def _check(x: TensorType, axis: int) -> int:
    if x.dtype == "bf16":
        raise TypeRuleError(f"{x} cannot be sorted in bf16; cast it to f32 first")
    return normalize_axis(axis, x.rank)


@op
class Sort(Loops):
    """Sorted values and their indices (i64); equal elements keep their order, NaN counts as the largest number."""

    axis: int = -1
    descending: bool = False

    samples = (
        S((3, 7)),
        S((4, 5), axis=0, descending=True),
        S((2, 6, 3), axis=1),
        S((1, 40), descending=True),
        S(Arg((3, 16), "i32", 0, 4), descending=True),
        S(Arg((3, 16), "i64", 0, 4)),
        S((3, 0), grad=False),
    )

    def infer(self, x: TensorType) -> tuple[TensorType, TensorType]:
        _check(x, self.axis)
        return x, x.with_dtype("i64")

    def reference(self, x: Array) -> tuple[Array, Array]:
        order = _order(x, self.axis, self.descending)
        return np.take_along_axis(x, order, self.axis), order

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value | None, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        if dys[0] is None:
            return (None,)
        back = g.emit_all(Sort(self.axis), ys[1])[1]  # sorting the indices inverts the permutation
        return (g.emit(OPS["gather"](axis=normalize_axis(self.axis, xs[0].rank)), dys[0], back),)


@op
class TopK(Loops):
    """The k largest (or smallest) elements in order, and their indices (i64); of equal ones the lowest index first."""

    k: int
    axis: int = -1
    largest: bool = True

    samples = (
        S((3, 7), k=3),
        S((4, 5), k=2, axis=0, largest=False),
        S((2, 6, 3), k=6, axis=1),
        S((1, 100), k=5),
        S(Arg((3, 16), "i32", 0, 4), k=9),
        S((3, 4), k=0, grad=False),
    )

    def infer(self, x: TensorType) -> tuple[TensorType, TensorType]:
        axis = _check(x, self.axis)
        if not 0 <= self.k <= x.shape[axis]:
            raise TypeRuleError(f"k={self.k} is out of range for axis {axis} of {x}")
        out = x.with_shape(tuple(self.k if i == axis else d for i, d in enumerate(x.shape)))
        return out, out.with_dtype("i64")

    def reference(self, x: Array) -> tuple[Array, Array]:
        order = np.take(_order(x, self.axis, self.largest), range(self.k), self.axis)
        return np.take_along_axis(x, order, self.axis), order

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value | None, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        if dys[0] is None:
            return (None,)
        x, axis = xs[0], normalize_axis(self.axis, xs[0].rank)
        # as for Sort: the elements that were not chosen have gradient zero
        whole = g.pad(dys[0], [(0, x.shape[i] - self.k if i == axis else 0) for i in range(x.rank)])
        full = Sort(self.axis, self.largest)
        return full.gradient(g, (x,), g.emit_all(full, x), (whole, None))
