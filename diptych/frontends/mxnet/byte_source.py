"""Bytes of a file, read in order, where no length the file claims is believed before it is checked."""

from __future__ import annotations

import io
import math
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import numpy.typing as npt

from diptych.errors import FormatError
from diptych.frontends.mxnet.arrays import Array

__all__ = ["ByteSource"]

MAX_RANK = 32


class ByteSource:
    """A file or a piece of memory, with the number of bytes that are left in it."""

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        self._file: IO[bytes]
        if isinstance(source, bytes | bytearray | memoryview):
            self.name = "parameter data"
            self._file = io.BytesIO(source)
            self.size = len(source)
        else:
            self.name = Path(source).name
            self._file = Path(source).open("rb")  # noqa: SIM115 - closed by __exit__
            self.size = os.fstat(self._file.fileno()).st_size
        self.position = 0

    def __enter__(self) -> ByteSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def file(self) -> IO[bytes]:
        """The open file, for readers that need to seek (zip archives)."""
        return self._file

    @property
    def left(self) -> int:
        """How many bytes follow."""
        return self.size - self.position

    def need(self, count: int, what: str) -> None:
        """Raise unless `count` more bytes are there."""
        if not 0 <= count <= self.left:
            raise FormatError(f"{what} needs {count} bytes at offset {self.position}, but only {self.left} are left")

    def peek(self, count: int) -> bytes:
        """The first bytes of the file, without moving on."""
        self._file.seek(0)
        head = self._file.read(count)
        self._file.seek(self.position)
        return head

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        self.need(count, what)
        data = self._file.read(count)
        if len(data) != count:
            raise FormatError(f"{what}: the file became shorter while it was read")
        self.position += count
        return data

    def u32(self, what: str) -> int:
        """An unsigned 32-bit number."""
        return int(struct.unpack("<I", self.take(4, what))[0])

    def i32(self, what: str) -> int:
        """A signed 32-bit number."""
        return int(struct.unpack("<i", self.take(4, what))[0])

    def u64(self, what: str) -> int:
        """An unsigned 64-bit number."""
        return int(struct.unpack("<Q", self.take(8, what))[0])

    def extents(self, rank: int, width: int, what: str, *, unknown: bool = False) -> tuple[int, ...]:
        """A shape of `rank` extents of `width` bytes each, none negative; `unknown` lets -1 pass."""
        if not 0 <= rank <= MAX_RANK:
            raise FormatError(f"{what} has rank {rank}; 0 to {MAX_RANK} are possible")
        data = self.take(rank * width, f"the shape of {what}")
        shape = struct.unpack(f"<{rank}{'I' if width == 4 else 'q'}", data)
        if any(extent < (-1 if unknown else 0) for extent in shape):
            raise FormatError(f"{what} has the shape {shape}, with a negative extent")
        return shape

    def array(self, dtype: npt.DTypeLike, shape: tuple[int, ...], what: str) -> Array:
        """The next array, in memory of its own; its size is checked before the memory is taken."""
        kind = np.dtype(dtype)
        self.need(math.prod(shape) * kind.itemsize, f"{what} of shape {shape}")
        if max(shape, default=0) >= 1 << 62 or math.prod(max(e, 1) for e in shape) >= 1 << 60:
            raise FormatError(f"{what} has the shape {shape}, which no array can have")
        out = np.empty(shape, kind)
        if out.size:
            got = self._file.readinto(out.reshape(-1).view(np.uint8).data)  # type: ignore[attr-defined]
            if got != out.nbytes:
                raise FormatError(f"{what}: the file became shorter while it was read")
            self.position += out.nbytes
        return out
