"""Pooling over windows of the spatial axes of x[N, C, *S]."""

from __future__ import annotations

from functools import reduce
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Arg, Loops, S, op
from diptych.ops.conv import ConvTranspose
from diptych.ops.rules import floats, narrowed, per_axis, widened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["AvgPool", "LpPool", "MaxPool", "pool_extents"]

Pads = tuple[tuple[int, int], ...]
ROUNDINGS = ("floor", "ceil_torch", "ceil_mxnet")


def pool_extents(shape: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], pads: Pads,
                 dilations: tuple[int, ...], rounding: str, padding_counts: bool = False
                 ) -> tuple[int, ...]:  # fmt: skip
    """Spatial extents of a pooling result; every window must hold an element of the input (or of the padding).

    >>> pool_extents((6,), (2,), (3,), ((0, 0),), (1,), "floor")
    (2,)
    """
    n = len(shape)
    if not 1 <= n <= 3:
        raise TypeRuleError(f"pooling takes 1 to 3 spatial axes, the input has {n}")
    per_axis("kernel", kernel, n, 1)
    per_axis("strides", strides, n, 1)
    per_axis("dilations", dilations, n, 1)
    if len(pads) != n or any(len(p) != 2 or min(p) < 0 for p in pads):
        raise TypeRuleError(f"pads={pads!r}: {n} pairs (low, high) of integers >= 0 expected")
    if rounding not in ROUNDINGS:
        raise TypeRuleError(f"rounding={rounding!r} is none of {', '.join(ROUNDINGS)}")
    out = []
    for i, (size, k, s, (lo, hi), d) in enumerate(zip(shape, kernel, strides, pads, dilations, strict=True)):
        reach = d * (k - 1) + 1
        room = size + lo + hi - reach
        where = f"spatial axis {i} of extent {size} with kernel {k}, stride {s}, dilation {d}, pads {(lo, hi)}"
        if room < 0:
            raise TypeRuleError(f"{where}: the window is longer than the padded input")
        extent = room // s + 1
        if rounding != "floor" and room % s:
            extent += 1
            if rounding == "ceil_torch" and (extent - 1) * s >= size + lo:
                extent -= 1
        last = (extent - 1) * s - lo
        if last >= size + hi or (not padding_counts and (reach <= lo or last >= size)):
            raise TypeRuleError(f"{where}, rounding {rounding!r}: a window would lie wholly outside the input")
        out.append(extent)
    return tuple(out)


class _Windows(Loops):
    """What the pooling operators with a kernel share: window geometry from the fields."""

    __slots__ = ()
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: Pads
    rounding: str

    def _dilations(self) -> tuple[int, ...]:
        return getattr(self, "dilations", ()) or (1,) * len(self.kernel)

    def extents(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial extents of the result for an input of this shape."""
        if len(shape) < 3:
            raise TypeRuleError(f"input of shape {shape} has no spatial axes; [N, C, ...] expected")
        counts = bool(getattr(self, "count_include_pad", False))
        return pool_extents(shape[2:], self.kernel, self.strides, self.pads, self._dilations(), self.rounding, counts)

    def infer(self, x: TensorType) -> TensorType:
        floats(x)
        return x.with_shape((*x.shape[:2], *self.extents(x.shape)))

    def needed(self, shape: tuple[int, ...]) -> Pads:
        """Padding such that the last window fits exactly or is cut: `pads`, with more at the high end for ceil."""
        dims = zip(shape[2:], self.extents(shape), self.kernel, self.strides, self.pads, self._dilations(), strict=True)
        return tuple((lo, max(hi, (o - 1) * s + d * (k - 1) + 1 - size - lo)) for size, o, k, s, (lo, hi), d in dims)

    def shifts(self, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
        """For each position in the window: where the elements it meets lie in the input padded by `needed`."""
        out, dil = self.extents(shape), self._dilations()
        for at in product(*map(range, self.kernel)):
            dims = zip(at, out, self.strides, dil, strict=True)
            yield (slice(None), slice(None), *(slice(a * d, a * d + s * (o - 1) + 1, s) for a, o, s, d in dims))

    def fold(self, x: Array, fill: float, combine: Callable[..., Array]) -> Array:
        """Combine the elements of each window, the padding counting as `fill`."""
        padded = np.pad(x, ((0, 0), (0, 0), *self.needed(x.shape)), constant_values=fill)
        y: Array | None = None
        for where in self.shifts(x.shape):
            part = padded[where]
            y = part.copy() if y is None else combine(y, part, out=y)
        assert y is not None  # a kernel has at least one position
        return y

    def unfold(self, g: Builder, parts: list[Value], shape: tuple[int, ...]) -> Value:
        """The gradient side of `fold`: add parts[k], met by window position k, back into an input of `shape`."""
        n, c, dil = len(self.kernel), shape[1], self._dilations()
        count = len(parts)
        stacked = g.reshape(g.stack(parts, 2), (shape[0], c * count, *parts[0].shape[2:]))
        place = np.eye(count).reshape(1, count, 1, *self.kernel)
        weight = g.constant(np.tile(place, (c, 1, *(1,) * (n + 1))).reshape(c * count, 1, *self.kernel), stacked.dtype)
        pads, extra = [], []
        for size, o, k, s, (lo, _), d in zip(
            shape[2:], parts[0].shape[2:], self.kernel, self.strides, self.pads, dil, strict=True
        ):
            surplus = (o - 1) * s + d * (k - 1) + 1 - lo - size
            pads.append((lo, max(0, surplus)))
            extra.append(max(0, -surplus))
        transposed = ConvTranspose(
            strides=self.strides, pads=tuple(pads), dilations=dil, groups=c, output_padding=tuple(extra)
        )
        return g.emit(transposed, stacked, weight)

    def padded(self, g: Builder, x: Value, fill: float) -> list[Value]:
        """For each position in the window: the elements it meets, as graph values."""
        padded = g.pad(x, ((0, 0), (0, 0), *self.needed(x.shape)), value=fill)
        parts = []
        for where in self.shifts(x.shape):
            bounds = [s.indices(d) for s, d in zip(where, padded.shape, strict=True)]
            parts.append(g.slice(padded, [b[0] for b in bounds], [b[1] for b in bounds], [b[2] for b in bounds]))
        return parts


@op
class MaxPool(_Windows):
    """Largest element of each window; padding never wins, NaN propagates."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: Pads
    dilations: tuple[int, ...] = ()  # () means ones
    rounding: str = "floor"

    samples = (
        S((1, 3, 8, 8), kernel=(2, 2), strides=(2, 2), pads=((0, 0), (0, 0))),
        S((2, 5, 9, 7), kernel=(3, 3), strides=(2, 2), pads=((1, 1), (1, 1))),
        S((1, 4, 7, 10), kernel=(3, 2), strides=(1, 3), pads=((0, 1), (1, 0))),
        S((1, 2, 8, 8), kernel=(3, 3), strides=(2, 2), pads=((0, 0), (0, 0)), rounding="ceil_torch"),
        S((1, 2, 5, 6), kernel=(2, 2), strides=(2, 2), pads=((1, 1), (1, 1)), rounding="ceil_torch"),
        S((1, 2, 8, 8), kernel=(3, 3), strides=(2, 2), pads=((0, 0), (0, 0)), rounding="ceil_mxnet"),
        S((1, 2, 9, 9), kernel=(3, 3), strides=(1, 1), pads=((2, 2), (2, 2)), dilations=(2, 2)),
        S((2, 3, 10), kernel=(4,), strides=(3,), pads=((1, 1),)),
        S((1, 2, 4, 5, 6), kernel=(2, 3, 2), strides=(2, 1, 2), pads=((0, 0), (1, 1), (0, 0))),
        S((0, 2, 4, 4), kernel=(2, 2), strides=(2, 2), pads=((0, 0), (0, 0)), grad=False),
        S((1, 18, 7, 7), kernel=(3, 3), strides=(1, 1), pads=((1, 1), (1, 1))),
        S((2, 3, 27, 1), kernel=(27, 1), strides=(1, 1), pads=((0, 0), (0, 0))),
        S((2, 17, 3, 5), kernel=(3, 5), strides=(2, 2), pads=((0, 0), (0, 0))),
        S(Arg((1, 2, 4, 4), "f64"), kernel=(2, 2), strides=(1, 1), pads=((0, 0), (0, 0))),
    )

    def reference(self, x: Array) -> Array:
        return self.fold(x, -np.inf, np.maximum)

    def decompose(self, g: Builder, x: Value) -> Value:
        """The same in simpler operators, for targets without a kernel of it."""
        return reduce(g.maximum, self.padded(g, x, -np.inf))

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        """The first of equal maxima takes the whole gradient."""
        (x,), (y,), (dy,) = xs, ys, dys
        if self.kernel == x.shape[2:] and not any(map(any, self.pads)) and all(x.shape):
            return (_gradient_of_all(g, x, dy),)
        parts: list[Value] = []
        taken: Value | None = None
        for part in self.padded(g, x, -np.inf):
            hit = g.equal(part, y)
            first = hit if taken is None else g.ew("logical_and", hit, g.ew("logical_not", taken))
            parts.append(g.where(first, dy, 0.0))
            taken = hit if taken is None else g.ew("logical_or", taken, hit)
        return (self.unfold(g, parts, x.shape),)


def _gradient_of_all(g: Builder, x: Value, dy: Value) -> Value:
    """That of one window over everything: as many steps as one with few places, where each place has its own above."""
    count = prod(x.shape[2:])
    first = g.ew("arg_max", g.reshape(x, (*x.shape[:2], count)), axis=2, keepdims=True)
    hit = g.equal(first, g.constant(np.arange(count, dtype=np.int64)))
    return g.reshape(g.where(hit, g.reshape(dy, (*x.shape[:2], 1)), 0.0), x.shape)


@op
class AvgPool(_Windows):
    """Mean of each window. With count_include_pad the padding counts as zeros, but not what lies beyond it (ceil)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: Pads
    rounding: str = "floor"
    count_include_pad: bool = True

    samples = (
        S((1, 3, 8, 8), kernel=(2, 2), strides=(2, 2), pads=((0, 0), (0, 0))),
        S((2, 5, 9, 7), kernel=(3, 3), strides=(2, 2), pads=((1, 1), (1, 1))),
        S((2, 5, 9, 7), kernel=(3, 3), strides=(1, 2), pads=((1, 1), (1, 1)), count_include_pad=False),
        S((1, 2, 8, 7), kernel=(3, 3), strides=(2, 2), pads=((1, 1), (1, 1)), rounding="ceil_torch"),
        S((1, 2, 8, 8), kernel=(3, 3), strides=(2, 2), pads=((0, 0), (0, 0)), rounding="ceil_mxnet",
          count_include_pad=False),
        S((1, 2, 6, 9), kernel=(3, 2), strides=(2, 1), pads=((0, 2), (1, 0)), rounding="ceil_mxnet"),
        S((2, 3, 10), kernel=(4,), strides=(3,), pads=((1, 2),)),
        S((1, 2, 4, 5, 6), kernel=(2, 3, 2), strides=(2, 1, 2), pads=((0, 0), (1, 1), (0, 0))),
        S((0, 2, 4, 4), kernel=(2, 2), strides=(2, 2), pads=((0, 0), (0, 0)), grad=False),
        S((1, 17, 7, 7), kernel=(7, 7), strides=(1, 1), pads=((0, 0), (0, 0))),
    )  # fmt: skip

    def counts(self, shape: tuple[int, ...]) -> Array:
        """How many elements each window divides by, as float64 of the result's spatial shape."""
        total: Array = np.ones(())
        for size, o, k, s, (lo, hi) in zip(
            shape[2:], self.extents(shape), self.kernel, self.strides, self.pads, strict=True
        ):
            start = np.arange(o) * s - lo
            stop = np.minimum(start + k, size + (hi if self.count_include_pad else 0))
            n = stop - (start if self.count_include_pad else np.maximum(start, 0))
            total = total[..., None] * n
        return total.astype(np.float64)

    def reference(self, x: Array) -> Array:
        y = self.fold(widened(x), 0.0, np.add)
        y /= self.counts(x.shape).astype(y.dtype)
        return narrowed(y, x)

    def decompose(self, g: Builder, x: Value) -> Value:
        """The same in simpler operators, for targets without a kernel of it."""
        return g.div(reduce(g.add, self.padded(g, x, 0.0)), g.constant(self.counts(x.shape), x.dtype))

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        (x,), (dy,) = xs, dys
        share = g.mul(dy, g.constant(1.0 / self.counts(x.shape), dy.dtype))
        return (self.unfold(g, [share] * prod(self.kernel), x.shape),)


@op
class LpPool(_Windows):
    """The p-norm of each window: (sum of |x|^p)^(1/p)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: Pads
    p: float = 2.0
    rounding: str = "floor"

    samples = (
        S((1, 3, 8, 8), kernel=(2, 2), strides=(2, 2), pads=((0, 0), (0, 0))),
        S((2, 3, 9, 7), kernel=(3, 2), strides=(2, 1), pads=((1, 1), (0, 1)), p=1.0),
        S((1, 2, 8, 7), kernel=(3, 3), strides=(2, 2), pads=((0, 0), (0, 0)), p=3.0, rounding="ceil_torch"),
        S((1, 2, 11), kernel=(4,), strides=(2,), pads=((1, 1),), p=2.0),
    )

    def infer(self, x: TensorType) -> TensorType:
        if not self.p > 0:
            raise TypeRuleError(f"p={self.p} must be positive")
        return _Windows.infer(self, x)

    def reference(self, x: Array) -> Array:
        size = np.abs(widened(x))
        powers = size * size if self.p == 2 else size if self.p == 1 else np.power(size, self.p)
        y = self.fold(powers, 0.0, np.add)
        y = np.sqrt(y) if self.p == 2 else y if self.p == 1 else np.power(y, 1.0 / self.p)
        return narrowed(y, x)

    def decompose(self, g: Builder, x: Value) -> Value:
        """The same in simpler operators, for targets without a kernel of it."""
        powers = g.square(x) if self.p == 2 else g.ew("abs", x)
        powers = powers if self.p in (1, 2) else g.pow(powers, self.p)
        total = reduce(g.add, self.padded(g, powers, 0.0))
        return g.sqrt(total) if self.p == 2 else total if self.p == 1 else g.pow(total, 1.0 / self.p)

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        """dx = sign(x) |x|^(p-1) * sum over windows of dy * y^(1-p); zero where the norm is zero."""
        (x,), (y,), (dy,) = xs, ys, dys
        safe = g.where(g.equal(y, 0.0), 1.0, y)
        scaled = g.mul(dy, g.pow(safe, 1.0 - self.p))
        spread = self.unfold(g, [scaled] * prod(self.kernel), x.shape)
        return (g.mul(g.mul(g.ew("sign", x), g.pow(g.ew("abs", x), self.p - 1.0)), spread),)
