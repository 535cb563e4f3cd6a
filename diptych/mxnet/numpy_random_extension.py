"""`mx.npx.random`: distributions that `mx.np.random` has not, and batches of draws per parameter."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet import random_state
from diptych.mxnet.numpy import random
from diptych.mxnet.numpy.call import as_ndarray

__all__ = ["bernoulli", "normal_n", "seed", "uniform_n"]

seed = random.seed


def bernoulli(prob: Any = None, logit: Any = None, size: Any = None, dtype: Any = None, ctx: Any = None, out: Any = None) -> Any:
    """Zeros and ones, with the probability of a one or its logit (the other one is None)."""
    if (prob is None) == (logit is None):
        raise ValueError("give one of prob and logit")
    value = random._value(prob if logit is None else logit)
    p = np.asarray(value, np.float64) if logit is None else 1 / (1 + np.exp(-np.asarray(value, np.float64)))
    if logit is None and not np.all((p >= 0) & (p <= 1)):
        raise ValueError("prob must lie in [0, 1]")
    shape = random._extents(size, p)
    return random._new(random_state.generator().random(shape) < p, dtype, ctx, out)


def _batched(draw: Any, name: str) -> Any:
    def call(first: Any = 0.0, second: Any = 1.0, batch_shape: Any = None, dtype: Any = None, ctx: Any = None) -> Any:
        params = [random._value(v) for v in (first, second)]
        inner = np.broadcast_shapes(*(np.shape(v) for v in params))
        extra = () if batch_shape is None else (batch_shape,) if isinstance(batch_shape, int) else tuple(batch_shape)
        return as_ndarray(draw(first, second, size=(*extra, *inner), dtype=dtype, ctx=ctx))

    call.__name__ = name
    call.__doc__ = f"{name[:-2]} numbers, `batch_shape` of them for every parameter."
    return call


uniform_n, normal_n = _batched(random.uniform, "uniform_n"), _batched(random.normal, "normal_n")
