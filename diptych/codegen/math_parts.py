"""What the functions of Math are put together from: polynomials, tables in registers, rare cases in branches of their own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import BOOL, I32, Val, register_type
from diptych.codegen.math_base import Arithmetic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Parts"]


class Parts(Arithmetic):
    """Arithmetic, and what several functions need beside it."""

    def polynomial(self, x: Val, coefficients: Sequence[float]) -> Val:
        """c0 + x (c1 + x (c2 + ...)), by Horner's rule."""
        y = self.like(coefficients[-1], x)
        for c in coefficients[-2::-1]:
            y = self.fma(y, x, self.like(c, x))
        return y

    def lanewise(self, symbol: str, *xs: Val) -> Val:
        """Call a C function of scalars on each lane in turn: for rare functions and rare arguments."""
        b, x = self.fn.b, xs[0]
        t = register_type(x.dtype)
        callee = self.fn.module.globals.get(symbol)
        if callee is None:
            callee = ir.Function(self.fn.module, ir.FunctionType(t, [t] * len(xs)), symbol)
            callee.attributes.add("nounwind")
        if x.lanes == 1:
            return self._new(b.call(callee, [v.ir for v in xs]), x)
        out: ir.Value = ir.Constant(register_type(x.dtype, x.lanes), ir.Undefined)
        for lane in range(x.lanes):
            i = ir.Constant(I32, lane)
            out = b.insert_element(out, b.call(callee, [b.extract_element(v.ir, i) for v in xs]), i)
        return self._new(out, x)

    def any_lane(self, c: Val) -> ir.Value:
        """Whether a bool holds in any lane, as one i1."""
        if c.lanes == 1:
            return c.ir
        return self.fn.intrinsic(f"llvm.vector.reduce.or.v{c.lanes}i1", BOOL, [c.ir])

    def rarely(self, c: Val, usual: Val, otherwise: Callable[[], Val]) -> Val:
        """`usual`, or in the rare case that c holds in any lane, what `otherwise` computes (in a branch of its own)."""
        result = self.fn.var(usual.dtype, usual.ir, usual.lanes)
        with self._unlikely(self.any_lane(c)):
            result.set(self.select(c, otherwise(), usual).ir)
        return self._new(result.get(), usual)

    @contextmanager
    def _unlikely(self, condition: ir.Value) -> Iterator[None]:
        with self.fn.b.if_then(condition, likely=False):
            yield
