"""Read and write MXNet parameter files (``.params``, ``mx.nd.save``) of every version, and the npz files of 2.0.

>>> import tempfile, os, numpy as np
>>> path = os.path.join(tempfile.mkdtemp(), "model-0000.params")
>>> save_params(path, {"arg:weight": np.ones((2, 3), np.float32), "aux:mean": np.zeros(3, np.float32)})
>>> arguments, states = split_arg_aux(load_params(path))
>>> arguments["weight"].shape, list(states)
((2, 3), ['mean'])
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from diptych.errors import FormatError
from diptych.frontends.mxnet.arrays import (
    Array,
    BFloat16,
    Csr,
    ParamValue,
    RowSparse,
    check_csr,
    check_row_sparse,
)
from diptych.frontends.mxnet.byte_source import ByteSource
from diptych.frontends.mxnet.params_writer import LIST_MAGIC, V1, V2, V3, dtype_of_code, save_params, save_record

__all__ = [
    "BFloat16",
    "Csr",
    "ParamValue",
    "Params",
    "RowSparse",
    "load_params",
    "load_record",
    "save_params",
    "save_record",
    "split_arg_aux",
]

_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")

Params: TypeAlias = "dict[str, ParamValue] | list[ParamValue]"


def load_params(source: str | os.PathLike[str] | bytes) -> Params:
    """The arrays in a parameter file: a dict when they have names, else a list.

    `source` is a path or the bytes themselves. Dense arrays come as NumPy arrays, the rest as `RowSparse`, `Csr`,
    `BFloat16` or None (an array that was saved without a value). Whatever is wrong with the file is one FormatError,
    raised before memory for it is taken.
    """
    with ByteSource(source) as data:
        try:
            head = data.peek(6)
            if head[:4] in _ZIP_MAGICS or head == _NPY_MAGIC:
                from diptych.frontends.mxnet.params_npz import read_npy, read_npz  # rare, and zipfile is slow to import

                if head == _NPY_MAGIC:
                    return [read_npy(data.file, data.size, "the array")]
                return read_npz(data.file, data.size)
            return _read_list(data)
        except FormatError as error:
            raise FormatError(f"{data.name}: {error}") from None


def load_record(data: bytes) -> ParamValue:
    """One array without the header of a list, as it stands in a pickled NDArray.

    >>> load_record(save_record(np.arange(3, dtype=np.int32)))
    array([0, 1, 2], dtype=int32)
    """
    with ByteSource(data) as source:
        value = _read_record(source, "the array")
        if source.left:
            raise FormatError(f"{source.left} bytes follow the array")
        return value


def split_arg_aux(params: Params) -> tuple[dict[str, ParamValue], dict[str, ParamValue]]:
    """Arguments and auxiliary states of a checkpoint, without the prefixes ``arg:`` and ``aux:``.

    Names without a prefix (files of gluon's `save_parameters`) count as arguments.

    >>> split_arg_aux({"arg:w": None, "aux:m": None, "b": None})
    ({'w': None, 'b': None}, {'m': None})
    """
    if isinstance(params, list):
        raise FormatError(
            "these parameters have no names, so they cannot be told apart; a checkpoint has names like 'arg:w'"
        )
    arguments: dict[str, ParamValue] = {}
    states: dict[str, ParamValue] = {}
    for full, value in params.items():
        kind, colon, name = full.partition(":")
        group = states if colon and kind == "aux" else arguments
        short = name if colon and kind in ("arg", "aux") else full
        if short in group:
            raise FormatError(f"the parameter {short!r} comes twice, with and without a prefix")
        group[short] = value
    return arguments, states


def _read_list(data: ByteSource) -> Params:
    if data.left < 8 or data.u64("the header") != LIST_MAGIC:
        raise FormatError("this is not an MXNet parameter file: it does not begin with 0x112")
    data.u64("the header")  # reserved
    count = data.u64("the number of arrays")
    data.need(count * 4, f"a list of {count} arrays")
    values = [_read_record(data, f"array {i}") for i in range(count)]
    named = data.u64("the number of names")
    if named not in (0, count):
        raise FormatError(f"there are {count} arrays but {named} names")
    out: dict[str, ParamValue] = {}
    for i in range(named):
        length = data.u64(f"the name of array {i}")
        try:
            name = data.take(length, f"the name of array {i}").decode()
        except UnicodeDecodeError:
            raise FormatError(f"the name of array {i} is not UTF-8 text") from None
        if name in out:
            raise FormatError(f"the name {name!r} comes twice")
        out[name] = values[i]
    if data.left:
        raise FormatError(f"{data.left} bytes follow the last name; the file is corrupt")
    return out if named else values


def _read_record(data: ByteSource, what: str) -> ParamValue:
    magic = data.u32(what)
    if magic in (V2, V3):
        return _read_current(data, what, scalars=magic == V3)
    if magic == V1:
        shape = data.extents(data.u32(what), 8, what)
    else:  # the first format had no mark: it began with the rank
        shape = data.extents(magic, 4, what)
    return _read_dense(data, shape, what) if shape else None


def _rank(data: ByteSource, what: str) -> int | None:
    """The rank of a shape; None (-1 in the file) where MXNet does not know it."""
    rank = data.i32(what)
    return None if rank == -1 else rank


def _context(data: ByteSource, what: str) -> None:
    data.take(8, f"the device of {what}")  # where the array lay when it was saved; it does not matter


def _read_dense(data: ByteSource, shape: tuple[int, ...], what: str) -> ParamValue:
    _context(data, what)
    return _values(data, data.i32(what), shape, what)


def _values(data: ByteSource, code: int, shape: tuple[int, ...], what: str) -> Array | BFloat16:
    dtype = dtype_of_code(code, what)
    if dtype is None:
        return BFloat16(_little(data, np.dtype(np.uint16), shape, what))
    if dtype == np.bool_:
        return data.array(np.uint8, shape, what).astype(np.bool_)  # a damaged byte such as 2 still counts as true
    return _little(data, dtype, shape, what)


def _little(data: ByteSource, dtype: np.dtype[Any], shape: tuple[int, ...], what: str) -> Array:
    """Little-endian values, in the machine's own order."""
    values = data.array(dtype, shape, what)
    return values if sys.byteorder == "little" else values.byteswap()


def _read_current(data: ByteSource, what: str, *, scalars: bool) -> ParamValue:
    """A record of version 2 or 3; `scalars` says that rank 0 is a number and not an empty array."""
    storage = data.i32(what)
    readers: dict[int, Callable[[ByteSource, str], ParamValue] | None] = {0: None, 1: _read_row_sparse, 2: _read_csr}
    if storage not in readers:
        raise FormatError(f"{what} has the storage type {storage}; 0 (dense), 1 (row sparse) and 2 (CSR) are known")
    if (reader := readers[storage]) is not None:
        if scalars:
            raise FormatError(f"{what} is sparse, which a record of version 3 cannot be")
        return reader(data, what)
    rank = _rank(data, what)
    if rank is None or (rank == 0 and not scalars):
        return None
    shape = data.extents(rank, 8, what, unknown=scalars)
    if -1 in shape:
        return None  # MXNet does not know all extents, and stops here: the array has no value
    return _read_dense(data, shape, what)


def _sparse_head(data: ByteSource, what: str, parts: int) -> tuple[tuple[int, ...], ...] | None:
    """The shapes and types ahead of the values: stored shape, shape, (type,), then (type, shape) of each index array."""
    stored = data.extents(data.i32(what), 8, what)
    rank = data.i32(what)
    if rank in (0, -1):
        return None
    shape = data.extents(rank, 8, what)
    _context(data, what)
    out = [stored, shape, (data.i32(what),)]
    for _ in range(parts):
        out.append((data.i32(what),))
        out.append(data.extents(data.i32(what), 8, what))
    return tuple(out)


def _plain(value: Array | BFloat16, what: str) -> Array:
    if isinstance(value, BFloat16):
        raise FormatError(f"{what} is a sparse array of bfloat16, which MXNet does not have")
    return value


def _read_row_sparse(data: ByteSource, what: str) -> ParamValue:
    head = _sparse_head(data, what, 1)
    if head is None:
        return None
    stored, shape, (code,), (index_code,), index_shape = head
    if 0 in stored and index_shape:
        stored = (index_shape[0], *shape[1:])  # see _read_csr
    values = _plain(_values(data, code, stored, what), what)
    indices = _plain(_values(data, index_code, index_shape, f"the rows of {what}"), what)
    try:
        return check_row_sparse(RowSparse(shape, indices, values))
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from None


def _read_csr(data: ByteSource, what: str) -> ParamValue:
    head = _sparse_head(data, what, 2)
    if head is None:
        return None
    stored, shape, (code,), (start_code,), start_shape, (index_code,), index_shape = head
    if 0 in stored:
        # MXNet writes the stored shape before it waits for a pending computation, so it may say "nothing yet" although
        # the values follow; its reader takes their number from the indices, and so must we.
        stored = index_shape
    values = _plain(_values(data, code, stored, what), what)
    starts = _plain(_values(data, start_code, start_shape, f"the row starts of {what}"), what)
    indices = _plain(_values(data, index_code, index_shape, f"the columns of {what}"), what)
    if len(shape) != 2:
        raise FormatError(f"{what} is a CSR array of shape {shape}; it must have rank 2")
    try:
        return check_csr(Csr((shape[0], shape[1]), starts, indices, values))
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from None
