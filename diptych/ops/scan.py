"""Operators along one axis that are not plain folds: positions of extrema, running sums and products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Loops, S, Sample, normalize_axis, op
from diptych.ops.pointwise import NUMBERS, Grads, Values, one_of
from diptych.ops.reduction import reduced
from diptych.ops.rules import widened

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType
    from diptych.ops.build import Builder

__all__ = ["ArgMax", "ArgMin", "CumProd", "CumSum"]

_ARG_SAMPLES: tuple[Sample, ...] = (
    S((3, 5), axis=1),
    S((3, 5), axis=0, keepdims=True),
    S((2, 3, 19), axis=-1),
    S((2, 7, 5), axis=1),
    S((67,), axis=0),
    S((0, 3), axis=1),
    S((4, 9), dtype="i32", low=-2, high=2, axis=1),  # many ties
    S((4, 9), dtype="f64", axis=0),
)


class _Arg(Loops):
    """ArgMax and ArgMin."""

    __slots__ = ()
    axis: int
    keepdims: bool

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, NUMBERS)
        axis = normalize_axis(self.axis, x.rank)
        if x.shape[axis] == 0:
            raise TypeRuleError(f"axis {axis} of {x} is empty: there is no extremum to point at")
        return x.with_shape(reduced(x.shape, (axis,), self.keepdims)).with_dtype("i64")

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (None,)


@op
class ArgMax(_Arg):
    """The index (i64) of the first maximum along an axis; the first NaN counts as the maximum."""

    axis: int
    keepdims: bool = False
    samples = _ARG_SAMPLES

    def reference(self, x: Array) -> Array:
        return np.asarray(np.argmax(x, self.axis, keepdims=self.keepdims).astype(np.int64))


@op
class ArgMin(_Arg):
    """The index (i64) of the first minimum along an axis; the first NaN counts as the minimum."""

    axis: int
    keepdims: bool = False
    samples = _ARG_SAMPLES

    def reference(self, x: Array) -> Array:
        return np.asarray(np.argmin(x, self.axis, keepdims=self.keepdims).astype(np.int64))


class _Running(Loops):
    """CumSum and CumProd."""

    __slots__ = ()
    axis: int

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, NUMBERS)
        normalize_axis(self.axis, x.rank)
        return x


@op
class CumSum(_Running):
    """The running sum along an axis."""

    axis: int
    samples = (
        S((3, 5), axis=1),
        S((3, 5), axis=0),
        S((2, 3, 19), axis=-2),
        S((67,), axis=0),
        S((0, 3), axis=0),
        S((3, 9), dtype="i64", low=-9, high=9, axis=1),
        S((3, 9), dtype="f64", axis=1),
    )

    def reference(self, x: Array) -> Array:
        wide = widened(x)
        return np.cumsum(wide, self.axis, wide.dtype).astype(x.dtype)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        axes = (normalize_axis(self.axis, xs[0].rank),)
        back = g.ew("flip", dys[0], axes=axes)
        return (g.ew("flip", g.emit(CumSum(self.axis), back), axes=axes),)


@op
class CumProd(_Running):
    """The running product along an axis. It has no gradient here."""

    axis: int
    samples = (
        S((3, 5), axis=1),
        S((3, 5), axis=0),
        S((2, 3, 19), axis=-2, low=0.5, high=1.5),
        S((0, 3), axis=0),
        S((3, 9), dtype="i64", low=-3, high=3, axis=1),
        S((3, 9), dtype="f64", axis=1),
    )

    def reference(self, x: Array) -> Array:
        wide = widened(x)
        return np.cumprod(wide, self.axis, wide.dtype).astype(x.dtype)
