r"""Read and write RecordIO files (``.rec``), with or without an index (``.idx``).

>>> import os, tempfile
>>> folder = tempfile.mkdtemp()
>>> rec, idx = os.path.join(folder, "a.rec"), os.path.join(folder, "a.idx")
>>> with IndexedRecordWriter(idx, rec) as writer:
...     _ = writer.write_idx(3, b"three"), writer.write_idx(4, b"four")
>>> with IndexedRecordReader(idx, rec) as reader:
...     reader.read_idx(4), list(reader)
(b'four', [b'three', b'four'])
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from diptych.errors import FormatError, InputError
from diptych.frontends.mxnet.record_header import IRHeader, ListEntry, pack, read_list, unpack, write_list

__all__ = [
    "IRHeader",
    "IndexedRecordReader",
    "IndexedRecordWriter",
    "ListEntry",
    "RecordReader",
    "RecordWriter",
    "pack",
    "read_index",
    "read_list",
    "unpack",
    "write_list",
]

_MAGIC = struct.pack("<I", 0xCED7230A)
_HEADER = struct.Struct("<4sI")
_MAX_LENGTH = 1 << 29  # three bits of the length field say which part of a record follows
_WHOLE, _BEGIN, _MIDDLE, _END = range(4)
_MAX_LINE = 1 << 16


class RecordWriter:
    """Append records to a new file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: IO[bytes] = self.path.open("wb")
        self._position = 0

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def tell(self) -> int:
        """Where the next record will begin."""
        return self._position

    def write(self, data: bytes) -> int:
        """Append one record; its offset comes back.

        A reader finds records by their magic number, so a payload is cut wherever that number stands at a multiple of
        four bytes: the number itself is left out, and the reader puts it back between the parts.
        """
        if len(data) >= _MAX_LENGTH:
            raise InputError(f"a record of {len(data)} bytes is too long; RecordIO takes less than {_MAX_LENGTH}")
        start = self._position
        begin = 0
        at = data.find(_MAGIC)
        while at >= 0:
            if at % 4:
                at = data.find(_MAGIC, at + 1)
                continue
            self._part(_MIDDLE if begin else _BEGIN, data[begin:at])
            begin = at + 4
            at = data.find(_MAGIC, begin)
        self._part(_END if begin else _WHOLE, data[begin:])
        return start

    def _part(self, kind: int, data: bytes) -> None:
        padding = b"\0" * (-len(data) % 4)
        self._file.write(_HEADER.pack(_MAGIC, kind << 29 | len(data)))
        self._file.write(data)
        self._file.write(padding)
        self._position += _HEADER.size + len(data) + len(padding)


class RecordReader:
    """The records of a file, one after another or at a known offset.

    A reader can be handed to worker processes and used from several threads: each read states its own offset.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._position = 0
        self._open()

    def _open(self) -> None:
        self._file: IO[bytes] = self.path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size
        self._process = os.getpid()

    def __enter__(self) -> RecordReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_file", "_size", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._open()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def reset(self) -> None:
        """Go back to the first record."""
        self._position = 0

    def seek(self, offset: int) -> None:
        """Make the record that begins at `offset` the next one."""
        self._position = offset

    def tell(self) -> int:
        """Where the next record begins."""
        return self._position

    def read(self) -> bytes | None:
        """The next record; None at the end of the file."""
        if self._position == self._size:
            return None
        data, self._position = self._read_at(self._position)
        return data

    def __iter__(self) -> Iterator[bytes]:
        """All records from the first on, independent of `read`."""
        at = 0
        while at < self._size:
            data, at = self._read_at(at)
            yield data

    def read_at(self, offset: int) -> bytes:
        """The record that begins at `offset`."""
        return self._read_at(offset)[0]

    def offsets(self) -> list[int]:
        """Where every record of the file begins; their contents are passed over, not read."""
        found: list[int] = []
        at = 0
        with self._lock:
            if self._process != os.getpid():
                self._open()
            while at < self._size:
                self._file.seek(at)
                head = self._file.read(_HEADER.size)
                magic, word = _HEADER.unpack(head) if len(head) == _HEADER.size else (b"", 0)
                kind, length = word >> 29, word & (_MAX_LENGTH - 1)
                after = at + _HEADER.size + length + -length % 4
                if magic != _MAGIC or kind > _END or after > self._size:
                    raise self._broken(at, "its header is damaged, or the file ends within it")
                if kind in (_WHOLE, _BEGIN):
                    found.append(at)
                at = after
        return found

    def _read_at(self, offset: int) -> tuple[bytes, int]:
        """The record at `offset` and the offset of the one after it."""
        with self._lock:
            if self._process != os.getpid():
                self._open()  # a forked process shares the file position with its parent, so it needs a file of its own
            parts: list[bytes] = []
            at = offset
            while True:
                kind, data, at = self._part_at(at, offset)
                if parts:
                    if kind not in (_MIDDLE, _END):
                        raise self._broken(offset, "one of its parts begins another record")
                    parts.append(_MAGIC)
                elif kind not in (_WHOLE, _BEGIN):
                    raise self._broken(offset, "it begins in the middle of a record")
                parts.append(data)
                if kind in (_WHOLE, _END):
                    return b"".join(parts), at

    def _part_at(self, at: int, record: int) -> tuple[int, bytes, int]:
        left = self._size - at
        if at < 0 or left < _HEADER.size:
            raise self._broken(record, f"it needs a header at offset {at}, but the file has {self._size} bytes")
        self._file.seek(at)
        magic, word = _HEADER.unpack(self._file.read(_HEADER.size))
        if magic != _MAGIC:
            raise self._broken(record, f"the magic number is missing at offset {at}")
        kind, length = word >> 29, word & (_MAX_LENGTH - 1)
        padded = length + -length % 4
        if kind > _END:
            raise self._broken(record, f"a part is of the unknown kind {kind}")
        if padded > left - _HEADER.size:
            raise self._broken(record, f"it claims {length} bytes at offset {at}, but {left - _HEADER.size} are left")
        data = self._file.read(length)
        if len(data) != length:
            raise self._broken(record, "the file became shorter while it was read")
        return kind, data, at + _HEADER.size + padded

    def _broken(self, offset: int, why: str) -> FormatError:
        return FormatError(f"{self.path.name}: the record at offset {offset} is not readable: {why}")


def read_index(path: str | os.PathLike[str], key_type: Callable[[str], Any] = int) -> dict[Any, int]:
    """The offsets in an ``.idx`` file by key, in the order of the file."""
    name = Path(path).name
    out: dict[Any, int] = {}
    try:
        with Path(path).open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), ""), 1):
                fields = line.strip().split("\t")
                if fields == [""]:
                    continue
                try:
                    key, offset = key_type(fields[0]), int(fields[1])
                except (ValueError, IndexError):
                    raise FormatError(f"{name}: line {number} is not a key, a tab and an offset") from None
                if key in out:
                    raise FormatError(f"{name}: the key {key!r} comes twice (line {number})")
                if offset < 0:
                    raise FormatError(f"{name}: line {number} has the negative offset {offset}")
                out[key] = offset
    except UnicodeDecodeError:
        raise FormatError(f"{name}: not UTF-8 text; is it the .rec file?") from None
    return out


class IndexedRecordWriter(RecordWriter):
    """Append records under keys; the index file beside the records says where each begins."""

    def __init__(self, idx_path: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._index = Path(idx_path).open("w", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed by close()
        self._keys: set[object] = set()

    def __enter__(self) -> IndexedRecordWriter:
        return self

    def close(self) -> None:
        """Finish both files."""
        super().close()
        self._index.close()

    def write_idx(self, key: object, data: bytes) -> int:
        """Append one record under a key; its offset comes back."""
        text = str(key)
        if not text.strip() or any(c in text for c in "\t\r\n"):
            raise InputError(f"the key {key!r} is empty or holds a tab or line break, which an index cannot")
        if key in self._keys:
            raise InputError(f"the key {key!r} is already in the index")
        self._keys.add(key)
        offset = self.write(data)
        self._index.write(f"{text}\t{offset}\n")
        return offset


class IndexedRecordReader(RecordReader):
    """Records by key."""

    def __init__(
        self,
        idx_path: str | os.PathLike[str],
        path: str | os.PathLike[str],
        key_type: Callable[[str], Any] = int,
    ) -> None:
        self.index = read_index(idx_path, key_type)
        super().__init__(path)

    def __enter__(self) -> IndexedRecordReader:
        return self

    def __len__(self) -> int:
        return len(self.index)

    @property
    def keys(self) -> list[Any]:
        """The keys in the order of the index."""
        return list(self.index)

    def read_idx(self, key: object) -> bytes:
        """The record under a key."""
        if key not in self.index:
            raise InputError(f"the index has no key {key!r}; it has {len(self.index)} keys")
        return self._read_at(self.index[key])[0]
