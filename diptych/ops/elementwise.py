"""Elementwise operators of one operand: signs, roots, rounding, exponentials and logarithms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from diptych.ops.base import op
from diptych.ops.pointwise import FloatUnary, Grads, NumberUnary, Values, unary_samples

if TYPE_CHECKING:
    from diptych.codegen.math import Math, Val
    from diptych.ir import Array
    from diptych.ops.build import Builder

__all__ = [
    "Abs", "Ceil", "Exp", "Expm1", "Floor", "Log", "Log1p", "Log2", "Log10", "Neg", "Reciprocal", "Relu", "Round",
    "Rsqrt", "Sigmoid", "Sign", "Sqrt", "Trunc",
]  # fmt: skip


@op
class Neg(NumberUnary):
    """-x."""

    samples = unary_samples(ints=True)

    def reference(self, x: Array) -> Array:
        return np.negative(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.neg(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.neg(dys[0]),)


@op
class Abs(NumberUnary):
    """|x|."""

    samples = unary_samples(ints=True)

    def reference(self, x: Array) -> Array:
        return np.abs(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.abs(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.mul(dys[0], g.ew("sign", xs[0])),)


@op
class Sign(NumberUnary):
    """-1, 0 or 1 with the sign of x; NaN stays NaN."""

    samples = unary_samples(ints=True)

    def reference(self, x: Array) -> Array:
        return np.sign(x)

    def lower(self, k: Math, x: Val) -> Val:
        zero, one = k.const(0, x.dtype, x.lanes), k.const(1, x.dtype, x.lanes)
        up = k.select(k.cmp("gt", x, zero), one, k.mul(x, zero) if x.dtype[0] == "f" else zero)
        if x.dtype[0] == "u":
            return up
        return k.select(k.cmp("lt", x, zero), k.const(-1, x.dtype, x.lanes), up)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (None,)


@op
class Relu(NumberUnary):
    """max(x, 0); NaN stays NaN."""

    samples = unary_samples(ints=True)

    def reference(self, x: Array) -> Array:
        return np.asarray(np.maximum(x, x.dtype.type(0)))

    def lower(self, k: Math, x: Val) -> Val:
        return k.relu(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.where(g.greater(ys[0], 0), dys[0], ys[0]),)  # what is not above 0 is 0, or NaN, which stays NaN


@op
class Floor(NumberUnary):
    """The largest integer <= x."""

    samples = unary_samples(ints=True)

    def reference(self, x: Array) -> Array:
        return np.floor(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.floor(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (None,)


@op
class Ceil(NumberUnary):
    """The smallest integer >= x."""

    samples = unary_samples(ints=True)

    def reference(self, x: Array) -> Array:
        return np.ceil(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.ceil(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (None,)


@op
class Round(NumberUnary):
    """The nearest integer, halves to even."""

    samples = unary_samples(-9, 9, ints=True)

    def reference(self, x: Array) -> Array:
        return np.rint(x) if x.dtype.kind == "f" else x.copy()

    def lower(self, k: Math, x: Val) -> Val:
        return k.rint(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (None,)


@op
class Trunc(NumberUnary):
    """The integer part, towards zero."""

    samples = unary_samples(ints=True)

    def reference(self, x: Array) -> Array:
        return np.trunc(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.trunc(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (None,)


@op
class Sqrt(FloatUnary):
    """The square root; NaN below 0."""

    samples = unary_samples(0.1, 4)

    def reference(self, x: Array) -> Array:
        return np.sqrt(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.sqrt(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.div(g.mul(dys[0], 0.5), ys[0]),)


@op
class Rsqrt(FloatUnary):
    """1 / sqrt(x)."""

    samples = unary_samples(0.1, 4)

    def reference(self, x: Array) -> Array:
        return np.asarray(x.dtype.type(1) / np.sqrt(x))

    def lower(self, k: Math, x: Val) -> Val:
        return k.div(k.const(1, x.dtype, x.lanes), k.sqrt(x))

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.mul(g.mul(dys[0], -0.5), g.div(ys[0], xs[0])),)


@op
class Reciprocal(FloatUnary):
    """1 / x."""

    samples = unary_samples(0.3, 4)

    def reference(self, x: Array) -> Array:
        return np.asarray(x.dtype.type(1) / x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.div(k.const(1, x.dtype, x.lanes), x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.neg(g.mul(dys[0], g.square(ys[0]))),)


@op
class Exp(FloatUnary):
    """e to the power x."""

    samples = unary_samples(-9, 9)

    def reference(self, x: Array) -> Array:
        # Through float64: NumPy's float32 exp is off by one unit in the last place on AVX-512, already at 1.
        return np.exp(x, dtype=np.float64).astype(x.dtype)

    def lower(self, k: Math, x: Val) -> Val:
        return k.exp(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.mul(dys[0], ys[0]),)


@op
class Expm1(FloatUnary):
    """exp(x) - 1, accurate near 0."""

    samples = unary_samples(-3, 3)

    def reference(self, x: Array) -> Array:
        return np.expm1(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.expm1(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.mul(dys[0], g.add(ys[0], 1)),)


@op
class Log(FloatUnary):
    """The natural logarithm."""

    samples = unary_samples(0.1, 9)

    def reference(self, x: Array) -> Array:
        return np.log(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.log(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.div(dys[0], xs[0]),)


@op
class Log1p(FloatUnary):
    """log(1 + x), accurate near 0."""

    samples = unary_samples(-0.9, 3)

    def reference(self, x: Array) -> Array:
        return np.log1p(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.log1p(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.div(dys[0], g.add(xs[0], 1)),)


@op
class Log2(FloatUnary):
    """The logarithm to base 2."""

    samples = unary_samples(0.1, 9)

    def reference(self, x: Array) -> Array:
        return np.log2(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.log2(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.div(dys[0], g.mul(xs[0], math.log(2))),)


@op
class Log10(FloatUnary):
    """The logarithm to base 10."""

    samples = unary_samples(0.1, 9)

    def reference(self, x: Array) -> Array:
        return np.log10(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.log10(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.div(dys[0], g.mul(xs[0], math.log(10))),)


@op
class Sigmoid(FloatUnary):
    """1 / (1 + exp(-x))."""

    samples = unary_samples(-9, 9)

    def reference(self, x: Array) -> Array:
        small = np.exp(-np.abs(x))  # never overflows
        return np.asarray(np.where(x < 0, small, x.dtype.type(1)) / (x.dtype.type(1) + small))

    def lower(self, k: Math, x: Val) -> Val:
        return k.sigmoid(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.mul(dys[0], g.mul(ys[0], g.sub(1, ys[0]))),)
