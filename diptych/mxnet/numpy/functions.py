"""Functions of `mx.np` that have gradients."""

from __future__ import annotations

from builtins import all as all_  # `all` and `any` of this module are those of arrays
from typing import Any

import numpy as np

from diptych.frontends.mxnet.convert import CONVERTERS
from diptych.mxnet.base import MXNetError
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.numpy.call import as_ndarray, fallback, floating, is_tensor, operator
from diptych.mxnet.numpy.creation import array
from diptych.mxnet.numpy.multiarray import binary, ndarray

_FLOAT_UNARY = ["exp", "expm1", "log", "log10", "log2", "log1p", "sqrt", "cbrt", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "degrees", "radians", "reciprocal"]
_UNARY = {"negative": "_npi_negative", "absolute": "_npi_absolute", "abs": "_npi_absolute", "sign": "_npi_sign",
          "square": "_npi_square", "floor": "_npi_floor", "ceil": "_npi_ceil", "trunc": "_npi_trunc", "fix": "fix",
          "rint": "_npi_rint", "logical_not": "_npi_logical_not", "bitwise_not": "_npi_bitwise_not",
          "invert": "_npi_bitwise_not", "isnan": "_npi_isnan", "isinf": "_npi_isinf", "isfinite": "_npi_isfinite"}  # fmt: skip
_BINARY = {"add": "add", "subtract": "sub", "multiply": "mul", "divide": "truediv", "true_divide": "truediv", "mod": "mod",
           "remainder": "mod", "power": "pow", "maximum": "maximum", "minimum": "minimum", "equal": "eq", "not_equal": "ne",
           "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "bitwise_and": "and", "bitwise_or": "or",
           "bitwise_xor": "xor", "logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor",
           "hypot": "hypot"}  # fmt: skip


_DEFAULTS: dict[str, Any] = {"where": True, "casting": "same_kind", "order": "K", "dtype": None, "subok": True}
_CASTINGS = ("no", "equiv", "safe", "same_kind", "unsafe")


def _checked(name: str, kwargs: dict[str, Any]) -> None:
    """Refuse the options of NumPy's ufuncs that these have not, and those that NumPy has not either."""
    for key, value in kwargs.items():
        if key not in _DEFAULTS:
            raise TypeError(f"{name} takes no argument {key}")
        if value is _DEFAULTS[key] or value == _DEFAULTS[key]:
            continue
        known = not isinstance(value, str) or key == "order"
        if key == "casting":
            known = value in _CASTINGS
        elif key == "dtype" and isinstance(value, str):
            try:
                known = bool(np.dtype(value).name)
            except TypeError:
                known = False
        if known:
            raise NotImplementedError(f"{name}: {key}={value} is not there")
        raise TypeError(f"{name}: {key}={value} has no meaning here")


def _unary(name: str, op: str, to_float: bool) -> Any:
    def call(x: Any, out: Any = None, **kwargs: Any) -> Any:
        _checked(name, kwargs)
        if isinstance(x, NDArray) and isinstance(out, NDArray) and name.startswith(("is", "logical_not")) and out.dtype != np.bool_:
            raise TypeError(f"{name}: out must be of type bool, not {out.dtype}")
        if isinstance(x, (int, float, bool, np.generic)):
            return getattr(np, name)(x)
        return operator(op, floating(x) if to_float else x, out=out)

    call.__name__ = name
    call.__doc__ = f"Elementwise {name}."
    return call


def _binary(name: str, op: str) -> Any:
    def call(x1: Any, x2: Any, out: Any = None, **kwargs: Any) -> Any:
        _checked(name, kwargs)
        if not is_tensor(x1) and not is_tensor(x2):
            return getattr(np, name)(x1, x2)
        return binary(op, x1, x2, out)

    call.__name__ = name
    call.__doc__ = f"Elementwise {name}, broadcast."
    return call


for _name in _FLOAT_UNARY:
    globals()[_name] = _unary(_name, f"_npi_{_name}" if f"_npi_{_name}" in CONVERTERS else _name, True)
for _name, _op in _UNARY.items():
    globals()[_name] = _unary(_name, _op, False)
for _name, _op in _BINARY.items():
    globals()[_name] = _binary(_name, _op)


# -- reductions ---------------------------------------------------------------------------------------------------------
def _reduction(name: str, op: str, to_float: bool = False) -> Any:
    def call(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False, **kwargs: Any) -> Any:
        if axis == () and name not in ("std", "var"):
            return a if dtype is None else a.astype(dtype)
        if name in ("max", "min"):
            return operator(op, a, out=out, axis=axis, keepdims=keepdims)
        return operator(op, floating(a) if to_float else a, out=out, axis=axis, keepdims=keepdims, dtype=dtype, **kwargs)

    call.__name__ = name
    call.__doc__ = f"{name} over axes."
    return call


for _name, _op, _f in (("sum", "_np_sum", False), ("prod", "_np_prod", False), ("max", "_np_max", False),
                       ("min", "_np_min", False), ("mean", "_npi_mean", True), ("std", "_npi_std", True),
                       ("var", "_npi_var", True)):  # fmt: skip
    globals()[_name] = _reduction(_name, _op, _f)
globals()["amax"], globals()["amin"] = globals()["max"], globals()["min"]


def _truth(op: str, doc: str) -> Any:
    def call(a: Any, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return operator(op, a, out=out, axis=axis, keepdims=keepdims)

    call.__doc__ = doc
    return call


any = _truth("_np_any", "Whether any element is not zero.")
all = _truth("_np_all", "Whether no element is zero.")


def argmax(a: Any, axis: int | None = None, out: Any = None) -> Any:
    """The place of the largest element, as int64."""
    return operator("_npi_argmax", a, out=out, axis=axis)


def argmin(a: Any, axis: int | None = None, out: Any = None) -> Any:
    """The place of the smallest element, as int64."""
    return operator("_npi_argmin", a, out=out, axis=axis)


def cumsum(a: Any, axis: int | None = None, dtype: Any = None, out: Any = None) -> Any:
    """Running sums."""
    return operator("_np_cumsum", a, out=out, axis=axis, dtype=dtype)


# -- products -----------------------------------------------------------------------------------------------------------
def dot(a: Any, b: Any, out: Any = None) -> Any:
    """NumPy's dot."""
    if not (is_tensor(a) and is_tensor(b)):
        return binary("mul", a, b, out)
    return operator("_np_dot", a, b, out=out)


def matmul(a: Any, b: Any, out: Any = None) -> Any:
    """NumPy's matmul."""
    if not a.ndim or not b.ndim:
        raise MXNetError("np.matmul takes no scalars; multiply with *")
    return operator("_npi_matmul" if a.ndim > 1 and b.ndim > 1 else "_np_dot", a, b, out=out)


def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """Sums of products over axes."""
    if isinstance(axes, int):
        return operator("_npi_tensordot_int_axes", a, b, axes=axes)
    left, right = ((x,) if isinstance(x, int) else tuple(x) for x in axes)
    return operator("_npi_tensordot", a, b, a_axes_summed=left, b_axes_summed=right)


def einsum(subscripts: str, *operands: Any, **kwargs: Any) -> Any:
    """Sums of products by subscripts."""
    op = "_npi_einsum" if _is_product(subscripts) else "_np_einsum_host"
    made = operator(op, *operands, subscripts=subscripts, **({"num_args": len(operands)} if op == "_npi_einsum" else {}))
    if (out := kwargs.get("out")) is not None:
        out[...] = made
        return out
    return made


def _is_product(subscripts: str) -> bool:
    """Whether the subscripts say a batched product of two matrices, which is compiled."""
    inputs, _, result = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not result or len(terms) != 2 or "." in subscripts or not all_(len(set(t)) == len(t) for t in (*terms, result)):
        return False
    return all_(ch in other or ch in result for t, other in (terms, terms[::-1]) for ch in t)


def outer(a: Any, b: Any) -> Any:
    """All products of two vectors."""
    return binary("mul", a.reshape(-1, 1), b.reshape(1, -1))


# -- shapes -------------------------------------------------------------------------------------------------------------
def reshape(a: Any, newshape: Any, order: str = "C") -> Any:
    """The array in another shape."""
    return as_ndarray(a).reshape(newshape)


def ravel(a: Any, order: str = "C") -> Any:
    """The array with one axis."""
    return as_ndarray(a).reshape(-1)


def transpose(a: Any, axes: Any = None) -> Any:
    """The array with its axes permuted."""
    return operator("_np_transpose", a, axes=axes)


def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """The array with two axes exchanged."""
    return operator("SwapAxis", a, dim1=axis1, dim2=axis2)


def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    """The array with axes moved."""
    return operator("_np_moveaxis", a, source=(source,) if isinstance(source, int) else tuple(source),
                    destination=(destination,) if isinstance(destination, int) else tuple(destination))  # fmt: skip


def expand_dims(a: Any, axis: int) -> Any:
    """An axis of extent 1 put in."""
    return operator("expand_dims", a, axis=axis)


def squeeze(x: Any, axis: Any = None) -> Any:
    """The array without axes of extent 1."""
    return operator("_np_squeeze", x, axis=axis)


def broadcast_to(array: Any, shape: Any) -> Any:
    """The array repeated to a shape."""
    return operator("_npi_broadcast_to", array, shape=(shape,) if isinstance(shape, int) else tuple(shape))


def concatenate(seq: Any, axis: int | None = 0, out: Any = None) -> Any:
    """Arrays joined along an axis."""
    parts = list(seq)
    return operator("_npi_concatenate", *parts, out=out, num_args=len(parts), axis="None" if axis is None else axis)


concat = concatenate


def stack(arrays: Any, axis: int = 0, out: Any = None) -> Any:
    """Arrays joined along a new axis."""
    parts = list(arrays)
    return operator("_npi_stack", *parts, out=out, num_args=len(parts), axis=axis)


def vstack(arrays: Any, out: Any = None) -> Any:
    """Arrays joined as rows."""
    return operator("_npi_vstack", *list(arrays), num_args=len(arrays))


def hstack(arrays: Any) -> Any:
    """Arrays joined along the second axis (vectors along the first)."""
    return operator("_npi_hstack", *list(arrays), num_args=len(arrays))


def dstack(arrays: Any) -> Any:
    """Arrays joined along the third axis."""
    return operator("_npi_dstack", *list(arrays), num_args=len(arrays))


def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    """The array in parts along an axis, as a list."""
    extent = ary.shape[axis]
    if isinstance(indices_or_sections, int):
        if extent % indices_or_sections:
            raise ValueError(f"split: {ary.shape} has no equal parts along axis {axis}; array_split gives unequal ones")
        size = extent // indices_or_sections
        cuts = tuple(size * i for i in range(1, indices_or_sections))
    else:
        cuts = tuple(indices_or_sections)
    found = operator("_split_v2", ary, indices=(0, *cuts), axis=axis, squeeze_axis=False)
    return found if isinstance(found, list) else [found]


def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    """The array in parts along an axis, which may differ in size by one."""
    if isinstance(indices_or_sections, int):
        size, more = divmod(ary.shape[axis], indices_or_sections)
        ends = np.cumsum([size + 1] * more + [size] * (indices_or_sections - more))
        return split(ary, [int(e) for e in ends[:-1]], axis)
    return split(ary, indices_or_sections, axis)


def tile(A: Any, reps: Any) -> Any:
    """The array repeated as a whole."""
    return operator("tile", A, reps=(reps,) if isinstance(reps, int) else tuple(reps))


def repeat(a: Any, repeats: Any, axis: int | None = None) -> Any:
    """Each element repeated."""
    return operator("repeat", a, repeats=repeats, axis=axis)


def flip(m: Any, axis: Any = None, out: Any = None) -> Any:
    """The array reversed along axes."""
    return operator("_npi_flip", m, axis=axis if axis is not None else tuple(range(m.ndim)))


def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    """The array shifted around."""
    return operator("_np_roll", a, shift=shift, axis=axis)


def take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise", out: Any = None) -> Any:
    """Elements by index along an axis."""
    index = indices if isinstance(indices, NDArray) else array(indices, dtype=np.int64)
    if axis is None:
        a, axis = as_ndarray(a).reshape(-1), 0
    return operator("take", a, index, axis=axis, mode="clip" if mode == "raise" else mode)


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """x where the condition holds, y elsewhere."""
    if x is None and y is None:
        return fallback(np.nonzero, "nonzero")(condition)
    x, y = (v if isinstance(v, NDArray) else array(v) for v in (x, y))
    return operator("_npi_where", condition, x, y)


def clip(a: Any, a_min: Any, a_max: Any, out: Any = None) -> Any:
    """The elements brought into a range."""
    if a_min is None and a_max is None:
        raise ValueError("clip: give a_min, a_max or both")
    low, high = (-np.inf if a_min is None else a_min), (np.inf if a_max is None else a_max)
    return operator("clip", a, out=out, a_min=low, a_max=high)


def pad(x: Any, pad_width: Any, mode: str = "constant", **kwargs: Any) -> Any:
    """The array with a border."""
    widths = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2)).tolist()
    return operator("_npi_pad", x, pad_width=tuple(tuple(w) for w in widths), mode=mode,
                    constant_values=kwargs.get("constant_values"))  # fmt: skip


def copy(a: Any) -> Any:
    """A copy."""
    return operator("_np_copy", a)


def arctan2(x1: Any, x2: Any, out: Any = None, **kwargs: Any) -> Any:
    """The angle of points."""
    _checked("arctan2", kwargs)
    x1, x2 = (v if isinstance(v, NDArray) else array(v) for v in (x1, x2))
    return operator("_npi_arctan2", x1, x2, out=out)


def broadcast_like(a: Any, other: Any) -> Any:
    """The array repeated to the shape of another."""
    return broadcast_to(a, other.shape)


__all__ = [n for n in globals() if not n.startswith("_") and n not in (
    "annotations", "all_", "Any", "np", "CONVERTERS", "NDArray", "array", "as_ndarray",
    "fallback", "floating", "operator", "binary", "ndarray")]  # fmt: skip
_ = ndarray
