"""An operator whose gradient is stated beside it: loss layers, straight-through estimators, stopped gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.errors import TypeRuleError
from diptych.ops.base import Composite, S, op

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["Surrogate"]


@op
class Surrogate(Composite):
    """y, for x, y, d; its gradient with respect to x is d (with `chain`: d times what arrives), for y and d it is none.

    y is some function of x, computed beside it; d is what its gradient is declared to be.
    """

    chain: bool = False

    samples = (
        S((2, 3), (2, 3), (2, 3), grad=False),
        S((4,), (), (4,), grad=False),
        S((2, 3), (2, 3), (2, 3), chain=True, grad=False),
    )

    def infer(self, x: TensorType, y: TensorType, d: TensorType) -> TensorType:
        if d != x:
            raise TypeRuleError(f"the stated gradient is {d}, the operand {x}")
        if self.chain and y.shape != x.shape:
            raise TypeRuleError(f"with chain=True the result {y} must have the shape of the operand {x}")
        return y

    def reference(self, x: Array, y: Array, d: Array) -> Array:
        return y

    def decompose(self, g: Builder, x: Value, y: Value, d: Value) -> Value:
        return y

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        return (g.mul(xs[2], dys[0]) if self.chain else xs[2]), None, None
