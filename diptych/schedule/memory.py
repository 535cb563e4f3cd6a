"""Where every temporary lies: lifetimes to arena offsets. One pure function over intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Interval", "place"]

ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """A buffer of `nbytes` that must keep its content from step `first` to step `last`, both included."""

    nbytes: int
    first: int
    last: int


def place(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """Offsets of the buffers and the arena's size: largest first, each at the lowest place that is free.

    Greedy by size (Pisarchyk and Lee, arXiv 2001.03288).

    >>> place([Interval(64, 0, 1), Interval(128, 1, 2), Interval(64, 2, 3)])
    ([128, 0, 128], 192)
    """
    order = sorted(range(len(intervals)), key=lambda i: (-intervals[i].nbytes, intervals[i].first))
    offsets = [0] * len(intervals)
    placed: list[int] = []
    total = 0
    for i in order:
        own = intervals[i]
        size = -(-max(own.nbytes, 1) // ALIGNMENT) * ALIGNMENT
        busy = sorted(
            (offsets[j], offsets[j] + -(-max(intervals[j].nbytes, 1) // ALIGNMENT) * ALIGNMENT)
            for j in placed
            if intervals[j].first <= own.last and own.first <= intervals[j].last
        )
        at = 0
        for low, high in busy:
            if at + size <= low:
                break
            at = max(at, high)
        offsets[i] = at
        placed.append(i)
        total = max(total, at + size)
    return offsets, total
