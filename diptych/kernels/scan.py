"""Along one axis: running sums and products, and the position of the largest or smallest element."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from diptych.codegen.builder import I32, Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.kernels.access import halves, load_lanes, store_lanes
from diptych.kernels.base import emits
from diptych.kernels.nest import advance, collapse, lines, register_dtype, spans, split_work, vector_lanes

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.codegen.builder import Fn, Index
    from diptych.targets.base import Target

__all__ = ["ScanParams", "make_arg_extremum", "make_scan"]


@dataclass(frozen=True, slots=True)
class ScanParams:
    """Operands: x over (kept dims, axis), out over the same (a scan) or over the kept dims with stride 0 on the axis.

    kind: "cumsum", "cumprod", "argmax", "argmin". `along`: the axis is contiguous, else vectors run along the kept dim.
    """

    kind: str
    along: bool
    dim: int
    block: int
    lanes: int


def make_scan(kind: str, x: Operand, axis: int, out: Operand, target: Target) -> Kernel:
    """Running sum ("cumsum") or product ("cumprod") along `axis`."""
    return _make(kind, x, axis, out, target)


def make_arg_extremum(kind: str, x: Operand, axis: int, out: Operand, target: Target) -> Kernel:
    """Index (i64) of the first maximum ("argmax") or minimum ("argmin") along `axis`; NaN counts as the extremum.

    `out` is over x's shape, with any stride along `axis`: its extent there counts as 1.
    """
    strides = tuple(0 if d == axis % len(x.shape) else s for d, s in enumerate(out.strides))
    return _make(kind, x, axis, Operand(x.shape, strides, out.dtype), target)


def _make(kind: str, x: Operand, axis: int, out: Operand, target: Target) -> Kernel:
    axis %= len(x.shape)
    others = [d for d in range(len(x.shape)) if d != axis]
    dims, walk = collapse(
        [x.shape[d] for d in others], [tuple(o.strides[d] for d in others) for o in (x, out)], 1
    )
    if not dims:
        dims, walk = [prod(x.shape[d] for d in others)], [[0], [0]]
    n = x.shape[axis]
    along = walk[0][-1] != 1 or (x.strides[axis] == 1 and n > dims[-1])
    lanes = vector_lanes([x.dtype], target)
    dim, block, work = split_work(dims, max(1, 2048 // max(1, n)), 1 if along else lanes)
    made = tuple(
        Operand((*dims, n), (*w, o.strides[axis]), o.dtype) for w, o in zip(walk, (x, out), strict=True)
    )
    cost = 20 + prod(x.shape) * (1.5 if along and kind.startswith("cum") else 0.3)
    return Kernel(kind, ScanParams(kind, along, dim, block, lanes), made, 1, work if n else 0, cost)


def _rows(fn: Fn, kernel: Kernel, row: Callable[[list[Index], int, int], None]) -> None:
    """row(offsets of the operands, lanes, count) for every kept element, or vector of them."""
    p: ScanParams = kernel.params
    operands = kernel.operands
    shape = operands[0].shape[:-1]
    last = len(shape) - 1
    with lines(fn, shape, p.dim, p.block, [o.strides for o in operands]) as (at, lo, hi):

        def body(i: Index, lanes: int, count: int) -> None:
            row(advance(fn, at, i, [o.strides[last] for o in operands]), lanes, count)

        lanes = 1 if p.along else p.lanes
        spans(fn, lo, hi, lanes, lanes, shape[last] % lanes, body)


def _emit_scan(fn: Fn, kernel: Kernel) -> None:
    x, out = kernel.operands
    m = Math(fn)
    held = register_dtype(x.dtype)
    step = m.add if kernel.kind == "cumsum" else m.mul

    def row(at: list[Index], lanes: int, count: int) -> None:
        acc = fn.var(held, m.const(0 if kernel.kind == "cumsum" else 1, held, lanes).ir, lanes)
        with fn.loop(0, x.shape[-1], name="step") as i:
            here = [fn.iadd(a, fn.imul(i, o.strides[-1])) for a, o in zip(at, kernel.operands, strict=True)]
            v = load_lanes(fn, fn.args["p0"], here[0], x.strides[-2], x.dtype, lanes, count)
            total = step(Val(acc.get(), held, lanes), m.cast(v, held))
            acc.set(total.ir)
            store_lanes(fn, m.cast(total, out.dtype), fn.args["p1"], here[1], out.strides[-2], count)

    _rows(fn, kernel, row)


class _Best:
    """The running extremum: its value and its index, one a lane."""

    def __init__(self, fn: Fn, kind: str, dtype: str) -> None:
        self.fn, self.m, self.dtype = fn, Math(fn), dtype
        self.predicate = "gt" if kind == "argmax" else "lt"

    def better(self, a: Val, b: Val) -> Any:
        """a before b: strictly more extreme, or the first NaN."""
        found = self.m.cmp(self.predicate, a, b)
        if a.dtype[0] == "f":
            b_is_number = self.m.cmp("eq", b, b)
            found = self.m.bit_and(self.m.bit_or(found, self.m.cmp("ne", a, a)), b_is_number)
        return found.ir

    def merge(self, a: tuple[Val, Val], b: tuple[Val, Val]) -> tuple[Val, Val]:
        """The better of two candidates, the lower index where they tie."""
        bld = self.fn.b
        tie = bld.and_(bld.not_(self.better(a[0], b[0])), bld.icmp_signed("<", b[1].ir, a[1].ir))
        take = bld.or_(self.better(b[0], a[0]), tie)
        return (
            Val(bld.select(take, b[0].ir, a[0].ir), a[0].dtype, a[0].lanes),
            Val(bld.select(take, b[1].ir, a[1].ir), "i32", a[1].lanes),
        )


def _emit_arg(fn: Fn, kernel: Kernel) -> None:
    x, out = kernel.operands
    p: ScanParams = kernel.params
    n, stride = x.shape[-1], x.strides[-1]
    held = register_dtype(x.dtype)
    best = _Best(fn, kernel.kind, held)

    def load(at: Index, step: int, lanes: int, count: int) -> Val:
        return best.m.cast(load_lanes(fn, fn.args["p0"], at, step, x.dtype, lanes, count), held)

    def follow(start: int, at: Index, step: int, lanes: int, count: int, first: tuple[Val, Val]) -> tuple[Val, Val]:
        """Elements start.. one after the other; a later one must be strictly better."""
        value, where = fn.var(held, first[0].ir, lanes), fn.var("i32", first[1].ir, lanes)
        with fn.loop(start, n, name="next") as i:
            v = load(fn.iadd(at, fn.imul(i, stride)), step, lanes, count)
            old = Val(value.get(), held, lanes)
            take = best.better(v, old)
            index = fn.splat(Val(fn.b.trunc(i, I32), "i32"), lanes)
            value.set(fn.b.select(take, v.ir, old.ir))
            where.set(fn.b.select(take, index.ir, where.get()))
        return Val(value.get(), held, lanes), Val(where.get(), "i32", lanes)

    def row(at: list[Index], lanes: int, count: int) -> None:
        kept = x.strides[-2]
        wide = p.lanes
        if p.along and stride == 1 and n >= 4 * wide and wide > 1:
            count_wide = n // wide * wide
            ramp = ir.Constant(ir.VectorType(I32, wide), list(range(wide)))
            value = fn.var(held, load(at[0], 1, wide, wide).ir, wide)
            where = fn.var("i32", ramp, wide)
            with fn.loop(wide, count_wide, wide, name="vector") as i:
                v = load(fn.iadd(at[0], i), 1, wide, wide)
                old = Val(value.get(), held, wide)
                take = best.better(v, old)
                index = fn.b.add(fn.splat(Val(fn.b.trunc(i, I32), "i32"), wide).ir, ramp)
                value.set(fn.b.select(take, v.ir, old.ir))
                where.set(fn.b.select(take, index, where.get()))
            pair = Val(value.get(), held, wide), Val(where.get(), "i32", wide)
            while pair[0].lanes > 1:
                (v0, v1), (w0, w1) = halves(fn, pair[0]), halves(fn, pair[1])
                pair = best.merge((v0, w0), (v1, w1))
            found = follow(count_wide, at[0], 0, 1, 1, pair)
        else:
            first = load(at[0], kept, lanes, count)
            found = follow(1, at[0], kept, lanes, count, (first, fn.const(0, "i32", lanes)))
        index64 = best.m.cast(found[1], "i64")
        store_lanes(fn, index64, fn.args["p1"], at[1], out.strides[-2], count)

    _rows(fn, kernel, row)


@emits("cumsum")
def emit_cumsum(fn: Fn, kernel: Kernel) -> None:
    """One accumulator (or vector of them) a row."""
    _emit_scan(fn, kernel)


@emits("cumprod")
def emit_cumprod(fn: Fn, kernel: Kernel) -> None:
    """One accumulator (or vector of them) a row."""
    _emit_scan(fn, kernel)


@emits("argmax")
def emit_argmax(fn: Fn, kernel: Kernel) -> None:
    """Each lane keeps its best element and where it was; the lanes are compared at the end."""
    _emit_arg(fn, kernel)


@emits("argmin")
def emit_argmin(fn: Fn, kernel: Kernel) -> None:
    """Each lane keeps its best element and where it was; the lanes are compared at the end."""
    _emit_arg(fn, kernel)
