"""Resampling along contiguous rows: which vectors of outputs are which lanes of which vectors of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diptych.kernels.access import pow2_below

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ColumnRun", "column_runs"]

_RUNS = 16  # pieces of code for one row, at most
_FEWEST = 4  # lanes of a vector that is worth its shuffles


@dataclass(frozen=True, slots=True)
class ColumnRun:
    """`count` vectors of outputs, from `first` on one after the other, that pick their inputs in the same way.

    The inputs of the first lie in vectors at `at` (and `at + gap`, unless gap is 0), those of the next ones `step`
    further on each time. Lane i takes lane `lanes[t][i]` of the two for tap t.
    """

    first: int
    count: int
    at: int
    step: int
    gap: int
    lanes: tuple[tuple[int, ...], ...]


def column_runs(indices: Sequence[Sequence[int]], size: int, lanes: int) -> tuple[ColumnRun, ...]:
    """How to make a row of outputs that read these `indices` (a tuple of taps each) of a row of `size`; empty if it takes
    too much code, or a row is shorter than a vector. The last vector reaches back over outputs that were made already.

    >>> column_runs([(0,), (0,), (1,), (1,), (2,), (2,), (3,), (3,)], 4, 4)
    (ColumnRun(first=0, count=1, at=0, step=0, gap=0, lanes=((0, 0, 1, 1),)), ColumnRun(first=4, count=1, at=0, step=0, gap=0, lanes=((2, 2, 3, 3),)))
    """
    n = len(indices)
    lanes = min(lanes, pow2_below(max(1, min(n, size))))
    while lanes >= _FEWEST:
        found = _runs(indices, size, lanes)
        if found:
            return found
        lanes //= 2
    return ()


def _runs(indices: Sequence[Sequence[int]], size: int, lanes: int) -> tuple[ColumnRun, ...]:
    n = len(indices)
    runs: list[ColumnRun] = []
    for first in [*range(0, n - lanes + 1, lanes), *([n - lanes] if n % lanes else [])]:
        some = indices[first : first + lanes]
        low, high = min(map(min, some)), max(map(max, some))
        if high - low >= 2 * lanes:
            return ()
        at = min(low, size - lanes)
        gap = max(0, high - lanes + 1 - at)
        picks = tuple(
            tuple(taps[t] - at if taps[t] - at < lanes else lanes + taps[t] - at - gap for taps in some)
            for t in range(len(some[0]))
        )
        last = runs[-1] if runs else None
        if last and (last.gap, last.lanes) == (gap, picks) and first == last.first + last.count * lanes:
            step = at - last.at if last.count == 1 else last.step
            if at == last.at + last.count * step:
                runs[-1] = ColumnRun(last.first, last.count + 1, last.at, step, gap, picks)
                continue
        runs.append(ColumnRun(first, 1, at, 0, gap, picks))
        if len(runs) > _RUNS:
            return ()
    return tuple(runs)
