"""Expressions of elementwise operators."""

from __future__ import annotations

from diptych.ir.kernel import Expr
from diptych.ops.base import OPS


def test_an_operand_put_before_a_program() -> None:
    add, mul = OPS["add"](), OPS["mul"]()
    expr = Expr(2, ((3.0, "f32"),), ((mul, (0, 1)), (add, (3, 2))), (4, 0))
    assert str(expr) == "t0=mul(x0,x1); t1=add(t0,3.0); -> t1,x0"
    assert str(expr.with_operand(add)) == "t0=add(x0,x1); t1=mul(t0,x2); t2=add(t1,3.0); -> t2,t0"
    assert str(Expr.identity().with_operand(add)) == "t0=add(x0,x1); -> t0"
