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

__all__ = ["Masking", "RowSoftmax", "pack_panel", "row_sums"]


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

    A row that is worked out in several parts keeps its largest score and its sum so far in `state` (two floats a row);
    `factor` gets what its earlier results must be multiplied by, or without a state the reciprocal of the sum.
    """

    fn: Fn
    math: Math
    lanes: int
    zeros: bool  # a row of nothing but -inf has the result 0, else NaN

    def row(self, scores: ir.Value, vectors: Index, factor: ir.Value, state: ir.Value | None) -> None:
        """One row: `vectors` whole vectors from `scores` on; what lies past its end is -inf."""
        fn, m = self.fn, self.math
        held = self._loaded(scores, vectors)
        if held is not None:
            top = fold_lanes(fn, self._tree(held, self._larger), 1, self._larger)
        else:
            top = self._over(scores, vectors, -inf, lambda best, x, _: self._larger(best, x), self._larger)
        before = None
        if state is not None:
            before = fn.load(state)
            top = self._larger(top, before)
        # a row of nothing but -inf: all its weights are to be 0, not exp(-inf + inf)
        shift = m.select(m.cmp("eq", top, m.const(-inf)), m.const(0.0), top)
        wide = fn.splat(shift, self.lanes)

        def weigh(x: Val, at: ir.Value) -> Val:
            e = m.exp_of_nonpositive(m.sub(x, wide))
            fn.store(e, at)
            return e

        if held is not None:
            weights = [weigh(x, fn.at(scores, i * self.lanes)) for i, x in enumerate(held)]
            total = fold_lanes(fn, self._tree(weights, m.add), 1, m.add)
        else:
            total = self._over(scores, vectors, 0.0, lambda sum_, x, at: m.add(sum_, weigh(x, at)), m.add)
        if state is None:
            fn.store(self.reciprocal(total), factor)
            return
        assert before is not None
        shrink = m.exp_of_nonpositive(m.sub(before, shift))
        fn.store(shrink, factor)
        fn.store(top, state)
        so_far = fn.at(state, 1)
        fn.store(m.fma(fn.load(so_far), shrink, total), so_far)

    def reciprocal(self, total: Val) -> Val:
        """1 / total; the total 0 is that of a row whose scores are all -inf."""
        m = self.math
        hidden = m.const(0.0 if self.zeros else nan)
        return m.select(m.cmp("eq", total, m.const(0.0)), hidden, m.div(m.const(1.0), total))

    def _larger(self, a: Val, b: Val) -> Val:
        """One max instruction: it may lose a NaN, which the sum of the weights finds again."""
        return self.math.limit_max(a, b)

    @staticmethod
    def _tree(values: list[Val], combine: Callable[[Val, Val], Val]) -> Val:
        while len(values) > 1:
            left = values[len(values) & ~1 :]
            values = [combine(a, b) for a, b in zip(values[::2], values[1::2], strict=False)] + left
        return values[0]

    def _loaded(self, scores: ir.Value, vectors: Index) -> list[Val] | None:
        """The whole row in registers, where it fits."""
        if not isinstance(vectors, int) or vectors > min(16, self.fn.target.registers // 2):
            return None
        return [self.fn.load(self.fn.at(scores, i * self.lanes), "f32", self.lanes) for i in range(vectors)]

    def _over(self, scores: ir.Value, vectors: Index, start: float, visit: Callable[[Val, Val, ir.Value], Val],
              combine: Callable[[Val, Val], Val]) -> Val:  # fmt: skip
        """Fold a row in four independent parts, then the lanes of their result."""
        fn, lanes = self.fn, self.lanes
        first = fn.const(start, "f32", lanes)
        parts = [fn.var("f32", first.ir, lanes) for _ in range(4)]
        whole = fn.imul(fn.idiv(vectors, 4), 4)
        for lo, hi, step in ((0, whole, 4), (whole, vectors, 1)):
            with fn.loop(lo, hi, step, name="vector") as i:
                for part, at in [(parts[j], fn.at(scores, fn.imul(fn.iadd(i, j), lanes))) for j in range(step)]:
                    part.set(visit(Val(part.get(), "f32", lanes), fn.load(at, "f32", lanes), at).ir)
        return fold_lanes(fn, self._tree([Val(p.get(), "f32", lanes) for p in parts], combine), 1, combine)


def row_sums(fn: Fn, rows: Sequence[Val], add: Callable[[Val, Val], Val]) -> Val:
    """Lane i is the sum of the lanes of rows[i], of as many rows as lanes: half the vectors with each step."""
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
            add(shuffle(fn, a, b, low), shuffle(fn, a, b, high)) for a, b in zip(values[:half], values[half:], strict=True)
        ]
    return values[0]
