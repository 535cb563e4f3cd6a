"""Operators whose results depend on values in ways that no graph of ours has, and small ones that only programs use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.ops.live import host, host_gradient, live

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.attributes import Attributes
    from diptych.frontends.mxnet.convert import Call, Result
    from diptych.ir import Array


# -- shapes that depend on values ---------------------------------------------------------------------------------------------
@host("_contrib_boolean_mask")
def boolean_mask(a: Attributes, x: Array, index: Array) -> Array:
    return np.compress(index.reshape(-1) != 0, x, a.integer("axis", 0))


@host_gradient("_contrib_boolean_mask")
def boolean_mask_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array | None]:
    out = np.zeros_like(xs[0])
    axis = a.integer("axis", 0)
    np.moveaxis(out, axis, 0)[xs[1].reshape(-1) != 0] = np.moveaxis(ds[0], axis, 0)
    return [out, None]


@host("_histogram")
def histogram(a: Attributes, x: Array, *bins: Array) -> list[Array]:
    if bins:
        counts, edges = np.histogram(x, bins[0])
    else:
        low, high = a.reals("range")
        counts, edges = np.histogram(x, a.integer("bin_cnt"), (low, high))
    return [counts.astype(np.int64), edges.astype(x.dtype)]


@host("_npx_nonzero")
def nonzero(a: Attributes, x: Array) -> Array:
    return np.stack(np.nonzero(x), -1).astype(np.int64)


# -- writing by index -----------------------------------------------------------------------------------------------------------
@host("_contrib_index_copy", shape=lambda a, *shapes: [shapes[0]])
def index_copy(a: Attributes, old: Array, index: Array, new: Array) -> Array:
    out = old.copy()
    out[index.astype(np.int64)] = new
    return out


@host_gradient("_contrib_index_copy")
def index_copy_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array | None]:
    rows = xs[1].astype(np.int64)
    old = ds[0].copy()
    old[rows] = 0
    return [old, None, ds[0][rows]]


def _masked(a: Attributes, mask: Array) -> tuple[Any, ...]:
    """The index of the places that a mask over axes from `start_axis` on chooses."""
    return (*(slice(None),) * a.integer("start_axis", 0), mask != 0)


@host("_npi_boolean_mask_assign_scalar", shape=lambda a, *shapes: [shapes[0]])
def boolean_mask_assign_scalar(a: Attributes, x: Array, mask: Array) -> Array:
    out = x.copy()
    out[_masked(a, mask)] = a.real("value")
    return out


@host("_npi_boolean_mask_assign_tensor", shape=lambda a, *shapes: [shapes[0]])
def boolean_mask_assign_tensor(a: Attributes, x: Array, mask: Array, value: Array) -> Array:
    out = x.copy()
    out[_masked(a, mask)] = value
    return out


@host_gradient("_npi_boolean_mask_assign_scalar", "_npi_boolean_mask_assign_tensor")
def boolean_mask_assign_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array | None]:
    places = _masked(a, xs[1])
    kept = ds[0].copy()
    kept[places] = 0
    if len(xs) < 3:
        return [kept, None]
    put, shape = ds[0][places], xs[2].shape
    put = put.sum(tuple(range(put.ndim - len(shape))))
    return [kept, None, put.sum(tuple(i for i, d in enumerate(shape) if d == 1 != put.shape[i]), keepdims=True)]


@host("_scatter_set_nd", shape=lambda a, *shapes: [shapes[0]])
def scatter_set_nd(a: Attributes, lhs: Array, rhs: Array, indices: Array) -> Array:
    out = lhs.copy()
    out[tuple(indices.astype(np.int64))] = rhs
    return out


@host("_sparse_retain", shape=lambda a, *shapes: [shapes[0]])
def sparse_retain(a: Attributes, x: Array, indices: Array) -> Array:
    out = np.zeros_like(x)
    rows = indices.astype(np.int64)
    out[rows] = x[rows]
    return out


@host("_contrib_allclose", shape=lambda a, *shapes: [(1,)])
def allclose(a: Attributes, x: Array, y: Array) -> Array:
    close = np.allclose(x, y, a.real("rtol", 1e-5), a.real("atol", 1e-8), a.boolean("equal_nan", True))
    return np.array([float(close)], np.float32)


@host("_contrib_getnnz")
def getnnz(a: Attributes, x: Array) -> Array:
    return np.array([np.count_nonzero(x)], np.int64)


# -- Fourier transforms: real and imaginary parts interleaved -----------------------------------------------------------------------
@host("_contrib_fft", shape=lambda a, x: [(*x[:-1], 2 * x[-1])])
def fft(a: Attributes, x: Array) -> Array:
    found = np.fft.fft(x)
    return np.stack([found.real, found.imag], -1).reshape(*x.shape[:-1], -1).astype(x.dtype)


@host("_contrib_ifft", shape=lambda a, x: [(*x[:-1], x[-1] // 2)])
def ifft(a: Attributes, x: Array) -> Array:
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    found: Array = np.fft.ifft(pairs[..., 0] + 1j * pairs[..., 1]).real * (x.shape[-1] // 2)
    return found.astype(x.dtype)


# -- plain graphs ---------------------------------------------------------------------------------------------------------------
@live("softmax_cross_entropy")
def _softmax_cross_entropy(c: Call) -> Result:
    logs = c.emit("log_softmax", c.x, axis=-1)
    index = c.reshape(c.indices(c.arg(1)), (c.x.shape[0], 1))
    picked = c.emit("gather", logs, index, axis=1)
    return c.reshape(c.emit("neg", c.emit("sum", picked, axes=(0, 1), keepdims=False)), (1,))


@live("khatri_rao")
def _khatri_rao(c: Call) -> Result:
    out = c.x
    for x in c.inputs[1:]:
        rows, columns = out.shape[0] * x.shape[0], x.shape[1]
        left = c.reshape(out, (out.shape[0], 1, columns))
        out = c.reshape(c.emit("mul", left, c.reshape(x, (1, *x.shape))), (rows, columns))
    return out


@live("_square_sum")
def _square_sum(c: Call) -> Result:
    axes = tuple(c.axis(i) for i in c.attrs.shape("axis", ())) or tuple(range(c.x.rank))
    y = c.emit("sum", c.emit("mul", c.x, c.x), axes=tuple(sorted(axes)), keepdims=c.attrs.boolean("keepdims", False))
    return y if y.rank else c.reshape(y, (1,))


@live("_scatter_elemwise_div")
def _scatter_div(c: Call) -> Result:
    return c.emit("div", c.x, c.arg(1))


@live("_scatter_plus_scalar", "_scatter_minus_scalar")
def _scatter_scalar(c: Call) -> Result:
    return c.emit("add" if "plus" in c.op else "sub", c.x, c.attrs.real("scalar", 1.0))


@live("_set_value")
def _set_value(c: Call) -> Result:
    return c.full(c.attrs.shape("shape", (1,)), c.attrs.real("src", 0.0))


# -- boxes ------------------------------------------------------------------------------------------------------------------------
def overlaps(a: Array, b: Array) -> Array:
    """Intersection over union of corner boxes [N, 4] and [M, 4]."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.maximum(high - low, 0), -1)
    areas = [np.prod(x[:, 2:] - x[:, :2], -1) for x in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - inter
    found: Array = np.where(union > 0, inter / np.where(union > 0, union, 1), 0)
    return found


@host("_contrib_bipartite_matching", shape=lambda a, x: [x[:-1], (*x[:-2], x[-1])])
def bipartite_matching(a: Attributes, x: Array) -> list[Array]:
    ascend, threshold, most = a.boolean("is_ascend", False), a.real("threshold"), a.integer("topk", -1)
    scores = x.reshape(-1, *x.shape[-2:])
    rows = np.full(scores.shape[:2], -1.0, x.dtype)
    columns = np.full((scores.shape[0], scores.shape[2]), -1.0, x.dtype)
    for n, s in enumerate(scores):
        order = np.argsort(s.reshape(-1) if ascend else -s.reshape(-1), kind="stable")
        count = 0
        for k in order:
            i, j = divmod(int(k), s.shape[1])
            if (s[i, j] > threshold) if ascend else (s[i, j] < threshold):
                break
            if rows[n, i] < 0 and columns[n, j] < 0:
                rows[n, i], columns[n, j] = j, i
                count += 1
                if 0 < most <= count:
                    break
    return [rows.reshape(x.shape[:-1]), columns.reshape(*x.shape[:-2], x.shape[-1])]


@host("_contrib_box_encode", shape=lambda a, s, m, anchors, *r: [anchors, anchors])
def box_encode(a: Attributes, samples: Array, matches: Array, anchors: Array, refs: Array, means: Array, stds: Array) -> list[Array]:
    index = matches.astype(np.int64)[..., None]
    chosen = np.take_along_axis(refs, np.broadcast_to(index, (*index.shape[:2], 4)), 1)

    def centered(b: Array) -> tuple[Any, Any]:
        return (b[..., :2] + b[..., 2:]) / 2, b[..., 2:] - b[..., :2]

    (ca, sa), (cr, sr) = centered(anchors), centered(chosen)
    t = (np.concatenate([(cr - ca) / sa, np.log(sr / sa)], -1) - means) / stds
    masks = np.broadcast_to((samples > 0.5)[..., None], t.shape)
    return [np.where(masks, t, 0).astype(anchors.dtype), masks.astype(anchors.dtype)]


@host("_contrib_MultiBoxTarget",
      shape=lambda a, anchor, label, pred: [(label[0], anchor[1] * 4), (label[0], anchor[1] * 4), (label[0], anchor[1])])  # fmt: skip
def multibox_target(a: Attributes, anchor: Array, label: Array, prediction: Array) -> list[Array]:
    """Each ground truth takes its best anchor, then each anchor its best ground truth above the threshold."""
    threshold, ratio = a.real("overlap_threshold", 0.5), a.real("negative_mining_ratio", -1.0)
    ignore, mining = a.real("ignore_label", -1.0), a.real("negative_mining_thresh", 0.5)
    variances = np.array(a.reals("variances", (0.1, 0.1, 0.2, 0.2)))
    boxes = anchor[0].astype(np.float64)
    batch, count = label.shape[0], boxes.shape[0]
    target, mask = np.zeros((batch, count, 4)), np.zeros((batch, count, 4))
    classes = np.full((batch, count), ignore)
    for n in range(batch):
        real = label[n][: int(np.argmax(label[n][:, 0] == -1)) if (label[n][:, 0] == -1).any() else None]
        if not len(real):
            continue
        iou = overlaps(boxes, real[:, 1:5].astype(np.float64))
        match = np.full(count, -1)
        left = iou.copy()
        for _ in range(len(real)):
            i, j = np.unravel_index(int(np.argmax(left)), left.shape)
            if left[i, j] <= 1e-6:
                break
            match[i] = j
            left[i], left[:, j] = -1, -1
        best = iou.argmax(1)
        if threshold > 0:
            more = (match < 0) & (iou.max(1) > threshold)
            match[more] = best[more]
        hit = match >= 0
        if ratio > 0:
            negatives = int(min(ratio * hit.sum(), count - hit.sum()))
            scores = prediction[n].astype(np.float64)
            p = np.exp(scores - scores.max(0))
            background = (p / p.sum(0))[0]
            candidates = np.flatnonzero(~hit & (iou.max(1) < mining))
            order = candidates[np.argsort(background[candidates], kind="stable")]
            classes[n, order[: max(negatives, a.integer("minimum_negative_samples", 0))]] = 0
        else:
            classes[n, ~hit] = 0
        truth = real[match[hit]]
        classes[n, hit] = truth[:, 0] + 1
        size, centre = boxes[hit, 2:] - boxes[hit, :2], (boxes[hit, 2:] + boxes[hit, :2]) / 2
        wanted, middle = truth[:, 3:5] - truth[:, 1:3], (truth[:, 3:5] + truth[:, 1:3]) / 2
        target[n, hit, :2] = (middle - centre) / size / variances[:2]
        target[n, hit, 2:] = np.log(wanted / size) / variances[2:]
        mask[n, hit] = 1
    return [target.reshape(batch, -1).astype(anchor.dtype), mask.reshape(batch, -1).astype(anchor.dtype),
            classes.astype(anchor.dtype)]  # fmt: skip
