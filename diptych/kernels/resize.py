"""Resampling of spatial dims: every output is a weighted sum of a few input elements, tabled per dim."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import I64, Val, register_type
from diptych.codegen.math import Math
from diptych.ir.kernel import Expr, Kernel, Operand
from diptych.kernels.access import load_lanes, shuffle, store_lanes
from diptych.kernels.base import emits, evaluate
from diptych.kernels.nest import expr_cost, items, register_dtype, spans, split_work, vector_lanes
from diptych.kernels.resize_columns import ColumnRun, column_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.codegen.builder import Fn, Index
    from diptych.targets.base import Target

__all__ = ["ResizeParams", "Taps", "make_resize"]

Taps = tuple[tuple[tuple[int, ...], tuple[float, ...]], ...]  # per output position: input indices, their weights


@dataclass(frozen=True, slots=True)
class ResizeParams:
    """Operands: x, epilogue operands, out: [N, C, *S] and, when blocked, 16 channels inside. `taps`: a table a dim."""

    taps: tuple[Taps, ...]
    lane_dim: int  # the dim of the operands that vectors run along; -1: none
    columns: tuple[ColumnRun, ...]  # how vectors run along the last spatial dim, if it is that
    epilogue: Expr
    dim: int
    block: int
    lanes: int

    def __str__(self) -> str:
        sizes = "x".join(str(len(t)) for t in self.taps)
        return f"to {sizes}, {'x'.join(str(len(t[0][0])) for t in self.taps)} taps [{self.epilogue}]"


def make_resize(x: Operand, out: Operand, taps: Sequence[Taps], target: Target, *, blocked: bool = False,
                epilogue: Expr | None = None, extras: Sequence[Operand] = ()) -> Kernel:  # fmt: skip
    """Resize x[N, C, *S] (blocked: [N, C/16, *S, 16]) by a table per spatial dim: for each output position the input
    indices and their weights. One tap of weight 1 each is nearest neighbour."""
    epilogue = epilogue or Expr.identity()
    rank = len(taps)
    if [len(t) for t in taps] != list(out.shape[2 : 2 + rank]):
        raise ValueError(f"resize: tables for {[len(t) for t in taps]} positions, the output is {out}")
    every = (x, *extras, out)
    # Vectors had best run along a dim that is not resampled and contiguous: the channels of a block, or those of a channels-last view.
    lane_dim = len(out.shape) - 1 if blocked else 1 if x.strides[1] == out.strides[1] == 1 else -1
    lanes = vector_lanes([o.dtype for o in every], target)
    columns: tuple[ColumnRun, ...] = ()
    if lane_dim < 0 and x.strides[-1] == out.strides[-1] == 1 and not extras and 0 not in out.shape:
        # Else along a row, where shuffles bring the inputs of neighbouring outputs together.
        columns = column_runs([at for at, _ in taps[-1]], x.shape[-1], lanes)
    if columns:
        lane_dim, lanes = 1 + rank, len(columns[0].lanes[0])
    elif lane_dim < 0:
        lanes = 1
    outer = tuple(d for i, d in enumerate(out.shape) if i != lane_dim)[: 1 + rank - (lane_dim == 1)]
    window = prod(len(t[0][0]) for t in taps if t)
    last = prod(out.shape) // max(1, prod(outer))
    dim, block, work = split_work(outer, max(1, 4096 // max(1, last * window)), 1)
    if 0 in out.shape:
        work = 0
    cost = 20 + prod(out.shape) * (2 * window + expr_cost(epilogue)) / lanes / 3
    params = ResizeParams(tuple(taps), lane_dim, columns, epilogue, dim, block, lanes)
    return Kernel("resize", params, every, 1, work, cost)


@emits("resize")
def emit_resize(fn: Fn, kernel: Kernel) -> None:
    """Loops over the outputs; the tables are constants of the module."""
    p: ResizeParams = kernel.params
    _Resize(fn, kernel, [_table(fn, p, d) for d in range(len(p.taps))]).emit()


def _table(fn: Fn, p: ResizeParams, d: int) -> tuple[ir.Value, ir.Value | None]:
    """Addresses of the indices and the weights (None: all of them are 1) of spatial dim d."""
    taps = p.taps[d]
    weights = [w for _, ws in taps for w in ws]

    indices = _constant(fn, f"at{d}", I64, [i for at, _ in taps for i in at])
    if all(w == 1 for w in weights) and len(taps[0][0]) == 1:
        return indices, None
    return indices, _constant(fn, f"by{d}", register_type("f64"), [float(w) for w in weights])


def _constant(fn: Fn, what: str, element: ir.Type, values: list[int] | list[float]) -> ir.Value:
    """A table in the module."""
    t = ir.ArrayType(element, len(values))
    g = ir.GlobalVariable(fn.module, t, f"{fn.function.name}.{what}")
    g.initializer = ir.Constant(t, values)
    g.global_constant = True
    g.linkage = "internal"
    return g


class _Resize:
    def __init__(self, fn: Fn, kernel: Kernel, tables: list[tuple[ir.Value, ir.Value | None]]) -> None:
        self.fn, self.kernel, self.math, self.tables = fn, kernel, Math(fn), tables
        self.p: ResizeParams = kernel.params
        self.x, self.out = kernel.operands[0], kernel.operands[-1]
        self.rank = len(self.p.taps)
        self.held = register_dtype(self.x.dtype)

    def emit(self) -> None:
        fn, p, out = self.fn, self.p, self.out
        dims = [d for d in range(len(out.shape)) if d != p.lane_dim]
        outer = [out.shape[d] for d in dims]
        with items(fn, outer[: self._outer()], p.dim, p.block) as (lead, _, lo, hi), ExitStack() as stack:
            index: dict[int, Index] = {dims[i]: at for i, at in enumerate(lead)}
            for i in range(p.dim, len(dims)):
                bounds: tuple[Index, Index] = (lo, hi) if i == p.dim else (0, outer[i])
                index[dims[i]] = stack.enter_context(fn.loop(*bounds, name=f"d{i}"))
            if p.lane_dim < 0:
                self.point(index, 1, 1)
                return

            if p.columns:
                self.row(index)
                return

            def body(i: Index, lanes: int, count: int) -> None:
                self.point({**index, p.lane_dim: i}, lanes, count)

            n = out.shape[p.lane_dim]
            wide = min(n, 2 * p.lanes) if n % (2 * p.lanes) == 0 else p.lanes
            spans(fn, 0, n, p.lanes, wide, n % p.lanes, body)

    def _outer(self) -> int:
        return 1 + self.rank - (self.p.lane_dim == 1)

    def row(self, index: dict[int, Index]) -> None:
        """One row of outputs: the other dims are summed over first, on whole vectors of inputs."""
        fn, p, m = self.fn, self.p, self.math
        last, lanes = self.rank - 1, p.lanes
        base = fn.dot([index[0], index[1]], self.x.strides[:2])
        rows = self.rows(base, index)
        by = self.column_weights()
        for run in p.columns:
            with fn.loop(0, run.count, name="vector") as i:
                at = fn.iadd(fn.imul(i, run.step), run.at)
                low = self.sum_rows(rows, at, lanes)
                high = self.sum_rows(rows, fn.iadd(at, run.gap), lanes) if run.gap else None
                first = fn.iadd(fn.imul(i, lanes), run.first)
                acc: Val | None = None
                for t, picks in enumerate(run.lanes):
                    v = low if high is None and picks == tuple(range(lanes)) else shuffle(fn, low, high, picks)
                    if by is not None:
                        w = fn.load(fn.at(by, fn.iadd(first, t * len(p.taps[last])), self.held), self.held, lanes)
                        v = m.mul(v, w) if acc is None else fn.fma(v, w, acc)
                    acc = v
                assert acc is not None
                self.store(m.cast(acc, self.x.dtype), {**index, p.lane_dim: first}, lanes, lanes)

    def rows(self, base: ir.Value, index: dict[int, Index]) -> list[tuple[ir.Value, Val | None]]:
        """Where the rows of inputs of a row of outputs lie, and the weight of each (None: 1)."""
        fn, m = self.fn, self.math
        found: list[tuple[ir.Value, Val | None]] = [(base, None)]
        for s, (table, by) in enumerate(self.tables[:-1]):
            n = len(self.p.taps[s][0][0])
            at = fn.imul(index[2 + s], n)
            longer: list[tuple[ir.Value, Val | None]] = []
            for row, weight in found:
                for k in range(n):
                    here = fn.iadd(row, fn.imul(fn.load(fn.at(table, fn.iadd(at, k), "i64"), "i64").ir, self.x.strides[2 + s]))
                    w = None if by is None else m.cast(fn.load(fn.at(by, fn.iadd(at, k), "f64"), "f64"), self.held)
                    longer.append((here, weight if w is None else w if weight is None else m.mul(weight, w)))
            found = longer
        return found

    def sum_rows(self, rows: Sequence[tuple[ir.Value, Val | None]], at: Index, lanes: int) -> Val:
        fn, m = self.fn, self.math
        acc: Val | None = None
        for row, weight in rows:
            v = m.cast(load_lanes(fn, fn.args["p0"], fn.iadd(row, at), 1, self.x.dtype, lanes), self.held)
            if weight is not None:
                w = fn.splat(weight, lanes)
                v = m.mul(v, w) if acc is None else fn.fma(v, w, acc)
            acc = v
        assert acc is not None
        return acc

    def column_weights(self) -> ir.Value | None:
        """The table of the last dim's weights, one tap after the other; None if all of them are 1."""
        if self.tables[-1][1] is None:
            return None
        taps = self.p.taps[-1]
        return _constant(self.fn, "along", register_type(self.held), [ws[t] for t in range(len(taps[0][1])) for _, ws in taps])

    def point(self, index: dict[int, Index], lanes: int, count: int) -> None:
        """One output, or one vector of them."""
        fn, p, m = self.fn, self.p, self.math
        base: Index = 0
        for d, i in index.items():
            if not 2 <= d < 2 + self.rank:
                base = fn.iadd(base, fn.imul(i, self.x.strides[d]))
        offsets: list[list[ir.Value]] = []
        weights: list[list[Val | None]] = []
        for s, (table, by) in enumerate(self.tables):
            n = len(p.taps[s][0][0])
            at = fn.imul(index[2 + s], n)
            offsets.append(
                [fn.imul(fn.load(fn.at(table, fn.iadd(at, k), "i64"), "i64").ir, self.x.strides[2 + s]) for k in range(n)]
            )
            weights.append([
                None if by is None else m.cast(fn.load(fn.at(by, fn.iadd(at, k), "f64"), "f64"), self.held)
                for k in range(n)
            ])  # fmt: skip
        lane_stride = self.x.strides[p.lane_dim]

        def total(s: int, at: Index) -> Val:
            """The weighted sum over dims s.. ."""
            if s == self.rank:
                v = load_lanes(fn, fn.args["p0"], at, lane_stride, self.x.dtype, lanes, count)
                return m.cast(v, self.held)
            acc: Val | None = None
            for offset, w in zip(offsets[s], weights[s], strict=True):
                v = total(s + 1, fn.iadd(at, offset))
                if w is not None:
                    v = m.mul(v, fn.splat(w, lanes)) if acc is None else fn.fma(v, fn.splat(w, lanes), acc)
                acc = v
            assert acc is not None
            return acc

        self.store(m.cast(total(0, base), self.x.dtype), index, lanes, count)

    def store(self, v: Val, index: dict[int, Index], lanes: int, count: int) -> None:
        fn, p = self.fn, self.p
        place = [index[d] for d in range(len(self.out.shape))]
        values = [v]
        for j, o in enumerate(self.kernel.operands[1:-1], 1):
            at, stride = fn.dot(place, o.strides), o.strides[p.lane_dim]
            values.append(load_lanes(fn, fn.args[f"p{j}"], at, stride, o.dtype, lanes, count))
        result = fn.splat(evaluate(self.math, p.epilogue, values)[0], lanes)
        assert result.dtype == self.out.dtype
        at = fn.dot(place, self.out.strides)
        store_lanes(fn, result, fn.args[f"p{len(self.kernel.operands) - 1}"], at, self.out.strides[p.lane_dim], count)
