"""LSTM, GRU and Elman layers: the recurrent part of a whole sequence in one kernel.

The input's share of all gates, xw[T, N, gates * H], is one matrix product made beforehand. A step multiplies the state
with the recurrent weights, one block of 16 hidden units at a time with all gates of these units, so that the gate
arithmetic follows at once on what is still in cache. Sequences of a batch are independent: they are the work items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.codegen.builder import Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.access import load_lanes, store_lanes
from diptych.kernels.base import emits
from diptych.kernels.nest import spans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index, Var
    from diptych.targets.base import Target

__all__ = ["UNITS", "RecurrentParams", "make_gru", "make_lstm", "make_rnn", "pack_recurrent_weights"]

UNITS = 16  # hidden units of a block
_UNROLL = 4  # elements of the state per turn of the loop


@dataclass(frozen=True, slots=True)
class RecurrentParams:
    """Operands: xw[T, N, gates * H], packed weights, (gru: b_hh[3H]), h0[N, H], (lstm: c0), then y[T, N, H], h, (c).

    A work item is `rows` sequences; `tile` of them share a pass over the weights.
    """

    cell: str  # "lstm", "gru", "rnn"
    activation: str  # of "rnn": "tanh" or "relu"
    reverse: bool
    steps: int
    batch: int
    hidden: int
    rows: int
    tile: int
    vectors: int  # of a block, multiplied at a time when a tile is one row
    lanes: int
    dtype: str

    @property
    def gates(self) -> int:
        return {"lstm": 4, "gru": 3, "rnn": 1}[self.cell]

    @property
    def padded(self) -> int:
        """Hidden units in whole blocks."""
        return -(-self.hidden // UNITS) * UNITS


def pack_recurrent_weights(w_hh: np.ndarray[Any, Any], gates: int) -> np.ndarray[Any, Any]:
    """w_hh[gates * H, H] as [ceil(H / 16), H, gates, 16]: block of units, element of the state, gate, unit.

    >>> pack_recurrent_weights(np.zeros((80, 20), np.float32), 4).shape
    (2, 20, 4, 16)
    """
    hidden = w_hh.shape[1]
    blocks = -(-hidden // UNITS)
    full = np.zeros((gates, blocks * UNITS, hidden), w_hh.dtype)
    full[:, :hidden] = w_hh.reshape(gates, hidden, hidden)
    return np.ascontiguousarray(full.reshape(gates, blocks, UNITS, hidden).transpose(1, 3, 0, 2))


def make_lstm(xw: Operand, weights: Operand, h0: Operand, c0: Operand, y: Operand, h: Operand, c: Operand,
              reverse: bool, target: Target) -> Kernel:  # fmt: skip
    """LSTM with gates i, f, g, o. xw includes the bias; weights are packed by `pack_recurrent_weights`."""
    return _make("lstm", "", reverse, (xw, weights, h0, c0), (y, h, c), target)


def make_gru(xw: Operand, weights: Operand, b_hh: Operand, h0: Operand, y: Operand, h: Operand, reverse: bool,
             target: Target) -> Kernel:  # fmt: skip
    """GRU with gates r, z, n; xw includes b_ih."""
    return _make("gru", "", reverse, (xw, weights, b_hh, h0), (y, h), target)


def make_rnn(xw: Operand, weights: Operand, h0: Operand, y: Operand, h: Operand, activation: str, reverse: bool,
             target: Target) -> Kernel:  # fmt: skip
    """h' = tanh (or relu) of xw + U h."""
    return _make("rnn", activation, reverse, (xw, weights, h0), (y, h), target)


def _make(cell: str, activation: str, reverse: bool, inputs: tuple[Operand, ...], outputs: tuple[Operand, ...],
          target: Target) -> Kernel:  # fmt: skip
    steps, batch, hidden = outputs[0].shape
    dtype = inputs[0].dtype
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell]
    lanes = min(UNITS, target.lanes(itemsize(dtype)))
    if inputs[1].shape != (-(-hidden // UNITS), hidden, gates, UNITS):
        raise ValueError(f"{cell}: weights {inputs[1]} are not packed for {hidden} units; use pack_recurrent_weights")
    # Registers: tile * gates accumulators, one vector of weights, one broadcast element a row.
    tile = max(1, min(batch, (target.registers - 1) // (gates + 1), 8))
    vectors = UNITS // lanes
    while vectors * gates > target.registers - 3:
        vectors //= 2
    rows = min(batch, -(-max(tile, -(-batch // 8)) // tile) * tile) if batch else 1
    params = RecurrentParams(cell, activation, reverse, steps, batch, hidden, rows, tile, vectors, lanes, dtype)
    padded = params.padded
    scratch = (3 * rows * padded + rows * gates * padded + gates * padded + tile * gates * UNITS) * itemsize(dtype)
    flops = 2.0 * gates * hidden * hidden * steps * batch
    cost = 100 + flops / (30 if batch == 1 else 60) + 10.0 * gates * hidden * steps * batch / lanes
    work = -(-batch // rows) if hidden and steps else 0
    return Kernel(cell, params, (*inputs, *outputs), len(outputs), work, cost, scratch)


class _Layer:
    """One item: some sequences from the first step to the last."""

    def __init__(self, fn: Fn, kernel: Kernel, item: Index) -> None:
        self.fn, self.kernel, self.math = fn, kernel, Math(fn)
        p = self.p = kernel.params
        self.first = fn.imul(item, p.rows)
        self.count = fn.isub(fn.imin(fn.iadd(self.first, p.rows), p.batch), self.first)
        self.size = p.rows * p.padded
        state = 2 * self.size
        base = fn.args["scratch"]
        self.h = base  # two of them: the state before and after a step
        self.c = fn.at(base, state, p.dtype)
        self.x = fn.at(base, state + self.size, p.dtype)
        self.b = fn.at(base, state + self.size * (1 + p.gates), p.dtype)
        self.g = fn.at(self.b, p.gates * p.padded, p.dtype)
        named = ["xw", "w", *({"lstm": ["h0", "c0"], "gru": ["b", "h0"], "rnn": ["h0"]}[p.cell]), "y", "hn", "cn"]
        self.operand = dict(zip(named, kernel.operands, strict=False))
        self.pointer = {n: fn.args[f"p{i}"] for i, n in enumerate(self.operand)}

    # -- copies between rows of operands and padded rows of scratch ----------------------------------------------
    def read(self, name: str, index: Sequence[Index], into: ir.Value, shift: Index = 0) -> None:
        """`hidden` elements of an operand, from `shift` on in its last dim."""
        o, fn = self.operand[name], self.fn
        stride = o.strides[-1]
        at = fn.iadd(fn.dot(index, o.strides[:-1]), fn.imul(shift, stride))

        def body(i: Index, lanes: int, count: int) -> None:
            v = load_lanes(fn, self.pointer[name], fn.iadd(at, fn.imul(i, stride)), stride, o.dtype, lanes, count)
            store_lanes(fn, v, into, i, 1, count)

        spans(fn, 0, self.p.hidden, self.p.lanes, self.p.lanes, self.p.hidden % self.p.lanes, body)

    def write(self, name: str, index: Sequence[Index], source: ir.Value) -> None:
        o, fn = self.operand[name], self.fn
        at, stride = fn.dot(index, o.strides[:-1]), o.strides[-1]

        def body(i: Index, lanes: int, count: int) -> None:
            v = load_lanes(fn, source, i, 1, o.dtype, lanes, count)
            store_lanes(fn, v, self.pointer[name], fn.iadd(at, fn.imul(i, stride)), stride, count)

        spans(fn, 0, self.p.hidden, self.p.lanes, self.p.lanes, self.p.hidden % self.p.lanes, body)

    def row(self, base: ir.Value, r: Index, per_row: int = 1) -> ir.Value:
        return self.fn.at(base, self.fn.imul(r, self.p.padded * per_row), self.p.dtype)

    # -- the sequence ---------------------------------------------------------------------------------------------
    def emit(self) -> None:
        fn, p = self.fn, self.p
        with fn.loop(0, self.count, name="r") as r:
            n = fn.iadd(self.first, r)
            self.read("h0", [n], self.row(self.h, r))
            if p.cell == "lstm":
                self.read("c0", [n], self.row(self.c, r))
        if p.cell == "gru":
            with fn.loop(0, p.gates, name="gate") as g:
                self.read("b", [], fn.at(self.b, fn.imul(g, p.padded), p.dtype), fn.imul(g, p.hidden))
        with fn.loop(0, p.steps, name="step") as step:
            t = fn.isub(p.steps - 1, step) if p.reverse else step
            odd = fn.b.and_(step, fn.index(1))
            old = fn.at(self.h, fn.imul(odd, self.size), p.dtype)
            new = fn.at(self.h, fn.imul(fn.isub(1, odd), self.size), p.dtype)
            with fn.loop(0, self.count, name="r") as r, fn.loop(0, p.gates, name="gate") as g:
                into = fn.at(self.row(self.x, r, p.gates), fn.imul(g, p.padded), p.dtype)
                self.read("xw", [t, fn.iadd(self.first, r)], into, fn.imul(g, p.hidden))
            with fn.loop(0, p.padded // UNITS, name="block") as block:
                done: Index = 0
                if p.tile > 1:
                    done = fn.imul(fn.idiv(self.count, p.tile), p.tile)
                    with fn.loop(0, done, p.tile, name="rows") as r:
                        self.tile(block, r, p.tile, 1, old, new)
                with fn.loop(done, self.count, name="row") as r:
                    self.tile(block, r, 1, p.vectors, old, new)
            with fn.loop(0, self.count, name="r") as r:
                self.write("y", [t, fn.iadd(self.first, r)], self.row(new, r))
        last = fn.at(self.h, (p.steps % 2) * self.size, p.dtype)
        with fn.loop(0, self.count, name="r") as r:
            self.write("hn", [fn.iadd(self.first, r)], self.row(last, r))
            if p.cell == "lstm":
                self.write("cn", [fn.iadd(self.first, r)], self.row(self.c, r))

    # -- one tile: `rows` sequences by one block of units -----------------------------------------------------------
    def tile(self, block: Index, r: Index, rows: int, vectors: int, old: ir.Value, new: ir.Value) -> None:
        fn, p = self.fn, self.p
        unit = fn.imul(block, UNITS)
        weights = fn.at(self.pointer["w"], fn.imul(block, p.hidden * p.gates * UNITS), p.dtype)
        with fn.loop(0, UNITS, vectors * p.lanes, name="part") as part:
            acc = [
                [[self.start(fn.iadd(r, i), g, fn.iadd(unit, fn.iadd(part, v * p.lanes))) for v in range(vectors)]
                 for g in range(p.gates)]
                for i in range(rows)
            ]  # fmt: skip
            at = fn.at(weights, part, p.dtype)
            whole = p.hidden // _UNROLL * _UNROLL
            if whole:
                with fn.loop(0, whole, _UNROLL, name="k") as k:
                    for j in range(_UNROLL):
                        self.update(acc, at, old, r, fn.iadd(k, j))
            if whole < p.hidden:
                with fn.loop(whole, p.hidden, name="k") as k:
                    self.update(acc, at, old, r, k)
            for i, per_row in enumerate(acc):
                for g, per_gate in enumerate(per_row):
                    for v, a in enumerate(per_gate):
                        place = fn.iadd(part, (i * p.gates + g) * UNITS + v * p.lanes)
                        fn.store(Val(a.get(), p.dtype, p.lanes), fn.at(self.g, place, p.dtype))
        with fn.loop(0, rows, name="finish") as i:
            self.finish(i, fn.iadd(r, i), unit, old, new)

    def start(self, r: Index, gate: int, unit: Index) -> Var:
        """An accumulator: it starts from the input's share, for GRU from the recurrent bias."""
        fn, p = self.fn, self.p
        base = self.b if p.cell == "gru" else self.row(self.x, r, p.gates)
        v = fn.load(fn.at(base, fn.iadd(unit, gate * p.padded), p.dtype), p.dtype, p.lanes)
        return fn.var(p.dtype, v.ir, p.lanes)

    def update(self, acc: list[list[list[Var]]], weights: ir.Value, old: ir.Value, r: Index, k: Index) -> None:
        """All accumulators += state element k * weights."""
        fn, p = self.fn, self.p
        at = fn.at(weights, fn.imul(k, p.gates * UNITS), p.dtype)
        states = [
            fn.splat(fn.load(fn.at(self.row(old, fn.iadd(r, i)), k, p.dtype), p.dtype), p.lanes) for i in range(len(acc))
        ]
        for g in range(p.gates):
            for v in range(len(acc[0][0])):
                w = fn.load(fn.at(at, g * UNITS + v * p.lanes, p.dtype), p.dtype, p.lanes)
                for i, state in enumerate(states):
                    var = acc[i][g][v]
                    var.set(fn.fma(state, w, Val(var.get(), p.dtype, p.lanes)).ir)

    def finish(self, i: Index, r: Index, unit: Index, old: ir.Value, new: ir.Value) -> None:
        """The gates' arithmetic for a block of units of one sequence."""
        fn, p, m = self.fn, self.p, self.math

        def block(base: ir.Value, at: Index) -> Val:
            return fn.load(fn.at(base, at, p.dtype), p.dtype, UNITS)

        sums = [block(self.g, fn.iadd(fn.imul(i, p.gates * UNITS), g * UNITS)) for g in range(p.gates)]
        into = fn.at(self.row(new, r), unit, p.dtype)
        if p.cell == "rnn":
            fn.store(m.tanh(sums[0]) if p.activation == "tanh" else m.relu(sums[0]), into)
        elif p.cell == "lstm":
            cell = fn.at(self.row(self.c, r), unit, p.dtype)
            keep = m.mul(m.sigmoid(sums[1]), fn.load(cell, p.dtype, UNITS))
            c = m.add(keep, m.mul(m.sigmoid(sums[0]), m.tanh(sums[2])))
            fn.store(c, cell)
            fn.store(m.mul(m.sigmoid(sums[3]), m.tanh(c)), into)
        else:
            x = [block(self.row(self.x, r, p.gates), fn.iadd(unit, g * p.padded)) for g in range(p.gates)]
            reset, update = m.sigmoid(m.add(x[0], sums[0])), m.sigmoid(m.add(x[1], sums[1]))
            n = m.tanh(m.add(x[2], m.mul(reset, sums[2])))
            h = block(self.row(old, r), unit)
            fn.store(m.add(m.mul(m.sub(m.const(1, p.dtype, UNITS), update), n), m.mul(update, h)), into)


def _emit(fn: Fn, kernel: Kernel) -> None:
    with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
        _Layer(fn, kernel, item).emit()


@emits("lstm")
def emit_lstm(fn: Fn, kernel: Kernel) -> None:
    """See the module."""
    _emit(fn, kernel)


@emits("gru")
def emit_gru(fn: Fn, kernel: Kernel) -> None:
    """See the module."""
    _emit(fn, kernel)


@emits("rnn")
def emit_rnn(fn: Fn, kernel: Kernel) -> None:
    """See the module."""
    _emit(fn, kernel)
