"""Packed constants that several programs of one model read: in memory once, and in the cache once, by their content.

Programs for other lengths of an input pack their weights alike, so all but the first find them here.
"""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.runtime.executable import aligned_bytes
from diptych.runtime.threads import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from diptych.runtime.cache import ObjectCache

__all__ = ["SharedWeights"]

Array = np.ndarray[Any, Any]

_SLAB = 16 << 20  # bytes allocated at a time, so that small constants lie on huge pages too
_SUFFIX = ".weights"


class SharedWeights:
    """Constants by the SHA-256 of their bytes. They stay as long as this object or a program that reads them does.

    >>> shared = SharedWeights()
    >>> name = shared.keep(np.arange(3.0))
    >>> shared.keep(np.arange(3.0)) == name, shared.get(name).nbytes, shared.nbytes
    (True, 24, 24)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, Array] = {}
        self._slab, self._used = aligned_bytes(0), 0

    @property
    def nbytes(self) -> int:
        """Bytes of all constants."""
        with self._lock:
            return sum(a.nbytes for a in self._found.values())

    def get(self, name: str) -> Array:
        """The bytes of a constant, aligned to 64. KeyError when it is not here."""
        return self._found[name]

    def keep(self, array: Array) -> str:
        """Take in a constant, if its like is not here already; returns its name."""
        return self._take(np.ascontiguousarray(array).reshape(-1).view(np.uint8), in_place=False)

    def _take(self, data: Array, in_place: bool) -> str:
        """Keep these bytes, or a copy of them."""
        name = hashlib.sha256(data.data).hexdigest()
        if name not in self._found:
            place = data
            if not in_place:
                place = self._room(data.nbytes)
                place[:] = data
            with self._lock:
                self._found.setdefault(name, place)
        return name

    def pack(self, wanted: Sequence[tuple[int, Callable[[Array], Iterator[None] | None]]], threads: int,
             after: Callable[[], None] = lambda: None) -> list[str]:  # fmt: skip
        """Make constants (bytes, what writes them into so many zeros) and take them in, several at a time; returns their names.

        `after` is called behind each, and wherever one that is large stops on the way.
        """

        def make(entry: tuple[int, Callable[[Array], Iterator[None] | None]]) -> str:
            nbytes, fill = entry
            large = nbytes > _SLAB // 2
            made = aligned_bytes(nbytes) if large else np.zeros(nbytes, np.uint8)
            for _ in fill(made) or ():
                after()
            after()
            return self._take(made, large)

        return spread(make, wanted, threads)

    def write(self, cache: ObjectCache, names: Sequence[str]) -> bool:
        """Put constants into the cache, each into a file of its own; False when one cannot be kept."""
        for name in dict.fromkeys(names):
            path = cache.path(name, _SUFFIX)
            if path is None or not (os.path.exists(path) or cache.publish(path, (self.get(name).data,), self.get(name).nbytes)):
                return False
        return True

    def read(self, cache: ObjectCache, wanted: Sequence[tuple[str, int]], threads: int) -> bool:
        """Have constants (name, bytes) here, from the cache where need be; False when one is missing or damaged."""
        return all(spread(lambda entry: self._read(cache, *entry), [e for e in dict.fromkeys(wanted) if e[0] not in self._found], threads))

    def _read(self, cache: ObjectCache, name: str, nbytes: int) -> bool:
        from diptych.runtime.cache import touch

        path = cache.path(name, _SUFFIX)
        if path is None:
            return False
        try:
            with open(path, "rb", buffering=0) as f:
                if os.fstat(f.fileno()).st_size != nbytes:
                    return False
                place = self._room(nbytes)
                if f.readinto(place.data) != nbytes or hashlib.sha256(place.data).hexdigest() != name:
                    os.unlink(path)
                    return False
        except OSError:
            return False
        touch(path)
        with self._lock:
            self._found.setdefault(name, place)
        return True

    def _room(self, nbytes: int) -> Array:
        with self._lock:
            if nbytes > _SLAB // 2:
                return aligned_bytes(nbytes)
            if self._used + nbytes > self._slab.nbytes:
                self._slab, self._used = aligned_bytes(_SLAB), 0
            at = self._used
            self._used += -(-nbytes // 64) * 64
            return self._slab[at : at + nbytes]
