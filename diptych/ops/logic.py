"""Comparisons, logic on bools, bits of integers, and selection."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Arg, Elementwise, S, Sample, broadcast, op
from diptych.ops.pointwise import FLOATS, INTS, NUMBERS, Grads, Values, broadcast_type, one_of
from diptych.ops.rules import sum_to

if TYPE_CHECKING:
    from diptych.codegen.math import Math, Val
    from diptych.ir import Array, TensorType
    from diptych.ops.build import Builder

__all__ = [
    "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Equal", "Greater", "GreaterEqual", "IsFinite",
    "IsInf", "IsNan", "LeftShift", "Less", "LessEqual", "LogicalAnd", "LogicalNot", "LogicalOr", "LogicalXor",
    "NotEqual", "RightShift", "Where",
]  # fmt: skip


def _samples(*dtypes: str, low: float = -3, high: float = 3) -> tuple[Sample, ...]:
    shapes = (((3, 5), (5,)), ((67,), (67,)), ((4, 1), (1, 9)), ((), ()), ((0, 3), (1, 3)), ((2, 3, 7), ()))
    first = tuple(S(a, b, dtype=dtypes[0], low=low, high=high, grad=False) for a, b in shapes)
    return first + tuple(S((3, 11), (11,), dtype=d, low=low, high=high, grad=False) for d in dtypes[1:])


class _Compare(Elementwise):
    """Two numbers or bools in, bool out; every comparison with NaN is false, except NotEqual."""

    __slots__ = ()
    predicate: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]] = (*NUMBERS, "bool")

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        return broadcast_type(self.dtypes, a, b).with_dtype("bool")

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.cmp(self.predicate, a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return None, None


@op
class Equal(_Compare):
    """a == b."""

    samples = _samples("i32", "f32", "f64", "bool", "u8")
    predicate = "eq"

    def reference(self, a: Array, b: Array) -> Array:
        return np.equal(a, b)


@op
class NotEqual(_Compare):
    """a != b."""

    samples = _samples("i32", "f32", "f64", "bool", "u8")
    predicate = "ne"

    def reference(self, a: Array, b: Array) -> Array:
        return np.not_equal(a, b)


@op
class Less(_Compare):
    """a < b."""

    samples = _samples("f32", "i32", "f64", "u8", "i64")
    predicate = "lt"

    def reference(self, a: Array, b: Array) -> Array:
        return np.less(a, b)


@op
class LessEqual(_Compare):
    """a <= b."""

    samples = _samples("f32", "i32", "f64", "u8", "i64")
    predicate = "le"

    def reference(self, a: Array, b: Array) -> Array:
        return np.less_equal(a, b)


@op
class Greater(_Compare):
    """a > b."""

    samples = _samples("f32", "i32", "f64", "u8", "i64")
    predicate = "gt"

    def reference(self, a: Array, b: Array) -> Array:
        return np.greater(a, b)


@op
class GreaterEqual(_Compare):
    """a >= b."""

    samples = _samples("f32", "i32", "f64", "u8", "i64")
    predicate = "ge"

    def reference(self, a: Array, b: Array) -> Array:
        return np.greater_equal(a, b)


class _Test(Elementwise):
    """Float in, bool out."""

    __slots__ = ()
    samples = (S((3, 5)), S((67,)), S(()), S((0, 2)), S((2, 9), dtype="f64"))

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, FLOATS)
        return x.with_dtype("bool")

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (None,)


@op
class IsNan(_Test):
    """Whether x is NaN."""

    def reference(self, x: Array) -> Array:
        return np.isnan(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.cmp("ne", x, x)


@op
class IsInf(_Test):
    """Whether x is plus or minus infinity."""

    def reference(self, x: Array) -> Array:
        return np.isinf(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.cmp("eq", k.abs(x), k.const(float("inf"), x.dtype, x.lanes))


@op
class IsFinite(_Test):
    """Whether x is neither infinite nor NaN."""

    def reference(self, x: Array) -> Array:
        return np.isfinite(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.cmp("lt", k.abs(x), k.const(float("inf"), x.dtype, x.lanes))


class _Logical(_Compare):
    """Two bools in, bool out."""

    __slots__ = ()
    samples = _samples("bool")
    dtypes = ("bool",)


@op
class LogicalAnd(_Logical):
    """Both."""

    def reference(self, a: Array, b: Array) -> Array:
        return np.logical_and(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.bit_and(a, b)


@op
class LogicalOr(_Logical):
    """Either or both."""

    def reference(self, a: Array, b: Array) -> Array:
        return np.logical_or(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.bit_or(a, b)


@op
class LogicalXor(_Logical):
    """Exactly one."""

    def reference(self, a: Array, b: Array) -> Array:
        return np.logical_xor(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.bit_xor(a, b)


@op
class LogicalNot(Elementwise):
    """Not."""

    samples = (S((3, 5), dtype="bool"), S((), dtype="bool"), S((0,), dtype="bool"), S((67,), dtype="bool"))

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, ("bool",))
        return x

    def reference(self, x: Array) -> Array:
        return np.logical_not(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.bit_not(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (None,)


class _Bitwise(Elementwise):
    """Two operands of one integer dtype (or bool), same dtype out."""

    __slots__ = ()
    samples = _samples("i32", "i64", "u8", "bool", low=-9, high=99)

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        return broadcast_type((*INTS, "bool"), a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return None, None


@op
class BitwiseAnd(_Bitwise):
    """a & b."""

    def reference(self, a: Array, b: Array) -> Array:
        return np.bitwise_and(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.bit_and(a, b)


@op
class BitwiseOr(_Bitwise):
    """a | b."""

    def reference(self, a: Array, b: Array) -> Array:
        return np.bitwise_or(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.bit_or(a, b)


@op
class BitwiseXor(_Bitwise):
    """a ^ b."""

    def reference(self, a: Array, b: Array) -> Array:
        return np.bitwise_xor(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.bit_xor(a, b)


@op
class BitwiseNot(Elementwise):
    """~x."""

    samples = (S((3, 5), dtype="i32"), S((7,), dtype="u8", low=0, high=9), S((5,), dtype="bool"), S((), dtype="i64"))

    def infer(self, x: TensorType) -> TensorType:
        one_of(x, (*INTS, "bool"))
        return x

    def reference(self, x: Array) -> Array:
        return np.bitwise_not(x)

    def lower(self, k: Math, x: Val) -> Val:
        return k.bit_not(x)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (None,)


class _Shift(Elementwise):
    """Two operands of one integer dtype; a count outside [0, bits) shifts everything out."""

    __slots__ = ()
    samples = _samples("i32", "i64", "u8", low=0, high=12)

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        return broadcast_type(INTS, a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return None, None


@op
class LeftShift(_Shift):
    """a << b."""

    def reference(self, a: Array, b: Array) -> Array:
        return np.left_shift(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.shl(a, b)


@op
class RightShift(_Shift):
    """a >> b; signed integers keep their sign."""

    def reference(self, a: Array, b: Array) -> Array:
        return np.right_shift(a, b)

    def lower(self, k: Math, a: Val, b: Val) -> Val:
        return k.shr(a, b)


@op
class Where(Elementwise):
    """a where the condition holds, else b."""

    samples = (
        S(Arg((3, 5), "bool"), (3, 5), (3, 5)),
        S(Arg((67,), "bool"), (67,), ()),
        S(Arg((3, 1), "bool"), (5,), (2, 3, 5)),
        S(Arg((2, 3, 5), "bool"), (), ()),
        S(Arg((), "bool"), (3,), (3,)),
        S(Arg((), "bool"), (), ()),
        S(Arg((0, 3), "bool"), (3,), ()),
        S(Arg((4, 6), "bool"), (4, 6), (6,), dtype="f64"),
        S(Arg((4, 6), "bool"), (4, 6), (6,), dtype="i64", low=-9, high=9),
    )

    def infer(self, cond: TensorType, a: TensorType, b: TensorType) -> TensorType:
        one_of(cond, ("bool",))
        if a.dtype != b.dtype:
            raise TypeRuleError(f"the two choices must have one dtype, got {a.dtype} and {b.dtype}; cast first")
        return a.with_shape(broadcast(cond.shape, a.shape, b.shape))

    def reference(self, cond: Array, a: Array, b: Array) -> Array:
        return np.where(cond, a, b)

    def lower(self, k: Math, cond: Val, a: Val, b: Val) -> Val:
        return k.select(cond, a, b)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        cond, a, b = xs
        if a.dtype == "bool":
            return None, None, None
        da, db = g.where(cond, dys[0], 0), g.where(cond, 0, dys[0])
        return None, sum_to(g, da, a.shape), sum_to(g, db, b.shape)
