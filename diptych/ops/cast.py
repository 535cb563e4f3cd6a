"""The conversion between dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ir.types import DTYPES, numpy_dtype
from diptych.ops.base import Elementwise, S, op
from diptych.ops.pointwise import Grads, Values

if TYPE_CHECKING:
    from diptych.codegen.math import Math, Val
    from diptych.ir import Array, TensorType
    from diptych.ops.build import Builder

__all__ = ["Cast"]


def _to_bf16(x: Array) -> Array:
    """Bit patterns of bf16, rounded to nearest even; a NaN stays one."""
    wide = np.asarray(x, np.float32)
    bits = np.atleast_1d(wide).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    rounded = np.where(np.isnan(np.atleast_1d(wide)), (bits >> 16) | 0x40, rounded)
    return rounded.astype(np.uint16).reshape(wide.shape)


def _from_bf16(bits: Array) -> Array:
    wide = np.atleast_1d(bits).astype(np.uint32) << 16
    return wide.view(np.float32).reshape(bits.shape)


@op
class Cast(Elementwise):
    """Convert to dtype `to`: floats to integers truncate, anything to bool is x != 0.

    A bf16 operand must be declared with of="bf16" (`Builder.cast` does): its NumPy arrays look like u16.
    """

    to: str
    of: str = ""

    samples = (
        S((3, 5), grad=False, to="i32"),
        S((67,), low=-99, high=99, grad=False, to="i64"),
        S((5, 3), low=-99, high=99, grad=False, to="i8"),
        S((5, 3), low=0, high=255, grad=False, to="u8"),
        S((17,), to="f64"),
        S((17,), grad=False, to="f16"),
        S((17,), grad=False, to="bool"),
        S((17,), grad=False, to="f32"),
        S((2, 9), dtype="f64", grad=False, to="f32"),
        S((2, 9), dtype="f16", grad=False, to="f32"),
        S((33,), grad=False, to="bf16"),
        S((33,), dtype="bf16", grad=False, to="f32", of="bf16"),
        S((2, 9), dtype="bool", grad=False, to="f32"),
        S((2, 9), dtype="bool", grad=False, to="i64"),
        S((2, 9), dtype="i64", low=-9, high=9, grad=False, to="f32"),
        S((2, 9), dtype="u8", low=0, high=255, grad=False, to="f32"),
        S((2, 9), dtype="u8", low=0, high=255, grad=False, to="i32"),
        S((2, 9), dtype="i32", low=-300, high=300, grad=False, to="u8"),
        S((2, 9), dtype="i32", low=-2, high=2, grad=False, to="bool"),
        S((), grad=False, to="i32"),
        S((0, 3), grad=False, to="i32"),
    )

    def infer(self, x: TensorType) -> TensorType:
        if self.to not in DTYPES:
            raise TypeRuleError(f"to={self.to!r} is not a dtype; known: {', '.join(DTYPES)}")
        if (self.of or x.dtype) != x.dtype or (x.dtype == "bf16") != (self.of == "bf16"):
            raise TypeRuleError(f"of={self.of!r} does not fit an operand of {x.dtype}; use Builder.cast")
        return x.with_dtype(self.to)

    def reference(self, x: Array) -> Array:
        if self.of == "bf16":
            x = _from_bf16(x)
        if self.to == "bf16":
            return _to_bf16(x)
        return np.asarray(x).astype(numpy_dtype(self.to))

    def lower(self, k: Math, x: Val) -> Val:
        return k.cast(x, self.to)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        if "bool" in (xs[0].dtype, self.to):
            return (None,)
        return (g.cast(dys[0], xs[0].dtype),)
