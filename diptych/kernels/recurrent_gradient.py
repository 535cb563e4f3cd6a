"""Backpropagation through a recurrent layer's time steps in one call: the counterpart of kernels/recurrent.py.

Step by step backward: what arrives at h is dy and the product of the later step's dgates with the recurrent weights;
threads meet once a step. An LSTM's cell states are followed forward first, which each thread does for its own units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.base import emits
from diptych.kernels.recurrent import RecurrentEmitter
from diptych.kernels.recurrent_params import STEP_NS, RecurrentParams
from diptych.kernels.recurrent_units import Units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.codegen.builder import Fn, Var
    from diptych.targets.base import Target

__all__ = ["make_lstm_backward", "make_recurrent_backward"]

_GATES, _WEIGHTS, _C0, _DY, _DH, _DC, _DGATES, _DC0, _CELLS = range(9)
_KEEP, _LINEAR_DH = 2, 4  # of recurrent_backward, which has its gates' slopes, weights and dy where lstm_backward has those


def make_lstm_backward(inputs: Sequence[Operand], outputs: Sequence[Operand], units: Units, target: Target, *, reverse: bool) -> Kernel:
    """Operands: gates[T, N, 4H], w[blocks][4H][unit], c0, dy[T, N, H], dh, dc; then dgates, dc0, and the states before
    each step [T, N, H], which are of no more use. The last axis of each is dense."""
    dy = inputs[_DY]
    steps, rows, hidden = dy.shape
    every = (*inputs, *outputs)
    assert all(o.strides[-1] == 1 or o.shape[-1] == 1 for o in every), "the last axis of every operand must be dense"
    params = RecurrentParams(steps, rows, hidden, units, reverse, "", dy.dtype)
    step = _multiplied(rows, 4 * hidden, hidden, dy.dtype, target) + rows * hidden * 120 / units.lanes / 6
    work = params.blocks if step > STEP_NS else 1
    return Kernel("lstm_backward", params, tuple(every), len(outputs), work, step * steps, cooperative=True)


def make_recurrent_backward(inputs: Sequence[Operand], outputs: Sequence[Operand], units: Units, target: Target, *, reverse: bool) -> Kernel:
    """Operands: slopes[T, N, gates * H], w[blocks][gates * H][unit], keep[T, N, H], dy[T, N, H], dh; then dgates and d.
    The last axis of each is dense."""
    dy, depth = inputs[_DY], inputs[_GATES].shape[2]
    steps, rows, hidden = dy.shape
    every = (*inputs, *outputs)
    assert all(o.strides[-1] == 1 or o.shape[-1] == 1 for o in every), "the last axis of every operand must be dense"
    params = RecurrentParams(steps, rows, hidden, units, reverse, "", dy.dtype)
    step = _multiplied(rows, depth, hidden, dy.dtype, target) + rows * depth * 4 / units.lanes
    work = params.blocks if step > STEP_NS else 1
    return Kernel("recurrent_backward", params, tuple(every), len(outputs), work, step * steps, cooperative=True)


def _multiplied(rows: int, depth: int, hidden: int, dtype: str, target: Target) -> float:
    """Nanoseconds of a step's product with the recurrent weights."""
    nbytes = depth * hidden * itemsize(dtype)
    return 100 + max(rows * depth * hidden / 30, nbytes / (70 if nbytes < target.l2 else 25))


@emits("lstm_backward")
def emit_lstm_backward(fn: Fn, kernel: Kernel) -> None:
    """begin is this thread's number and end that of all threads, scratch the context for the barrier."""
    _Emitter(fn, kernel).emit()


@emits("recurrent_backward")
def emit_recurrent_backward(fn: Fn, kernel: Kernel) -> None:
    """begin is this thread's number and end that of all threads, scratch the context for the barrier."""
    _LinearEmitter(fn, kernel).emit()


class _Emitter(RecurrentEmitter):
    """Writes one layer's backward steps."""

    dgates = _DGATES

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn, self.kernel, self.math = fn, kernel, Math(fn)
        self.p: RecurrentParams = kernel.params
        self.gates, self.unit = 1, self.p.units
        self.vectors = self.unit.block // self.unit.lanes
        self.panel, self.units = self.unit.block, self.p.hidden
        for arg in fn.function.args:  # threads read what others wrote into dgates
            arg.attributes.discard("noalias")

    def accumulate(self, rows: list[ir.Value], block: ir.Value, acc: list[list[list[Var]]]) -> None:
        """acc += the rows at these addresses times the weights of a block."""
        fn, depth = self.fn, self.operand(_GATES).shape[2]
        weights = fn.at(self.pointer(_WEIGHTS), fn.imul(block, depth * self.panel), self.p.dtype)
        self.over(rows, weights, depth, acc, self.panel)

    def at(self, j: int, *index: ir.Value | int) -> ir.Value:
        """The address of an element of operand j."""
        return self.fn.at(self.pointer(j), self.fn.dot(index, self.operand(j).strides), self.p.dtype)

    def emit(self) -> None:
        fn, p, b = self.fn, self.p, self.fn.b
        ith, nth, ctx = fn.args["begin"], fn.args["end"], fn.args["scratch"]
        low = b.udiv(fn.imul(ith, p.blocks), nth)
        high = b.udiv(fn.imul(fn.iadd(ith, 1), p.blocks), nth)
        self.forward(low, high)
        with fn.loop(0, p.steps, name="step") as step:
            back = fn.isub(p.steps - 1, step)
            is_first = b.icmp_signed("==", step, fn.index(0))
            odd = b.trunc(step, ir.IntType(1))
            with fn.loop(low, high, name="block") as i:
                block = b.select(odd, fn.isub(fn.isub(fn.iadd(low, high), 1), i), i)
                self.rows(lambda row, n, block=block: self.back(self.time(back), block, row, n, is_first))
            if self.kernel.work > 1:
                with fn.if_(b.icmp_signed("<", step, fn.index(p.steps - 1))):
                    b.call(self.barrier(), [ctx, nth])

    def forward(self, low: ir.Value, high: ir.Value) -> None:
        """What the backward steps need of the forward ones: the cells' states."""
        fn, p, b = self.fn, self.p, self.fn.b
        with fn.loop(0, p.steps, name="forward") as step:
            is_first = b.icmp_signed("==", step, fn.index(0))
            is_last = b.icmp_signed("==", step, fn.index(p.steps - 1))
            with fn.loop(low, high, name="block") as block, fn.loop(0, p.rows, name="row") as n:
                for v in range(self.vectors):
                    unit = fn.iadd(fn.imul(block, self.unit.block), v * self.unit.lanes)
                    self.follow(self.time(step), n, unit, is_first, is_last)

    def time(self, step: ir.Value) -> ir.Value:
        """The index along the sequence of the layer's step number `step`."""
        return self.fn.isub(self.p.steps - 1, step) if self.p.reverse else step

    def after(self, t: ir.Value) -> ir.Value:
        """The index of the step after the one at t."""
        return self.fn.isub(t, 1) if self.p.reverse else self.fn.iadd(t, 1)

    def gates_of(self, t: ir.Value, n: ir.Value, unit: ir.Value, mask: ir.Value | None) -> list[Val]:
        """The four gates before their activation."""
        units = [self.fn.iadd(unit, k * self.p.hidden) for k in range(4)]
        return [self.load(self.at(_GATES, t, n, u), mask) for u in units]

    def follow(self, t: ir.Value, n: ir.Value, unit: ir.Value, is_first: ir.Value, is_last: ir.Value) -> None:
        """Write the state before step t, and from it the one after."""
        fn, m, mask = self.fn, self.math, self.mask(unit)
        with fn.if_(is_first):
            self.store(self.load(self.at(_C0, n, unit), mask), self.at(_CELLS, t, n, unit), mask)
        with fn.if_(fn.b.not_(is_last)):
            i, f, g, _ = self.gates_of(t, n, unit, mask)
            before = self.load(self.at(_CELLS, t, n, unit), mask)
            cell = m.fma(m.sigmoid(f), before, m.mul(m.sigmoid(i), m.tanh(g)))
            self.store(cell, self.at(_CELLS, self.after(t), n, unit), mask)

    def back(self, t: ir.Value, block: ir.Value, row: ir.Value, rows: int, is_first: ir.Value) -> None:
        """What arrives at `rows` rows of one block of units, and their gates' gradients."""
        fn = self.fn
        acc = self.sums(rows)
        with fn.if_(fn.b.not_(is_first)):
            self.accumulate([self.at(self.dgates, self.after(t), fn.iadd(row, r), 0) for r in range(rows)], block, acc)
        for r in range(rows):
            n = fn.iadd(row, r)
            for v in range(self.vectors):
                unit = fn.iadd(fn.imul(block, self.unit.block), v * self.unit.lanes)
                self.arrive(t, n, unit, self.total(acc[r][v]), is_first)

    def arrive(self, t: ir.Value, n: ir.Value, unit: ir.Value, later: Val, is_first: ir.Value) -> None:
        """One vector of units of row n; `later` is what the step after t hands back to h (zero at the last step)."""
        fn, m, b, mask = self.fn, self.math, self.fn.b, self.mask(unit)
        lanes, dtype = self.unit.lanes, self.p.dtype
        ends = Val(b.select(is_first, self.load(self.at(_DH, n, unit), mask).ir, later.ir), dtype, lanes)
        d = m.add(self.load(self.at(_DY, t, n, unit), mask), ends)
        dc = self.load(b.select(is_first, self.at(_DC, n, unit), self.at(_DC0, n, unit)), mask)
        i, f, g, o = self.gates_of(t, n, unit, mask)
        i, f, g, o = m.sigmoid(i), m.sigmoid(f), m.tanh(g), m.sigmoid(o)
        before = self.load(self.at(_CELLS, t, n, unit), mask)
        tanh_c = m.tanh(m.fma(f, before, m.mul(i, g)))
        one = m.const(1.0, dtype, lanes)

        def slope(s: Val) -> Val:
            return m.mul(s, m.sub(one, s))

        def flat(s: Val) -> Val:
            return m.sub(one, m.mul(s, s))

        dcell = m.fma(m.mul(d, o), flat(tanh_c), dc)
        parts = (m.mul(m.mul(dcell, g), slope(i)), m.mul(m.mul(dcell, before), slope(f)), m.mul(m.mul(dcell, i), flat(g)),
                 m.mul(m.mul(d, tanh_c), slope(o)))  # fmt: skip
        for k, part in enumerate(parts):
            self.store(part, self.at(_DGATES, t, n, fn.iadd(unit, k * self.p.hidden)), mask)
        self.store(m.mul(dcell, f), self.at(_DC0, n, unit), mask)


class _LinearEmitter(_Emitter):
    """Writes backward steps of a layer whose gates' gradients are what arrives at h times slopes known beforehand."""

    dgates, d = 5, 6

    def forward(self, low: ir.Value, high: ir.Value) -> None:
        """The slopes hold all that is needed of the forward steps."""

    def arrive(self, t: ir.Value, n: ir.Value, unit: ir.Value, later: Val, is_first: ir.Value) -> None:
        """One vector of units of row n; `later` is what the step after t hands back through its gates."""
        fn, m, b, mask = self.fn, self.math, self.fn.b, self.mask(unit)
        t_keep = b.select(is_first, t, self.after(t))  # at the last step any address will do, multiplied by nothing
        kept = m.mul(self.load(self.at(_KEEP, t_keep, n, unit), mask),
                     self.load(b.select(is_first, self.at(_LINEAR_DH, n, unit), self.at(self.d, t_keep, n, unit)), mask))  # fmt: skip
        back = m.add(kept, later)
        ends = self.load(self.at(_LINEAR_DH, n, unit), mask)
        back = Val(b.select(is_first, ends.ir, back.ir), self.p.dtype, self.unit.lanes)
        d = m.add(self.load(self.at(_DY, t, n, unit), mask), back)
        self.store(d, self.at(self.d, t, n, unit), mask)
        for k in range(self.operand(_GATES).shape[2] // self.p.hidden):
            place = fn.iadd(unit, k * self.p.hidden)
            self.store(m.mul(d, self.load(self.at(_GATES, t, n, place), mask)), self.at(self.dgates, t, n, place), mask)
