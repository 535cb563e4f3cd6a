"""The end of a row of outputs of one block of channels: its columns' sums pass the epilogue and are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.codegen.builder import Val
from diptych.codegen.math import Math
from diptych.kernels.base import evaluate
from diptych.kernels.nest import expr_cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index, Var
    from diptych.ir.kernel import Expr, Operand

__all__ = ["RowEnd"]

_HEAVY = 12  # an epilogue of more vector work is written once, in a loop over the tile's columns


class RowEnd:
    """Operands are (N, C / 16, H, W, 16); `starts` are where this row begins in each of `extras` and in `out`, the last."""

    def __init__(self, fn: Fn, epilogue: Expr, lanes: int, extras: Sequence[Operand], out: Operand, starts: Sequence[ir.Value]) -> None:
        self.fn, self.math = fn, Math(fn)
        self.epilogue, self.lanes = epilogue, lanes
        self.extras, self.out, self.starts = extras, out, starts

    def finish(self, sums: Sequence[Var], column: Index, lane: Index) -> None:
        """Store a tile: the columns from `column` on, of the channels from `lane` on."""
        fn, lanes = self.fn, self.lanes
        if expr_cost(self.epilogue) <= _HEAVY:
            for j, a in enumerate(sums):
                self._store(Val(a.get(), "f32", lanes), fn.iadd(column, j), lane)
            return
        for j, a in enumerate(sums):
            fn.store(Val(a.get(), "f32", lanes), self._place(fn.iadd(column, j), lane))
        with fn.loop(0, len(sums), name="column") as j:
            at = fn.iadd(column, j)
            self._store(fn.load(self._place(at, lane), "f32", lanes), at, lane)

    def _place(self, column: Index, lane: Index) -> ir.Value:
        return self.fn.at(self.starts[-1], self.fn.iadd(self.fn.imul(column, self.out.strides[3]), lane))

    def _store(self, v: Val, column: Index, lane: Index) -> None:
        fn, lanes = self.fn, self.lanes
        values = [v]
        for pointer, o in zip(self.starts[:-1], self.extras, strict=True):
            at = fn.iadd(fn.imul(column, o.strides[3]), fn.imul(lane, o.strides[4]))
            values.append(fn.splat(fn.load(fn.at(pointer, at, o.dtype), o.dtype, lanes if o.strides[4] else 1), lanes))
        result = fn.splat(evaluate(self.math, self.epilogue, values)[0], lanes)
        fn.store(result, self._place(column, lane))
