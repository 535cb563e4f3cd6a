"""The linear algebra of `mx.np.linalg` that `mx.nd.linalg` has not, with LAPACK through NumPy.

Gradients: of the singular value decomposition after Townsend, "Differentiating the singular value decomposition" (2016), of the others
from the implicit function theorem.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.mxnet.ops.live import host, host_gradient
from diptych.mxnet.ops.registry import register_operator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.attributes import Attributes
    from diptych.ir import Array

def _t(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def _summed(x: Array, shape: tuple[int, ...]) -> Array:
    """The sum over what was broadcast from `shape`."""
    extra = x.ndim - len(shape)
    x = x.sum(tuple(range(extra)))
    found: Array = x.sum(tuple(i for i, d in enumerate(shape) if d == 1 and x.shape[i] != 1), keepdims=True)
    return found


def _half(x: Array) -> Array:
    """The lower triangle, its diagonal halved."""
    low = np.tril(x)
    return low - 0.5 * np.eye(x.shape[-1], dtype=x.dtype) * x


@host("_npi_cholesky")
def cholesky(a: Attributes, x: Array) -> Array:
    return np.linalg.cholesky(x)


@host_gradient("_npi_cholesky")
def cholesky_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    low, inverse = ys[0], np.linalg.inv(ys[0])
    s = _t(inverse) @ _half(_t(low) @ ds[0]) @ inverse
    return [0.5 * (s + _t(s))]


@host("_npi_svd")
def svd(a: Attributes, x: Array) -> list[Array]:
    """As in MXNet, x = UT L V with UT square and V of the shape of x; the largest entry of a row of V is positive."""
    u, s, v = np.linalg.svd(x, full_matrices=False)
    if x.size:
        at = np.argmax(np.abs(v), -1)
        sign = np.where(np.take_along_axis(v, at[..., None], -1) < 0, -1, 1).astype(x.dtype)
        u, v = u * _t(sign), v * sign
    return [u, s, v]


@host_gradient("_npi_svd")
def svd_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    (u, s, v), (du, dl, dv) = ys, ds
    n = s.shape[-1]
    gap = s[..., None, :] ** 2 - s[..., :, None] ** 2
    tiny = np.abs(gap) < 1e-30
    f = np.where(tiny, 0, 1 / np.where(tiny, 1, gap))
    eye = np.eye(n, dtype=s.dtype)
    inverse = 1 / np.where(s == 0, 1, s)
    left, right = f * (_t(u) @ du - _t(du) @ u), f * (v @ _t(dv) - dv @ _t(v))
    core = left * s[..., None, :] + s[..., :, None] * right + eye * dl[..., None]
    found = u @ core @ v
    rest = inverse[..., :, None] * dv  # the part of dv outside of the rows of v
    return [found + u @ (rest - rest @ _t(v) @ v)]


@host("_npi_solve")
def solve(a: Attributes, x: Array, b: Array) -> Array:
    return np.linalg.solve(x, b[..., None])[..., 0] if b.ndim == x.ndim - 1 else np.linalg.solve(x, b)


@host_gradient("_npi_solve")
def solve_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    x, b = xs
    vector = b.ndim == x.ndim - 1
    y, d = (v[..., None] if vector else v for v in (ys[0], ds[0]))
    db = np.linalg.solve(_t(x), d)
    dx = -db @ _t(y)
    return [_summed(dx, x.shape), _summed(db[..., 0] if vector else db, b.shape)]


@host("_npi_tensorinv")
def tensorinv(a: Attributes, x: Array) -> Array:
    return np.linalg.tensorinv(x, a.integer("ind", 2))


@host_gradient("_npi_tensorinv")
def tensorinv_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    n = prod(xs[0].shape[: a.integer("ind", 2)])
    y, d = ys[0].reshape(n, n), ds[0].reshape(n, n)
    return [(-y.T @ d @ y.T).reshape(xs[0].shape)]


@host("_npi_tensorsolve")
def tensorsolve(a: Attributes, x: Array, b: Array) -> Array:
    return np.linalg.tensorsolve(x, b, a.shape("a_axes", ()) or None)


@host_gradient("_npi_tensorsolve")
def tensorsolve_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    x, b = xs
    axes = [i % x.ndim for i in a.shape("a_axes", ()) or ()]
    order = [i for i in range(x.ndim) if i not in axes] + axes
    moved = x.transpose(order)
    matrix = moved.reshape(b.size, -1)
    db = np.linalg.solve(matrix.T, ds[0].reshape(-1))
    dx = (-np.outer(db, ys[0].reshape(-1))).reshape(moved.shape).transpose(np.argsort(order))
    return [dx, db.reshape(b.shape)]


# -- sums of products by subscripts -----------------------------------------------------------------------------------
# The operator of MXNet takes these too; its form as a graph (two operands, no letter twice) is another function's business.
register_operator("_np_einsum_host\toperands*\t\tsubscripts:text\n")


def _terms(a: Attributes, xs: Sequence[Array]) -> tuple[list[str], str]:
    """The subscripts of the operands and of the result, with letters for the axes of an ellipsis."""
    inputs, arrow, result = a.text("subscripts").replace(" ", "").partition("->")
    terms = inputs.split(",")
    spare = [ch for ch in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if ch not in a.text("subscripts")]
    dots = max((x.ndim - len(t.replace("...", "")) for t, x in zip(terms, xs) if "..." in t), default=0)
    if not arrow:
        letters = [ch for t in terms for ch in t.replace("...", "")]
        result = "..." * any("..." in t for t in terms) + "".join(sorted(ch for ch in set(letters) if letters.count(ch) == 1))
    spread = "".join(spare[:dots])

    def wide(t: str, count: int) -> str:
        return t.replace("...", spread[dots - count :] if count else "")

    return [wide(t, x.ndim - len(t.replace("...", ""))) for t, x in zip(terms, xs)], wide(result, dots)


@host("_np_einsum_host")
def einsum(a: Attributes, *xs: Array) -> Array:
    return np.asarray(np.einsum(a.text("subscripts"), *xs), xs[0].dtype)


@host_gradient("_np_einsum_host")
def einsum_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    terms, result = _terms(a, xs)
    size: dict[str, int] = {}
    for t, x in zip(terms, xs):
        for ch, d in zip(t, x.shape):
            size[ch] = d if size.get(ch, 1) == 1 else size[ch]  # an extent of 1 is spread, also over nothing
    out = []
    for k, (t, x) in enumerate(zip(terms, xs)):
        letters = "".join(dict.fromkeys(t))
        others = [(terms[i], xs[i]) for i in range(len(xs)) if i != k]
        known = set(result).union(*(o for o, _ in others)) if others else set(result)
        inner = "".join(ch for ch in letters if ch in known)
        d = np.einsum(",".join([result, *(o for o, _ in others)]) + "->" + inner, ds[0], *(o for _, o in others))
        d = d.reshape([d.shape[inner.index(ch)] if ch in known else 1 for ch in letters]) if letters else d
        full = np.zeros([size[ch] for ch in t], x.dtype)
        if len(letters) == len(t):
            full += d
        else:  # a letter twice: the diagonal
            grids = np.indices([size[ch] for ch in letters])
            full[tuple(grids[letters.index(ch)] for ch in t)] = np.broadcast_to(d, [size[ch] for ch in letters])
        out.append(_summed(full, x.shape))
    return out

