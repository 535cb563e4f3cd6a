"""What attention kernels are put together from: packed panels of keys and values, and the softmax of rows of scores."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import I32, Val, register_type
from diptych.kernels.access import fold_lanes, keep_lanes, load_lanes, shuffle, transpose_lanes
from diptych.kernels.base import evaluate
from diptych.kernels.tiling import PANEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.codegen.builder import Fn, Index
    from diptych.codegen.math import Math
    from diptych.ir.kernel import Expr, Operand

__all__ = ["Masking", "RowSoftmax", "fold_rows", "pack_panel"]


def pack_panel(fn: Fn, source: ir.Value, out: ir.Value, lane: int, step: int, depth: Index, count: int, lanes: int) -> None:
    """out[k][i] = source[i * lane + k * step] for 16 lanes i and k < depth; lanes from `count` on become 0.

    Where k runs along memory, squares of lanes by k are transposed in registers.
    """
    zero = fn.const(0.0, "f32", lanes)
    begin: Index = 0
    if step == 1 and lane != 1 and lanes > 1:
        begin = depth - depth % lanes if isinstance(depth, int) else fn.imul(fn.idiv(depth, lanes), lanes)
        with fn.loop(0, begin, lanes, name="square") as k:
            for first in range(0, PANEL, lanes):
                there = max(0, min(lanes, count - first))
                rows = [fn.load(fn.at(source, fn.iadd(k, (first + i) * lane)), "f32", lanes) for i in range(there)]
                rows += [zero] * (lanes - there)
                for i, row in enumerate(transpose_lanes(fn, rows) if there else rows):
                    fn.store(row, fn.at(out, fn.iadd(fn.imul(fn.iadd(k, i), PANEL), first)))
    if not isinstance(depth, int) or not begin or depth % lanes:
        with fn.loop(begin, depth, name="line") as k:
            for first in range(0, PANEL, lanes):
                there, row = max(0, min(lanes, count - first)), zero
                if there:
                    at = fn.iadd(fn.imul(k, step), first * lane)
                    row = keep_lanes(fn, load_lanes(fn, source, at, lane, "f32", lanes, there), there, zero)
                fn.store(row, fn.at(out, fn.iadd(fn.imul(k, PANEL), first)))


@dataclass(frozen=True, slots=True)
class _Here:
    """A corner of the scores: where the mask's operands have it, its query, its key."""

    masks: list[Index]
    row: Index
    key: Index


@dataclass(slots=True)
class Masking:
    """What is done to scores before the softmax: `expr` of the mask's operands (p3, p4 ...; over [B,H,G,S,T]) is added, and
    keys that do not exist or, with `causal`, come after the query (its number plus `causal`) get -inf."""

    fn: Fn
    math: Math
    lanes: int
    operands: Sequence[Operand]
    expr: Expr | None
    causal: int | None

    def at(self, where: Sequence[Index], row: Index, key: Index) -> _Here:
        """The corner that `apply` counts from; `where` is (batch, key head, query head)."""
        fn = self.fn
        masks: list[Index] = [fn.iadd(fn.dot(where, o.strides[:3]), fn.dot([row, key], o.strides[3:])) for o in self.operands]
        return _Here(masks, row, key)

    def apply(self, x: Val, here: _Here, row: int, offset: int, there: int) -> Val:
        """A vector of scores `row` queries and `offset` keys from the corner, of whose lanes `there` are keys."""
        fn, m, lanes = self.fn, self.math, self.lanes
        nothing = fn.const(-inf, "f32", lanes)
        if not there:
            return nothing
        if self.expr is not None:
            values = []
            for j, (base, o) in enumerate(zip(here.masks, self.operands, strict=True)):
                at = fn.iadd(base, row * o.strides[3] + offset * o.strides[4])
                values.append(load_lanes(fn, fn.args[f"p{3 + j}"], at, o.strides[4], o.dtype, lanes, there))
            x = m.add(x, fn.splat(evaluate(m, self.expr, values)[0], lanes))
        if self.causal is not None:
            # lane + key + offset <= query + row + causal
            limit = fn.isub(fn.iadd(here.row, row + self.causal - offset), here.key)
            numbers = Val(ir.Constant(register_type("i32", lanes), list(range(lanes))), "i32", lanes)
            seen = m.cmp("le", numbers, fn.splat(Val(fn.b.trunc(limit, I32), "i32"), lanes))
            x = m.select(seen, x, nothing)
        return keep_lanes(fn, x, there, nothing)


@dataclass(slots=True)
class RowSoftmax:
    """Rows of scores become weights, that is exponentials not yet divided by their sum.

    What there is one of for each row lies in vectors, a lane a row: `slots` floats. `factors` gets what a row's earlier
    results must be multiplied by, or for rows that come whole the reciprocals of their sums. `state` is where rows that
    come in parts keep their largest score and, `slots` floats further, the sum so far.
    """

    fn: Fn
    math: Math
    lanes: int
    most: int  # rows at a time at most
    zeros: bool  # a row of nothing but -inf has the result 0, else NaN

    @property
    def slots(self) -> int:
        """Floats for one figure of each row."""
        return -(-self.most // self.lanes) * self.lanes

    @staticmethod
    def space(rows: int, lanes: int) -> int:
        """Floats of scratch that `rows` needs."""
        return lanes + lanes * min(lanes, rows)

    def start(self, state: ir.Value) -> None:
        """No score seen yet."""
        for i in range(0, self.slots, self.lanes):
            self.fn.store(self.fn.const(-inf, "f32", self.lanes), self.fn.at(state, i))
            self.fn.store(self.fn.const(0.0, "f32", self.lanes), self.fn.at(state, self.slots + i))

    def rows(self, scores: ir.Value, step: int, rows: int, vectors: Index, space: ir.Value, factors: ir.Value,
             state: ir.Value | None) -> None:  # fmt: skip
        """Rows of `vectors` whole vectors, one every `step` floats; what lies past their ends is -inf."""
        for first in range(0, rows, self.lanes):
            n = min(self.lanes, rows - first)
            own = self.fn.at(state, first) if state is not None else None
            self._vector(self.fn.at(scores, first * step), step, n, vectors, space, self.fn.at(factors, first), own)

    def _vector(self, scores: ir.Value, step: int, n: int, vectors: Index, space: ir.Value, factors: ir.Value,
                state: ir.Value | None) -> None:  # fmt: skip
        """As many rows as lanes, or the `n` last ones."""
        fn, m, lanes = self.fn, self.math, self.lanes
        lowest, zero = fn.const(-inf, "f32", lanes), fn.const(0.0, "f32", lanes)
        best = [fn.var("f32", lowest.ir, lanes) for _ in range(n)]

        def compare(at: Index) -> None:
            for i, var in enumerate(best):
                x = fn.load(fn.at(scores, fn.iadd(at, i * step)), "f32", lanes)
                var.set(m.limit_max(Val(var.get(), "f32", lanes), x).ir)  # may lose a NaN, which the sum finds again

        self._over(vectors, 1 if n > 1 else 4, compare)
        top = self._joined([Val(v.get(), "f32", lanes) for v in best], lowest, m.limit_max)
        before = None
        if state is not None:
            before = fn.load(state, "f32", lanes)
            top = m.limit_max(top, before)
        # a row of nothing but -inf: all its weights are to be 0, not exp(-inf + inf)
        shift = m.select(m.cmp("eq", top, lowest), zero, top)
        fn.store(shift, space)
        with fn.loop(0, n, name="row") as i:
            self._weigh(fn.at(scores, fn.imul(i, step)), vectors, fn.at(space, i), fn.at(space, fn.imul(fn.iadd(i, 1), lanes)))
        total = self._joined([fn.load(fn.at(space, (i + 1) * lanes), "f32", lanes) for i in range(n)], zero, m.add)
        if state is None:
            fn.store(self.reciprocal(total), factors)
            return
        assert before is not None
        shrink = m.exp_of_nonpositive(m.sub(before, shift))
        fn.store(shrink, factors)
        fn.store(top, state)
        so_far = fn.at(state, self.slots)
        fn.store(m.fma(fn.load(so_far, "f32", lanes), shrink, total), so_far)

    def _weigh(self, row: ir.Value, vectors: Index, shift: ir.Value, out: ir.Value) -> None:
        """The weights of one row, and their sum lane by lane."""
        fn, m, lanes = self.fn, self.math, self.lanes
        wide, zero = fn.splat(fn.load(shift), lanes), fn.const(0.0, "f32", lanes)
        # vectors at a time: what the constants of the exponential leave room for
        parts = [fn.var("f32", zero.ir, lanes) for _ in range(4 if fn.target.registers >= 32 else 1)]
        number = 0

        def weigh(at: Index) -> None:
            nonlocal number
            place, part = fn.at(row, at), parts[number % len(parts)]
            number += 1
            e = m.exp_of_nonpositive(m.sub(fn.load(place, "f32", lanes), wide))
            fn.store(e, place)
            part.set(m.add(Val(part.get(), "f32", lanes), e).ir)

        self._over(vectors, len(parts), weigh)
        sums = [Val(p.get(), "f32", lanes) for p in parts]
        while len(sums) > 1:
            sums = [m.add(a, b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
        fn.store(sums[0], out)

    def _over(self, vectors: Index, unroll: int, visit: Callable[[Index], None]) -> None:
        """visit(place of each vector of a row), some at a time."""
        fn, lanes = self.fn, self.lanes
        if isinstance(vectors, int) and vectors <= 2 * unroll:
            for i in range(vectors):
                visit(i * lanes)
            return
        whole = fn.imul(fn.idiv(vectors, unroll), unroll)
        with fn.loop(0, whole, unroll, name="vector") as i:
            for j in range(unroll):
                visit(fn.imul(fn.iadd(i, j), lanes))
        if isinstance(vectors, int):
            for j in range(vectors % unroll):
                visit((vectors - vectors % unroll + j) * lanes)
        elif unroll > 1:
            with fn.loop(whole, vectors, name="vector") as i:
                visit(fn.imul(i, lanes))

    def _joined(self, rows: list[Val], neutral: Val, combine: Callable[[Val, Val], Val]) -> Val:
        """A vector of what the lanes of each row combine to."""
        fn = self.fn
        if len(rows) > 2 or self.lanes == 1:
            return fold_rows(fn, rows + [neutral] * (self.lanes - len(rows)), combine)
        out = neutral
        for i, row in enumerate(rows):
            one = fold_lanes(fn, row, 1, combine)
            out = Val(fn.b.insert_element(out.ir, one.ir, ir.Constant(I32, i)), "f32", self.lanes)
        return out

    def reciprocal(self, total: Val) -> Val:
        """1 / total; the total 0 is that of a row whose scores are all -inf."""
        m = self.math
        hidden = m.like(0.0 if self.zeros else nan, total)
        return m.select(m.cmp("eq", total, m.like(0.0, total)), hidden, m.div(m.like(1.0, total), total))


def fold_rows(fn: Fn, rows: Sequence[Val], combine: Callable[[Val, Val], Val]) -> Val:
    """Lane i is what the lanes of rows[i] combine to, of as many rows as lanes: half the vectors with each step."""
    n = len(rows)
    values, width = list(rows), n
    while len(values) > 1:
        half, width = len(values) // 2, width // 2
        low, high = [], []
        for lane in range(n):  # runs of `width` lanes: of the first operand, then of the second
            run, at = divmod(lane, width)
            base = (run // 2) * 2 * width + at + (n if run % 2 else 0)
            low.append(base)
            high.append(base + width)
        values = [
            combine(shuffle(fn, a, b, low), shuffle(fn, a, b, high)) for a, b in zip(values[:half], values[half:], strict=True)
        ]
    return values[0]
