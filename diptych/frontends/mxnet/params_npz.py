"""The npy and npz files that MXNet 2.0 writes (also under names ending in .params), read within stated bounds.

NumPy's own reader trusts the lengths a file claims and unpickles objects when asked to; this one does neither.
"""

from __future__ import annotations

import ast
import math
import re
import struct
import zipfile
import zlib
from typing import IO, Any

import numpy as np

from diptych.errors import FormatError
from diptych.frontends.mxnet.arrays import Array, BFloat16, Csr, ParamValue, RowSparse, check_csr, check_row_sparse

__all__ = ["read_npy", "read_npz"]

NPY_MAGIC = b"\x93NUMPY"

MAX_HEADER = 1 << 14
# Compressed archives may grow by this much; MXNet itself does not compress. Beyond it a few kilobytes could fill the memory.
MAX_GROWTH = 64
FREE_GROWTH = 64 << 20

_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError, LookupError,
)  # fmt: skip

_TYPE = re.compile(r"([<>|=]?)([fiub])([1248])$")
_BFLOAT16 = [("bfloat16", "<u2")]
_SPARSE_PARTS = {
    frozenset({"data", "indices", "format", "shape"}): "row_sparse",
    frozenset({"data", "indices", "indptr", "format", "shape"}): "csr",
}


def _read_exactly(file: IO[bytes], count: int, what: str) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise FormatError(f"{what} ends after {len(data)} of {count} bytes; the file is truncated")
    return data


def _header(file: IO[bytes], size: int, what: str) -> tuple[Any, bool, tuple[int, ...], int]:
    """(type, column-major, shape, bytes before the values) of an npy stream of `size` bytes."""
    start = _read_exactly(file, 8, what)
    if start[:6] != NPY_MAGIC:
        raise FormatError(f"{what} is not a NumPy array: it does not begin with \\x93NUMPY")
    if start[6] not in (1, 2, 3):
        raise FormatError(f"{what} is in version {start[6]} of the npy format; 1 to 3 are known")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(_read_exactly(file, width, what), "little")
    used = 8 + width + length
    if length > MAX_HEADER or used > size:
        raise FormatError(f"{what} claims a header of {length} bytes; {min(MAX_HEADER, size)} are possible")
    text = _read_exactly(file, length, what)
    try:
        fields = ast.literal_eval(text.decode("latin1").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise FormatError(f"{what} has a header that is not the usual dictionary") from None
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise FormatError(f"{what} has a header without exactly descr, fortran_order and shape")
    shape, order = fields["shape"], fields["fortran_order"]
    if not isinstance(shape, tuple) or len(shape) > 32 or any(type(e) is not int or e < 0 for e in shape):
        raise FormatError(f"{what} has the shape {str(shape)[:80]}, which no array can have")
    if not isinstance(order, bool):
        raise FormatError(f"{what} has the order {str(order)[:40]}, which is not a bool")
    return fields["descr"], order, shape, used


def read_npy(file: IO[bytes], size: int, what: str) -> Array | BFloat16:
    """One npy stream of `size` bytes."""
    descr, column_major, shape, used = _header(file, size, what)
    brain = descr == _BFLOAT16
    match = _TYPE.match("<u2" if brain else descr) if brain or isinstance(descr, str) else None
    if match is None or match.group(0)[-2:] in ("f1", "b2", "b4", "b8"):
        raise FormatError(f"{what} holds {str(descr)[:60]}, not numbers (objects in npy files are never loaded)")
    dtype = np.dtype(match.group(0))
    count = math.prod(shape)
    if used + count * dtype.itemsize != size:
        raise FormatError(f"{what} of shape {shape} and type {dtype} does not fill its {size - used} bytes exactly")
    if max(shape, default=0) >= 1 << 62 or math.prod(max(e, 1) for e in shape) >= 1 << 60:
        raise FormatError(f"{what} has the shape {shape}, which no array can have")
    flat = np.empty(count, np.uint8 if dtype == np.bool_ else dtype)
    if count:
        view = flat.view(np.uint8).data
        done = 0
        while done < len(view):  # a compressed stream gives less than asked for
            got = file.readinto(view[done:])  # type: ignore[attr-defined]
            if not got:
                raise FormatError(f"{what} ends before its last value; the file is truncated")
            done += got
    values: Array = (flat != 0) if dtype == np.bool_ else flat.astype(dtype.newbyteorder("="), copy=False)
    values = np.ascontiguousarray(values.reshape(shape[::-1]).T) if column_major else values.reshape(shape)
    return BFloat16(values) if brain else values


def _check_archive(archive: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    entries = [e for e in archive.infolist() if not e.filename.endswith("/")]
    names = {e.filename for e in entries}
    if len(names) != len(entries):
        raise FormatError("the archive holds two members of one name")
    for entry in entries:
        if entry.flag_bits & 0x1:
            raise FormatError(f"{entry.filename!r} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(f"{entry.filename!r} is compressed in a way NumPy does not write")
        if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
            raise FormatError(f"{entry.filename!r} claims two different sizes")
    if sum(e.compress_size for e in entries) > size:
        raise FormatError(
            f"the members of the archive claim more bytes than its {size}; they overlap or the file is truncated"
        )
    whole = sum(e.file_size for e in entries)
    if whole > max(FREE_GROWTH, MAX_GROWTH * size):
        raise FormatError(
            f"the archive grows from {size} to {whole} bytes, more than {MAX_GROWTH} times; if it is trusted, "
            "save it again uncompressed with numpy.savez"
        )
    return entries


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array | BFloat16:
    with archive.open(entry) as file:
        value = read_npy(file, entry.file_size, repr(entry.filename))
        if file.read(1):  # also makes the reader compare the checksum
            raise FormatError(f"{entry.filename!r} is longer than the archive says")
    return value


def _format_word(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    """The word in NAME/format.npy; MXNet 2.0 writes a broken header before it, so only its length is used."""
    with archive.open(entry) as file:
        data = file.read(MAX_HEADER)
    if len(data) < 10 or data[:6] != NPY_MAGIC or data[6] not in (1, 2, 3):
        raise FormatError(f"{entry.filename!r} is not a NumPy array")
    width = 2 if data[6] == 1 else 4
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    return data[start : start + 64].rstrip(b"\0").decode("latin1")


def _sparse(archive: zipfile.ZipFile, parts: dict[str, zipfile.ZipInfo], kind: str, name: str) -> ParamValue:
    word = _format_word(archive, parts["format"])
    if word != kind:
        raise FormatError(f"{name!r} is a sparse array of the format {word!r}; row_sparse and csr are supported")
    read: dict[str, Array] = {}
    for part, entry in parts.items():
        if part != "format":
            value = _member(archive, entry)
            if isinstance(value, BFloat16):
                raise FormatError(f"{entry.filename!r}: a sparse array cannot be bfloat16")
            read[part] = value
    extents = read["shape"]
    if extents.ndim != 1 or extents.dtype.kind not in "iu" or extents.size > 32 or bool((extents < 0).any()):
        raise FormatError(f"{name!r} has a shape that is no list of extents")
    shape = tuple(int(e) for e in extents)
    try:
        if kind == "row_sparse":
            return check_row_sparse(RowSparse(shape, read["indices"], read["data"]))
        if len(shape) != 2:
            raise FormatError(f"a CSR array has rank 2, not the shape {shape}")
        return check_csr(Csr((shape[0], shape[1]), read["indptr"], read["indices"], read["data"]))
    except FormatError as error:
        raise FormatError(f"{name!r}: {error}") from None


def read_npz(file: IO[bytes], size: int) -> dict[str, ParamValue]:
    """The arrays of an npz archive by name; folders of sparse parts become one value."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _check_archive(archive, size)
            folders: dict[str, dict[str, zipfile.ZipInfo]] = {}
            for entry in entries:
                if not entry.filename.endswith(".npy"):
                    continue  # such as the archive comment files some tools add; NumPy keeps them as bytes
                folder, _, part = entry.filename[:-4].rpartition("/")
                folders.setdefault(folder, {})[part] = entry
            out: dict[str, ParamValue] = {}
            for folder, parts in folders.items():
                kind = _SPARSE_PARTS.get(frozenset(parts)) if folder else None
                if kind is not None:
                    out[folder] = _sparse(archive, parts, kind, folder)
                    continue
                for entry in parts.values():
                    out[entry.filename[:-4]] = _member(archive, entry)
            return out
    except FormatError:
        raise
    except _DAMAGED as e:  # what zipfile raises, on purpose or not, for archives that are not whole
        raise FormatError(f"the archive is damaged ({e})") from None
