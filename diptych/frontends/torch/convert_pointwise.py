"""Elementwise arithmetic with torch's dtype promotion: unary and binary operators, comparisons, logic, casts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.frontends.torch.dtypes import compute_dtype
from diptych.frontends.torch.lower import Context, converts, refuse
from diptych.ir import Value

if TYPE_CHECKING:
    from collections.abc import Callable

__all__: list[str] = []


def _integral(dtype: str) -> bool:
    return dtype[0] in "iu"


# -- unary --------------------------------------------------------------------------------------------------------
# The operand is cast to the result's dtype first: torch computes float functions of integers in float32.
_UNARY = (
    "neg", "abs", "sign", "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "sin",
    "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "tanh", "sigmoid", "erf",
    "erfinv", "lgamma", "relu",
)  # fmt: skip
_ROUNDING = ("floor", "ceil", "trunc", "round")


def _unary(op: str) -> Callable[..., Value]:
    def convert(c: Context, x: Value) -> Value:
        if x.dtype == "bool" and op in ("sign", "abs", "relu"):
            return x
        return c.ew(op, x)

    return convert


def _rounding(op: str) -> Callable[..., Value]:
    def convert(c: Context, x: Value) -> Value:
        return x if _integral(x.dtype) or x.dtype == "bool" else c.ew(op, x)

    return convert


for _op in _UNARY:
    converts(f"aten.{_op}.default")(_unary(_op))
for _op in _ROUNDING:
    converts(f"aten.{_op}.default")(_rounding(_op))


@converts("aten.square.default")
def _square(c: Context, x: Value) -> Value:
    return _mul(c, x, x)


@converts("aten.bitwise_not.default")
def _bitwise_not(c: Context, x: Value) -> Value:
    return c.ew("logical_not" if x.dtype == "bool" else "bitwise_not", x)


@converts("aten.logical_not.default")
def _logical_not(c: Context, x: Value) -> Value:
    return c.emit("logical_not", c.cast(x, "bool"))


@converts("aten.isnan.default")
def _isnan(c: Context, x: Value) -> Value:
    return c.full(False) if x.dtype[0] not in "fb" or x.dtype == "bool" else c.emit("is_nan", x)


@converts("aten.isinf.default")
def _isinf(c: Context, x: Value) -> Value:
    return c.full(False) if x.dtype[0] not in "fb" or x.dtype == "bool" else c.emit("is_inf", x)


@converts("aten.isfinite.default")
def _isfinite(c: Context, x: Value) -> Value:
    return c.full(True) if x.dtype[0] not in "fb" or x.dtype == "bool" else c.emit("is_finite", x)


# -- binary -------------------------------------------------------------------------------------------------------
def _scaled(c: Context, b: Any, alpha: Any) -> Any:
    if alpha == 1:
        return b
    return b * alpha if not isinstance(b, Value) else c.ew("mul", b, alpha)


@converts("aten.add.Tensor", "aten.add.Scalar")
def _add(c: Context, a: Any, b: Any, alpha: Any = 1) -> Value:
    if c.dtype == "bool":
        return c.ew("logical_or", a, b) if alpha else c.value(a)
    return c.ew("add", a, _scaled(c, b, alpha))


@converts("aten.sub.Tensor", "aten.sub.Scalar")
def _sub(c: Context, a: Any, b: Any, alpha: Any = 1) -> Value:
    return c.ew("sub", a, _scaled(c, b, alpha))


@converts("aten.rsub.Scalar", "aten.rsub.Tensor")
def _rsub(c: Context, a: Any, b: Any, alpha: Any = 1) -> Value:
    return c.ew("sub", b, _scaled(c, a, alpha))


@converts("aten.mul.Tensor", "aten.mul.Scalar")
def _mul(c: Context, a: Any, b: Any) -> Value:
    return c.ew("logical_and" if c.dtype == "bool" else "mul", a, b)


@converts("aten.div.Tensor", "aten.div.Scalar", "aten.true_divide.Tensor")
def _div(c: Context, a: Any, b: Any) -> Value:
    if isinstance(b, (int, float)) and b != 0 and c.dtype in ("f32", "f64") and _exact_reciprocal(float(b)):
        return c.ew("mul", a, 1.0 / b)
    return c.ew("div", a, b)


def _exact_reciprocal(b: float) -> bool:
    """True for powers of two: multiplying by the reciprocal is then the same number, and cheaper."""
    import math

    mantissa, exponent = math.frexp(b)
    return abs(mantissa) == 0.5 and -100 < exponent < 100


@converts("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def _div_mode(c: Context, a: Any, b: Any, rounding_mode: str | None = None) -> Value:
    if rounding_mode is None:
        return _div(c, a, b)
    if rounding_mode == "floor":
        return c.ew("floor_div", a, b)
    quotient = c.ew("div", a, b)
    return quotient if _integral(c.dtype) else c.ew("trunc", quotient)


@converts("aten.floor_divide.default")
def _floor_divide(c: Context, a: Any, b: Any) -> Value:
    return c.ew("floor_div", a, b)


@converts("aten.remainder.Tensor", "aten.remainder.Scalar", "aten.remainder.Scalar_Tensor")
def _remainder(c: Context, a: Any, b: Any) -> Value:
    return c.ew("mod", a, b)


@converts("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def _pow(c: Context, a: Any, b: Any) -> Value:
    if isinstance(b, (int, float)) and isinstance(a, Value) and c.dtype in ("f32", "f64"):
        x = c.value(a)
        if b == 2:
            return c.ew("mul", x, x)
        if b == 3:
            return c.ew("mul", c.ew("mul", x, x), x)
        if b == 0.5:
            return c.ew("sqrt", x)
        if b == -0.5:
            return c.ew("rsqrt", x)
        if b == 1:
            return x
        if b == -1:
            return c.ew("reciprocal", x)
    return c.ew("pow", a, b)


_BINARY = {
    "aten.fmod.Tensor": "fmod", "aten.fmod.Scalar": "fmod", "aten.maximum.default": "maximum",
    "aten.minimum.default": "minimum", "aten.atan2.default": "atan2", "aten.hypot.default": "hypot",
    "aten.bitwise_left_shift.Tensor": "left_shift", "aten.bitwise_right_shift.Tensor": "right_shift",
    "aten.__lshift__.Scalar": "left_shift",
    "aten.__lshift__.Tensor": "left_shift",
    "aten.__rshift__.Scalar": "right_shift",
    "aten.__rshift__.Tensor": "right_shift",
    "aten.bitwise_left_shift.Tensor_Scalar": "left_shift", "aten.bitwise_right_shift.Tensor_Scalar": "right_shift",
}  # fmt: skip
_COMPARE = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}


def _binary(op: str) -> Callable[..., Value]:
    def convert(c: Context, a: Any, b: Any) -> Value:
        if c.dtype == "bool" and op in ("maximum", "minimum"):
            return c.ew("logical_or" if op == "maximum" else "logical_and", a, b)
        return c.ew(op, a, b)

    return convert


def _comparison(op: str) -> Callable[..., Value]:
    def convert(c: Context, a: Any, b: Any) -> Value:
        return c.ew(op, a, b, dtype=c.promote(a, b))

    return convert


def _bitwise(op: str) -> Callable[..., Value]:
    def convert(c: Context, a: Any, b: Any) -> Value:
        return c.ew(("logical_" if c.dtype == "bool" else "bitwise_") + op, a, b)

    return convert


def _logical(op: str) -> Callable[..., Value]:
    def convert(c: Context, a: Value, b: Value) -> Value:
        return c.emit(f"logical_{op}", c.cast(a, "bool"), c.cast(b, "bool"))

    return convert


for _name, _op in _BINARY.items():
    converts(_name)(_binary(_op))
for _name, _op in _COMPARE.items():
    converts(f"aten.{_name}.Tensor", f"aten.{_name}.Scalar")(_comparison(_op))
for _op in ("and", "or", "xor"):
    converts(f"aten.bitwise_{_op}.Tensor", f"aten.bitwise_{_op}.Scalar")(_bitwise(_op))
    converts(f"aten.logical_{_op}.default")(_logical(_op))


# -- selection and casts --------------------------------------------------------------------------------------------
@converts("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def _where(c: Context, condition: Value, a: Any, b: Any) -> Value:
    return c.emit("where", c.cast(condition, "bool"), c.value(a), c.value(b))


@converts("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def _masked_fill(c: Context, x: Value, mask: Value, value: Any) -> Value:
    return c.emit("where", mask, c.value(value), c.value(x))


@converts("aten.clamp.default", "aten.hardtanh.default")
def _clamp(c: Context, x: Value, low: Any = None, high: Any = None, **named: Any) -> Value:
    low, high = named.get("min", named.get("min_val", low)), named.get("max", named.get("max_val", high))
    return _bounded(c, x, low, high)


@converts("aten.clamp_min.default", "aten.clamp_min.Tensor")
def _clamp_min(c: Context, x: Value, low: Any) -> Value:
    return _bounded(c, x, low, None)


@converts("aten.clamp_max.default", "aten.clamp_max.Tensor")
def _clamp_max(c: Context, x: Value, high: Any) -> Value:
    return _bounded(c, x, None, high)


@converts("aten.clamp.Tensor")
def _clamp_tensor(c: Context, x: Value, min: Any = None, max: Any = None) -> Value:
    return _bounded(c, x, min, max)


def _bounded(c: Context, x: Value, low: Any, high: Any) -> Value:
    if c.dtype in ("f32", "f64") and not isinstance(low, Value) and not isinstance(high, Value):
        low, high = (None if v is None else float(v) for v in (low, high))
        if low is None and high is None:
            return c.value(x)
        if low is None or high is None or low <= high:
            return c.emit("clip", c.value(x), low=low, high=high)
    y = c.value(x)
    if low is not None:
        y = c.ew("maximum", y, low)
    return y if high is None else c.ew("minimum", y, high)


@converts("aten._to_copy.default")
def _to_copy(c: Context, x: Value, dtype: Any = None, layout: Any = None, device: Any = None,
             pin_memory: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Value:  # fmt: skip
    return c.cast(x, compute_dtype(dtype)) if dtype is not None else x


@converts("aten.to.dtype")
def _to_dtype(c: Context, x: Value, dtype: Any, *rest: Any, **options: Any) -> Value:
    return c.cast(x, compute_dtype(dtype))


@converts("prims.convert_element_type.default")
def _convert_element_type(c: Context, x: Value, dtype: Any) -> Value:
    return c.cast(x, compute_dtype(dtype))


@converts("aten.clone.default", "aten.alias.default", "aten.detach.default", "aten.contiguous.default",
          "aten.lift_fresh_copy.default", "aten.lift_fresh.default", "aten.detach_.default")  # fmt: skip
def _identity(c: Context, x: Value, *rest: Any, **options: Any) -> Value:
    return x


@converts("aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default")
def _dropout(c: Context, x: Value, p: float, train: bool) -> Value:
    return _native_dropout(c, x, p, train)[0]


@converts("aten.native_dropout.default")
def _native_dropout(c: Context, x: Value, p: float, train: bool | None) -> tuple[Value, None]:
    if train and p:
        refuse("dropout is active; call model.eval() before exporting")
    return x, None


@converts("aten.copy.default")
def _copy(c: Context, x: Value, source: Any, non_blocking: bool = False) -> Value:
    return c.g.broadcast_to(c.value(source), c.shape)


@converts("aten.fill.Scalar", "aten.fill.Tensor", "aten.full_like.default")
def _fill(c: Context, x: Value, value: Any, **options: Any) -> Value:
    return c.g.broadcast_to(c.value(value), c.shape)


@converts("aten.zeros_like.default", "aten.new_zeros.default")
def _zeros_like(c: Context, x: Value, *rest: Any, **options: Any) -> Value:
    return c.full(0)


@converts("aten.ones_like.default", "aten.new_ones.default")
def _ones_like(c: Context, x: Value, *rest: Any, **options: Any) -> Value:
    return c.full(1)


@converts("aten.new_full.default")
def _new_full(c: Context, x: Value, size: Any, value: Any, **options: Any) -> Value:
    return c.g.broadcast_to(c.value(value), c.shape)


@converts("aten.empty_like.default", "aten.new_empty.default")
def _empty_like(c: Context, x: Value, *rest: Any, **options: Any) -> Value:
    return c.full(0)  # uninitialised memory has no value to keep; zeros make the result reproducible


@converts("aten._assert_tensor_metadata.default", "aten._assert_scalar.default", "aten._assert_async.msg")
def _assertion(c: Context, *args: Any, **options: Any) -> None:
    return None  # what it asserts about types holds by the type rule
