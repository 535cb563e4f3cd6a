"""Random arrays: `mx.nd.random`. Parameters are numbers, or arrays with a draw per element."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.base import MXNetError, Null
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.ndarray.register import function, module_getattr

__all__ = [
    "exponential", "gamma", "generalized_negative_binomial", "multinomial", "negative_binomial", "normal", "poisson",
    "randint", "randn", "shuffle", "uniform",
]  # fmt: skip


_lookup = module_getattr("random")


def __getattr__(name: str) -> Any:
    return _lookup(name)


def _draw(kind: str, params: dict[str, Any], shape: Any, dtype: Any, ctx: Any, out: Any) -> Any:
    values = list(params.values())
    if any(isinstance(v, NDArray) for v in values):
        if not all(isinstance(v, NDArray) for v in values):
            raise ValueError("parameters of a distribution are all numbers or all NDArrays, not "
                             + " and ".join(str(type(v)) for v in values) + ".")  # fmt: skip
        return function(f"_sample_{kind}")(*values, shape=() if shape is Null else shape, dtype=dtype, out=out)
    if not all(isinstance(v, (int, float)) or hasattr(v, "item") for v in values):
        raise ValueError(f"parameters of a distribution are numbers or NDArrays, not {type(values[0])}")
    if shape is Null and out is None:
        shape = 1
    if shape is Null:
        shape = out.shape
    return function(f"_random_{kind}")(**params, shape=shape, dtype=dtype, ctx=ctx, out=out)


def uniform(low: Any = 0, high: Any = 1, shape: Any = Null, dtype: Any = Null, ctx: Any = None, out: Any = None,
            **kwargs: Any) -> Any:  # fmt: skip
    """Uniform in [low, high)."""
    return _draw("uniform", {"low": low, "high": high}, shape, dtype, ctx, out)


def normal(loc: Any = 0, scale: Any = 1, shape: Any = Null, dtype: Any = Null, ctx: Any = None, out: Any = None,
           **kwargs: Any) -> Any:  # fmt: skip
    """Normal with mean `loc` and standard deviation `scale`."""
    return _draw("normal", {"loc": loc, "scale": scale}, shape, dtype, ctx, out)


def randn(*shape: int, **kwargs: Any) -> Any:
    """Normal, with the shape as positional arguments; `loc` and `scale` are numbers, or both arrays."""
    loc, scale = kwargs.pop("loc", 0), kwargs.pop("scale", 1)
    dtype, ctx, out = kwargs.pop("dtype", Null), kwargs.pop("ctx", None), kwargs.pop("out", None)
    return _draw("normal", {"loc": loc, "scale": scale}, shape or Null, dtype, ctx, out)


def poisson(lam: Any = 1, shape: Any = Null, dtype: Any = Null, ctx: Any = None, out: Any = None, **kwargs: Any) -> Any:
    """Poisson with rate `lam`."""
    return _draw("poisson", {"lam": lam}, shape, dtype, ctx, out)


def exponential(scale: Any = 1, shape: Any = Null, dtype: Any = Null, ctx: Any = None, out: Any = None,
                **kwargs: Any) -> Any:  # fmt: skip
    """Exponential with mean `scale`."""
    return _draw("exponential", {"lam": 1.0 / scale}, shape, dtype, ctx, out)


def gamma(alpha: Any = 1, beta: Any = 1, shape: Any = Null, dtype: Any = Null, ctx: Any = None, out: Any = None,
          **kwargs: Any) -> Any:  # fmt: skip
    """Gamma with shape `alpha` and scale `beta`."""
    return _draw("gamma", {"alpha": alpha, "beta": beta}, shape, dtype, ctx, out)


def negative_binomial(k: Any = 1, p: Any = 1, shape: Any = Null, dtype: Any = Null, ctx: Any = None, out: Any = None,
                      **kwargs: Any) -> Any:  # fmt: skip
    """Failures before `k` successes of probability `p`."""
    return _draw("negative_binomial", {"k": k, "p": p}, shape, dtype, ctx, out)


def generalized_negative_binomial(mu: Any = 1, alpha: Any = 1, shape: Any = Null, dtype: Any = Null, ctx: Any = None,
                                  out: Any = None, **kwargs: Any) -> Any:  # fmt: skip
    """Negative binomial by its mean `mu` and dispersion `alpha`."""
    return _draw("generalized_negative_binomial", {"mu": mu, "alpha": alpha}, shape, dtype, ctx, out)


def randint(low: Any, high: Any, shape: Any = Null, dtype: Any = Null, ctx: Any = None, out: Any = None,
            **kwargs: Any) -> Any:  # fmt: skip
    """Integers in [low, high)."""
    if shape is Null and out is None:
        shape = 1
    if shape is Null:
        shape = out.shape
    if not isinstance(low, int) or not isinstance(high, int):
        raise MXNetError("randint takes integers for low and high")
    return function("_random_randint")(low=low, high=high, shape=shape, dtype=dtype, ctx=ctx, out=out)


def multinomial(data: Any, shape: Any = Null, get_prob: bool = False, out: Any = None, dtype: Any = "int32",
                **kwargs: Any) -> Any:  # fmt: skip
    """Draws from the categories of each row of probabilities; with get_prob also the log-likelihoods."""
    return function("_sample_multinomial")(data, shape=shape, get_prob=get_prob, dtype=dtype, out=out)


def shuffle(data: Any, **kwargs: Any) -> Any:
    """The rows of an array in random order."""
    return function("_shuffle")(data, **kwargs)
