"""`mx.engine`: bulk execution has no meaning here, calls are carried out as they come."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["bulk", "set_bulk_size"]

_size = [15]


def set_bulk_size(size: int) -> int:
    """Set the number that `bulk` would use; the former one. Nothing depends on it."""
    before, _size[0] = _size[0], int(size)
    return before


@contextlib.contextmanager
def bulk(size: int) -> Iterator[None]:
    """A context in which MXNet would bundle operators; the results are the same."""
    before = set_bulk_size(size)
    try:
        yield
    finally:
        set_bulk_size(before)
