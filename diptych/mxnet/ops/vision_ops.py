"""Detection operators that run in Python, and gradients of those that are compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.ops.live import host, host_gradient
from diptych.ops.detection import RoiPool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.attributes import Attributes
    from diptych.ir import Array


# -- regions ----------------------------------------------------------------------------------------------------------
@host_gradient("ROIPooling")
def roi_pooling_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array | None]:
    """To the first of the largest pixels of each cell."""
    x, rois = xs
    h, w = a.shape("pooled_size")
    scale = a.real("spatial_scale")
    out = np.zeros_like(x)
    channels = np.arange(x.shape[1])
    for r, (image, *corners) in enumerate(rois):
        x1, y1, x2, y2 = (int(np.floor(v * scale + 0.5)) for v in corners)
        for i, rows in enumerate(RoiPool._bounds(y1, y2, h, x.shape[2])):
            for j, columns in enumerate(RoiPool._bounds(x1, x2, w, x.shape[3])):
                cell = x[int(image), :, slice(*rows), slice(*columns)]
                if cell.size:
                    top, left = np.divmod(cell.reshape(x.shape[1], -1).argmax(1), cell.shape[2])
                    np.add.at(out[int(image)], (channels, rows[0] + top, columns[0] + left), ds[0][r, :, i, j])
    return [out, None]


@host_gradient("_contrib_ROIAlign")
def roi_align_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array | None]:
    """Each cell's share, spread over the four pixels around every sample."""
    x, rois = xs
    size = a.shape("pooled_size")
    h, w = size if len(size) == 2 else size * 2
    scale, ratio, aligned = a.real("spatial_scale"), a.integer("sample_ratio", -1), a.boolean("aligned", False)
    by_position, shift = a.boolean("position_sensitive", False), 0.5 if aligned else 0.0
    out = np.zeros_like(x)
    height, width = x.shape[2:]
    for r, (image, *corners) in enumerate(rois):
        if image < 0:
            continue
        x1, y1, x2, y2 = (rois.dtype.type(v * scale - shift) for v in corners)
        wide, high = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
        ny, nx = (ratio if ratio > 0 else int(np.ceil(e / m)) for e, m in ((high, h), (wide, w)))
        if ny * nx == 0:
            continue
        sy = y1 + (np.arange(h * ny, dtype=rois.dtype) + 0.5) * (high / (h * ny))
        sx = x1 + (np.arange(w * nx, dtype=rois.dtype) + 0.5) * (wide / (w * nx))
        d = np.repeat(np.repeat(ds[0][r], ny, 1), nx, 2) / (ny * nx)
        rows, columns = _weights(sy, height), _weights(sx, width)
        if not by_position:
            out[int(image)] += np.einsum("chw,hy,wx->cyx", d, rows, columns)
            continue
        planes = out[int(image)].reshape(-1, h, w, height, width)
        for i in range(h):
            for j in range(w):
                block = d[:, i * ny : (i + 1) * ny, j * nx : (j + 1) * nx]
                planes[:, i, j] += np.einsum("chw,hy,wx->cyx", block, rows[i * ny : (i + 1) * ny], columns[j * nx : (j + 1) * nx])
    return [out, None]


def _weights(at: Array, extent: int) -> Array:
    """How much of each pixel a bilinear sample at these positions takes; positions over a pixel outside take nothing."""
    inside = (at >= -1) & (at <= extent)
    place = np.clip(at, 0, extent - 1)
    found: Array = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(extent))) * inside[:, None]
    return found


@host("_contrib_RROIAlign", shape=lambda a, x, rois: [(rois[0], x[1], *a.shape("pooled_size"))])
def rroi_align(a: Attributes, x: Array, rois: Array) -> Array:
    """Rotated regions rois[R, 6] = (image, center x, center y, width, height, degrees), averaged over bilinear samples per cell."""
    h, w = a.shape("pooled_size")
    scale, ratio = rois.dtype.type(a.real("spatial_scale")), a.integer("sampling_ratio", -1)
    out = np.zeros((len(rois), x.shape[1], h, w), x.dtype)
    for r, (image, *place, angle) in enumerate(rois):
        center_x, center_y, wide, high = (v * scale for v in place)
        wide, high = max(wide, 1), max(high, 1)
        ny, nx = (ratio if ratio > 0 else int(np.ceil(e / m)) for e, m in ((high, h), (wide, w)))
        down = ((np.arange(h * ny) + 0.5) * (high / (h * ny)) - high / 2)[:, None].astype(x.dtype)
        right = ((np.arange(w * nx) + 0.5) * (wide / (w * nx)) - wide / 2)[None, :].astype(x.dtype)
        turn = angle * np.pi / 180
        cos, sin = x.dtype.type(np.cos(turn)), x.dtype.type(np.sin(turn))
        values = _bilinear(x[int(image)], down * cos - right * sin + center_y, right * cos + down * sin + center_x)
        out[r] = values.reshape(-1, h, ny, w, nx).mean((2, 4))
    return out


def _bilinear(image: Array, y: Array, x: Array) -> Array:
    """image[C, H, W] at positions [P, Q]: those up to a pixel outside are moved to the border, further ones count as zero."""
    height, width = image.shape[1:]
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    below, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    v, u = y - top, x - left
    upper = image[:, top, left] * (1 - u) + image[:, top, right] * u
    lower = image[:, below, left] * (1 - u) + image[:, below, right] * u
    found: Array = np.where(inside, upper * (1 - v) + lower * v, 0).astype(image.dtype)
    return found


def _cells(low: float, high: float, count: int, extent: int) -> list[tuple[int, int]]:
    size = max(high - low, 0.1) / count
    edges = [(int(np.floor(i * size + low)), int(np.ceil((i + 1) * size + low))) for i in range(count)]
    return [(min(max(p, 0), extent), min(max(q, 0), extent)) for p, q in edges]


def _position_sensitive(a: Attributes, x: Array, rois: Array) -> Any:
    """The (region, image, output channel, cell, input channel, pixels) of position-sensitive average pooling."""
    scale, size, channels = a.real("spatial_scale"), a.integer("pooled_size"), a.integer("output_dim")
    groups = a.integer("group_size", 0) or size
    for r, (image, x1, y1, x2, y2) in enumerate(rois):
        left, top = (np.floor(v + 0.5) * scale for v in (x1, y1))
        right, bottom = (np.floor(v + 1 + 0.5) * scale for v in (x2, y2))
        rows, columns = _cells(top, bottom, size, x.shape[2]), _cells(left, right, size, x.shape[3])
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                group = min(i * groups // size, groups - 1) * groups + min(j * groups // size, groups - 1)
                area = (row[1] - row[0]) * (column[1] - column[0])
                if area > 0:
                    planes = np.arange(channels) * groups * groups + group
                    yield r, int(image), i, j, planes, slice(*row), slice(*column), area


@host("_contrib_PSROIPooling", shape=lambda a, x, rois: [(rois[0], a.integer("output_dim"), *[a.integer("pooled_size")] * 2)])
def psroi_pooling(a: Attributes, x: Array, rois: Array) -> Array:
    size = a.integer("pooled_size")
    out = np.zeros((len(rois), a.integer("output_dim"), size, size), x.dtype)
    for r, image, i, j, planes, rows, columns, _ in _position_sensitive(a, x, rois):
        out[r, :, i, j] = x[image, planes][:, rows, columns].mean((1, 2))
    return out


@host_gradient("_contrib_PSROIPooling")
def psroi_pooling_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array | None]:
    out = np.zeros_like(xs[0])
    for r, image, i, j, planes, rows, columns, area in _position_sensitive(a, xs[0], xs[1]):
        for k, plane in enumerate(planes):
            out[image, plane, rows, columns] += ds[0][r, k, i, j] / area
    return [out, None]


@host_gradient("_contrib_box_nms")
def box_nms_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array | None]:
    """The rows that were kept are moved ones: their gradients go back to where they came from, by score."""
    x, y = (v.reshape(-1, *v.shape[-2:]) for v in (xs[0], ys[0]))
    d = ds[0].reshape(y.shape)
    out = np.zeros_like(x)
    score = a.integer("score_index", 1)
    for b in range(x.shape[0]):
        free = np.ones(len(x[b]), bool)
        for k, row in enumerate(y[b]):
            if (row == -1).all():
                continue
            same = free & (x[b][:, score] == row[score])
            near = np.abs(x[b] - row).sum(1) if a.text("in_format", "corner") == a.text("out_format", "corner") else ~same
            source = int(np.argmin(np.where(same, near, np.inf)))
            if same[source]:
                free[source] = False
                out[b, source] = d[b, k]
    return [out.reshape(xs[0].shape)]


# -- eight-bit values ---------------------------------------------------------------------------------------------------
@host("_contrib_quantize", shape=lambda a, x, low, high: [x, (1,), (1,)])
def quantize(a: Attributes, x: Array, low: Array, high: Array) -> list[Array]:
    if a.text("out_type", "uint8") == "uint8":
        scale = 255.0 / (high - low)
        return [np.clip(np.floor((x - low) * scale + 0.5), 0, 255).astype(np.uint8), low.reshape(1), high.reshape(1)]
    bound = np.maximum(np.abs(low), np.abs(high)).reshape(1)
    found = np.sign(x) * np.minimum(np.floor(np.abs(x) * (127.0 / bound) + 0.5), 127)
    return [found.astype(np.int8), -bound, bound]


@host("_contrib_dequantize", shape=lambda a, x, low, high: [x])
def dequantize(a: Attributes, x: Array, low: Array, high: Array) -> Array:
    if x.dtype == np.uint8:
        return (x * ((high - low) / 255.0) + low).astype(np.float32)
    if x.dtype == np.int8:
        return (x * ((high - low) / 255.0)).astype(np.float32)
    return (x * (np.maximum(np.abs(low), np.abs(high)) / 2147483647.0)).astype(np.float32)


# -- special functions ----------------------------------------------------------------------------------------------------
def digamma(x: Array) -> Array:
    """The derivative of the logarithm of the gamma function: recurrence up to 8, then the asymptotic series."""
    x = np.asarray(x, np.float64)
    below = x <= 0
    z = np.where(below, 1 - x, x)
    total = np.zeros_like(z)
    for _ in range(8):
        small = z < 8
        total -= np.where(small, 1 / z, 0)
        z = z + small
    w = 1 / (z * z)
    series = w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w * (1 / 240 - w * (5 / 660)))))
    found = total + np.log(z) - 0.5 / z - series
    return np.where(below, found - np.pi / np.tan(np.pi * x), found)


@host_gradient("gammaln")
def gammaln_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array | None]:
    return [ds[0] * digamma(xs[0])]


@host_gradient("gamma")
def gamma_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array | None]:
    return [ds[0] * digamma(xs[0]) * ys[0]]
