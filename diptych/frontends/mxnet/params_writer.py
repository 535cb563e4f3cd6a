"""Write MXNet parameter files, byte for byte as MXNet 1.9.1 does."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import FormatError, InputError
from diptych.frontends.mxnet.arrays import Array, BFloat16, Csr, ParamValue, RowSparse, check_csr, check_row_sparse

__all__ = ["LIST_MAGIC", "V1", "V2", "V3", "dtype_of_code", "save_params", "save_record"]

LIST_MAGIC = 0x112
V1 = 0xF993FAC8
V2 = 0xF993FAC9
V3 = 0xF993FACA

_CODES: tuple[np.dtype[Any] | None, ...] = (
    *(np.dtype(name) for name in ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool")),
    *(np.dtype(name) for name in ("int16", "uint16", "uint32", "uint64")),
    None,  # bfloat16, which NumPy lacks
)
_BFLOAT16 = 12
_CPU = struct.pack("<ii", 1, 0)


def dtype_of_code(code: int, what: str) -> np.dtype[Any] | None:
    """The NumPy type of an MXNet type code; None stands for bfloat16."""
    if not 0 <= code < len(_CODES):
        raise FormatError(f"{what} has the type code {code}; 0 (float32) to {_BFLOAT16} (bfloat16) are known")
    return _CODES[code]


def _code(array: Array, name: str) -> int:
    native = array.dtype.newbyteorder("=")
    for code, dtype in enumerate(_CODES):
        if dtype is not None and native == dtype:
            return code
    raise InputError(
        f"{name}: MXNet has no type for {array.dtype}; convert the array, for example with astype('float32')"
    )


def _shape(shape: Sequence[int]) -> bytes:
    return struct.pack(f"<i{len(shape)}q", len(shape), *shape)


def _data(array: Array) -> memoryview:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def _record(value: ParamValue, name: str, version: int) -> Iterator[bytes | memoryview]:
    """The bytes of one array, in pieces, so that no second copy of a large array is made."""
    if value is None:
        # MXNet 1.9.1 reads such a record but cannot write one; rank 0 (version 2) and -1 (version 3) mean "no value".
        yield struct.pack("<Iii", version, 0, 0 if version == V2 else -1)
    elif isinstance(value, RowSparse):
        check_row_sparse(value)
        yield struct.pack("<Ii", version, 1) + _shape(value.data.shape) + _shape(value.shape) + _CPU
        yield struct.pack("<ii", _code(value.data, name), _code(value.indices, name)) + _shape(value.indices.shape)
        yield _data(value.data)
        yield _data(value.indices)
    elif isinstance(value, Csr):
        check_csr(value)
        yield struct.pack("<Ii", version, 2) + _shape(value.data.shape) + _shape(value.shape) + _CPU
        yield struct.pack("<ii", _code(value.data, name), _code(value.indptr, name)) + _shape(value.indptr.shape)
        yield struct.pack("<i", _code(value.indices, name)) + _shape(value.indices.shape)
        yield _data(value.data)
        yield _data(value.indptr)
        yield _data(value.indices)
    else:
        array = value.bits if isinstance(value, BFloat16) else np.asarray(value)
        code = _BFLOAT16 if isinstance(value, BFloat16) else _code(array, name)
        yield struct.pack("<Ii", version, 0) + _shape(array.shape) + _CPU + struct.pack("<i", code)
        yield _data(array)


def _version(values: Sequence[ParamValue], np_shape: bool | None) -> int:
    """Version 3 where rank 0 or an extent of 0 must be told from "no value"; a file never mixes the two."""
    dense = [v for v in values if v is not None and not isinstance(v, RowSparse | Csr)]
    needed = any(not np.shape(v.bits if isinstance(v, BFloat16) else v) for v in dense)
    needed = needed or any(0 in np.shape(v.bits if isinstance(v, BFloat16) else v) for v in dense)
    if np_shape is False and needed:
        raise InputError("an array of rank 0 or with an extent of 0 can only be saved with np_shape=True (version 3)")
    if (np_shape or needed) and any(isinstance(v, RowSparse | Csr) for v in values):
        raise InputError(
            "MXNet cannot store sparse arrays beside arrays of rank 0 or size 0 in one file; save two files"
        )
    return V3 if np_shape or needed else V2


def save_record(value: ParamValue, *, np_shape: bool | None = None) -> bytes:
    """The bytes of one array without the header of a list, as they stand in a pickled NDArray.

    >>> save_record(np.zeros(1, np.float32))[:4].hex()
    'c9fa93f9'
    """
    return b"".join(_record(value, "the array", _version([value], np_shape)))


def save_params(
    path: str | os.PathLike[str],
    params: Mapping[str, ParamValue] | Sequence[ParamValue],
    *,
    np_shape: bool | None = None,
) -> None:
    """Write arrays as `mx.nd.save` does: a mapping keeps its names, a sequence has none.

    `np_shape` chooses the record version: False for that of MXNet 1.x scripts (2), True for that of scripts under
    `npx.set_np()` (3), None for 2 unless an array of rank 0 or size 0 needs 3. The file appears at `path` only when it
    is complete.
    """
    if isinstance(params, Mapping):
        names, values = list(params), list(params.values())
    else:
        names, values = [], list(params)
    version = _version(values, np_shape)
    encoded = []
    for name in names:
        try:
            encoded.append(name.encode())
        except UnicodeEncodeError:
            raise InputError(f"the name {name!r} cannot be written as UTF-8") from None
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(struct.pack("<QQQ", LIST_MAGIC, 0, len(values)))
            for i, value in enumerate(values):
                for piece in _record(value, names[i] if names else f"array {i}", version):
                    file.write(piece)
            file.write(struct.pack("<Q", len(encoded)))
            for text in encoded:
                file.write(struct.pack("<Q", len(text)) + text)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
