"""Operators of object detectors: anchors, box decoding and suppression, region pooling, deformable convolution."""

from __future__ import annotations

from math import prod, sqrt
from typing import TYPE_CHECKING

import numpy as np

from diptych.frontends.mxnet.convert import Call, converts
from diptych.frontends.mxnet.convert_nn import spatial
from diptych.frontends.mxnet.convert_slice import cut
from diptych.ops import detection  # noqa: F401  (registers the operators emitted here)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value


def _columns(c: Call, x: Value) -> list[Value]:
    """The four coordinates along the last axis, each with that axis kept."""
    return [cut(c, x, x.rank - 1, i, i + 1) for i in range(4)]


def _to_centers(c: Call, corners: Sequence[Value]) -> tuple[Value, Value, Value, Value]:
    left, top, right, bottom = corners
    width, height = c.emit("sub", right, left), c.emit("sub", bottom, top)
    x = c.emit("mul", c.emit("add", left, right), 0.5)
    y = c.emit("mul", c.emit("add", top, bottom), 0.5)
    return x, y, width, height


def _to_corners(c: Call, x: Value, y: Value, half_width: Value, half_height: Value) -> Value:
    return c.g.concat([c.emit("sub", x, half_width), c.emit("sub", y, half_height),
                       c.emit("add", x, half_width), c.emit("add", y, half_height)], x.rank - 1)  # fmt: skip


@converts("_contrib_box_nms")
def _box_nms(c: Call) -> Result:
    a = c.attrs
    return c.emit("box_nms", c.x, overlap=a.real("overlap_thresh", 0.5), valid=a.real("valid_thresh", 0.0),
                  topk=a.integer("topk", -1), box_at=a.integer("coord_start", 2), score_at=a.integer("score_index", 1),
                  class_at=a.integer("id_index", -1), background=a.integer("background_id", -1),
                  force=a.boolean("force_suppress", False), centers_in=a.text("in_format", "corner") == "center",
                  centers_out=a.text("out_format", "corner") == "center")  # fmt: skip


@converts("_contrib_box_decode")
def _box_decode(c: Call) -> Result:
    a = c.attrs
    anchors = _columns(c, c.arg(1))
    if a.text("format", "center", ("center", "corner")) == "corner":
        ax, ay, aw, ah = _to_centers(c, anchors)
    else:
        ax, ay, aw, ah = anchors
    deltas = _columns(c, c.x)
    scaled = [c.emit("mul", d, a.real(f"std{i}", 1.0)) for i, d in enumerate(deltas)]
    x = c.emit("add", c.emit("mul", scaled[0], aw), ax)
    y = c.emit("add", c.emit("mul", scaled[1], ah), ay)
    limit = a.real("clip", -1.0)
    if limit > 0:
        scaled[2:] = [c.emit("minimum", s, limit) for s in scaled[2:]]
    width = c.emit("mul", c.emit("mul", c.emit("exp", scaled[2]), aw), 0.5)
    height = c.emit("mul", c.emit("mul", c.emit("exp", scaled[3]), ah), 0.5)
    return _to_corners(c, x, y, width, height)


@converts("_contrib_box_iou")
def _box_iou(c: Call) -> Result:
    a, b = c.arg(0), c.arg(1)
    a_lead, b_lead = a.shape[:-1], b.shape[:-1]
    rows, columns = c.reshape(a, (prod(a_lead), 1, 4)), c.reshape(b, (1, prod(b_lead), 4))

    def corners(v: Value) -> list[Value]:
        parts = _columns(c, v)
        if c.attrs.text("format", "corner", ("corner", "center")) == "corner":
            return parts
        x, y, w, h = parts
        return _columns(c, _to_corners(c, x, y, c.emit("mul", w, 0.5), c.emit("mul", h, 0.5)))

    p, q = corners(rows), corners(columns)

    def area(v: list[Value]) -> Value:
        return c.emit("mul", c.emit("sub", v[2], v[0]), c.emit("sub", v[3], v[1]))

    sides = [c.emit("relu", c.emit("sub", c.emit("minimum", p[i + 2], q[i + 2]), c.emit("maximum", p[i], q[i])))
             for i in (0, 1)]  # fmt: skip
    inter = c.emit("mul", *sides)
    union = c.emit("sub", c.emit("add", area(p), area(q)), inter)
    some = c.emit("greater", union, 0.0)
    ratio = c.emit("div", inter, c.g.where(some, union, c.g.scalar(1.0, a.dtype)))
    return c.reshape(c.g.where(some, ratio, c.g.scalar(0.0, a.dtype)), a_lead + b_lead)


@converts("_contrib_MultiBoxPrior")
def _multibox_prior(c: Call) -> Result:
    a = c.attrs
    height, width = c.x.shape[2:]
    sizes, ratios = a.reals("sizes", (1.0,)), a.reals("ratios", (1.0,))
    steps, offsets = a.reals("steps", (-1.0, -1.0)), a.reals("offsets", (0.5, 0.5))
    step_y, step_x = (s if s > 0 else 1.0 / e for s, e in zip(steps, (height, width)))
    y = (np.arange(height) + offsets[0]) * step_y
    x = (np.arange(width) + offsets[1]) * step_x
    # All sizes with the first ratio, then the first size with the other ratios; widths shrink with the aspect of the map.
    shapes = [(s, ratios[0]) for s in sizes] + [(sizes[0], r) for r in ratios[1:]]
    boxes = np.empty((height, width, len(shapes), 4))
    for k, (size, ratio) in enumerate(shapes):
        root = sqrt(ratio)
        half_w, half_h = size * height / width * root / 2, size / root / 2
        boxes[:, :, k, 0] = x[None, :] - half_w
        boxes[:, :, k, 1] = y[:, None] - half_h
        boxes[:, :, k, 2] = x[None, :] + half_w
        boxes[:, :, k, 3] = y[:, None] + half_h
    if a.boolean("clip", False):
        boxes = np.clip(boxes, 0.0, 1.0)
    return c.const(boxes.reshape(1, -1, 4), c.x.dtype)


@converts("_contrib_MultiBoxDetection")
def _multibox_detection(c: Call) -> Result:
    a = c.attrs
    scores, deltas, anchors = c.arg(0), c.arg(1), c.arg(2)
    batch, classes, count = scores.shape
    overlap = a.real("nms_threshold", 0.5)
    if a.integer("background_id", 0) != 0:
        raise c.fail("background_id other than 0 is not supported", "put the background class first")
    if not 0 < overlap <= 1:
        raise c.fail(f"nms_threshold={overlap} turns suppression off, which is not supported",
                     "use a threshold above 0 and up to 1")  # fmt: skip
    variances = a.reals("variances", (0.1, 0.1, 0.2, 0.2))
    ax, ay, aw, ah = _to_centers(c, _columns(c, anchors))
    d = [c.emit("mul", v, s) for v, s in zip(_columns(c, c.reshape(deltas, (batch, count, 4))), variances)]
    boxes = _to_corners(c, c.emit("add", c.emit("mul", d[0], aw), ax), c.emit("add", c.emit("mul", d[1], ah), ay),
                        c.emit("mul", c.emit("mul", c.emit("exp", d[2]), aw), 0.5),
                        c.emit("mul", c.emit("mul", c.emit("exp", d[3]), ah), 0.5))  # fmt: skip
    if a.boolean("clip", True):
        boxes = c.emit("clip", boxes, low=0.0, high=1.0)
    real = cut(c, scores, 1, 1, classes)  # class 0 is the background
    best = c.reshape(c.emit("max", real, axes=(1,), keepdims=False), (batch, count, 1))
    label = c.reshape(c.cast(c.emit("arg_max", real, axis=1), scores.dtype), (batch, count, 1))
    weak = c.emit("less", best, a.real("threshold", 0.01))
    label = c.g.where(weak, c.g.scalar(-1.0, scores.dtype), label)
    rows = c.g.concat([label, best, boxes], 2)
    return c.emit("box_nms", rows, overlap=overlap, valid=float("-inf"), topk=a.integer("nms_topk", -1), box_at=2,
                  score_at=1, class_at=0, background=-1, force=a.boolean("force_suppress", False), compact=False)  # fmt: skip


# -- regions ------------------------------------------------------------------------------------------------------
@converts("_contrib_ROIAlign")
def _roi_align(c: Call) -> Result:
    a = c.attrs
    size = a.shape("pooled_size")
    return c.emit("roi_align", c.x, c.arg(1), size=size if len(size) == 2 else size * 2, scale=a.real("spatial_scale"),
                  samples_per_cell=a.integer("sample_ratio", -1), aligned=a.boolean("aligned", False),
                  by_position=a.boolean("position_sensitive", False))  # fmt: skip


@converts("ROIPooling")
def _roi_pooling(c: Call) -> Result:
    return c.emit("roi_pool", c.x, c.arg(1), size=c.attrs.shape("pooled_size"), scale=c.attrs.real("spatial_scale"))


# -- sampling at computed positions -------------------------------------------------------------------------------
def _deformable(c: Call, mask: tuple[Value, ...], weight_at: int, border: str) -> Value:
    a = c.attrs
    kernel = a.shape("kernel")
    if len(kernel) != 2:
        raise c.fail(f"kernel={kernel}: only two spatial axes are supported")
    w = c.arg(weight_at)
    columns = c.emit("deformable_columns", c.x, c.arg(1), *mask, kernel=kernel, strides=spatial(c, "stride", 2, 1),
                     pads=spatial(c, "pad", 2, 0), dilations=spatial(c, "dilate", 2, 1),
                     groups=a.integer("num_deformable_group", 1), border=border)  # fmt: skip
    groups, filters = a.integer("num_group", 1), a.integer("num_filter")
    batch, inner, places = columns.shape
    split = c.reshape(columns, (batch, groups, inner // groups, places))
    y = c.emit("mat_mul", c.reshape(w, (groups, filters // groups, inner // groups)), split)
    y = c.reshape(y, (batch, filters, *c.arg(1).shape[2:]))
    if a.boolean("no_bias", False):
        return y
    return c.emit("add", y, c.reshape(c.arg(weight_at + 1), (filters, 1, 1)))


@converts("_contrib_DeformableConvolution")
def _deformable_convolution(c: Call) -> Result:
    return _deformable(c, (), 2, "clip")


@converts("_contrib_ModulatedDeformableConvolution")
def _modulated_deformable_convolution(c: Call) -> Result:
    return _deformable(c, (c.arg(2),), 3, "zero")


def _grid(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Homogeneous coordinates [3, height * width] of a grid over [-1, 1]."""
    x = -1 + 2 * np.arange(width) / max(width - 1, 1)
    y = -1 + 2 * np.arange(height) / max(height - 1, 1)
    columns, rows = np.meshgrid(x, y)
    return np.stack([columns.ravel(), rows.ravel(), np.ones(height * width)])


def _affine(c: Call, theta: Value, shape: tuple[int, ...]) -> Value:
    """theta[N, 6] -> positions [N, 2, *shape]."""
    height, width = shape
    matrix = c.reshape(theta, (theta.shape[0], 2, 3))
    y = c.emit("mat_mul", matrix, c.const(_grid(height, width), theta.dtype))
    return c.reshape(y, (theta.shape[0], 2, height, width))


@converts("GridGenerator")
def _grid_generator(c: Call) -> Result:
    if c.attrs.text("transform_type", choices=("affine", "warp")) == "affine":
        return _affine(c, c.x, c.attrs.shape("target_shape"))
    height, width = c.x.shape[2:]
    base = np.stack(np.meshgrid(np.arange(width), np.arange(height)))[None]
    half = np.array([(width - 1) / 2, (height - 1) / 2]).reshape(1, 2, 1, 1)
    moved = c.emit("add", c.x, c.const(base, c.x.dtype))
    return c.emit("sub", c.emit("div", moved, c.const(half, c.x.dtype)), 1.0)


@converts("BilinearSampler")
def _bilinear_sampler(c: Call) -> Result:
    return c.emit("grid_sample", c.x, c.arg(1), align_corners=True)


@converts("SpatialTransformer")
def _spatial_transformer(c: Call) -> Result:
    target = c.attrs.shape("target_shape", (0, 0))
    shape = target if all(target) else c.x.shape[2:]
    return c.emit("grid_sample", c.x, _affine(c, c.arg(1), shape), align_corners=True)
