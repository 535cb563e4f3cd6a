"""Operators that cut arrays: slices, splits, crops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.errors import FormatError
from diptych.frontends.mxnet.convert import Call, converts

if TYPE_CHECKING:
    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value

__all__ = ["cut"]


def cut(c: Call, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """x[start:stop:step] along one axis."""
    if (start, stop, step) == (0, x.shape[axis], 1):
        return x
    starts, stops, steps = [0] * x.rank, list(x.shape), [1] * x.rank
    starts[axis], stops[axis], steps[axis] = start, stop, step
    return c.emit("slice", x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


@converts("SliceChannel")
def _slice_channel(c: Call) -> Result:
    count, axis = c.attrs.integer("num_outputs"), c.axis(c.attrs.integer("axis", 1))
    extent = c.x.shape[axis]
    if count < 1 or extent % count:
        raise FormatError(f"{c.op} (layer {c.layer}): axis {axis} of {c.x.type} does not divide into {count} parts")
    size = extent // count
    parts = [cut(c, c.x, axis, i * size, (i + 1) * size) for i in range(count)]
    if c.attrs.boolean("squeeze_axis", False):
        parts = [c.reshape(p, p.shape[:axis] + p.shape[axis + 1 :]) for p in parts]
    return tuple(parts)


@converts("_split_v2", "_npi_array_split")
def _split_v2(c: Call) -> Result:
    axis, sections = c.axis(c.attrs.integer("axis", 1)), c.attrs.integer("sections", 0)
    extent = c.x.shape[axis]
    if sections > 0:
        bounds = [i * (extent // sections) for i in range(sections)]
    else:
        bounds = list(c.attrs.shape("indices"))
    bounds = [min(a, extent) for a in bounds]
    parts = [cut(c, c.x, axis, a, b) for a, b in zip(bounds, [*bounds[1:], extent])]
    if c.attrs.boolean("squeeze_axis", False):
        parts = [c.reshape(p, p.shape[:axis] + p.shape[axis + 1 :]) for p in parts]
    return tuple(parts)


# -- slicing ------------------------------------------------------------------------------------------------------
def _bounds(c: Call) -> tuple[list[int], list[int], list[int]]:
    """Starts, stops and steps of `slice`, by Python's rules; nothing to take gives stop = start."""
    begin, end = c.attrs.optional_integers("begin"), c.attrs.optional_integers("end")
    step = c.attrs.optional_integers("step", ())
    starts, stops, steps = [0] * c.x.rank, list(c.x.shape), [1] * c.x.rank
    for i, (b, e) in enumerate(zip(begin, end)):
        s = (step[i] if i < len(step) else None) or 1
        starts[i], stops[i], steps[i] = slice(b, e, s).indices(c.x.shape[i])
    stops = [a if (b - a) * s <= 0 else b for a, b, s in zip(starts, stops, steps)]
    return starts, stops, steps


@converts("slice")
def _slice(c: Call) -> Result:
    starts, stops, steps = _bounds(c)
    if (tuple(starts), tuple(stops), tuple(steps)) == ((0,) * c.x.rank, c.x.shape, (1,) * c.x.rank):
        return c.x
    return c.emit("slice", c.x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


@converts("_slice_assign", "_slice_assign_scalar")
def _slice_assign(c: Call) -> Result:
    starts, stops, steps = _bounds(c)
    if min(steps) < 1:
        raise c.fail(f"steps {tuple(steps)}: only positive ones are supported")
    shape = tuple(-((a - b) // s) for a, b, s in zip(starts, stops, steps))
    update = c.full(shape, c.attrs.real("scalar", 0.0), c.x.dtype) if c.op.endswith("scalar") else c.arg(1)
    return c.emit("slice_update", c.x, update, starts=tuple(starts), steps=tuple(steps))


@converts("slice_axis")
def _slice_axis(c: Call) -> Result:
    axis = c.axis(c.attrs.integer("axis"))
    start, stop, _ = slice(c.attrs.integer("begin"), c.attrs.optional_integer("end", None)).indices(c.x.shape[axis])
    if stop <= start:
        raise FormatError(f"{c.op} (layer {c.layer}): [{start}:{stop}] of axis {axis} of {c.x.type} is empty")
    return cut(c, c.x, axis, start, stop)


@converts("slice_like")
def _slice_like(c: Call) -> Result:
    like = c.arg(1)
    axes = c.attrs.shape("axes", ()) or range(min(c.x.rank, like.rank))
    stops = list(c.x.shape)
    for a in axes:
        a = c.axis(a)
        if like.shape[a] > stops[a]:
            raise FormatError(f"{c.op} (layer {c.layer}): axis {a} of {c.x.type} is shorter than that of {like.type}")
        stops[a] = like.shape[a]
    if tuple(stops) == c.x.shape:
        return c.x
    return c.emit("slice", c.x, starts=(0,) * c.x.rank, stops=tuple(stops), steps=(1,) * c.x.rank)


@converts("Crop")
def _crop(c: Call) -> Result:
    size = c.arg(1).shape[2:] if len(c.inputs) > 1 else c.attrs.shape("h_w", (0, 0))
    if c.attrs.boolean("center_crop", False):
        y, x = ((e - s) // 2 for e, s in zip(c.x.shape[2:], size))
    else:
        y, x = c.attrs.shape("offset", (0, 0))
    height, width = size
    if y + height > c.x.shape[2] or x + width > c.x.shape[3]:
        raise FormatError(f"{c.op} (layer {c.layer}): {height}x{width} at ({y}, {x}) lies outside of {c.x.type}")
    return cut(c, cut(c, c.x, 2, y, y + height), 3, x, x + width)


# -- padding and repetition ---------------------------------------------------------------------------------------
