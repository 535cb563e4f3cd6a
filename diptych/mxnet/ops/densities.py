"""Probability densities of samples under parameters (`nd.random.pdf_*`), with gradients in both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.ops.live import host, host_gradient
from diptych.mxnet.ops.vision_ops import digamma
from diptych.ops.special import lgamma

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.frontends.mxnet.attributes import Attributes
    from diptych.ir import Array

# Each of these gives the logarithm of the density, and its slopes in the sample and in the parameters.
def _uniform(x: Array, low: Array, high: Array) -> Any:
    width = high - low
    return -np.log(width) + 0 * x, [0 * x, 1 / width + 0 * x, -1 / width + 0 * x]


def _normal(x: Array, mu: Array, sigma: Array) -> Any:
    z = (x - mu) / sigma
    return -0.5 * z * z - np.log(sigma) - 0.5 * np.log(2 * np.pi), [-z / sigma, z / sigma, (z * z - 1) / sigma]


def _gamma(x: Array, alpha: Array, beta: Array) -> Any:
    """`beta` is the rate here, unlike in the sampler."""
    log = alpha * np.log(beta) + (alpha - 1) * np.log(x) - beta * x - lgamma(alpha)
    return log, [(alpha - 1) / x - beta, np.log(beta) + np.log(x) - digamma(alpha), alpha / beta - x]


def _exponential(x: Array, lam: Array) -> Any:
    return np.log(lam) - lam * x, [-lam + 0 * x, 1 / lam - x]


def _poisson(x: Array, lam: Array) -> Any:
    return x * np.log(lam) - lgamma(x + 1) - lam, [0 * x, x / lam - 1]


def _negative_binomial(x: Array, k: Array, p: Array) -> Any:
    log = lgamma(x + k) - lgamma(x + 1) - lgamma(k) + k * np.log(p) + x * np.log(1 - p)
    return log, [0 * x, digamma(x + k) - digamma(k) + np.log(p), k / p - x / (1 - p)]


def _generalized(x: Array, mu: Array, alpha: Array) -> Any:
    k, p = 1 / alpha, 1 / (mu * alpha + 1)
    log, (zero, dk, dp) = _negative_binomial(x, k, p)
    return log, [zero, dp * -alpha * p * p, dk * -k * k + dp * -mu * p * p]


def _summed(d: Array, shape: tuple[int, ...]) -> Array:
    found: Array = d.sum(tuple(range(len(shape), d.ndim)))
    return found


def _density(name: str, parts: Callable[..., Any]) -> None:
    def spread(xs: Sequence[Array]) -> list[Array]:
        x = xs[0].astype(np.float64)
        return [x, *(p.astype(np.float64).reshape(p.shape + (1,) * (x.ndim - p.ndim)) for p in xs[1:])]

    def run(a: Attributes, *xs: Array) -> Array:
        log, _ = parts(*spread(xs))
        return np.asarray(log if a.boolean("is_log", False) else np.exp(log), xs[0].dtype)

    def back(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array | None]:
        log, slopes = parts(*spread(xs))
        d = ds[0] * (1 if a.boolean("is_log", False) else np.exp(log))
        found = [np.broadcast_to(d * s, log.shape) for s in slopes]
        return [found[0], *(_summed(f, p.shape) for f, p in zip(found[1:], xs[1:]))]

    host(f"_random_pdf_{name}", shape=lambda a, x, *p: [x])(run)
    host_gradient(f"_random_pdf_{name}")(back)


_PARTS: dict[str, Callable[..., Any]] = {"uniform": _uniform, "normal": _normal, "gamma": _gamma, "exponential": _exponential, "poisson": _poisson,
                      "negative_binomial": _negative_binomial, "generalized_negative_binomial": _generalized}  # fmt: skip
for _name, _parts in _PARTS.items():
    _density(_name, _parts)


def _dirichlet(x: Array, alpha: Array) -> tuple[Array, Array, Array]:
    x, alpha = x.astype(np.float64), alpha.astype(np.float64)
    wide = alpha.reshape(*alpha.shape[:-1], *(1,) * (x.ndim - alpha.ndim), alpha.shape[-1])
    log = ((wide - 1) * np.log(x)).sum(-1) + lgamma(wide.sum(-1)) - lgamma(wide).sum(-1)
    return x, wide, log


@host("_random_pdf_dirichlet", shape=lambda a, x, alpha: [x[:-1]])
def pdf_dirichlet(a: Attributes, x: Array, alpha: Array) -> Array:
    log = _dirichlet(x, alpha)[2]
    return np.asarray(log if a.boolean("is_log", False) else np.exp(log), x.dtype)


@host_gradient("_random_pdf_dirichlet")
def pdf_dirichlet_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array | None]:
    x, wide, log = _dirichlet(xs[0], xs[1])
    d = (ds[0] * (1 if a.boolean("is_log", False) else np.exp(log)))[..., None]
    dalpha = d * (np.log(x) + digamma(wide.sum(-1, keepdims=True)) - digamma(wide))
    return [d * (wide - 1) / x, dalpha.sum(tuple(range(xs[1].ndim - 1, x.ndim - 1)))]
