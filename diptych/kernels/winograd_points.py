"""The matrices of Winograd's minimal filtering F(m, 3), from a list of interpolation points; also of stride 2.

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks" (arXiv 1509.09308); the points of F(4, 3)
are those of Barabasz et al. (arXiv 1803.10986) and ncnn: +-1/sqrt(2), +-sqrt(2) keep the error near that of a direct sum.

With stride 2 an output is the sum of two taps of the even inputs, which F(m, 2) does, and of one tap of the odd ones.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

__all__ = ["POINTS", "matrices", "transform_weights"]

Array = np.ndarray[Any, Any]

POINTS: dict[int, tuple[float, ...]] = {
    2: (0.0, 1.0, -1.0),
    4: (0.0, sqrt(0.5), -sqrt(0.5), sqrt(2.0), -sqrt(2.0)),
}
EVEN_POINTS: dict[int, tuple[float, ...]] = {2: (0.0, 1.0), 4: (0.0, 1.0, -1.0, 0.5)}  # of F(m, 2)


def matrices(m: int, bare: bool = False, stride: int = 1) -> tuple[Array, Array, Array]:
    """(A^T, G, B^T) of F(m, 3) in float64: y = A^T ((G g) * (B^T d)) for m outputs, 3 taps, m + 2 inputs (stride 2: 2m + 1).

    `bare`: the rows of G are powers of the points with no factor before them, which is in B^T instead. That makes weights
    cheaper to transform, and inputs a little dearer.

    >>> a, g, b = matrices(2)
    >>> d, w = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 1.0])
    >>> (a @ ((g @ w) * (b @ d))).round(6).tolist()
    [6.0, 9.0]
    """
    if stride == 1:
        return _filtering(POINTS[m], m, 3, bare)
    assert stride == 2
    a, g, b = _filtering(EVEN_POINTS[m], m, 2, bare)
    n = m + 1
    to, weights, data = np.zeros((m, n + m)), np.zeros((n + m, 3)), np.zeros((n + m, n + m))
    to[:, :n], to[:, n:] = a, np.eye(m)
    weights[:n, ::2], weights[n:, 1] = g, 1.0
    data[:n, ::2], data[n:, 1::2] = b, np.eye(m)
    return to, weights, data


def _filtering(points: tuple[float, ...], m: int, taps: int, bare: bool) -> tuple[Array, Array, Array]:
    """The matrices of F(m, taps) of stride 1."""
    n = m + taps - 1
    a = np.zeros((m, n))
    g = np.zeros((n, taps))
    b = np.zeros((n, n))
    whole = np.polynomial.polynomial.polyfromroots(points)
    for i, p in enumerate(points):
        others = [q for j, q in enumerate(points) if j != i]
        a[:, i] = [p**k for k in range(m)]
        g[i] = [p**k / np.prod([p - q for q in others]) for k in range(taps)]
        b[i, : n - 1] = np.polynomial.polynomial.polyfromroots(others)
    a[m - 1, n - 1] = 1.0
    g[n - 1, taps - 1] = 1.0
    b[n - 1] = whole
    if bare:
        factors = np.array([*(row[0] for row in g[:-1]), 1.0])
        g, b = g / factors[:, None], b * factors[:, None]
    # Exact zeros, ones and symmetric values, which sums are shared by: roots come with rounding errors.
    a, g, b = (matrix.round(14) + 0.0 for matrix in (a, g, b))
    return a, g, b


def transform_weights(w: Array, m: int, stride: int = 1) -> Array:
    """w[O, C, 3, 3] -> U[ceil(O / 16), points, C, 16], computed in float64 and rounded once; missing outputs 0."""
    _, g, _ = matrices(m, stride=stride)
    both = np.kron(g, g)  # [points, 9]: both axes at once, one matrix product
    o, c = w.shape[:2]
    panels = -(-o // 16)
    # Products of this size stay on one BLAS thread: waiting for a second one costs many times what it brings.
    step = (1 << 18) // both.size
    out = np.zeros((panels, len(both), c, 16), np.float32)
    for panel in range(panels):  # a panel at a time stays in cache
        part = w[16 * panel : 16 * panel + 16]
        taps = part.reshape(len(part) * c, 9).T.astype(np.float64)
        made = np.empty((len(both), taps.shape[1]))
        for at in range(0, taps.shape[1], step):
            made[:, at : at + step] = both @ taps[:, at : at + step]
        out[panel, :, :, : len(part)] = made.reshape(len(both), len(part), c).transpose(0, 2, 1)
    return out
