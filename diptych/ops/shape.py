"""Operators that move elements: reshape, transpose, broadcast, slice, concatenate, pad."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Movement, S, broadcast, normalize_axis, op
from diptych.ops.pointwise import Grads, Values
from diptych.ops.rules import sum_to

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["BroadcastTo", "Concat", "Pad", "Reshape", "Slice", "Transpose"]


@op
class Reshape(Movement):
    """The same elements in row-major order under another shape."""

    shape: tuple[int, ...]
    samples = (
        S((3, 5), shape=(5, 3)),
        S((2, 3, 4), shape=(24,)),
        S((12,), shape=(2, 1, 6)),
        S((1, 1), shape=()),
        S((), shape=(1, 1, 1)),
        S((0, 3), shape=(3, 0, 7)),
        S((4, 6), dtype="i64", low=-9, high=9, shape=(6, 4)),
        S((4, 6), dtype="bool", shape=(3, 8)),
    )

    def infer(self, x: TensorType) -> TensorType:
        y = x.with_shape(self.shape)
        if y.size != x.size:
            raise TypeRuleError(f"{x} has {x.size} elements, shape {self.shape} takes {y.size}")
        return y

    def reference(self, x: Array) -> Array:
        return np.reshape(x, self.shape)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.reshape(dys[0], xs[0].shape),)


@op
class Transpose(Movement):
    """Axes in another order: axis i of the result is axis perm[i] of x."""

    perm: tuple[int, ...]
    samples = (
        S((3, 5), perm=(1, 0)),
        S((2, 3, 4), perm=(0, 2, 1)),
        S((2, 3, 4), perm=(2, 0, 1)),
        S((2, 3, 4, 5), perm=(0, 2, 3, 1)),
        S((2, 3, 17, 19), perm=(0, 1, 3, 2)),
        S((33, 65), perm=(1, 0)),
        S((2, 3), perm=(0, 1)),
        S((), perm=()),
        S((0, 3), perm=(1, 0)),
        S((5, 7), dtype="u8", low=0, high=255, perm=(1, 0)),
        S((5, 7), dtype="f64", perm=(1, 0)),
    )

    def infer(self, x: TensorType) -> TensorType:
        if sorted(self.perm) != list(range(x.rank)):
            raise TypeRuleError(f"perm={self.perm} is not an order of the {x.rank} axes of {x}")
        return x.with_shape(tuple(x.shape[p] for p in self.perm))

    def reference(self, x: Array) -> Array:
        return np.transpose(x, self.perm)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (g.transpose(dys[0], [self.perm.index(i) for i in range(len(self.perm))]),)


@op
class BroadcastTo(Movement):
    """x repeated along its axes of extent 1 (and new leading axes) to a shape, as NumPy broadcasts."""

    shape: tuple[int, ...]
    samples = (
        S((5,), shape=(3, 5)),
        S((3, 1), shape=(3, 17)),
        S((2, 1, 4), shape=(3, 2, 5, 4)),
        S((), shape=(2, 3)),
        S((), shape=()),
        S((1, 3), shape=(0, 3)),
        S((1, 7), dtype="i64", low=-9, high=9, shape=(4, 7)),
    )

    def infer(self, x: TensorType) -> TensorType:
        if broadcast(x.shape, self.shape) != self.shape:
            raise TypeRuleError(f"{x} does not broadcast to {self.shape}")
        return x.with_shape(self.shape)

    def reference(self, x: Array) -> Array:
        return np.broadcast_to(x, self.shape)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        return (sum_to(g, dys[0], xs[0].shape),)


@op
class Slice(Movement):
    """Elements start, start + step, ... before stop of every axis; with a negative step, stop -1 includes element 0."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]
    samples = (
        S((3, 5), starts=(0, 1), stops=(3, 4), steps=(1, 1)),
        S((7, 9), starts=(1, 0), stops=(7, 9), steps=(2, 3)),
        S((7, 9), starts=(6, 8), stops=(-1, 2), steps=(-1, -2)),
        S((2, 3, 17), starts=(0, 1, 0), stops=(2, 2, 17), steps=(1, 1, 1)),
        S((4,), starts=(2,), stops=(2,), steps=(1,)),
        S((), starts=(), stops=(), steps=()),
        S((0, 3), starts=(0, 1), stops=(0, 3), steps=(1, 1)),
        S((5, 6), dtype="i64", low=-9, high=9, starts=(1, 5), stops=(5, -1), steps=(3, -1)),
    )

    def ranges(self, shape: tuple[int, ...]) -> tuple[range, ...]:
        """The indices taken from each axis; raises TypeRuleError when one lies outside."""
        if not len(self.starts) == len(self.stops) == len(self.steps) == len(shape):
            raise TypeRuleError(f"starts, stops and steps must have one entry for each of the axes of shape {shape}")
        if 0 in self.steps:
            raise TypeRuleError(f"steps={self.steps}: a step of 0 goes nowhere")
        found = tuple(map(range, self.starts, self.stops, self.steps))
        for axis, (r, d) in enumerate(zip(found, shape, strict=True)):
            if len(r) and not (0 <= r[0] < d and 0 <= r[-1] < d):
                raise TypeRuleError(f"axis {axis} has extent {d}, the slice takes elements {r[0]} to {r[-1]}")
        return found

    def infer(self, x: TensorType) -> TensorType:
        return x.with_shape(tuple(len(r) for r in self.ranges(x.shape)))

    def reference(self, x: Array) -> Array:
        return np.asarray(x)[tuple(
            slice(r.start, None if r.stop < 0 else r.stop, r.step) if len(r) else slice(0, 0)
            for r in self.ranges(x.shape)
        )]  # fmt: skip

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        x, dy = xs[0], dys[0]
        if all(s == 1 for s in self.steps):
            pads = [(a, d - a - n) for a, d, n in zip(self.starts, x.shape, dy.shape, strict=True)]
            return (g.pad(dy, pads) if dy.type.size else _zeros(g, x),)
        return (g.ew("slice_update", _zeros(g, x), dy, starts=self.starts, steps=self.steps),)


def _zeros(g: Builder, x: Value) -> Value:
    return g.broadcast_to(g.scalar(0, x.dtype), x.shape)


@op
class Concat(Movement):
    """Operands one after another along an axis."""

    axis: int
    samples = (
        S((3, 5), (3, 2), axis=1),
        S((3, 5), (1, 5), (2, 5), axis=0),
        S((2, 3, 17), (2, 4, 17), axis=-2),
        S((5,), axis=0),
        S((0, 3), (2, 3), axis=0),
        S((2, 8, 3, 3), (2, 5, 3, 3), (2, 16, 3, 3), axis=1),
        S((3, 2), (3, 4), dtype="i64", low=-9, high=9, axis=1),
    )

    def infer(self, x: TensorType, *others: TensorType) -> TensorType:
        axis = normalize_axis(self.axis, x.rank)
        extent = x.shape[axis]
        for t in others:
            if t.dtype != x.dtype:
                raise TypeRuleError(f"operands must have one dtype, got {x.dtype} and {t.dtype}; cast first")
            if t.rank != x.rank or any(a != b for i, (a, b) in enumerate(zip(x.shape, t.shape)) if i != axis):
                raise TypeRuleError(f"{x} and {t} differ in more than axis {axis}")
            extent += t.shape[axis]
        return x.with_shape((*x.shape[:axis], extent, *x.shape[axis + 1 :]))

    def reference(self, *xs: Array) -> Array:
        return np.concatenate(xs, self.axis)

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        out, start = [], 0
        axis = normalize_axis(self.axis, xs[0].rank)
        for x in xs:
            out.append(g.slice_axis(dys[0], axis, start, start + x.shape[axis]))
            start += x.shape[axis]
        return tuple(out)


@op
class Pad(Movement):
    """x with elements added before and after each axis: a constant, its mirror image, or its edge."""

    pads: tuple[tuple[int, int], ...]
    mode: str = "constant"
    value: float = 0.0
    samples = (
        S((3, 5), pads=((1, 2), (0, 3))),
        S((2, 3, 17), pads=((0, 0), (1, 1), (2, 2)), value=-1.5),
        S((5, 7), pads=((1, 2), (3, 0)), mode="reflect"),
        S((5, 7), pads=((1, 2), (3, 0)), mode="edge"),
        S((1, 2, 6, 6), pads=((0, 0), (0, 0), (3, 3), (3, 3)), mode="reflect"),
        S((), pads=()),
        S((0, 3), pads=((1, 1), (0, 0))),
        S((3, 4), dtype="i64", low=-9, high=9, pads=((1, 1), (0, 2)), value=7.0),
        S((3, 4), dtype="f64", pads=((1, 1), (0, 2)), mode="edge"),
    )

    def infer(self, x: TensorType) -> TensorType:
        if len(self.pads) != x.rank or any(len(p) != 2 or min(p) < 0 for p in self.pads):
            raise TypeRuleError(f"pads={self.pads}: a pair (low, high) of integers >= 0 expected for each axis of {x}")
        if self.mode not in ("constant", "reflect", "edge"):
            raise TypeRuleError(f"mode={self.mode!r} must be 'constant', 'reflect' or 'edge'")
        if self.mode == "constant" and x.dtype == "bf16" and self.value != 0:
            raise TypeRuleError("padding bf16 with anything but 0 is not supported; cast to f32 first")
        for axis, ((low, high), d) in enumerate(zip(self.pads, x.shape, strict=True)):
            if self.mode == "reflect" and max(low, high) >= max(d, 1):
                raise TypeRuleError(f"axis {axis}: reflection by ({low}, {high}) needs an extent above that, {x} has {d}")
            if self.mode == "edge" and low + high and not d:
                raise TypeRuleError(f"axis {axis} of {x} is empty and has no edge to repeat")
        return x.with_shape(tuple(low + d + high for (low, high), d in zip(self.pads, x.shape, strict=True)))

    def reference(self, x: Array) -> Array:
        x = np.asarray(x)
        if not self.pads:
            return x
        if self.mode == "constant":
            return np.pad(x, self.pads, constant_values=x.dtype.type(self.value))
        return np.pad(x, self.pads, mode="reflect" if self.mode == "reflect" else "edge")

    def gradient(self, g: Builder, xs: Values, ys: Values, dys: Values) -> Grads:
        dy = dys[0]
        for axis, ((low, high), d) in enumerate(zip(self.pads, xs[0].shape, strict=True)):
            if low or high:
                dy = self._fold(g, dy, axis, low, high, d)
        return (dy,)

    def _fold(self, g: Builder, dy: Value, axis: int, low: int, high: int, d: int) -> Value:
        """Undo the padding of one axis: add what fell on the margins back to the elements they were copied from."""
        inner = g.slice_axis(dy, axis, low, low + d)
        if self.mode == "constant":
            return inner
        for size, start in ((low, 0), (high, low + d)):
            if not size:
                continue
            margin = g.slice_axis(dy, axis, start, start + size)
            if self.mode == "reflect":  # the margin mirrors the elements next to the edge, without the edge itself
                margin = g.ew("flip", margin, axes=(axis,))
                where = (1, d - 1 - size) if start == 0 else (d - 1 - size, 1)
            else:
                margin = g.sum(margin, axis, keepdims=True)
                where = (0, d - 1) if start == 0 else (d - 1, 0)
            inner = g.add(inner, g.pad(margin, [where if a == axis else (0, 0) for a in range(dy.rank)]))
        return inner
