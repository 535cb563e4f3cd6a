"""Softmax and its logarithm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.ops.base import Arg, Loops, S, normalize_axis, op
from diptych.ops.rules import floats, narrowed, widened

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["LogSoftmax", "Softmax"]

_SAMPLES = (
    S((3, 5)),
    S((2, 3, 4), axis=1),
    S((4, 33), axis=-1, low=-30.0, high=30.0),
    S((7, 2), axis=0),
    S((5, 1)),
    S((2, 3, 17, 5), axis=1),
    S((0, 4), grad=False),
    S((1, 1000)),
    S(Arg((3, 4), "f64")),
)


@op
class Softmax(Loops):
    """exp(x) / sum(exp(x)) along an axis, shifted by the maximum so that nothing overflows."""

    axis: int = -1

    samples = _SAMPLES

    def infer(self, x: TensorType) -> TensorType:
        floats(x)
        normalize_axis(self.axis, x.rank)
        return x

    def reference(self, x: Array) -> Array:
        if x.size == 0:
            return x
        wide = widened(x)
        e = np.exp(wide - wide.max(self.axis, keepdims=True))
        e /= e.sum(self.axis, keepdims=True)
        return narrowed(e, x)

    def decompose(self, g: Builder, x: Value) -> Value:
        """The same in simpler operators, for targets without a kernel of it."""
        e = g.exp(g.sub(x, g.max(x, self.axis, keepdims=True)))
        return g.div(e, g.sum(e, self.axis, keepdims=True))

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        (y,), (dy,) = ys, dys
        return (g.mul(y, g.sub(dy, g.sum(g.mul(dy, y), self.axis, keepdims=True))),)


@op
class LogSoftmax(Loops):
    """x - log(sum(exp(x))) along an axis, shifted by the maximum so that nothing overflows."""

    axis: int = -1

    samples = _SAMPLES

    def infer(self, x: TensorType) -> TensorType:
        floats(x)
        normalize_axis(self.axis, x.rank)
        return x

    def reference(self, x: Array) -> Array:
        if x.size == 0:
            return x
        wide = widened(x)
        shifted = wide - wide.max(self.axis, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(self.axis, keepdims=True))
        return narrowed(shifted, x)

    def decompose(self, g: Builder, x: Value) -> Value:
        """The same in simpler operators, for targets without a kernel of it."""
        shifted = g.sub(x, g.max(x, self.axis, keepdims=True))
        return g.sub(shifted, g.log(g.sum(g.exp(shifted), self.axis, keepdims=True)))

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        (y,), (dy,) = ys, dys
        return (g.sub(dy, g.mul(g.exp(y), g.sum(dy, self.axis, keepdims=True))),)
