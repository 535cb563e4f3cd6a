"""Factorisations and triangular products of matrices (`mx.nd.linalg`), with LAPACK through NumPy; batches in front.

The gradients are those of Seeger, Hetzel, Dai, Meissner and Lawrence, "Auto-Differentiating Linear Algebra" (2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.ops.live import host, host_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.attributes import Attributes
    from diptych.ir import Array


def _t(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def _mirrored(x: Array) -> Array:
    """The lower triangle, copied to the upper one."""
    low = np.tril(x)
    return low + _t(np.tril(x, -1))


def _same(a: Attributes, *shapes: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [shapes[0]]


def _lower(a: Attributes) -> bool:
    return a.boolean("lower", True)


# -- Cholesky -------------------------------------------------------------------------------------------------------------
@host("_linalg_potrf", shape=_same)
def potrf(a: Attributes, x: Array) -> Array:
    low = np.linalg.cholesky(x)
    return low if _lower(a) else _t(low)


@host_gradient("_linalg_potrf")
def potrf_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    low, d = (ys[0], ds[0]) if _lower(a) else (_t(ys[0]), _t(ds[0]))
    inverse = np.linalg.inv(low)
    return [0.5 * _t(inverse) @ _mirrored(_t(low) @ d) @ inverse]


@host("_linalg_potri", shape=_same)
def potri(a: Attributes, x: Array) -> Array:
    inverse = np.linalg.inv(np.tril(x) if _lower(a) else _t(np.triu(x)))
    return _t(inverse) @ inverse


@host_gradient("_linalg_potri")
def potri_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    low = np.tril(xs[0]) if _lower(a) else _t(np.triu(xs[0]))
    d = -ys[0] @ (ds[0] + _t(ds[0])) @ _t(np.linalg.inv(low))
    return [np.tril(d) if _lower(a) else _t(np.tril(d))]


# -- triangular products and solutions --------------------------------------------------------------------------------------
def _triangle(a: Attributes, x: Array) -> Array:
    part = np.tril(x) if _lower(a) else np.triu(x)
    return _t(part) if a.boolean("transpose", False) else part


def _back(a: Attributes, d: Array) -> Array:
    """The gradient of a triangle as one of the matrix it was taken from."""
    d = _t(d) if a.boolean("transpose", False) else d
    return np.tril(d) if _lower(a) else np.triu(d)


@host("_linalg_trmm", shape=lambda a, x, y: [y])
def trmm(a: Attributes, x: Array, b: Array) -> Array:
    t = _triangle(a, x)
    return np.asarray(a.real("alpha", 1.0) * (b @ t if a.boolean("rightside", False) else t @ b), b.dtype)


@host_gradient("_linalg_trmm")
def trmm_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    t, b, d = _triangle(a, xs[0]), xs[1], a.real("alpha", 1.0) * ds[0]
    if a.boolean("rightside", False):
        return [_back(a, _t(b) @ d), d @ _t(t)]
    return [_back(a, d @ _t(b)), _t(t) @ d]


@host("_linalg_trsm", shape=lambda a, x, y: [y])
def trsm(a: Attributes, x: Array, b: Array) -> Array:
    t = _triangle(a, x)
    found = _t(np.linalg.solve(_t(t), _t(b))) if a.boolean("rightside", False) else np.linalg.solve(t, b)
    return np.asarray(a.real("alpha", 1.0) * found, b.dtype)


@host_gradient("_linalg_trsm")
def trsm_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    t, x, d, alpha = _triangle(a, xs[0]), ys[0], ds[0], a.real("alpha", 1.0)
    if a.boolean("rightside", False):
        s = _t(np.linalg.solve(t, _t(d)))
        return [_back(a, -_t(x) @ s), alpha * s]
    s = np.linalg.solve(_t(t), d)
    return [_back(a, -s @ _t(x)), alpha * s]


# -- LQ and eigenvalues -------------------------------------------------------------------------------------------------------
@host("_linalg_gelqf", shape=lambda a, x: [x, (*x[:-1], x[-2])])
def gelqf(a: Attributes, x: Array) -> list[Array]:
    q, r = np.linalg.qr(_t(x))
    return [_t(q), _t(r)]


@host_gradient("_linalg_gelqf")
def gelqf_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    (q, low), (dq, dl) = ys, ds
    middle = _t(low) @ dl - dq @ _t(q)
    return [np.linalg.solve(_t(low), dq + _mirrored(middle) @ q)]


@host("_linalg_syevd", shape=lambda a, x: [x, x[:-1]])
def syevd(a: Attributes, x: Array) -> list[Array]:
    values, vectors = np.linalg.eigh(x)
    rows = _t(vectors)  # as in MXNet, the largest entry of each is positive
    top = np.take_along_axis(rows, np.argmax(np.abs(rows), -1)[..., None], -1)
    return [np.where(top < 0, -rows, rows), values]


@host_gradient("_linalg_syevd")
def syevd_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    (u, values), (du, dv) = ys, ds
    gaps = values[..., None, :] - values[..., :, None]
    n = values.shape[-1]
    factors = np.where(np.eye(n, dtype=bool) | (gaps == 0), 0.0, 1.0 / np.where(gaps == 0, 1.0, gaps))
    inner = factors * (u @ _t(du)) + np.eye(n) * dv[..., None, :]
    d = _t(u) @ inner @ u
    return [0.5 * (d + _t(d))]


# -- determinants and inverses --------------------------------------------------------------------------------------------------
def _shaped(x: Array, d: Array) -> Array:
    """Numbers per matrix, to broadcast over the matrices."""
    return d.reshape(x.shape[:-2] + (1, 1))


@host("_linalg_inverse", shape=_same)
def inverse(a: Attributes, x: Array) -> Array:
    return np.linalg.inv(x)


@host_gradient("_linalg_inverse")
def inverse_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    return [-_t(ys[0]) @ ds[0] @ _t(ys[0])]


def _numbers(a: Attributes, x: tuple[int, ...]) -> tuple[int, ...]:
    return x[:-2] or (1,)


@host("_linalg_det", shape=lambda a, x: [_numbers(a, x)])
def det(a: Attributes, x: Array) -> Array:
    return np.asarray(np.linalg.det(x)).reshape(x.shape[:-2] or (1,))


@host_gradient("_linalg_det")
def det_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    return [_shaped(xs[0], ds[0] * ys[0]) * _t(np.linalg.inv(xs[0]))]


@host("_linalg_slogdet", shape=lambda a, x: [_numbers(a, x)] * 2)
def slogdet(a: Attributes, x: Array) -> list[Array]:
    return [np.asarray(v, x.dtype).reshape(x.shape[:-2] or (1,)) for v in np.linalg.slogdet(x)]


@host_gradient("_linalg_slogdet")
def slogdet_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    return [_shaped(xs[0], ds[1]) * _t(np.linalg.inv(xs[0]))]


# -- triangles as vectors ---------------------------------------------------------------------------------------------------------
def _places(n: int, offset: int, lower: bool) -> tuple[Any, Any]:
    """The elements of a triangle at diagonal `offset` and beyond: the lower one row by row, the upper by columns."""
    if offset < 0 or (offset == 0 and lower):
        return np.tril_indices(n, offset)
    rows, columns = np.tril_indices(n, -offset)
    return columns, rows


def _trian(a: Attributes) -> tuple[int, bool]:
    return a.integer("offset", 0), a.boolean("lower", True)


@host("_linalg_extracttrian", shape=lambda a, x: [(*x[:-2], len(_places(x[-1], *_trian(a))[0]))])
def extracttrian(a: Attributes, x: Array) -> Array:
    return x[(..., *_places(x.shape[-1], *_trian(a)))]


def _side(a: Attributes, count: int) -> int:
    offset = abs(a.integer("offset", 0))
    return int((np.sqrt(8 * count + 1) - 1) / 2 + 0.5) + offset


@host("_linalg_maketrian", shape=lambda a, x: [(*x[:-1], _side(a, x[-1]), _side(a, x[-1]))])
def maketrian(a: Attributes, x: Array) -> Array:
    n = _side(a, x.shape[-1])
    out = np.zeros((*x.shape[:-1], n, n), x.dtype)
    out[(..., *_places(n, *_trian(a)))] = x
    return out


@host_gradient("_linalg_extracttrian")
def extracttrian_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    out = np.zeros_like(xs[0])
    out[(..., *_places(xs[0].shape[-1], *_trian(a)))] = ds[0]
    return [out]


@host_gradient("_linalg_maketrian")
def maketrian_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array]:
    return [ds[0][(..., *_places(ds[0].shape[-1], *_trian(a)))]]
