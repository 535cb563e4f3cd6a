"""Recurrent layers over a whole sequence in one call: LSTM, GRU, Elman.

The input's share of the gates comes ready made (one matrix product over all steps). What is left is h U^T step by step.
Units go in blocks, and the gates of a block's units lie side by side in the weights, so whoever sums a block up also
has everything its cell update needs. Threads share the blocks and meet once a step: only h passes between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import I32, I64, PTR, VOID, Fn, Val, Var, register_type
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.base import emits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.targets.base import Target

__all__ = ["GATES", "STEP_NS", "UNROLL", "Ahead", "RecurrentEmitter", "RecurrentParams", "Units", "choose_units", "make_recurrent"]

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
_STATES = {"lstm": 2, "gru": 1, "rnn": 1}
UNROLL = 4  # elements of h per turn of the innermost loop
STEP_NS = 4000.0  # a time step shorter than this is not worth a meeting of the threads


@dataclass(frozen=True, slots=True)
class Units:
    """How units and rows are tiled: `block` units side by side, `rows` rows of the batch at a time."""

    block: int
    lanes: int
    rows: int
    sets: int  # independent partial sums, where one would leave the FMA pipelines waiting for it


@dataclass(frozen=True, slots=True)
class Ahead:
    """The input's shares are worked out here too, some steps ahead of their use (see `recurrent_ahead`)."""

    inputs: int  # depth of the input product
    depth: int  # elements of it that go with one block of units
    turns: int  # elements of h for each of them


@dataclass(frozen=True, slots=True)
class RecurrentParams:
    """Operands: shares[T, N, gates by blocks], w[blocks][H][gate][unit], (gru: b_hh by blocks), h0, (lstm: c0);
    then the outputs y[T, N, H], h, (lstm: c). The last axis of each is dense."""

    steps: int
    rows: int
    hidden: int
    units: Units
    reverse: bool
    activation: str  # of rnn
    dtype: str
    ahead: Ahead | None = None

    @property
    def blocks(self) -> int:
        return -(-self.hidden // self.units.block)

    def __str__(self) -> str:
        return f"T={self.steps} N={self.rows} H={self.hidden} {self.units}{' reverse' if self.reverse else ''}"


def choose_units(kind: str, rows: int, dtype: str, target: Target) -> Units:
    """The register tile: sums of `rows` x gates x block units, two values to multiply, and the weights in passing."""
    gates, lanes = GATES[kind], target.lanes(itemsize(dtype))
    if rows <= 1:
        vectors, tile = max(1, 64 // (lanes * itemsize(dtype))), 1
    else:
        vectors = 1 if gates > 1 else 2
        most = 1
        while most < 8 and _registers(most + 1, gates * vectors) <= target.registers:
            most += 1
        tile = -(-rows // -(-rows // most))
    sets, sums = 1, tile * gates * vectors
    while sets < UNROLL and sums * sets < 8 and sums * sets * 2 <= target.registers - 4:
        sets *= 2
    return Units(vectors * lanes, lanes, tile, sets)


def _registers(rows: int, vectors: int) -> int:
    return rows * vectors + min(rows, vectors) + 1


def make_recurrent(kind: str, inputs: Sequence[Operand], outputs: Sequence[Operand], units: Units, target: Target, *,
                   reverse: bool = False, activation: str = "tanh", ahead: Ahead | None = None) -> Kernel:  # fmt: skip
    """The kernel of kind "lstm", "gru" or "rnn"; operands as RecurrentParams or `recurrent_ahead` has them."""
    y = outputs[0]
    steps, rows, hidden = y.shape
    params = RecurrentParams(steps, rows, hidden, units, reverse, activation, y.dtype, ahead)
    every = [*inputs, *outputs]
    assert all(o.strides[-1] == 1 or o.shape[-1] == 1 for o in every), "the last axis of every operand must be dense"
    weight_bytes = GATES[kind] * hidden * hidden * itemsize(y.dtype)
    multiplied = max(rows * weight_bytes / itemsize(y.dtype) / 30, weight_bytes / (70 if weight_bytes < target.l2 else 25))
    if ahead is not None:
        multiplied *= 1.3
    step = 100 + multiplied + rows * hidden * GATES[kind] * 20 / units.lanes / 6
    work = params.blocks if step > STEP_NS else 1
    kind = kind if ahead is None else f"{kind}_ahead"
    return Kernel(kind, params, tuple(every), len(outputs), work, step * steps, cooperative=True)


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
        self.panel = self.gates * self.unit.block  # weights of a block for one element of h
        states = _STATES[self.kind]
        inputs = len(kernel.operands) - kernel.outputs
        self.first_state = inputs - states
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
        ith, nth, ctx = fn.args["begin"], fn.args["end"], fn.args["scratch"]
        low = b.udiv(fn.imul(ith, p.blocks), nth)
        high = b.udiv(fn.imul(fn.iadd(ith, 1), p.blocks), nth)
        with fn.loop(0, p.steps, name="step") as step:
            t = fn.isub(p.steps - 1, step) if p.reverse else step
            is_first = b.icmp_signed("==", step, fn.index(0))
            is_last = b.icmp_signed("==", step, fn.index(p.steps - 1))
            now, h, c = self.states(t, is_first)
            shares = fn.at(self.pointer(0), fn.imul(t, self.operand(0).strides[0]), p.dtype)
            # Back and forth over the weights: those used last are still in the cache when the next step begins.
            odd = b.trunc(step, ir.IntType(1))
            with fn.loop(low, high, name="block") as i:
                block = b.select(odd, fn.isub(fn.isub(fn.iadd(low, high), 1), i), i)
                self.rows(lambda row, n, block=block: self.tile(shares, block, row, n, h, c, now, is_last))
            if self.kernel.work > 1:
                with fn.if_(b.not_(is_last)):
                    b.call(self.barrier(), [ctx, nth])

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
        acc = self.sums(rows)
        hs = [fn.at(h[0], fn.imul(fn.iadd(row, r), h[1]), p.dtype) for r in range(rows)]
        whole = p.hidden - p.hidden % UNROLL
        if whole:
            with fn.loop(0, whole, UNROLL, name="k") as k:
                self.multiply(hs, weights, k, UNROLL, acc)
        if whole < p.hidden:
            self.multiply(hs, weights, fn.index(whole), p.hidden - whole, acc)
        self.finish(acc, shares, self.operand(0).strides[1], block, row, h, c, y, is_last)

    def weights(self, block: ir.Value) -> ir.Value:
        return self.fn.at(self.pointer(1), self.fn.imul(block, self.p.hidden * self.panel), self.p.dtype)

    def sums(self, rows: int) -> list[list[list[Var]]]:
        """Zeros, per row, vector of the block's gates, and set."""
        zero = self.math.const(0.0, self.p.dtype, self.unit.lanes).ir
        width = self.gates * self.vectors
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
                 acc: list[list[list[Var]]]) -> None:  # fmt: skip
        """acc += h[k : k + depth] * weights."""
        fn, dtype, lanes = self.fn, self.p.dtype, self.unit.lanes
        w = fn.at(weights, fn.imul(k, self.panel), dtype)
        sums = [[[s.get() for s in vector] for vector in row] for row in acc]
        for d in range(depth):
            x = [fn.splat(fn.load(fn.at(h, fn.iadd(k, d), dtype), dtype), lanes) for h in hs]
            for j in range(len(sums[0])):
                wv = fn.load(fn.at(w, d * self.panel + j * lanes, dtype), dtype, lanes)
                for r, xv in enumerate(x):
                    s = d % self.unit.sets
                    sums[r][j][s] = fn.fma(xv, wv, Val(sums[r][j][s], dtype, lanes)).ir
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
        mask = self.mask(unit)

        def old(state: State) -> Val:
            return self.load(fn.at(state[0], fn.iadd(fn.imul(n, state[1]), unit), self.p.dtype), mask)

        def new(j: int) -> ir.Value:
            return fn.at(self.pointer(j), fn.iadd(fn.imul(n, self.operand(j).strides[0]), unit), self.p.dtype)

        if kind == "lstm":
            i, f, g, o = (m.add(a, b) for a, b in zip(sums, shares, strict=True))
            cell = m.fma(m.sigmoid(f), old(c), m.mul(m.sigmoid(i), m.tanh(g)))
            self.store(cell, new(self.final + 1), mask)
            out = m.mul(m.sigmoid(o), m.tanh(cell))
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
        self.store(out, fn.at(y, fn.iadd(fn.imul(n, self.operand(self.y).strides[1]), unit), self.p.dtype), mask)
        with fn.if_(is_last):
            self.store(out, new(self.final), mask)

    def mask(self, unit: ir.Value) -> ir.Value | None:
        """Which lanes of the vector that begins at `unit` are units at all; None: all."""
        if self.p.hidden % self.unit.block == 0:
            return None
        b, lanes = self.fn.b, self.unit.lanes
        left = self.fn.splat(Val(b.trunc(self.fn.isub(self.p.hidden, unit), I32), "i32"), lanes)
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
