"""Builder: GraphBuilder with the operators as methods, for frontends, decompositions, gradients and passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.ir import GraphBuilder, Value
from diptych.ir.types import numpy_dtype
from diptych.ops.base import OPS, normalize_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Builder"]

Operand = Value | float | int | bool


class Builder(GraphBuilder):
    """Methods take Values; where an operator is elementwise, plain numbers become scalar constants of the right dtype.

    >>> from diptych.ir import TensorType
    >>> g = Builder("softmax")
    >>> x = g.input("x", TensorType((2, 3)))
    >>> e = g.exp(g.sub(x, g.max(x, -1, keepdims=True)))
    >>> graph = g.finish([g.div(e, g.sum(e, -1, keepdims=True))])
    """

    # -- operands ---------------------------------------------------------------------------------------------
    def _lift(self, *xs: Operand) -> tuple[Value, ...]:
        dtype = next((x.dtype for x in xs if isinstance(x, Value)), "f32")
        return tuple(x if isinstance(x, Value) else self.scalar(x, dtype) for x in xs)

    def scalar(self, x: float | int | bool, dtype: str = "f32") -> Value:
        """A rank-0 constant."""
        if dtype == "bf16":
            bits = np.asarray(x, np.float32).reshape(1).view(np.uint32)
            return self.constant(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).reshape(()), "bf16")
        return self.constant(np.asarray(x, numpy_dtype(dtype)), dtype)

    def ew(self, op_name: str, *xs: Operand, **attrs: object) -> Value:
        """Emit the elementwise (or any single-result) operator of that name, lifting plain numbers."""
        return self.emit(OPS[op_name](**attrs), *self._lift(*xs))

    # -- arithmetic -------------------------------------------------------------------------------------------
    def neg(self, x: Value) -> Value:
        return self.ew("neg", x)

    def exp(self, x: Value) -> Value:
        return self.ew("exp", x)

    def log(self, x: Value) -> Value:
        return self.ew("log", x)

    def sqrt(self, x: Value) -> Value:
        return self.ew("sqrt", x)

    def rsqrt(self, x: Value) -> Value:
        return self.ew("rsqrt", x)

    def tanh(self, x: Value) -> Value:
        return self.ew("tanh", x)

    def sigmoid(self, x: Value) -> Value:
        return self.ew("sigmoid", x)

    def relu(self, x: Value) -> Value:
        return self.ew("relu", x)

    def square(self, x: Value) -> Value:
        return self.ew("mul", x, x)

    def add(self, a: Operand, b: Operand) -> Value:
        return self.ew("add", a, b)

    def sub(self, a: Operand, b: Operand) -> Value:
        return self.ew("sub", a, b)

    def mul(self, a: Operand, b: Operand) -> Value:
        return self.ew("mul", a, b)

    def div(self, a: Operand, b: Operand) -> Value:
        return self.ew("div", a, b)

    def pow(self, a: Operand, b: Operand) -> Value:
        return self.ew("pow", a, b)

    def maximum(self, a: Operand, b: Operand) -> Value:
        return self.ew("maximum", a, b)

    def minimum(self, a: Operand, b: Operand) -> Value:
        return self.ew("minimum", a, b)

    def less(self, a: Operand, b: Operand) -> Value:
        return self.ew("less", a, b)

    def greater(self, a: Operand, b: Operand) -> Value:
        return self.ew("greater", a, b)

    def equal(self, a: Operand, b: Operand) -> Value:
        return self.ew("equal", a, b)

    def where(self, cond: Value, a: Operand, b: Operand) -> Value:
        a, b = self._lift(a, b)
        return self.emit(OPS["where"](), cond, a, b)

    def cast(self, x: Value, dtype: str) -> Value:
        return x if x.dtype == dtype else self.ew("cast", x, to=dtype, of="bf16" if x.dtype == "bf16" else "")

    # -- reductions -------------------------------------------------------------------------------------------
    def reduce(self, op_name: str, x: Value, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Value:
        if axes is None:
            axes = tuple(range(x.rank))
        elif isinstance(axes, int):
            axes = (axes,)
        axes = tuple(sorted(normalize_axis(a, x.rank) for a in axes))
        return self.emit(OPS[op_name](axes=axes, keepdims=keepdims), x)

    def sum(self, x: Value, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Value:
        return self.reduce("sum", x, axes, keepdims)

    def max(self, x: Value, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Value:
        return self.reduce("max", x, axes, keepdims)

    def mean(self, x: Value, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Value:
        return self.reduce("mean", x, axes, keepdims)

    # -- movement ---------------------------------------------------------------------------------------------
    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Row-major reshape; one extent may be -1."""
        dims = list(shape)
        if -1 in dims:
            rest = int(np.prod([d for d in dims if d != -1]))
            dims[dims.index(-1)] = x.type.size // rest if rest else 0
        return x if tuple(dims) == x.shape else self.emit(OPS["reshape"](shape=tuple(dims)), x)

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        perm = tuple(normalize_axis(p, x.rank) for p in perm)
        return x if perm == tuple(range(x.rank)) else self.emit(OPS["transpose"](perm=perm), x)

    def broadcast_to(self, x: Value, shape: Sequence[int]) -> Value:
        shape = tuple(shape)
        return x if shape == x.shape else self.emit(OPS["broadcast_to"](shape=shape), x)

    def expand_dims(self, x: Value, axis: int) -> Value:
        axis = normalize_axis(axis, x.rank + 1)
        return self.reshape(x, x.shape[:axis] + (1,) + x.shape[axis:])

    def squeeze(self, x: Value, axes: Sequence[int]) -> Value:
        drop = {normalize_axis(a, x.rank) for a in axes}
        return self.reshape(x, tuple(d for i, d in enumerate(x.shape) if i not in drop))

    def slice(self, x: Value, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int] | None = None) -> Value:
        """Full-rank basic slice. With a negative step, stop -1 means "through element 0" (no wrap-around)."""
        steps = tuple(steps) if steps is not None else (1,) * x.rank
        if tuple(starts) == (0,) * x.rank and tuple(stops) == x.shape and steps == (1,) * x.rank:
            return x
        return self.emit(OPS["slice"](starts=tuple(starts), stops=tuple(stops), steps=steps), x)

    def slice_axis(self, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        axis = normalize_axis(axis, x.rank)
        starts, stops, steps = [0] * x.rank, list(x.shape), [1] * x.rank
        starts[axis], stops[axis], steps[axis] = start, stop, step
        return self.slice(x, starts, stops, steps)

    def concat(self, xs: Sequence[Value], axis: int) -> Value:
        if len(xs) == 1:
            return xs[0]
        return self.emit(OPS["concat"](axis=normalize_axis(axis, xs[0].rank)), *xs)

    def stack(self, xs: Sequence[Value], axis: int) -> Value:
        return self.concat([self.expand_dims(x, axis) for x in xs], normalize_axis(axis, xs[0].rank + 1))

    def pad(self, x: Value, pads: Sequence[tuple[int, int]], mode: str = "constant", value: float = 0.0) -> Value:
        """pads: (low, high) per axis, non-negative."""
        pads = tuple((int(a), int(b)) for a, b in pads)
        if all(p == (0, 0) for p in pads):
            return x
        return self.emit(OPS["pad"](pads=pads, mode=mode, value=float(value)), x)

    # -- products ---------------------------------------------------------------------------------------------
    def matmul(self, a: Value, b: Value, transpose_a: bool = False, transpose_b: bool = False) -> Value:
        return self.emit(OPS["mat_mul"](transpose_a=transpose_a, transpose_b=transpose_b), a, b)
