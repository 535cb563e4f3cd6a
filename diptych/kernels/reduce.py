"""Reductions with an elementwise program before and after: vectors along the kept dim or along the reduced one."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.access import fold_lanes, keep_lanes, load_lanes, pow2_above, store_lanes
from diptych.kernels.base import emits, evaluate
from diptych.kernels.nest import collapse, expr_cost, items, loops, register_dtype, spans, split_work, vector_lanes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from diptych.codegen.builder import Fn, Index, Var
    from diptych.ir.graph import Op
    from diptych.ir.kernel import Expr
    from diptych.targets.base import Target

__all__ = ["ReduceParams", "make_reduce"]

_CHAIN = 32  # longest chain of dependent additions: rounding errors grow with it, not with the extent


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
    """Loops over kept elements; each (or each vector of them) is folded by `_Fold`."""
    p: ReduceParams = kernel.params
    operands = kernel.operands
    shape = operands[0].shape[: p.kept]
    last = p.kept - 1
    with items(fn, shape, p.dim, p.block) as (lead, _, lo, hi):
        base: list[Index] = [fn.dot(lead, o.strides[: p.dim]) for o in operands]
        middle: list[tuple[Index, Index]] = []
        if p.dim < last:
            middle = [(lo, hi), *((0, shape[d]) for d in range(p.dim + 1, last))]
            lo, hi = 0, shape[last]
        with loops(fn, middle, [o.strides[p.dim : last] for o in operands], base) as at:

            def body(i: Index, lanes: int, count: int) -> None:
                where = [fn.iadd(a, fn.imul(i, o.strides[last])) for a, o in zip(at, operands, strict=True)]
                values = _Fold(fn, kernel, lanes, count).run(where)
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


Bank = list["Var"]  # one accumulator per operator


class _Fold:
    """The loops over the reduced dims of one kept element (or vector of them).

    Accumulators come in banks, one per vector width in use. Long chains are cut: a piece is folded into fresh
    accumulators, which are then combined into the outer ones.
    """

    def __init__(self, fn: Fn, kernel: Kernel, lanes: int, count: int) -> None:
        self.fn, self.math = fn, Math(fn)
        self.p: ReduceParams = kernel.params
        self.operands = kernel.operands[: self.p.inputs]
        self.extents = kernel.operands[0].shape[self.p.kept :]
        self.lanes, self.count = lanes, count
        self.dtypes: list[str] = []  # of the prologue's results
        self.widths: list[int] = [lanes]
        if self.p.along_reduced:
            n = self.extents[-1]
            p = self.p
            self.widths = [w for w, used in ((p.wide, n >= p.wide), (p.lanes, n % p.wide >= p.lanes)) if used]
            if n % p.lanes and not (p.lanes in self.widths):
                self.widths.append(p.lanes if n > p.lanes else pow2_above(n % p.lanes))
            self.widths = list(dict.fromkeys(self.widths)) or [1]

    def run(self, where: Sequence[Index]) -> list[Val]:
        """The folded value of each operator."""
        banks = self._banks()
        self._level(0, list(where[: self.p.inputs]), banks)
        out: list[Val] = []
        for k, op in enumerate(self.p.ops):
            total: Val | None = None
            for width, bank in zip(self.widths, banks, strict=True):
                v = self._get(bank, k, width)
                if total is not None:
                    v = self._combine(op, fold_lanes(self.fn, total, width, lambda a, b: self._combine(op, a, b)), v)  # noqa: B023
                total = v
            assert total is not None
            if self.p.along_reduced:
                total = fold_lanes(self.fn, total, 1, lambda a, b: self._combine(op, a, b))  # noqa: B023
            out.append(self.math.cast(total, self._elements()[k]))
        return out

    # -- accumulators -----------------------------------------------------------------------------------------
    def _elements(self) -> list[str]:
        """The dtypes of the prologue's results."""
        if not self.dtypes:
            self.dtypes = expr_dtypes(self.p.prologue, [o.dtype for o in self.operands])
        return self.dtypes

    def _banks(self) -> list[Bank]:
        banks = []
        for width in self.widths:
            bank: Bank = []
            for op, dtype in zip(self.p.ops, self._elements(), strict=True):
                held = register_dtype(dtype)
                start = self.math.const(op.identity(held), held, width)  # type: ignore[attr-defined]
                bank.append(self.fn.var(held, start.ir, width))
            banks.append(bank)
        return banks

    def _get(self, bank: Bank, k: int, width: int) -> Val:
        return Val(bank[k].get(), register_dtype(self._elements()[k]), width)

    def _combine(self, op: Op, a: Val, b: Val) -> Val:
        result: Val = op.combine(self.math, a, b)  # type: ignore[attr-defined]
        return result

    def _add(self, bank: Bank, width: int, values: Sequence[Val]) -> None:
        for k, (op, v) in enumerate(zip(self.p.ops, values, strict=True)):
            bank[k].set(self._combine(op, self._get(bank, k, width), v).ir)

    @contextmanager
    def _fresh(self, outer: list[Bank]) -> Iterator[list[Bank]]:
        inner = self._banks()
        yield inner
        for width, bank, into in zip(self.widths, inner, outer, strict=True):
            self._add(into, width, [self._get(bank, k, width) for k in range(len(bank))])

    # -- loops ------------------------------------------------------------------------------------------------
    def _steps(self, d: int) -> int:
        """Accumulations into one accumulator by dims d.. ."""
        steps = prod(self.extents[d:])
        return -(-steps // self.widths[0]) if self.p.along_reduced else steps

    def _level(self, d: int, at: list[Index], banks: list[Bank]) -> None:
        if d == len(self.extents) - self.p.along_reduced:
            self._leaf(at, banks)
            return
        below = self._steps(d + 1)

        def body(i: Index, inside: list[Bank]) -> None:
            here = [self.fn.iadd(a, self.fn.imul(i, o.strides[self.p.kept + d]))
                    for a, o in zip(at, self.operands, strict=True)]  # fmt: skip
            self._level(d + 1, here, inside)

        long = self.extents[d] * below > 2 * _CHAIN
        self._chain(self.extents[d], max(1, _CHAIN // below) if long else self.extents[d], banks, body)

    def _chain(self, extent: int, piece: int, banks: list[Bank], body: Callable[[Index, list[Bank]], None]) -> None:
        """body(i, banks) for i < extent, in pieces that have accumulators of their own."""
        fn = self.fn
        if extent <= piece:
            with fn.loop(0, extent, name="r") as i:
                body(i, banks)
        elif extent > piece * _CHAIN * 2:
            # So many pieces that they form a long chain themselves.
            big = piece * _CHAIN
            with fn.loop(0, extent, big, name="pieces") as start, self._fresh(banks) as outer:
                stop = fn.imin(fn.iadd(start, big), extent)
                self._pieces(start, stop, piece, outer, body)
        else:
            self._pieces(0, extent, piece, banks, body)

    def _pieces(self, start: Index, stop: Index, piece: int, banks: list[Bank],
                body: Callable[[Index, list[Bank]], None]) -> None:  # fmt: skip
        fn = self.fn
        with fn.loop(start, stop, piece, name="piece") as lo, self._fresh(banks) as inner:
            with fn.loop(lo, fn.imin(fn.iadd(lo, piece), stop), name="r") as i:
                body(i, inner)

    def _leaf(self, at: list[Index], banks: list[Bank]) -> None:
        p, fn = self.p, self.fn
        if not p.along_reduced:
            self._add(banks[0], self.lanes, self._element(at, p.kept - 1, self.lanes, self.count))
            return
        extent, axis = self.extents[-1], p.kept + len(self.extents) - 1
        start = 0
        for width in [w for w in (p.wide, p.lanes) if w in self.widths]:
            steps = (extent - start) // width
            if not steps:
                continue
            which = self.widths.index(width)

            def body(i: Index, inside: list[Bank], width: int = width, which: int = which, start: int = start) -> None:
                here = self._moved(at, axis, fn.iadd(fn.imul(i, width), start))
                self._add(inside[which], width, self._element(here, axis, width, width))

            self._chain(steps, _CHAIN if steps > 2 * _CHAIN else steps, banks, body)
            start += steps * width
        if start < extent:
            rest, width = extent - start, self.widths[-1]
            values = self._element(self._moved(at, axis, start), axis, width, rest)
            for k, (op, v) in enumerate(zip(p.ops, values, strict=True)):
                neutral = self.math.const(op.identity(v.dtype), v.dtype, width)  # type: ignore[attr-defined]
                values[k] = keep_lanes(fn, v, rest, neutral)
            self._add(banks[-1], width, values)

    def _moved(self, at: Sequence[Index], axis: int, by: Index) -> list[Index]:
        return [
            self.fn.iadd(a, self.fn.imul(by, o.strides[axis])) for a, o in zip(at, self.operands, strict=True)
        ]

    def _element(self, at: Sequence[Index], axis: int, lanes: int, count: int) -> list[Val]:
        """The prologue's results, in the dtype they are accumulated in."""
        values = [
            load_lanes(self.fn, self.fn.args[f"p{j}"], at[j], o.strides[axis], o.dtype, lanes, count)
            for j, o in enumerate(self.operands)
        ]
        results = evaluate(self.math, self.p.prologue, values)
        return [self.math.cast(self.fn.splat(v, lanes), register_dtype(v.dtype)) for v in results]


def expr_dtypes(expr: Expr, inputs: Sequence[str]) -> list[str]:
    """The dtypes of an Expr's results."""
    from diptych.ir.types import TensorType

    regs = [*inputs, *(dtype for _, dtype in expr.consts)]
    for op, args in expr.steps:
        result = op.infer(*(TensorType((), regs[a]) for a in args))
        assert isinstance(result, TensorType)
        regs.append(result.dtype)
    return [regs[r] for r in expr.results]
