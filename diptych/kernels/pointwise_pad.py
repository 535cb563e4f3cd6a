"""Padding: a tensor written into a larger one, the border constant, reflected or repeated."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.access import load_lanes, store_lanes
from diptych.kernels.base import emits
from diptych.kernels.nest import items, spans, split_work

if TYPE_CHECKING:
    from collections.abc import Callable

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.targets.base import Target

__all__ = ["PadParams", "make_pad"]


@dataclass(frozen=True, slots=True)
class PadParams:
    """Elements before each dim of the input (its operand holds the extents), what fills the border, the work split."""

    before: tuple[int, ...]
    mode: str  # "constant", "reflect", "edge"
    value: float
    dim: int
    block: int
    lanes: int


def make_pad(x: Operand, out: Operand, before: tuple[int, ...], mode: str, value: float, target: Target) -> Kernel:
    """Kernel that writes x at offset `before` into out and fills the rest by `mode`."""
    if mode not in ("constant", "reflect", "edge"):
        raise ValueError(f"pad: mode {mode!r} is none of constant, reflect, edge")
    shape: list[int] = []
    rows: list[tuple[int, int, int, int]] = []  # extent of x, before, stride of x, stride of out
    for d, o in enumerate(out.shape):
        new = (x.shape[d], before[d], x.strides[d], out.strides[d])
        if shape and shape[-1] == rows[-1][0] and o == new[0] and rows[-1][2:] == (new[2] * o, new[3] * o):
            shape[-1] *= o
            rows[-1] = (shape[-1], 0, *new[2:])
        else:
            shape.append(o)
            rows.append(new)
    if not shape:
        shape, rows = [1], [(1, 0, 0, 0)]
    lanes = target.lanes(itemsize(x.dtype))
    dim, block, work = split_work(shape, 4096, lanes)
    made = (
        Operand(tuple(r[0] for r in rows), tuple(r[2] for r in rows), x.dtype),
        Operand(tuple(shape), tuple(r[3] for r in rows), x.dtype),
    )
    params = PadParams(tuple(r[1] for r in rows), mode, value, dim, block, lanes)
    return Kernel("pad", params, made, 1, work, 20 + prod(out.shape) * itemsize(x.dtype) / 20)


@emits("pad")
def emit_pad(fn: Fn, kernel: Kernel) -> None:
    """Row by row of the output: left border, the row of the input, right border."""
    p: PadParams = kernel.params
    x, out = kernel.operands
    shape, last = out.shape, len(out.shape) - 1
    with items(fn, shape, p.dim, p.block) as (lead, _, lo, hi), ExitStack() as stack:
        index: list[Index] = list(lead)
        for d in range(p.dim, last):
            bounds: tuple[Index, Index] = (lo, hi) if d == p.dim else (0, shape[d])
            index.append(stack.enter_context(fn.loop(*bounds, name=f"d{d}")))
        first, stop = (lo, hi) if p.dim == last else (0, shape[last])
        target = fn.dot(index, out.strides[:last])
        source: Index = 0
        inside: ir.Value | None = None
        for d, i in enumerate(index):
            if p.before[d] == 0 and x.shape[d] == shape[d]:
                at: Index = i
            else:
                at, here = _source(fn, p, d, i, x.shape[d])
                inside = here if inside is None else fn.b.and_(inside, here)
            source = fn.iadd(source, fn.imul(at, x.strides[d]))
        if p.mode == "constant" and inside is not None:
            with fn.b.if_else(inside) as (then, otherwise):
                with then:
                    _row(fn, kernel, source, target, first, stop)
                with otherwise:
                    _fill(fn, kernel, target, first, stop)
        else:
            _row(fn, kernel, source, target, first, stop)


def _source(fn: Fn, p: PadParams, d: int, i: Index, extent: int) -> tuple[ir.Value, ir.Value]:
    """Where output index i of dim d lies in the input, and (constant mode) whether it does."""
    at = fn.isub(i, p.before[d])
    if p.mode == "reflect":
        at = fn.imax(at, fn.isub(0, at))
        at = fn.imin(at, fn.isub(2 * (extent - 1), at))
    elif p.mode == "edge":
        at = fn.imin(fn.imax(at, 0), extent - 1)
    return at, fn.b.icmp_unsigned("<", at, fn.index(extent))


def _row(fn: Fn, kernel: Kernel, source: Index, target: Index, first: Index, stop: Index) -> None:
    """Output indices [first, stop) of the last dim of a row that exists in the input."""
    p: PadParams = kernel.params
    x, out = kernel.operands
    last = len(out.shape) - 1
    before, extent = p.before[last], x.shape[last]
    left, right = fn.imin(fn.imax(before, first), stop), fn.imax(fn.imin(before + extent, stop), first)
    for lo, hi in ((first, left), (right, stop)):
        if p.mode == "constant":
            _fill(fn, kernel, target, lo, hi)
        else:
            with fn.loop(lo, hi, name="border") as i:
                at, _ = _source(fn, p, last, i, extent)
                v = fn.load(fn.at(fn.args["p0"], fn.iadd(source, fn.imul(at, x.strides[last])), x.dtype), x.dtype)
                fn.store(v, fn.at(fn.args["p1"], fn.iadd(target, fn.imul(i, out.strides[last])), x.dtype))

    def body(i: Index, lanes: int, count: int) -> None:
        at = fn.iadd(source, fn.imul(fn.isub(i, before), x.strides[last]))
        v = load_lanes(fn, fn.args["p0"], at, x.strides[last], x.dtype, lanes)
        store_lanes(fn, v, fn.args["p1"], fn.iadd(target, fn.imul(i, out.strides[last])), out.strides[last])

    _cover(fn, left, right, p.lanes, body)


def _fill(fn: Fn, kernel: Kernel, target: Index, lo: Index, hi: Index) -> None:
    p: PadParams = kernel.params
    out = kernel.operands[1]

    def body(i: Index, lanes: int, count: int) -> None:
        at = fn.iadd(target, fn.imul(i, out.strides[-1]))
        store_lanes(fn, fn.const(p.value, out.dtype, lanes), fn.args["p1"], at, out.strides[-1])

    _cover(fn, lo, hi, p.lanes, body)


def _cover(fn: Fn, lo: Index, hi: Index, lanes: int, body: Callable[[Index, int, int], None]) -> None:
    """Vectors, then single elements: the extent is not known at compile time."""
    stop = fn.iadd(lo, fn.imul(fn.idiv(fn.isub(fn.imax(hi, lo), lo), lanes), lanes))
    if lanes > 1:
        spans(fn, lo, stop, lanes, lanes, 0, body)
    with fn.loop(stop if lanes > 1 else lo, hi, name="single") as i:
        body(i, 1, 1)
