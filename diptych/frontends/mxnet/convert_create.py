"""Operators that make tensors from attributes or shapes alone: constants of the compiled graph."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.frontends.mxnet.convert import Call, converts

if TYPE_CHECKING:
    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value


def _filled(c: Call, value: float) -> Value:
    shape = c.attrs.shape("shape", ())
    if (0 in shape and not c.np_shape) or -1 in shape or (not shape and c.shape):  # unknown: what the consumers need
        if c.shape is None:
            raise c.fail(f"the shape {shape} has unknown extents that nothing else tells",
                         "give the types of all inputs, batch size included")  # fmt: skip
        shape = c.shape
    return c.full(shape, value, c.dtype())


@converts("_zeros", "_npi_zeros", "_zeros_without_dtype")
def _zeros(c: Call) -> Result:
    return _filled(c, 0.0)


@converts("_ones", "_npi_ones")
def _ones(c: Call) -> Result:
    return _filled(c, 1.0)


@converts("_full")
def _full(c: Call) -> Result:
    return _filled(c, c.attrs.real("value"))


@converts("zeros_like", "_npi_zeros_like")
def _zeros_like(c: Call) -> Result:
    return c.full(c.x.shape, 0.0, c.x.dtype)


@converts("ones_like", "_npi_ones_like")
def _ones_like(c: Call) -> Result:
    return c.full(c.x.shape, 1.0, c.x.dtype)


@converts("_eye", "_npi_eye")
def _eye(c: Call) -> Result:
    n, m = c.attrs.integer("N"), c.attrs.optional_integer("M", None)
    if m is None or (not m and c.op == "_eye"):  # the classic operator has 0 for "as many as rows", NumPy's has None
        m = n
    return c.const(np.eye(n, m, c.attrs.integer("k", 0)), c.dtype())


@converts("_arange", "_npi_arange")
def _arange(c: Call) -> Result:
    start, stop = c.attrs.real("start", 0.0), c.attrs.optional_real("stop")
    step, repeat = c.attrs.real("step", 1.0), c.attrs.integer("repeat", 1)
    if stop is None and c.attrs.boolean("infer_range", False):
        if c.shape is None:
            raise c.fail("the length of an open-ended arange is not known", "give `stop` in the symbol")
        values = start + step * np.arange(c.shape[0] // repeat)
    else:
        if stop is None:
            start, stop = 0.0, start
        values = np.arange(start, stop, step, dtype=np.float64)
    if c.dtype()[0] in "iu":  # as in MXNet, start and step are integers then; the count is that of the real ones
        return c.const(np.repeat(int(start) + int(step) * np.arange(len(values)), repeat), c.dtype())
    return c.const(np.repeat(values, repeat), c.dtype())


@converts("_contrib_arange_like")
def _arange_like(c: Call) -> Result:
    axis = c.attrs.optional_integer("axis", None)
    shape = c.x.shape if axis is None else (c.x.shape[c.axis(axis)],)
    steps = np.arange(prod(shape)) // max(c.attrs.integer("repeat", 1), 1)
    return c.const((c.attrs.real("start", 0.0) + c.attrs.real("step", 1.0) * steps).reshape(shape), c.x.dtype)


@converts("_linspace")
def _linspace(c: Call) -> Result:
    start, stop, count = c.attrs.real("start"), c.attrs.real("stop"), c.attrs.integer("num", 50)
    return c.const(np.linspace(start, stop, count, c.attrs.boolean("endpoint", True)), c.dtype())


@converts("_contrib_index_array")
def _index_array(c: Call) -> Result:
    axes = c.attrs.shape("axes", ()) or tuple(range(c.x.rank))
    if not axes:
        return c.const(np.zeros((*c.x.shape, 0)), "i64")
    places = np.indices(c.x.shape)
    return c.const(np.stack([places[c.axis(a)] for a in axes], -1), "i64")


@converts("shape_array")
def _shape_array(c: Call) -> Result:
    return c.const(np.array(c.x.shape), "i64")


@converts("size_array")
def _size_array(c: Call) -> Result:
    return c.const(np.array([c.x.type.size]), "i64")
