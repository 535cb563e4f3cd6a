"""The values a parameter file holds beside plain NumPy arrays: bfloat16, row-sparse and CSR arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from diptych.errors import FormatError

__all__ = ["Array", "BFloat16", "Csr", "ParamValue", "RowSparse", "check_csr", "check_row_sparse"]

Array: TypeAlias = npt.NDArray[Any]

_DENSE_LIMIT = 1 << 34


@dataclass(frozen=True, slots=True, eq=False)
class BFloat16:
    """An array of bfloat16 numbers, kept as their bit patterns since NumPy has no such type.

    >>> BFloat16(np.array([0x3F80, 0xC000], np.uint16)).float32()
    array([ 1., -2.], dtype=float32)
    """

    bits: npt.NDArray[np.uint16]

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents of the array."""
        return self.bits.shape

    def float32(self) -> npt.NDArray[np.float32]:
        """The same numbers as float32; no value changes."""
        return (self.bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _check_dense(shape: tuple[int, ...], itemsize: int, limit: int) -> None:
    size = math.prod(shape) * itemsize
    if size > limit:
        raise FormatError(
            f"an array of shape {shape} takes {size} bytes when it is dense, more than the limit of {limit}; "
            "pass a larger limit_bytes to dense() if the file is trusted"
        )


@dataclass(frozen=True, slots=True, eq=False)
class RowSparse:
    """An array of which only some rows are stored: `data[k]` is row `indices[k]`, all others are zero.

    >>> RowSparse((3, 2), np.array([1]), np.array([[5.0, 6.0]])).dense().tolist()
    [[0.0, 0.0], [5.0, 6.0], [0.0, 0.0]]
    """

    shape: tuple[int, ...]
    indices: Array
    data: Array

    def dense(self, limit_bytes: int = _DENSE_LIMIT) -> Array:
        """The whole array; refused when it would take more than `limit_bytes`."""
        _check_dense(self.shape, self.data.itemsize, limit_bytes)
        out = np.zeros(self.shape, self.data.dtype)
        out[self.indices] = self.data
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Csr:
    """A matrix in compressed sparse rows: row i has `data[indptr[i]:indptr[i+1]]` at columns `indices[...]`.

    >>> Csr((2, 3), np.array([0, 1, 2]), np.array([2, 0]), np.array([7.0, 8.0])).dense().tolist()
    [[0.0, 0.0, 7.0], [8.0, 0.0, 0.0]]
    """

    shape: tuple[int, int]
    indptr: Array
    indices: Array
    data: Array

    def dense(self, limit_bytes: int = _DENSE_LIMIT) -> Array:
        """The whole matrix; refused when it would take more than `limit_bytes`."""
        _check_dense(self.shape, self.data.itemsize, limit_bytes)
        out = np.zeros(self.shape, self.data.dtype)
        if not len(self.data):
            return out
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))
        out[rows, self.indices] = self.data
        return out


ParamValue: TypeAlias = "Array | BFloat16 | RowSparse | Csr | None"


def check_row_sparse(value: RowSparse) -> RowSparse:
    """The array itself when its indices fit its shape, else a FormatError."""
    if not value.shape or value.indices.ndim != 1 or value.indices.dtype.kind not in "iu":
        raise FormatError(f"a row-sparse array of shape {value.shape} must have a list of integer row numbers")
    if value.data.shape != (len(value.indices), *value.shape[1:]):
        raise FormatError(
            f"a row-sparse array of shape {value.shape} stores {value.data.shape}, which is not {len(value.indices)} of its rows"
        )
    if len(value.indices) and not 0 <= int(value.indices.min()) <= int(value.indices.max()) < value.shape[0]:
        raise FormatError(f"a row-sparse array of {value.shape[0]} rows stores a row outside of them")
    return value


def check_csr(value: Csr) -> Csr:
    """The matrix itself when its indices fit its shape, else a FormatError."""
    rows, columns = value.shape
    if any(a.ndim != 1 for a in (value.indptr, value.indices, value.data)):
        raise FormatError("the parts of a CSR array must be lists")
    if value.indptr.dtype.kind not in "iu" or value.indices.dtype.kind not in "iu":
        raise FormatError("the indices of a CSR array must be integers")
    if not (len(value.indptr) or len(value.data) or len(value.indices)):
        return value  # never filled: MXNet leaves out even the row starts
    if len(value.indptr) != rows + 1 or len(value.indices) != len(value.data):
        raise FormatError(
            f"a CSR array of {rows} rows has {len(value.indptr)} row starts, {len(value.indices)} columns and {len(value.data)} values"
        )
    starts = value.indptr.astype(np.int64)
    if starts[0] != 0 or starts[-1] != len(value.data) or bool((np.diff(starts) < 0).any()):
        raise FormatError("the row starts of a CSR array do not rise from 0 to the number of its values")
    if len(value.indices) and not 0 <= int(value.indices.min()) <= int(value.indices.max()) < columns:
        raise FormatError(f"a CSR array of {columns} columns stores a value outside of them")
    return value
