"""Elementwise operators of two operands that give a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.ops.base import Elementwise, op
from diptych.ops.pointwise import (
    FLOATS,
    NUMBERS,
    FloatBinary,
    Grads,
    NumberBinary,
    Values,
    binary_samples,
    broadcast_type,
)  # fmt: skip
from diptych.ops.rules import sum_to

if TYPE_CHECKING:
    from diptych.codegen.math import Math, Val
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = [
    "Add", "Atan2", "Div", "FloorDiv", "Fmod", "Hypot", "Maximum", "Minimum", "Mod", "Mul", "Pow", "Sub",
]  # fmt: skip

_INTS = ("i32", "i64", "u8", "i8")


def _pair(g: Builder, xs: Values, da: Value | None, db: Value | None) -> Grads:
    """Each gradient summed down to the shape of its operand."""
    return tuple(None if d is None else sum_to(g, d, x.shape) for d, x in zip((da, db), xs, strict=True))


def _truncated(a: Array, b: Array) -> Array:
    """C's integer quotient; a division by zero gives 0."""
    a, b = np.broadcast_arrays(a, b)
    safe = np.where(b == 0, b.dtype.type(1), b)
    q = a // safe
    q = q + ((q < 0) & (q * safe != a)).astype(a.dtype)
    return np.asarray(np.where(b == 0, a.dtype.type(0), q))


@op
class Add(NumberBinary):
    """a + b; integers wrap around."""

    samples = binary_samples(ints=_INTS)

    def reference(self, a: Array, b: Array) -> Array:
        return np.add(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.add(a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return _pair(g, xs, dys[0], dys[0])


@op
class Sub(NumberBinary):
    """a - b; integers wrap around."""

    samples = binary_samples(ints=_INTS)

    def reference(self, a: Array, b: Array) -> Array:
        return np.subtract(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.sub(a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return _pair(g, xs, dys[0], g.neg(dys[0]))


@op
class Mul(NumberBinary):
    """a * b; integers wrap around."""

    samples = binary_samples(ints=_INTS)

    def reference(self, a: Array, b: Array) -> Array:
        return np.multiply(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.mul(a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return _pair(g, xs, g.mul(dys[0], xs[1]), g.mul(dys[0], xs[0]))


@op
class Div(NumberBinary):
    """a / b; for integers the quotient is truncated as in C, and a division by zero gives 0."""

    samples = binary_samples(ints=_INTS, b_low=0.3, b_high=3)

    def reference(self, a: Array, b: Array) -> Array:
        return np.divide(a, b) if a.dtype.kind == "f" else _truncated(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.div(a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        da = g.div(dys[0], xs[1])
        return _pair(g, xs, da, g.neg(g.mul(da, ys[0])))


@op
class FloorDiv(NumberBinary):
    """The quotient rounded down, as Python's `//`; an integer division by zero gives 0."""

    samples = binary_samples(-9, 9, grad=False, ints=_INTS, b_low=0.3, b_high=3)

    def reference(self, a: Array, b: Array) -> Array:
        return np.floor_divide(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.floor_div(a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return None, None


@op
class Mod(NumberBinary):
    """The remainder with the sign of the divisor, as Python's `%`; an integer division by zero gives 0."""

    samples = binary_samples(-9, 9, ints=_INTS, b_low=0.3, b_high=3)

    def reference(self, a: Array, b: Array) -> Array:
        return np.mod(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.mod(a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        if xs[0].dtype not in FLOATS:
            return None, None  # between integers it has steps and no slope
        return _pair(g, xs, dys[0], g.neg(g.mul(dys[0], g.ew("floor_div", *xs))))


@op
class Fmod(NumberBinary):
    """The remainder with the sign of the dividend, as C's `fmod` and `%`; an integer division by zero gives 0."""

    samples = binary_samples(-9, 9, ints=_INTS, b_low=0.3, b_high=3)

    def reference(self, a: Array, b: Array) -> Array:
        return np.fmod(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.fmod(a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return _pair(g, xs, dys[0], g.neg(g.mul(dys[0], g.ew("trunc", g.div(*xs)))))


@op
class Pow(NumberBinary):
    """a to the power b; integers wrap around, and a negative exponent gives the truncated power (0, 1 or -1)."""

    samples = binary_samples(0.3, 3, b_low=-2, b_high=3, ints=_INTS)

    def reference(self, a: Array, b: Array) -> Array:
        if a.dtype.kind == "f":
            return np.power(a, b)
        one, odd = a.dtype.type(1), (b & b.dtype.type(1)) != 0
        minus = (a < 0) & (a == -one if a.dtype.kind == "i" else False)
        truncated = np.where(minus, np.where(odd, a, one), (a == one).astype(a.dtype))
        return np.where(b < 0, truncated, np.power(a, np.maximum(b, b.dtype.type(0))))

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.pow(a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        a, b = xs
        da = g.mul(dys[0], g.mul(b, g.pow(a, g.sub(b, 1))))
        if g.constant_array(b) is not None:
            return _pair(g, xs, da, None)
        log = g.where(g.greater(a, 0), g.log(g.where(g.greater(a, 0), a, 1)), 0)
        return _pair(g, xs, da, g.mul(dys[0], g.mul(ys[0], log)))


class _Extremum(Elementwise):
    __slots__ = ()

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        return broadcast_type((*NUMBERS, "bool"), a, b)


@op
class Maximum(_Extremum):
    """The larger of a and b; NaN if either is. On a tie the gradient goes to a."""

    samples = binary_samples(ints=(*_INTS, "bool"))

    def reference(self, a: Array, b: Array) -> Array:
        return np.maximum(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.max(a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        first = g.ew("greater_equal", *xs)
        return _pair(g, xs, g.where(first, dys[0], 0), g.where(first, 0, dys[0]))


@op
class Minimum(_Extremum):
    """The smaller of a and b; NaN if either is. On a tie the gradient goes to a."""

    samples = binary_samples(ints=(*_INTS, "bool"))

    def reference(self, a: Array, b: Array) -> Array:
        return np.minimum(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.min(a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        first = g.ew("less_equal", *xs)
        return _pair(g, xs, g.where(first, dys[0], 0), g.where(first, 0, dys[0]))


@op
class Atan2(FloatBinary):
    """The angle of the point (b, a): arc tangent of a / b in the right quadrant."""

    samples = binary_samples()

    def reference(self, a: Array, b: Array) -> Array:
        return np.arctan2(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.atan2(a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        a, b = xs
        scaled = g.div(dys[0], g.add(g.square(a), g.square(b)))
        return _pair(g, xs, g.mul(scaled, b), g.neg(g.mul(scaled, a)))


@op
class Hypot(FloatBinary):
    """sqrt(a^2 + b^2) without overflow in between."""

    samples = binary_samples(0.2, 3)

    def reference(self, a: Array, b: Array) -> Array:
        return np.hypot(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.hypot(a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        scaled = g.div(dys[0], ys[0])
        return _pair(g, xs, g.mul(scaled, xs[0]), g.mul(scaled, xs[1]))
