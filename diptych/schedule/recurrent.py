"""Recurrent layers: the input's share of all steps as one contraction, then the steps as one cooperative kernel."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.ir.kernel import Expr
from diptych.kernels.pointwise import make_copy, make_fill, make_pointwise
from diptych.kernels.pointwise_pack import make_pack_panels
from diptych.kernels.recurrent_ahead import GROUP, choose_ahead
from diptych.kernels.recurrent_gradient import make_lstm_backward, make_recurrent_backward
from diptych.kernels.recurrent_params import make_recurrent
from diptych.kernels.recurrent_units import GATES, choose_units
from diptych.ops.base import OPS, attributes
from diptych.schedule.contraction import emit_product, pack_matrix
from diptych.schedule.naive import emit_naive_product
from diptych.schedule.strassen import lower_strassen
from diptych.schedule.views import View

if TYPE_CHECKING:
    from diptych.ir import Array
    from diptych.kernels.recurrent_units import Units
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["lower_backward", "lower_recurrent"]


def lower_recurrent(ctx: Context, group: Group) -> None:
    """lstm, its general form, gru or rnn. Half precision is computed in f32."""
    node = group.anchor
    assert node is not None
    kind, at = node.op.name.removesuffix("_general"), attributes(node.op)
    results = [ctx.result(v) for v in node.outputs]
    if 0 in results[0].shape:
        return
    x, w_ih, w_hh, *rest = node.inputs
    lengths = [ctx.view(rest.pop())] if at.get("ragged") else []
    count = 2 if kind == "gru" else 1
    biases, states = rest[:count], rest[count:]
    matrix = states.pop(0) if at.get("projected") else None
    dtype = "f64" if results[0].dtype == "f64" else "f32"
    steps, rows, width = results[0].shape
    constant = ctx.constant(w_hh) is not None and ctx.graph.types[w_hh].dtype == dtype
    units = choose_units(kind, rows, dtype, ctx.target, split=constant)
    arranged = _Arranged(ctx, GATES[kind], units, dtype)
    ahead, w = None, arranged.array(w_ih)
    if matrix is None and w is not None:
        ahead = choose_ahead(kind, steps, rows, ctx.graph.types[x].shape[2], width, dtype, ctx.target)
    weights = arranged.view(w_hh, recurrent=True)
    along = []
    if ahead is not None and w is not None:
        units = replace(units, sets=min(2, ahead.turns))
        first = _groups(ctx, ctx.view(x))
        along = [ctx.weights(_parts(w, ahead.depth)), arranged.view(biases[0])]
    else:
        first = _shares(ctx, _cast(ctx, ctx.view(x), dtype), arranged, w_ih, biases[0])
    inputs = [first, weights, *(arranged.view(b) for b in biases[1:]), *along]
    low, high = at.get("clip_low"), at.get("clip_high")
    made_here = [] if ahead is None else [ctx.temp((2, GROUP, prod(w.shape[:3]) if w is not None else 0))]
    projection = None
    if matrix is not None:
        projection = choose_units("rnn", rows, dtype, ctx.target)
        inputs.append(_projection(ctx, matrix, projection, dtype))
        made_here = [ctx.temp((rows, ctx.graph.types[matrix].shape[1]), dtype)]
    inputs += [_dense(ctx, _cast(ctx, ctx.view(v), dtype)) for v in states]
    inputs += [v if v.strides == (1,) else ctx.copy(v, "recurrent lengths") for v in lengths]
    outputs = [
        out if out.dtype == dtype and (out.strides[-1] == 1 or out.shape[-1] == 1) else ctx.temp(out.shape, dtype)
        for out in results
    ]
    kernel = make_recurrent(
        kind, [v.operand for v in inputs], [v.operand for v in (*outputs, *made_here)], units, ctx.target,
        reverse=at["reverse"], activation=at.get("activation", "tanh"), ahead=ahead, ragged=bool(lengths), projection=projection,
        clip=None if low is None or high is None else (low, high), clip_nan=at.get("clip_nan", False),
    )  # fmt: skip
    ctx.call(kernel, [*inputs, *outputs, *made_here])
    for made, out in zip(outputs, results, strict=True):
        if made is not out:
            _write(ctx, made, out)


def _projection(ctx: Context, matrix: int, units: Units, dtype: str) -> View:
    """w_hr[P, H] as [blocks of P, H, unit]."""
    array = ctx.constant(matrix)
    if array is None or ctx.graph.types[matrix].dtype != dtype:
        return _columns(ctx, _cast(ctx, ctx.view(matrix), dtype).transpose((1, 0)), units.block)
    width, hidden = array.shape
    padded = np.pad(array, ((0, -width % units.block), (0, 0)))
    return ctx.weights(padded.reshape(-1, units.block, hidden).swapaxes(1, 2), dtype)


def _groups(ctx: Context, x: View) -> View:
    """x[T, 1, I] as [groups of steps, I, step], zeros where T ends."""
    steps, _, depth = x.shape
    out = ctx.temp((-(-steps // GROUP), depth, GROUP))
    flat = View(x.buffer, x.offset, (depth, steps), (x.strides[2], x.strides[0]), x.dtype)
    ctx.call(make_pack_panels(flat.operand, out.operand, ctx.target), (flat, out), fused=("pack",))
    return out


def _parts(w: Array, depth: int) -> Array:
    """w[blocks, gates, unit, I] -> per part of I [blocks and gates, I of the part, unit], one after the other."""
    panels = w.reshape(-1, *w.shape[2:]).swapaxes(1, 2)
    cut = (panels[:, k : k + depth] for k in range(0, panels.shape[1], depth))
    return np.concatenate([part.reshape(-1) for part in cut])


def lower_backward(ctx: Context, group: Group) -> None:
    """lstm_backward or recurrent_backward. Half precision is computed in f32."""
    node = group.anchor
    assert node is not None
    results = [ctx.result(v) for v in node.outputs]
    if 0 in results[0].shape:
        return
    dtype = "f64" if results[0].dtype == "f64" else "f32"
    gates, w_hh, *rest = (_dense(ctx, _cast(ctx, ctx.view(v), dtype)) for v in node.inputs)
    units = choose_units("rnn", results[0].shape[1], dtype, ctx.target)
    inputs = [gates, _columns(ctx, w_hh, units.block), *rest]
    outputs = [
        out if out.dtype == dtype and (out.strides[-1] == 1 or out.shape[-1] == 1) else ctx.temp(out.shape, dtype)
        for out in results
    ]
    lstm = node.op.name == "lstm_backward"
    more = [ctx.temp(rest[1].shape, dtype)] if lstm else []  # the cells' states
    make = make_lstm_backward if lstm else make_recurrent_backward
    kernel = make([v.operand for v in inputs], [v.operand for v in (*outputs, *more)], units, ctx.target,
                  reverse=attributes(node.op)["reverse"])  # fmt: skip
    ctx.call(kernel, [*inputs, *outputs, *more])
    for made, out in zip(outputs, results, strict=True):
        if made is not out:
            _write(ctx, made, out)


def _columns(ctx: Context, w: View, unit: int) -> View:
    """The columns of w[K, H] by blocks of units: [blocks, K, unit], zeros where H ends."""
    depth, hidden = w.shape
    whole, rest = divmod(hidden, unit)
    out = ctx.temp((-(-hidden // unit), depth, unit), w.dtype)
    if rest:
        ctx.call(make_fill(0.0, out.operand, ctx.target), (out,))
    for first, blocks, units in ((0, whole, unit), (whole, 1, rest)):
        if blocks and units:
            source = View(w.buffer, w.offset + first * unit * w.strides[1], (blocks, depth, units),
                          (unit * w.strides[1], w.strides[0], w.strides[1]), w.dtype)  # fmt: skip
            part = out.slice((first, 0, 0), (1, 1, 1), (blocks, depth, units))
            ctx.call(make_copy(source.operand, part.operand, ctx.target), (source, part), fused=("pack",))
    return out


class _Arranged:
    """Weights and biases by blocks of units: [gates * H, ...] -> [blocks, gates, unit, ...], zeros where H ends."""

    def __init__(self, ctx: Context, gates: int, units: Units, dtype: str) -> None:
        self.ctx, self.gates, self.unit, self.passes, self.dtype = ctx, gates, units.block, units.passes, dtype

    def array(self, value: int) -> Array | None:
        """The arranged constant; None when the value is not one (or must be converted first)."""
        array = self.ctx.constant(value)
        if array is None or self.ctx.graph.types[value].dtype != self.dtype:
            return None
        hidden, rest = len(array) // self.gates, array.shape[1:]
        blocks = -(-hidden // self.unit)
        split = array.reshape(self.gates, hidden, *rest)
        split = np.pad(split, ((0, 0), (0, blocks * self.unit - hidden), *((0, 0) for _ in rest)))
        return np.moveaxis(split.reshape(self.gates, blocks, self.unit, *rest), 0, 1)

    def view(self, value: int, recurrent: bool = False) -> View:
        """The arranged value in memory; `recurrent`: [blocks, pass, H, gates of it, unit], as the kernel reads it."""
        array = self.array(value)
        if array is not None and recurrent:
            blocks, gates, unit, depth = array.shape
            parts = array.reshape(blocks, self.passes, gates // self.passes, unit, depth)
            return self.ctx.weights(np.moveaxis(parts, 4, 2), self.dtype)
        if array is not None:
            return self.ctx.weights(array, self.dtype)
        return self.moved(_cast(self.ctx, self.ctx.view(value), self.dtype), recurrent)

    def moved(self, source: View, recurrent: bool) -> View:
        """The same at run time: by copies."""
        ctx, g, unit = self.ctx, self.gates, self.unit
        hidden, rest = source.shape[0] // g, source.shape[1:]
        blocks, whole = -(-hidden // unit), hidden // unit
        out = ctx.temp((blocks, *rest, g, unit) if recurrent else (blocks, g, unit, *rest), self.dtype)
        if hidden % unit:
            ctx.call(make_fill(0.0, out.operand, ctx.target), (out,))
        by_gate = out.transpose((2, 0, 3, 1)) if recurrent else out.transpose((1, 0, 2, *range(3, len(out.shape))))
        split = _reshaped(ctx, source, (g, hidden, *rest))
        ones, zeros = (1,) * len(by_gate.shape), (0,) * len(rest)
        if whole:
            part = split.slice((0, 0, *zeros), ones[1:], (g, whole * unit, *rest))
            self.copy(_reshaped(ctx, part, (g, whole, unit, *rest)),
                      by_gate.slice((0, 0, 0, *zeros), ones, (g, whole, unit, *rest)))  # fmt: skip
        if hidden % unit:
            part = split.slice((0, whole * unit, *zeros), ones[1:], (g, hidden % unit, *rest))
            self.copy(_reshaped(ctx, part, (g, 1, hidden % unit, *rest)),
                      by_gate.slice((0, whole, 0, *zeros), ones, (g, 1, hidden % unit, *rest)))  # fmt: skip
        return out

    def copy(self, source: View, out: View) -> None:
        self.ctx.call(make_copy(source.operand, out.operand, self.ctx.target), (source, out), fused=("pack",))


def _shares(ctx: Context, x: View, arranged: _Arranged, w_ih: int, bias: int) -> View:
    """x W^T + b for all steps, as [T, N, gates by blocks]."""
    _, rows, depth = x.shape
    b = arranged.view(bias)
    n = int(np.prod(b.shape))
    b = _reshaped(ctx, b, (n,))
    # In the order of x in memory (batch first or time first), so that all rows of the product are one axis.
    swap = abs(x.strides[0]) < abs(x.strides[1]) and rows > 1
    a = x.transpose((1, 0, 2)) if swap else x
    out = ctx.temp((*a.shape[:2], n), arranged.dtype)
    add = Expr(2, (), ((OPS["add"](), (0, 1)),), (2,))
    array = arranged.array(w_ih)
    if array is not None and arranged.dtype == "f32" and lower_strassen(ctx, a, array.reshape(n, depth).T, add, [b], out):
        pass
    elif arranged.dtype == "f32":
        matrix = array.reshape(n, depth) if array is not None else _reshaped(ctx, arranged.view(w_ih), (n, depth))
        w, w_batch = pack_matrix(ctx, matrix, True, (a.shape[0],))
        emit_product(ctx, a, w, w_batch, add, [b], out)
    else:
        if array is not None:
            matrix_view = ctx.weights(array.reshape(n, depth).T, arranged.dtype)
        else:
            matrix_view = _reshaped(ctx, arranged.view(w_ih), (n, depth)).transpose((1, 0))
        product = ctx.temp(out.shape, arranged.dtype)
        emit_naive_product(ctx, a, matrix_view, product)
        both = (product, b.broadcast(out.shape), out)
        ctx.call(make_pointwise(out.shape, add, [v.operand for v in both[:2]], [out.operand], ctx.target), both)
    return out.transpose((1, 0, 2)) if swap else out


def _reshaped(ctx: Context, view: View, shape: tuple[int, ...]) -> View:
    again = view.reshape(shape)
    if again is None:
        again = ctx.copy(view, "recurrent operand").reshape(shape)
    assert again is not None
    return again


def _dense(ctx: Context, view: View) -> View:
    return view if view.strides[-1] == 1 or view.shape[-1] == 1 else ctx.copy(view, "recurrent state")


def _cast(ctx: Context, view: View, dtype: str) -> View:
    if view.dtype == dtype:
        return view
    out = ctx.temp(view.shape, dtype)
    _write(ctx, view, out)
    return out


def _write(ctx: Context, source: View, out: View) -> None:
    """Copy, converting where the dtypes differ."""
    expr = Expr.identity() if source.dtype == out.dtype else Expr(1, (), ((OPS["cast"](out.dtype), (0,)),), (1,))
    ctx.call(make_pointwise(out.shape, expr, [source.operand], [out.operand], ctx.target), (source, out))
