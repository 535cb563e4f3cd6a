"""Zeros around the pixels of a blocked tensor, in memory that held something else before."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import ir

from diptych.codegen.builder import I64
from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.base import emits

if TYPE_CHECKING:
    from diptych.codegen.builder import Fn

__all__ = ["BorderParams", "make_border"]


@dataclass(frozen=True, slots=True)
class BorderParams:
    """`runs`: where in a plane (one block of channels of one image) border pixels follow one another: (first, how many)."""

    runs: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return f"{sum(n for _, n in self.runs)} pixels a plane"


def make_border(out: Operand, pads: tuple[tuple[int, int], ...]) -> Kernel:
    """Zero the border of out[N, blocks, *S, lanes], which is contiguous and `pads` wider than the tensor inside it."""
    inside = np.zeros(out.shape[2:-1], bool)
    inside[tuple(slice(lo, d - hi) for (lo, hi), d in zip(pads, inside.shape, strict=True))] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[True], inside.ravel(), [True]]).astype(np.int8)))
    runs = tuple((int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True))
    planes = out.shape[0] * out.shape[1]
    cost = 20 + planes * sum(n for _, n in runs) * out.shape[-1] * itemsize(out.dtype) / 20
    return Kernel("border", BorderParams(runs), (out,), 1, planes if runs else 0, cost)


@emits("border")
def emit_border(fn: Fn, kernel: Kernel) -> None:
    """Plane by plane, run by run; a pixel is one store."""
    p: BorderParams = kernel.params
    (out,) = kernel.operands
    lanes = out.shape[-1]
    t = ir.ArrayType(I64, 2 * len(p.runs))
    table = ir.GlobalVariable(fn.module, t, f"{fn.function.name}.runs")
    table.initializer, table.global_constant, table.linkage = ir.Constant(t, [x for r in p.runs for x in r]), True, "internal"
    with fn.loop(fn.args["begin"], fn.args["end"], name="plane") as plane:
        base = fn.at(fn.args["p0"], fn.imul(plane, prod(out.shape[2:])), out.dtype)
        with fn.loop(0, len(p.runs), name="run") as run:
            first, count = (fn.load(fn.at(table, fn.iadd(fn.imul(run, 2), i), "i64"), "i64").ir for i in (0, 1))
            with fn.loop(first, fn.iadd(first, count), name="pixel") as pixel:
                fn.store(fn.const(0, out.dtype, lanes), fn.at(base, fn.imul(pixel, lanes), out.dtype))
