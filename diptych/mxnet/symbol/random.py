"""`mx.sym.random`: sampling operators by their parameters, numbers or symbols."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.base import Null
from diptych.mxnet.symbol.register import function, module_getattr
from diptych.mxnet.symbol.symbol import Symbol

_lookup = module_getattr("random")


def __getattr__(name: str) -> Any:
    return _lookup(name)


def _draw(kind: str, params: dict[str, Any], shape: Any, dtype: Any, kwargs: dict[str, Any]) -> Any:
    values = list(params.values())
    if any(isinstance(v, Symbol) for v in values):
        if not all(isinstance(v, Symbol) for v in values):
            raise ValueError("parameters of a distribution are all numbers or all symbols, not "
                             + " and ".join(str(type(v)) for v in values) + ".")  # fmt: skip
        return function(f"_sample_{kind}")(*values, shape=shape, dtype=dtype, **kwargs)
    return function(f"_random_{kind}")(**params, shape=shape, dtype=dtype, **kwargs)


def uniform(low: Any = 0, high: Any = 1, shape: Any = Null, dtype: Any = Null, **kwargs: Any) -> Any:
    """Uniform in [low, high)."""
    return _draw("uniform", {"low": low, "high": high}, shape, dtype, kwargs)


def normal(loc: Any = 0, scale: Any = 1, shape: Any = Null, dtype: Any = Null, **kwargs: Any) -> Any:
    """Normal with mean `loc` and standard deviation `scale`."""
    return _draw("normal", {"loc": loc, "scale": scale}, shape, dtype, kwargs)


def randn(*shape: int, **kwargs: Any) -> Any:
    """Normal, with the shape as positional arguments; of an operand beside it nothing is taken, as in MXNet."""
    if isinstance(kwargs.get("data"), Symbol):
        del kwargs["data"]
    return normal(kwargs.pop("loc", 0), kwargs.pop("scale", 1), shape, kwargs.pop("dtype", Null), **kwargs)


def poisson(lam: Any = 1, shape: Any = Null, dtype: Any = Null, **kwargs: Any) -> Any:
    """Poisson with rate `lam`."""
    return _draw("poisson", {"lam": lam}, shape, dtype, kwargs)


def exponential(scale: Any = 1, shape: Any = Null, dtype: Any = Null, **kwargs: Any) -> Any:
    """Exponential with mean `scale`."""
    return _draw("exponential", {"lam": 1.0 / scale}, shape, dtype, kwargs)


def gamma(alpha: Any = 1, beta: Any = 1, shape: Any = Null, dtype: Any = Null, **kwargs: Any) -> Any:
    """Gamma with shape `alpha` and scale `beta`."""
    return _draw("gamma", {"alpha": alpha, "beta": beta}, shape, dtype, kwargs)


def negative_binomial(k: Any = 1, p: Any = 1, shape: Any = Null, dtype: Any = Null, **kwargs: Any) -> Any:
    """Failures before `k` successes of probability `p`."""
    return _draw("negative_binomial", {"k": k, "p": p}, shape, dtype, kwargs)


def generalized_negative_binomial(mu: Any = 1, alpha: Any = 1, shape: Any = Null, dtype: Any = Null, **kwargs: Any) -> Any:
    """Negative binomial by its mean `mu` and dispersion `alpha`."""
    return _draw("generalized_negative_binomial", {"mu": mu, "alpha": alpha}, shape, dtype, kwargs)


def randint(low: Any, high: Any, shape: Any = Null, dtype: Any = Null, **kwargs: Any) -> Any:
    """Integers in [low, high)."""
    return function("_random_randint")(low=low, high=high, shape=shape, dtype=dtype, **kwargs)


def multinomial(data: Any, shape: Any = Null, get_prob: bool = True, dtype: Any = "int32", **kwargs: Any) -> Any:
    """Draws from the categories of each row of probabilities."""
    return function("_sample_multinomial")(data, shape=shape, get_prob=get_prob, dtype=dtype, **kwargs)


def shuffle(data: Any, **kwargs: Any) -> Any:
    """The rows of an array in random order."""
    return function("_shuffle")(data, **kwargs)
