"""Medians, spreads, and the interval of a ratio."""

from __future__ import annotations

import numpy as np
import pytest

from diptych.compare.stats import ratio, spread
from diptych.errors import InputError


def test_spread_is_the_median_and_the_quartiles() -> None:
    s = spread([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (s.low, s.median, s.high) == (2.0, 3.0, 4.0)
    assert s.relative == pytest.approx(2 / 3)


def test_no_figures_is_an_error() -> None:
    with pytest.raises(InputError, match="no figures"):
        spread([])


def test_ratio_of_paired_rounds_ignores_common_drift(rng: np.random.Generator) -> None:
    drift = 1 + rng.random(9)  # the machine slows down and speeds up; both engines feel it
    r = ratio(3 * drift, drift)
    assert r.value == pytest.approx(3)
    assert r.low == pytest.approx(3) and r.high == pytest.approx(3)
    assert not r.level


def test_interval_holds_the_ratio_and_widens_with_noise(rng: np.random.Generator) -> None:
    base = 1 + 0.01 * rng.standard_normal(21)
    calm = ratio(1.5 + 0.01 * rng.standard_normal(21), base)
    wild = ratio(1.5 + 0.30 * rng.standard_normal(21), base)
    assert calm.low <= calm.value <= calm.high
    assert wild.high - wild.low > 3 * (calm.high - calm.low)


def test_engines_that_cannot_be_told_apart_are_level(rng: np.random.Generator) -> None:
    a, b = (1 + 0.2 * rng.standard_normal(15) for _ in range(2))
    assert ratio(a, b).level


def test_unpaired_rounds_are_refused() -> None:
    with pytest.raises(InputError, match="as many rounds"):
        ratio([1.0, 2.0], [1.0])
