"""Iteration spaces: dropping, sorting and merging dims, cutting them into work items, vector loops with tails."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from math import prod
from typing import TYPE_CHECKING

from diptych.ir.types import itemsize
from diptych.kernels.access import pow2_above

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.ir.kernel import Expr
    from diptych.targets.base import Target

__all__ = [
    "advance", "block_rows", "collapse", "expr_cost", "items", "lines", "loops", "merged", "register_dtype", "spans", "split_work",
    "vector_lanes",
]  # fmt: skip

Strides = tuple[int, ...]

# Rough work of an operator in vector instructions, where it is more than one or two.
_HEAVY = {"exp": 10, "log": 12, "tanh": 14, "sigmoid": 14, "erf": 20, "normal_cdf": 14, "pow": 40, "sin": 25, "cos": 25, "gelu": 20,
          "div": 4, "sqrt": 4, "silu": 14, "softplus": 25, "mish": 30, "lgamma": 60, "erfinv": 40}  # fmt: skip


def expr_cost(expr: Expr) -> int:
    """Vector instructions of an Expr, roughly."""
    return sum(_HEAVY.get(op.name, 2 if len(args) < 3 else 3) for op, args in expr.steps)


def register_dtype(dtype: str) -> str:
    """The dtype that arithmetic on `dtype` is done in (half precision is stored, not computed in)."""
    return "f32" if dtype in ("f16", "bf16") else dtype


def vector_lanes(dtypes: Sequence[str], target: Target) -> int:
    """Lanes of a vector in which the widest of `dtypes` fills one register."""
    return target.lanes(max(itemsize(register_dtype(d)) for d in dtypes))


def merged(shape: Sequence[int], strides: Sequence[Strides]) -> tuple[list[int], list[list[int]]]:
    """Merge neighbouring dims that every operand walks as one. `strides` holds one tuple per operand."""
    dims: list[int] = []
    walk: list[list[int]] = [[] for _ in strides]
    for d, extent in enumerate(shape):
        if extent == 1:
            continue
        here = [s[d] for s in strides]
        if dims and all(w[-1] == h * extent for w, h in zip(walk, here, strict=True)):
            dims[-1] *= extent
            for w, h in zip(walk, here, strict=True):
                w[-1] = h
        else:
            dims.append(extent)
            for w, h in zip(walk, here, strict=True):
                w.append(h)
    return dims, walk


def collapse(shape: Sequence[int], strides: Sequence[Strides], key: int) -> tuple[list[int], list[list[int]]]:
    """Drop dims of extent 1, sort the rest by the stride of operand `key` (largest first), merge neighbours."""
    order = sorted(range(len(shape)), key=lambda d: -abs(strides[key][d]))
    return merged([shape[d] for d in order], [tuple(s[d] for d in order) for s in strides])


def split_work(shape: Sequence[int], grain: int, align: int, target_items: int = 64) -> tuple[int, int, int]:
    """Cut a row-major iteration space into items of at least about `grain` elements, at most about `target_items`.

    Returns (dim, block, items): an item is one index of the dims before `dim` and `block` indices of `dim`.
    When `dim` is the last one, `block` is a multiple of `align` (or the whole dim).
    """
    total = prod(shape)
    if total == 0:
        return 0, 1, 0
    wanted = max(1, min(target_items, total // max(1, grain)))
    lead = 1
    for d, extent in enumerate(shape):
        if lead * extent >= wanted or d == len(shape) - 1:
            blocks = max(1, min(extent, -(-wanted // lead)))
            block = -(-extent // blocks)
            if d == len(shape) - 1 and block < extent:
                block = min(extent, -(-block // align) * align)
            return d, block, lead * -(-extent // block)
        lead *= extent
    return 0, 1, 1


@contextmanager
def items(fn: Fn, shape: Sequence[int], dim: int, block: int) -> Iterator[tuple[list[ir.Value], ir.Value, Index, Index]]:
    """The loop over work items of a space cut by `split_work`: (leading indices, first index of `dim`, lo, hi)."""
    extent = shape[dim] if shape else 1
    blocks = -(-extent // block)
    with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
        *lead, at = fn.unravel(item, (*shape[:dim], blocks))
        lo: Index = 0 if blocks == 1 else fn.imul(at, block)
        hi: Index = extent if blocks == 1 else fn.imin(fn.iadd(lo, block), extent)
        yield lead, at, lo, hi


@contextmanager
def block_rows(fn: Fn, shape: Sequence[int], dim: int, block: int) -> Iterator[tuple[ir.Value, ir.Value, ir.Value]]:
    """The rows (image, block of channels, row) of this thread, of a space of these three axes cut by `split_work`."""
    with items(fn, shape, dim, block) as (lead, _, lo, hi):
        index: list[tuple[Index, Index]] = [(i, fn.iadd(i, 1)) for i in lead]
        index += [(lo, hi), *((0, shape[d]) for d in range(dim + 1, 3))]
        with (
            fn.loop(*index[0], name="n") as n,
            fn.loop(*index[1], name="block") as b,
            fn.loop(*index[2], name="row") as row,
        ):
            yield n, b, row


@contextmanager
def loops(fn: Fn, extents: Sequence[tuple[Index, Index]], strides: Sequence[Sequence[int]],
          offsets: Sequence[Index]) -> Iterator[list[Index]]:  # fmt: skip
    """Nested loops over ranges; yields each operand's offset at the innermost level."""
    now: list[Index] = list(offsets)
    with ExitStack() as stack:
        for d, (lo, hi) in enumerate(extents):
            i = stack.enter_context(fn.loop(lo, hi, name=f"d{d}"))
            now = [fn.iadd(o, fn.imul(i, s[d])) for o, s in zip(now, strides, strict=True)]
        yield now


@contextmanager
def lines(fn: Fn, shape: Sequence[int], dim: int, block: int,
          strides: Sequence[Sequence[int]]) -> Iterator[tuple[list[Index], Index, Index]]:  # fmt: skip
    """The lines along the last axis of the work items of a space cut by `split_work`: (each operand's offset, lo, hi)."""
    last = len(shape) - 1
    with items(fn, shape, dim, block) as (lead, _, lo, hi):
        base: list[Index] = [fn.dot(lead, s[:dim]) for s in strides]
        middle: list[tuple[Index, Index]] = []
        if dim < last:
            middle = [(lo, hi), *((0, shape[d]) for d in range(dim + 1, last))]
            lo, hi = 0, shape[last]
        with loops(fn, middle, [s[dim:last] for s in strides], base) as at:
            yield at, lo, hi


def advance(fn: Fn, at: Sequence[Index], i: Index, strides: Sequence[int]) -> list[Index]:
    """The offset of every operand `i` elements further along an axis; `strides` holds one stride per operand."""
    return [fn.iadd(a, fn.imul(i, s)) for a, s in zip(at, strides, strict=True)]


def spans(fn: Fn, lo: Index, hi: Index, lanes: int, wide: int, rest: int,
          body: Callable[[Index, int, int], None]) -> None:  # fmt: skip
    """Call body(i, lanes, count) so that [lo, hi) is covered: wide steps, then vectors, then one partial vector.

    `rest` is what `(hi - lo) % lanes` is when it is not 0; it must be a compile-time constant.
    """
    n = fn.isub(hi, lo)
    at: Index = lo
    for step in dict.fromkeys((wide, lanes)):
        size = hi - lo if isinstance(hi, int) and isinstance(lo, int) else None
        if size is not None and size < step:
            continue
        stop = fn.iadd(lo, fn.imul(fn.idiv(n, step), step))
        with fn.loop(at, stop, step, name=f"v{step}") as i:
            body(i, step, step)
        at = stop
    if rest:
        if isinstance(hi, int) and isinstance(lo, int):
            body(at, min(lanes, pow2_above(rest)), rest)
        else:
            with fn.if_(fn.b.icmp_signed("<", fn.index(at), fn.index(hi))):
                body(at, min(lanes, pow2_above(rest)), rest)
