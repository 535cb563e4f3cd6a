"""`mx.nd.sparse`: arrays that carry a sparse storage type. Their values are kept dense; the parts are computed when asked for.

Every operator takes them, and gives dense arrays; `retain`, `tostype`, `data`, `indices` and files know the storage type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.frontends.mxnet.arrays import Csr, RowSparse
from diptych.mxnet.base import MXNetError, NotSupportedForSparseNDArray, mx_real_t
from diptych.mxnet.context import usable
from diptych.mxnet.ndarray.ndarray import NDArray, context_for_new
from diptych.mxnet.ndarray.register import module_getattr

__all__ = ["BaseSparseNDArray", "CSRNDArray", "RowSparseNDArray", "array", "cast_storage", "csr_matrix", "empty", "from_value",
           "row_sparse_array", "zeros"]  # fmt: skip

_lookup = module_getattr("sparse")


def __getattr__(name: str) -> Any:
    return _lookup(name)


class BaseSparseNDArray(NDArray):
    """The base class of arrays with a sparse storage type."""

    __slots__ = ()
    _stype = "default"

    @property
    def stype(self) -> str:
        """The storage type."""
        return self._stype

    def __repr__(self) -> str:
        extents = "x".join(map(str, self.shape))
        return f"\n<{type(self).__name__} {extents} @{self.context}>"

    def reshape(self, *shape: Any, **kwargs: Any) -> NDArray:
        """An error: sparse arrays keep their shape."""
        raise NotSupportedForSparseNDArray(self.reshape, None, shape)

    def tostype(self, stype: str) -> NDArray:
        """The array in another storage type."""
        return cast_storage(self, stype)

    def todense(self) -> NDArray:
        """The array in dense storage."""
        return cast_storage(self, "default")

    def asscipy(self) -> Any:
        """An error where there is no such type in SciPy."""
        raise MXNetError(f"{self.stype} arrays have no counterpart in SciPy")

    def copy(self) -> NDArray:
        """A copy in memory of its own."""
        return labelled(np.array(self._data), type(self), self)

    def astype(self, dtype: Any, copy: bool = True) -> NDArray:
        """The array with another element type."""
        return self if not copy and np.dtype(dtype) == self.dtype else labelled(self._data.astype(dtype), type(self), self)

    def copyto(self, other: Any) -> NDArray:
        """Copy the values into another array, or to a context."""
        if isinstance(other, NDArray):
            return super().copyto(other)
        made = labelled(np.array(self._data), type(self))
        made._ctx = usable(other)
        return made

    def check_format(self, full_check: bool = True) -> None:
        """Nothing can be wrong with an array whose values are kept dense."""


class CSRNDArray(BaseSparseNDArray):
    """A matrix in compressed sparse rows."""

    __slots__ = ()
    _stype = "csr"

    @property
    def data(self) -> NDArray:
        """The values that are not zero, row by row."""
        from diptych.mxnet.imperative import wrap

        return wrap(np.ascontiguousarray(self._data[np.nonzero(self._data)]))

    @property
    def indices(self) -> NDArray:
        """Their columns."""
        from diptych.mxnet.imperative import wrap

        return wrap(np.nonzero(self._data)[1].astype(np.int64))

    @property
    def indptr(self) -> NDArray:
        """Where each row begins among them."""
        from diptych.mxnet.imperative import wrap

        return wrap(np.concatenate([[0], np.cumsum(np.count_nonzero(self._data, 1))]).astype(np.int64))

    @property
    def _value(self) -> Csr:
        return Csr((self.shape[0], self.shape[1]), self.indptr._data, self.indices._data, self.data._data)

    def __getitem__(self, key: Any) -> NDArray:
        if isinstance(key, int):
            key = slice(key, key + 1 or None)
        if not isinstance(key, (slice, tuple)):
            raise ValueError(f"Undefined behaviour for {key}")
        if isinstance(key, slice) and key.step not in (None, 1):
            raise ValueError("of a CSRNDArray only ranges of rows, step 1, can be taken")
        return labelled(np.array(self._data[key]), CSRNDArray, self)

    def asscipy(self) -> Any:
        """The matrix as scipy.sparse.csr_matrix."""
        import scipy.sparse  # type: ignore[import-untyped]

        return scipy.sparse.csr_matrix(self._data)


class RowSparseNDArray(BaseSparseNDArray):
    """An array of which only some rows are not zero."""

    __slots__ = ()
    _stype = "row_sparse"

    @property
    def indices(self) -> NDArray:
        """The rows that are not zero."""
        from diptych.mxnet.imperative import wrap

        return wrap(np.nonzero(self._data.reshape(self.shape[0], -1).any(1))[0].astype(np.int64))

    @property
    def data(self) -> NDArray:
        """Their values."""
        from diptych.mxnet.imperative import wrap

        return wrap(np.ascontiguousarray(self._data[self.indices._data]))

    @property
    def _value(self) -> RowSparse:
        return RowSparse(self.shape, self.indices._data, self.data._data)

    def retain(self, indices: NDArray) -> NDArray:
        """The array with only these rows kept."""
        out = np.zeros_like(self._data)
        rows = indices._data.astype(np.int64)
        out[rows] = self._data[rows]
        return labelled(out, RowSparseNDArray, self)


_CLASSES: dict[str, type[BaseSparseNDArray]] = {"csr": CSRNDArray, "row_sparse": RowSparseNDArray}


def labelled(data: Any, cls: type[NDArray], like: NDArray | None = None) -> NDArray:
    """An array of a sparse class around dense values."""
    made = cls.__new__(cls)
    made._data, made._entry, made._grad = np.ascontiguousarray(data), None, None
    made._ctx = like._ctx if like is not None else None
    return made


def cast_storage(x: NDArray, stype: str) -> NDArray:
    """The array in another storage type."""
    if stype == x.stype:
        return x
    if stype == "default":
        made = labelled(np.array(x._data), NDArray, x)
        made._entry = x._entry
        return made
    if stype not in _CLASSES:
        raise MXNetError(f"the storage type {stype!r} is not known; use default, row_sparse or csr")
    if stype == "csr" and x.ndim != 2:
        raise MXNetError(f"csr arrays are matrices, not of shape {x.shape}")
    if x.stype != "default":
        raise MXNetError(f"cannot cast {x.stype} to {stype}; go through 'default'")
    made = labelled(np.array(x._data), _CLASSES[stype], x)
    made._entry = x._entry
    return made


def zeros(stype: str, shape: Any, ctx: Any = None, dtype: Any = None, **kwargs: Any) -> NDArray:
    """Zeros in a storage type."""
    from diptych.mxnet.ndarray import create

    if stype == "default":
        return create.zeros(shape, ctx, dtype)
    if stype not in _CLASSES:
        raise MXNetError(f"the storage type {stype!r} is not known; use default, row_sparse or csr")
    made = labelled(np.zeros(shape, dtype or mx_real_t), _CLASSES[stype])
    made._ctx = context_for_new(ctx)
    return made


empty = zeros


def array(source_array: Any, ctx: Any = None, dtype: Any = None) -> NDArray:
    """A sparse array of a scipy.sparse matrix or of another sparse array."""
    if isinstance(source_array, BaseSparseNDArray):
        return labelled(np.array(source_array._data, dtype or source_array.dtype), type(source_array), source_array)
    if type(source_array).__module__.startswith("scipy.sparse"):
        dense = np.asarray(source_array.todense())
        return labelled(dense.astype(dtype or source_array.dtype), CSRNDArray)
    raise ValueError(f"sparse.array takes a sparse array, not {type(source_array)}; use nd.array and tostype")


def _plain(x: Any) -> Any:
    return x._data if isinstance(x, NDArray) else np.asarray(x)


def _parts(arg1: Any) -> bool:
    return isinstance(arg1, tuple) and not all(isinstance(a, (int, np.integer)) for a in arg1)


def _kind(values: Any, dtype: Any) -> Any:
    """The element type asked for, else that of an array, else float32."""
    return dtype or (_plain(values).dtype if isinstance(values, (NDArray, np.ndarray)) else mx_real_t)


def _made(dense: np.ndarray[Any, Any], shape: Any, cls: Any, ctx: Any) -> NDArray:
    """The sparse array of these values, which must have the shape asked for."""
    if shape is not None and tuple(shape) != dense.shape:
        raise ValueError(f"Dimension mismatch: shape {tuple(shape)} was asked for, the values have {dense.shape}")
    made: NDArray = labelled(dense, cls)
    made._ctx = context_for_new(ctx)
    return made


def csr_matrix(arg1: Any, shape: Any = None, ctx: Any = None, dtype: Any = None) -> NDArray:
    """A CSR matrix from (data, indices, indptr), (data, (row, column)), a shape, or dense values."""
    if _parts(arg1) and len(arg1) == 3:
        data, indices, indptr = (_plain(a) for a in arg1)
        columns = int(indices.max()) + 1 if len(indices) else 0
        shape = shape or (len(indptr) - 1, columns)
        out = np.zeros(shape, _kind(arg1[0], dtype))
        out[np.repeat(np.arange(shape[0]), np.diff(indptr.astype(np.int64))), indices.astype(np.int64)] = data
    elif _parts(arg1) and len(arg1) == 2:
        data, (row, column) = _plain(arg1[0]), (_plain(a).astype(np.int64) for a in arg1[1])
        shape = shape or (int(row.max()) + 1, int(column.max()) + 1)
        out = np.zeros(shape, _kind(arg1[0], dtype))
        np.add.at(out, (row, column), data)
    elif isinstance(arg1, tuple):
        out = np.zeros(arg1, dtype or mx_real_t)
    elif type(arg1).__module__.startswith("scipy.sparse"):
        out = np.asarray(arg1.todense()).astype(dtype or arg1.dtype)
    else:
        out = np.array(_plain(arg1), _kind(arg1, dtype))
    return _made(out, shape, CSRNDArray, ctx)


def row_sparse_array(arg1: Any, shape: Any = None, ctx: Any = None, dtype: Any = None) -> NDArray:
    """A row-sparse array from (data, indices), a shape, or dense values."""
    if _parts(arg1) and len(arg1) == 2:
        data, indices = _plain(arg1[0]), _plain(arg1[1]).astype(np.int64)
        shape = shape or (int(indices.max()) + 1 if len(indices) else 0, *data.shape[1:])
        out = np.zeros(shape, _kind(arg1[0], dtype))
        out[indices] = data
    elif isinstance(arg1, tuple):
        out = np.zeros(arg1, dtype or mx_real_t)
    else:
        out = np.array(_plain(arg1), _kind(arg1, dtype))
    return _made(out, shape, RowSparseNDArray, ctx)


def from_value(value: RowSparse | Csr) -> NDArray:
    """A sparse array of a file."""
    return labelled(value.dense(), CSRNDArray if isinstance(value, Csr) else RowSparseNDArray)
