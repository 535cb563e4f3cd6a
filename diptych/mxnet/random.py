"""`mx.random`: the seed, and the functions of `mx.nd.random`."""

from __future__ import annotations

from typing import Any

from diptych.mxnet import random_state
from diptych.mxnet.base import MXNetError
from diptych.mxnet.ndarray.random import (
    exponential,
    gamma,
    generalized_negative_binomial,
    multinomial,
    negative_binomial,
    normal,
    poisson,
    randint,
    randn,
    shuffle,
    uniform,
)

__all__ = [
    "exponential", "gamma", "generalized_negative_binomial", "multinomial", "negative_binomial", "normal", "poisson",
    "randint", "randn", "seed", "shuffle", "uniform",
]  # fmt: skip


def seed(seed_state: int, ctx: Any = "all") -> None:
    """Start the random numbers again: the same seed gives the same numbers (not those of libmxnet)."""
    if not isinstance(seed_state, int) and not hasattr(seed_state, "__index__"):
        raise ValueError("the seed is an int")
    if isinstance(ctx, str) and ctx != "all":
        raise MXNetError(f"ctx={ctx!r}: give a Context or 'all'")
    random_state.seed(int(seed_state))
