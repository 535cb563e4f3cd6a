"""SVRGModule beside what MXNet can judge: several contexts, the mean taken again, wrong frequencies."""

from __future__ import annotations

from typing import Any

import more_programs
import numpy as np
import pytest

import diptych.mxnet as mx
from diptych.mxnet.contrib.svrg_optimization import SVRGModule


def test_two_contexts_share_a_batch() -> None:
    one, two = (more_programs.variance_reduced(mx, n, update_freq=2) for n in (1, 2))
    for name in ("fc_weight", "fc_bias", "mse"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5)


def test_the_mean_is_that_of_the_parameters_as_they_were_kept() -> None:
    """Taken in epochs 0 and 2: the second time it is the mean at the parameters of that moment, and nothing of the first."""
    at_two = more_programs.variance_reduced(mx, epochs=2, update_freq=2)
    got = more_programs.variance_reduced(mx, epochs=3, update_freq=2)
    rng = np.random.RandomState(7)
    x, y = rng.randn(22, 3).astype("float32"), rng.randn(22).astype("float32")
    x, y = np.concatenate([x, x[:2]]), np.concatenate([y, y[:2]])  # the last batch is filled up from the beginning
    error = x @ at_two["fc_weight"][0] + at_two["fc_bias"] - y
    np.testing.assert_allclose(got["full_fc_weight"][0], error @ x / 5.5, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["full_fc_bias"], error.sum() / 5.5, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("freq", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (None, TypeError)])
def test_a_frequency_that_is_none_is_an_error(freq: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="update_freq"):
        SVRGModule(mx.sym.Variable("data"), label_names=None, update_freq=freq)
