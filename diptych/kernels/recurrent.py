"""Recurrent layers over a whole sequence in one call: LSTM, GRU, Elman.

The input's share of the gates comes ready made (one matrix product over all steps). What is left is h U^T step by step.
Units go in blocks, and the gates of a block's units lie side by side in the weights, so whoever sums a block up also
has everything its cell update needs. Threads share the blocks and meet once a step: only h passes between them.
With a projection they meet twice: the cells' outputs of all units come first, then h is a product of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import I32, I64, PTR, VOID, Fn, Val, Var, register_type
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.base import emits
from diptych.kernels.recurrent_params import RecurrentParams
from diptych.kernels.recurrent_units import GATES, UNROLL

if TYPE_CHECKING:

    pass

__all__ = ["RecurrentEmitter"]

_STATES = {"lstm": 2, "gru": 1, "rnn": 1}
_FETCHED = 512  # elements ahead: weights that no L2 holds are asked for, since the hardware stops at every page


@emits("lstm")
@emits("gru")
@emits("rnn")
def emit_recurrent(fn: Fn, kernel: Kernel) -> None:
    """Time steps, then this thread's blocks, then rows."""
    RecurrentEmitter(fn, kernel).emit()


State = tuple[ir.Value, ir.Value]  # address, row stride


class RecurrentEmitter:
    """Writes one layer; holds what its parts share."""

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn, self.kernel, self.math = fn, kernel, Math(fn)
        self.p: RecurrentParams = kernel.params
        self.kind = kernel.kind.removesuffix("_ahead")
        self.gates = GATES[self.kind]
        self.unit = self.p.units
        self.vectors = self.unit.block // self.unit.lanes
        self.panel = self.gates * self.unit.block  # shares of a block; also its weights for one element of h, over all passes
        self.units = self.p.hidden  # how many there are to mask by
        self.t: ir.Value = fn.index(0)  # of the step that is being written
        states = _STATES[self.kind]
        inputs = len(kernel.operands) - kernel.outputs
        self.lengths = inputs - 1  # where the params are ragged
        self.first_state = inputs - states - self.p.ragged
        self.y, self.final = inputs, inputs + 1
        # Threads read what others wrote into y: pointers that LLVM believes to be nobody else's would let it move
        # such a read across the barrier.
        for arg in fn.function.args:
            arg.attributes.discard("noalias")

    def pointer(self, j: int) -> ir.Value:
        return self.fn.args[f"p{j}"]

    def operand(self, j: int) -> Operand:
        return self.kernel.operands[j]

    # -- loops ----------------------------------------------------------------------------------------------------
    def emit(self) -> None:
        """begin is this thread's number and end that of all threads, scratch the context for the barrier."""
        fn, p, b = self.fn, self.p, self.fn.b
        nth, ctx = fn.args["end"], fn.args["scratch"]
        low, high = self.share(p.blocks)
        projection = None if p.projection is None else _Projection(fn, self.kernel)
        with fn.loop(0, p.steps, name="step") as step:
            t = fn.isub(p.steps - 1, step) if p.reverse else step
            self.t = t
            is_first = b.icmp_signed("==", step, fn.index(0))
            is_last = b.icmp_signed("==", step, fn.index(p.steps - 1))
            now, h, c = self.states(t, is_first)
            shares = fn.at(self.pointer(0), fn.imul(t, self.operand(0).strides[0]), p.dtype)
            # Back and forth over the weights: those used last are still in the cache when the next step begins.
            odd = b.trunc(step, ir.IntType(1))
            with fn.loop(low, high, name="block") as i:
                block = b.select(odd, fn.isub(fn.isub(fn.iadd(low, high), 1), i), i)
                self.rows(lambda row, n, block=block: self.tile(shares, block, row, n, h, c, now, is_last))
            if projection is not None:
                if self.kernel.work > 1:
                    b.call(self.barrier(), [ctx, nth])
                projection.step(t, h, now, is_last)
            if self.kernel.work > 1:
                with fn.if_(b.not_(is_last)):
                    b.call(self.barrier(), [ctx, nth])

    def share(self, blocks: int) -> tuple[ir.Value, ir.Value]:
        """This thread's blocks, from the first to before the last."""
        fn, b = self.fn, self.fn.b
        ith, nth = fn.args["begin"], fn.args["end"]
        return b.udiv(fn.imul(ith, blocks), nth), b.udiv(fn.imul(fn.iadd(ith, 1), blocks), nth)

    def states(self, t: ir.Value, is_first: ir.Value) -> tuple[ir.Value, State, State]:
        """Where the state of step t goes, and where those before it lie."""
        fn, p, y = self.fn, self.p, self.operand(self.y)
        now = fn.at(self.pointer(self.y), fn.imul(t, y.strides[0]), p.dtype)
        before = fn.at(now, y.strides[0] if p.reverse else -y.strides[0], p.dtype)
        h = self.chosen(is_first, self.first_state, before, y.strides[1])
        if self.kind != "lstm":
            return now, h, h
        o = self.operand(self.final + 1)
        return now, h, self.chosen(is_first, self.first_state + 1, self.pointer(self.final + 1), o.strides[0])

    def chosen(self, is_first: ir.Value, start: int, later: ir.Value, stride: int) -> State:
        """(address, row stride) of a state: as given at the first step, then where the step before left it."""
        b, fn = self.fn.b, self.fn
        given = self.operand(start).strides[0]
        return (
            b.select(is_first, self.pointer(start), later),
            fn.index(stride) if given == stride else b.select(is_first, fn.index(given), fn.index(stride)),
        )

    def barrier(self) -> ir.Function:
        name = "diptych_barrier"
        found = self.fn.module.globals.get(name)
        return found if found is not None else ir.Function(self.fn.module, ir.FunctionType(VOID, [PTR, I64]), name)

    def rows(self, body) -> None:  # type: ignore[no-untyped-def]
        """Call body(first row, how many) over the batch, in tiles and one smaller tile."""
        fn, size = self.fn, self.unit.rows
        whole = self.p.rows - self.p.rows % size
        if whole == size:
            body(fn.index(0), size)
        else:
            with fn.loop(0, whole, size, name="row") as row:
                body(row, size)
        if whole < self.p.rows:
            body(fn.index(whole), self.p.rows - whole)

    # -- one tile -------------------------------------------------------------------------------------------------
    def tile(self, shares: ir.Value, block: ir.Value, row: ir.Value, rows: int, h: State,
             c: State, y: ir.Value, is_last: ir.Value) -> None:  # fmt: skip
        """Sums of `rows` rows by one block of units, and their cells' update."""
        fn, p = self.fn, self.p
        weights = self.weights(block)
        hs = [fn.at(h[0], fn.imul(fn.iadd(row, r), h[1]), p.dtype) for r in range(rows)]
        panel = self.panel // self.unit.passes
        acc: list[list[list[Var]]] = [[] for _ in range(rows)]
        for i in range(self.unit.passes):
            part = self.sums(rows)
            self.over(hs, fn.at(weights, i * p.depth * panel, p.dtype), p.depth, part, panel)
            for every, some in zip(acc, part, strict=True):
                every += some
        self.finish(acc, shares, self.operand(0).strides[1], block, row, h, c, y, is_last)

    def over(self, hs: list[ir.Value], weights: ir.Value, depth: int, acc: list[list[list[Var]]], panel: int) -> None:
        """acc += h times the weights, over a whole depth."""
        whole = depth - depth % UNROLL
        if whole:
            with self.fn.loop(0, whole, UNROLL, name="k") as k:
                if self.p.streamed:
                    start = self.fn.imul(k, panel)
                    for i in range(0, UNROLL * panel, 64 // itemsize(self.p.dtype)):
                        self.fn.prefetch(self.fn.at(weights, self.fn.iadd(start, _FETCHED + i), self.p.dtype))
                self.multiply(hs, weights, k, UNROLL, acc, panel)
        if whole < depth:
            self.multiply(hs, weights, self.fn.index(whole), depth - whole, acc, panel)

    def weights(self, block: ir.Value) -> ir.Value:
        return self.fn.at(self.pointer(1), self.fn.imul(block, self.p.depth * self.panel), self.p.dtype)

    def sums(self, rows: int) -> list[list[list[Var]]]:
        """Zeros, per row, vector of the gates that a pass sums up, and set."""
        zero = self.math.const(0.0, self.p.dtype, self.unit.lanes).ir
        width = self.gates * self.vectors // self.unit.passes
        return [[[self.fn.var(zero.type, zero) for _ in range(self.unit.sets)] for _ in range(width)] for _ in range(rows)]

    def finish(self, acc: list[list[list[Var]]], shares: ir.Value, share_row: int, block: ir.Value, row: ir.Value,
               h: State, c: State, y: ir.Value, is_last: ir.Value) -> None:  # fmt: skip
        """The cells of a block, from the sums of its gates."""
        fn, p = self.fn, self.p
        start = fn.imul(block, self.unit.block)
        for r in range(len(acc)):
            n = fn.iadd(row, r)
            share = fn.iadd(fn.imul(n, share_row), fn.imul(block, self.panel))
            for v in range(self.vectors):
                sums = [self.total(acc[r][g * self.vectors + v]) for g in range(self.gates)]
                at = [fn.iadd(share, g * self.unit.block + v * self.unit.lanes) for g in range(self.gates)]
                given = [fn.load(fn.at(shares, i, p.dtype), p.dtype, self.unit.lanes) for i in at]
                self.cell(sums, given, block, fn.iadd(start, v * self.unit.lanes), v, n, h, c, y, is_last)

    def multiply(self, hs: list[ir.Value], weights: ir.Value, k: ir.Value, depth: int,
                 acc: list[list[list[Var]]], panel: int | None = None) -> None:  # fmt: skip
        """acc += h[k : k + depth] * weights; panel: weights for one element of h."""
        fn, dtype, lanes = self.fn, self.p.dtype, self.unit.lanes
        panel = self.panel if panel is None else panel
        w = fn.at(weights, fn.imul(k, panel), dtype)
        sums = [[[s.get() for s in vector] for vector in row] for row in acc]
        for d in range(depth):
            xs = [fn.at(h, fn.iadd(k, d), dtype) for h in hs]
            ws = [fn.at(w, d * panel + j * lanes, dtype) for j in range(len(sums[0]))]
            s = d % self.unit.sets
            # Those of which there are fewer stay in registers, the others pass by: a full tile has no room for both.
            if len(ws) < len(xs):
                kept = [fn.load(a, dtype, lanes) for a in ws]
                for r, a in enumerate(xs):
                    passing = fn.splat(fn.load(a, dtype), lanes)
                    for j, v in enumerate(kept):
                        sums[r][j][s] = fn.fma(passing, v, Val(sums[r][j][s], dtype, lanes)).ir
            else:
                kept = [fn.splat(fn.load(a, dtype), lanes) for a in xs]
                for j, a in enumerate(ws):
                    passing = fn.load(a, dtype, lanes)
                    for r, v in enumerate(kept):
                        sums[r][j][s] = fn.fma(v, passing, Val(sums[r][j][s], dtype, lanes)).ir
        for row, new_row in zip(acc, sums, strict=True):
            for vector, new_vector in zip(row, new_row, strict=True):
                for var, value in zip(vector, new_vector, strict=True):
                    var.set(value)

    def total(self, partial: list[Var]) -> Val:
        """The sum of the partial sums, pairwise."""
        values = [Val(v.get(), self.p.dtype, self.unit.lanes) for v in partial]
        while len(values) > 1:
            values = [self.math.add(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
        return values[0]

    # -- the cells ------------------------------------------------------------------------------------------------
    def cell(self, sums: list[Val], shares: list[Val], block: ir.Value, unit: ir.Value, v: int, n: ir.Value,
             h: State, c: State, y: ir.Value, is_last: ir.Value) -> None:  # fmt: skip
        """The new state of one vector of units of row `n`."""
        fn, m, kind = self.fn, self.math, self.kind
        mask, live = self.mask(unit), self.live(n)

        def old(state: State) -> Val:
            return self.load(fn.at(state[0], fn.iadd(fn.imul(n, state[1]), unit), self.p.dtype), mask)

        def new(j: int) -> ir.Value:
            return fn.at(self.pointer(j), fn.iadd(fn.imul(n, self.operand(j).strides[0]), unit), self.p.dtype)

        if kind == "lstm":
            i, f, g, o = (m.add(a, b) for a, b in zip(sums, shares, strict=True))
            before = old(c)
            cell = self.clipped(m.fma(m.sigmoid(f), before, m.mul(m.sigmoid(i), m.tanh(g))))
            self.store(self.kept(live, cell, before), new(self.final + 1), mask)
            out = m.mul(m.sigmoid(o), m.tanh(cell))
            if self.p.projection is not None:
                self.store(out, new(self.final + 2), mask)
                return
        elif kind == "gru":
            lanes = self.unit.lanes
            bias = [fn.iadd(fn.imul(block, self.panel), g * self.unit.block + v * lanes) for g in range(3)]
            hr, hz, hn = (
                m.add(s, fn.load(fn.at(self.pointer(2), i, self.p.dtype), self.p.dtype, lanes))
                for s, i in zip(sums, bias, strict=True)
            )
            xr, xz, xn = shares
            z = m.sigmoid(m.add(xz, hz))
            fresh = m.tanh(m.fma(m.sigmoid(m.add(xr, hr)), hn, xn))
            out = m.fma(z, old(h), m.mul(m.sub(m.like(1, z), z), fresh))
        else:
            total = m.add(sums[0], shares[0])
            out = m.tanh(total) if self.p.activation == "tanh" else m.relu(total)
        if live is not None:
            out = self.kept(live, out, old(h))
        self.store(out, fn.at(y, fn.iadd(fn.imul(n, self.operand(self.y).strides[1]), unit), self.p.dtype), mask)
        with fn.if_(is_last):
            self.store(out, new(self.final), mask)

    def clipped(self, cell: Val) -> Val:
        """The cells' state within its limits."""
        if self.p.clip is None:
            return cell
        m = self.math
        low, high = (m.like(limit, cell) for limit in self.p.clip)
        within = m.min(m.max(cell, low), high)
        if not self.p.clip_nan:
            return within
        number = self.fn.b.fcmp_ordered("ord", cell.ir, cell.ir)
        return Val(self.fn.b.select(number, within.ir, low.ir), cell.dtype, cell.lanes)

    def live(self, n: ir.Value) -> ir.Value | None:
        """Whether the step lies within row n; None where all rows are of one length."""
        if not self.p.ragged:
            return None
        length = self.fn.load(self.fn.at(self.pointer(self.lengths), n, "i64"), "i64")
        return self.fn.b.icmp_signed("<", self.t, length.ir)

    def kept(self, live: ir.Value | None, new: Val, old: Val) -> Val:
        """The new state within the row, what it was past its end."""
        return new if live is None else Val(self.fn.b.select(live, new.ir, old.ir), new.dtype, new.lanes)

    def mask(self, unit: ir.Value) -> ir.Value | None:
        """Which lanes of the vector that begins at `unit` are units at all; None: all."""
        if self.units % self.unit.block == 0:
            return None
        b, lanes = self.fn.b, self.unit.lanes
        left = self.fn.splat(Val(b.trunc(self.fn.isub(self.units, unit), I32), "i32"), lanes)
        return b.icmp_signed("<", ir.Constant(register_type("i32", lanes), list(range(lanes))), left.ir)

    def load(self, address: ir.Value, mask: ir.Value | None) -> Val:
        dtype, lanes = self.p.dtype, self.unit.lanes
        if mask is None:
            return self.fn.load(address, dtype, lanes)
        t = register_type(dtype, lanes)
        args = [address, ir.Constant(I32, itemsize(dtype)), mask, self.math.const(0.0, dtype, lanes).ir]
        return Val(self.fn.intrinsic(f"llvm.masked.load.v{lanes}{dtype}.p0", t, args), dtype, lanes)

    def store(self, value: Val, address: ir.Value, mask: ir.Value | None) -> None:
        if mask is None:
            self.fn.store(value, address)
            return
        args = [value.ir, address, ir.Constant(I32, itemsize(value.dtype)), mask]
        self.fn.intrinsic(f"llvm.masked.store.v{value.lanes}{value.dtype}.p0", VOID, args)


class _Projection(RecurrentEmitter):
    """The second half of a step: h as a product of the cells' outputs."""

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        super().__init__(fn, kernel)
        assert self.p.projection is not None
        self.unit, self.gates, self.units = self.p.projection, 1, self.p.width
        self.vectors = self.unit.block // self.unit.lanes
        self.panel = self.unit.block
        self.matrix = self.first_state - 1

    def step(self, t: ir.Value, h: State, y: ir.Value, is_last: ir.Value) -> None:
        """This thread's blocks of the new h, into y and after the last step also where the final state goes."""
        fn, p = self.fn, self.p
        self.t = t
        cells = self.operand(self.final + 2)
        low, high = self.share(-(-p.width // self.unit.block))

        def tile(block: ir.Value, row: ir.Value, rows: int) -> None:
            weights = fn.at(self.pointer(self.matrix), fn.imul(block, p.hidden * self.panel), p.dtype)
            acc = self.sums(rows)
            outs = [fn.at(self.pointer(self.final + 2), fn.imul(fn.iadd(row, r), cells.strides[0]), p.dtype) for r in range(rows)]
            self.over(outs, weights, p.hidden, acc, self.panel)
            for r in range(rows):
                n = fn.iadd(row, r)
                live = self.live(n)
                for v in range(self.vectors):
                    unit = fn.iadd(fn.imul(block, self.unit.block), v * self.unit.lanes)
                    mask, new = self.mask(unit), self.total(acc[r][v])
                    if live is not None:
                        new = self.kept(live, new, self.load(fn.at(h[0], fn.iadd(fn.imul(n, h[1]), unit), p.dtype), mask))
                    self.store(new, fn.at(y, fn.iadd(fn.imul(n, self.operand(self.y).strides[1]), unit), p.dtype), mask)
                    with fn.if_(is_last):
                        final = fn.iadd(fn.imul(n, self.operand(self.final).strides[0]), unit)
                        self.store(new, fn.at(self.pointer(self.final), final, p.dtype), mask)

        with fn.loop(low, high, name="block") as block:
            self.rows(lambda row, n: tile(block, row, n))
