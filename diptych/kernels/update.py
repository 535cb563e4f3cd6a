"""Rows written at a place that is known at run time only; everything else of the output stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.access import load_lanes, store_lanes
from diptych.kernels.base import emits
from diptych.kernels.nest import advance, lines, merged, spans, split_work

if TYPE_CHECKING:
    from diptych.codegen.builder import Fn, Index
    from diptych.targets.base import Target

__all__ = ["UpdateAtParams", "make_update_at"]


@dataclass(frozen=True, slots=True)
class UpdateAtParams:
    """Operands: update, start (one integer), out. `stride`: out's along the axis; `last`: the largest start that fits.

    `strides` are out's over the update's (merged) shape.
    """

    stride: int
    last: int
    strides: tuple[int, ...]
    dim: int
    block: int
    lanes: int


def make_update_at(update: Operand, start: Operand, axis: int, out: Operand, target: Target) -> Kernel:
    """Kernel that writes `update` over the slices of `out` from `start` on along `axis`, and touches nothing else."""
    dims, walk = merged(update.shape, [update.strides, out.strides])
    if not dims:
        dims, walk = [prod(update.shape)], [[0], [0]]
    lanes = target.lanes(itemsize(update.dtype))
    dim, block, work = split_work(dims, 4096, lanes)
    last = out.shape[axis] - update.shape[axis]
    params = UpdateAtParams(out.strides[axis], last, tuple(walk[1]), dim, block, lanes)
    made = Operand(tuple(dims), tuple(walk[0]), update.dtype)
    cost = 20 + prod(dims) * itemsize(update.dtype) / 20
    return Kernel("update_at", params, (made, start, out), 1, work, cost)


@emits("update_at")
def emit_update_at(fn: Fn, kernel: Kernel) -> None:
    """A strided copy whose destination is moved by the start."""
    p: UpdateAtParams = kernel.params
    update, start, out = kernel.operands
    shape, last = update.shape, len(update.shape) - 1
    asked = Math(fn).cast(fn.load(fn.args["p1"], start.dtype), "i64").ir
    moved = fn.imul(fn.imax(fn.imin(asked, p.last), 0), p.stride)
    target = fn.at(fn.args["p2"], moved, out.dtype)
    with lines(fn, shape, p.dim, p.block, (update.strides, p.strides)) as (at, lo, hi):

        def copy(i: Index, lanes: int, count: int) -> None:
            here, there = advance(fn, at, i, (update.strides[last], p.strides[last]))
            v = load_lanes(fn, fn.args["p0"], here, update.strides[last], update.dtype, lanes, count)
            store_lanes(fn, v, target, there, p.strides[last], count)

        spans(fn, lo, hi, p.lanes, p.lanes, shape[last] % p.lanes, copy)
