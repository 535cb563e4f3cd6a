"""Elementwise operators of one operand: trigonometric, hyperbolic and special functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from diptych.ops import special
from diptych.ops.base import op
from diptych.ops.pointwise import FloatUnary, Grads, Values, unary_samples

if TYPE_CHECKING:
    from diptych.codegen.math import Math, Val
    from diptych.ir import Array, Value
    from diptych.ops.build import Builder

__all__ = [
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Erf", "Erfinv", "Lgamma", "Sin", "Sinh",
    "Tan", "Tanh",
]  # fmt: skip


def _one_minus_square(g: Builder, x: Value) -> Value:
    """1 - x^2 without cancellation."""
    return g.mul(g.sub(1, x), g.add(x, 1))


@op
class Sin(FloatUnary):
    """The sine of x (radians)."""

    samples = unary_samples(-9, 9)

    def reference(self, x: Array) -> Array:
        return np.sin(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.sin(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.mul(dys[0], g.ew("cos", xs[0])),)


@op
class Cos(FloatUnary):
    """The cosine of x (radians)."""

    samples = unary_samples(-9, 9)

    def reference(self, x: Array) -> Array:
        return np.cos(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.cos(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.neg(g.mul(dys[0], g.ew("sin", xs[0]))),)


@op
class Tan(FloatUnary):
    """The tangent of x (radians)."""

    samples = unary_samples(-1.2, 1.2)

    def reference(self, x: Array) -> Array:
        return np.tan(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.tan(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.mul(dys[0], g.add(g.square(ys[0]), 1)),)


@op
class Asin(FloatUnary):
    """The arc sine; NaN outside [-1, 1]."""

    samples = unary_samples(-0.95, 0.95)

    def reference(self, x: Array) -> Array:
        return np.arcsin(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.asin(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.div(dys[0], g.sqrt(_one_minus_square(g, xs[0]))),)


@op
class Acos(FloatUnary):
    """The arc cosine; NaN outside [-1, 1]."""

    samples = unary_samples(-0.95, 0.95)

    def reference(self, x: Array) -> Array:
        return np.arccos(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.acos(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.neg(g.div(dys[0], g.sqrt(_one_minus_square(g, xs[0])))),)


@op
class Atan(FloatUnary):
    """The arc tangent."""

    samples = unary_samples(-5, 5)

    def reference(self, x: Array) -> Array:
        return np.arctan(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.atan(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.div(dys[0], g.add(g.square(xs[0]), 1)),)


@op
class Sinh(FloatUnary):
    """The hyperbolic sine."""

    samples = unary_samples(-4, 4)

    def reference(self, x: Array) -> Array:
        return np.sinh(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.sinh(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.mul(dys[0], g.ew("cosh", xs[0])),)


@op
class Cosh(FloatUnary):
    """The hyperbolic cosine."""

    samples = unary_samples(-4, 4)

    def reference(self, x: Array) -> Array:
        return np.cosh(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.cosh(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.mul(dys[0], g.ew("sinh", xs[0])),)


@op
class Tanh(FloatUnary):
    """The hyperbolic tangent."""

    samples = unary_samples(-5, 5)

    def reference(self, x: Array) -> Array:
        return np.tanh(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.tanh(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.mul(dys[0], _one_minus_square(g, ys[0])),)


@op
class Asinh(FloatUnary):
    """The inverse hyperbolic sine."""

    samples = unary_samples(-5, 5)

    def reference(self, x: Array) -> Array:
        return np.arcsinh(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.asinh(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.div(dys[0], g.sqrt(g.add(g.square(xs[0]), 1))),)


@op
class Acosh(FloatUnary):
    """The inverse hyperbolic cosine; NaN below 1."""

    samples = unary_samples(1.2, 6)

    def reference(self, x: Array) -> Array:
        return np.arccosh(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.acosh(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.div(dys[0], g.sqrt(g.mul(g.sub(xs[0], 1), g.add(xs[0], 1)))),)


@op
class Atanh(FloatUnary):
    """The inverse hyperbolic tangent; NaN outside [-1, 1]."""

    samples = unary_samples(-0.9, 0.9)

    def reference(self, x: Array) -> Array:
        return np.arctanh(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.atanh(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.div(dys[0], _one_minus_square(g, xs[0])),)


@op
class Erf(FloatUnary):
    """The error function."""

    samples = unary_samples(-4, 4)

    def reference(self, x: Array) -> Array:
        return special.erf(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.erf(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.mul(dys[0], g.mul(g.exp(g.neg(g.square(xs[0]))), 2 / math.sqrt(math.pi))),)


@op
class NormalCdf(FloatUnary):
    """The distribution function of the normal distribution: (1 + erf(x / sqrt(2))) / 2."""

    samples = unary_samples(-7, 7)

    def reference(self, x: Array) -> Array:
        half = x.dtype.type(0.5)
        return np.asarray(half + half * special.erf(x * x.dtype.type(math.sqrt(0.5))))

    def lower(self, k: Math, x: Val) -> Val:
        return k.normal_cdf(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        density = g.mul(g.exp(g.mul(g.square(xs[0]), -0.5)), 1 / math.sqrt(2 * math.pi))
        return (g.mul(dys[0], density),)


@op
class Erfinv(FloatUnary):
    """The inverse of the error function; NaN outside [-1, 1]."""

    samples = unary_samples(-0.95, 0.95)

    def reference(self, x: Array) -> Array:
        return special.erfinv(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.erfinv(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.mul(dys[0], g.mul(g.exp(g.square(ys[0])), math.sqrt(math.pi) / 2)),)


@op
class Lgamma(FloatUnary):
    """log|gamma(x)|. It has no gradient here: that would need the digamma function."""

    samples = unary_samples(-3.9, 9, grad=False)

    def reference(self, x: Array) -> Array:
        return special.lgamma(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.lgamma(x)
