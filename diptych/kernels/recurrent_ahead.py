"""Recurrent layers of one row that work out the input's shares of later steps while the weights of h stream past.

A step of a layer reads all of its recurrent weights and multiplies each once, so that most multipliers wait for the
cache. The input's product needs the multipliers and hardly any reading: of sixteen steps at a time, its weights are read
once. So the two go side by side: with each block of units goes one unit of the product for the next sixteen steps, a
panel of sixteen gates by a part of the depth. Each thread works out the shares of its own blocks, and no meeting is added.

Operands: x[groups of 16 steps][I][16], w_hh[blocks][H][gate][unit], (gru: b_hh by blocks), w_ih[part of I][panel][I of
the part][16], bias by blocks, h0, (lstm: c0); then y[T, 1, H], h, (lstm: c), and room for shares[2][16][gates by blocks].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.codegen.builder import BOOL, Val
from diptych.kernels.base import emits
from diptych.kernels.recurrent import RecurrentEmitter
from diptych.kernels.recurrent_params import Ahead
from diptych.kernels.recurrent_units import GATES

if TYPE_CHECKING:
    from llvmlite import ir

    from diptych.codegen.builder import Fn, Var
    from diptych.ir.kernel import Kernel
    from diptych.kernels.recurrent import State
    from diptych.targets.base import Target

__all__ = ["GROUP", "choose_ahead"]

GROUP = 16  # steps whose shares are worked out at a time: a register tile of 16 by one panel
_TURNS = 8  # elements of h for each of the input, at most
_FETCHED = 64  # lines of the next block's weights that come while the cells of a block are worked out
_LEAST_STEPS = 2 * GROUP  # the first group has nothing to hide behind
_LEAST_BYTES = 128 * 1024  # recurrent weights that L1 holds need no company


def choose_ahead(kind: str, steps: int, rows: int, inputs: int, hidden: int, dtype: str, target: Target) -> Ahead | None:
    """How the input's product goes along, or None where it should be a product of its own."""
    gates = GATES[kind]
    if (rows, dtype, target.lanes(4)) != (1, "f32", 16) or target.registers < 32:
        return None  # other vectors leave no registers for a tile of the product
    if steps < _LEAST_STEPS or gates * hidden * hidden * 4 < _LEAST_BYTES or not inputs:
        return None
    for turns in (_TURNS, 4, 2, 1):
        depth = hidden // turns
        if -(-inputs // depth) * gates <= GROUP:  # parts of a panel: all units find a block within the group's steps
            return Ahead(inputs, depth, turns)
    return None


@emits("lstm_ahead")
@emits("gru_ahead")
@emits("rnn_ahead")
def emit_recurrent_ahead(fn: Fn, kernel: Kernel) -> None:
    """Groups of steps, then steps, then this thread's blocks."""
    _Emitter(fn, kernel).emit()


class _Emitter(RecurrentEmitter):
    """The steps of RecurrentEmitter with the product beside them."""

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        super().__init__(fn, kernel)
        assert self.p.ahead is not None and self.vectors == 1
        self.a = self.p.ahead
        self.w_ih, self.bias = self.first_state - 2, self.first_state - 1
        self.shares = len(kernel.operands) - 1
        self.width = self.p.blocks * self.panel  # floats of a step's shares
        self.parts = -(-self.a.inputs // self.a.depth)

    def emit(self) -> None:
        """begin is this thread's number and end that of all threads, scratch the context for the barrier."""
        fn, p, b = self.fn, self.p, self.fn.b
        nth, ctx = fn.args["end"], fn.args["scratch"]
        low, high = self.share(p.blocks)
        own = fn.isub(high, low)
        self.first_panel, self.panels = fn.imul(low, self.gates), fn.imul(own, self.gates)
        units = fn.imul(self.panels, self.parts)
        groups = -(-p.steps // GROUP)
        first, last = (p.steps - 1, 0) if p.reverse else (0, p.steps - 1)
        self.rest(fn.index(groups - 1 if p.reverse else 0), fn.index(0), fn.index(0), units)
        with fn.loop(0, groups, name="group") as number:
            group = fn.isub(groups - 1, number) if p.reverse else number
            following = fn.isub(group, 1) if p.reverse else fn.iadd(group, 1)
            parity = b.and_(number, fn.index(1))
            other = b.xor(parity, fn.index(1))
            todo = b.select(b.icmp_signed("<", number, fn.index(groups - 1)), units, fn.index(0))
            t0 = fn.imul(group, GROUP)
            count = fn.imin(fn.isub(p.steps, t0), GROUP)
            with fn.loop(0, count, name="step") as step:
                row = fn.isub(fn.isub(count, 1), step) if p.reverse else step
                t = self.t = fn.iadd(t0, row)
                is_first, is_last = (b.icmp_signed("==", t, fn.index(end)) for end in (first, last))
                now, h, c = self.states(t, is_first)
                shares = fn.at(self.pointer(self.shares), fn.imul(fn.iadd(fn.imul(parity, GROUP), row), self.width))
                # Back and forth over the weights: those used last are still in the cache when the next step begins.
                odd = b.trunc(step, BOOL)
                direction = b.select(odd, fn.index(-1), fn.index(1))
                done = fn.imul(step, own)
                with fn.loop(low, high, name="block") as i:
                    block = b.select(odd, fn.isub(fn.isub(fn.iadd(low, high), 1), i), i)
                    unit = fn.iadd(done, fn.isub(i, low))
                    with b.if_else(b.icmp_signed("<", unit, todo)) as (then, otherwise):
                        with then:
                            self.both(following, unit, other, shares, block, direction, h, c, now, is_last)
                        with otherwise:
                            self.tile(shares, block, fn.index(0), 1, h, c, now, is_last)
                if self.kernel.work > 1:
                    with fn.if_(b.not_(is_last)):
                        b.call(self.barrier(), [ctx, nth])
            self.rest(following, fn.imin(fn.imul(count, own), todo), other, todo)

    # -- the product ----------------------------------------------------------------------------------------------
    def rest(self, group: ir.Value, begin: ir.Value, parity: ir.Value, end: ir.Value) -> None:
        """Units that no block of a step took along."""
        fn = self.fn
        with fn.loop(begin, end, name="unit") as unit:
            x, w, out, bias, depth, is_first = self.unit_of(group, unit, parity)
            acc = self.product()
            with fn.loop(0, depth, name="k") as k:
                values = [v.get() for v in acc]
                self.rank_one(x, w, k, values, 0, GROUP)
                for var, value in zip(acc, values, strict=True):
                    var.set(value)
            self.leave(acc, out, bias, is_first)

    def unit_of(self, group: ir.Value, unit: ir.Value, parity: ir.Value) -> tuple[ir.Value, ...]:
        """Addresses of x, w, the shares and the bias; the depth; whether it is the first part of its panel."""
        fn, a, b = self.fn, self.a, self.fn.b
        part = b.udiv(unit, self.panels)
        panel = fn.iadd(self.first_panel, b.urem(unit, self.panels))
        k0 = fn.imul(part, a.depth)
        depth = fn.imin(fn.isub(a.inputs, k0), a.depth)
        x = fn.at(self.pointer(0), fn.imul(fn.iadd(fn.imul(group, a.inputs), k0), GROUP))
        before = fn.imul(k0, self.p.blocks * self.gates)
        w = fn.at(self.pointer(self.w_ih), fn.imul(fn.iadd(before, fn.imul(panel, depth)), 16))
        out = fn.at(self.pointer(self.shares), fn.iadd(fn.imul(parity, GROUP * self.width), fn.imul(panel, 16)))
        bias = fn.at(self.pointer(self.bias), fn.imul(panel, 16))
        return x, w, out, bias, depth, b.icmp_signed("==", part, fn.index(0))

    def product(self) -> list[Var]:
        zero = self.math.const(0.0, "f32", 16).ir
        return [self.fn.var(zero.type, zero) for _ in range(GROUP)]

    def rank_one(self, x: ir.Value, w: ir.Value, k: ir.Value, sums: list[ir.Value], begin: int, end: int) -> None:
        """sums[begin:end] += x[k, begin:end] w[k]."""
        fn, at = self.fn, self.fn.imul(k, 16)
        weights = fn.load(fn.at(w, at), "f32", 16)
        for r in range(begin, end):
            value = fn.splat(fn.load(fn.at(x, fn.iadd(at, r))), 16)
            sums[r] = fn.fma(value, weights, Val(sums[r], "f32", 16)).ir

    def leave(self, acc: list[Var], out: ir.Value, bias: ir.Value, is_first: ir.Value) -> None:
        """Add to what the parts before left there; the first part adds to the bias."""
        fn, b = self.fn, self.fn.b
        for r, var in enumerate(acc):
            at = fn.at(out, r * self.width)
            before = fn.load(b.select(is_first, bias, at), "f32", 16)
            fn.store(Val(b.fadd(before.ir, var.get()), "f32", 16), at)

    # -- both -----------------------------------------------------------------------------------------------------
    def both(self, group: ir.Value, unit: ir.Value, parity: ir.Value, shares: ir.Value, block: ir.Value,
             direction: ir.Value, h: State, c: State, y: ir.Value, is_last: ir.Value) -> None:  # fmt: skip
        """A block of units, and one unit of the product for the next group."""
        fn, p, turns = self.fn, self.p, self.a.turns
        x, w, out, bias, depth, is_first = self.unit_of(group, unit, parity)
        product, weights, sums = self.product(), self.weights(block), self.sums(1)
        flat = [var for vector in sums[0] for var in vector]
        each = GROUP // turns
        with fn.loop(0, depth, name="k") as k:
            values, new = [v.get() for v in product], [v.get() for v in flat]
            at = fn.imul(k, turns)
            line = fn.at(weights, fn.imul(at, self.panel))
            for turn in range(turns):
                xv = fn.splat(fn.load(fn.at(h[0], fn.iadd(at, turn))), 16)
                for g in range(self.gates):
                    s = g * self.unit.sets + turn % self.unit.sets
                    wv = fn.load(fn.at(line, turn * self.panel + g * 16), "f32", 16)
                    new[s] = fn.fma(xv, wv, Val(new[s], "f32", 16)).ir
                self.rank_one(x, w, k, values, turn * each, (turn + 1) * each)
            for var, value in zip([*product, *flat], [*values, *new], strict=True):
                var.set(value)
        start = fn.imul(depth, turns)
        whole = fn.iadd(start, fn.b.and_(fn.isub(p.hidden, start), fn.index(-turns)))
        with fn.loop(start, whole, turns, name="k") as k:
            self.multiply([h[0]], weights, k, turns, sums)
        with fn.loop(whole, p.hidden, name="k") as k:
            self.multiply([h[0]], weights, k, 1, sums)
        following = self.weights(fn.iadd(block, direction))  # or nothing of ours: then it is only asked for in vain
        for i in range(_FETCHED):
            fn.prefetch(fn.at(following, 16 * i))
        self.leave(product, out, bias, is_first)
        self.finish(sums, shares, self.width, block, fn.index(0), h, c, y, is_last)

