"""Where random numbers come from: one generator per process, seeded by `mx.random.seed`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.ir.types import numpy_dtype

if TYPE_CHECKING:
    from diptych.frontends.mxnet.convert import Noise
    from diptych.ir import Array

__all__ = ["draw", "generator", "seed"]

_lock = threading.Lock()
_generator = np.random.Generator(np.random.PCG64())


def generator() -> np.random.Generator:
    """The generator in use."""
    return _generator


def seed(value: int) -> None:
    """Start again from a seed; the numbers that follow depend on it alone."""
    global _generator
    with _lock:
        _generator = np.random.Generator(np.random.PCG64(int(value) & 0xFFFFFFFFFFFFFFFF))


def draw(noise: Noise) -> Array:
    """The array of one random input of a graph."""
    shape, dtype = noise.type.shape, numpy_dtype(noise.type.dtype)
    p = noise.parameters
    made: Any
    with _lock:
        rng = _generator
        if noise.kind == "uniform":
            made = rng.random(shape, np.float64 if dtype == np.float64 else np.float32)
        elif noise.kind == "normal":
            made = rng.standard_normal(shape, np.float64 if dtype == np.float64 else np.float32)
        elif noise.kind == "gamma":
            made = rng.standard_gamma(p[0], shape)
        elif noise.kind == "exponential":
            made = rng.standard_exponential(shape)
        elif noise.kind == "poisson":
            made = rng.poisson(p[0], shape)
        elif noise.kind == "negative_binomial":
            made = rng.negative_binomial(p[0], p[1], shape)
        elif noise.kind == "generalized_negative_binomial":
            mu, alpha = p
            rate = rng.gamma(1 / alpha, mu * alpha, shape) if alpha > 0 else np.full(shape, mu)
            made = rng.poisson(rate)
        elif noise.kind == "integers":
            made = rng.integers(int(p[0]), int(p[1]), shape)
        else:
            raise AssertionError(noise.kind)
    return np.asarray(made, dtype)
