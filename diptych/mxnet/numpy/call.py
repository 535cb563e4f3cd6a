"""Calls of the NumPy-like interface: operators under NumPy's shape rules, and functions of NumPy itself where there is none."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from diptych.mxnet.base import MXNetError
from diptych.mxnet.imperative import invoke_all, wrap
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.ops.registry import spell
from diptych.mxnet.tape import state

__all__ = ["as_ndarray", "fallback", "is_symbol", "is_tensor", "operator", "tensors", "without_gradient"]


def is_symbol(x: Any) -> bool:
    """Whether x is a symbol: these functions build graphs of symbols as they compute with arrays."""
    module: Any = sys.modules.get("diptych.mxnet.symbol.symbol")  # where it is not loaded, nothing is a symbol
    return hasattr(module, "Symbol") and isinstance(x, module.Symbol)


def tensors() -> tuple[type, ...]:
    """The classes of arrays and symbols."""
    module: Any = sys.modules.get("diptych.mxnet.symbol.symbol")
    return (NDArray, module.Symbol) if hasattr(module, "Symbol") else (NDArray,)


def is_tensor(x: Any) -> bool:
    """Whether x is an array or a symbol."""
    return isinstance(x, NDArray) or is_symbol(x)


def as_ndarray(x: Any) -> Any:
    """The array as an `mx.np.ndarray`, the symbol as one of the NumPy-like interface."""
    from diptych.mxnet.numpy.multiarray import ndarray

    return x._as(ndarray) if isinstance(x, NDArray) else x.as_np_ndarray()


def operator(op: str, *operands: Any, out: Any = None, **attrs: Any) -> Any:
    """The result of an operator on arrays or symbols; attributes that are None are left out."""
    if any(is_symbol(x) for x in operands):
        from diptych.mxnet.symbol.np_symbol import apply

        return apply(op, operands, {k: spell(v) for k, v in attrs.items() if v is not None})
    before, state.np_shape = state.np_shape, True
    try:
        found = invoke_all(op, [_operand(x) for x in operands], {k: spell(v) for k, v in attrs.items() if v is not None}, out)
    finally:
        state.np_shape = before
    made = [as_ndarray(r) for r in found]
    return made[0] if len(made) == 1 else made


def _operand(x: Any) -> NDArray:
    if isinstance(x, NDArray):
        return x
    array = np.asarray(x)
    return wrap(array.astype(np.float32) if array.dtype == np.float64 else array)


def floating(x: Any) -> Any:
    """The array itself if it is of a float type, else as float32; symbols, whose type is open, as they are."""
    if is_symbol(x):
        return x
    x = as_ndarray(_operand(x))
    return x if x._data.dtype.kind == "f" else operator("Cast", x, dtype="float32")


def without_gradient(x: Any) -> Any:
    """The NumPy array of an argument; an error where a gradient would be lost."""
    if isinstance(x, NDArray):
        if state.recording and x._entry is not None:
            raise MXNetError("this function has no gradient here; call it outside of autograd.record(), or on x.detach()")
        return x._data
    if isinstance(x, (list, tuple)):
        return type(x)(without_gradient(v) for v in x)
    return x


def _wrapped(x: Any, wide: bool) -> Any:
    if isinstance(x, np.ndarray | np.generic):
        array = np.asarray(x)
        if array.dtype == np.float64 and not wide:
            array = array.astype(np.float32)
        return as_ndarray(wrap(np.array(array, order="C")))
    if isinstance(x, (tuple, list)):
        return type(x)(_wrapped(v, wide) for v in x) if not hasattr(x, "_fields") else tuple(_wrapped(v, wide) for v in x)
    return x


def fallback(function: Any, name: str) -> Any:
    """A function of NumPy on our arrays: float64 results become float32 unless an operand is float64. It has no gradient."""

    def call(*args: Any, **kwargs: Any) -> Any:
        ctx, out = kwargs.pop("ctx", None), kwargs.pop("out", None)
        del ctx
        operands = [v for v in (*args, *kwargs.values()) if isinstance(v, NDArray)]
        if any(is_symbol(v) for v in (*args, *kwargs.values())):
            raise MXNetError(f"np.{name} is there for arrays only, not for symbols")
        wide = any(v._data.dtype == np.float64 for v in operands) or kwargs.get("dtype") in (np.float64, "float64")
        result = _wrapped(function(*(without_gradient(a) for a in args), **{k: without_gradient(v) for k, v in kwargs.items()}), wide)
        if out is not None:
            out[...] = result
            return out
        return result

    call.__name__ = name
    call.__doc__ = f"numpy.{name} on these arrays (without a gradient)."
    return call
