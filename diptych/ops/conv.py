"""Convolution and transposed convolution, one to three spatial axes."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Arg, Contraction, S, op
from diptych.ops.rules import floats, per_axis, widened

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["Conv", "ConvTranspose"]

Pads = tuple[tuple[int, int], ...]
Index = tuple[int | slice, ...]
_COLUMN_BYTES = 1 << 25  # the reference unfolds at most this much of an image at a time


def _check(op: Conv | ConvTranspose, x: TensorType, w: TensorType) -> int:
    """What both operators ask of operands and attributes; the number of spatial axes."""
    n = x.rank - 2
    if not 1 <= n <= 3 or w.rank != x.rank:
        raise TypeRuleError(f"input {x} and weight {w} must both have rank 3, 4 or 5 (1 to 3 spatial axes)")
    per_axis("strides", op.strides, n, 1)
    per_axis("dilations", op.dilations, n, 1)
    if len(op.pads) != n or any(len(p) != 2 or min(p) < 0 for p in op.pads):
        raise TypeRuleError(f"pads={op.pads!r}: {n} pairs (low, high) of integers >= 0 expected for input {x}")
    if op.groups < 1:
        raise TypeRuleError(f"groups={op.groups} must be at least 1")
    if 0 in w.shape[1:]:
        raise TypeRuleError(f"weight {w} is empty")
    return n


def _dilated(g: Builder, w: Value, dilations: tuple[int, ...]) -> Value:
    """The kernel with dilation - 1 zeros between its elements."""
    for axis, d in enumerate(dilations, 2):
        if d > 1 and w.shape[axis] > 1:
            shape = w.shape
            w = g.pad(g.expand_dims(w, axis + 1), [(0, d - 1 if i == axis + 1 else 0) for i in range(w.rank + 1)])
            w = g.reshape(w, (*shape[:axis], shape[axis] * d, *shape[axis + 1 :]))
            w = g.slice_axis(w, axis, 0, (shape[axis] - 1) * d + 1)
    return w


@op
class Conv(Contraction):
    """Convolution (cross-correlation) of x[N, C, *S] with w[O, C/groups, *K], plus an optional bias[O]."""

    strides: tuple[int, ...]
    pads: Pads
    dilations: tuple[int, ...]
    groups: int = 1

    samples = (
        S((1, 3, 8, 8), (4, 3, 3, 3), (4,), strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1)),
        S((2, 3, 9, 7), (5, 3, 3, 3), strides=(2, 2), pads=((1, 1), (1, 1)), dilations=(1, 1)),
        S((1, 3, 17, 15), (8, 3, 7, 7), (8,), strides=(2, 2), pads=((3, 3), (3, 3)), dilations=(1, 1)),
        S((2, 8, 5, 6), (16, 8, 1, 1), (16,), strides=(1, 1), pads=((0, 0), (0, 0)), dilations=(1, 1)),
        S((1, 6, 7, 7), (4, 6, 1, 1), strides=(2, 2), pads=((0, 0), (0, 0)), dilations=(1, 1)),
        S((1, 4, 9, 9), (6, 4, 3, 3), strides=(1, 1), pads=((2, 2), (2, 2)), dilations=(2, 2)),
        S((1, 4, 8, 9), (6, 4, 3, 2), (6,), strides=(2, 1), pads=((0, 1), (2, 0)), dilations=(1, 3)),
        S((2, 6, 7, 5), (9, 2, 3, 3), (9,), strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=3),
        S((1, 5, 8, 8), (5, 1, 3, 3), (5,), strides=(2, 2), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=5),
        S((1, 16, 9, 9), (16, 1, 5, 5), strides=(1, 1), pads=((2, 2), (2, 2)), dilations=(1, 1), groups=16),
        S((2, 3, 6, 6), (6, 1, 3, 3), strides=(1, 1), pads=((0, 0), (0, 0)), dilations=(1, 1), groups=3),
        S((2, 3, 11), (4, 3, 4), (4,), strides=(3,), pads=((1, 2),), dilations=(2,)),
        S((1, 2, 4, 5, 6), (3, 2, 2, 3, 3), (3,), strides=(1, 2, 1), pads=((0, 1), (1, 1), (1, 0)),
          dilations=(1, 1, 2)),
        S((0, 3, 8, 8), (4, 3, 3, 3), (4,), strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1), grad=False),
        S((1, 3, 3, 5), (2, 3, 3, 5), strides=(1, 1), pads=((0, 0), (0, 0)), dilations=(1, 1)),
        S((1, 20, 6, 21), (36, 20, 3, 3), (36,), strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1)),
        S(Arg((1, 2, 5, 5), "f64"), Arg((3, 2, 3, 3), "f64"), strides=(1, 1), pads=((1, 1), (1, 1)),
          dilations=(1, 1)),
    )  # fmt: skip

    def infer(self, x: TensorType, w: TensorType, bias: TensorType | None = None) -> TensorType:
        floats(x, w, bias)
        n = _check(self, x, w)
        c, o = x.shape[1], w.shape[0]
        if c != w.shape[1] * self.groups or o % self.groups:
            raise TypeRuleError(
                f"input {x} has {c} channels, weight {w} with groups={self.groups} takes {w.shape[1] * self.groups}"
                if c != w.shape[1] * self.groups
                else f"the {o} outputs of weight {w} do not divide into groups={self.groups}"
            )
        if bias is not None and bias.shape != (o,):
            raise TypeRuleError(f"bias {bias} does not fit weight {w}: expected shape ({o},)")
        out = []
        for i in range(n):
            reach = self.dilations[i] * (w.shape[2 + i] - 1) + 1
            room = x.shape[2 + i] + sum(self.pads[i]) - reach
            if room < 0:
                raise TypeRuleError(
                    f"spatial axis {i} of input {x} with pads {self.pads[i]} is shorter than the kernel's reach {reach}"
                )
            out.append(room // self.strides[i] + 1)
        return x.with_shape((x.shape[0], o, *out))

    def reference(self, x: Array, w: Array, bias: Array | None = None) -> Array:
        dtype = x.dtype
        x, w = widened(x), widened(w)
        kernel = w.shape[2:]
        if any(hi or lo for lo, hi in self.pads):
            x = np.pad(x, ((0, 0), (0, 0), *self.pads))
        out = tuple(
            (size - d * (k - 1) - 1) // s + 1
            for size, k, s, d in zip(x.shape[2:], kernel, self.strides, self.dilations, strict=True)
        )
        y = np.empty((x.shape[0], w.shape[0], *out), x.dtype)
        for image, result in zip(x, y, strict=True):
            if w.shape[1] == 1 and self.groups > 1:
                self._depthwise(image, w, result)
            else:
                self._unfolded(image, w, result)
        if bias is not None:
            y += widened(bias).reshape(-1, *(1,) * len(out))
        return y.astype(dtype, copy=False)

    def _shifted(self, image: Array, at: tuple[int, ...], out: tuple[int, ...]) -> Array:
        """The input element that kernel position `at` meets, for every output position (a view)."""
        where = zip(at, out, self.strides, self.dilations, strict=True)
        return image[(slice(None), *(slice(k * d, k * d + s * (o - 1) + 1, s) for k, o, s, d in where))]

    def _depthwise(self, image: Array, w: Array, result: Array) -> None:
        out, times = result.shape[1:], result.shape[0] // self.groups
        y = result.reshape(self.groups, times, *out)
        y[...] = 0
        product_ = np.empty_like(y)
        for at in product(*map(range, w.shape[2:])):
            position: Index = (slice(None), 0, *at)
            weight = w[position].reshape(self.groups, times, *(1,) * len(out))
            np.multiply(self._shifted(image, at, out)[:, None], weight, out=product_)
            y += product_

    def _unfolded(self, image: Array, w: Array, result: Array) -> None:
        """Unfold rows of the image into columns, then one matrix product per group."""
        g, out, kernel = self.groups, result.shape[1:], w.shape[2:]
        depth = prod(w.shape[1:])
        weights = w.reshape(g, w.shape[0] // g, depth)
        y = result.reshape(g, w.shape[0] // g, *out)
        if prod(kernel) == 1 and set(self.strides) == {1}:
            np.matmul(weights, image.reshape(g, depth, -1), out=y.reshape(g, -1, prod(out)))
            return
        row = max(1, depth * g * prod(out[1:]) * image.itemsize)
        step = max(1, _COLUMN_BYTES // row)
        columns = np.empty((image.shape[0], *kernel, min(step, out[0]), *out[1:]), image.dtype)
        for start in range(0, out[0], step):
            rows = min(step, out[0] - start)
            part = image[:, start * self.strides[0] :]
            for at in product(*map(range, kernel)):
                position: Index = (slice(None), *at, slice(rows))
                columns[position] = self._shifted(part, at, (rows, *out[1:]))
            chunk = columns[(slice(None),) * (1 + len(kernel)) + (slice(rows),)]
            y[:, :, start : start + rows] = np.matmul(weights, chunk.reshape(g, depth, -1)).reshape(
                g, w.shape[0] // g, rows, *out[1:]
            )

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        x, w, dy = xs[0], xs[1], dys[0]
        n, kernel, out = x.rank - 2, w.shape[2:], dy.shape[2:]
        spatial = tuple(range(2, 2 + n))
        if x.type.size == 0:  # an empty batch
            return tuple(g.constant(np.zeros(v.shape), v.dtype) for v in xs)
        rest = tuple(
            x.shape[2 + i]
            + sum(self.pads[i])
            - self.dilations[i] * (kernel[i] - 1)
            - 1
            - self.strides[i] * (out[i] - 1)
            for i in range(n)
        )
        dx = g.emit(ConvTranspose(self.strides, self.pads, self.dilations, self.groups, rest), dy, w)
        from diptych.ops.conv_gradient import ConvWeightGradient

        dw = g.emit(ConvWeightGradient(kernel, self.strides, self.pads, self.dilations, self.groups), x, dy)
        return (dx, dw) if len(xs) == 2 else (dx, dw, g.sum(dy, (0, *spatial)))


@op
class ConvTranspose(Contraction):
    """Transposed convolution of x[N, C, *S] with w[C, O/groups, *K], plus an optional bias[O].

    Output extent: (in - 1) * stride - low - high + dilation * (k - 1) + output_padding + 1.
    """

    strides: tuple[int, ...]
    pads: Pads
    dilations: tuple[int, ...]
    groups: int = 1
    output_padding: tuple[int, ...] = ()  # () means zeros

    samples = (
        S((1, 3, 4, 5), (3, 4, 3, 3), (4,), strides=(1, 1), pads=((0, 0), (0, 0)), dilations=(1, 1)),
        S((2, 4, 5, 3), (4, 3, 4, 4), strides=(2, 2), pads=((1, 1), (1, 1)), dilations=(1, 1)),
        S((1, 4, 5, 5), (4, 2, 3, 3), (4,), strides=(2, 2), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=2,
          output_padding=(1, 1)),
        S((1, 5, 4, 4), (5, 1, 4, 4), strides=(2, 2), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=5),
        S((1, 2, 4, 6), (2, 3, 2, 3), (3,), strides=(3, 2), pads=((0, 1), (2, 0)), dilations=(2, 1),
          output_padding=(2, 0)),
        S((2, 3, 7), (3, 2, 5), (2,), strides=(3,), pads=((2, 1),), dilations=(1,)),
        S((1, 2, 3, 2, 4), (2, 2, 2, 3, 2), (2,), strides=(2, 1, 2), pads=((0, 0), (1, 1), (0, 1)),
          dilations=(1, 1, 1)),
        S((0, 3, 4, 4), (3, 2, 2, 2), strides=(2, 2), pads=((0, 0), (0, 0)), dilations=(1, 1), grad=False),
        S((1, 8, 1, 1), (8, 16, 4, 4), strides=(1, 1), pads=((0, 0), (0, 0)), dilations=(1, 1)),
    )  # fmt: skip

    def _extra(self, n: int) -> tuple[int, ...]:
        return self.output_padding or (0,) * n

    def infer(self, x: TensorType, w: TensorType, bias: TensorType | None = None) -> TensorType:
        floats(x, w, bias)
        n = _check(self, x, w)
        per_axis("output_padding", self._extra(n), n, 0)
        if x.shape[1] != w.shape[0] or w.shape[0] % self.groups:
            raise TypeRuleError(f"input {x} and weight {w} (laid out [C, O/groups, ...]) with groups={self.groups} "
                                "do not agree on the input channels")  # fmt: skip
        o = w.shape[1] * self.groups
        if bias is not None and bias.shape != (o,):
            raise TypeRuleError(f"bias {bias} does not fit weight {w} with groups={self.groups}: expected shape ({o},)")
        out = []
        for i, (size, k) in enumerate(zip(x.shape[2:], w.shape[2:], strict=True)):
            if size == 0:
                raise TypeRuleError(f"input {x} is empty along spatial axis {i}")
            reach = self.dilations[i] * (k - 1) + 1
            extent = (size - 1) * self.strides[i] - sum(self.pads[i]) + reach + self._extra(n)[i]
            if extent < 1:
                raise TypeRuleError(f"spatial axis {i} of input {x}: pads {self.pads[i]} leave an output of {extent}")
            out.append(extent)
        return x.with_shape((x.shape[0], o, *out))

    def reference(self, x: Array, w: Array, bias: Array | None = None) -> Array:
        dtype = x.dtype
        x, w = widened(x), widened(w)
        g, n, size, kernel = self.groups, x.ndim - 2, x.shape[2:], w.shape[2:]
        per_group = w.shape[1]
        weights = np.swapaxes(w.reshape(g, w.shape[0] // g, per_group * prod(kernel)), 1, 2)
        columns = np.matmul(weights, x.reshape(x.shape[0], g, w.shape[0] // g, prod(size)))
        columns = columns.reshape(x.shape[0], g * per_group, *kernel, *size)
        dims = tuple(zip(size, kernel, self.strides, self.dilations, self._extra(n), strict=True))
        full: Array = np.zeros((x.shape[0], g * per_group, *((i - 1) * s + d * (k - 1) + 1 + e for i, k, s, d, e in dims)),
                        x.dtype)  # fmt: skip
        for at in product(*map(range, kernel)):
            where = tuple(slice(a * d, a * d + (i - 1) * s + 1, s) for a, (i, _, s, d, _) in zip(at, dims, strict=True))
            full[:, :, *where] += columns[:, :, *at]
        y: Array = full[(slice(None), slice(None), *(
            slice(lo, extent - hi) for (lo, hi), extent in zip(self.pads, full.shape[2:], strict=True)))]  # fmt: skip
        if bias is not None:
            y = y + widened(bias).reshape(-1, *(1,) * n)
        return y.astype(dtype, copy=False)

    def decompose(self, g: Builder, x: Value, w: Value, bias: Value | None = None) -> Value:
        """One convolution at the input's size that computes every phase of the output as a channel, interleaved after.

        Output position q = stride * m + r meets kernel positions r, r + stride, ...: for each phase r that is a
        convolution of stride 1. Nothing is multiplied by inserted zeros (only the kernel is padded to whole strides).
        """
        n, size = x.rank - 2, x.shape[2:]
        out = self.infer(x.type, w.type).shape[2:]
        w = _dilated(g, w, self.dilations)
        taps = tuple(-(-k // s) for k, s in zip(w.shape[2:], self.strides, strict=True))
        whole = tuple(t * s - k for t, s, k in zip(taps, self.strides, w.shape[2:], strict=True))
        w = g.pad(w, [(0, 0), (0, 0), *((0, extra) for extra in whole)])
        c, o, phases = w.shape[0] // self.groups, w.shape[1], prod(self.strides)
        split = [e for pair in zip(taps, self.strides, strict=True) for e in pair]
        w = g.reshape(w, (self.groups, c, o, *split))
        w = g.transpose(w, (0, 2, *(4 + 2 * i for i in range(n)), 1, *(3 + 2 * i for i in range(n))))
        w = g.reshape(w, (self.groups * o * phases, c, *taps))
        w = g.slice(w, (0, 0, *(t - 1 for t in taps)), (*w.shape[:2], *(-1,) * n), (1, 1, *(-1,) * n))
        operands = [x, w]
        if bias is not None:
            per_phase = g.broadcast_to(g.expand_dims(bias, 1), (self.groups * o, phases))
            operands.append(g.reshape(per_phase, (self.groups * o * phases,)))
        first = [min(lo // s, t - 1) for (lo, _), s, t in zip(self.pads, self.strides, taps, strict=True)]
        last = [(lo + e - 1) // s for (lo, _), s, e in zip(self.pads, self.strides, out, strict=True)]
        pads = tuple((t - 1 - a, max(0, b + 1 - d)) for t, a, b, d in zip(taps, first, last, size, strict=True))
        y = g.emit(Conv((1,) * n, pads, (1,) * n, self.groups), *operands)
        extents = y.shape[2:]
        y = g.reshape(y, (x.shape[0], self.groups * o, *self.strides, *extents))
        y = g.transpose(y, (0, 1, *(a for i in range(n) for a in (2 + n + i, 2 + i))))
        y = g.reshape(y, (x.shape[0], self.groups * o, *(m * s for m, s in zip(extents, self.strides, strict=True))))
        starts = [lo - a * s for (lo, _), a, s in zip(self.pads, first, self.strides, strict=True)]
        stops = [a + e for a, e in zip(starts, out, strict=True)]
        return g.slice(y, (0, 0, *starts), (*y.shape[:2], *stops))

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        x, w, dy = xs[0], xs[1], dys[0]
        n = x.rank - 2
        spatial = tuple(range(2, 2 + n))
        conv = Conv(self.strides, self.pads, self.dilations, self.groups)
        dx = g.emit(conv, dy, w)  # too long by whole strides when output_padding >= stride
        dx = g.slice(dx, (0,) * dx.rank, x.shape)
        # x plays the output gradient and dy the input of the plain convolution, without the whole strides that are left over
        ends, pads = [], []
        for i, (low, high) in enumerate(self.pads):
            reach = self.dilations[i] * (w.shape[2 + i] - 1) + 1
            left = dy.shape[2 + i] + low + high - reach - self.strides[i] * (x.shape[2 + i] - 1)
            left -= left % self.strides[i]
            ends.append(dy.shape[2 + i] - max(0, left - high))
            pads.append((low, max(0, high - left)))
        conv = Conv(self.strides, tuple(pads), self.dilations, self.groups)
        dw = conv.gradient(g, (g.slice(dy, (0,) * dy.rank, (*dy.shape[:2], *ends)), w), (x,), (x,))[1]
        return (dx, dw) if len(xs) == 2 else (dx, dw, g.sum(dy, (0, *spatial)))
