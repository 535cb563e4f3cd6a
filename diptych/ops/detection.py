"""Operators of object detectors: box suppression, region pooling, sampling at computed positions."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Arg, Loops, S, op
from diptych.ops.pointwise import Grads, Values
from diptych.ops.rules import floats, per_axis
from diptych.ops.sampling_gradient import grid_sample_gradient

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType
    from diptych.ops.build import Builder

__all__ = ["BoxNms", "DeformableColumns", "GridSample", "RoiAlign", "RoiPool"]


def _overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of one corner box with many."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    inter = np.prod(np.maximum(sides, 0), -1)
    total = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], -1) - inter
    return np.where(total > 0, inter / np.where(total > 0, total, 1), 0)


def _corners(boxes: Array) -> Array:
    half = boxes[..., 2:] * 0.5
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def _centers(boxes: Array) -> Array:
    return np.concatenate([(boxes[..., :2] + boxes[..., 2:]) * 0.5, boxes[..., 2:] - boxes[..., :2]], -1)


@op
class BoxNms(Loops):
    """Greedy non-maximum suppression of rows data[..., N, K], each holding a score and a box (and perhaps a class).

    Rows are valid when score > valid and their class is not `background`; the best `topk` of them (all when negative)
    are visited by falling score, ties in row order, and a row is dropped when it overlaps a kept one of its class (of
    any class with `force` or without `class_at`) by more than `overlap`. Dropped and invalid rows become -1. With
    `compact` the kept rows move to the front; otherwise a dropped row stays where the order put it and only its class
    becomes -1 (places past `topk` hold the valid row of that number, class -1), and an overlap equal to `overlap` drops too.
    """

    overlap: float = 0.5
    valid: float = 0.0
    topk: int = -1
    box_at: int = 2
    score_at: int = 1
    class_at: int = -1
    background: int = -1
    force: bool = False
    centers_in: bool = False
    centers_out: bool = False
    compact: bool = True

    samples = (
        S((7, 6), low=0.0, high=1.0, class_at=-1, overlap=0.1, grad=False),
        S((2, 9, 6), low=0.0, high=1.0, class_at=0, centers_in=True, overlap=0.2, grad=False),
        S((1, 8, 6), low=0.0, high=2.0, class_at=0, topk=5, force=True, overlap=0.0, compact=False, grad=False),
        S((2, 0, 6), grad=False),
    )

    def infer(self, data: TensorType) -> TensorType:
        floats(data)
        width = data.shape[-1] if data.rank >= 2 else 0
        for what, at in (("box_at", self.box_at + 3), ("score_at", self.score_at), ("class_at", self.class_at)):
            if at >= width or (at < 0 and what != "class_at"):
                raise TypeRuleError(f"rows of {data} are too short for {what}={getattr(self, what)}")
        if not self.compact and self.class_at < 0:
            raise TypeRuleError("compact=False marks dropped rows in their class, so it needs class_at")
        return data

    def reference(self, data: Array) -> Array:
        rows = data.reshape(prod(data.shape[:-2]), *data.shape[-2:])
        out = np.full_like(rows, -1)
        for b, batch in enumerate(rows):
            self._one(batch, out[b])
        return out.reshape(data.shape)

    def _one(self, rows: Array, out: Array) -> None:
        score = rows[:, self.score_at]
        classes = rows[:, self.class_at].astype(np.int64) if self.class_at >= 0 else np.zeros(len(rows), np.int64)
        fit = score > self.valid
        if self.class_at >= 0:
            fit &= classes != self.background
        valid = np.nonzero(fit)[0]
        order = valid[np.argsort(-score[valid], kind="stable")]
        if self.topk >= 0:
            order = order[: self.topk]
        boxes = rows[order, self.box_at : self.box_at + 4]
        boxes = _corners(boxes) if self.centers_in else boxes
        alive = np.zeros(len(order), bool)
        left = np.arange(len(order))  # what no kept row has dropped yet
        while len(left):
            i, left = left[0], left[1:]
            alive[i] = True
            overlap = _overlaps(boxes[i], boxes[left])
            hit = overlap > self.overlap if self.compact else overlap >= self.overlap
            if not self.force and self.class_at >= 0:
                hit &= classes[order[left]] == classes[order[i]]
            left = left[~hit]
        kept = rows[order].copy()
        if self.centers_in != self.centers_out:
            kept[:, self.box_at : self.box_at + 4] = _centers(boxes) if self.centers_out else boxes
        if self.compact:
            kept = kept[alive]
        else:
            kept[~alive, self.class_at] = -1
            out[: len(valid)] = rows[valid]
            out[: len(valid), self.class_at] = -1
        out[: len(kept)] = kept


def _bilinear(image: Array, y: Array, x: Array) -> Array:
    """image[C, H, W] at real positions; what lies outside counts as zero."""
    height, width = image.shape[1:]
    y0, x0 = np.floor(y), np.floor(x)
    total = np.zeros((image.shape[0], *y.shape), image.dtype)
    for dy in (0, 1):
        for dx in (0, 1):
            r, q = y0 + dy, x0 + dx
            weight = (1 - np.abs(y - r)) * (1 - np.abs(x - q))
            weight = np.where((r >= 0) & (r < height) & (q >= 0) & (q < width), weight, 0)
            rows = np.clip(r, 0, height - 1).astype(np.int64)
            columns = np.clip(q, 0, width - 1).astype(np.int64)
            total += (image[:, rows, columns] * weight).astype(image.dtype, copy=False)
    return total


def _check_rois(x: TensorType, rois: TensorType, size: tuple[int, ...]) -> None:
    floats(x, rois)
    per_axis("size", size, 2, 1)
    if x.rank != 4 or rois.rank != 2 or rois.shape[1] != 5:
        raise TypeRuleError(f"input {x} must be [N, C, H, W], regions {rois} rows of (image, x1, y1, x2, y2)")


@op
class RoiAlign(Loops):
    """Regions rois[R, 5] = (image, x1, y1, x2, y2) of x[N, C, H, W], averaged over bilinear samples per output cell.

    `samples_per_cell` <= 0 takes as many as the cell is wide. Without `aligned` regions are at least one pixel wide.
    With `by_position` output cell (i, j) of channel c reads input channel (c * size[0] + i) * size[1] + j. A region whose
    image is negative gives zeros.
    """

    size: tuple[int, int]
    scale: float = 1.0
    samples_per_cell: int = -1
    aligned: bool = False
    by_position: bool = False

    samples = (
        S((1, 2, 7, 6), Arg((3, 5), "f32", 0.0, 0.99), size=(2, 3), scale=4.0, grad=False),
        S((2, 8, 5, 5), Arg((2, 5), "f32", 0.0, 1.99), size=(2, 2), scale=2.0, samples_per_cell=2, aligned=True,
          by_position=True, grad=False),
    )  # fmt: skip

    def infer(self, x: TensorType, rois: TensorType) -> TensorType:
        _check_rois(x, rois, self.size)
        cells = self.size[0] * self.size[1] if self.by_position else 1
        if x.shape[1] % cells:
            raise TypeRuleError(f"the channels of {x} do not divide into {cells} cells")
        return x.with_shape((rois.shape[0], x.shape[1] // cells, *self.size))

    def reference(self, x: Array, rois: Array) -> Array:
        h, w = self.size
        channels = x.shape[1] // (h * w) if self.by_position else x.shape[1]
        out = np.zeros((len(rois), channels, h, w), x.dtype)
        shift = 0.5 if self.aligned else 0.0
        for r, (image, *corners) in enumerate(rois):
            if image < 0:
                continue
            x1, y1, x2, y2 = (rois.dtype.type(v * self.scale - shift) for v in corners)
            wide, high = (x2 - x1, y2 - y1) if self.aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
            ny, nx = self._count(high / h), self._count(wide / w)
            if ny * nx == 0:
                continue
            ys = y1 + (np.arange(h * ny, dtype=rois.dtype) + 0.5) * (high / (h * ny))
            xs = x1 + (np.arange(w * nx, dtype=rois.dtype) + 0.5) * (wide / (w * nx))
            values = self._sample(x[int(image)], ys, xs)
            cells = values.reshape(-1, h, ny, w, nx).mean((2, 4))
            if self.by_position:
                grid = cells.reshape(channels, h, w, h, w)
                cells = np.stack([np.stack([grid[:, i, j, i, j] for j in range(w)], -1) for i in range(h)], 1)
            out[r] = cells
        return out

    def _count(self, extent: float) -> int:
        return self.samples_per_cell if self.samples_per_cell > 0 else int(np.ceil(extent))

    @staticmethod
    def _sample(image: Array, ys: Array, xs: Array) -> Array:
        """Positions up to one pixel outside are moved to the border; further ones count as zero."""
        height, width = image.shape[1:]
        inside = ((ys >= -1) & (ys <= height))[:, None] & ((xs >= -1) & (xs <= width))[None, :]
        y, x = np.clip(ys, 0, height - 1), np.clip(xs, 0, width - 1)
        grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
        return np.where(inside, _bilinear(image, grid_y, grid_x), 0)


@op
class RoiPool(Loops):
    """The maximum of x[N, C, H, W] over each cell of regions rois[R, 5] = (image, x1, y1, x2, y2), rounded to pixels."""

    size: tuple[int, int]
    scale: float = 1.0

    samples = (
        S((1, 2, 7, 6), Arg((3, 5), "f32", 0.0, 0.99), size=(2, 3), scale=4.0, grad=False),
        S((2, 3, 5, 5), Arg((2, 5), "f32", 0.0, 1.99), size=(1, 2), scale=2.0, grad=False),
    )

    def infer(self, x: TensorType, rois: TensorType) -> TensorType:
        _check_rois(x, rois, self.size)
        return x.with_shape((rois.shape[0], x.shape[1], *self.size))

    def reference(self, x: Array, rois: Array) -> Array:
        h, w = self.size
        out = np.zeros((len(rois), x.shape[1], h, w), x.dtype)
        for r, (image, *corners) in enumerate(rois):
            if image < 0:
                continue
            x1, y1, x2, y2 = (int(np.floor(v * self.scale + 0.5)) for v in corners)
            for i, rows in enumerate(self._bounds(y1, y2, h, x.shape[2])):
                for j, columns in enumerate(self._bounds(x1, x2, w, x.shape[3])):
                    cell = x[int(image), :, slice(*rows), slice(*columns)]
                    if cell.size:
                        out[r, :, i, j] = cell.max((1, 2))
        return out

    @staticmethod
    def _bounds(low: int, high: int, cells: int, extent: int) -> list[tuple[int, int]]:
        size = np.float32(max(high - low + 1, 1)) / np.float32(cells)
        edges = [(int(np.floor(i * size)) + low, int(np.ceil((i + 1) * size)) + low) for i in range(cells)]
        return [(min(max(a, 0), extent), min(max(b, 0), extent)) for a, b in edges]


@op
class GridSample(Loops):
    """x[N, C, H, W] read bilinearly at grid[N, 2, Ho, Wo] = (x, y), -1 and 1 being the centres of the border pixels.

    With `align_corners=False` they are the outer edges of the border pixels. What lies outside counts as zero.
    """

    align_corners: bool = True

    samples = (
        S((1, 2, 4, 5), Arg((1, 2, 3, 3), "f32", -1.2, 1.2)),
        S((2, 1, 3, 6), Arg((2, 2, 2, 4), "f32", -1.2, 1.2), align_corners=False),
    )

    def infer(self, x: TensorType, grid: TensorType) -> TensorType:
        floats(x, grid)
        if x.rank != 4 or grid.rank != 4 or grid.shape[1] != 2 or grid.shape[0] != x.shape[0]:
            raise TypeRuleError(f"input {x} must be [N, C, H, W] and grid {grid} [N, 2, Ho, Wo]")
        return x.with_shape((*x.shape[:2], *grid.shape[2:]))

    def reference(self, x: Array, grid: Array) -> Array:
        height, width = x.shape[2:]
        out = np.empty((*x.shape[:2], *grid.shape[2:]), x.dtype)
        for n in range(x.shape[0]):
            if self.align_corners:
                px, py = (grid[n, 0] + 1) * (width - 1) / 2, (grid[n, 1] + 1) * (height - 1) / 2
            else:
                px, py = ((grid[n, 0] + 1) * width - 1) / 2, ((grid[n, 1] + 1) * height - 1) / 2
            out[n] = _bilinear(x[n], py, px)
        return out

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return grid_sample_gradient(g, xs[0], xs[1], dys[0], self.align_corners)


@op
class DeformableColumns(Loops):
    """The columns of a deformable convolution: x[N, C, H, W] read at kernel positions moved by offset[N, 2GK, Ho, Wo].

    The result is [N, C * K, Ho * Wo] (K kernel positions, row by row), to be multiplied with the weight. Offsets come as
    (dy, dx) pairs for each of `groups` channel groups and each kernel position; an optional mask[N, GK, Ho, Wo] scales
    what is read. `border` says what counts within one pixel outside: "zero" blends with zeros, "clip" takes the border
    pixel for positions inside the last row or column and nothing outside of [0, extent).
    """

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    border: str = "zero"

    samples = (
        S((1, 2, 5, 4), Arg((1, 18, 5, 4), "f32", -1.0, 1.0), kernel=(3, 3), pads=(1, 1), grad=False),
        S((2, 4, 5, 6), Arg((2, 16, 2, 3), "f32", -1.0, 1.0), Arg((2, 8, 2, 3), "f32", 0.0, 1.0), kernel=(2, 2),
          strides=(2, 2), groups=2, grad=False),
        S((1, 2, 6, 5), Arg((1, 8, 4, 3), "f32", -2.0, 2.0), kernel=(2, 2), dilations=(2, 2), border="clip", grad=False),
    )  # fmt: skip

    def infer(self, x: TensorType, offset: TensorType, mask: TensorType | None = None) -> TensorType:
        floats(x, offset, mask)
        per_axis("kernel", self.kernel, 2, 1)
        if x.rank != 4 or offset.rank != 4 or self.border not in ("zero", "clip"):
            raise TypeRuleError(f"input {x} and offset {offset} must have rank 4; border is 'zero' or 'clip'")
        count = self.kernel[0] * self.kernel[1]
        size = self._size(x.shape)
        want = (x.shape[0], 2 * self.groups * count, *size)
        if offset.shape != want or x.shape[1] % self.groups:
            raise TypeRuleError(f"offset {offset} must have shape {want} for input {x} with groups={self.groups}")
        if mask is not None and mask.shape != (x.shape[0], self.groups * count, *size):
            raise TypeRuleError(f"mask {mask} must have shape {(x.shape[0], self.groups * count, *size)}")
        return x.with_shape((x.shape[0], x.shape[1] * count, size[0] * size[1]))

    def _size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        high, wide = (
            (e + 2 * p - (d * (k - 1) + 1)) // s + 1
            for e, k, s, p, d in zip(shape[2:], self.kernel, self.strides, self.pads, self.dilations, strict=True)
        )
        return high, wide

    def reference(self, x: Array, offset: Array, mask: Array | None = None) -> Array:
        n, channels = x.shape[:2]
        count, size, each = self.kernel[0] * self.kernel[1], self._size(x.shape), channels // self.groups
        out = np.empty((n, channels, count, *size), x.dtype)
        base_y = (np.arange(size[0]) * self.strides[0] - self.pads[0])[:, None]
        base_x = (np.arange(size[1]) * self.strides[1] - self.pads[1])[None, :]
        for b in range(n):
            for g in range(self.groups):
                image = x[b, g * each : (g + 1) * each]
                for k in range(count):
                    dy, dx = offset[b, 2 * (g * count + k)], offset[b, 2 * (g * count + k) + 1]
                    y = base_y + (k // self.kernel[1]) * self.dilations[0] + dy
                    q = base_x + (k % self.kernel[1]) * self.dilations[1] + dx
                    values = self._read(image, y, q)
                    if mask is not None:
                        values = values * mask[b, g * count + k]
                    out[b, g * each : (g + 1) * each, k] = values
        return out.reshape(n, channels * count, size[0] * size[1])

    def _read(self, image: Array, y: Array, x: Array) -> Array:
        if self.border == "zero":
            return _bilinear(image, y, x)
        height, width = image.shape[1:]
        inside = (y >= 0) & (x >= 0) & (y < height) & (x < width)
        return np.where(inside, _bilinear(image, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)), 0)
