"""Normalisation layers."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Arg, Composite, Loops, S, normalize_axes, normalize_axis, op
from diptych.ops.rules import floats, narrowed, sum_to, widened

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "L2Normalize", "LayerNorm", "Lrn", "RmsNorm"]


def _channels(x: TensorType, axis: int, **vectors: TensorType) -> None:
    """Each of `vectors` must hold one number per channel of `x`."""
    for name, t in vectors.items():
        if t.shape != (x.shape[axis],):
            raise TypeRuleError(f"{name} {t} must have shape ({x.shape[axis]},), one per channel of {x}")


def _spread(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape that broadcasts a per-channel vector against `shape`."""
    return tuple(d if i == axis else 1 for i, d in enumerate(shape))


def _standard(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """(x - mean) / sqrt(var + eps) over `axes`, in two passes."""
    if x.size == 0:
        return x
    d: Array = x - x.mean(axes, keepdims=True)
    d /= np.sqrt(np.mean(d * d, axes, keepdims=True) + x.dtype.type(eps))
    return d


def _standardize(g: Builder, x: Value, axes: tuple[int, ...], eps: float) -> Value:
    d = g.sub(x, g.mean(x, axes, keepdims=True))
    return g.mul(d, g.rsqrt(g.add(g.mean(g.square(d), axes, keepdims=True), eps)))


@op
class BatchNorm(Composite):
    """Batch normalisation with fixed statistics: (x - mean) / sqrt(var + eps) * gamma + beta along `axis`."""

    eps: float = 1e-5
    axis: int = 1

    samples = (
        S((2, 3, 4, 5), (3,), (3,), (3,), Arg((3,), low=0.1)),
        S((4, 7), (7,), (7,), (7,), Arg((7,), low=0.1), eps=1e-3),
        S((2, 5, 6, 3), (3,), (3,), (3,), Arg((3,), low=0.1), axis=-1, eps=2e-5),
        S((0, 3, 2), (3,), (3,), (3,), Arg((3,), low=0.1), grad=False),
    )

    def infer(self, x: TensorType, gamma: TensorType, beta: TensorType, mean: TensorType, var: TensorType
              ) -> TensorType:  # fmt: skip
        floats(x, gamma, beta, mean, var)
        _channels(x, normalize_axis(self.axis, x.rank), gamma=gamma, beta=beta, mean=mean, var=var)
        return x

    def reference(self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array) -> Array:
        shape = _spread(x.shape, self.axis % x.ndim)
        scale = widened(gamma) / np.sqrt(widened(var) + widened(var).dtype.type(self.eps))
        y = (widened(x) - widened(mean).reshape(shape)) * scale.reshape(shape) + widened(beta).reshape(shape)
        return narrowed(y, x)

    def decompose(self, g: Builder, x: Value, gamma: Value, beta: Value, mean: Value, var: Value) -> Value:
        # scale and shift are per channel and fold to constants (or into the convolution before) when the weights are
        shape = _spread(x.shape, self.axis % x.rank)
        scale = g.mul(gamma, g.rsqrt(g.add(var, self.eps)))
        shift = g.sub(beta, g.mul(mean, scale))
        return g.add(g.mul(x, g.reshape(scale, shape)), g.reshape(shift, shape))


@op
class LayerNorm(Loops):
    """Normalise over the axes from `axis` to the last, then scale by gamma and shift by beta where given."""

    axis: int = -1
    eps: float = 1e-5

    samples = (
        S((3, 8), (8,), (8,)),
        S((2, 5, 17), (17,), (17,), eps=1e-12),
        S((2, 3, 4, 5), (4, 5), (4, 5), axis=2),
        S((6, 9)),
        S((6, 9), (9,)),
        S((2, 3, 4), (3, 4), (3, 4), axis=-2, eps=1e-3),
        S((0, 4), (4,), (4,), grad=False),
        S(Arg((3, 6), "f64"), Arg((6,), "f64"), Arg((6,), "f64")),
        S((2, 384), (384,), (384,)),
    )

    def infer(self, x: TensorType, gamma: TensorType | None = None, beta: TensorType | None = None) -> TensorType:
        floats(x, gamma, beta)
        inner = x.shape[normalize_axis(self.axis, x.rank) :]
        for name, t in (("gamma", gamma), ("beta", beta)):
            if t is not None and t.shape != inner:
                raise TypeRuleError(f"{name} {t} must have shape {inner}, the axes of {x} from axis={self.axis} on")
        return x

    def _axes(self, rank: int) -> tuple[int, ...]:
        return tuple(range(normalize_axis(self.axis, rank), rank))

    def reference(self, x: Array, gamma: Array | None = None, beta: Array | None = None) -> Array:
        y = _standard(widened(x), self._axes(x.ndim), self.eps)
        if gamma is not None:
            y = y * widened(gamma)
        if beta is not None:
            y = y + widened(beta)
        return narrowed(y, x)

    def decompose(self, g: Builder, x: Value, gamma: Value | None = None, beta: Value | None = None) -> Value:
        """The same in simpler operators, for targets without a kernel of it."""
        y = _standardize(g, x, self._axes(x.rank), self.eps)
        if gamma is not None:
            y = g.mul(y, gamma)
        return y if beta is None else g.add(y, beta)

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        x, dy, axes = xs[0], dys[0], self._axes(xs[0].rank)
        d = g.sub(x, g.mean(x, axes, keepdims=True))
        inverse = g.rsqrt(g.add(g.mean(g.square(d), axes, keepdims=True), self.eps))
        unit = g.mul(d, inverse)
        h = dy if len(xs) == 1 else g.mul(dy, xs[1])
        along = g.add(g.mean(h, axes, keepdims=True), g.mul(unit, g.mean(g.mul(h, unit), axes, keepdims=True)))
        grads = [g.mul(inverse, g.sub(h, along))]
        grads += [sum_to(g, g.mul(dy, unit), v.shape) for v in xs[1:2]]
        grads += [sum_to(g, dy, v.shape) for v in xs[2:]]
        return tuple(grads)


@op
class RmsNorm(Composite):
    """x / sqrt(mean(x^2) + eps) * gamma over the last axes, as many as gamma has (Zhang and Sennrich, 2019)."""

    eps: float = 1e-6

    samples = (
        S((3, 8), (8,)),
        S((2, 3, 4, 5), (4, 5), eps=1e-5),
        S((2, 33), (33,)),
        S((0, 4), (4,), grad=False),
    )

    def infer(self, x: TensorType, gamma: TensorType) -> TensorType:
        floats(x, gamma)
        if not 1 <= gamma.rank <= x.rank or x.shape[x.rank - gamma.rank :] != gamma.shape:
            raise TypeRuleError(f"gamma {gamma} must have the shape of the last axes of {x}")
        return x

    def reference(self, x: Array, gamma: Array) -> Array:
        if x.size == 0:
            return x
        wide = widened(x)
        square = np.mean(wide * wide, tuple(range(x.ndim - gamma.ndim, x.ndim)), keepdims=True)
        y = wide / np.sqrt(square + wide.dtype.type(self.eps)) * widened(gamma)
        return narrowed(y, x)

    def decompose(self, g: Builder, x: Value, gamma: Value) -> Value:
        axes = tuple(range(x.rank - gamma.rank, x.rank))
        scale = g.rsqrt(g.add(g.mean(g.square(x), axes, keepdims=True), self.eps))
        return g.mul(g.mul(x, scale), gamma)


@op
class GroupNorm(Composite):
    """Normalise x[N, C, *S] over each of `groups` groups of channels, then scale and shift per channel."""

    groups: int
    eps: float = 1e-5

    samples = (
        S((2, 6, 4, 5), (6,), (6,), groups=3),
        S((1, 8, 7), (8,), (8,), groups=1, eps=1e-3),
        S((3, 4), (4,), (4,), groups=2),
        S((0, 4, 3), (4,), (4,), groups=2, grad=False),
    )

    def infer(self, x: TensorType, gamma: TensorType, beta: TensorType) -> TensorType:
        floats(x, gamma, beta)
        if x.rank < 2 or self.groups < 1 or x.shape[1] % self.groups:
            raise TypeRuleError(f"the channels of {x} (axis 1) do not divide into groups={self.groups}")
        _channels(x, 1, gamma=gamma, beta=beta)
        return x

    def _grouped(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], self.groups, shape[1] // self.groups * prod(shape[2:]))

    def reference(self, x: Array, gamma: Array, beta: Array) -> Array:
        shape = _spread(x.shape, 1)
        y = _standard(widened(x).reshape(self._grouped(x.shape)), (2,), self.eps).reshape(x.shape)
        y = y * widened(gamma).reshape(shape) + widened(beta).reshape(shape)
        return narrowed(y, x)

    def decompose(self, g: Builder, x: Value, gamma: Value, beta: Value) -> Value:
        shape = _spread(x.shape, 1)
        y = g.reshape(_standardize(g, g.reshape(x, self._grouped(x.shape)), (2,), self.eps), x.shape)
        return g.add(g.mul(y, g.reshape(gamma, shape)), g.reshape(beta, shape))


@op
class InstanceNorm(Composite):
    """Normalise x[N, C, *S] over the spatial axes of each channel, then scale and shift per channel."""

    eps: float = 1e-5

    samples = (
        S((2, 3, 4, 5), (3,), (3,)),
        S((1, 5, 9), (5,), (5,), eps=1e-3),
        S((2, 2, 3, 2, 4), (2,), (2,)),
        S((0, 3, 4), (3,), (3,), grad=False),
    )

    def infer(self, x: TensorType, gamma: TensorType, beta: TensorType) -> TensorType:
        floats(x, gamma, beta)
        if x.rank < 3:
            raise TypeRuleError(f"input {x} has no spatial axes; [N, C, ...] expected")
        _channels(x, 1, gamma=gamma, beta=beta)
        return x

    def reference(self, x: Array, gamma: Array, beta: Array) -> Array:
        shape = _spread(x.shape, 1)
        y = _standard(widened(x), tuple(range(2, x.ndim)), self.eps)
        y = y * widened(gamma).reshape(shape) + widened(beta).reshape(shape)
        return narrowed(y, x)

    def decompose(self, g: Builder, x: Value, gamma: Value, beta: Value) -> Value:
        shape = _spread(x.shape, 1)
        y = _standardize(g, x, tuple(range(2, x.rank)), self.eps)
        return g.add(g.mul(y, g.reshape(gamma, shape)), g.reshape(beta, shape))


@op
class L2Normalize(Composite):
    """x / |x| over `axes`: mode "add" divides by sqrt(sum(x^2) + eps) (MXNet), "max" by max(|x|, eps) (PyTorch)."""

    axes: tuple[int, ...]
    eps: float = 1e-10
    mode: str = "add"

    samples = (
        S((3, 8), axes=(1,)),
        S((2, 3, 4, 5), axes=(1,), mode="max", eps=1e-12),
        S((2, 3, 4, 5), axes=(1, 2, 3)),
        S((2, 3, 4), axes=(-1,), mode="max", eps=2.0, grad=False),
        S((0, 4), axes=(1,), grad=False),
    )

    def infer(self, x: TensorType) -> TensorType:
        floats(x)
        normalize_axes(self.axes, x.rank)
        if self.mode not in ("add", "max"):
            raise TypeRuleError(f"mode={self.mode!r} is neither 'add' nor 'max'")
        return x

    def reference(self, x: Array) -> Array:
        wide = widened(x)
        eps = wide.dtype.type(self.eps)
        total = np.sum(wide * wide, self.axes, keepdims=True)
        norm = np.sqrt(total + eps) if self.mode == "add" else np.maximum(np.sqrt(total), eps)
        return narrowed(wide / norm, x)

    def decompose(self, g: Builder, x: Value) -> Value:
        total = g.sum(g.square(x), self.axes, keepdims=True)
        if self.mode == "add":
            return g.mul(x, g.rsqrt(g.add(total, self.eps)))
        return g.div(x, g.maximum(g.sqrt(total), self.eps))


@op
class Lrn(Composite):
    """Local response normalisation: x / (k + alpha * mean of x^2 over `size` neighbouring channels)^beta."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    samples = (
        S((2, 7, 4, 5), size=5, alpha=1e-2, k=2.0),
        S((1, 6, 9), size=3, alpha=0.5, beta=0.5),
        S((2, 5, 3), size=4, alpha=0.3),
        S((1, 2, 3, 3), size=5, alpha=0.3),
    )

    def infer(self, x: TensorType) -> TensorType:
        floats(x)
        if x.rank < 2 or self.size < 1:
            raise TypeRuleError(f"size={self.size} must be at least 1 and input {x} must have channels (axis 1)")
        return x

    def _pads(self, rank: int) -> list[tuple[int, int]]:
        return [(0, 0), (self.size // 2, (self.size - 1) // 2), *[(0, 0)] * (rank - 2)]

    def reference(self, x: Array) -> Array:
        wide = widened(x)
        square = np.pad(wide * wide, self._pads(x.ndim))
        total = sum(square[:, i : i + x.shape[1]] for i in range(self.size))
        y = wide / np.power(self.k + (self.alpha / self.size) * total, self.beta)
        return narrowed(y, x)

    def decompose(self, g: Builder, x: Value) -> Value:
        square = g.pad(g.square(x), self._pads(x.rank))
        total = g.slice_axis(square, 1, 0, x.shape[1])
        for i in range(1, self.size):
            total = g.add(total, g.slice_axis(square, 1, i, i + x.shape[1]))
        return g.mul(x, g.pow(g.add(g.mul(total, self.alpha / self.size), self.k), -self.beta))
