"""Operators on sliding windows that are made of slices: columns of patches and back, correlation of two images."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import FormatError
from diptych.frontends.mxnet.convert import Call, converts
from diptych.frontends.mxnet.convert_nn import spatial
from diptych.frontends.mxnet.convert_slice import cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value


class _Windows:
    """Where the windows of a kernel lie in an image of these extents."""

    def __init__(self, c: Call, extents: Sequence[int]) -> None:
        self.kernel = c.attrs.shape("kernel")
        n = len(self.kernel)
        if n != len(extents):
            raise FormatError(f"{c.op} (layer {c.layer}): kernel={self.kernel} for {len(extents)} spatial axes")
        self.strides, self.dilations, self.pads = (spatial(c, k, n, d) for k, d in (("stride", 1), ("dilate", 1), ("pad", 0)))
        self.padded = [e + 2 * p for e, p in zip(extents, self.pads)]
        self.counts = [(e - (k - 1) * d - 1) // s + 1 for e, k, d, s in zip(self.padded, self.kernel, self.dilations, self.strides)]
        if min(self.counts) < 1:
            raise FormatError(f"{c.op} (layer {c.layer}): kernel={self.kernel} is larger than {tuple(self.padded)}")

    def slices(self) -> list[list[tuple[int, int, int]]]:
        """For every position of the kernel, row by row, the (start, stop, step) of what it sees along each axis."""
        return [[(i * d, i * d + (m - 1) * s + 1, s) for i, d, m, s in zip(at, self.dilations, self.counts, self.strides)]
                for at in product(*map(range, self.kernel))]  # fmt: skip


@converts("im2col")
def _im2col(c: Call) -> Result:
    n, channels = c.x.shape[:2]
    w = _Windows(c, c.x.shape[2:])
    x = c.emit("pad", c.x, pads=((0, 0), (0, 0), *((p, p) for p in w.pads)), mode="constant", value=0.0) if any(w.pads) else c.x
    parts = []
    for where in w.slices():
        part = x
        for axis, (start, stop, step) in enumerate(where):
            part = cut(c, part, axis + 2, start, stop, step)
        parts.append(c.reshape(part, (n, channels, 1, prod(w.counts))))
    return c.reshape(c.g.concat(parts, 2), (n, channels * prod(w.kernel), prod(w.counts)))


@converts("col2im")
def _col2im(c: Call) -> Result:
    """Every column added where `im2col` took it from: a scatter with constant places."""
    extents = c.attrs.shape("output_size")
    w = _Windows(c, extents)
    n, rows, columns = c.x.shape
    size, count = prod(w.kernel), prod(w.counts)
    if rows % size or columns != count:
        raise FormatError(f"{c.op} (layer {c.layer}): {c.x.type} does not hold columns of kernel={w.kernel} in {extents}")
    channels = rows // size
    places = np.arange(prod(w.padded)).reshape(w.padded)
    index = np.concatenate([places[tuple(slice(*s) for s in where)].reshape(-1) for where in w.slices()])
    flat = c.reshape(c.x, (n, channels, size * count))
    where = c.g.broadcast_to(c.const(index.reshape(1, 1, -1), "i32"), flat.shape)
    zeros = c.g.broadcast_to(c.g.scalar(0, c.x.dtype), (n, channels, prod(w.padded)))
    y = c.reshape(c.emit("scatter_add", zeros, where, flat, axis=2), (n, channels, *w.padded))
    for axis, (p, e) in enumerate(zip(w.pads, extents)):
        y = cut(c, y, axis + 2, p, p + e)
    return y


@converts("Correlation")
def _correlation(c: Call) -> Result:
    """For every displacement: the product (or distance) of the images, averaged over channels and kernel."""
    a = c.attrs
    kernel, reach = a.integer("kernel_size", 1), a.integer("max_displacement", 1)
    stride, step, pad = a.integer("stride1", 1), a.integer("stride2", 1), a.integer("pad_size", 0)
    if kernel % 2 == 0:
        raise FormatError(f"{c.op} (layer {c.layer}): kernel_size={kernel} must be odd")
    if c.arg(0).shape != c.arg(1).shape or c.x.rank != 4:
        raise FormatError(f"{c.op} (layer {c.layer}): takes two images of one shape, not {c.arg(0).type} and {c.arg(1).type}")
    border = reach + kernel // 2
    padded = [e + 2 * pad for e in c.x.shape[2:]]
    size = [-(-(e - 2 * border) // stride) for e in padded]
    if min(size) < 1:
        raise FormatError(f"{c.op} (layer {c.layer}): {c.x.type} is too small for max_displacement={reach}, kernel_size={kernel}")
    pads = ((0, 0), (0, 0), (pad, pad), (pad, pad))
    left, right = (c.emit("pad", x, pads=pads, mode="constant", value=0.0) if pad else x for x in c.inputs)
    # What the windows cover, from the first window's first pixel to the last window's last.
    cover = [(m - 1) * stride + kernel for m in size]

    def at(x: Value, dy: int, dx: int) -> Value:
        for axis, d, m in ((2, dy, cover[0]), (3, dx, cover[1])):
            x = cut(c, x, axis, reach + d, reach + d + m)
        return x

    first = at(left, 0, 0)
    parts = []
    for dy, dx in product([step * i for i in range(-(reach // step), reach // step + 1)], repeat=2):
        other = at(right, dy, dx)
        if a.boolean("is_multiply", True):
            both = c.emit("mul", first, other)
        else:  # the distance; where both are equal its slope is that of first - other
            d = c.emit("sub", first, other)
            both = c.g.where(c.emit("greater_equal", first, other), d, c.emit("neg", d))
        parts.append(c.emit("mean", both, axes=(1,), keepdims=True))
    y = c.g.concat(parts, 1)
    total: Value | None = None
    for i, j in product(range(kernel), repeat=2):
        part = cut(c, cut(c, y, 2, i, i + (size[0] - 1) * stride + 1, stride), 3, j, j + (size[1] - 1) * stride + 1, stride)
        total = part if total is None else c.emit("add", total, part)
    assert total is not None
    return c.emit("mul", total, 1.0 / kernel**2) if kernel > 1 else total
