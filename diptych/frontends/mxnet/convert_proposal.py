"""Region proposals (Ren et al., 2015, "Faster R-CNN"): anchors moved by predictions, the best of them, suppressed and repeated."""

from __future__ import annotations

from math import floor, sqrt
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import FormatError
from diptych.frontends.mxnet.convert import Call, converts
from diptych.frontends.mxnet.convert_slice import cut

if TYPE_CHECKING:
    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Array, Value


def _anchors(c: Call, height: int, width: int) -> Array:
    """The anchors[height * width * A, 4] of a feature map, as corners in pixels of the image, both ends included."""
    stride = c.attrs.integer("feature_stride", 16)
    center = 0.5 * (stride - 1)
    sizes = []
    for ratio in c.attrs.reals("ratios", (0.5, 1.0, 2.0)):
        side = floor(sqrt(floor(stride * stride / ratio)) + 0.5)
        for scale in c.attrs.reals("scales", (4.0, 8.0, 16.0, 32.0)):
            sizes.append((side * scale, floor(side * ratio + 0.5) * scale))
    base = np.array([[center - 0.5 * (w - 1), center - 0.5 * (h - 1), center + 0.5 * (w - 1), center + 0.5 * (h - 1)] for w, h in sizes])
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    moves = np.stack([columns, rows, columns, rows], -1) * stride
    found: Array = (moves[:, :, None, :] + base).reshape(-1, 4).astype(np.float32)
    return found


def _boxes(c: Call, deltas: Value, anchors: Array) -> list[Value]:
    """The corners x1, y1, x2, y2 (each [B, N, 1]) of the anchors moved by deltas[B, N, 4]."""
    d = [cut(c, deltas, 2, i, i + 1) for i in range(4)]
    corners = [anchors[None, :, i : i + 1] for i in range(4)]
    if c.attrs.boolean("iou_loss", False):
        return [c.emit("add", d[i], c.const(corners[i], deltas.dtype)) for i in range(4)]
    found: list[list[Value]] = []
    for axis in (0, 1):
        size = corners[axis + 2] - corners[axis] + 1
        center = c.emit("add", c.emit("mul", d[axis], c.const(size, deltas.dtype)),
                        c.const(corners[axis] + 0.5 * (size - 1), deltas.dtype))  # fmt: skip
        half = c.emit("mul", c.emit("sub", c.emit("mul", c.emit("exp", d[axis + 2]), c.const(size, deltas.dtype)), 1.0), 0.5)
        found.append([c.emit("sub", center, half), c.emit("add", center, half)])
    return [found[0][0], found[1][0], found[0][1], found[1][1]]


def _stopped(c: Call, y: Value) -> Value:
    """The result without a gradient: proposals are constants to the layers after them."""
    return y if c.effects is None else c.emit("surrogate", c.x, y, c.full(c.x.shape, 0.0, c.x.dtype))


@converts("_contrib_Proposal", "_contrib_MultiProposal")
def _proposal(c: Call) -> Result:
    a = c.attrs
    probabilities, kind = c.arg(0), c.arg(0).dtype
    # In float64, so that rounding (which may differ between NumPy and compiled code) tips no decision about two boxes.
    deltas, info = (c.cast(c.arg(i), "f64") for i in (1, 2))
    batch, channels, height, width = probabilities.shape
    kinds = channels // 2
    if c.op == "_contrib_Proposal" and batch != 1:
        raise c.fail(f"cls_prob {probabilities.type} holds {batch} images", "MultiProposal takes several")
    if kinds != len(a.reals("ratios", (0.5, 1.0, 2.0))) * len(a.reals("scales", (4.0, 8.0, 16.0, 32.0))) or channels % 2:
        raise FormatError(f"{c.op} (layer {c.layer}): cls_prob {probabilities.type} does not have two channels for each pair of "
                          "ratios and scales")  # fmt: skip
    for what, x, shape in (("bbox_pred", deltas, (batch, 4 * kinds, height, width)), ("im_info", info, (batch, 3))):
        if x.shape != shape:
            raise FormatError(f"{c.op} (layer {c.layer}): {what} {x.type} should have shape {shape}")
    count = height * width * kinds
    before = min(a.integer("rpn_pre_nms_top_n", 6000), count) if a.integer("rpn_pre_nms_top_n", 6000) > 0 else count
    after = a.integer("rpn_post_nms_top_n", 300)
    score = c.reshape(c.transpose(cut(c, probabilities, 1, kinds, channels), (0, 2, 3, 1)), (batch, count, 1))
    moves = c.reshape(c.transpose(c.reshape(deltas, (batch, kinds, 4, height, width)), (0, 3, 4, 1, 2)), (batch, count, 4))
    sides = [c.reshape(cut(c, info, 1, i, i + 1), (batch, 1, 1)) for i in range(3)]  # height and width of the image, its scale

    corners = []
    for i, x in enumerate(_boxes(c, moves, _anchors(c, height, width))):
        last = c.emit("sub", sides[1 - i % 2], 1.0)
        corners.append(c.cast(c.cast(c.emit("maximum", c.emit("minimum", x, last), 0.0), kind), "f64"))
    # Cells beyond the image, in a map that was padded, and boxes that are too small come last; the latter are made larger.
    stride = float(a.integer("feature_stride", 16))
    beyond = None
    for axis, extent in ((0, height), (1, width)):
        cell = np.arange(extent).reshape((1, -1, 1, 1) if axis == 0 else (1, 1, -1, 1))
        place = np.broadcast_to(cell, (1, height, width, kinds)).reshape(1, count, 1)
        outside = c.emit("greater_equal", c.const(place, "f64"), c.emit("trunc", c.emit("div", sides[axis], stride)))
        beyond = outside if beyond is None else c.emit("logical_or", beyond, outside)
    least = c.emit("mul", sides[2], float(a.integer("rpn_min_size", 16)))
    small = c.emit("logical_or", *(c.emit("less", c.emit("add", c.emit("sub", corners[i + 2], corners[i]), 1.0), least) for i in (0, 1)))
    half = c.emit("mul", least, 0.5)
    corners = [c.g.where(small, c.emit("sub" if i < 2 else "add", x, half), x) for i, x in enumerate(corners)]
    assert beyond is not None
    score = c.g.where(c.emit("logical_or", beyond, small), c.g.scalar(-1.0, score.dtype), score)

    # Suppression counts pixels: the far corners are moved by one for it, and kept beside for the result.
    rows = c.g.concat([*corners[:2], *(c.emit("add", x, 1.0) for x in corners[2:]), c.cast(score, "f64"), *corners[2:]], 2)
    _, best = c.emit_all("top_k", c.reshape(score, (batch, count)), k=before, axis=1)
    rows = c.emit("gather", rows, c.g.broadcast_to(c.reshape(best, (batch, before, 1)), (batch, before, 7)), axis=1)
    rows = c.emit("box_nms", rows, overlap=float(np.float32(a.real("threshold", 0.7))), valid=float("-inf"), box_at=0, score_at=4, force=True)
    # What was dropped has no width; what was kept is repeated from its start until there are enough.
    kept = c.emit("greater", c.emit("sub", cut(c, rows, 2, 2, 3), cut(c, rows, 2, 0, 1)), 0.5)
    number = c.emit("sum", c.cast(c.reshape(kept, (batch, before)), "i64"), axes=(1,), keepdims=True)
    number = c.emit("minimum", number, c.g.scalar(min(after, before), "i64"))
    places = c.emit("mod", c.g.broadcast_to(c.const(np.arange(after).reshape(1, after), "i64"), (batch, after)), number)
    rows = c.cast(c.emit("gather", rows, c.g.broadcast_to(c.reshape(places, (batch, after, 1)), (batch, after, 7)), axis=1), kind)
    image = c.const(np.broadcast_to(np.arange(batch).reshape(batch, 1, 1), (batch, after, 1)), score.dtype)
    regions = c.g.concat([image, cut(c, rows, 2, 0, 2), cut(c, rows, 2, 5, 7)], 2)
    scores = cut(c, rows, 2, 4, 5)
    return _stopped(c, c.reshape(regions, (batch * after, 5))), _stopped(c, c.reshape(scores, (batch * after, 1)))
