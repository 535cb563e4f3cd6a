"""Random weights that any program with NumPy can draw alike: by name, shape and seed, with no order between them."""

from __future__ import annotations

import zlib
from math import prod, sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from diptych.ir import Array

__all__ = ["draw"]


def draw(name: str, shape: tuple[int, ...], seed: int = 0, *, aux: bool = False) -> Array:
    """A float32 array for the parameter `name`: He-normal weights, gammas near 1, small biases, positive variances.

    >>> bool(draw("bn0_moving_var", (2,)).min() > 0)
    True
    """
    rng = np.random.RandomState((zlib.crc32(name.encode()) + seed) % (1 << 32))  # the legacy stream is frozen for ever
    noise = rng.standard_normal(shape)
    if name.endswith(("moving_var", "running_var")):
        values = 1.0 + 0.3 * np.abs(noise)
    elif name.endswith(("moving_mean", "running_mean")) or aux:
        values = 0.1 * noise
    elif name.endswith("gamma"):
        values = 0.25 + 0.05 * noise if "relu" in name else 1.0 + 0.1 * noise
    elif len(shape) < 2:
        values = 0.05 * noise
    else:
        values = noise * sqrt(2.0 / max(1, prod(shape[1:])))
    return np.asarray(values, np.float32)
