"""Files mapped for reading, whose pages can be let go: what was read of them counts as memory of the process until then."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MappedFile", "let_go", "mapped_files"]

_DONTNEED = getattr(mmap, "MADV_DONTNEED", None)


class MappedFile(mmap.mmap):
    """A mapping made with `access=mmap.ACCESS_READ` and no other: that its pages can be let go is known by its type."""

    def let_go(self) -> None:
        """Give the pages back to the system, which reads them again (most likely from its cache) when they are touched."""
        if _DONTNEED is not None:  # nothing is lost: no page was written to
            self.madvise(_DONTNEED)


def mapped_files(arrays: Iterable[np.ndarray[Any, Any]]) -> list[MappedFile]:
    """The mapped files that these arrays are views of, each once.

    >>> mapped_files([np.zeros(3)])
    []
    """
    found: dict[int, MappedFile] = {}
    for array in arrays:
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        owner = base.obj if isinstance(base, memoryview) else base
        if isinstance(owner, MappedFile):
            found[id(owner)] = owner
    return list(found.values())


def let_go(files: Iterable[MappedFile]) -> None:
    """Give the pages of all of them back."""
    for file in files:
        file.let_go()
