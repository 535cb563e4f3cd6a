"""Adaptive pooling: the windows follow from the extent of the result."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Loops, S, op
from diptych.ops.indexing import OneHot
from diptych.ops.pool import AvgPool, MaxPool
from diptych.ops.rules import along_axis, floats, narrowed, per_axis, widened
from diptych.ops.scan import ArgMax

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["AdaptiveAvgPool", "AdaptiveMaxPool", "adaptive_bounds"]


def adaptive_bounds(size: int, out: int) -> tuple[tuple[int, int], ...]:
    """The (start, stop) of each adaptive window: floor(i * size / out) to ceil((i + 1) * size / out).

    >>> adaptive_bounds(5, 3)
    ((0, 2), (1, 4), (3, 5))
    """
    return tuple((i * size // out, -(-(i + 1) * size // out)) for i in range(out))


def _adaptive_infer(x: TensorType, output_size: tuple[int, ...]) -> TensorType:
    floats(x)
    if not 3 <= x.rank <= 5:
        raise TypeRuleError(f"input {x} must be [N, C, ...] with 1 to 3 spatial axes")
    per_axis("output_size", output_size, x.rank - 2, 1)
    if 0 in x.shape[2:]:
        raise TypeRuleError(f"input {x} is empty along a spatial axis")
    return x.with_shape((*x.shape[:2], *output_size))


def _equal_windows(shape: tuple[int, ...], output_size: tuple[int, ...]
                   ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]] | None:  # fmt: skip
    """Kernel, strides and pads of the same pooling with a kernel, if the extents divide."""
    if any(d % o for d, o in zip(shape[2:], output_size, strict=True)):
        return None
    kernel = tuple(d // o for d, o in zip(shape[2:], output_size, strict=True))
    return kernel, kernel, ((0, 0),) * len(kernel)


def _averages(size: int, out: int) -> Array:
    """The matrix [size, out] that averages one axis."""
    matrix = np.zeros((size, out))
    for i, (a, b) in enumerate(adaptive_bounds(size, out)):
        matrix[a:b, i] = 1.0 / (b - a)
    return matrix


@op
class AdaptiveAvgPool(Loops):
    """Mean over windows that divide the input into `output_size` (overlapping) parts."""

    output_size: tuple[int, ...]

    samples = (
        S((1, 3, 7, 7), output_size=(1, 1)),
        S((2, 5, 9, 7), output_size=(3, 2)),
        S((1, 4, 5, 6), output_size=(4, 6)),
        S((1, 2, 3, 2), output_size=(5, 4)),
        S((2, 3, 10), output_size=(4,)),
        S((1, 2, 4, 5, 6), output_size=(2, 3, 4)),
        S((0, 2, 4, 4), output_size=(2, 2), grad=False),
    )

    def infer(self, x: TensorType) -> TensorType:
        return _adaptive_infer(x, self.output_size)

    def decompose(self, g: Builder, x: Value) -> Value:
        """Pooling with a kernel where the windows are equal, else one product per axis."""
        if equal := _equal_windows(x.shape, self.output_size):
            return g.emit(AvgPool(*equal), x)
        for axis, out in enumerate(self.output_size, 2):
            x = along_axis(g, x, _averages(x.shape[axis], out), axis)
        return x

    def reference(self, x: Array) -> Array:
        y = widened(x)
        for axis, out in enumerate(self.output_size, 2):
            bounds = adaptive_bounds(y.shape[axis], out)
            rows = np.moveaxis(y, axis, 0)
            y = np.stack([rows[a:b].sum(0) / y.dtype.type(b - a) for a, b in bounds], axis)
        return narrowed(y, x)

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        (x,), (dx,) = xs, dys
        for axis, out in enumerate(self.output_size, 2):
            dx = along_axis(g, dx, _averages(x.shape[axis], out).T, axis)
        return (dx,)


@op
class AdaptiveMaxPool(Loops):
    """Largest element of windows that divide the input into `output_size` (overlapping) parts; NaN propagates."""

    output_size: tuple[int, ...]

    samples = (
        S((1, 3, 7, 7), output_size=(1, 1)),
        S((2, 5, 9, 7), output_size=(3, 2)),
        S((1, 2, 3, 2), output_size=(5, 4)),
        S((2, 3, 10), output_size=(4,)),
        S((1, 2, 4, 5, 6), output_size=(2, 3, 4)),
    )

    def infer(self, x: TensorType) -> TensorType:
        return _adaptive_infer(x, self.output_size)

    def decompose(self, g: Builder, x: Value) -> Value:
        """Pooling with a kernel where the windows are equal, else maxima of slices, axis by axis."""
        if equal := _equal_windows(x.shape, self.output_size):
            return g.emit(MaxPool(*equal), x)
        for axis, out in enumerate(self.output_size, 2):
            parts = [g.slice_axis(x, axis, a, b) for a, b in adaptive_bounds(x.shape[axis], out)]
            x = g.concat([g.max(p, axis, keepdims=True) for p in parts], axis)
        return x

    def reference(self, x: Array) -> Array:
        y = x
        for axis, out in enumerate(self.output_size, 2):
            rows = np.moveaxis(y, axis, 0)
            y = np.stack([rows[a:b].max(0) for a, b in adaptive_bounds(y.shape[axis], out)], axis)
        return y

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        """Window by window: the first of equal maxima takes the gradient of its cell."""
        (x,), (dy,) = xs, dys
        bounds = [adaptive_bounds(d, o) for d, o in zip(x.shape[2:], self.output_size, strict=True)]
        total: Value | None = None
        for cell in product(*map(range, self.output_size)):
            spans = [b[i] for b, i in zip(bounds, cell, strict=True)]
            window = g.slice(x, [0, 0, *(a for a, _ in spans)], [*x.shape[:2], *(b for _, b in spans)])
            size = prod(window.shape[2:])
            best = g.emit(ArgMax(axis=2), g.reshape(window, (*x.shape[:2], size)))
            share = g.slice(dy, [0, 0, *cell], [*x.shape[:2], *(i + 1 for i in cell)])
            share = g.mul(g.emit(OneHot(size, dtype=x.dtype), best), g.reshape(share, (*x.shape[:2], 1)))
            pads = [(a, d - b) for (a, b), d in zip(spans, x.shape[2:], strict=True)]
            part = g.pad(g.reshape(share, window.shape), [(0, 0), (0, 0), *pads])
            total = part if total is None else g.add(total, part)
        return (total,)
