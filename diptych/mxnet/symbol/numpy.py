"""`mx.sym.np`: the functions of `mx.np` on symbols, and those that make arrays from nothing as nodes of a graph."""

from __future__ import annotations

from functools import partial
from typing import Any

from diptych.mxnet.base import dtype_name
from diptych.mxnet.ops.registry import spell
from diptych.mxnet.symbol.np_deferred import deferred
from diptych.mxnet.symbol.np_symbol import NumpySymbol, apply

__all__ = ["arange", "diag_indices_from", "eye", "identity", "linalg", "ones", "random", "zeros"]

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


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None, ctx: Any = None) -> Any:
    """Evenly spaced values."""
    first, last = (0, start) if stop is None else (start, stop)
    return _make("_npi_arange", dtype, ctx, start=first, stop=last, step=step)


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = None, **kwargs: Any) -> Any:
    """Ones on the k-th diagonal."""
    return _make("_npi_eye", dtype, kwargs.get("ctx"), N=N, M=N if M is None else M, k=k)


def identity(n: int, dtype: Any = None, ctx: Any = None) -> Any:
    """Ones on the diagonal of a square."""
    return _make("_npi_identity", dtype, ctx, shape=(n, n))


def diag_indices_from(arr: Any) -> Any:
    """The indices of the diagonal as one array with a row per axis: how many there are shows only when shapes are known."""
    return apply("_npi_diag_indices_from", (arr,), {})


# Functions that are operators, or made of such, whatever the shapes: they become part of one compiled graph.
_DIRECT = frozenset({
    "add", "subtract", "multiply", "divide", "true_divide", "mod", "power", "maximum", "minimum", "equal", "not_equal", "greater",
    "greater_equal", "less", "less_equal", "negative", "absolute", "abs", "sign", "square", "exp", "expm1", "log", "log10",
    "log2", "log1p", "sqrt", "cbrt", "sin", "cos", "tanh", "floor", "ceil", "trunc", "rint", "sum", "mean", "max", "min",
    "transpose", "swapaxes", "expand_dims", "squeeze", "trace", "concatenate", "concat", "stack", "dot", "reshape",
})  # fmt: skip


class _Space:
    """A namespace of `mx.np` whose functions make nodes."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        from diptych.mxnet import numpy

        getattr(getattr(numpy, self._name), name)  # an AttributeError where it is not there
        return partial(deferred, f"{self._name}.{name}")


random, linalg = _Space("random"), _Space("linalg")


def __getattr__(name: str) -> Any:
    from diptych.mxnet import numpy

    found = getattr(numpy, name)
    if not callable(found) or isinstance(found, type):
        return found
    if name in _DIRECT:
        return found
    return partial(deferred, name)
