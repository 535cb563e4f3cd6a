"""Functions of `mx.np` that make arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet.base import MXNetError, dtype_name
from diptych.mxnet.context import Context
from diptych.mxnet.imperative import wrap
from diptych.mxnet.ndarray.ndarray import NDArray, context_for_new
from diptych.mxnet.numpy.call import as_ndarray

__all__ = ["arange", "array", "empty", "eye", "full", "full_like", "linspace", "ones", "ones_like", "zeros", "zeros_like"]


def new(data: Any, ctx: Any = None) -> Any:
    """An array of `mx.np` with a copy of these values."""
    made = as_ndarray(wrap(np.array(data, order="C")))
    made._ctx = context_for_new(ctx)
    return made


def kind(dtype: Any) -> Any:
    """The element type, float32 where none is given."""
    return np.dtype(dtype_name("float32" if dtype is None else dtype))


def array(object: Any, dtype: Any = None, ctx: Context | None = None) -> Any:
    """An array with these values, of float32 unless they have a type of their own."""
    if isinstance(object, NDArray):
        return new(object._data.astype(kind(dtype) if dtype is not None else object._data.dtype), ctx)
    if isinstance(object, (list, tuple)):
        object = [x.asnumpy() if isinstance(x, NDArray) else x for x in object]
    found = np.asarray(object)
    if dtype is None:
        dtype = found.dtype if isinstance(object, np.ndarray) and found.dtype != np.float64 else np.float32
    return new(found.astype(kind(dtype)), ctx)


def _rows(order: str) -> None:
    if order != "C":
        raise NotImplementedError(f"order {order!r} is not supported, only 'C' is")


def zeros(shape: Any, dtype: Any = None, order: str = "C", ctx: Context | None = None) -> Any:
    """Zeros."""
    _rows(order)
    return new(np.zeros(shape, kind(dtype)), ctx)


def ones(shape: Any, dtype: Any = None, order: str = "C", ctx: Context | None = None) -> Any:
    """Ones."""
    _rows(order)
    return new(np.ones(shape, kind(dtype)), ctx)


empty = zeros


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C", ctx: Context | None = None, out: Any = None) -> Any:
    """One value everywhere."""
    _rows(order)
    value = fill_value._data if isinstance(fill_value, NDArray) else fill_value
    return new(np.full(shape, value, kind(dtype)), ctx)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None, ctx: Context | None = None) -> Any:
    """Evenly spaced values."""
    first, last = (0, start) if stop is None else (start, stop)
    return new(np.arange(first, last, step).astype(kind(dtype)), ctx)


def linspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None,
             axis: int = 0, ctx: Context | None = None) -> Any:  # fmt: skip
    """`num` evenly spaced values from start to stop."""
    values, step = np.linspace(start, stop, num, endpoint=bool(endpoint), retstep=True)
    made = new(values.astype(kind(dtype)), ctx)
    return (made, step) if retstep else made


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = np.float32, **kwargs: Any) -> Any:
    """Ones on the k-th diagonal."""
    if N < 0 or (M is not None and M < 0):
        raise MXNetError(f"np.eye: the extents {N} and {M} must not be negative")
    return new(np.eye(N, M, k, kind(dtype)), kwargs.get("ctx"))


def zeros_like(a: Any, dtype: Any = None, **kwargs: Any) -> Any:
    """Zeros in the shape of an array."""
    return new(np.zeros(a.shape, a._data.dtype if dtype is None else kind(dtype)), a._ctx)


def ones_like(a: Any, dtype: Any = None, **kwargs: Any) -> Any:
    """Ones in the shape of an array."""
    return new(np.ones(a.shape, a._data.dtype if dtype is None else kind(dtype)), a._ctx)


def full_like(a: Any, fill_value: Any, dtype: Any = None, **kwargs: Any) -> Any:
    """One value in the shape of an array."""
    return new(np.full(a.shape, fill_value, a._data.dtype if dtype is None else kind(dtype)), a._ctx)
