"""Random sampling: standard noise is an input of the graph, parameters are applied to it inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.ops.live import host, host_gradient, live
from diptych.mxnet.random_state import generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.attributes import Attributes
    from diptych.frontends.mxnet.convert import Call, Result
    from diptych.ir import Array, Value


def _shape(c: Call) -> tuple[int, ...]:
    if c.op.endswith("_like"):
        return c.x.shape
    shape = c.attrs.shape("shape", ())
    if shape or c.np_shape:
        return shape
    return c.shape or (1,)  # `randn()` has the shape that is needed


def _dtype(c: Call) -> str:
    return c.dtype() if "dtype" in c.attrs else (c.x.dtype if c.inputs else "f32")


def _affine(c: Call, z: Value, scale: float, shift: float) -> Value:
    if scale != 1.0:
        z = c.emit("mul", z, scale)
    return c.emit("add", z, shift) if shift else c.emit("add", z, 0.0)


@live("_random_uniform", "_random_uniform_like")
def _uniform(c: Call) -> Result:
    low, high = c.attrs.real("low", 0.0), c.attrs.real("high", 1.0)
    return _affine(c, c.noise("uniform", _shape(c), _dtype(c)), high - low, low)


@live("_random_normal", "_random_normal_like")
def _normal(c: Call) -> Result:
    return _affine(c, c.noise("normal", _shape(c), _dtype(c)), c.attrs.real("scale", 1.0), c.attrs.real("loc", 0.0))


@live("_random_gamma", "_random_gamma_like")
def _gamma(c: Call) -> Result:
    z = c.noise("gamma", _shape(c), _dtype(c), c.attrs.real("alpha", 1.0))
    return _affine(c, z, c.attrs.real("beta", 1.0), 0.0)


@live("_random_exponential", "_random_exponential_like")
def _exponential(c: Call) -> Result:
    return _affine(c, c.noise("exponential", _shape(c), _dtype(c)), 1.0 / c.attrs.real("lam", 1.0), 0.0)


@live("_random_poisson", "_random_poisson_like")
def _poisson(c: Call) -> Result:
    return _affine(c, c.noise("poisson", _shape(c), _dtype(c), c.attrs.real("lam", 1.0)), 1.0, 0.0)


@live("_random_negative_binomial", "_random_negative_binomial_like")
def _negative_binomial(c: Call) -> Result:
    z = c.noise("negative_binomial", _shape(c), _dtype(c), float(c.attrs.integer("k", 1)), c.attrs.real("p", 1.0))
    return _affine(c, z, 1.0, 0.0)


@live("_random_generalized_negative_binomial", "_random_generalized_negative_binomial_like")
def _generalized(c: Call) -> Result:
    z = c.noise("generalized_negative_binomial", _shape(c), _dtype(c), c.attrs.real("mu", 1.0), c.attrs.real("alpha", 1.0))
    return _affine(c, z, 1.0, 0.0)


@live("_random_randint")
def _randint(c: Call) -> Result:
    z = c.noise("integers", _shape(c), c.dtype("dtype", "i32"), c.attrs.integer("low"), c.attrs.integer("high"))
    return c.emit("add", z, 0)


# -- a draw per element of the parameters: these run in Python ------------------------------------------------------
def _spread(a: Attributes, params: tuple[Array, ...]) -> tuple[tuple[int, ...], list[Array], np.dtype[Any]]:
    extra = a.shape("shape", ()) or ()
    shape = (*params[0].shape, *extra)
    wide = [p.reshape(p.shape + (1,) * len(extra)).astype(np.float64) for p in params]
    name = a.text("dtype", "None")
    return shape, wide, np.dtype(params[0].dtype if name == "None" else name)


def _sampler(name: str, draw: Any) -> None:
    def run(a: Attributes, *params: Array) -> Array:
        shape, wide, dtype = _spread(a, params)
        if dtype.kind not in "f":
            dtype = np.dtype(np.float32)
        return np.asarray(draw(generator(), shape, *wide), dtype)

    host(name)(run)


_sampler("_sample_uniform", lambda r, s, low, high: low + (high - low) * r.random(s))
_sampler("_sample_normal", lambda r, s, mu, sigma: mu + sigma * r.standard_normal(s))
_sampler("_sample_gamma", lambda r, s, alpha, beta: r.gamma(np.broadcast_to(alpha, s)) * beta)
_sampler("_sample_exponential", lambda r, s, lam: r.standard_exponential(s) / lam)
_sampler("_sample_poisson", lambda r, s, lam: r.poisson(np.broadcast_to(lam, s)))
_sampler("_sample_negative_binomial", lambda r, s, k, p: r.negative_binomial(np.broadcast_to(k, s), np.broadcast_to(p, s)))
_sampler("_sample_generalized_negative_binomial",
         lambda r, s, mu, alpha: r.poisson(r.gamma(np.broadcast_to(1 / alpha, s), np.broadcast_to(mu * alpha, s))))  # fmt: skip


@host("_sample_multinomial")
def _multinomial(a: Attributes, p: Array) -> list[Array]:
    extra = a.shape("shape", ()) or ()
    count = int(np.prod(extra)) if extra else 1
    rows = p.reshape(-1, p.shape[-1]).astype(np.float64)
    edges = np.cumsum(rows, 1)
    drawn = generator().random((rows.shape[0], count)) * edges[:, -1:]
    index = np.stack([np.searchsorted(e, d, side="right") for e, d in zip(edges, drawn)])
    index = np.minimum(index, p.shape[-1] - 1)
    shape = (*p.shape[:-1], *extra) or (1,)
    name = a.text("dtype", "int32")
    out = [index.reshape(shape).astype(name)]
    if a.boolean("get_prob", False):
        chosen = np.take_along_axis(rows, index, 1)
        out.append(np.log(chosen).reshape(shape).astype(p.dtype))
    return out


@host_gradient("_sample_multinomial")
def _multinomial_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array | None]:
    """Of the logarithms of the drawn probabilities, which `get_prob` gives: 1 / p for every draw, as REINFORCE wants it."""
    if len(ys) < 2:
        return [None]
    rows = xs[0].reshape(-1, xs[0].shape[-1]).astype(np.float64)
    drawn = ys[0].reshape(len(rows), -1).astype(np.int64)
    places = np.arange(len(rows))[:, None], drawn
    out = np.zeros_like(rows)
    np.add.at(out, places, ds[1].reshape(drawn.shape) / rows[places])
    return [out.reshape(xs[0].shape).astype(xs[0].dtype)]


@host("_shuffle")
def _shuffle(a: Attributes, x: Array) -> Array:
    return np.asarray(generator().permutation(x, 0))


@host("_sample_unique_zipfian")
def _unique_zipfian(a: Attributes) -> list[Array]:
    """Different classes below range_max, each as likely as log-uniform draws make it, and how many draws that took."""
    most = a.integer("range_max")
    batch, count = a.shape("shape")
    if count > most:
        raise ValueError(f"{count} different classes cannot be drawn from {most}")
    found, tries = np.empty((batch, count), np.int64), np.zeros(batch, np.int64)
    for n in range(batch):
        seen: dict[int, None] = {}
        while len(seen) < count:
            value = int(np.exp(generator().random() * np.log(most + 1)) - 1) % most
            tries[n] += 1
            seen[value] = None
        found[n] = list(seen)
    return [found, tries]
