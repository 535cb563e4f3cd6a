"""`mx.np.random`: drawn from the generator that `mx.random.seed` seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet import random_state
from diptych.mxnet.base import dtype_name
from diptych.mxnet.imperative import wrap
from diptych.mxnet.ndarray.ndarray import NDArray, context_for_new
from diptych.mxnet.numpy.call import as_ndarray, operator

__all__ = [
    "beta", "chisquare", "choice", "exponential", "f", "gamma", "gumbel", "laplace", "logistic", "lognormal", "multinomial",
    "multivariate_normal", "normal", "pareto", "permutation", "poisson", "power", "rand", "randint", "randn", "rayleigh", "seed",
    "shuffle", "uniform", "weibull",
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


def seed(seed: int, ctx: Any = "all") -> None:
    """Start the random numbers again."""
    random_state.seed(int(seed))


def _extents(size: Any, *params: Any) -> tuple[int, ...]:
    shape = np.broadcast_shapes(*(np.shape(_value(v)) for v in params)) if params else ()
    if size is None:
        return shape
    chosen = (int(size),) if isinstance(size, (int, np.integer)) else tuple(size)
    if np.broadcast_shapes(shape, chosen) != chosen:
        raise ValueError(f"size {chosen} does not fit parameters of shape {shape}")
    return chosen


def _kind(dtype: Any) -> Any:
    return np.dtype(dtype_name(dtype or np.float32))


def _checked(condition: Any, message: str) -> None:
    if not np.all(condition):
        raise ValueError(message)


def _floats(dtype: Any, name: str) -> None:
    if _kind(dtype).kind != "f":
        raise ValueError(f"{name}: dtype must be of a float type, not {dtype}")


def _plain(name: str, names: tuple[str, ...], defaults: tuple[float, ...], positive: tuple[str, ...] = ()) -> Any:
    """A distribution whose numbers are drawn by NumPy, without a gradient."""

    def draw(*args: Any, size: Any = None, dtype: Any = None, ctx: Any = None, out: Any = None, **kwargs: Any) -> Any:
        params = [_value(v) for v in args[: len(names)]]
        if len(args) > len(names):
            size = args[len(names)]
        for n, d in list(zip(names, defaults))[len(params) :]:
            params.append(_value(kwargs.get(n, d)))
        for n, v in zip(names, params):
            if n in positive:
                _checked(np.asarray(v) > 0, f"{name}: {n} must be positive")
        shape = _extents(size, *params)
        return _new(getattr(random_state.generator(), name)(*(np.asarray(v, np.float64) for v in params), shape), dtype, ctx, out)

    draw.__name__ = name
    draw.__doc__ = f"{name}({', '.join(names)}, size)."
    return draw


gamma = _plain("gamma", ("shape", "scale"), (1.0, 1.0), ("shape", "scale"))
beta = _plain("beta", ("a", "b"), (1.0, 1.0), ("a", "b"))
laplace = _plain("laplace", ("loc", "scale"), (0.0, 1.0))
chisquare = _plain("chisquare", ("df",), (1.0,), ("df",))
poisson = _plain("poisson", ("lam",), (1.0,))
f = _plain("f", ("dfnum", "dfden"), (1.0, 1.0), ("dfnum", "dfden"))
power = _plain("power", ("a",), (1.0,), ("a",))


def _located(name: str, standard: str, names: tuple[str, str]) -> Any:
    """A distribution loc + scale * z: differentiable in both."""

    def draw(*args: Any, size: Any = None, dtype: Any = None, ctx: Any = None, out: Any = None, **kwargs: Any) -> Any:
        given = dict(zip((*names, "size", "dtype", "ctx"), args)) | kwargs
        first, second = given.get(names[0], 0.0), given.get(names[1], 1.0)
        size, dtype, ctx = given.get("size", size), given.get("dtype", dtype), given.get("ctx", ctx)
        _floats(dtype, name)
        if name in ("normal", "gumbel", "logistic"):
            _checked(np.asarray(_value(second)) >= 0, f"{name}: scale must not be negative")
        shape, kind = _extents(size, first, second), _kind(dtype)
        rng = random_state.generator()
        z = rng.random(shape) if standard == "uniform" else getattr(rng, standard)(0.0, 1.0, shape)
        if not (isinstance(first, NDArray) or isinstance(second, NDArray)):
            return _new(first + ((second - first) if name == "uniform" else second) * z, kind, ctx, out)
        noise = _new(z, kind, ctx)
        a, b = (v.astype(kind) if isinstance(v, NDArray) else v for v in (first, second))
        return _put(out, a + (b - a) * noise if name == "uniform" else a + b * noise)

    draw.__name__ = name
    draw.__doc__ = f"{name}({', '.join(names)}, size), with a gradient."
    return draw


def _put(out: Any, found: Any) -> Any:
    if out is None:
        return found
    out[...] = found
    return out


uniform = _located("uniform", "uniform", ("low", "high"))
normal = _located("normal", "normal", ("loc", "scale"))
gumbel = _located("gumbel", "gumbel", ("loc", "scale"))
logistic = _located("logistic", "logistic", ("loc", "scale"))


def lognormal(mean: Any = 0.0, sigma: Any = 1.0, size: Any = None, dtype: Any = None, ctx: Any = None, out: Any = None) -> Any:
    """The exponential of normal numbers, with a gradient."""
    found = normal(mean, sigma, size=size, dtype=dtype, ctx=ctx)
    return _put(out, operator("_npi_exp", found))


def _scaled(name: str, parameter: str, rule: Any) -> Any:
    """A distribution with one parameter p, as a differentiable function of p and a standard exponential number."""

    def draw(*args: Any, size: Any = None, ctx: Any = None, out: Any = None, **kwargs: Any) -> Any:
        given = dict(zip((parameter, "size"), args)) | kwargs
        p, size, dtype = given.get(parameter, 1.0), given.get("size", size), given.get("dtype")
        if parameter == "a":
            _checked(np.asarray(_value(p)) > 0, f"{name}: a must be positive")
        _checked(np.asarray(_value(p)) >= 0, f"{name}: {parameter} must not be negative")
        z = random_state.generator().standard_exponential(_extents(size, p))
        if isinstance(p, NDArray):
            kind = p.dtype if p.dtype.kind == "f" else np.float32
            return _put(out, rule(p.astype(kind), _new(z, kind, ctx)))
        return _new(np.asarray(rule(_new(p, np.float64, ctx), _new(z, np.float64, ctx))._data), dtype, ctx, out)

    draw.__name__ = name
    draw.__doc__ = f"{name}({parameter}, size), with a gradient."
    return draw


exponential = _scaled("exponential", "scale", lambda p, z: p * z)
weibull = _scaled("weibull", "a", lambda p, z: operator("_npi_power", z, 1.0 / p))
pareto = _scaled("pareto", "a", lambda p, z: operator("_npi_expm1", z / p))
rayleigh = _scaled("rayleigh", "scale", lambda p, z: p * operator("_npi_sqrt", 2 * z))


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
    if p is not None:
        p = np.asarray(_value(p))
        # NumPy measures by float64; these may have been rounded to float32, or less, on their way.
        near = np.sqrt(np.finfo(np.float16 if p.dtype == np.float16 else np.float32).eps)
        p = p.astype(np.float64)
        total = p.sum()
        if abs(total - 1) < near:
            p = p / total
    found = random_state.generator().choice(_value(a), size, replace, p)
    return _new(found, np.asarray(found).dtype, ctx, out)


def multinomial(n: int, pvals: Any, size: Any = None, **kwargs: Any) -> Any:
    """Counts of n draws from categories."""
    p = np.asarray(_value(pvals), np.float64)
    if not p.size:
        return _new(np.zeros((*_extents(size), 0)), np.int64, kwargs.get("ctx"))
    return _new(random_state.generator().multinomial(n, p / p.sum(), size), np.int64, kwargs.get("ctx"))


def multivariate_normal(mean: Any, cov: Any, size: Any = None, check_valid: str | None = None, tol: float | None = None,
                        ctx: Any = None) -> Any:  # fmt: skip
    """Normal vectors with a covariance; `size` numbers of them for every mean and covariance (batches broadcast)."""
    if check_valid is not None or tol is not None:
        raise NotImplementedError("check_valid and tol are not supported")
    m, c = np.asarray(_value(mean), np.float64), np.asarray(_value(cov), np.float64)
    low = np.linalg.cholesky(c + 1e-12 * np.eye(c.shape[-1]))
    batch = np.broadcast_shapes(m.shape[:-1], c.shape[:-2])
    extra = () if size is None else (size,) if isinstance(size, int) else tuple(size)
    z = random_state.generator().standard_normal((*extra, *batch, m.shape[-1]))
    kind = mean.dtype if isinstance(mean, NDArray) and mean.dtype.kind == "f" else None
    return _new(m + (low @ z[..., None])[..., 0], kind, ctx)


def shuffle(x: NDArray) -> None:
    """Put the rows in random order, in place."""
    random_state.generator().shuffle(x._data, axis=0)


def permutation(x: Any) -> Any:
    """The rows, or the numbers below x, in random order."""
    found = random_state.generator().permutation(_value(x))
    return _new(found, np.asarray(found).dtype if isinstance(x, NDArray) else np.int64, None)
