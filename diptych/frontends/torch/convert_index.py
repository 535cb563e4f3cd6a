"""Look-ups and writes by index: embedding, gather, advanced indexing, scatter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.frontends.torch.lower import Context, converts, refuse
from diptych.ops.base import broadcast, normalize_axis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.ir import Value

__all__: list[str] = []


def _wrapped(c: Context, index: Value, extent: int) -> Value:
    """Indices as i64 with negative ones counted from the end; constants are done at once."""
    array = c.g.constant_array(index)
    if array is not None:
        array = array.astype(np.int64)
        if array.size and (array.min() < -extent or array.max() >= extent):
            refuse(f"an index lies outside of -{extent}..{extent - 1}")
        return c.g.constant(np.where(array < 0, array + extent, array))
    index = c.cast(index, "i64")
    negative = c.ew("less", index, 0, dtype="i64")
    return c.emit("where", negative, c.ew("add", index, extent, dtype="i64"), index)


@converts("aten.embedding.default")
def _embedding(c: Context, weight: Value, indices: Value, padding_idx: int = -1, scale_grad_by_freq: bool = False,
               sparse: bool = False) -> Value:  # fmt: skip
    return c.emit("take", weight, indices, axis=0, mode="raise")


@converts("aten.index_select.default")
def _index_select(c: Context, x: Value, dim: int, index: Value) -> Value:
    if x.rank == 0:
        return x
    if index.rank == 0:
        index = c.g.reshape(index, (1,))
    return c.emit("take", x, index, axis=normalize_axis(dim, x.rank), mode="raise")


@converts("aten.gather.default")
def _gather(c: Context, x: Value, dim: int, index: Value, sparse_grad: bool = False) -> Value:
    if x.rank == 0:
        return c.g.reshape(x, c.shape)
    axis = normalize_axis(dim, x.rank)
    if index.rank == 0:
        return c.g.reshape(_gather(c, x, dim, c.g.reshape(index, (1,))), ())
    # torch lets the index be shorter than the data along the other axes
    stops = [d if i == axis else min(d, e) for i, (d, e) in enumerate(zip(x.shape, index.shape))]
    return c.emit("gather", c.g.slice(x, [0] * x.rank, stops), index, axis=axis)


@converts("aten.index.Tensor", "aten._unsafe_index.Tensor")
def _index(c: Context, x: Value, indices: Sequence[Value | None]) -> Value:
    listed = _expand_masks(c, x, list(indices))
    axes = [i for i, index in enumerate(listed) if index is not None]
    picked = [index for index in listed if index is not None]
    if not axes:
        return x
    together = axes == list(range(axes[0], axes[-1] + 1))
    place = axes[0] if together else 0
    if len(axes) == 1:
        index = _wrapped(c, picked[0], x.shape[axes[0]])
        return c.emit("take", x, index, axis=axes[0], mode="raise")
    shape = broadcast(*(p.shape for p in picked))
    rest = [i for i in range(x.rank) if i not in axes]
    data = c.g.transpose(x, [*axes, *rest])
    extents = [x.shape[a] for a in axes]
    flat = c.g.reshape(data, (int(np.prod(extents)), *(x.shape[i] for i in rest)))
    linear = _linear_index(c, picked, extents, shape)
    y = c.emit("take", flat, linear, axis=0, mode="raise")  # [*index, *rest]
    if place == 0:
        return y
    n = len(shape)
    before = [i for i in rest if i < place]
    k = len(before)
    perm = [*range(n, n + k), *range(n), *range(n + k, y.rank)]
    return c.g.transpose(y, perm)


def _expand_masks(c: Context, x: Value, indices: list[Value | None]) -> list[Value | None]:
    """Boolean masks as integer indices; their number of hits must be known, so they must be constants."""
    out: list[Value | None] = []
    for index in indices:
        if index is not None and index.dtype in ("bool", "u8"):
            mask = c.array(index, "a boolean mask used as an index (its result's shape depends on its values; use"
                                  " torch.where instead), that is the mask,")  # fmt: skip
            out += [c.g.constant(places.astype(np.int64)) for places in np.nonzero(mask)]
        else:
            out.append(index)
    return out


def _linear_index(c: Context, picked: list[Value], extents: list[int], shape: tuple[int, ...]) -> Value:
    """One index into the flattened leading axes."""
    arrays = [c.g.constant_array(p) for p in picked]
    strides = [int(np.prod(extents[i + 1 :])) for i in range(len(extents))]
    wrapped = [_wrapped(c, p, e) for p, e in zip(picked, extents)]
    if all(a is not None for a in arrays):
        total = np.zeros(shape, np.int64)
        for w, s in zip(wrapped, strides):
            total = total + c.array(w, "an index") * s
        return c.g.constant(total)
    y: Value | None = None
    for w, s in zip(wrapped, strides):
        term = c.ew("mul", w, s, dtype="i64") if s != 1 else w
        y = term if y is None else c.ew("add", y, term, dtype="i64")
    assert y is not None
    return c.g.broadcast_to(y, shape)


@converts("aten.index_put.default", "aten._unsafe_index_put.default", "aten.index_put_.default")
def _index_put(c: Context, x: Value, indices: Sequence[Value | None], values: Value, accumulate: bool = False) -> Value:
    if len(indices) == 1 and indices[0] is not None and indices[0].dtype == "bool" and values.type.size == 1:
        mask = indices[0]
        if accumulate:
            refuse("index_put with accumulate=True on a mask; write x + torch.where(mask, value, 0)")
        mask = c.g.reshape(mask, mask.shape + (1,) * (x.rank - mask.rank))
        return c.emit("where", mask, c.g.reshape(c.value(values), ()), x)
    listed = _expand_masks(c, x, list(indices))
    axes = [i for i, index in enumerate(listed) if index is not None]
    if not axes:
        update = c.g.broadcast_to(c.value(values), x.shape)
        return c.ew("add", x, update) if accumulate else update
    picked = [index for index in listed if index is not None]
    together = axes == list(range(axes[0], axes[-1] + 1))
    place = axes[0] if together else 0
    shape = broadcast(*(p.shape for p in picked))
    rest = [i for i in range(x.rank) if i not in axes]
    extents = [x.shape[a] for a in axes]
    linear = _linear_index(c, picked, extents, shape)
    n, k = len(shape), len([i for i in rest if i < place])
    rest_shape = tuple(x.shape[i] for i in rest)
    # the update has its index axes at `place`; bring them to the front
    full = (*rest_shape[:k], *shape, *rest_shape[k:])
    update = c.g.broadcast_to(c.value(values), full)
    update = c.g.transpose(update, [*range(k, k + n), *range(k), *range(k + n, len(full))])
    rows, width = int(np.prod(shape)), int(np.prod(rest_shape))
    update = c.g.reshape(update, (rows, width))
    perm = [*axes, *rest]
    data = c.g.transpose(x, perm)
    flat = c.g.reshape(data, (int(np.prod(extents)), width))
    written = _write_rows(c, flat, c.g.reshape(linear, (rows,)), update, accumulate)
    return c.g.transpose(c.g.reshape(written, data.shape), np.argsort(perm).tolist())


def _write_rows(c: Context, data: Value, index: Value, update: Value, accumulate: bool) -> Value:
    """data[R, W] with rows `index` set to (or increased by) update[n, W]."""
    if update.type.size == 0:
        return data
    array = c.g.constant_array(index)
    wide = c.g.broadcast_to(c.g.reshape(index, (index.shape[0], 1)), update.shape)
    if accumulate:
        return c.emit("scatter_add", data, wide, update, axis=0)
    if array is not None:
        # known places: the last writer of each row wins, as a look-up from [data; update]
        source = np.arange(data.shape[0], dtype=np.int64)
        source[array] = data.shape[0] + np.arange(len(array))
        return c.emit("take", c.g.concat([data, update], 0), c.g.constant(source), axis=0, mode="clip")
    return _scatter_set(c, data, wide, update, 0)


def _scatter_set(c: Context, x: Value, index: Value, source: Value, axis: int) -> Value:
    """x with x[.., index, ..] = source, by comparing every place with every index: one hit per place at most is read."""
    count = index.shape[axis]
    if index.type.size * x.shape[axis] > 1 << 26:
        refuse("writing to places known at run time only is too large here; use torch.where or index with constants")
    y = x
    positions = c.g.constant(np.arange(x.shape[axis], dtype=np.int64).reshape(
        [-1 if i == axis else 1 for i in range(x.rank)]))  # fmt: skip
    for i in range(count):  # in order, so that the last writer wins
        one, value = c.g.slice_axis(index, axis, i, i + 1), c.g.slice_axis(source, axis, i, i + 1)
        y = c.emit("where", c.ew("equal", positions, one, dtype="i64"), value, y)
    return y


@converts("aten.scatter.src", "aten.scatter.value")
def _scatter(c: Context, x: Value, dim: int, index: Value, source: Any) -> Value:
    if x.rank == 0:
        return c.g.reshape(c.value(source), ())
    axis = normalize_axis(dim, x.rank)
    if index.type.size == 0:
        return x
    if not hasattr(source, "type"):
        source = c.g.broadcast_to(c.value(source), index.shape)
    source = c.g.slice(source, [0] * x.rank, index.shape)
    array = c.g.constant_array(index)
    if array is None:
        return _on_corner(c, x, index, axis, lambda part: _scatter_set(c, part, index, source, axis))
    # known places: one flat look-up from [data; source] where the last writer wins
    flat = np.arange(x.type.size, dtype=np.int64).reshape(x.shape)
    grid = np.indices(array.shape)
    places = tuple(array if i == axis else grid[i] for i in range(x.rank))
    flat[places] = x.type.size + np.arange(array.size).reshape(array.shape)
    joined = c.g.concat([c.g.reshape(x, (x.type.size,)), c.g.reshape(source, (array.size,))], 0)
    return c.emit("take", joined, c.g.constant(flat), axis=0, mode="clip")


@converts("aten.scatter_add.default")
def _scatter_add(c: Context, x: Value, dim: int, index: Value, source: Value) -> Value:
    if x.rank == 0:
        return c.ew("add", x, c.g.reshape(source, ()))
    if index.type.size == 0:
        return x
    axis = normalize_axis(dim, x.rank)
    update = c.g.slice(source, [0] * x.rank, index.shape)
    return _on_corner(c, x, index, axis, lambda part: c.emit("scatter_add", part, index, update, axis=axis))


def _on_corner(c: Context, x: Value, index: Value, axis: int, f: Callable[[Value], Value]) -> Value:
    """Apply f to the part of x that a smaller index covers, and put the result back in its place."""
    stops = [d if i == axis else e for i, (d, e) in enumerate(zip(x.shape, index.shape))]
    if tuple(stops) == x.shape:
        return f(x)
    part = f(c.g.slice(x, [0] * x.rank, stops))
    return c.emit("slice_update", x, part, starts=(0,) * x.rank, steps=(1,) * x.rank)


@converts("aten.index_add.default")
def _index_add(c: Context, x: Value, dim: int, index: Value, source: Value, alpha: Any = 1) -> Value:
    axis = normalize_axis(dim, x.rank)
    wide = c.g.broadcast_to(c.g.reshape(index, [-1 if i == axis else 1 for i in range(x.rank)]), source.shape)
    update = source if alpha == 1 else c.ew("mul", source, alpha)
    return c.emit("scatter_add", x, c.cast(wide, "i64"), update, axis=axis)


@converts("aten.one_hot.default")
def _one_hot(c: Context, x: Value, classes: int = -1) -> Value:
    if classes < 0:
        refuse("one_hot needs num_classes; without it the result's shape depends on the values")
    return c.emit("one_hot", x, depth=classes, on=1.0, off=0.0, dtype="i64")


@converts("aten.nonzero.default", "aten.masked_select.default", "aten.unique.default", "aten._unique2.default")
def _data_dependent(c: Context, *args: Any, **options: Any) -> Any:
    return refuse("its result's shape depends on values; use torch.where, masks or a fixed top-k instead")
