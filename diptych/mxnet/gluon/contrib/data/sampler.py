"""Samplers under gluon.contrib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.mxnet.gluon.data.sampler import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["IntervalSampler"]


class IntervalSampler(Sampler):
    """Every `interval`-th index, from each start in turn (rollover).

    >>> list(IntervalSampler(5, 2))
    [0, 2, 4, 1, 3]
    """

    def __init__(self, length: int, interval: int, rollover: bool = True) -> None:
        if interval > length:
            raise AssertionError(f"Interval {interval} must be <= length {length}")
        self._length, self._interval, self._rollover = length, interval, rollover

    def __iter__(self) -> Iterator[int]:
        for i in range(self._interval if self._rollover else 1):
            yield from range(i, self._length, self._interval)

    def __len__(self) -> int:
        return self._length if self._rollover else len(range(0, self._length, self._interval))
