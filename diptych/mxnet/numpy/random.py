"""`mx.np.random`: drawn from the generator that `mx.random.seed` seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet import random_state
from diptych.mxnet.imperative import wrap
from diptych.mxnet.ndarray.ndarray import NDArray, context_for_new
from diptych.mxnet.numpy.call import as_ndarray

__all__ = [
    "beta", "chisquare", "choice", "exponential", "gamma", "laplace", "lognormal", "multinomial", "multivariate_normal",
    "normal", "permutation", "poisson", "rand", "randint", "randn", "seed", "shuffle", "uniform",
]  # fmt: skip


def _new(data: Any, dtype: Any, ctx: Any, out: Any = None) -> Any:
    if out is not None:
        out[...] = np.asarray(data)
        return out
    made = as_ndarray(wrap(np.array(data, np.dtype(dtype or np.float32), order="C")))
    made._ctx = context_for_new(ctx)
    return made


def _value(x: Any) -> Any:
    return x._data if isinstance(x, NDArray) else x


def seed(value: int, ctx: Any = "all") -> None:
    """Start the random numbers again."""
    random_state.seed(int(value))


def _sampler(name: str, names: tuple[str, ...], defaults: tuple[float, ...]) -> Any:
    def draw(*args: Any, size: Any = None, dtype: Any = None, ctx: Any = None, out: Any = None, **kwargs: Any) -> Any:
        params = [_value(v) for v in args[: len(names)]]
        if len(args) > len(names):
            size = args[len(names)]
        for n, d in list(zip(names, defaults))[len(params) :]:
            params.append(_value(kwargs.get(n, d)))
        return _new(getattr(random_state.generator(), name)(*params, size), dtype, ctx, out)

    draw.__name__ = name
    draw.__doc__ = f"{name}({', '.join(names)}, size)."
    return draw


uniform = _sampler("uniform", ("low", "high"), (0.0, 1.0))
normal = _sampler("normal", ("loc", "scale"), (0.0, 1.0))
exponential = _sampler("exponential", ("scale",), (1.0,))
gamma = _sampler("gamma", ("shape", "scale"), (1.0, 1.0))
beta = _sampler("beta", ("a", "b"), (1.0, 1.0))
laplace = _sampler("laplace", ("loc", "scale"), (0.0, 1.0))
lognormal = _sampler("lognormal", ("mean", "sigma"), (0.0, 1.0))
chisquare = _sampler("chisquare", ("df",), (1.0,))
poisson = _sampler("poisson", ("lam",), (1.0,))


def rand(*size: int, **kwargs: Any) -> Any:
    """Uniform in [0, 1)."""
    return uniform(0.0, 1.0, size=size, **kwargs)


def randn(*size: int, **kwargs: Any) -> Any:
    """Standard normal."""
    return normal(0.0, 1.0, size=size, **kwargs)


def randint(low: int, high: int | None = None, size: Any = None, dtype: Any = None, ctx: Any = None, out: Any = None) -> Any:
    """Integers in [low, high)."""
    low, high = (0, low) if high is None else (low, high)
    return _new(random_state.generator().integers(low, high, size), dtype or np.int64, ctx, out)


def choice(a: Any, size: Any = None, replace: bool = True, p: Any = None, ctx: Any = None, out: Any = None) -> Any:
    """Elements (or numbers below a) drawn at random."""
    found = random_state.generator().choice(_value(a), size, replace, _value(p))
    return _new(found, np.asarray(found).dtype, ctx, out)


def multinomial(n: int, pvals: Any, size: Any = None, **kwargs: Any) -> Any:
    """Counts of n draws from categories."""
    p = np.asarray(_value(pvals), np.float64)
    return _new(random_state.generator().multinomial(n, p / p.sum(), size), np.int64, kwargs.get("ctx"))


def multivariate_normal(mean: Any, cov: Any, size: Any = None, **kwargs: Any) -> Any:
    """Normal vectors with a covariance."""
    return _new(random_state.generator().multivariate_normal(_value(mean), _value(cov), size), None, kwargs.get("ctx"))


def shuffle(x: NDArray) -> None:
    """Put the rows in random order, in place."""
    random_state.generator().shuffle(x._data, axis=0)


def permutation(x: Any) -> Any:
    """The rows, or the numbers below x, in random order."""
    found = random_state.generator().permutation(_value(x))
    return _new(found, np.asarray(found).dtype if isinstance(x, NDArray) else np.int64, None)
