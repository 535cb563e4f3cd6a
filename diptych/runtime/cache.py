"""The on-disk cache of code and packed models: private to the user, published only when complete, checked, bounded."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from diptych.errors import DiptychError, InputError

__all__ = ["CacheEntry", "ObjectCache", "default_cache", "parse_size"]

_MAGIC = b"DIPTYCH1"
_SUFFIX = ".obj"
_KINDS = {".obj": "object", ".model": "model", ".weights": "weights", ".figures": "figures", ".tuned": "tuning", ".tmp": "unfinished"}
_DIGEST = 32
_LIMIT = 4 << 30  # bytes, unless DIPTYCH_CACHE_LIMIT says otherwise
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class CacheEntry(NamedTuple):
    """One entry: the file's name, what it is ("model", "object", "figures" of the machine, "tuning"), its bytes, when it was last used (epoch seconds)."""

    name: str
    kind: str
    nbytes: int
    used: float


def parse_size(text: str) -> int:
    """Bytes from a number with an optional unit K, M, G or T (powers of 1024).

    >>> parse_size("2G") == 2 << 30
    True
    """
    number, unit = text.strip().upper().removesuffix("B"), ""
    if number[-1:] in ("K", "M", "G", "T"):
        number, unit = number[:-1], number[-1]
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e15:
        raise InputError(f"{text!r} is no size: a number with an optional K, M, G or T was expected, as in 4G")
    return int(value * _UNITS[unit])


class ObjectCache:
    """Object code by key, in a folder only this user can write to; safe with many processes at once.

    The folder is `folder`, else $DIPTYCH_CACHE, else $XDG_CACHE_HOME/diptych, else ~/.cache/diptych;
    DIPTYCH_CACHE=off keeps nothing. Above `limit_bytes`, else $DIPTYCH_CACHE_LIMIT (as in "500M"), else 4 GiB, the least
    recently used entries go. A damaged entry counts as a miss and is removed. Machine code is run as read,
    so a folder that others can write to is refused.

    >>> import tempfile
    >>> cache = ObjectCache(tempfile.mkdtemp())
    >>> cache.put("key", b"code"), cache.get("key"), cache.get("other")
    (True, b'code', None)
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, limit_bytes: int | None = None) -> None:
        chosen = os.fspath(folder) if folder is not None else os.environ.get("DIPTYCH_CACHE", "")
        if limit_bytes is None:
            stated = os.environ.get("DIPTYCH_CACHE_LIMIT", "")
            limit_bytes = parse_size(stated) if stated.strip() else _LIMIT
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
        except OSError as e:  # a read-only home, as in many containers: work without a cache
            _complain(self._folder, f"cannot be made ({e.strerror})")
            self._folder = None
            return None
        if hasattr(os, "geteuid") and (info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o022):
            raise DiptychError(
                f"the cache folder {self._folder} belongs to someone else or others can write to it, and machine code "
                "is run from it: chmod 700 it, or set DIPTYCH_CACHE to another folder or to 'off'"
            )
        self._checked = True
        return self._folder

    def path(self, key: str, suffix: str = _SUFFIX) -> str | None:
        """Where the entry of `key` lies, or would lie; None without a cache folder."""
        folder = self.folder
        return None if folder is None else os.path.join(folder, _digest(key, b"").hex()[:40] + suffix)

    def get(self, key: str, suffix: str = _SUFFIX) -> bytes | None:
        """The bytes kept under `key`, or None."""
        path = self.path(key, suffix)
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
        touch(path)
        return body

    def put(self, key: str, value: bytes, suffix: str = _SUFFIX) -> bool:
        """Keep `value` under `key`; False when nothing could be kept (caching off, disk full, read-only)."""
        path = self.path(key, suffix)
        size = len(value) + len(_MAGIC) + _DIGEST
        return path is not None and self.publish(path, (_MAGIC + _digest(key, value), value), size)

    def publish(self, path: str, parts: Iterable[bytes | memoryview], size: int) -> bool:
        """Write `parts` (`size` bytes in all) to a new file and give it its name when it is complete; see `put`."""
        folder = os.path.dirname(path)
        if size > self.limit_bytes:
            _complain(folder, f"takes {self.limit_bytes / 1e6:.0f} MB at most, and an entry has {size / 1e6:.0f}: see DIPTYCH_CACHE_LIMIT")
            return False
        temporary = f"{path}.{os.getpid()}.{threading.get_ident():x}.{time.monotonic_ns():x}.tmp"
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
                for part in parts:
                    f.write(part)
            os.replace(temporary, path)
        except OSError as e:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            _complain(folder, f"cannot be written to ({e.strerror})")
            return False
        self._grown(size, path)
        return True

    def _grown(self, size: int, path: str) -> None:
        """Trim, but not at every small entry: looking at a large folder takes a while."""
        folder = os.path.dirname(path)
        with _lock:
            left = _allowance.get(folder, 0) - size
            _allowance[folder] = left if left > 0 else self.limit_bytes // 64
        if left <= 0:
            self.trim(keep=path)

    def get_or_make(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The bytes kept under `key`; made by `make()` and kept when there are none."""
        found = self.get(key)
        if found is None:
            found = make()
            self.put(key, found)
        return found

    def clear(self) -> int:
        """Remove every entry; returns how many there were."""
        entries = self._files()
        for path in entries:
            with contextlib.suppress(OSError):
                os.unlink(path)
        return len(entries)

    def entries(self) -> list[CacheEntry]:
        """What is kept, the most recently used first."""
        found = []
        for path in self._files():
            with contextlib.suppress(OSError):
                info = os.stat(path)
                name = os.path.basename(path)
                found.append(CacheEntry(name, _KINDS[os.path.splitext(name)[1]], info.st_size, info.st_mtime))
        return sorted(found, key=lambda e: -e.used)

    def _files(self) -> list[str]:
        folder = self.folder
        if folder is None:
            return []
        try:
            return [os.path.join(folder, n) for n in os.listdir(folder) if n.endswith(tuple(_KINDS))]
        except OSError:
            return []

    def trim(self, limit_bytes: int | None = None, keep: str = "") -> int:
        """Remove the least recently used entries above the limit (`keep` stays); returns how many went."""
        limit = self.limit_bytes if limit_bytes is None else limit_bytes
        entries: list[tuple[float, int, str]] = []
        gone = 0
        for path in self._files():
            try:
                info = os.stat(path)
            except OSError:  # another process was faster
                continue
            if path.endswith(".tmp"):
                if time.time() - info.st_mtime > 3600:  # left by a process that died
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                        gone += 1
            else:
                entries.append((info.st_mtime, info.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= limit:
                break
            if path != keep:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                    gone += 1
                total -= size
        return gone


def _complain(folder: str, what: str) -> None:
    """Say once per process what keeps this folder from being a cache: models run all the same, but start slowly."""
    with _lock:
        if folder in _complained:
            return
        _complained.add(folder)
    import logging  # which takes longer to import than some starts

    logging.getLogger("diptych").warning(
        "the cache folder %s %s: what is not in it is compiled again at each start; make room (`diptych cache`), or set "
        "DIPTYCH_CACHE to another folder, or to 'off' to do without", folder, what,
    )  # fmt: skip


def touch(path: str) -> None:
    """Note that an entry was used: the least recently used goes first."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _digest(key: str, value: bytes) -> bytes:
    import hashlib  # some milliseconds that only users of the cache pay

    h = hashlib.sha256(key.encode() + b"\0")
    h.update(value)
    return h.digest()


_lock = threading.Lock()
_complained: set[str] = set()
_allowance: dict[str, int] = {}  # by folder: bytes that may still be written before the next look at its size


def default_cache() -> ObjectCache:
    """The cache of the current environment (DIPTYCH_CACHE is read at each call)."""
    return ObjectCache()
