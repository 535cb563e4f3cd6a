"""Reductions with an elementwise program before and after: vectors along the kept dim or along the reduced one."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import TensorType, itemsize
from diptych.kernels.access import load_lanes, store_lanes
from diptych.kernels.base import emits, evaluate
from diptych.kernels.fold import Accumulator, Dims, fold
from diptych.kernels.nest import advance, collapse, expr_cost, lines, register_dtype, spans, split_work, vector_lanes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.codegen.builder import Fn, Index, Val
    from diptych.ir.graph import Op
    from diptych.ir.kernel import Expr
    from diptych.targets.base import Target

__all__ = ["ReduceParams", "expr_dtypes", "make_reduce"]

@dataclass(frozen=True, slots=True)
class ReduceParams:
    """Operands: `inputs` over (kept, reduced) dims, epilogue operands over kept dims, outputs over kept dims.

    The prologue gives one result per operator in `ops`, each is folded over the reduced dims; registers 0.. of the
    epilogue are the folded values. `along_reduced`: vectors run along the last reduced dim, else the last kept one.
    """

    kept: int  # number of kept dims
    inputs: int
    prologue: Expr
    ops: tuple[Op, ...]
    epilogue: Expr
    along_reduced: bool
    dim: int
    block: int
    lanes: int
    wide: int

    def __str__(self) -> str:
        names = ",".join(op.name for op in self.ops)
        return f"[{self.prologue}] {names} {'in' if self.along_reduced else 'across'} vectors [{self.epilogue}]"


def make_reduce(shape: tuple[int, ...], axes: tuple[int, ...], prologue: Expr, ops: tuple[Op, ...], epilogue: Expr,
                inputs: Sequence[Operand], extras: Sequence[Operand], outputs: Sequence[Operand],
                target: Target) -> Kernel:  # fmt: skip
    """Kernel that folds `axes` of `shape`.

    `inputs` are views over `shape` (stride 0 broadcasts); `extras` (epilogue registers len(ops)..) and `outputs` are
    views over `shape` without `axes`.
    """
    kept_axes = [d for d in range(len(shape)) if d not in axes]
    kept_strides = [tuple(o.strides[d] for d in kept_axes) for o in inputs] + [o.strides for o in (*extras, *outputs)]
    kept, kept_walk = collapse([shape[d] for d in kept_axes], kept_strides, len(inputs) + len(extras))
    if not kept:
        kept, kept_walk = [1 if 0 not in (shape[d] for d in kept_axes) else 0], [[0] for _ in kept_strides]
    reduced, walk = collapse([shape[d] for d in axes], [tuple(o.strides[d] for d in axes) for o in inputs], 0)
    if not reduced:
        reduced, walk = [prod(shape[d] for d in axes)], [[0] for _ in inputs]
    lanes = vector_lanes([o.dtype for o in (*inputs, *extras, *outputs)], target)
    unit_kept = sum(w[-1] == 1 for w in kept_walk[: len(inputs)])
    unit_reduced = sum(w[-1] == 1 for w in walk)
    if unit_kept == unit_reduced:
        along = reduced[-1] > kept[-1]
    else:
        along = unit_reduced > unit_kept
    inner, strides = (reduced[-1], walk) if along else (kept[-1], kept_walk)
    heavy = expr_cost(prologue)
    contiguous = all(w[-1] in (0, 1) for w in strides[: len(inputs)])
    unroll = (4 if heavy <= 8 else 2 if heavy <= 40 else 1) if contiguous else 1
    while unroll > 1 and inner < lanes * unroll:
        unroll //= 2
    wide = lanes * unroll
    total = prod(reduced)
    grain = max(1, 8192 // max(1, total))
    dim, block, work = split_work(kept, grain, 1 if along else wide)
    traffic = sum(itemsize(o.dtype) for o in inputs) * prod(kept) * total
    cost = 20 + traffic * (1 if contiguous else 4) / 30 + prod(kept) * (total * heavy / lanes / 8 + (8 if along else 1))
    both = (*kept, *reduced)
    operands = [Operand(both, (*k, *r), o.dtype) for o, k, r in zip(inputs, kept_walk, walk)]
    tail = zip((*extras, *outputs), kept_walk[len(inputs) :], strict=True)
    operands += [Operand(tuple(kept), tuple(k), o.dtype) for o, k in tail]
    params = ReduceParams(len(kept), len(inputs), prologue, ops, epilogue, along, dim, block, lanes, wide)
    return Kernel("reduce", params, tuple(operands), len(outputs), work, cost)


@emits("reduce")
def emit_reduce(fn: Fn, kernel: Kernel) -> None:
    """Loops over kept elements; each (or each vector of them) is folded by `_fold`."""
    p: ReduceParams = kernel.params
    operands = kernel.operands
    shape = operands[0].shape[: p.kept]
    last = p.kept - 1
    with lines(fn, shape, p.dim, p.block, [o.strides for o in operands]) as (at, lo, hi):

        def body(i: Index, lanes: int, count: int) -> None:
            where = advance(fn, at, i, [o.strides[last] for o in operands])
            values = _fold(fn, kernel, where, lanes, count)
            n_in = len(operands) - kernel.outputs
            for j in range(p.inputs, n_in):
                o = operands[j]
                values.append(load_lanes(fn, fn.args[f"p{j}"], where[j], o.strides[last], o.dtype, lanes, count))
            for j, v in enumerate(evaluate(Math(fn), p.epilogue, values), n_in):
                o = operands[j]
                assert v.dtype == o.dtype, f"result {j - n_in} is {v.dtype}, the operand {o.dtype}"
                store_lanes(fn, fn.splat(v, lanes), fn.args[f"p{j}"], where[j], o.strides[last], count)

        if p.along_reduced:
            with fn.loop(lo, hi, name="row") as i:
                body(i, 1, 1)
        else:
            spans(fn, lo, hi, p.lanes, p.wide, shape[last] % p.lanes, body)


def _fold(fn: Fn, kernel: Kernel, where: Sequence[Index], lanes: int, count: int) -> list[Val]:
    """The folded value of each operator, for the kept element (or vector of them) at `where`."""
    p: ReduceParams = kernel.params
    math, operands = Math(fn), kernel.operands[: p.inputs]
    axis = len(operands[0].shape) - 1 if p.along_reduced else p.kept - 1

    def accumulator(op: Op, dtype: str) -> Accumulator:
        held = register_dtype(dtype)
        return Accumulator(op.identity(held), held, lambda a, b: op.combine(math, a, b))  # type: ignore[attr-defined]

    def element(index: list[Index], lanes: int, count: int) -> list[Val]:
        values = []
        for j, o in enumerate(operands):
            at = fn.iadd(where[j], fn.dot(index, o.strides[p.kept :]))
            values.append(load_lanes(fn, fn.args[f"p{j}"], at, o.strides[axis], o.dtype, lanes, count))
        results = evaluate(math, p.prologue, values)
        return [math.cast(fn.splat(v, lanes), register_dtype(v.dtype)) for v in results]

    dtypes = expr_dtypes(p.prologue, [o.dtype for o in operands])
    dims = Dims(operands[0].shape[p.kept :], p.along_reduced, p.lanes if p.along_reduced else lanes, p.wide, count)
    folded = fold(fn, dims, [accumulator(op, d) for op, d in zip(p.ops, dtypes, strict=True)], element)
    return [math.cast(v, d) for v, d in zip(folded, dtypes, strict=True)]


def expr_dtypes(expr: Expr, inputs: Sequence[str]) -> list[str]:
    """The dtypes of an Expr's results."""
    regs = [*inputs, *(dtype for _, dtype in expr.consts)]
    for op, args in expr.steps:
        result = op.infer(*(TensorType((), regs[a]) for a in args))
        assert isinstance(result, TensorType)
        regs.append(result.dtype)
    return [regs[r] for r in expr.results]
