"""Operators that look elements up by index. MXNet keeps indices in floats; they become integers here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.frontends.mxnet.convert import Call, converts

if TYPE_CHECKING:
    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value


@converts("take")
def _take(c: Call) -> Result:
    mode = c.attrs.text("mode", "clip", ("clip", "wrap", "raise"))
    return c.emit("take", c.x, c.indices(c.arg(1)), axis=c.axis(c.attrs.integer("axis", 0)), mode=mode)


def _bounded(c: Call, i: Value, extent: int, mode: str) -> Value:
    """Indices brought into [0, extent)."""
    if mode == "wrap":
        return c.emit("mod", i, extent)
    return c.emit("clip", i, low=0, high=extent - 1)


@converts("pick")
def _pick(c: Call) -> Result:
    axis = c.attrs.optional_integer("axis", -1) if "axis" in c.attrs else -1
    x, index = c.x, c.indices(c.arg(1))
    if axis is None:
        x, axis = c.reshape(x, (x.type.size,)), 0
        index = c.reshape(index, (index.type.size,))
        return c.emit("take", x, _bounded(c, index, x.shape[0], c.attrs.text("mode", "clip")), axis=0, mode="clip")
    axis = c.axis(axis, x.rank)
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    index = c.reshape(_bounded(c, index, x.shape[axis], c.attrs.text("mode", "clip", ("clip", "wrap"))), shape)
    y = c.emit("gather", x, index, axis=axis)
    if c.attrs.boolean("keepdims", False):
        return y
    return c.reshape(y, x.shape[:axis] + x.shape[axis + 1 :] or (1,))


@converts("batch_take")
def _batch_take(c: Call) -> Result:
    index = c.reshape(_bounded(c, c.indices(c.arg(1)), c.x.shape[1], "clip"), (c.x.shape[0], 1))
    return c.reshape(c.emit("gather", c.x, index, axis=1), (c.x.shape[0],))


def _last_axis(c: Call, index: Value) -> Value:
    """MXNet keeps the coordinates of a point along axis 0, the IR along the last axis."""
    return c.transpose(index, (*range(1, index.rank), 0))


@converts("gather_nd")
def _gather_nd(c: Call) -> Result:
    index = _last_axis(c, c.indices(c.arg(1)))
    extents = c.const(np.array(c.x.shape[: index.shape[-1]]), index.dtype)
    index = c.g.where(c.emit("less", index, 0), c.emit("add", index, extents), index)  # negative ones count from the end
    return c.emit("gather_nd", c.x, index)


@converts("scatter_nd")
def _scatter_nd(c: Call) -> Result:
    return c.emit("scatter_nd", c.x, _last_axis(c, c.indices(c.arg(1))), shape=c.attrs.shape("shape"))


@converts("one_hot")
def _one_hot(c: Call) -> Result:
    a = c.attrs
    return c.emit("one_hot", c.indices(c.x), depth=a.integer("depth"), on=a.real("on_value", 1.0),
                  off=a.real("off_value", 0.0), dtype=c.dtype())  # fmt: skip


@converts("_unravel_index")
def _unravel_index(c: Call) -> Result:
    rest = c.x if c.x.dtype[0] in "iu" else c.cast(c.x, "i64")
    parts: list[Value] = []
    for extent in reversed(c.attrs.shape("shape")):
        if extent < 0:  # the first one may be open
            parts.insert(0, rest)
            break
        parts.insert(0, c.emit("mod", rest, extent))
        rest = c.emit("floor_div", rest, extent)
    rows = [c.reshape(p, (1, *p.shape)) for p in parts]
    return c.cast(c.g.concat(rows, 0), c.x.dtype)


@converts("_ravel_multi_index")
def _ravel_multi_index(c: Call) -> Result:
    total: Value | None = None
    for i, extent in enumerate(c.attrs.shape("shape")):
        row = c.reshape(c.g.slice_axis(c.x, 0, i, i + 1), c.x.shape[1:])
        total = row if total is None else c.emit("add", c.emit("mul", total, extent), row)
    if total is None:
        raise c.fail("shape is empty")
    return total


@converts("fill_element_0index")
def _fill_element(c: Call) -> Result:
    """The first operand with element [i, index[i]] of each row replaced by value[i]."""
    x, value, index = c.arg(0), c.arg(1), c.indices(c.arg(2))
    columns = c.const(np.arange(x.shape[1]).reshape(1, -1), index.dtype)
    hit = c.emit("equal", c.reshape(index, (x.shape[0], 1)), columns)
    return c.emit("where", hit, c.reshape(value, (x.shape[0], 1)), x)
