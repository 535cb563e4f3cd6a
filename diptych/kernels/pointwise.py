"""Elementwise programs over strided operands: also copies, casts, broadcasts and transposes (the empty program)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.math import Math
from diptych.ir.kernel import Expr, Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.access import load_lanes, store_lanes, transpose_lanes
from diptych.kernels.base import emits, evaluate
from diptych.kernels.nest import advance, collapse, expr_cost, lines, spans, split_work, vector_lanes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.codegen.builder import Fn, Index, Val
    from diptych.targets.base import Target

__all__ = ["PointwiseParams", "make_copy", "make_fill", "make_pointwise"]

_GRAIN = 4096  # elements of a work item: some microseconds


@dataclass(frozen=True, slots=True)
class PointwiseParams:
    """Operands are inputs, then outputs, all over one collapsed iteration shape.

    A work item is one index of the dims before `dim` and `block` indices of `dim`. With `tiled`, the last two dims
    are walked in square tiles, and inputs that are contiguous along the last but one are transposed in registers.
    """

    expr: Expr
    dim: int
    block: int
    lanes: int
    wide: int
    tiled: bool = False

    def __str__(self) -> str:
        return f"[{self.expr}]{' tiled' if self.tiled else ''}"


def make_pointwise(shape: tuple[int, ...], expr: Expr, inputs: Sequence[Operand], outputs: Sequence[Operand],
                   target: Target) -> Kernel:  # fmt: skip
    """Kernel for outputs[j][i] = expr(inputs[..][i])[j]; every operand's shape is `shape`, stride 0 broadcasts."""
    every = [*inputs, *outputs]
    dims, walk = collapse(shape, [o.strides for o in every], len(inputs))
    if not dims:
        dims, walk = [prod(shape)], [[0] for _ in every]
    lanes = vector_lanes([o.dtype for o in every] or ["f32"], target)
    tile_dim = _transposed(dims, walk, len(inputs), [o.dtype for o in every], lanes)
    tiled = tile_dim is not None
    if tile_dim is not None:
        order = [d for d in range(len(dims) - 1) if d != tile_dim] + [tile_dim, len(dims) - 1]
        dims, walk = [dims[d] for d in order], [[w[d] for d in order] for w in walk]
    heavy = expr_cost(expr)
    contiguous = all(w[-1] in (0, 1) for w in walk)
    unroll = (4 if heavy <= 8 else 2 if heavy <= 40 else 1) if contiguous and not tiled else 1
    wide = lanes * unroll if dims[-1] >= 2 * lanes * unroll else lanes
    grain = max(512, _GRAIN // (1 + heavy // 8))
    if tiled:
        dim, block, work = split_work(dims[:-1], max(1, grain // dims[-1]), 2 * lanes)
    else:
        dim, block, work = split_work(dims, grain, wide)
    total = prod(dims)
    traffic = sum(total * itemsize(o.dtype) for o, w in zip(every, walk, strict=True) if any(w))
    slow = 1 if contiguous else 2 if tiled else 4
    cost = 20 + slow * traffic / 40 + total * heavy / lanes / 8
    made = [Operand(tuple(dims), tuple(w), o.dtype) for o, w in zip(every, walk, strict=True)]
    params = PointwiseParams(expr, dim, block, lanes, wide, tiled)
    return Kernel("pointwise", params, tuple(made), len(outputs), work, cost)


def make_fill(value: float | int | bool, out: Operand, target: Target) -> Kernel:
    """Kernel that writes a constant into a strided region."""
    return make_pointwise(out.shape, Expr(0, ((value, out.dtype),), (), (0,)), [], [out], target)


def make_copy(source: Operand, out: Operand, target: Target) -> Kernel:
    """Kernel that copies one strided view into another of the same shape and dtype (transposes, broadcasts, slices)."""
    return make_pointwise(out.shape, Expr.identity(), [source], [out], target)


def _transposed(dims: list[int], walk: list[list[int]], n_in: int, dtypes: list[str], lanes: int) -> int | None:
    """The dim along which some input is contiguous while the outputs are along the last one; None if there is none."""
    if len(dims) < 2 or lanes < 2 or dims[-1] < lanes or any(w[-1] != 1 for w in walk[n_in:]):
        return None
    sizes = {itemsize(d) for d in dtypes}
    if len(sizes) > 1 or sizes.pop() not in (4, 8):
        return None
    votes = [d for w in walk[:n_in] if w[-1] not in (0, 1) for d in range(len(dims) - 1) if w[d] == 1]
    best = max(set(votes), key=votes.count, default=None)
    return best if best is not None and dims[best] >= lanes else None


@emits("pointwise")
def emit_pointwise(fn: Fn, kernel: Kernel) -> None:
    """Loops over the item's dims, the last one in vectors."""
    p: PointwiseParams = kernel.params
    operands = kernel.operands
    shape = operands[0].shape
    last = len(shape) - 1
    if p.tiled:
        _emit_tiled(fn, kernel)
        return
    with lines(fn, shape, p.dim, p.block, [o.strides for o in operands]) as (at, lo, hi):

        def body(i: Index, lanes: int, count: int) -> None:
            where = advance(fn, at, i, [o.strides[last] for o in operands])
            _element(fn, kernel, where, last, lanes, count)

        spans(fn, lo, hi, p.lanes, p.wide, shape[last] % p.lanes, body)


def _element(fn: Fn, kernel: Kernel, where: Sequence[Index], axis: int, lanes: int, count: int) -> None:
    """Load `count` elements along `axis`, evaluate, store."""
    p: PointwiseParams = kernel.params
    n_in = len(kernel.operands) - kernel.outputs
    values = [
        load_lanes(fn, fn.args[f"p{j}"], where[j], o.strides[axis], o.dtype, lanes, count)
        for j, o in enumerate(kernel.operands[:n_in])
    ]
    _write(fn, kernel, evaluate(Math(fn), p.expr, values), where, axis, lanes, count)


def _write(fn: Fn, kernel: Kernel, results: Sequence[Val], where: Sequence[Index], axis: int, lanes: int,
           count: int) -> None:  # fmt: skip
    n_in = len(kernel.operands) - kernel.outputs
    for j, value in enumerate(results, n_in):
        o = kernel.operands[j]
        assert value.dtype == o.dtype, f"result {j - n_in} is {value.dtype}, the operand {o.dtype}"
        store_lanes(fn, fn.splat(value, lanes), fn.args[f"p{j}"], where[j], o.strides[axis], count)


def _emit_tiled(fn: Fn, kernel: Kernel) -> None:
    """Square tiles of the last two dims (rows, cols); what does not fill a tile is done element by element."""
    p: PointwiseParams = kernel.params
    operands, n = kernel.operands, p.lanes
    shape = operands[0].shape
    last = len(shape) - 1
    rows_dim = last - 1
    n_in = len(operands) - kernel.outputs
    cols_full = shape[last] // n * n
    with lines(fn, shape[:-1], p.dim, p.block, [o.strides for o in operands]) as (at, lo, hi):
        rows_stop = fn.iadd(lo, fn.imul(fn.idiv(fn.isub(hi, lo), n), n))

        def tile(row: Index, col: Index) -> None:
            corner = [fn.iadd(a, fn.dot([row, col], o.strides[rows_dim:])) for a, o in zip(at, operands, strict=True)]
            loaded: list[list[Val]] = []
            for j, o in enumerate(operands[:n_in]):
                sr, sc = o.strides[rows_dim:]
                pointer = fn.args[f"p{j}"]
                if sr == 1 and sc not in (0, 1):
                    columns = [load_lanes(fn, pointer, fn.iadd(corner[j], c * sc), 1, o.dtype, n) for c in range(n)]
                    loaded.append(transpose_lanes(fn, columns))
                else:
                    loaded.append(
                        [load_lanes(fn, pointer, fn.iadd(corner[j], r * sr), sc, o.dtype, n) for r in range(n)]
                    )
            for r in range(n):
                where = [fn.iadd(c, r * o.strides[rows_dim]) for c, o in zip(corner, operands, strict=True)]
                results = evaluate(Math(fn), p.expr, [v[r] for v in loaded])
                _write(fn, kernel, results, where, last, n, n)

        def single(row: Index, col: Index) -> None:
            where = [fn.iadd(a, fn.dot([row, col], o.strides[rows_dim:])) for a, o in zip(at, operands, strict=True)]
            _element(fn, kernel, where, last, 1, 1)

        # Strips of two vectors of rows: whole cache lines of the transposed inputs are used while they are in L1.
        with fn.loop(lo, rows_stop, 2 * n, name="strip") as strip:
            strip_end = fn.imin(fn.iadd(strip, 2 * n), rows_stop)
            with fn.loop(0, cols_full, n, name="col") as col, fn.loop(strip, strip_end, n, name="row") as row:
                tile(row, col)
        if shape[last] > cols_full:
            with fn.loop(lo, rows_stop, name="row") as row, fn.loop(cols_full, shape[last], name="col") as col:
                single(row, col)
        with fn.loop(0, shape[last], name="col") as col, fn.loop(rows_stop, hi, name="row") as row:
            single(row, col)
