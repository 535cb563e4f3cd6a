"""`mx.np.linalg`."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet.numpy import functions
from diptych.mxnet.numpy.call import as_ndarray, fallback, floating, operator

__all__ = ["cholesky", "det", "eig", "eigh", "eigvals", "eigvalsh", "inv", "norm", "pinv", "slogdet", "solve", "svd", "tensorinv",
           "tensorsolve"]  # fmt: skip


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """The norm of vectors or matrices."""
    x = floating(x)
    axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)

    def total(v: Any, axis: Any = axes) -> Any:
        return functions.sum(v, axis=axis, keepdims=keepdims)  # type: ignore[attr-defined]

    if ord is None or (ord == "fro" and len(axes) == 2) or (ord == 2 and len(axes) == 1):
        return functions.sqrt(total(x * x))  # type: ignore[attr-defined]
    size = functions.absolute(x)  # type: ignore[attr-defined]
    if len(axes) == 1:
        if ord in (np.inf, "inf"):
            return functions.max(size, axis=axes, keepdims=keepdims)  # type: ignore[attr-defined]
        if ord in (-np.inf, "-inf"):
            return functions.min(size, axis=axes, keepdims=keepdims)  # type: ignore[attr-defined]
        if ord == 0:
            return total(functions.not_equal(x, 0).astype(x.dtype))  # type: ignore[attr-defined]
        if ord == 1:
            return total(size)
        if isinstance(ord, (int, float)):
            return total(size**ord) ** (1.0 / ord)
        raise ValueError(f"Invalid norm order {ord!r} for vectors")
    if len(axes) != 2:
        raise ValueError("Improper number of dimensions to norm.")
    row, column = (a % x.ndim for a in axes)
    if ord in (1, -1, np.inf, -np.inf, "inf", "-inf"):
        first, second = (row, column) if ord in (1, -1) else (column, row)
        sums = functions.sum(size, axis=first, keepdims=True)  # type: ignore[attr-defined]
        fold = functions.max if ord in (1, np.inf, "inf") else functions.min  # type: ignore[attr-defined]
        found = fold(sums, axis=second, keepdims=True)
    elif ord in (2, -2, "nuc"):
        order = [i for i in range(x.ndim) if i not in (row, column)] + [row, column]
        values = svd(functions.transpose(x, order))[1]
        chosen = {2: "max", -2: "min", "nuc": "sum"}[ord]
        reduced = getattr(functions, chosen)(values, axis=-1, keepdims=False)
        found = as_ndarray(reduced).reshape([1 if i in (row, column) else d for i, d in enumerate(x.shape)])
    else:
        raise ValueError("Invalid norm order for matrices.")
    return found if keepdims else operator("_np_squeeze", found, axis=(row, column))


def svd(a: Any) -> Any:
    """UT, L, V with a = UT diag(L) V, as a tuple."""
    return tuple(operator("_npi_svd", floating(a)))


def cholesky(a: Any) -> Any:
    """The lower triangular L with a = L L^T."""
    return operator("_npi_cholesky", floating(a))


def inv(a: Any) -> Any:
    """The inverse."""
    return operator("_linalg_inverse", floating(a))


def det(a: Any) -> Any:
    """The determinant."""
    return as_ndarray(operator("_linalg_det", floating(a))).reshape(a.shape[:-2])


def slogdet(a: Any) -> Any:
    """Sign and logarithm of the determinant."""
    return tuple(as_ndarray(x).reshape(a.shape[:-2]) for x in operator("_linalg_slogdet", floating(a)))


def solve(a: Any, b: Any) -> Any:
    """x with a x = b."""
    return operator("_npi_solve", floating(a), floating(b))


def tensorinv(a: Any, ind: int = 2) -> Any:
    """The inverse under tensordot over `ind` axes."""
    return operator("_npi_tensorinv", floating(a), ind=ind)


def tensorsolve(a: Any, b: Any, axes: Any = None) -> Any:
    """x with tensordot(a, x, x.ndim) = b."""
    return operator("_npi_tensorsolve", floating(a), floating(b), a_axes=None if axes is None else tuple(axes))


eig, eigh, eigvals, eigvalsh, pinv = (fallback(getattr(np.linalg, n), n) for n in ("eig", "eigh", "eigvals", "eigvalsh", "pinv"))


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return fallback(getattr(np.linalg, name), name)
