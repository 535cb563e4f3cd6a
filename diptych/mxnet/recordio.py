r"""`mx.recordio`: RecordIO files, in the byte format of MXNet.

>>> import os, tempfile, diptych.mxnet as mx
>>> path = os.path.join(tempfile.mkdtemp(), "a.rec")
>>> writer = mx.recordio.MXRecordIO(path, "w")
>>> writer.write(mx.recordio.pack(mx.recordio.IRHeader(0, 3.0, 7, 0), b"content"))
>>> writer.close()
>>> header, content = mx.recordio.unpack(mx.recordio.MXRecordIO(path, "r").read())
>>> header.label, header.id, content
(3.0, 7, b'content')
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from diptych.errors import DiptychError
from diptych.frontends.mxnet import recordio as files
from diptych.frontends.mxnet.recordio import IRHeader
from diptych.mxnet.base import MXNetError

__all__ = ["IRHeader", "MXIndexedRecordIO", "MXRecordIO", "pack", "pack_img", "unpack", "unpack_img"]


class MXRecordIO:
    """Records one after another; flag "r" to read, "w" to write."""

    def __init__(self, uri: str | os.PathLike[str], flag: str) -> None:
        self.uri = os.fspath(uri)
        self.flag = flag
        self.is_open = False
        self.pid: int | None = None
        self._file: Any = None
        self.open()

    def _opened(self, write: bool) -> Any:
        return files.RecordWriter(self.uri) if write else files.RecordReader(self.uri)

    def open(self) -> None:
        """Open the file (writing begins a new one)."""
        if self.flag not in ("r", "w"):
            raise ValueError(f"Invalid flag {self.flag}; use 'r' or 'w'")
        self.writable = self.flag == "w"
        try:
            self._file = self._opened(self.writable)
        except OSError as error:
            raise MXNetError(f"{self.uri} cannot be opened: {error}") from error
        self.pid = os.getpid()
        self.is_open = True

    def __del__(self) -> None:
        if getattr(self, "is_open", False):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        if self.writable:
            raise RuntimeError("a RecordIO file that is written to cannot be handed to another process")
        return {k: v for k, v in self.__dict__.items() if k != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        was_open = self.is_open
        self.is_open, self._file = False, None
        if was_open:
            self.open()

    def _check_pid(self, allow_reset: bool = False) -> None:
        if self.pid == os.getpid():
            return
        if not allow_reset:
            raise RuntimeError("Forbidden operation in multiple processes: open the file in the process that writes it")
        self.reset()

    def close(self) -> None:
        """Close the file."""
        if self.is_open:
            self._file.close()
            self.is_open = False
            self.pid = None

    def reset(self) -> None:
        """Go back to the first record (a file that is written to begins anew)."""
        self.close()
        self.open()

    def write(self, buf: bytes | str) -> None:
        """Append a record."""
        if not self.writable:
            raise AssertionError(f"{self.uri} is open for reading")
        self._check_pid()
        try:
            self._file.write(buf.encode() if isinstance(buf, str) else bytes(buf))
        except DiptychError as error:
            raise MXNetError(str(error)) from error

    def read(self) -> bytes | None:
        """The next record; None after the last."""
        if self.writable:
            raise AssertionError(f"{self.uri} is open for writing")
        self._check_pid(allow_reset=True)
        try:
            found: bytes | None = self._file.read()
        except DiptychError as error:
            raise MXNetError(str(error)) from error
        return found

    def tell(self) -> int:
        """Where the next record is written."""
        return int(self._file.tell())


class MXIndexedRecordIO(MXRecordIO):
    """Records by key, with an index file beside them."""

    def __init__(self, idx_path: str | os.PathLike[str], uri: str | os.PathLike[str], flag: str, key_type: Any = int) -> None:
        self.idx_path = os.fspath(idx_path)
        self.idx: dict[Any, int] = {}
        self.keys: list[Any] = []
        self.key_type = key_type
        self.fidx: Any = None
        super().__init__(uri, flag)

    def open(self) -> None:
        """Open both files."""
        super().open()
        self.idx, self.keys = {}, []
        if self.writable:
            self.fidx = open(self.idx_path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed by close()
            return
        if os.path.isfile(self.idx_path):
            try:
                self.idx = files.read_index(self.idx_path, self.key_type)
            except DiptychError as error:
                raise MXNetError(str(error)) from error
            self.keys = list(self.idx)

    def close(self) -> None:
        """Close both files."""
        super().close()
        if self.fidx is not None:
            self.fidx.close()
            self.fidx = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "fidx": None}

    def seek(self, idx: Any) -> None:
        """Make the record of this key the next one."""
        if self.writable:
            raise AssertionError(f"{self.uri} is open for writing")
        self._check_pid(allow_reset=True)
        if idx not in self.idx:
            raise KeyError(f"{self.idx_path} has no key {idx!r}")
        self._file.seek(self.idx[idx])

    def read_idx(self, idx: Any) -> bytes | None:
        """The record of a key."""
        self.seek(idx)
        return self.read()

    def write_idx(self, idx: Any, buf: bytes | str) -> None:
        """Append a record under a key."""
        key, at = self.key_type(idx), self.tell()
        self.write(buf)
        self.fidx.write(f"{key}\t{at}\n")
        self.idx[key] = at
        self.keys.append(key)


def pack(header: Any, s: bytes | str) -> bytes:
    """A record payload: header (flag, label, id, id2) and content."""
    try:
        return files.pack(tuple(header), s.encode() if isinstance(s, str) else s)
    except DiptychError as error:
        raise MXNetError(str(error)) from error


def unpack(s: bytes) -> tuple[IRHeader, bytes]:
    """Header and content of a record payload."""
    try:
        return files.unpack(s)
    except DiptychError as error:
        raise MXNetError(str(error)) from error


def pack_img(header: Any, img: Any, quality: int = 95, img_fmt: str = ".jpg") -> bytes:
    """A record payload of an image (height, width, channels in the order B, G, R, as OpenCV has it), encoded."""
    from diptych.mxnet.image.codec import encode

    return pack(header, encode(np.asarray(img), quality, img_fmt))


def unpack_img(s: bytes, iscolor: int = -1) -> tuple[IRHeader, Any]:
    """Header and decoded image (a NumPy array, channels B, G, R); iscolor: 0 grey, 1 colour, -1 as it is."""
    from diptych.mxnet.image.codec import decode

    header, content = unpack(s)
    return header, decode(content, iscolor, to_rgb=False)
