"""Composites of movement operators: tile, repeat, flip, and the exchanges of depth and space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Composite, S, normalize_axes, normalize_axis, op

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["DepthToSpace", "Flip", "Repeat", "SpaceToDepth", "Tile"]


@op
class Tile(Composite):
    """Copies of the whole of x side by side, reps[i] times along axis i; the shorter of shape and reps gets leading 1s."""

    reps: tuple[int, ...]
    samples = (
        S((3, 5), reps=(2, 3)),
        S((5,), reps=(2, 1, 3)),
        S((2, 3, 4), reps=(2,)),
        S((), reps=(4,)),
        S((3,), reps=()),
        S((2, 3), reps=(0, 2)),
        S((2, 3), dtype="i64", low=-9, high=9, reps=(1, 4)),
    )

    def infer(self, x: TensorType) -> TensorType:
        if any(r < 0 for r in self.reps):
            raise TypeRuleError(f"reps={self.reps} must not be negative")
        rank = max(x.rank, len(self.reps))
        shape, reps = (1,) * (rank - x.rank) + x.shape, (1,) * (rank - len(self.reps)) + self.reps
        return x.with_shape(tuple(d * r for d, r in zip(shape, reps, strict=True)))

    def reference(self, x: Array) -> Array:
        return np.tile(x, self.reps)

    def decompose(self, g: Builder, x: Value) -> Value:
        rank = max(x.rank, len(self.reps))
        shape, reps = (1,) * (rank - x.rank) + x.shape, (1,) * (rank - len(self.reps)) + self.reps
        x = g.reshape(x, [n for d in shape for n in (1, d)])
        x = g.broadcast_to(x, [n for d, r in zip(shape, reps, strict=True) for n in (r, d)])
        return g.reshape(x, [d * r for d, r in zip(shape, reps, strict=True)])


@op
class Repeat(Composite):
    """Every element `repeats` times in a row along an axis."""

    repeats: int
    axis: int
    samples = (
        S((3, 5), repeats=2, axis=1),
        S((3, 5), repeats=3, axis=0),
        S((2, 3, 17), repeats=2, axis=-2),
        S((5,), repeats=1, axis=0),
        S((5,), repeats=0, axis=0),
        S((2, 3), dtype="i64", low=-9, high=9, repeats=4, axis=1),
    )

    def infer(self, x: TensorType) -> TensorType:
        if self.repeats < 0:
            raise TypeRuleError(f"repeats={self.repeats} must not be negative")
        axis = normalize_axis(self.axis, x.rank)
        return x.with_shape((*x.shape[:axis], x.shape[axis] * self.repeats, *x.shape[axis + 1 :]))

    def reference(self, x: Array) -> Array:
        return np.repeat(x, self.repeats, self.axis)

    def decompose(self, g: Builder, x: Value) -> Value:
        shape = self.infer(x.type).shape
        axis = normalize_axis(self.axis, x.rank)
        before, after = x.shape[: axis + 1], x.shape[axis + 1 :]
        return g.reshape(g.broadcast_to(g.reshape(x, (*before, 1, *after)), (*before, self.repeats, *after)), shape)


@op
class Flip(Composite):
    """The order of elements reversed along axes."""

    axes: tuple[int, ...]
    samples = (
        S((3, 5), axes=(1,)),
        S((2, 3, 17), axes=(0, -1)),
        S((5,), axes=()),
        S((0, 3), axes=(0, 1)),
        S((2, 3), dtype="i64", low=-9, high=9, axes=(0,)),
    )

    def infer(self, x: TensorType) -> TensorType:
        normalize_axes(self.axes, x.rank)
        return x

    def reference(self, x: Array) -> Array:
        return np.flip(x, self.axes)

    def decompose(self, g: Builder, x: Value) -> Value:
        axes = [a for a in normalize_axes(self.axes, x.rank) if x.shape[a] > 1]
        starts = [d - 1 if a in axes else 0 for a, d in enumerate(x.shape)]
        stops = [-1 if a in axes else d for a, d in enumerate(x.shape)]
        return g.slice(x, starts, stops, [-1 if a in axes else 1 for a in range(x.rank)])


def _image(x: TensorType, block: int) -> tuple[int, int, int, int]:
    if x.rank != 4:
        raise TypeRuleError(f"{x} must have rank 4: batch, channels, height, width")
    if block < 1:
        raise TypeRuleError(f"block={block} must be at least 1")
    n, c, h, w = x.shape
    return n, c, h, w


@op
class DepthToSpace(Composite):
    """Channels of x[N, C, H, W] moved into blocks of pixels; mode says whether the block ("DCR") or the channel leads."""

    block: int
    mode: str = "DCR"
    samples = (
        S((1, 8, 2, 3), block=2),
        S((2, 12, 3, 2), block=2, mode="CRD"),
        S((1, 9, 2, 2), block=3, mode="CRD"),
        S((2, 3, 4, 5), block=1),
        S((2, 4, 5, 3), block=2, dtype="i64", low=-9, high=9),
    )

    def infer(self, x: TensorType) -> TensorType:
        n, c, h, w = _image(x, self.block)
        if self.mode not in ("DCR", "CRD"):
            raise TypeRuleError(f"mode={self.mode!r} must be 'DCR' or 'CRD'")
        if c % self.block**2:
            raise TypeRuleError(f"{c} channels are not a multiple of block * block = {self.block**2}")
        return x.with_shape((n, c // self.block**2, h * self.block, w * self.block))

    def _split(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The six-axis shape and the order of its axes."""
        (n, c, h, w), b = shape, self.block
        rest = c // b**2
        if self.mode == "DCR":
            return (n, b, b, rest, h, w), (0, 3, 4, 1, 5, 2)
        return (n, rest, b, b, h, w), (0, 1, 4, 2, 5, 3)

    def reference(self, x: Array) -> Array:
        split, perm = self._split(x.shape)
        n, c, h, w = x.shape
        b = self.block
        return x.reshape(split).transpose(perm).reshape(n, c // b**2, h * b, w * b)

    def decompose(self, g: Builder, x: Value) -> Value:
        split, perm = self._split(x.shape)
        return g.reshape(g.transpose(g.reshape(x, split), perm), self.infer(x.type).shape)


@op
class SpaceToDepth(Composite):
    """Blocks of pixels of x[N, C, H, W] moved into channels, the block leading: undoes DepthToSpace of mode "DCR"."""

    block: int
    samples = (
        S((1, 2, 4, 6), block=2),
        S((2, 3, 6, 3), block=3),
        S((2, 3, 4, 5), block=1),
        S((2, 1, 4, 2), block=2, dtype="i64", low=-9, high=9),
    )

    def infer(self, x: TensorType) -> TensorType:
        (n, c, h, w), b = _image(x, self.block), self.block
        if h % b or w % b:
            raise TypeRuleError(f"height {h} and width {w} must be multiples of block={b}")
        return x.with_shape((n, c * b * b, h // b, w // b))

    def reference(self, x: Array) -> Array:
        (n, c, h, w), b = x.shape, self.block
        split = x.reshape(n, c, h // b, b, w // b, b)
        return split.transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)

    def decompose(self, g: Builder, x: Value) -> Value:
        (n, c, h, w), b = x.shape, self.block
        split = g.reshape(x, (n, c, h // b, b, w // b, b))
        return g.reshape(g.transpose(split, (0, 3, 5, 1, 2, 4)), (n, c * b * b, h // b, w // b))
