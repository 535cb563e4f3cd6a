"""Less common operators, written with the common ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.frontends.torch.convert_linear import _mm
from diptych.frontends.torch.convert_reduce import _reduce, _vector_norm
from diptych.frontends.torch.lower import Context, NotComputed, converts, refuse
from diptych.ir import Value
from diptych.ops.base import normalize_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__: list[str] = []


# -- elementwise ----------------------------------------------------------------------------------------------------
@converts("aten.exp2.default")
def _exp2(c: Context, x: Value) -> Value:
    return c.ew("pow", 2.0, x)


@converts("aten.ldexp.Tensor")
def _ldexp(c: Context, x: Value, exponent: Value) -> Value:
    return c.ew("mul", x, c.ew("pow", 2.0, exponent))


@converts("aten.round.decimals")
def _round(c: Context, x: Value, decimals: int = 0) -> Value:
    if x.dtype[0] in "iu":
        return x
    scale = 10.0 ** abs(decimals)
    first, second = ("mul", "div") if decimals >= 0 else ("div", "mul")
    return c.ew(second, c.ew("round", c.ew(first, x, scale)), scale)


@converts("aten.signbit.default")
def _signbit(c: Context, x: Value) -> Value:
    if x.dtype not in ("f32", "f64"):
        return c.full(False) if x.dtype == "bool" else c.ew("less", x, 0, dtype=x.dtype)
    zero = c.ew("equal", x, 0.0, dtype=x.dtype)  # 1 / -0.0 is -inf: the sign of zero shows in its reciprocal
    return c.ew("less", c.emit("where", zero, c.emit("reciprocal", x), x), 0.0, dtype=x.dtype)


@converts("aten.copysign.Tensor", "aten.copysign.Scalar")
def _copysign(c: Context, x: Value, sign: Any) -> Value:
    size = c.emit("abs", c.value(x))
    if not isinstance(sign, Value):
        return c.emit("neg", size) if math.copysign(1.0, sign) < 0 else size
    return c.emit("where", _signbit(c, sign), c.emit("neg", size), size)


def _ignoring_nan(op: str) -> Any:
    def convert(c: Context, a: Value, b: Value) -> Value:
        a, b = c.value(a), c.value(b)
        if c.dtype == "bool":
            return c.ew("logical_or" if op == "maximum" else "logical_and", a, b)
        best = c.emit(op, a, b)
        if c.dtype not in ("f32", "f64"):
            return best
        return c.emit("where", c.emit("is_nan", a), b, c.emit("where", c.emit("is_nan", b), a, best))

    return convert


converts("aten.fmax.default")(_ignoring_nan("maximum"))
converts("aten.fmin.default")(_ignoring_nan("minimum"))


@converts("aten.angle.default")
def _angle(c: Context, x: Value) -> Value:
    x = c.value(x)
    angle = c.emit("where", c.ew("less", x, 0.0, dtype=x.dtype), c.value(math.pi), c.value(0.0))
    return c.emit("where", c.emit("is_nan", x), x, angle)


@converts("aten.dist.default")
def _dist(c: Context, a: Value, b: Value, p: Any = 2) -> Value:
    return _vector_norm(c, c.ew("sub", a, b), p)


# -- products -------------------------------------------------------------------------------------------------------
@converts("aten.addmv.default")
def _addmv(c: Context, bias: Value, matrix: Value, vector: Value, beta: Any = 1, alpha: Any = 1) -> Value:
    y = c.g.squeeze(_mm(c, matrix, c.g.expand_dims(vector, 1)), (1,))
    return _blend(c, bias, y, beta, alpha)


@converts("aten.addbmm.default")
def _addbmm(c: Context, bias: Value, a: Value, b: Value, beta: Any = 1, alpha: Any = 1) -> Value:
    return _blend(c, bias, c.g.sum(_mm(c, a, b), 0), beta, alpha)


def _blend(c: Context, bias: Value, y: Value, beta: Any, alpha: Any) -> Value:
    y = y if alpha == 1 else c.ew("mul", y, alpha)
    if beta == 0:
        return c.g.broadcast_to(y, c.shape)
    return c.ew("add", y, bias if beta == 1 else c.ew("mul", bias, beta))


@converts("aten._trilinear.default")
def _trilinear(c: Context, a: Value, b: Value, d: Value, expand1: Sequence[int], expand2: Sequence[int],
               expand3: Sequence[int], sums: Sequence[int], unroll: int = 1) -> Value:  # fmt: skip
    factors = []
    for x, axes in ((a, expand1), (b, expand2), (d, expand3)):
        for axis in sorted(axes):
            x = c.g.expand_dims(x, axis)
        factors.append(x)
    return _reduce(c, "sum", c.g.mul(c.g.mul(factors[0], factors[1]), factors[2]), list(sums), False)


@converts("aten._cdist_forward.default")
def _cdist(c: Context, a: Value, b: Value, p: float, mode: int | None = None) -> Value:
    difference = c.g.sub(c.g.expand_dims(a, a.rank - 1), c.g.expand_dims(b, b.rank - 2))
    if a.shape[-1] == 0:
        return c.full(0.0)
    return _vector_norm(c, difference, p, (difference.rank - 1,))


# -- order ----------------------------------------------------------------------------------------------------------
@converts("aten.median.dim")
def _median_dim(c: Context, x: Value, dim: int, keepdim: bool = False) -> tuple[Any, ...]:
    if x.rank == 0:
        return x, c.g.scalar(0, "i64")
    axis = normalize_axis(dim, x.rank)
    middle = (x.shape[axis] - 1) // 2
    ordered = c.emit_all("sort", x, axis=axis, descending=False)
    values, places = (c.g.slice_axis(v, axis, middle, middle + 1) for v in ordered)
    if x.dtype in ("f32", "f64"):  # one NaN makes the median NaN; sorting has put them last
        last = c.g.slice_axis(ordered[0], axis, x.shape[axis] - 1, x.shape[axis])
        nan = c.emit("is_nan", last)
        values = c.emit("where", nan, last, values)
        places = c.emit("where", nan, c.g.slice_axis(ordered[1], axis, x.shape[axis] - 1, x.shape[axis]), places)
    return (values, places) if keepdim else (c.g.squeeze(values, (axis,)), c.g.squeeze(places, (axis,)))


@converts("aten.median.default")
def _median(c: Context, x: Value) -> Value:
    value: Value = _median_dim(c, c.g.reshape(x, (x.type.size,)), 0)[0]
    return value


@converts("aten.searchsorted.Tensor", "aten.searchsorted.Scalar")
def _searchsorted(c: Context, edges: Value, x: Any, out_int32: bool = False, right: bool = False,
                  side: str | None = None, sorter: Value | None = None) -> Value:  # fmt: skip
    if sorter is not None:
        edges = c.emit("gather", edges, sorter, axis=edges.rank - 1)
    dtype = c.promote(edges, x)
    values = c.value(x, dtype)
    # how many edges lie below each value
    left = c.g.expand_dims(c.cast(edges, dtype), edges.rank - 1) if values.rank and edges.rank > 1 else edges
    below = c.emit("less_equal" if right or side == "right" else "less", c.cast(left, dtype), c.g.expand_dims(
        values, values.rank))  # fmt: skip
    return _reduce(c, "sum", c.cast(below, c.dtype), below.rank - 1, False)


@converts("aten.bucketize.Tensor", "aten.bucketize.Scalar")
def _bucketize(c: Context, x: Any, edges: Value, out_int32: bool = False, right: bool = False) -> Value:
    return _searchsorted(c, edges, x, out_int32, right)


@converts("aten.unfold.default")
def _unfold(c: Context, x: Value, dim: int, size: int, step: int) -> Value:
    if x.rank == 0:
        return c.g.reshape(x, (size,))
    axis = normalize_axis(dim, x.rank)
    count = (x.shape[axis] - size) // step + 1
    places = np.arange(count, dtype=np.int64)[:, None] * step + np.arange(size, dtype=np.int64)
    y = c.emit("take", x, c.g.constant(places), axis=axis, mode="clip")  # [..., count, size, ...]
    return c.g.transpose(y, [*(i for i in range(y.rank) if i != axis + 1), axis + 1])


# -- places ---------------------------------------------------------------------------------------------------------
@converts("aten.masked_scatter.default")
def _masked_scatter(c: Context, x: Value, mask: Value, source: Value) -> Value:
    x, mask = c.g.broadcast_to(x, c.shape), c.g.broadcast_to(mask, c.shape)
    if not source.type.size or not x.type.size:
        return x
    flat = c.cast(c.g.reshape(mask, (x.type.size,)), "i64")
    place = c.ew("sub", c.emit("cum_sum", flat, axis=0), 1, dtype="i64")
    values = c.emit("take", c.g.reshape(source, (source.type.size,)), place, axis=0, mode="clip")
    return c.emit("where", mask, c.g.reshape(values, x.shape), x)


@converts("aten.diagonal_scatter.default")
def _diagonal_scatter(c: Context, x: Value, source: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    places = np.arange(x.type.size, dtype=np.int64).reshape(x.shape)
    chosen = np.array(np.diagonal(places, offset, dim1, dim2))
    flat = places.reshape(-1).copy()
    flat[chosen.reshape(-1)] = x.type.size + np.arange(chosen.size)
    joined = c.g.concat([c.g.reshape(x, (x.type.size,)), c.g.reshape(c.value(source), (chosen.size,))], 0)
    return c.emit("take", joined, c.g.constant(flat.reshape(x.shape)), axis=0, mode="clip")


@converts("aten.as_strided.default", "aten.as_strided_copy.default")
def _as_strided(c: Context, x: Value, size: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Value:
    fake = c.fakes[0]
    if fake is None or not fake.is_contiguous() or len(size) > 32:
        refuse("as_strided on a tensor that is not contiguous; write it with reshape, permute, unfold or slicing")
    start = int(c.number(fake.storage_offset())) if offset is None else offset
    if start != (offset or 0) or int(c.number(fake.storage_offset())):
        refuse("as_strided on a part of a tensor; write it with reshape, permute, unfold or slicing")
    places = np.full((1,) * len(size), start, np.int64)
    for axis, (extent, step) in enumerate(zip(size, stride)):
        places = places + (np.arange(extent, dtype=np.int64) * step).reshape(
            [-1 if i == axis else 1 for i in range(len(size))]
        )
    if places.size and places.max() >= x.type.size:
        refuse("as_strided reaches beyond the tensor")
    return c.emit("take", c.g.reshape(x, (x.type.size,)), c.g.constant(places), axis=0, mode="clip")


@converts("aten.col2im.default")
def _col2im(c: Context, x: Value, size: Sequence[int], kernel: Sequence[int], dilation: Sequence[int],
            padding: Sequence[int], stride: Sequence[int]) -> Value:  # fmt: skip
    batched = x.rank == 3
    x = x if batched else c.g.expand_dims(x, 0)
    count = int(np.prod(kernel))
    depth = x.shape[1] // count
    extents = [(o + 2 * p - d * (k - 1) - 1) // s + 1 for o, k, d, p, s in zip(size, kernel, dilation, padding, stride)]
    used = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, d, p, s in zip(extents, kernel, dilation, padding, stride)]
    # each column entry is added at its place in the window: a transposed convolution with one-hot kernels
    place = np.eye(count).reshape(count, 1, *kernel)
    weight = c.g.constant(np.tile(place, (depth, 1, 1, 1)).astype(np.float64 if x.dtype == "f64" else np.float32))
    y = c.emit("conv_transpose", c.g.reshape(x, (x.shape[0], x.shape[1], *extents)), weight, strides=tuple(stride),
               pads=tuple((p, p) for p in padding), dilations=tuple(dilation), groups=depth,
               output_padding=tuple(o - u for o, u in zip(size, used)))  # fmt: skip
    return y if batched else c.g.squeeze(y, (0,))


@converts("aten.grid_sampler_2d.default")
def _grid_sampler(c: Context, x: Value, grid: Value, interpolation: int, padding: int, align: bool) -> Value:
    if interpolation == 2 or padding == 2:
        refuse("grid_sample takes modes bilinear and nearest, with zeros or border padding")
    n, depth, height, width = x.shape
    rows, columns = grid.shape[1:3]
    flat = c.g.reshape(x, (n, depth, height * width))

    def coordinate(i: int, extent: int) -> Value:
        g = c.g.reshape(c.g.slice_axis(grid, 3, i, i + 1), (n, 1, rows * columns))
        p = c.g.add(c.g.mul(g, (extent - 1) / 2), (extent - 1) / 2) if align else c.g.add(
            c.g.mul(g, extent / 2), (extent - 1) / 2)  # fmt: skip
        return c.emit("clip", p, low=0.0, high=float(extent - 1)) if padding == 1 else p

    px, py = coordinate(0, width), coordinate(1, height)

    def read(ix: Value, iy: Value) -> Value:
        """x at whole coordinates, 0 outside."""
        inside = c.emit("logical_and", _between(c, ix, width), _between(c, iy, height))
        cx, cy = (c.emit("clip", v, low=0.0, high=float(e - 1)) for v, e in ((ix, width), (iy, height)))
        place = c.g.cast(c.g.add(c.g.mul(cy, float(width)), cx), "i64")
        values = c.emit("gather", flat, c.g.broadcast_to(place, (n, depth, rows * columns)), axis=2)
        return c.emit("where", inside, values, c.g.scalar(0.0, x.dtype))

    if interpolation == 1:
        y = read(c.emit("round", px), c.emit("round", py))
    else:
        x0, y0 = c.emit("floor", px), c.emit("floor", py)
        x1, y1 = c.g.add(x0, 1.0), c.g.add(y0, 1.0)
        wx, wy = c.g.sub(px, x0), c.g.sub(py, y0)
        ux, uy = c.g.sub(1.0, wx), c.g.sub(1.0, wy)
        upper = c.g.add(c.g.mul(read(x0, y0), c.g.mul(ux, uy)), c.g.mul(read(x1, y0), c.g.mul(wx, uy)))
        lower = c.g.add(c.g.mul(read(x0, y1), c.g.mul(ux, wy)), c.g.mul(read(x1, y1), c.g.mul(wx, wy)))
        y = c.g.add(upper, lower)
    return c.g.reshape(y, (n, depth, rows, columns))


def _between(c: Context, x: Value, extent: int) -> Value:
    low = c.ew("greater_equal", x, 0.0, dtype=x.dtype)
    return c.emit("logical_and", low, c.ew("less_equal", x, float(extent - 1), dtype=x.dtype))


@converts("aten._embedding_bag.default", "aten._embedding_bag_forward_only.default")
def _embedding_bag(c: Context, weight: Value, indices: Value, offsets: Value, scale_grad: bool = False, mode: int = 0,
                   sparse: bool = False, per_sample: Value | None = None, include_last: bool = False,
                   padding_idx: int = -1) -> tuple[Any, ...]:  # fmt: skip
    starts = c.array(offsets, "the table of bag offsets").tolist()
    if padding_idx >= 0:
        refuse("embedding_bag with padding_idx; give the padding row zero weights instead")
    ends = [*starts[1:], indices.shape[0]] if not include_last else starts[1:]
    rows = c.emit("take", weight, indices, axis=0, mode="raise")
    if per_sample is not None:
        rows = c.g.mul(rows, c.g.expand_dims(per_sample, 1))
    op = ("sum", "mean", "max")[mode]
    bags = []
    for start, end in zip(starts, ends):
        bag = c.g.slice_axis(rows, 0, start, end)
        bags.append(
            c.g.reduce(op, bag, 0, True) if end > start else c.full(0.0, bag.type.with_shape((1, rows.shape[1])))
        )
    lengths = {e - s for s, e in zip(starts, ends)}
    if len(lengths) == 1 and lengths != {0}:  # bags of one length are one reduction
        (length,) = lengths
        y = c.g.reduce(op, c.g.reshape(c.g.slice_axis(rows, 0, 0, ends[-1]), (len(ends), length, rows.shape[1])), 1)
    else:
        y = c.g.concat(bags, 0)
    rest = NotComputed()
    return y, rest, rest, rest


@converts("aten._fft_r2c.default", "aten._fft_c2r.default", "aten._fft_c2c.default", "aten.complex.default",
          "aten.view_as_complex.default")  # fmt: skip
def _complex(c: Context, *args: Any, **options: Any) -> Any:
    return refuse("complex numbers are not supported; compute spectra outside the model, or as products with a matrix")
