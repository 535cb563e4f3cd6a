"""`mx.nd.sparse`: arrays that MXNet stores sparsely are kept dense here; what depends on the storage is an error."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.base import MXNetError
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.ndarray.register import module_getattr

__all__ = ["BaseSparseNDArray", "CSRNDArray", "RowSparseNDArray", "array", "cast_storage", "from_value", "zeros"]

_lookup = module_getattr("sparse")

_ADVICE = "sparse storage is not supported; keep the array dense (stype='default')"


def __getattr__(name: str) -> Any:
    return _lookup(name)


class BaseSparseNDArray(NDArray):
    """The base class of sparse arrays; none can be made."""

    __slots__ = ()


class CSRNDArray(BaseSparseNDArray):
    """A matrix in compressed sparse rows; none can be made."""

    __slots__ = ()


class RowSparseNDArray(BaseSparseNDArray):
    """An array of which some rows are stored; none can be made."""

    __slots__ = ()


def cast_storage(x: NDArray, stype: str) -> NDArray:
    """The array itself for "default"; an error for sparse storage."""
    if stype == "default":
        return x
    raise MXNetError(_ADVICE)


def zeros(stype: str, shape: Any, ctx: Any = None, dtype: Any = None, **kwargs: Any) -> NDArray:
    """Zeros; an error for sparse storage."""
    if stype == "default":
        from diptych.mxnet.ndarray import create

        return create.zeros(shape, ctx, dtype)
    raise MXNetError(_ADVICE)


def array(source_array: Any, ctx: Any = None, dtype: Any = None) -> NDArray:
    """An error: sparse storage is not supported."""
    raise MXNetError(_ADVICE)


csr_matrix = row_sparse_array = array


def from_value(value: Any) -> NDArray:
    """A sparse array of a file, made dense."""
    from diptych.mxnet.imperative import wrap

    return wrap(value.dense())
