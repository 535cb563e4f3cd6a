"""Writing at a place that is known at run time only, as a cache that grows by a few rows per call needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Arg, Loops, S, normalize_axis, op
from diptych.ops.pointwise import INTS, one_of

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType

__all__ = ["SliceUpdateAt"]


@op
class SliceUpdateAt(Loops):
    """A copy of data whose slices start, start + 1, .. along an axis are replaced by update; start is an operand.

    The other extents of data and update must be equal. A start with which update would stick out is moved inside.
    Where the result is an output kept in the place of the input `data` (see Options.in_place), nothing is copied.
    """

    axis: int = 0
    samples = (
        S((7, 5), (2, 5), Arg((), "i64", 0, 6), grad=False),
        S((2, 3, 9, 4), (2, 3, 1, 4), Arg((), "i64", 0, 9), axis=2, grad=False),
        S((1, 2, 17, 33), (1, 2, 5, 33), Arg((), "i32", -3, 20), axis=-2, grad=False),
        S((3, 7), (3, 7), Arg((), "i64", 0, 3), axis=1, grad=False),
        S((3, 7), (3, 0), Arg((), "i64", 0, 3), axis=1, grad=False),
        S((5,), (2,), Arg((), "i64", 0, 4), dtype="i64", low=-9, high=9, grad=False),
    )

    def infer(self, data: TensorType, update: TensorType, start: TensorType) -> TensorType:
        one_of(start, INTS)
        axis = normalize_axis(self.axis, data.rank)
        if start.rank:
            raise TypeRuleError(f"start {start} must be one number of rank 0")
        if update.dtype != data.dtype or update.rank != data.rank or update.shape[axis] > data.shape[axis]:
            raise TypeRuleError(f"update {update} must have the dtype and rank of data {data} and fit along axis {axis}")
        if any(u != d for i, (u, d) in enumerate(zip(update.shape, data.shape, strict=True)) if i != axis):
            raise TypeRuleError(f"update {update} and data {data} may differ in axis {axis} only")
        return data

    def reference(self, data: Array, update: Array, start: Array) -> Array:
        axis = self.axis % data.ndim
        at = int(np.clip(int(start), 0, data.shape[axis] - update.shape[axis]))
        out = np.array(data)
        out[(slice(None),) * axis + (slice(at, at + update.shape[axis]),)] = update
        return out
