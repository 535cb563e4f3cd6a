"""Operators that read or write elements at computed positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import InputError, TypeRuleError
from diptych.ir import DTYPES, TensorType, numpy_dtype
from diptych.ops.base import Arg, Composite, Loops, S, normalize_axis, op
from diptych.ops.pointwise import INTS, Grads, Values, one_of

if TYPE_CHECKING:
    from diptych.ir import Array, Value
    from diptych.ops.build import Builder

__all__ = [
    "Gather", "GatherNd", "OneHot", "ScatterAdd", "ScatterNd", "SequenceMask", "SliceUpdate", "Take",
]  # fmt: skip


def _within(indices: Array, extent: int, what: str) -> Array:
    """The indices, if all lie in [0, extent); the compiled targets clip instead of looking."""
    if indices.size and (indices.min() < 0 or indices.max() >= extent):
        raise InputError(f"{what}: indices from {indices.min()} to {indices.max()} do not all lie in [0, {extent})")
    return indices


def _zeros(g: Builder, shape: tuple[int, ...], dtype: str) -> Value:
    return g.broadcast_to(g.scalar(0, dtype), shape)


def _idx(*shape: int, high: int, low: int = 0, dtype: str = "i64") -> Arg:
    return Arg(shape, dtype, low, high)


def _needs_elements(what: str, extent: int, indices: TensorType) -> None:
    if extent == 0 and indices.size:
        raise TypeRuleError(f"{what} is empty: indices {indices} have nothing to point at")


@op
class Take(Loops):
    """Slices of data at indices along an axis (an embedding look-up along axis 0), as np.take.

    Indices outside [0, n): mode "clip" moves them to the nearest end, "wrap" takes them modulo n, "raise" is an
    InputError on the NumPy target and clips in compiled code.
    """

    axis: int = 0
    mode: str = "clip"
    samples = (
        S((7, 5), _idx(3, high=7)),
        S((7, 5), _idx(2, 3, high=7)),
        S((3, 7), _idx(4, high=7), axis=1),
        S((2, 7, 17), _idx(2, 2, high=7, dtype="i32"), axis=-2),
        S((7, 5), _idx(9, low=-4, high=12), mode="clip"),
        S((7, 5), _idx(9, low=-15, high=20), mode="wrap"),
        S((7, 5), _idx(3, high=7), mode="raise"),
        S((7, 5), _idx(high=7)),
        S((7, 5), _idx(0, high=7)),
        S((7,), _idx(3, high=7)),
        S((7, 3), _idx(3, high=7), dtype="i64", low=-9, high=9),
    )

    def infer(self, data: TensorType, indices: TensorType) -> TensorType:
        one_of(indices, INTS)
        if self.mode not in ("clip", "wrap", "raise"):
            raise TypeRuleError(f"mode={self.mode!r} must be 'clip', 'wrap' or 'raise'")
        axis = normalize_axis(self.axis, data.rank)
        _needs_elements(f"axis {axis} of {data}", data.shape[axis], indices)
        return data.with_shape(data.shape[:axis] + indices.shape + data.shape[axis + 1 :])

    def reference(self, data: Array, indices: Array) -> Array:
        n = data.shape[self.axis]
        if self.mode == "raise":
            _within(indices, n, f"take along axis {self.axis} of shape {data.shape}")
        indices = np.clip(indices, 0, max(n - 1, 0)) if self.mode == "clip" else np.mod(indices, max(n, 1))
        return np.take(data, indices.astype(np.int64), self.axis)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        data, indices = xs
        axis = normalize_axis(self.axis, data.rank)
        n = data.shape[axis]
        flat = g.reshape(g.cast(indices, "i64"), (-1,) if indices.type.size else (0,))
        flat = g.ew("mod", flat, n) if self.mode == "wrap" else g.minimum(g.maximum(flat, 0), n - 1)
        shape = (*data.shape[:axis], flat.shape[0], *data.shape[axis + 1 :])
        column = g.reshape(flat, (flat.shape[0],) + (1,) * (data.rank - axis - 1))
        zeros = _zeros(g, data.shape, data.dtype)
        where = g.broadcast_to(column, shape)
        return g.ew("scatter_add", zeros, where, g.reshape(dys[0], shape), axis=axis), None


@op
class Gather(Loops):
    """out[i, j, ..] = data[.., indices[i, j, ..], ..] along an axis, as np.take_along_axis.

    The other extents of data and indices must be equal. Indices must lie in [0, n): compiled code clips them.
    """

    axis: int
    samples = (
        S((3, 5), _idx(3, 2, high=5), axis=1),
        S((3, 5), _idx(4, 5, high=3), axis=0),
        S((2, 7, 5), _idx(2, 3, 5, high=7, dtype="i32"), axis=-2),
        S((67,), _idx(9, high=67), axis=0),
        S((3, 5), _idx(3, 0, high=5), axis=1),
        S((3, 5), _idx(3, 2, high=5), dtype="i64", low=-9, high=9, axis=1),
    )

    def infer(self, data: TensorType, indices: TensorType) -> TensorType:
        one_of(indices, INTS)
        axis = normalize_axis(self.axis, data.rank)
        a, b = list(data.shape), list(indices.shape)
        if len(a) != len(b) or a[:axis] + a[axis + 1 :] != b[:axis] + b[axis + 1 :]:
            raise TypeRuleError(
                f"data {data} and indices {indices} may differ in axis {axis} only; slice or broadcast first"
            )
        _needs_elements(f"axis {axis} of {data}", data.shape[axis], indices)
        return data.with_shape(indices.shape)

    def reference(self, data: Array, indices: Array) -> Array:
        _within(indices, data.shape[self.axis], f"gather along axis {self.axis} of shape {data.shape}")
        return np.take_along_axis(data, indices.astype(np.int64), self.axis)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        zeros = _zeros(g, xs[0].shape, xs[0].dtype)
        return g.ew("scatter_add", zeros, xs[1], dys[0], axis=self.axis), None


@op
class GatherNd(Loops):
    """out[..] = data[tuple(indices[.., :])]: the last axis of indices holds coordinates of data's first axes.

    Coordinates must lie inside data: compiled code clips them.
    """

    samples = (
        S((5, 5), Arg((4, 2), "i64", 0, 5)),
        S((3, 3, 7), Arg((2, 4, 2), "i64", 0, 3)),
        S((5, 2), Arg((3, 1), "i32", 0, 5)),
        S((5,), Arg((1,), "i64", 0, 5)),
        S((3, 3), Arg((0, 2), "i64", 0, 3)),
        S((2, 3), Arg((2, 0), "i64", 0, 3)),
    )

    def infer(self, data: TensorType, indices: TensorType) -> TensorType:
        one_of(indices, INTS)
        if not indices.rank or indices.shape[-1] > data.rank:
            raise TypeRuleError(f"the last axis of indices {indices} must hold up to {data.rank} coordinates of {data}")
        k = indices.shape[-1]
        if 0 in data.shape[:k]:
            _needs_elements(str(data), 0, indices)
        return data.with_shape(indices.shape[:-1] + data.shape[k:])

    def reference(self, data: Array, indices: Array) -> Array:
        where = np.moveaxis(indices.astype(np.int64), -1, 0)
        for axis, i in enumerate(where):
            _within(i, data.shape[axis], f"gather_nd in axis {axis} of shape {data.shape}")
        if not len(where):
            return np.broadcast_to(data, indices.shape[:-1] + data.shape)
        return np.asarray(data[tuple(where)])

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return g.ew("scatter_nd", dys[0], xs[1], shape=xs[0].shape), None


@op
class ScatterNd(Loops):
    """Zeros of a shape, with updates added at coordinates indices[.., :]: the inverse of GatherNd, duplicates add up.

    Coordinates must lie inside the shape: compiled code clips them.
    """

    shape: tuple[int, ...]
    samples = (
        S((4,), Arg((4, 2), "i64", 0, 5), shape=(5, 5)),
        S((2, 4, 7), Arg((2, 4, 2), "i64", 0, 3), shape=(3, 3, 7)),
        S((3, 2), Arg((3, 1), "i32", 0, 5), shape=(5, 2)),
        S((), Arg((1,), "i64", 0, 5), shape=(5,)),
        S((0,), Arg((0, 2), "i64", 0, 3), shape=(3, 3)),
        S((6,), Arg((6, 1), "i64", 0, 2), shape=(2,), dtype="i64", low=-9, high=9),
    )

    def infer(self, updates: TensorType, indices: TensorType) -> TensorType:
        one_of(indices, INTS)
        if not indices.rank or indices.shape[-1] > len(self.shape):
            raise TypeRuleError(f"the last axis of indices {indices} must hold coordinates of shape {self.shape}")
        k = indices.shape[-1]
        if 0 in self.shape[:k]:
            _needs_elements(f"shape {self.shape}", 0, indices)
        if updates.shape != indices.shape[:-1] + self.shape[k:]:
            raise TypeRuleError(
                f"updates {updates} must have shape {indices.shape[:-1] + self.shape[k:]} to go with indices {indices}"
            )
        return updates.with_shape(self.shape)

    def reference(self, updates: Array, indices: Array) -> Array:
        out = np.zeros(self.shape, updates.dtype)
        where = np.moveaxis(indices.astype(np.int64), -1, 0)
        for axis, i in enumerate(where):
            _within(i, self.shape[axis], f"scatter_nd in axis {axis} of shape {self.shape}")
        if not len(where):
            return np.asarray(np.sum(updates, tuple(range(indices.ndim - 1)), updates.dtype))
        np.add.at(out, tuple(where), updates)
        return out

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return g.ew("gather_nd", dys[0], xs[1]), None


@op
class ScatterAdd(Loops):
    """A copy of data with updates[i, j, ..] added at [.., indices[i, j, ..], ..] along an axis; duplicates add up.

    updates and indices have one shape, which in the other axes must not exceed data's. Indices must lie in [0, n):
    compiled code clips them.
    """

    axis: int
    samples = (
        S((3, 5), Arg((3, 2), "i64", 0, 5), (3, 2), axis=1),
        S((3, 5), Arg((6, 5), "i64", 0, 3), (6, 5), axis=0),
        S((2, 7, 5), Arg((1, 9, 4), "i32", 0, 7), (1, 9, 4), axis=-2),
        S((67,), Arg((99,), "i64", 0, 67), (99,), axis=0),
        S((3, 5), Arg((3, 0), "i64", 0, 5), (3, 0), axis=1),
        S((3, 5), Arg((3, 9), "i64", 0, 5), (3, 9), dtype="i64", low=-9, high=9, axis=1),
    )

    def infer(self, data: TensorType, indices: TensorType, updates: TensorType) -> TensorType:
        one_of(indices, INTS)
        axis = normalize_axis(self.axis, data.rank)
        if updates.dtype != data.dtype or updates.shape != indices.shape or updates.rank != data.rank:
            raise TypeRuleError(
                f"updates {updates} must have the dtype and rank of data {data} and the shape of indices {indices}"
            )
        if any(u > d for i, (u, d) in enumerate(zip(updates.shape, data.shape, strict=True)) if i != axis):
            raise TypeRuleError(f"updates {updates} exceed data {data} outside axis {axis}")
        _needs_elements(f"axis {axis} of {data}", data.shape[axis], indices)
        return data

    def reference(self, data: Array, indices: Array, updates: Array) -> Array:
        _within(indices, data.shape[self.axis], f"scatter_add along axis {self.axis} of shape {data.shape}")
        out = data.copy()
        where: list[Array] = list(np.indices(indices.shape, sparse=True))
        where[self.axis] = indices.astype(np.int64)
        np.add.at(out, tuple(where), updates)
        return out

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        axis = normalize_axis(self.axis, xs[0].rank)
        stops = [d if a == axis else n for a, (d, n) in enumerate(zip(xs[0].shape, xs[1].shape, strict=True))]
        return dys[0], None, g.ew("gather", g.slice(dys[0], [0] * len(stops), stops), xs[1], axis=axis)


@op
class SliceUpdate(Loops):
    """A copy of data whose elements start, start + step, .. of each axis are replaced by update."""

    starts: tuple[int, ...]
    steps: tuple[int, ...]
    samples = (
        S((3, 5), (2, 3), starts=(1, 0), steps=(1, 1)),
        S((7, 9), (3, 4), starts=(0, 1), steps=(3, 2)),
        S((7, 9), (2, 9), starts=(6, 8), steps=(-2, -1)),
        S((2, 3, 17), (2, 3, 17), starts=(0, 0, 0), steps=(1, 1, 1)),
        S((5,), (0,), starts=(2,), steps=(1,)),
        S((), (), starts=(), steps=()),
        S((5, 6), (2, 2), dtype="i64", low=-9, high=9, starts=(1, 0), steps=(2, 5)),
    )

    def _where(self, shape: tuple[int, ...], update: tuple[int, ...]) -> tuple[range, ...]:
        return tuple(range(a, a + n * s, s) for a, s, n in zip(self.starts, self.steps, update, strict=True))

    def infer(self, data: TensorType, update: TensorType) -> TensorType:
        if not len(self.starts) == len(self.steps) == data.rank == update.rank or 0 in self.steps:
            raise TypeRuleError(
                f"starts={self.starts}, steps={self.steps} (not 0) and update {update} must fit the axes of data {data}"
            )
        if update.dtype != data.dtype:
            raise TypeRuleError(f"update {update} must have the dtype of data {data}; cast first")
        for axis, r in enumerate(self._where(data.shape, update.shape)):
            if len(r) and not (min(r[0], r[-1]) >= 0 and max(r[0], r[-1]) < data.shape[axis]):
                raise TypeRuleError(f"axis {axis} of data {data} has no elements {r[0]} to {r[-1]} to replace")
        return data

    def reference(self, data: Array, update: Array) -> Array:
        out = np.array(data)
        if update.size:
            out[np.ix_(*self._where(data.shape, update.shape)) if data.ndim else ()] = update
        return out

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        zeros = _zeros(g, xs[1].shape, xs[1].dtype)
        where = self._where(xs[0].shape, xs[1].shape)
        # a range that walks down to element 0 stops at -1 or below: the slice rule wants exactly -1
        stops = [max(r.stop, -1) if s < 0 else min(r.stop, d) for r, s, d in zip(where, self.steps, xs[0].shape)]
        taken = g.slice(dys[0], self.starts, stops, self.steps) if xs[1].type.size else zeros
        return g.emit(SliceUpdate(self.starts, self.steps), dys[0], zeros), taken


@op
class OneHot(Composite):
    """`on` where the new last axis of extent `depth` counts to the index, `off` elsewhere (and for indices outside)."""

    depth: int
    on: float = 1.0
    off: float = 0.0
    dtype: str = "f32"
    samples = (
        S((3, 5), dtype="i64", low=0, high=7, depth=7),
        S((9,), dtype="i32", low=-2, high=9, depth=5),
        S((), dtype="i64", low=0, high=3, depth=3),
        S((0,), dtype="i64", depth=3),
        S(Arg((4,), "i64", 0, 6), depth=6, on=2.5, off=-1.0),
    )

    def infer(self, indices: TensorType) -> TensorType:
        one_of(indices, INTS)
        if self.depth < 0 or self.dtype not in DTYPES or self.dtype == "bf16":
            raise TypeRuleError(f"depth={self.depth} must be >= 0 and dtype={self.dtype!r} a dtype other than bf16")
        return TensorType((*indices.shape, self.depth), self.dtype)

    def reference(self, indices: Array) -> Array:
        hit = np.asarray(indices)[..., None].astype(np.int64) == np.arange(self.depth)
        t = numpy_dtype(self.dtype).type
        return np.asarray(np.where(hit, t(self.on), t(self.off)))

    def decompose(self, g: Builder, indices: Value) -> Value:
        count = g.constant(np.arange(self.depth, dtype=np.int64))
        hit = g.equal(g.expand_dims(g.cast(indices, "i64"), -1), count)
        return g.where(hit, g.scalar(self.on, self.dtype), g.scalar(self.off, self.dtype))


@op
class SequenceMask(Composite):
    """data with every element at or past its sequence's length, counted along an axis (0 or 1), set to a value.

    The other of the first two axes counts the sequences: lengths has one entry for each.
    """

    value: float = 0.0
    axis: int = 0
    samples = (
        S((5, 3), Arg((3,), "i64", 0, 6)),
        S((5, 3, 4), Arg((3,), "i32", 0, 6), value=-1.5),
        S((3, 5, 2, 3), Arg((3,), "i64", 0, 6), axis=1),
        S((0, 3), Arg((3,), "i64", 0, 6)),
        S((5, 3), Arg((3,), "i64", 0, 6), dtype="f64"),
    )

    def infer(self, data: TensorType, lengths: TensorType) -> TensorType:
        one_of(lengths, INTS)
        if self.axis not in (0, 1) or data.rank < 2:
            raise TypeRuleError(f"axis={self.axis} must be 0 or 1, and data {data} must have both axes")
        if lengths.shape != (data.shape[1 - self.axis],):
            raise TypeRuleError(f"lengths {lengths} must hold one length for each of axis {1 - self.axis} of {data}")
        return data

    def _columns(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes that put steps along `axis` and lengths along the other one."""
        tail = (1,) * (rank - 2)
        return ((-1, 1, *tail), (1, -1, *tail)) if self.axis == 0 else ((1, -1, *tail), (-1, 1, *tail))

    def reference(self, data: Array, lengths: Array) -> Array:
        steps, ends = self._columns(data.ndim)
        inside = np.arange(data.shape[self.axis]).reshape(steps) < lengths.astype(np.int64).reshape(ends)
        return np.where(inside, data, data.dtype.type(self.value))

    def decompose(self, g: Builder, data: Value, lengths: Value) -> Value:
        steps, ends = self._columns(data.rank)
        count = g.constant(np.arange(data.shape[self.axis], dtype=np.int64).reshape(steps))
        inside = g.less(count, g.reshape(g.cast(lengths, "i64"), ends))
        return g.where(inside, data, self.value)
