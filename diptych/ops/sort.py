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


def _first(x: Array, k: int, axis: int, descending: bool) -> Array:
    """The first k of `_order`. Of long rows only what is not past the k-th value is sorted."""
    n = x.shape[axis]
    if n < 4096 or not 0 < k * 8 <= n:
        return np.take(_order(x, axis, descending), range(k), axis)
    rows = np.moveaxis(x, axis, -1)
    out = np.empty((*rows.shape[:-1], k), np.int64)
    for at in np.ndindex(*rows.shape[:-1]):
        row = rows[at]
        bound = np.partition(row, n - k)[n - k] if descending else np.partition(row, k - 1)[k - 1]
        if descending:  # NaN is not less than a number; where the bound is NaN itself, only NaN is chosen
            near = np.nonzero(np.isnan(row) if np.isnan(bound) else ~(row < bound))[0]
        else:  # NaN is not greater either, but sorts last; where the bound is NaN, all others come before
            near = np.nonzero(~(row > bound))[0]
        out[at] = near[_order(row[near], 0, descending)[:k]]
    return np.moveaxis(out, -1, axis)


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
        order = _first(x, self.k, self.axis, self.largest)
        return np.take_along_axis(x, order, self.axis), order

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value | None, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        if dys[0] is None:
            return (None,)
        x, axis = xs[0], normalize_axis(self.axis, xs[0].rank)
        zeros = g.broadcast_to(g.scalar(0, x.dtype), x.shape)  # the gradient of what was not chosen
        return (g.emit(OPS["scatter_add"](axis=axis), zeros, ys[1], dys[0]) if self.k else zeros,)
