"""Operators that only move elements: views, slices, concatenation, padding, flips, shuffles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.frontends.torch.lower import Context, converts, refuse
from diptych.ops.base import normalize_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.ir import Value

__all__: list[str] = []


@converts("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.flatten.using_ints",
          "aten.squeeze_copy.default", "aten.squeeze_copy.dim", "aten.squeeze_copy.dims", "aten.unsqueeze_copy.default",
          "aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.unsqueeze.default",
          "aten.unflatten.int", "aten.view_as.default", "aten.view_copy.default")  # fmt: skip
def _reshaped(c: Context, x: Value, *rest: Any, **options: Any) -> Value:
    return c.g.reshape(x, c.shape)  # torch has worked out the shape


@converts("aten.permute.default", "aten.permute_copy.default")
def _permute(c: Context, x: Value, dims: Sequence[int]) -> Value:
    return c.g.transpose(x, dims) if dims else x


@converts("aten.transpose.int", "aten.transpose_copy.int")
def _transpose(c: Context, x: Value, dim0: int, dim1: int) -> Value:
    if x.rank == 0:
        return x
    perm = list(range(x.rank))
    a, b = normalize_axis(dim0, x.rank), normalize_axis(dim1, x.rank)
    perm[a], perm[b] = b, a
    return c.g.transpose(x, perm)


@converts("aten.t.default", "aten.t_copy.default", "aten.numpy_T.default", "aten.mT.default")
def _t(c: Context, x: Value) -> Value:
    return c.g.transpose(x, list(range(x.rank))[::-1]) if x.rank == 2 else x


@converts("aten.expand.default", "aten.expand_copy.default", "aten.expand_as.default", "aten.broadcast_to.default")
def _expand(c: Context, x: Value, size: Any, implicit: bool = False) -> Value:
    return c.g.broadcast_to(x, c.shape)


@converts("aten.slice.Tensor", "aten.slice_copy.Tensor")
def _slice(
    c: Context, x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    axis = normalize_axis(dim, x.rank)
    first, stop, _ = slice(start, end, step).indices(x.shape[axis])
    return c.g.slice_axis(x, axis, min(first, x.shape[axis]), max(stop, min(first, x.shape[axis])), step)


@converts("aten.narrow.default", "aten.narrow_copy.default")
def _narrow(c: Context, x: Value, dim: int, start: int, length: int) -> Value:
    axis = normalize_axis(dim, x.rank)
    start = start + x.shape[axis] if start < 0 else start
    return c.g.slice_axis(x, axis, start, start + length)


@converts("aten.select.int", "aten.select_copy.int")
def _select(c: Context, x: Value, dim: int, index: int) -> Value:
    axis = normalize_axis(dim, x.rank)
    index = index + x.shape[axis] if index < 0 else index
    return c.g.squeeze(c.g.slice_axis(x, axis, index, index + 1), (axis,))


@converts("aten.split_with_sizes.default", "aten.split_with_sizes_copy.default")
def _split_with_sizes(c: Context, x: Value, sizes: Sequence[int], dim: int = 0) -> tuple[Value, ...]:
    stops = np.cumsum(sizes).tolist()
    return tuple(c.g.slice_axis(x, dim, stop - size, stop) for size, stop in zip(sizes, stops))


@converts("aten.split.Tensor", "aten.chunk.default", "aten.unsafe_split.Tensor")
def _split(c: Context, x: Value, size: int, dim: int = 0) -> tuple[Value, ...]:
    axis = normalize_axis(dim, x.rank)
    return _split_with_sizes(c, x, [c.type_of(part).shape[axis] for part in c.out], axis)


@converts("aten.unbind.int", "aten.unbind_copy.int")
def _unbind(c: Context, x: Value, dim: int = 0) -> tuple[Value, ...]:
    axis = normalize_axis(dim, x.rank)
    return tuple(_select(c, x, axis, i) for i in range(x.shape[axis]))


@converts("aten.cat.default", "aten.concat.default")
def _cat(c: Context, xs: Sequence[Value], dim: int = 0) -> Value:
    # torch lets empty one-dimensional tensors join any concatenation
    parts = [c.value(x) for x in xs if x.shape != (0,) or c.type.rank == 1]
    return c.g.concat(parts, normalize_axis(dim, c.type.rank))


@converts("aten.stack.default")
def _stack(c: Context, xs: Sequence[Value], dim: int = 0) -> Value:
    return c.g.stack([c.value(x) for x in xs], normalize_axis(dim, xs[0].rank + 1))


@converts("aten.repeat.default")
def _repeat(c: Context, x: Value, reps: Sequence[int]) -> Value:
    x = c.g.reshape(x, (1,) * (len(reps) - x.rank) + x.shape)
    if all(r == 1 or d == 1 for r, d in zip(reps, x.shape)):
        return c.g.broadcast_to(x, c.shape)
    return c.emit("tile", x, reps=tuple(reps))


@converts("aten.repeat_interleave.self_int")
def _repeat_interleave(c: Context, x: Value, repeats: int, dim: int | None = None, output_size: Any = None) -> Value:
    if dim is None:
        return c.emit("repeat", c.g.reshape(x, (x.type.size,)), repeats=repeats, axis=0)
    return c.emit("repeat", x, repeats=repeats, axis=normalize_axis(dim, x.rank))


@converts("aten.flip.default")
def _flip(c: Context, x: Value, dims: Sequence[int]) -> Value:
    axes = tuple(sorted({normalize_axis(d, x.rank) for d in dims}))
    return c.emit("flip", x, axes=axes) if axes else x


@converts("aten.roll.default")
def _roll(c: Context, x: Value, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value:
    shifts = [shifts] if isinstance(shifts, int) else list(shifts)
    dims = [dims] if isinstance(dims, int) else list(dims)
    if not dims:
        flat = c.g.reshape(x, (x.type.size,))
        return c.g.reshape(_roll(c, flat, shifts, [0]), x.shape)
    for shift, dim in zip(shifts, dims):
        axis = normalize_axis(dim, x.rank)
        extent = x.shape[axis]
        cut = -shift % extent if extent else 0
        if cut:
            x = c.g.concat([c.g.slice_axis(x, axis, cut, extent), c.g.slice_axis(x, axis, 0, cut)], axis)
    return x


@converts("aten.constant_pad_nd.default")
def _constant_pad(c: Context, x: Value, pad: Sequence[int], value: Any = 0) -> Value:
    pairs = _pairs(x.rank, pad)
    x = c.g.slice(x, [max(-a, 0) for a, _ in pairs], [d - max(-b, 0) for d, (_, b) in zip(x.shape, pairs)])
    widths = [(max(a, 0), max(b, 0)) for a, b in pairs]
    if x.dtype in ("f32", "f64") or value == 0:
        return c.g.pad(x, widths, value=float(value))
    if x.dtype == "bool":
        return c.g.pad(x, widths, value=float(bool(value)))
    if abs(value) > 1 << 53:
        refuse("pad integers with values below 2^53")
    return c.g.pad(x, widths, value=float(value))


def _pairs(rank: int, pad: Sequence[int]) -> list[tuple[int, int]]:
    """torch's padding, last axis first, as (low, high) per axis."""
    pairs = [(0, 0)] * rank
    for i in range(len(pad) // 2):
        pairs[rank - 1 - i] = (pad[2 * i], pad[2 * i + 1])
    return pairs


@converts("aten.reflection_pad1d.default", "aten.reflection_pad2d.default", "aten.reflection_pad3d.default")
def _reflection_pad(c: Context, x: Value, pad: Sequence[int]) -> Value:
    return _border_pad(c, x, pad, "reflect")


@converts("aten.replication_pad1d.default", "aten.replication_pad2d.default", "aten.replication_pad3d.default")
def _replication_pad(c: Context, x: Value, pad: Sequence[int]) -> Value:
    return _border_pad(c, x, pad, "edge")


def _border_pad(c: Context, x: Value, pad: Sequence[int], mode: str) -> Value:
    pairs = _pairs(x.rank, pad)
    y = c.g.pad(x, [(max(a, 0), max(b, 0)) for a, b in pairs], mode=mode)
    # a negative width crops what padding the other side has made
    return c.g.slice(y, [max(-a, 0) for a, _ in pairs], [d - max(-b, 0) for d, (_, b) in zip(y.shape, pairs)])


@converts("aten.pixel_shuffle.default")
def _pixel_shuffle(c: Context, x: Value, factor: int) -> Value:
    *batch, depth, height, width = x.shape
    y = c.emit("depth_to_space", c.g.reshape(x, (int(np.prod(batch)), depth, height, width)), block=factor, mode="CRD")
    return c.g.reshape(y, c.shape)


@converts("aten.channel_shuffle.default")
def _channel_shuffle(c: Context, x: Value, groups: int) -> Value:
    n, depth, *space = x.shape
    y = c.g.reshape(x, (n, groups, depth // groups, *space))
    return c.g.reshape(c.g.transpose(y, (0, 2, 1, *range(3, y.rank))), x.shape)


@converts("aten.select_scatter.default")
def _select_scatter(c: Context, x: Value, source: Value, dim: int, index: int) -> Value:
    axis = normalize_axis(dim, x.rank)
    index = index + x.shape[axis] if index < 0 else index
    return _spliced(c, x, c.g.expand_dims(c.value(source), axis), axis, index, 1)


@converts("aten.slice_scatter.default")
def _slice_scatter(c: Context, x: Value, source: Value, dim: int = 0, start: int | None = None, end: int | None = None,
                   step: int = 1) -> Value:  # fmt: skip
    axis = normalize_axis(dim, x.rank)
    first, _, _ = slice(start, end, step).indices(x.shape[axis])
    return _spliced(c, x, c.value(source), axis, first, step)


def _spliced(c: Context, x: Value, update: Value, axis: int, start: int, step: int) -> Value:
    """x with `update` written along one axis."""
    count = update.shape[axis]
    if count == 0:
        return x
    starts, steps = [0] * x.rank, [1] * x.rank
    starts[axis], steps[axis] = start, step
    shape = tuple(count if i == axis else d for i, d in enumerate(x.shape))
    return c.emit("slice_update", x, c.g.broadcast_to(update, shape), starts=tuple(starts), steps=tuple(steps))


@converts("aten.tril.default")
def _tril(c: Context, x: Value, diagonal: int = 0) -> Value:
    return _triangle(c, x, np.tril(np.ones(x.shape[-2:], bool), diagonal))


@converts("aten.triu.default")
def _triu(c: Context, x: Value, diagonal: int = 0) -> Value:
    return _triangle(c, x, np.triu(np.ones(x.shape[-2:], bool), diagonal))


def _triangle(c: Context, x: Value, keep: np.ndarray[Any, Any]) -> Value:
    return c.emit("where", c.g.constant(keep), x, c.value(0))


@converts("aten.diagonal.default", "aten.diagonal_copy.default")
def _diagonal(c: Context, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    a, b = normalize_axis(dim1, x.rank), normalize_axis(dim2, x.rank)
    rest = [i for i in range(x.rank) if i not in (a, b)]
    y = c.g.transpose(x, [*rest, a, b])
    rows, columns = y.shape[-2:]
    count = c.shape[-1]
    first = (offset if offset >= 0 else -offset * columns) if count else 0
    y = c.g.reshape(y, (*y.shape[:-2], rows * columns))
    index = np.arange(count, dtype=np.int64) * (columns + 1) + first
    return c.emit("take", y, c.g.constant(index), axis=y.rank - 1, mode="clip")
