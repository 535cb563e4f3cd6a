"""The header of an image record: label and number ahead of the encoded image; and the text lists of `im2rec`."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from diptych.errors import FormatError, InputError

__all__ = ["IRHeader", "ListEntry", "pack", "read_list", "unpack", "write_list"]

_HEADER = struct.Struct("<IfQQ")
MAX_LINE = 1 << 20


class IRHeader(NamedTuple):
    """Flag, label, id and id2 of an image record; the label is one number or several (`unpack` gives float32).

    `flag` is the number of labels when there is a list of them and 0 otherwise; `pack` sets it.
    """

    flag: int
    label: float | Sequence[float] | npt.NDArray[np.floating]
    id: int
    id2: int


def pack(header: IRHeader | tuple[int, object, int, int], data: bytes) -> bytes:
    """A record payload: the header, then `data` (an encoded image or anything else).

    >>> unpack(pack(IRHeader(0, [1.0, 2.0], 7, 0), b"image"))[1]
    b'image'
    """
    _, label, number, upper = header
    if isinstance(label, int | float | np.number):
        try:
            return _HEADER.pack(0, float(label), number, upper) + data
        except (struct.error, OverflowError) as error:
            raise InputError(f"the record header {tuple(header)} does not fit its fields: {error}") from None
    labels = np.asarray(label, "<f4").reshape(-1)
    try:
        return _HEADER.pack(labels.size, 0.0, number, upper) + labels.tobytes() + data
    except (struct.error, OverflowError) as error:
        raise InputError(f"the record ids {number} and {upper} must fit 64 bits without a sign: {error}") from None


def unpack(record: bytes) -> tuple[IRHeader, bytes]:
    """The header and the data of a record payload.

    >>> header, data = unpack(pack(IRHeader(0, 3.0, 7, 0), b"image"))
    >>> header.label, header.id, data
    (3.0, 7, b'image')
    """
    if len(record) < _HEADER.size:
        raise FormatError(
            f"an image record has a header of {_HEADER.size} bytes, but this record has {len(record)} bytes"
        )
    flag, label, number, upper = _HEADER.unpack_from(record)
    rest = record[_HEADER.size :]
    if flag == 0:
        return IRHeader(0, label, number, upper), rest
    if flag * 4 > len(rest):
        raise FormatError(f"an image record claims {flag} labels, but only {len(rest)} bytes follow its header")
    labels = np.frombuffer(rest, "<f4", count=flag).astype(np.float32)
    return IRHeader(flag, labels, number, upper), rest[flag * 4 :]


class ListEntry(NamedTuple):
    """One line of a ``.lst`` file: a number, the labels and the path of an image."""

    number: int
    labels: tuple[float, ...]
    path: str


def read_list(path: str | os.PathLike[str]) -> list[ListEntry]:
    """The entries of a ``.lst`` file, as `im2rec` writes and reads it: tabs between number, labels and path."""
    out: list[ListEntry] = []
    name = Path(path).name
    try:
        with Path(path).open(encoding="utf-8", newline="\n") as file:
            for row, line in enumerate(iter(lambda: file.readline(MAX_LINE), ""), 1):
                fields = line.strip("\r\n").split("\t")
                if fields == [""]:
                    continue
                if len(fields) < 3:
                    raise FormatError(
                        f"{name}: line {row} has {len(fields)} fields; a number, labels and a path are needed"
                    )
                try:
                    entry = ListEntry(int(float(fields[0])), tuple(float(f) for f in fields[1:-1]), fields[-1])
                except (ValueError, OverflowError):
                    raise FormatError(f"{name}: line {row} has a number or label that is not a number") from None
                out.append(entry)
    except UnicodeDecodeError:
        raise FormatError(f"{name}: not UTF-8 text") from None
    return out


def write_list(path: str | os.PathLike[str], entries: Iterable[ListEntry | tuple[int, Sequence[float], str]]) -> None:
    """Write a ``.lst`` file in the layout of `im2rec`."""
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for number, labels, image in entries:
            if any(c in image for c in "\t\r\n"):
                raise InputError(f"the path {image!r} holds a tab or a line break, which a .lst file cannot")
            file.write(f"{number}\t" + "".join(f"{label:f}\t" for label in labels) + f"{image}\n")
