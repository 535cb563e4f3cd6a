"""`mx.sym.np`: the functions of `mx.np` on symbols, and those that make arrays from nothing as nodes of a graph."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.base import dtype_name
from diptych.mxnet.ops.registry import spell
from diptych.mxnet.symbol.np_symbol import NumpySymbol, apply

__all__ = ["arange", "blackman", "eye", "full", "hamming", "hanning", "identity", "indices", "linspace", "logspace", "ones", "zeros"]

_Symbol = NumpySymbol


def _make(op: str, dtype: Any, ctx: Any = None, **attrs: Any) -> Any:
    texts = {k: spell(v) for k, v in attrs.items() if v is not None}
    if ctx is not None:
        texts["ctx"] = str(ctx)
    return apply(op, (), {**texts, "dtype": dtype_name("float32" if dtype is None else dtype)})


def _extents(shape: Any) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def zeros(shape: Any, dtype: Any = None, order: str = "C", ctx: Any = None) -> Any:
    """Zeros."""
    return _make("_npi_zeros", dtype, ctx, shape=_extents(shape))


def ones(shape: Any, dtype: Any = None, order: str = "C", ctx: Any = None) -> Any:
    """Ones."""
    return _make("_npi_ones", dtype, ctx, shape=_extents(shape))


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C", ctx: Any = None, out: Any = None) -> Any:
    """One value everywhere."""
    return _make("_full", dtype, ctx, shape=_extents(shape), value=fill_value)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None, ctx: Any = None) -> Any:
    """Evenly spaced values."""
    first, last = (0, start) if stop is None else (start, stop)
    return _make("_npi_arange", dtype, ctx, start=first, stop=last, step=step)


def linspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None,
             axis: int = 0, ctx: Any = None) -> Any:  # fmt: skip
    """`num` evenly spaced values from start to stop."""
    made = _make("_linspace", dtype, ctx, start=start, stop=stop, num=num, endpoint=endpoint)
    return (made, (stop - start) / (num - bool(endpoint))) if retstep else made


def logspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: float = 10.0, dtype: Any = None,
             axis: int = 0, ctx: Any = None) -> Any:  # fmt: skip
    """`num` values from base ** start to base ** stop, evenly spaced in their logarithm."""
    return _make("_npi_logspace", dtype, ctx, start=start, stop=stop, num=num, endpoint=endpoint, base=base)


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = None, **kwargs: Any) -> Any:
    """Ones on the k-th diagonal."""
    return _make("_npi_eye", dtype, kwargs.get("ctx"), N=N, M=M, k=k)


def identity(n: int, dtype: Any = None, ctx: Any = None) -> Any:
    """Ones on the diagonal of a square."""
    return _make("_npi_identity", dtype, ctx, shape=(n, n))


def indices(dimensions: Any, dtype: Any = None, ctx: Any = None) -> Any:
    """The index of every element along each axis."""
    return _make("_npi_indices", "int32" if dtype is None else dtype, ctx, dimensions=tuple(dimensions))


def hanning(M: int, dtype: Any = None, ctx: Any = None) -> Any:
    """The Hanning window."""
    return _make("_npi_hanning", dtype, ctx, M=M)


def hamming(M: int, dtype: Any = None, ctx: Any = None) -> Any:
    """The Hamming window."""
    return _make("_npi_hamming", dtype, ctx, M=M)


def blackman(M: int, dtype: Any = None, ctx: Any = None) -> Any:
    """The Blackman window."""
    return _make("_npi_blackman", dtype, ctx, M=M)


def __getattr__(name: str) -> Any:
    from diptych.mxnet import numpy

    return getattr(numpy, name)
