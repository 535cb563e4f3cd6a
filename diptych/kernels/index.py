"""Reading and writing at computed positions: take, gather, gather_nd, scatter_nd, scatter_add, slice_update."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.access import load_lanes, store_lanes
from diptych.kernels.base import emits
from diptych.kernels.nest import lines, loops, merged, register_dtype, spans, split_work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index, Val
    from diptych.targets.base import Target

__all__ = [
    "Coordinate", "GatherParams", "ScatterParams", "UpdateParams", "make_gather", "make_gather_nd", "make_scatter_add",
    "make_scatter_nd", "make_slice_update", "make_take",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Coordinate:
    """One index: where it lies in the index operand (elements on), the extent it counts through, the stride there."""

    offset: int
    extent: int
    stride: int


@dataclass(frozen=True, slots=True)
class GatherParams:
    """Operands: data (stride 0 in dims that are looked up), indices (stride 0 in dims that are not), out."""

    coordinates: tuple[Coordinate, ...]
    wrap: bool
    dim: int
    block: int
    lanes: int


@dataclass(frozen=True, slots=True)
class ScatterParams:
    """Operands: data where `copies`, indices, updates, out. The first operand's shape is that of the whole output.

    `shape` is the iteration shape of the updates; `strides` are the output's over it (0 in dims that are looked up).
    """

    copies: bool
    coordinates: tuple[Coordinate, ...]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    lanes: int


@dataclass(frozen=True, slots=True)
class UpdateParams:
    """Operands: data, update, out. `offset` and `strides`: the part of out that is replaced."""

    offset: int
    strides: tuple[int, ...]
    lanes: int


# -- makers -------------------------------------------------------------------------------------------------------
def make_take(data: Operand, indices: Operand, axis: int, mode: str, out: Operand, target: Target) -> Kernel:
    """out = data at `indices` along `axis` (np.take; an embedding look-up along axis 0). mode: "clip", "wrap", "raise"."""
    axis %= len(data.shape)
    before, after, looked = data.strides[:axis], data.strides[axis + 1 :], (0,) * len(indices.shape)
    over_data = (*before, *looked, *after)
    over_index = ((0,) * len(before)) + indices.strides + (0,) * len(after)
    coordinate = Coordinate(0, data.shape[axis], data.strides[axis])
    return _gather(out.shape, data, over_data, indices, over_index, (coordinate,), mode == "wrap", out, target)


def make_gather(data: Operand, indices: Operand, axis: int, out: Operand, target: Target) -> Kernel:
    """out[i, j, ..] = data[.., indices[i, j, ..], ..] along `axis` (np.take_along_axis)."""
    axis %= len(data.shape)
    over_data = tuple(0 if d == axis else s for d, s in enumerate(data.strides))
    coordinate = Coordinate(0, data.shape[axis], data.strides[axis])
    return _gather(out.shape, data, over_data, indices, indices.strides, (coordinate,), False, out, target)


def make_gather_nd(data: Operand, indices: Operand, out: Operand, target: Target) -> Kernel:
    """out[..] = data[tuple(indices[.., :])]; the last axis of indices holds coordinates of data's first axes."""
    k, lead = indices.shape[-1], len(indices.shape) - 1
    over_data = (0,) * lead + data.strides[k:]
    over_index = indices.strides[:-1] + (0,) * (len(data.shape) - k)
    return _gather(out.shape, data, over_data, indices, over_index, _nd(indices, data), False, out, target)


def make_scatter_nd(updates: Operand, indices: Operand, out: Operand, target: Target) -> Kernel:
    """Zeros, with updates added at coordinates indices[.., :] of out's first axes."""
    k, lead = indices.shape[-1], len(indices.shape) - 1
    over_index = indices.strides[:-1] + (0,) * (len(out.shape) - k)
    return _scatter(None, updates, indices, over_index, (0,) * lead + out.strides[k:], _nd(indices, out), out, target)


def make_scatter_add(data: Operand, indices: Operand, updates: Operand, axis: int, out: Operand,
                     target: Target) -> Kernel:  # fmt: skip
    """A copy of data, with updates[i, j, ..] added at [.., indices[i, j, ..], ..] along `axis`."""
    axis %= len(data.shape)
    over_out = tuple(0 if d == axis else s for d, s in enumerate(out.strides))
    coordinate = Coordinate(0, out.shape[axis], out.strides[axis])
    return _scatter(data, updates, indices, indices.strides, over_out, (coordinate,), out, target)


def make_slice_update(data: Operand, update: Operand, starts: tuple[int, ...], steps: tuple[int, ...], out: Operand,
                      target: Target) -> Kernel:  # fmt: skip
    """A copy of data whose elements start, start + step, .. of each axis are replaced by update."""
    offset = sum(a * s for a, s in zip(starts, out.strides, strict=True))
    strides = tuple(a * s for a, s in zip(steps, out.strides, strict=True))
    params = UpdateParams(offset, strides, target.lanes(itemsize(data.dtype)))
    work = 0 if 0 in out.shape else 1
    cost = 20 + prod(out.shape) * itemsize(data.dtype) / 20
    return Kernel("slice_update", params, (data, update, out), 1, work, cost)


def _nd(indices: Operand, into: Operand) -> tuple[Coordinate, ...]:
    step = indices.strides[-1]
    return tuple(Coordinate(d * step, into.shape[d], into.strides[d]) for d in range(indices.shape[-1]))


def _gather(shape: tuple[int, ...], data: Operand, over_data: tuple[int, ...], indices: Operand,
            over_index: tuple[int, ...], coordinates: tuple[Coordinate, ...], wrap: bool, out: Operand,
            target: Target) -> Kernel:  # fmt: skip
    dims, walk = merged(shape, [over_data, over_index, out.strides])
    if not dims:
        dims, walk = [prod(shape)], [[0], [0], [0]]
    lanes = target.lanes(itemsize(data.dtype))
    dim, block, work = split_work(dims, 2048, lanes)
    dtypes = (data.dtype, indices.dtype, out.dtype)
    made = tuple(Operand(tuple(dims), tuple(w), d) for w, d in zip(walk, dtypes, strict=True))
    rows = prod(dims[:-1]) if walk[1][-1] == 0 else prod(dims)
    cost = 20 + prod(dims) * itemsize(data.dtype) / 20 + 3.0 * rows
    return Kernel("gather", GatherParams(coordinates, wrap, dim, block, lanes), made, 1, work, cost)


def _scatter(data: Operand | None, updates: Operand, indices: Operand, over_index: tuple[int, ...],
             over_out: tuple[int, ...], coordinates: tuple[Coordinate, ...], out: Operand,
             target: Target) -> Kernel:  # fmt: skip
    dims, walk = merged(updates.shape, [updates.strides, over_index, over_out])
    if not dims:
        dims, walk = [prod(updates.shape)], [[0], [0], [0]]
    shape = tuple(dims)
    params = ScatterParams(data is not None, coordinates, shape, tuple(walk[2]), target.lanes(itemsize(out.dtype)))
    made = (Operand(shape, tuple(walk[1]), indices.dtype), Operand(shape, tuple(walk[0]), updates.dtype), out)
    cost = 20 + prod(out.shape) * itemsize(out.dtype) / 20 + 4.0 * prod(shape)
    # One work item: two updates may meet in one element, and their order decides the rounding.
    work = 0 if 0 in out.shape else 1
    return Kernel("scatter", params, (*((data,) if data else ()), *made), 1, work, cost)


# -- emitters -----------------------------------------------------------------------------------------------------
def _position(fn: Fn, pointer: ir.Value, at: Index, dtype: str, coordinates: Sequence[Coordinate],
              wrap: bool) -> ir.Value:  # fmt: skip
    """The offset that the indices at `at` point to, moved inside the extents."""
    total: Index = 0
    for c in coordinates:
        raw = fn.load(fn.at(pointer, fn.iadd(at, c.offset), dtype), dtype)
        i = Math(fn).cast(raw, "i64").ir
        if wrap:
            rest = fn.b.srem(i, fn.index(max(1, c.extent)))
            i = fn.b.select(fn.b.icmp_signed("<", rest, fn.index(0)), fn.iadd(rest, c.extent), rest)
        else:
            i = fn.imax(fn.imin(i, c.extent - 1), 0)
        total = fn.iadd(total, fn.imul(i, c.stride))
    return fn.index(total)


@emits("gather")
def emit_gather(fn: Fn, kernel: Kernel) -> None:
    """Rows that share an index are copied in vectors; where each element has its own, one by one."""
    p: GatherParams = kernel.params
    data, indices, out = kernel.operands
    shape, last = out.shape, len(out.shape) - 1
    rows = indices.strides[last] == 0
    with lines(fn, shape, p.dim, p.block, [o.strides for o in kernel.operands]) as (at, lo, hi):
        row = fn.at(fn.args["p0"], at[0], data.dtype)
        if rows:
            start = _position(fn, fn.args["p1"], at[1], indices.dtype, p.coordinates, p.wrap)
            row = fn.at(row, start, data.dtype)

        def copy(i: Index, lanes: int, count: int) -> None:
            source = row
            if not rows:
                where = fn.iadd(at[1], fn.imul(i, indices.strides[last]))
                step = _position(fn, fn.args["p1"], where, indices.dtype, p.coordinates, p.wrap)
                source = fn.at(row, step, data.dtype)
            v = load_lanes(fn, source, fn.imul(i, data.strides[last]), data.strides[last], data.dtype, lanes, count)
            store_lanes(fn, v, fn.args["p2"], fn.iadd(at[2], fn.imul(i, out.strides[last])), out.strides[last], count)

        lanes = p.lanes if rows else 1
        spans(fn, lo, hi, lanes, 4 * lanes if shape[last] >= 8 * lanes and rows else lanes, shape[last] % lanes, copy)


def _copy(fn: Fn, pointer: ir.Value | None, operand: Operand, into: tuple[ir.Value, int, tuple[int, ...]],
          lanes: int) -> None:  # fmt: skip
    """Copy all of a strided operand into strides of another buffer; zeros when there is no pointer."""
    target, offset, strides = into
    dims, walk = merged(operand.shape, [operand.strides, strides])
    if not dims:
        dims, walk = [1], [[0], [0]]
    with loops(fn, [(0, d) for d in dims[:-1]], [w[:-1] for w in walk], [0, offset]) as at:

        def body(i: Index, n: int, count: int) -> None:
            v = Math(fn).const(0, operand.dtype, n)
            if pointer is not None:
                here = fn.iadd(at[0], fn.imul(i, walk[0][-1]))
                v = load_lanes(fn, pointer, here, walk[0][-1], operand.dtype, n, count)
            store_lanes(fn, v, target, fn.iadd(at[1], fn.imul(i, walk[1][-1])), walk[1][-1], count)

        spans(fn, 0, dims[-1], lanes, lanes, dims[-1] % lanes, body)


@emits("scatter")
def emit_scatter(fn: Fn, kernel: Kernel) -> None:
    """Copy the data (or write zeros), then add the updates in order."""
    p: ScatterParams = kernel.params
    out = kernel.operands[-1]
    n = len(kernel.operands)
    target = fn.args[f"p{n - 1}"]
    indices, updates = kernel.operands[n - 3 : n - 1]
    math = Math(fn)
    held = register_dtype(out.dtype)
    with fn.loop(fn.args["begin"], fn.args["end"], name="item"):
        if p.copies:
            _copy(fn, fn.args["p0"], kernel.operands[0], (target, 0, out.strides), p.lanes)
        else:
            _copy(fn, None, out, (target, 0, out.strides), p.lanes)
        with ExitStack() as stack:
            index = [stack.enter_context(fn.loop(0, d, name=f"u{i}")) for i, d in enumerate(p.shape)]
            where = fn.dot(index, indices.strides)
            start = _position(fn, fn.args[f"p{n - 3}"], where, indices.dtype, p.coordinates, False)
            into = fn.at(target, fn.iadd(start, fn.dot(index, p.strides)), out.dtype)
            source = fn.at(fn.args[f"p{n - 2}"], fn.dot(index, updates.strides), updates.dtype)
            a, b = fn.load(into, out.dtype), fn.load(source, updates.dtype)
            if out.dtype == "bool":
                total: Val = math.bit_or(a, b)
            else:
                total = math.cast(math.add(math.cast(a, held), math.cast(b, held)), out.dtype)
            fn.store(total, into)


@emits("slice_update")
def emit_slice_update(fn: Fn, kernel: Kernel) -> None:
    """Copy the data, then the update over it."""
    p: UpdateParams = kernel.params
    data, update, out = kernel.operands
    with fn.loop(fn.args["begin"], fn.args["end"], name="item"):
        _copy(fn, fn.args["p0"], data, (fn.args["p2"], 0, out.strides), p.lanes)
        if 0 not in update.shape:
            _copy(fn, fn.args["p1"], update, (fn.args["p2"], p.offset, p.strides), p.lanes)
