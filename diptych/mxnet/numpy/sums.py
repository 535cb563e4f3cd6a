"""Functions of `mx.np` that are made of others, gradients included."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet.imperative import wrap
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.numpy import creation, functions
from diptych.mxnet.numpy.call import as_ndarray, fallback, floating, operator, without_gradient
from diptych.mxnet.tape import state

__all__ = [
    "around", "average", "bincount", "blackman", "copysign", "diag_indices_from", "diff", "ediff1d", "hamming", "hanning", "indices", "inner", "interp",
    "isneginf", "isposinf", "lcm", "ldexp", "logspace", "nan_to_num", "percentile", "polyval", "quantile", "round", "round_", "trace", "unravel_index", "vdot",
]  # fmt: skip


def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, out: Any = None) -> Any:
    """The sum along diagonals."""
    return operator("_np_trace", a, out=out, offset=offset, axis1=axis1, axis2=axis2)


def _into(out: Any, found: Any) -> Any:
    if out is None:
        return found
    out[...] = found
    return out


def vdot(a: Any, b: Any) -> Any:
    """The product of all elements, summed."""
    return functions.dot(as_ndarray(a).reshape(-1), as_ndarray(b).reshape(-1))


def inner(a: Any, b: Any) -> Any:
    """Products along the last axes, summed."""
    if not a.ndim or not b.ndim:
        return a * b
    return functions.tensordot(a, b, axes=([a.ndim - 1], [b.ndim - 1]))


def average(a: Any, axis: Any = None, weights: Any = None, returned: bool = False, out: Any = None) -> Any:
    """The mean, weighted when weights are given; with `returned` also the sum of the weights."""
    a = floating(a)
    if weights is None:
        mean = functions.mean(a, axis=axis)  # type: ignore[attr-defined]
        count = a.size // max(1, mean.size)
        return [mean, creation.full_like(mean, count)] if returned else _into(out, mean)
    weights = floating(weights)
    if weights.shape != a.shape:
        if axis is None or not isinstance(axis, int):
            raise TypeError("Axis must be specified when shapes of a and weights differ.")
        shape = [1] * a.ndim
        shape[axis] = weights.size
        weights = as_ndarray(weights).reshape(shape)
    total = functions.sum(operator("_npi_broadcast_to", weights, shape=a.shape), axis=axis)  # type: ignore[attr-defined]
    mean = functions.sum(a * weights, axis=axis) / total  # type: ignore[attr-defined]
    return [mean, total] if returned else _into(out, mean)


def _slice(a: Any, axis: int, begin: int, end: int) -> Any:
    return as_ndarray(a)[(slice(None),) * axis + (slice(begin, end),)]


def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """The n-th differences of neighbours along an axis."""
    if prepend is not None or append is not None:
        raise NotImplementedError("diff: prepend and append are not there; concatenate before")
    if n < 0:
        raise ValueError(f"order must be non-negative but got {n}")
    axis %= a.ndim
    for _ in range(n):
        extent = a.shape[axis]
        if extent < 2:
            return _slice(a, axis, 0, 0)
        a = _slice(a, axis, 1, extent) - _slice(a, axis, 0, extent - 1)
    return a


def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    """The differences of neighbours of the flattened array, with values put before and after."""

    def flat(x: Any) -> Any:
        x = x if isinstance(x, NDArray) else as_ndarray(wrap(np.asarray(x, ary.dtype)))
        return as_ndarray(x).reshape(-1)

    parts = [diff(flat(ary))]
    if to_begin is not None:
        parts.insert(0, flat(to_begin))
    if to_end is not None:
        parts.append(flat(to_end))
    return operator("_npi_concatenate", *parts, num_args=len(parts), axis=0) if len(parts) > 1 else parts[0]


def polyval(p: Any, x: Any) -> Any:
    """The polynomial with coefficients p, highest power first, at x."""
    if not isinstance(p, NDArray) or not isinstance(x, NDArray):
        raise TypeError("type not supported: np.polyval takes two arrays")
    y = creation.zeros_like(x)
    for i in range(p.shape[0]):
        y = y * x + p[i]
    return y


def nan_to_num(x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None, **kwargs: Any) -> Any:
    """NaN and the infinities replaced by numbers."""
    if isinstance(x, (int, float)):
        return np.nan_to_num(x, copy=copy, nan=nan, posinf=posinf, neginf=neginf)
    if not isinstance(x, NDArray):
        raise TypeError(f"Input data should be either number or ndarray, not {type(x)}")
    if x.dtype.kind in "iub":
        return x.copy() if copy else x
    limits = np.finfo(x.dtype)
    high, low = (float(limits.max) if posinf is None else posinf), (float(limits.min) if neginf is None else neginf)
    values = x._data
    keep = as_ndarray(wrap(np.isfinite(values)))
    put = np.where(np.isnan(values), nan, np.where(values > 0, high, low)).astype(x.dtype)
    found = functions.where(keep, x, as_ndarray(wrap(put)))
    if not copy and not (state.recording and x._entry is not None):  # a recorded array stays as it is
        x[...] = found
        return x
    return found


def around(x: Any, decimals: int = 0, out: Any = None, **kwargs: Any) -> Any:
    """The elements rounded to a number of decimals, halves to even."""
    if isinstance(x, (int, float)):
        return np.around(x, decimals)
    if not isinstance(x, NDArray):
        raise TypeError(f"type {type(x)} not supported")
    return _into(out, as_ndarray(wrap(np.asarray(np.around(x._data, decimals)))))


round = round_ = around


def _quantiles(name: str, scale: float) -> Any:
    def call(a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: Any = None, interpolation: str = "linear",
             keepdims: bool = False) -> Any:  # fmt: skip
        if overwrite_input is not None:
            raise NotImplementedError("overwrite_input=True is not there: the input is kept")
        values = without_gradient(a)
        points = (q._data if isinstance(q, NDArray) else np.asarray(q)).astype(np.float64) / scale
        kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.float32)
        found = np.quantile(values.astype(np.float64), points, axis=axis, method=interpolation,  # type: ignore[call-overload]
                            keepdims=bool(keepdims))
        return _into(out, as_ndarray(wrap(np.array(found, kind, order="C"))))

    call.__name__ = name
    call.__doc__ = f"numpy.{name} (without a gradient)."
    return call


quantile, percentile = _quantiles("quantile", 1.0), _quantiles("percentile", 100.0)


def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    """How often each number occurs, or the sum of its weights."""
    if minlength < 0:
        raise ValueError(f"bincount: minlength={minlength}, it is 0 or more")
    found = np.bincount(x._data, None if weights is None else without_gradient(weights), minlength)
    return as_ndarray(wrap(found.astype(np.int64 if weights is None else weights.dtype)))


def _window(name: str) -> Any:
    def call(M: int, dtype: Any = None, ctx: Any = None) -> Any:
        values = getattr(np, name)(M) if M > 0 else np.empty(0)
        return creation.array(values, dtype=np.float32 if dtype is None else dtype, ctx=ctx)

    call.__name__ = name
    call.__doc__ = f"numpy.{name}: a window of M values."
    return call


hanning, hamming, blackman = _window("hanning"), _window("hamming"), _window("blackman")


def indices(dimensions: Any, dtype: Any = np.int32, ctx: Any = None) -> Any:
    """The index of every element along each axis."""
    if not isinstance(dimensions, (tuple, list)):
        raise ValueError(f"indices: dimensions are a tuple of ints, not {type(dimensions)}")
    return creation.array(np.indices(tuple(dimensions)), dtype=dtype, ctx=ctx)


def logspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: float = 10.0, dtype: Any = None, axis: int = 0,
             ctx: Any = None) -> Any:  # fmt: skip
    """`num` values from base ** start to base ** stop, evenly spaced in their logarithm."""
    if axis:
        raise NotImplementedError("only axis 0 is there; move the axis before")
    return creation.array(np.logspace(start, stop, num, bool(endpoint), base), dtype=np.float32 if dtype is None else dtype, ctx=ctx)


def unravel_index(indices: Any, shape: Any, order: str = "C") -> Any:
    """The index along every axis of places in the flattened array, as a tuple."""
    if order != "C":
        raise NotImplementedError("unravel_index supports order C only")
    found = np.unravel_index(indices._data.astype(np.int64) if isinstance(indices, NDArray) else indices, shape)
    return tuple(as_ndarray(wrap(np.asarray(i, np.int64))) for i in found)


def diag_indices_from(arr: Any) -> Any:
    """The indices of the diagonal, a tuple with one array per axis."""
    return tuple(as_ndarray(wrap(np.asarray(i, np.int64))) for i in np.diag_indices_from(arr._data))


def _checked(name: str, function: Any) -> Any:
    def call(x1: Any, x2: Any, out: Any = None, **kwargs: Any) -> Any:
        functions._checked(name, kwargs)
        if not isinstance(x1, NDArray) and not isinstance(x2, NDArray):
            return getattr(np, name)(x1, x2)
        return _into(out, function(x1, x2))

    call.__name__ = name
    call.__doc__ = f"Elementwise {name}, broadcast."
    return call


def _constant(function: Any, x1: Any, x2: Any) -> Any:
    """The function's values, as numbers that do not depend on anything."""
    found = np.asarray(function(*(v._data if isinstance(v, NDArray) else v for v in (x1, x2))))
    kind = next(v.dtype for v in (x1, x2) if isinstance(v, NDArray))
    return as_ndarray(wrap(np.array(found, kind if kind.kind == "f" and found.dtype.kind == "f" else found.dtype, order="C")))


def _infinite(name: str, value: float) -> Any:
    def call(x: Any, out: Any = None, **kwargs: Any) -> Any:
        functions._checked(name, kwargs)
        if isinstance(out, NDArray) and out.dtype != np.bool_:
            raise TypeError(f"{name}: out must be of type bool, not {out.dtype}")
        return _into(out, functions.equal(floating(x), value))  # type: ignore[attr-defined]

    call.__name__ = name
    call.__doc__ = f"Where elements are {value}."
    return call


isposinf, isneginf = _infinite("isposinf", np.inf), _infinite("isneginf", -np.inf)
lcm = _checked("lcm", lambda x1, x2: _constant(np.lcm, x1, x2))
# |x1| with the sign of x2: x1 times a sign that stays as it is.
copysign = _checked("copysign", lambda x1, x2: x1 * _constant(lambda a, b: np.where(np.signbit(a) == np.signbit(b), 1.0, -1.0), x1, x2))
ldexp = _checked("ldexp", lambda x1, x2: x1 * functions.power(2.0, floating(x2) if isinstance(x2, NDArray) else x2))  # type: ignore[attr-defined]
interp = fallback(np.interp, "interp")
