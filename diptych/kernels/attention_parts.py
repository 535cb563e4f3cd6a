"""What attention kernels are put together from: packed panels of keys and values, and the softmax of rows of scores."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val
from diptych.kernels.access import fold_lanes, keep_lanes, load_lanes, transpose_lanes
from diptych.kernels.tiling import PANEL

if TYPE_CHECKING:
    from collections.abc import Callable

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.codegen.math import Math

__all__ = ["RowSoftmax", "pack_panel"]


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
