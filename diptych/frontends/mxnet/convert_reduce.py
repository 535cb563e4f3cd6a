"""Reductions, arg-reductions, sorting, products of matrices."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.frontends.mxnet.convert import Call, converts
from diptych.frontends.mxnet.convert_shape import diagonal_of

if TYPE_CHECKING:
    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value


def _axes(c: Call, key: str = "axis") -> tuple[int, ...]:
    """The axes to reduce: none given means all; `exclude` turns the choice around."""
    given = c.attrs.shape(key, None)
    if not given and not (given == () and c.np_shape):
        return tuple(range(c.x.rank))
    axes = {c.axis(a) for a in given}
    if c.attrs.boolean("exclude", False):
        axes = set(range(c.x.rank)) - axes
    return tuple(sorted(axes))


def _at_least_1d(c: Call, y: Value) -> Value:
    """Outside of np-shape mode a full reduction has shape (1,)."""
    return y if y.rank or c.op.startswith("_np") or c.np_shape else c.reshape(y, (1,))


def _reduction(op: str, *names: str) -> None:
    def convert(c: Call) -> Result:
        axes, keep = _axes(c), c.attrs.boolean("keepdims", False)
        x = c.x
        if c.op.startswith("nan"):
            x = c.g.where(c.emit("is_nan", x), c.g.scalar(1.0 if op == "prod" else 0.0, x.dtype), x)
        if op == "mean" and x.dtype[0] in "iu":
            total = c.emit("sum", x, axes=axes, keepdims=keep)
            return _at_least_1d(c, c.emit("div", total, max(1, prod(x.shape[a] for a in axes))))
        return _at_least_1d(c, c.emit(op, x, axes=axes, keepdims=keep) if axes else x)

    converts(*names)(convert)


_reduction("sum", "sum", "nansum")
_reduction("mean", "mean")
_reduction("max", "max")
_reduction("min", "min")
_reduction("prod", "prod", "nanprod")


@converts("norm")
def _norm(c: Call) -> Result:
    axes, keep = _axes(c), c.attrs.boolean("keepdims", False)
    order = c.attrs.integer("ord", 2)
    x = c.cast(c.x, c.dtype("out_dtype", c.x.dtype))
    if order == 1:
        return _at_least_1d(c, c.emit("sum", c.emit("abs", x), axes=axes, keepdims=keep))
    if order != 2:
        raise c.fail(f"ord={order} is unknown to MXNet", "use 1 or 2")
    total = c.emit("sum", c.emit("mul", x, x), axes=axes, keepdims=keep)
    return _at_least_1d(c, c.emit("sqrt", total))


@converts("moments")
def _moments(c: Call) -> Result:
    axes, keep = _axes(c, "axes"), c.attrs.boolean("keepdims", False)
    return (_at_least_1d(c, c.emit("mean", c.x, axes=axes, keepdims=keep)),
            _at_least_1d(c, c.emit("var", c.x, axes=axes, keepdims=keep)))  # fmt: skip


def _flattened(c: Call, axis: int | None) -> tuple[Value, int]:
    """The operand and a non-negative axis; no axis means the flattened operand."""
    return (c.reshape(c.x, (c.x.type.size,)), 0) if axis is None else (c.x, c.axis(axis))


def _arg(op: str, *names: str) -> None:
    def convert(c: Call) -> Result:
        axis = c.attrs.optional_integer("axis", None)
        keep = c.attrs.boolean("keepdims", False)
        if c.op.startswith("_np") and not c.x.rank and axis in (0, -1):
            axis = None  # as in NumPy, a scalar has an axis
        x, where = _flattened(c, axis)
        y = c.emit(op, x, axis=where, keepdims=keep)
        if axis is None and keep:
            y = c.reshape(y, (1,) * c.x.rank)
        if c.op.startswith("_np"):
            return y
        return c.cast(_at_least_1d(c, y), c.x.dtype)  # MXNet counts in the type of the data

    converts(*names)(convert)


_arg("arg_max", "argmax", "_npi_argmax")
_arg("arg_min", "argmin", "_npi_argmin")


@converts("argmax_channel")
def _argmax_channel(c: Call) -> Result:
    return c.cast(c.emit("arg_max", c.x, axis=1), c.x.dtype)


@converts("sort")
def _sort(c: Call) -> Result:
    x, axis = _flattened(c, c.attrs.optional_integer("axis", -1) if "axis" in c.attrs else -1)
    return c.emit_all("sort", x, axis=axis, descending=not c.attrs.boolean("is_ascend", True))[0]


@converts("argsort")
def _argsort(c: Call) -> Result:
    x, axis = _flattened(c, c.attrs.optional_integer("axis", -1) if "axis" in c.attrs else -1)
    _, order = c.emit_all("sort", x, axis=axis, descending=not c.attrs.boolean("is_ascend", True))
    return c.cast(order, c.dtype())


@converts("topk")
def _topk(c: Call) -> Result:
    x, axis = _flattened(c, c.attrs.optional_integer("axis", -1) if "axis" in c.attrs else -1)
    k = c.attrs.integer("k", 1)
    k = x.shape[axis] if k < 1 else min(k, x.shape[axis])
    values, order = c.emit_all("top_k", x, k=k, axis=axis, largest=not c.attrs.boolean("is_ascend", False))
    kind = c.attrs.text("ret_typ", "indices", ("value", "indices", "mask", "both"))
    if kind == "mask":  # ones at the chosen places: count, for every place, how often it was chosen
        places = c.emit("one_hot", order, depth=x.shape[axis], on=1.0, off=0.0, dtype="f32")
        mask = c.emit("sum", places, axes=(axis,), keepdims=False)
        perm = [*range(axis), x.rank - 1, *range(axis, x.rank - 1)]
        return c.cast(c.reshape(c.transpose(mask, perm), c.x.shape), c.x.dtype)
    order = c.cast(order, c.dtype())
    return order if kind == "indices" else (values, order)


@converts("_np_cumsum")
def _cumsum(c: Call) -> Result:
    x, axis = _flattened(c, c.attrs.optional_integer("axis", None))
    return c.emit("cum_sum", c.cast(x, c.dtype("dtype", x.dtype)), axis=axis)


# -- products -----------------------------------------------------------------------------------------------------
@converts("dot", "_npi_dot", "_np_dot")
def _dot(c: Call) -> Result:
    a, b = c.arg(0), c.arg(1)
    if c.op != "dot" and not (a.rank and b.rank):
        return c.emit("mul", a, b)
    ta, tb = c.attrs.boolean("transpose_a", False), c.attrs.boolean("transpose_b", False)
    if c.op != "dot" and b.rank > 1:
        b = c.transpose(b, (b.rank - 2, *range(b.rank - 2), b.rank - 1))  # NumPy contracts the last but one axis
    # The contracted axis is a's last and b's first; a transposed operand contracts its other end.
    left = a.shape[1:] if ta and a.rank > 1 else a.shape[:-1]
    right = b.shape[:-1] if tb and b.rank > 1 else b.shape[1:]
    ta, tb = ta and a.rank > 1, tb and b.rank > 1
    k = a.shape[0] if ta else a.shape[-1]
    a2 = c.reshape(a, (k, prod(left)) if ta else (prod(left), k))
    b2 = c.reshape(b, (prod(right), k) if tb else (k, prod(right)))
    y = c.emit("mat_mul", a2, b2, transpose_a=ta, transpose_b=tb)
    return c.reshape(y, left + right if left + right or c.op != "dot" else (1,))


@converts("batch_dot")
def _batch_dot(c: Call) -> Result:
    return c.emit("mat_mul", c.arg(0), c.arg(1), transpose_a=c.attrs.boolean("transpose_a", False),
                  transpose_b=c.attrs.boolean("transpose_b", False))  # fmt: skip


@converts("_npi_matmul")
def _matmul(c: Call) -> Result:
    return c.emit("mat_mul", c.arg(0), c.arg(1))


@converts("_linalg_gemm2", "_linalg_gemm")
def _gemm2(c: Call) -> Result:
    axis = c.axis(c.attrs.integer("axis", -2))
    # The rows of the matrices lie along `axis`, their columns along the last one.
    there = [*(i for i in range(c.x.rank - 1) if i != axis), axis, c.x.rank - 1]
    back = [there.index(i) for i in range(c.x.rank)]
    a, b, *more = (c.transpose(x, there) for x in c.inputs)
    y = c.emit("mat_mul", a, b, transpose_a=c.attrs.boolean("transpose_a", False),
               transpose_b=c.attrs.boolean("transpose_b", False))  # fmt: skip
    alpha = c.attrs.real("alpha", 1.0)
    y = c.emit("mul", y, alpha) if alpha != 1.0 else y
    if c.op == "_linalg_gemm":
        beta = c.attrs.real("beta", 1.0)
        y = c.emit("add", y, c.emit("mul", more[0], beta) if beta != 1.0 else more[0])
    return c.transpose(y, back)


@converts("_linalg_syrk")
def _syrk(c: Call) -> Result:
    t = c.attrs.boolean("transpose", False)
    y = c.emit("mat_mul", c.x, c.x, transpose_a=t, transpose_b=not t)
    alpha = c.attrs.real("alpha", 1.0)
    return c.emit("mul", y, alpha) if alpha != 1.0 else y


def _diagonal(c: Call) -> Value:
    """The main diagonal of the last two axes."""
    return c.emit("sum", c.emit("mul", c.x, c.const(np.eye(c.x.shape[-1]), c.x.dtype)), axes=(c.x.rank - 1,))


@converts("_linalg_extractdiag")
def _extractdiag(c: Call) -> Result:
    if offset := c.attrs.integer("offset", 0):
        return diagonal_of(c, offset, -2, -1)
    return _diagonal(c)


@converts("_linalg_makediag")
def _makediag(c: Call) -> Result:
    n, k = c.x.shape[-1], c.attrs.integer("offset", 0)
    x = c.reshape(c.x, (*c.x.shape, 1))
    if k:
        pads = ((0, 0),) * (x.rank - 2) + ((max(-k, 0), max(k, 0)), (0, 0))
        x = c.emit("pad", x, pads=pads, mode="constant", value=0.0)
    return c.emit("mul", x, c.const(np.eye(n + abs(k), k=k), c.x.dtype))


@converts("_linalg_sumlogdiag")
def _sumlogdiag(c: Call) -> Result:
    return _at_least_1d(c, c.emit("sum", c.emit("log", _diagonal(c)), axes=(c.x.rank - 2,)))
