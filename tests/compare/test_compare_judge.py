"""Judging an answer against float64."""

from __future__ import annotations

import numpy as np
import pytest

from diptych.compare.judge import CEILING, FLOOR, judge, limit_from


def test_errors_are_relative_to_the_rms_of_the_reference() -> None:
    want = np.full((2, 8), 100.0)
    got = want.astype(np.float32)
    got[0, 0] += 1
    j = judge([got], [want])
    assert j.max_error == pytest.approx(0.01)
    assert j.rms_error == pytest.approx(0.01 / 4)
    assert j.tolerance == pytest.approx(1 / 101)


def test_smallest_tolerance_is_the_smallest(rng: np.random.Generator) -> None:
    want = rng.standard_normal((3, 50))
    got = want + 1e-3 * rng.standard_normal((3, 50))
    t = judge([got], [want]).tolerance
    assert np.allclose(got, want, rtol=t * (1 + 1e-12), atol=t * (1 + 1e-12))
    assert not np.allclose(got, want, rtol=t * 0.999, atol=t * 0.999)


def test_the_worst_output_counts(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 4, 4))
    assert judge([a, b * 1.5], [a, b]).max_error > 0.1


def test_agreement_and_accuracy_of_a_classifier() -> None:
    want = np.eye(4, 10)
    got = want.copy()
    got[3] = np.eye(1, 10, 7)
    j = judge([got], [want], labels=np.array([0, 1, 5, 7]))
    assert j.top1 == 0.75
    assert j.top5 == 1.0  # entry 3 is among the first five of row 3 since zeros keep their order
    assert j.accuracy == 0.75


def test_no_agreement_for_what_is_no_classifier(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 3, 4))
    assert judge([x], [x]).top1 is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_single_nan_or_infinity_fails(bad: float, rng: np.random.Generator) -> None:
    want = rng.standard_normal((2, 2, 2))
    got = want.copy()
    got[0, 0, 0] = bad
    j = judge([got], [want])
    assert not j.passes(1e9) and "NaN" in j.problem


def test_infinity_where_float64_has_it_too_is_right() -> None:
    x = np.array([[1.0, -np.inf]])
    assert judge([x.astype(np.float32)], [x]).passes(1e-6)


def test_wrong_sign_of_infinity_fails() -> None:
    assert judge([np.array([np.inf])], [np.array([-np.inf])]).problem


@pytest.mark.parametrize(
    ("got", "words"), [([np.zeros((1, 2))], "shape"), ([np.zeros((2, 2)), np.zeros(1)], "2 outputs instead of 1")]
)
def test_wrong_shape_or_number_of_outputs_fails(got: list[np.ndarray], words: str) -> None:
    j = judge(got, [np.zeros((2, 2))])
    assert words in j.problem and not j.passes(1)


def test_limit_is_a_multiple_within_bounds() -> None:
    assert limit_from(1e-9) == FLOOR
    assert limit_from(5e-5) == pytest.approx(5e-4)
    assert limit_from(1.0) == CEILING
