"""Reductions: primitives that fold axes with an associative operation, and composites on top of them."""

from __future__ import annotations

import typing
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ir import numpy_dtype
from diptych.ops.base import Composite, Reduction, S, Sample, normalize_axes, op
from diptych.ops.pointwise import FLOATS, NUMBERS, Grads, Values, one_of
from diptych.ops.rules import widened

if TYPE_CHECKING:
    from diptych.codegen.math import Math, Val
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["All", "Any", "LogSumExp", "Max", "Mean", "Min", "NormL2", "Prod", "Sum", "Var"]

Axes = tuple[int, ...]
_MANY = 512  # rows above which a sum of float32 over them is carried in float64


def reduced(shape: tuple[int, ...], axes: Axes, keepdims: bool) -> tuple[int, ...]:
    """The shape that is left when `axes` are folded."""
    drop = set(normalize_axes(axes, len(shape)))
    return tuple(1 if i in drop else d for i, d in enumerate(shape) if keepdims or i not in drop)


def _samples(low: float = -2, high: float = 2, empty: bool = True, ints: bool = False, grad: bool = True,
             bools: bool = False) -> tuple[Sample, ...]:  # fmt: skip
    def s(*shape: int, dtype: str = "bool" if bools else "f32", grad: bool = grad, **attrs: typing.Any) -> Sample:
        return S(shape, dtype=dtype, low=low, high=high, grad=grad, **attrs)

    out = [
        s(3, 5, axes=(1,)),
        s(3, 5, axes=(0,), keepdims=True),
        s(2, 3, 19, axes=(0, 2)),
        s(2, 3, 4, 5, axes=(2, 3), keepdims=True),
        s(2, 3, 4, 5, axes=(0, 1, 2, 3)),
        s(131, axes=(0,)),
        s(4, 67, axes=(-1,), keepdims=True),
        s(2, 3, axes=()),
        s(axes=()),
        s(0, 3, axes=(1,)),
        s(1, 5, 1, axes=(0, 2)),
    ]
    if empty:
        out.append(s(3, 0, axes=(1,)))
    if not bools:
        out.append(s(3, 17, dtype="f64", axes=(0,)))
    if ints:
        out += [S((3, 17), dtype=d, low=-9, high=9, grad=False, axes=(1,)) for d in ("i32", "i64", "u8")]
    return tuple(out)


class _Fold(Reduction):
    """What the primitives share: numbers in, same dtype out."""

    __slots__ = ()
    axes: Axes
    keepdims: bool

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, NUMBERS)
        return x.with_shape(reduced(x.shape, self.axes, self.keepdims))

    def _kept(self, x: Value) -> tuple[int, ...]:
        """The result's shape with the folded axes kept as 1, to broadcast against x."""
        return reduced(x.shape, self.axes, True)


def _not_empty(what: str, x: TensorType, axes: Axes) -> None:
    shape = [x.shape[a] for a in normalize_axes(axes, x.rank)]
    if 0 in shape:
        raise TypeRuleError(f"the {what} over axes {axes} of {x} would be of nothing: a folded axis is empty")


@op
class Sum(_Fold):
    """The sum over axes."""

    axes: Axes
    keepdims: bool = False
    samples = _samples(ints=True)

    def reference(self, x: Array) -> Array:
        wide = widened(x)
        # NumPy adds pairwise along the last axis only; along others one after another, which many rows make inexact.
        rows = prod(x.shape[a] for a in normalize_axes(self.axes, x.ndim) if a != x.ndim - 1)
        kind = np.dtype(np.float64) if rows > _MANY and wide.dtype == np.float32 else wide.dtype
        return np.asarray(np.sum(wide, self.axes, kind, keepdims=self.keepdims).astype(x.dtype))

    def identity(self, dtype: str) -> float | int:
        return 0

    def combine(self, k: Math, acc: Val, x: Val) -> Val:
        return k.add(acc, x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.broadcast_to(g.reshape(dys[0], self._kept(xs[0])), xs[0].shape),)


@op
class Prod(_Fold):
    """The product over axes."""

    axes: Axes
    keepdims: bool = False
    samples = (*_samples(0.5, 1.5), S((3, 5), dtype="i64", low=-3, high=3, grad=False, axes=(1,)))

    def reference(self, x: Array) -> Array:
        wide = widened(x)
        return np.asarray(np.prod(wide, self.axes, wide.dtype, keepdims=self.keepdims).astype(x.dtype))

    def identity(self, dtype: str) -> float | int:
        return 1

    def combine(self, k: Math, acc: Val, x: Val) -> Val:
        return k.mul(acc, x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        # The product of the others is y / x, unless x is 0: with one zero, it has the product of the rest and
        # everything else has 0; with two zeros all have 0.
        x = xs[0]
        zero = g.equal(x, 0)
        safe = g.where(zero, 1, x)
        rest = g.emit(Prod(self.axes, True), safe)
        zeros = g.sum(g.where(zero, g.scalar(1.0, x.dtype), 0), self.axes, True)
        others = g.where(zero, g.where(g.equal(zeros, 1), rest, 0), g.where(g.equal(zeros, 0), g.div(rest, safe), 0))
        return (g.mul(g.reshape(dys[0], self._kept(x)), others),)


class _Extremum(_Fold):
    """Max and Min: their gradient is shared equally among ties."""

    __slots__ = ()

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, NUMBERS)
        _not_empty("extremum", x, self.axes)
        return x.with_shape(reduced(x.shape, self.axes, self.keepdims))

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        x, kept = xs[0], self._kept(xs[0])
        hit = g.where(g.equal(x, g.reshape(ys[0], kept)), g.scalar(1.0, x.dtype), 0)
        share = g.div(g.reshape(dys[0], kept), g.sum(hit, self.axes, True))
        return (g.mul(share, hit),)


def _bound(dtype: str, top: bool) -> float | int:
    if dtype in FLOATS:
        return float("inf") if top else float("-inf")
    info = np.iinfo(numpy_dtype(dtype))
    return int(info.max if top else info.min)


@op
class Max(_Extremum):
    """The maximum over axes; NaN if there is one."""

    axes: Axes
    keepdims: bool = False
    samples = _samples(empty=False, ints=True)

    def reference(self, x: Array) -> Array:
        return np.asarray(np.max(x, self.axes, keepdims=self.keepdims))

    def identity(self, dtype: str) -> float | int:
        return _bound(dtype, top=False)

    def combine(self, k: Math, acc: Val, x: Val) -> Val:
        return k.max(acc, x)


@op
class Min(_Extremum):
    """The minimum over axes; NaN if there is one."""

    axes: Axes
    keepdims: bool = False
    samples = _samples(empty=False, ints=True)

    def reference(self, x: Array) -> Array:
        return np.asarray(np.min(x, self.axes, keepdims=self.keepdims))

    def identity(self, dtype: str) -> float | int:
        return _bound(dtype, top=True)

    def combine(self, k: Math, acc: Val, x: Val) -> Val:
        return k.min(acc, x)


class _Truth(Reduction):
    """Any and All: bools in, bools out."""

    __slots__ = ()
    axes: Axes
    keepdims: bool

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, ("bool",))
        return x.with_shape(reduced(x.shape, self.axes, self.keepdims))

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (None,)


@op
class Any(_Truth):
    """Whether any is true."""

    axes: Axes
    keepdims: bool = False
    samples = _samples(bools=True)

    def reference(self, x: Array) -> Array:
        return np.asarray(np.any(x, self.axes, keepdims=self.keepdims))

    def identity(self, dtype: str) -> float | int:
        return False

    def combine(self, k: Math, acc: Val, x: Val) -> Val:
        return k.bit_or(acc, x)


@op
class All(_Truth):
    """Whether all are true."""

    axes: Axes
    keepdims: bool = False
    samples = _samples(bools=True)

    def reference(self, x: Array) -> Array:
        return np.asarray(np.all(x, self.axes, keepdims=self.keepdims))

    def identity(self, dtype: str) -> float | int:
        return True

    def combine(self, k: Math, acc: Val, x: Val) -> Val:
        return k.bit_and(acc, x)


class _Statistic(Composite):
    """Float in, same float out, axes folded."""

    __slots__ = ()
    axes: Axes
    keepdims: bool

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, FLOATS)
        return x.with_shape(reduced(x.shape, self.axes, self.keepdims))

    def _count(self, shape: tuple[int, ...]) -> int:
        return prod(shape[a] for a in normalize_axes(self.axes, len(shape)))


@op
class Mean(_Statistic):
    """The arithmetic mean over axes; NaN of nothing."""

    axes: Axes
    keepdims: bool = False
    samples = (*_samples(empty=False), S((3, 0), grad=False, axes=(1,)))

    def reference(self, x: Array) -> Array:
        wide = widened(x)
        total = np.sum(wide, self.axes, keepdims=self.keepdims)
        return np.asarray(np.divide(total, wide.dtype.type(self._count(x.shape))).astype(x.dtype))

    def decompose(self, g: Builder, x: Value) -> Value:
        return g.div(g.sum(x, self.axes, self.keepdims), self._count(x.shape))


@op
class Var(_Statistic):
    """The variance over axes, in two passes: the mean of squared deviations, divided by n - ddof."""

    axes: Axes
    keepdims: bool = False
    ddof: int = 0
    samples = (
        *_samples(empty=False),
        S((3, 0), grad=False, axes=(1,)),
        S((3, 7), axes=(1,), ddof=1),
        S((2, 3, 5), axes=(0, 2), keepdims=True, ddof=1),
    )

    def reference(self, x: Array) -> Array:
        wide = widened(x)
        mean = np.divide(np.sum(wide, self.axes, keepdims=True), wide.dtype.type(self._count(x.shape)))
        total = np.sum(np.square(wide - mean), self.axes, keepdims=self.keepdims)
        return np.asarray(np.divide(total, wide.dtype.type(max(self._count(x.shape) - self.ddof, 0))).astype(x.dtype))

    def decompose(self, g: Builder, x: Value) -> Value:
        n = self._count(x.shape)
        centred = g.sub(x, g.mean(x, self.axes, True))
        return g.div(g.sum(g.mul(centred, centred), self.axes, self.keepdims), max(n - self.ddof, 0))


@op
class LogSumExp(_Statistic):
    """log(sum(exp(x))) over axes, shifted by the maximum so that nothing overflows."""

    axes: Axes
    keepdims: bool = False
    samples = (*_samples(empty=False), S((3, 9), low=80, high=99, axes=(1,)))

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, FLOATS)
        _not_empty("logsumexp", x, self.axes)
        return x.with_shape(reduced(x.shape, self.axes, self.keepdims))

    def reference(self, x: Array) -> Array:
        top = np.max(x, self.axes, keepdims=True)
        top = np.where(np.isfinite(top), top, x.dtype.type(0))  # inf - inf would be NaN
        total = np.log(np.sum(np.exp(x - top), self.axes, x.dtype, keepdims=self.keepdims))
        return np.asarray(total + np.reshape(top, np.shape(total)))

    def decompose(self, g: Builder, x: Value) -> Value:
        top = g.max(x, self.axes, True)
        top = g.where(g.ew("is_finite", top), top, 0)
        total = g.log(g.sum(g.exp(g.sub(x, top)), self.axes, self.keepdims))
        return g.add(total, g.reshape(top, total.shape))

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        kept = reduced(xs[0].shape, self.axes, True)
        share = g.exp(g.sub(xs[0], g.reshape(ys[0], kept)))
        return (g.mul(share, g.reshape(dys[0], kept)),)


@op
class NormL2(_Statistic):
    """sqrt(sum(x^2)) over axes, scaled by the largest |x| so that squares neither overflow nor vanish."""

    axes: Axes
    keepdims: bool = False
    samples = (*_samples(0.2, 3, empty=False), S((3, 9), low=1e19, high=1e20, grad=False, axes=(1,)))

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, FLOATS)
        _not_empty("norm", x, self.axes)
        return x.with_shape(reduced(x.shape, self.axes, self.keepdims))

    def reference(self, x: Array) -> Array:
        top = np.max(np.abs(x), self.axes, keepdims=True)
        top = np.where((top > 0) & np.isfinite(top), top, x.dtype.type(1))
        root = np.sqrt(np.sum(np.square(x / top), self.axes, x.dtype, keepdims=self.keepdims))
        return np.asarray(root * np.reshape(top, np.shape(root)))

    def decompose(self, g: Builder, x: Value) -> Value:
        top = g.max(g.ew("abs", x), self.axes, True)
        usable = g.ew("logical_and", g.greater(top, 0), g.ew("is_finite", top))
        top = g.where(usable, top, 1)
        scaled = g.div(x, top)
        root = g.sqrt(g.sum(g.mul(scaled, scaled), self.axes, self.keepdims))
        return g.mul(root, g.reshape(top, root.shape))

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        kept = reduced(xs[0].shape, self.axes, True)
        y = g.reshape(ys[0], kept)
        return (g.mul(g.div(xs[0], g.where(g.equal(y, 0), 1, y)), g.reshape(dys[0], kept)),)
