"""Resampling of the spatial axes of x[N, C, *S]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Arg, Loops, S, op
from diptych.ops.indexing import Take
from diptych.ops.rules import along_axis, floats, narrowed, per_axis, widened

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["Resize", "resize_taps"]

MODES = ("nearest", "linear", "cubic")
COORDINATES = ("half_pixel", "align_corners", "asymmetric")
_CUBIC = -0.75  # the coefficient of the cubic convolution kernel (Keys, 1981) that PyTorch and OpenCV use


def resize_taps(size: int, out: int, mode: str, coordinates: str, scale: float | None) -> tuple[Array, Array]:
    """For each output position of one axis: the input indices it reads, i64[out, taps], and their weights, f64.

    >>> resize_taps(2, 4, "linear", "half_pixel", None)[1].tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [1.0, 0.0]]
    """
    # PyTorch computes the positions of "nearest" in single precision, and a rounding there moves a whole pixel
    real: Any = np.float32 if mode == "nearest" else np.float64
    at: Array = np.arange(out).astype(real)
    if coordinates == "align_corners":
        step = real(size - 1) / real(out - 1) if out > 1 else real(0)
    else:
        step = real(1.0 / scale) if scale else real(size) / real(out)
    if mode == "nearest":
        if coordinates == "align_corners":
            source = np.floor(at * step + real(0.5))
        else:
            source = np.floor((at + real(0.5)) * step if coordinates == "half_pixel" else at * step)
        index = np.clip(source.astype(np.int64), 0, size - 1)
        return index[:, None], np.ones((out, 1))
    position = (at + 0.5) * step - 0.5 if coordinates == "half_pixel" else at * step
    if mode == "linear":
        position = np.clip(position, 0, size - 1)
        low = np.minimum(position.astype(np.int64), size - 1)
        t = position - low
        return np.stack([low, np.minimum(low + 1, size - 1)], 1), np.stack([1 - t, t], 1)
    low = np.floor(position).astype(np.int64)
    t = position - low
    near = [((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1 for d in (t, 1 - t)]
    far = [((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC for d in (t + 1, 2 - t)]
    index = np.clip(low[:, None] + np.arange(-1, 3), 0, size - 1)
    return index, np.stack([far[0], near[0], near[1], far[1]], 1)


def _matrix(size: int, index: Array, weight: Array) -> Array:
    """The matrix [size, out] that resamples one axis."""
    matrix = np.zeros((size, len(index)))
    np.add.at(matrix, (index, np.arange(len(index))[:, None]), weight)
    return matrix


@op
class Resize(Loops):
    """Resample the spatial axes to `size` by nearest neighbour, (bi-, tri-)linear or cubic interpolation.

    Output position i reads the input at (i + 0.5) * step - 0.5 (half_pixel; "nearest" takes the pixel that
    (i + 0.5) * step falls in), at i * step (asymmetric), with step = in / out or 1 / scale, or at
    i * (in - 1) / (out - 1) (align_corners). Reads beyond the border take the border.
    """

    size: tuple[int, ...]
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    scales: tuple[float, ...] | None = None

    samples = (
        S((1, 3, 4, 5), size=(8, 10), coordinates="asymmetric"),
        S((2, 2, 7, 5), size=(3, 9), coordinates="asymmetric"),
        S((1, 2, 7, 5), size=(3, 9)),
        S((1, 2, 5, 6), size=(10, 12), mode="linear"),
        S((2, 3, 5, 6), size=(9, 11), mode="linear", coordinates="align_corners"),
        S((1, 2, 9, 7), size=(4, 3), mode="linear"),
        S((1, 2, 5, 6), size=(11, 13), mode="linear", scales=(2.3, 2.25)),
        S((1, 2, 5, 6), size=(1, 1), mode="linear", coordinates="align_corners"),
        S((1, 2, 5, 4), size=(9, 7), mode="cubic"),
        S((1, 2, 6, 5), size=(4, 8), mode="cubic", coordinates="align_corners"),
        S((2, 3, 7), size=(11,), mode="linear"),
        S((1, 2, 3, 4, 5), size=(5, 4, 8), mode="linear"),
        S((1, 1, 3, 4, 5), size=(6, 8, 10), coordinates="asymmetric"),
        S((1, 18, 6, 6), size=(12, 12), coordinates="asymmetric"),
        S((0, 2, 4, 4), size=(8, 8), mode="linear", grad=False),
        S(Arg((1, 2, 4, 4), "f64"), size=(6, 6), mode="linear"),
    )

    def infer(self, x: TensorType) -> TensorType:
        floats(x)
        n = x.rank - 2
        if not 1 <= n <= 3:
            raise TypeRuleError(f"input {x} must be [N, C, ...] with 1 to 3 spatial axes")
        per_axis("size", self.size, n, 1)
        if 0 in x.shape[2:]:
            raise TypeRuleError(f"input {x} is empty along a spatial axis")
        if self.mode not in MODES or self.coordinates not in COORDINATES:
            raise TypeRuleError(f"mode={self.mode!r}, coordinates={self.coordinates!r}: one of {', '.join(MODES)} and "
                                f"one of {', '.join(COORDINATES)} expected")  # fmt: skip
        if self.scales is not None and (len(self.scales) != n or not all(0 < s < np.inf for s in self.scales)):
            raise TypeRuleError(f"scales={self.scales!r}: {n} positive numbers expected for input {x}")
        return x.with_shape((*x.shape[:2], *self.size))

    def taps(self, shape: tuple[int, ...]) -> tuple[tuple[Array, Array], ...]:
        """`resize_taps` of each spatial axis for an input of `shape`."""
        scales = self.scales or (None,) * len(self.size)
        found = []
        for size, out, scale in zip(shape[2:], self.size, scales, strict=True):
            # PyTorch sets a stated scale aside where the extents say it all: linear when they are equal, and
            # "nearest" of images (two spatial axes, no other number of them) when they are equal or double
            plain = self.mode == "linear" and out == size
            if self.mode == "nearest" and self.coordinates == "asymmetric" and len(self.size) == 2:
                plain = out in (size, 2 * size)
            found.append(resize_taps(size, out, self.mode, self.coordinates, None if plain else scale))
        return tuple(found)

    def decompose(self, g: Builder, x: Value) -> Value:
        """A look-up (nearest) or a product with a constant matrix per axis, for targets without a kernel of it."""
        for axis, (index, weight) in enumerate(self.taps(x.shape), 2):
            if self.mode == "nearest":
                x = g.emit(Take(axis=axis), x, g.constant(index[:, 0], "i64"))
            else:
                x = along_axis(g, x, _matrix(x.shape[axis], index, weight), axis)
        return x

    def reference(self, x: Array) -> Array:
        y = widened(x)
        for axis, (index, weight) in enumerate(self.taps(x.shape), 2):
            if self.mode == "nearest":
                y = np.take(y, index[:, 0], axis)
                continue
            shape = (-1, *(1,) * (y.ndim - axis - 1))
            parts = [np.take(y, i, axis) * w.astype(y.dtype).reshape(shape) for i, w in zip(index.T, weight.T)]
            y = sum(parts[1:], parts[0])
        return narrowed(y, x)

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        (x,), (dx,) = xs, dys
        for axis, (index, weight) in enumerate(self.taps(x.shape), 2):
            dx = along_axis(g, dx, _matrix(x.shape[axis], index, weight).T, axis)
        return (dx,)
