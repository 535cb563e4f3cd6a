"""Options: everything that may change a compiled model's code or numbers. Its text is part of the cache key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """accuracy: "fast" may reassociate sums within stated bounds, "strict" keeps to the plain algorithms.

    in_place: pairs (output, input): the output is not returned but written into the array given for the input, which
    only `slice_update_at` may read. Such inputs come after all others.
    """

    precision: Literal["f32"] = "f32"
    accuracy: Literal["fast", "strict"] = "fast"
    threads: int = 1
    fuse: bool = True
    layout: bool = True
    in_place: tuple[tuple[str, str], ...] = ()
