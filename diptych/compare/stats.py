"""Medians, spreads and the interval of a ratio between two engines measured in the same rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diptych.errors import InputError

__all__ = ["Ratio", "Spread", "ratio", "spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some figures and the quartiles around it."""

    median: float
    low: float
    high: float

    @property
    def relative(self) -> float:
        """The interquartile range as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times the one figure is the other, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def level(self) -> bool:
        """Whether the interval holds 1: the two cannot be told apart."""
        return self.low <= 1.0 <= self.high


def spread(figures: Sequence[float]) -> Spread:
    """Median and quartiles.

    >>> spread([1.0, 2.0, 3.0]).median
    2.0
    """
    if not len(figures):
        raise InputError("no figures to take the median of")
    low, median, high = np.percentile(np.asarray(figures, np.float64), [25, 50, 75])
    return Spread(float(median), float(low), float(high))


def ratio(figures: Sequence[float], base: Sequence[float], resamples: int = 2000, seed: int = 0) -> Ratio:
    """Median of `figures` over median of `base`, both taken in the same rounds, with a 95 % interval.

    Rounds are resampled in pairs, so drift that hits both engines in a round does not widen the interval.

    >>> ratio([2.0, 2.2, 1.8], [1.0, 1.1, 0.9]).value
    2.0
    """
    a, b = np.asarray(figures, np.float64), np.asarray(base, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise InputError(f"a ratio needs as many rounds of one engine as of the other, got {a.shape} and {b.shape}")
    picks = np.random.default_rng(seed).integers(0, a.size, (resamples, a.size))
    ratios = np.median(a[picks], axis=1) / np.median(b[picks], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Ratio(float(np.median(a) / np.median(b)), float(low), float(high))
