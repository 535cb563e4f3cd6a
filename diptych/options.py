"""Options: everything that may change a compiled model's code or numbers. Its text is part of the cache key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """accuracy: "fast" may reassociate sums within stated bounds, "strict" keeps to the plain algorithms."""

    precision: Literal["f32"] = "f32"
    accuracy: Literal["fast", "strict"] = "fast"
    threads: int = 1
    fuse: bool = True
    layout: bool = True
