"""The on-disk cache of object code: private to the user, published only when complete, checked when read, bounded."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable

from diptych.errors import DiptychError

__all__ = ["ObjectCache", "default_cache"]

_MAGIC = b"DIPTYCH1"
_SUFFIX = ".obj"
_DIGEST = 32


class ObjectCache:
    """Object code by key, in a folder only this user can write to; safe with many processes at once.

    The folder is `folder`, else $DIPTYCH_CACHE, else $XDG_CACHE_HOME/diptych, else ~/.cache/diptych;
    DIPTYCH_CACHE=off keeps nothing. A damaged entry counts as a miss and is removed. Machine code is run as read,
    so a folder that others can write to is refused.

    >>> import tempfile
    >>> cache = ObjectCache(tempfile.mkdtemp())
    >>> cache.put("key", b"code"), cache.get("key"), cache.get("other")
    (True, b'code', None)
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, limit_bytes: int = 1 << 30) -> None:
        chosen = os.fspath(folder) if folder is not None else os.environ.get("DIPTYCH_CACHE", "")
        self.limit_bytes = limit_bytes
        self._checked = False
        self._folder: str | None
        if chosen.lower() == "off":
            self._folder = None
        elif chosen:
            self._folder = os.path.expanduser(chosen)
        else:
            home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
            self._folder = os.path.join(home, "diptych") if os.path.isabs(home) else None

    @property
    def folder(self) -> str | None:
        """Where entries lie; None when caching is off or the folder cannot be made."""
        if self._folder is None or self._checked:
            return self._folder
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            info = os.stat(self._folder)
        except OSError:  # a read-only home, as in many containers: work without a cache
            self._folder = None
            return None
        if hasattr(os, "geteuid") and (info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o022):
            raise DiptychError(
                f"the cache folder {self._folder} belongs to someone else or others can write to it, and machine code "
                "is run from it: chmod 700 it, or set DIPTYCH_CACHE to another folder or to 'off'"
            )
        self._checked = True
        return self._folder

    def _path(self, key: str) -> str | None:
        folder = self.folder
        return None if folder is None else os.path.join(folder, _digest(key, b"").hex()[:40] + _SUFFIX)

    def get(self, key: str) -> bytes | None:
        """The bytes kept under `key`, or None."""
        path = self._path(key)
        if path is None:
            return None
        try:
            with open(path, "rb") as f:
                content = f.read()
        except OSError:
            return None
        head, body = content[: len(_MAGIC) + _DIGEST], content[len(_MAGIC) + _DIGEST :]
        if head != _MAGIC + _digest(key, body):
            with contextlib.suppress(OSError):
                os.unlink(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the least recently used goes first
        return body

    def put(self, key: str, value: bytes) -> bool:
        """Keep `value` under `key`; False when nothing could be kept (caching off, disk full, read-only)."""
        path = self._path(key)
        size = len(value) + len(_MAGIC) + _DIGEST
        if path is None or size > self.limit_bytes:
            return False
        temporary = f"{path}.{os.getpid()}.{threading.get_ident():x}.{time.monotonic_ns():x}.tmp"
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
                f.write(_MAGIC + _digest(key, value))
                f.write(value)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            return False
        self._trim(keep=path)
        return True

    def get_or_make(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The bytes kept under `key`; made by `make()` and kept when there are none."""
        found = self.get(key)
        if found is None:
            found = make()
            self.put(key, found)
        return found

    def clear(self) -> None:
        """Remove every entry."""
        for path in self._entries():
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _entries(self) -> list[str]:
        folder = self.folder
        if folder is None:
            return []
        try:
            return [os.path.join(folder, n) for n in os.listdir(folder) if n.endswith((_SUFFIX, ".tmp"))]
        except OSError:
            return []

    def _trim(self, keep: str) -> None:
        entries: list[tuple[float, int, str]] = []
        for path in self._entries():
            try:
                info = os.stat(path)
            except OSError:  # another process was faster
                continue
            if path.endswith(".tmp"):
                if time.time() - info.st_mtime > 3600:  # left by a process that died
                    with contextlib.suppress(OSError):
                        os.unlink(path)
            else:
                entries.append((info.st_mtime, info.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit_bytes:
                break
            if path != keep:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                total -= size


def _digest(key: str, value: bytes) -> bytes:
    import hashlib  # some milliseconds that only users of the cache pay

    h = hashlib.sha256(key.encode() + b"\0")
    h.update(value)
    return h.digest()


def default_cache() -> ObjectCache:
    """The cache of the current environment (DIPTYCH_CACHE is read at each call)."""
    return ObjectCache()
