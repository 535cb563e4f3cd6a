"""Elementwise operators: unary, binary, with a scalar, comparisons, and the operators that only rename."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from diptych.frontends.mxnet.convert import CONVERTERS, Call, converts

if TYPE_CHECKING:
    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value

_UNARY = {
    "negative": "neg", "abs": "abs", "sign": "sign", "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p",
    "log2": "log2", "log10": "log10", "sqrt": "sqrt", "rsqrt": "rsqrt", "reciprocal": "reciprocal", "sin": "sin",
    "cos": "cos", "tan": "tan", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "sinh": "sinh", "cosh": "cosh",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "tanh": "tanh", "sigmoid": "sigmoid", "relu": "relu",
    "erf": "erf", "erfinv": "erfinv", "gammaln": "lgamma", "floor": "floor", "ceil": "ceil", "trunc": "trunc",
    "fix": "trunc", "square": "square", "softsign": "softsign", "log_sigmoid": "log_sigmoid", "mish": "mish",
}  # fmt: skip
_INTEGER_UNARY = frozenset({"negative", "abs", "sign", "square", "relu", "floor", "ceil", "trunc", "fix"})
_UNARY_ALIASES = {
    "negative": "_npi_negative", "abs": "_npi_absolute", "exp": "_npi_exp", "log": "_npi_log", "sqrt": "_npi_sqrt",
    "tanh": "_npi_tanh", "square": "_npi_square", "relu": "_npx_relu", "sigmoid": "_npx_sigmoid",
    "sin": "_npi_sin", "cos": "_npi_cos", "floor": "_npi_floor", "ceil": "_npi_ceil", "reciprocal": "_npi_reciprocal",
    "sign": "_npi_sign", "log1p": "_npi_log1p", "log2": "_npi_log2", "log10": "_npi_log10", "expm1": "_npi_expm1",
    "trunc": "_npi_trunc",
}  # fmt: skip

_BINARY = {
    "add": "add", "sub": "sub", "mul": "mul", "div": "div", "power": "pow", "maximum": "maximum",
    "minimum": "minimum", "hypot": "hypot",
}  # fmt: skip
_COMPARE = {
    "equal": "equal", "not_equal": "not_equal", "greater": "greater", "greater_equal": "greater_equal",
    "lesser": "less", "lesser_equal": "less_equal",
}  # fmt: skip
_LOGICAL = {"logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor"}


def is_float(x: Value) -> bool:
    """Whether the element type is a floating one."""
    return x.dtype in ("f32", "f64", "f16", "bf16")


def _unary(name: str, op: str) -> None:
    def convert(c: Call) -> Result:
        if is_float(c.x):
            return c.emit(op, c.x)
        if name in ("floor", "ceil", "trunc", "fix"):
            return c.x
        if name in _INTEGER_UNARY:
            return c.emit(op, c.x)
        return c.cast(c.emit(op, c.cast(c.x, "f32")), c.x.dtype)  # integers go through float, as in libmxnet

    converts(name, *filter(None, [_UNARY_ALIASES.get(name)]))(convert)


for _name, _op in _UNARY.items():
    _unary(_name, _op)


def _binary(name: str, op: str, kind: str, aliases: tuple[str, ...]) -> None:
    def convert(c: Call) -> Result:
        a, b = c.arg(0), c.arg(1)
        if a.dtype != b.dtype and c.np_shape:
            a, b = promoted(c, a, b)
        if kind == "compare":
            y = c.emit(op, a, b)
            return y if op_is_np(c.op) else c.cast(y, a.dtype)
        if kind == "logical":
            y = c.emit(op, c.truth(a), c.truth(b))
            return y if op_is_np(c.op) else c.cast(y, a.dtype)
        if op == "hypot" and not is_float(a):
            return c.cast(c.emit(op, c.cast(a, "f32"), c.cast(b, "f32")), a.dtype)
        if op_is_np(c.op) and not is_float(a) and not is_float(b):
            if op == "div":  # NumPy's division gives floats
                return c.emit(op, c.cast(a, "f32"), c.cast(b, "f32"))
            if a.dtype == "bool" and op in ("add", "mul"):
                return c.emit("logical_or" if op == "add" else "logical_and", a, b)
            if a.dtype == "bool":
                a, b = c.cast(a, "i64"), c.cast(b, "i64")
        return c.emit(op, a, b)

    converts(name, *aliases)(convert)


def op_is_np(name: str) -> bool:
    """Operators of the NumPy-like interface give bool from comparisons."""
    return name.startswith(("_np", "_npi", "_npx"))


_ORDER = ("bool", "u8", "i8", "i32", "i64", "f16", "f32", "f64")


def promoted(c: Call, a: Value, b: Value) -> tuple[Value, Value]:
    """Two operands of the NumPy-like interface, cast to the wider type."""
    wide = max(a.dtype, b.dtype, key=_ORDER.index)
    return c.cast(a, wide), c.cast(b, wide)


_NUMPY_NAMES = {"add": "add", "sub": "subtract", "mul": "multiply", "div": "true_divide", "power": "power",
                "maximum": "", "minimum": "", "hypot": "hypot"}  # fmt: skip
for _name, _op in _BINARY.items():
    _np = (f"_npi_{_NUMPY_NAMES[_name]}",) if _NUMPY_NAMES[_name] else ()
    _binary(f"broadcast_{_name}", _op, "", _np)
for _name in ("add", "sub", "mul", "div"):
    _binary(f"elemwise_{_name}", _BINARY[_name], "", ())
for _name in ("power", "maximum", "minimum", "hypot"):
    _binary(f"_{_name}", _BINARY[_name], "", ())
for _name, _op in _COMPARE.items():
    _np_name = _op if _op.startswith(("less", "greater")) else _name
    _binary(f"broadcast_{_name}", _op, "compare", (f"_npi_{_np_name}",))
    _binary(f"_{_name}", _op, "compare", ())
for _name, _op in _LOGICAL.items():
    _binary(f"broadcast_{_name}", _op, "logical", (f"_npi_{_name}",))
    _binary(f"_{_name}", _op, "logical", ())

converts("_grad_add")(CONVERTERS["elemwise_add"])


def _mod(c: Call, a: Value | float, b: Value | float, like: Value) -> Value:
    """Python's sign rule, and 0 for a zero divisor."""
    y = c.emit("mod", a, b)
    if isinstance(b, (int, float)):
        return c.full(like.shape, 0.0, like.dtype) if b == 0 else y
    return c.g.where(c.emit("equal", b, 0), c.g.scalar(0, y.dtype), y)


@converts("broadcast_mod", "_mod", "_npi_mod")
def _broadcast_mod(c: Call) -> Result:
    a, b = promoted(c, c.arg(0), c.arg(1)) if c.np_shape else (c.arg(0), c.arg(1))
    return _mod(c, a, b, a)


# -- with a scalar ------------------------------------------------------------------------------------------------
def _scalar(name: str, op: str, *, reverse: bool = False, kind: str = "", aliases: tuple[str, ...] = ()) -> None:
    def convert(c: Call) -> Result:
        x = c.x
        if op_is_np(c.op) and kind == "" and not is_float(x):
            if op == "div" or c.attrs.real("scalar", 1.0) % 1:
                x = c.cast(x, "f32" if op == "div" else "f64")  # numpy-like rule: an integer and a float make a float
            elif x.dtype == "bool":
                x = c.cast(x, "i64")
        s = c.attrs.real("scalar", 1.0)
        s = s if is_float(x) else int(s)
        if op == "mod":
            return _mod(c, s, x, x) if reverse else _mod(c, x, s, x)
        if op == "pow" and not reverse and s == 2.0:
            return c.emit("mul", x, x)
        if op == "hypot" and not is_float(x):
            return c.cast(c.emit(op, c.cast(x, "f32"), s), x.dtype)
        if kind == "logical":
            y = c.emit(op, c.truth(x), c.g.scalar(s != 0, "bool"))
        else:
            y = c.emit(op, s, x) if reverse else c.emit(op, x, s)
        return c.cast(y, x.dtype) if kind and not op_is_np(c.op) else y

    converts(name, *aliases)(convert)


_scalar("_plus_scalar", "add", aliases=("_npi_add_scalar",))
_scalar("_minus_scalar", "sub", aliases=("_npi_subtract_scalar",))
_scalar("_rminus_scalar", "sub", reverse=True, aliases=("_npi_rsubtract_scalar",))
_scalar("_mul_scalar", "mul", aliases=("_npi_multiply_scalar",))
_scalar("_div_scalar", "div", aliases=("_npi_true_divide_scalar",))
_scalar("_rdiv_scalar", "div", reverse=True, aliases=("_npi_rtrue_divide_scalar",))
_scalar("_mod_scalar", "mod", aliases=("_npi_mod_scalar",))
_scalar("_rmod_scalar", "mod", reverse=True, aliases=("_npi_rmod_scalar",))
_scalar("_power_scalar", "pow", aliases=("_npi_power_scalar",))
_scalar("_rpower_scalar", "pow", reverse=True, aliases=("_npi_rpower_scalar",))
_scalar("_maximum_scalar", "maximum")
_scalar("_minimum_scalar", "minimum")
_scalar("_hypot_scalar", "hypot")
for _name, _op in _COMPARE.items():
    _np_name = _op if _op.startswith(("less", "greater")) else _name
    _scalar(f"_{_name}_scalar", _op, kind="compare", aliases=(f"_npi_{_np_name}_scalar",))
for _name, _op in _LOGICAL.items():
    _scalar(f"_{_name}_scalar", _op, kind="logical", aliases=(f"_npi_{_name}_scalar",))


# -- renames ------------------------------------------------------------------------------------------------------
@converts(
    "_copy",
    "BlockGrad",
    "MakeLoss",
    "make_loss",
    "_npi_copy",
    "_np_copy",
    "LinearRegressionOutput",
    "MAERegressionOutput",
    "SVMOutput",
    "IdentityAttachKLSparseReg",
    "_copyto",
    "_identity_with_attr_like_rhs",
    "cast_storage",
    "_contrib_gradientmultiplier",
)
def _identity(c: Call) -> Result:
    # Heads that only matter to training (their gradient) mean "the data itself" at inference.
    return c.x


@converts("LogisticRegressionOutput")
def _logistic(c: Call) -> Result:
    return c.emit("sigmoid", c.x)


@converts("Dropout")
def _dropout(c: Call) -> Result:
    if c.attrs.text("mode", "training") == "always":
        raise c.fail("mode='always' drops at inference too, which is random",
                     "set mode='training' in the symbol for deterministic inference")  # fmt: skip
    return c.x


@converts("Cast", "amp_cast")
def _cast(c: Call) -> Result:
    return c.cast(c.x, c.dtype("dtype"))


@converts("amp_multicast")
def _multicast(c: Call) -> Result:
    choose = min if c.attrs.boolean("cast_narrow", False) else max
    wide = choose((x.dtype for x in c.inputs), key=_ORDER.index)
    return tuple(c.cast(x, wide) for x in c.inputs)


# -- the rest -----------------------------------------------------------------------------------------------------
@converts("add_n")
def _add_n(c: Call) -> Result:
    total = c.x
    for x in c.inputs[1:]:
        total = c.emit("add", total, x)
    return total


@converts("clip")
def _clip(c: Call) -> Result:
    return c.emit("clip", c.x, low=c.attrs.optional_real("a_min"), high=c.attrs.optional_real("a_max"))


@converts("rint", "_npi_rint")
def _rint(c: Call) -> Result:
    if not is_float(c.x):
        return c.x
    # MXNet's rint rounds ties down, unlike C's: floor when it is as near as ceil.
    low, high = c.emit("floor", c.x), c.emit("ceil", c.x)
    return c.g.where(c.emit("less_equal", c.emit("sub", c.x, low), c.emit("sub", high, c.x)), low, high)


@converts("round")
def _round(c: Call) -> Result:
    if not is_float(c.x):
        return c.x
    # Ties away from zero, exact for every float: trunc(x + 0.5) would round 0.49999997 up.
    t = c.emit("trunc", c.x)
    far = c.emit("greater_equal", c.emit("abs", c.emit("sub", c.x, t)), 0.5)
    return c.g.where(far, c.emit("add", t, c.emit("sign", c.x)), t)


@converts("cbrt", "_npi_cbrt")
def _cbrt(c: Call) -> Result:
    return c.emit("mul", c.emit("sign", c.x), c.emit("pow", c.emit("abs", c.x), 1.0 / 3.0))


@converts("rcbrt")
def _rcbrt(c: Call) -> Result:
    return c.emit("reciprocal", c.emit("mul", c.emit("sign", c.x), c.emit("pow", c.emit("abs", c.x), 1.0 / 3.0)))


@converts("gamma")
def _gamma(c: Call) -> Result:
    # |gamma| from its logarithm; below zero the sign alternates from one integer to the next.
    size = c.emit("exp", c.emit("lgamma", c.x))
    odd = c.emit("equal", c.emit("mod", c.emit("floor", c.x), 2.0), 1.0)
    flipped = c.emit("logical_and", odd, c.emit("less", c.x, 0.0))
    return c.g.where(flipped, c.emit("neg", size), size)


@converts("all_finite")
def _all_finite(c: Call) -> Result:
    good = c.emit("all", c.emit("is_finite", c.x), axes=tuple(range(c.x.rank)), keepdims=False)
    return c.reshape(c.cast(good, c.x.dtype), (1,))


@converts("degrees", "_npi_degrees")
def _degrees(c: Call) -> Result:
    return c.emit("mul", c.x, 180.0 / math.pi)


@converts("radians", "_npi_radians")
def _radians(c: Call) -> Result:
    return c.emit("mul", c.x, math.pi / 180.0)


@converts("hard_sigmoid")
def _hard_sigmoid(c: Call) -> Result:
    return c.emit("hard_sigmoid", c.x, alpha=c.attrs.real("alpha", 0.2), beta=c.attrs.real("beta", 0.5))


@converts("logical_not", "_npi_logical_not")
def _logical_not(c: Call) -> Result:
    y = c.emit("logical_not", c.truth(c.x))
    return y if op_is_np(c.op) else c.cast(y, c.x.dtype)


@converts("smooth_l1")
def _smooth_l1(c: Call) -> Result:
    s2 = c.attrs.real("scalar", 1.0) ** 2
    size = c.emit("abs", c.x)
    near = c.emit("mul", c.emit("mul", c.x, c.x), 0.5 * s2)
    return c.g.where(c.emit("less", size, 1.0 / s2), near, c.emit("sub", size, 0.5 / s2))


@converts("where", "_npi_where")
def _where(c: Call) -> Result:
    cond, a, b = (c.arg(i) for i in range(3))
    if cond.rank == 1 and a.rank > 1 and c.op == "where":  # a vector chooses whole rows
        cond = c.reshape(cond, (cond.shape[0],) + (1,) * (a.rank - 1))
    if a.dtype != b.dtype and op_is_np(c.op):
        a, b = promoted(c, a, b)
    return c.emit("where", c.truth(cond), a, b)


@converts("_contrib_div_sqrt_dim")
def _div_sqrt_dim(c: Call) -> Result:
    return c.emit("div", c.x, math.sqrt(c.x.shape[-1]))


@converts("_contrib_quadratic")
def _quadratic(c: Call) -> Result:
    a, b, k = (c.attrs.real(n, 0.0) for n in "abc")
    square = c.emit("mul", c.emit("mul", c.x, c.x), a)
    return c.emit("add", c.emit("add", square, c.emit("mul", c.x, b)), k)
