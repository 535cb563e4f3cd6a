"""Activations: composites a few primitives long, since the scheduler fuses them into one loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ir import numpy_dtype
from diptych.ops import special
from diptych.ops.base import Arg, Composite, S, Sample, op
from diptych.ops.pointwise import FLOATS, NUMBERS, Grads, Values, broadcast_type, one_of, unary_samples

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = [
    "Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "LogSigmoid", "Mish", "Prelu", "Selu",
    "Silu", "Softplus", "Softsign", "Square",
]  # fmt: skip

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, small, x.dtype.type(1)) / (x.dtype.type(1) + small))


def _softplus(x: Array) -> Array:
    """log(1 + exp(x)) without overflow."""
    return np.asarray(np.maximum(x, x.dtype.type(0)) + np.log1p(np.exp(-np.abs(x))))


class _Activation(Composite):
    """Float in, same float out."""

    __slots__ = ()
    samples = unary_samples(-6, 6)

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, FLOATS)
        return x


@op
class Square(Composite):
    """x * x."""

    samples = unary_samples(ints=True)

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, NUMBERS)
        return x

    def reference(self, x: Array) -> Array:
        return np.square(x)

    def decompose(self, g: Builder, x: Value) -> Value:
        return g.mul(x, x)


@op
class Clip(Composite):
    """x limited to [low, high]; None is no limit. NaN stays NaN; low > high gives high."""

    low: float | None
    high: float | None

    samples = (
        Sample((Arg((3, 7), "f32", -6, 6),), {"low": -2.0, "high": 2.0}, grad=False),
        Sample((Arg((2, 3, 19)),), {"low": None, "high": 1.5}, grad=False),
        Sample((Arg((67,)),), {"low": -0.5, "high": None}, grad=False),
        Sample((Arg((5,)),), {"low": None, "high": None}),
        Sample((Arg((11,)),), {"low": -3.0, "high": 3.0}),
        Sample((Arg(()),), {"low": 0.25, "high": 0.5}, grad=False),
        Sample((Arg((0, 2)),), {"low": 0.0, "high": 6.0}),
        Sample((Arg((3, 9), "i32", -9, 9),), {"low": -2.5, "high": 2.5}),
    )

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, NUMBERS)
        for limit in (self.low, self.high):
            if limit is not None and math.isnan(limit):
                raise TypeRuleError("a limit of NaN clips nothing; use None for no limit")
        return x

    def _limits(self, dtype: np.dtype[Any]) -> tuple[float | int | None, float | int | None]:
        """The limits as `dtype` holds them: those of integers rounded inwards and to the dtype's own range."""
        if dtype.kind == "f":
            return self.low, self.high
        info = np.iinfo(dtype)
        inside = [None if v is None else min(max(v, info.min), info.max) for v in (self.low, self.high)]
        return (
            None if inside[0] is None else math.ceil(inside[0]),
            None if inside[1] is None else math.floor(inside[1]),
        )

    def reference(self, x: Array) -> Array:
        low, high = self._limits(x.dtype)
        if low is not None:
            x = np.maximum(x, x.dtype.type(low))
        return x if high is None else np.minimum(x, x.dtype.type(high))

    def decompose(self, g: Builder, x: Value) -> Value:
        low, high = self._limits(numpy_dtype(x.dtype))
        if low is not None:
            x = g.maximum(x, low)
        return x if high is None else g.minimum(x, high)


@op
class Silu(_Activation):
    """x * sigmoid(x), also called swish."""

    def reference(self, x: Array) -> Array:
        return x * _sigmoid(x)

    def decompose(self, g: Builder, x: Value) -> Value:
        return g.mul(x, g.sigmoid(x))


@op
class Gelu(_Activation):
    """x * Phi(x), Phi being the normal distribution; approximate="tanh" replaces it by a formula with tanh."""

    approximate: str = "none"

    samples = (
        *unary_samples(-4, 4),
        S((3, 17), approximate="tanh"),
        S((67,), low=-5, high=5, approximate="tanh"),
    )

    def infer(self, x: TensorType) -> TensorType:
        if self.approximate not in ("none", "tanh"):
            raise TypeRuleError(f"approximate={self.approximate!r} must be 'none' or 'tanh'")
        one_of(x, FLOATS)
        return x

    def reference(self, x: Array) -> Array:
        half, one = x.dtype.type(0.5), x.dtype.type(1)
        if self.approximate == "none":
            return np.asarray(half * x * (one + special.erf(x * x.dtype.type(math.sqrt(0.5)))))
        inner = x.dtype.type(math.sqrt(2 / math.pi)) * (x + x.dtype.type(0.044715) * x * x * x)
        return np.asarray(half * x * (one + np.tanh(inner)))

    def decompose(self, g: Builder, x: Value) -> Value:
        if self.approximate == "none":
            return g.mul(x, g.ew("normal_cdf", x))
        cubed = g.add(g.mul(g.mul(x, x), math.sqrt(2 / math.pi) * 0.044715), math.sqrt(2 / math.pi))
        phi = g.tanh(g.mul(x, cubed))
        return g.mul(g.mul(x, 0.5), g.add(phi, 1))


@op
class HardSigmoid(_Activation):
    """alpha * x + beta limited to [0, 1]."""

    alpha: float = 1 / 6
    beta: float = 0.5

    samples = (*unary_samples(-2, 2), S((67,), low=-6, high=6, grad=False), S((5, 9), alpha=0.2, beta=0.5))

    def reference(self, x: Array) -> Array:
        line = x * x.dtype.type(self.alpha) + x.dtype.type(self.beta)
        return np.asarray(np.minimum(np.maximum(line, x.dtype.type(0)), x.dtype.type(1)))

    def decompose(self, g: Builder, x: Value) -> Value:
        return g.minimum(g.relu(g.add(g.mul(x, self.alpha), self.beta)), 1)


@op
class HardSwish(_Activation):
    """x * HardSigmoid(x)."""

    samples = (*unary_samples(-2, 2), S((67,), low=-6, high=6, grad=False))

    def reference(self, x: Array) -> Array:
        t = x.dtype.type
        return np.asarray(x * np.minimum(np.maximum(x * t(1 / 6) + t(0.5), t(0)), t(1)))

    def decompose(self, g: Builder, x: Value) -> Value:
        return g.mul(x, g.minimum(g.relu(g.add(g.mul(x, 1 / 6), 0.5)), 1))


@op
class Softplus(_Activation):
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""

    beta: float = 1.0
    threshold: float = 20.0

    samples = (*unary_samples(-6, 6), S((67,), low=-60, high=60), S((5, 7), low=-9, high=9, beta=2.0, threshold=10.0))

    def infer(self, x: TensorType) -> TensorType:
        if self.beta == 0:
            raise TypeRuleError("beta=0 divides by zero")
        one_of(x, FLOATS)
        return x

    def reference(self, x: Array) -> Array:
        beta = x.dtype.type(self.beta)
        return np.where(x * beta > self.threshold, x, _softplus(x * beta) / beta)

    def decompose(self, g: Builder, x: Value) -> Value:
        scaled = x if self.beta == 1 else g.mul(x, self.beta)
        soft = g.add(g.relu(scaled), g.ew("log1p", g.exp(g.neg(g.ew("abs", scaled)))))
        return g.where(g.greater(scaled, self.threshold), x, soft if self.beta == 1 else g.mul(soft, 1 / self.beta))

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        # not that of the decomposition, whose |x| has slope 0 at 0
        scaled = g.mul(xs[0], self.beta)
        return (g.where(g.greater(scaled, self.threshold), dys[0], g.mul(dys[0], g.sigmoid(scaled))),)


@op
class Softsign(_Activation):
    """x / (1 + |x|)."""

    def reference(self, x: Array) -> Array:
        return np.asarray(x / (x.dtype.type(1) + np.abs(x)))

    def decompose(self, g: Builder, x: Value) -> Value:
        return g.div(x, g.add(g.ew("abs", x), 1))


@op
class Elu(_Activation):
    """x where positive, else alpha * (exp(x) - 1)."""

    alpha: float = 1.0

    samples = (*unary_samples(-6, 6), S((3, 17), alpha=0.3))

    def reference(self, x: Array) -> Array:
        return np.where(x > 0, x, x.dtype.type(self.alpha) * np.expm1(x))

    def decompose(self, g: Builder, x: Value) -> Value:
        # min keeps the side not taken finite, so that no gradient becomes inf * 0
        low = g.ew("expm1", g.minimum(x, 0))
        return g.where(g.greater(x, 0), x, low if self.alpha == 1 else g.mul(low, self.alpha))


@op
class Celu(_Activation):
    """x where positive, else alpha * (exp(x / alpha) - 1)."""

    alpha: float = 1.0

    samples = (*unary_samples(-6, 6), S((3, 17), alpha=0.3))

    def infer(self, x: TensorType) -> TensorType:
        if self.alpha == 0:
            raise TypeRuleError("alpha=0 divides by zero")
        one_of(x, FLOATS)
        return x

    def reference(self, x: Array) -> Array:
        alpha = x.dtype.type(self.alpha)
        return np.where(x > 0, x, alpha * np.expm1(x / alpha))

    def decompose(self, g: Builder, x: Value) -> Value:
        low = g.mul(g.ew("expm1", g.mul(g.minimum(x, 0), 1 / self.alpha)), self.alpha)
        return g.where(g.greater(x, 0), x, low)


@op
class Selu(_Activation):
    """The self-normalising ELU: scale * (x where positive, else alpha * (exp(x) - 1)), with its two constants."""

    def reference(self, x: Array) -> Array:
        t = x.dtype.type
        return np.asarray(np.where(x > 0, t(_SELU_SCALE) * x, t(_SELU_SCALE * _SELU_ALPHA) * np.expm1(x)))

    def decompose(self, g: Builder, x: Value) -> Value:
        low = g.mul(g.ew("expm1", g.minimum(x, 0)), _SELU_SCALE * _SELU_ALPHA)
        return g.where(g.greater(x, 0), g.mul(x, _SELU_SCALE), low)


@op
class LeakyRelu(_Activation):
    """x where positive, else slope * x."""

    slope: float = 0.01

    samples = (*unary_samples(-6, 6), S((3, 17), slope=0.3), S((5,), slope=1.5))

    def reference(self, x: Array) -> Array:
        return np.where(x > 0, x, x.dtype.type(self.slope) * x)

    def decompose(self, g: Builder, x: Value) -> Value:
        scaled = g.mul(x, self.slope)
        # max is one instruction where it says the same
        return g.maximum(x, scaled) if 0 <= self.slope < 1 else g.where(g.greater(x, 0), x, scaled)


@op
class Prelu(Composite):
    """x where positive, else slope * x, with a learnt slope that broadcasts to x."""

    samples = (S((2, 3, 5), (3, 1)), S((67,), (67,)), S((2, 3), ()), S((), ()), S((0, 3), (3,)), S((3, 9), (9,), dtype="f64"))

    def infer(self, x: TensorType, slope: TensorType) -> TensorType:
        if broadcast_type(FLOATS, x, slope) != x:
            raise TypeRuleError(f"a slope of shape {slope.shape} does not broadcast to the operand's {x.shape}")
        return x

    def reference(self, x: Array, slope: Array) -> Array:
        return np.where(x > 0, x, slope * x)

    def decompose(self, g: Builder, x: Value, slope: Value) -> Value:
        return g.where(g.greater(x, 0), x, g.mul(slope, x))


@op
class Mish(_Activation):
    """x * tanh(softplus(x))."""

    def reference(self, x: Array) -> Array:
        return x * np.tanh(_softplus(x))

    def decompose(self, g: Builder, x: Value) -> Value:
        # With e = exp(-|x|), tanh(log(1 + exp(x))) is a ratio of polynomials in e: no log, no tanh.
        e = g.exp(g.neg(g.ew("abs", x)))
        square = g.mul(e, e)
        positive = g.greater(x, 0)
        upper = g.add(g.mul(e, 2), g.where(positive, 1, square))
        lower = g.add(g.mul(g.where(positive, square, 1), 2), g.add(g.mul(e, 2), g.where(positive, 1, square)))
        return g.mul(x, g.div(upper, lower))


@op
class LogSigmoid(_Activation):
    """log(sigmoid(x))."""

    def reference(self, x: Array) -> Array:
        return -_softplus(-x)

    def decompose(self, g: Builder, x: Value) -> Value:
        return g.sub(g.minimum(x, 0), g.ew("log1p", g.exp(g.neg(g.ew("abs", x)))))

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        # not that of the decomposition, whose |x| has slope 0 at 0
        return (g.mul(dys[0], g.sigmoid(g.neg(xs[0]))),)
