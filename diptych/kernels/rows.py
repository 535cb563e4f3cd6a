"""Kernels that read a row twice or more: softmax, log-softmax, layer, RMS and L2 normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, prod
from typing import TYPE_CHECKING

from diptych.codegen.math import Math
from diptych.ir.kernel import Expr, Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.access import load_lanes, store_lanes
from diptych.kernels.base import emits, evaluate
from diptych.kernels.fold import Accumulator, Dims, fold, sweep
from diptych.kernels.nest import advance, collapse, expr_cost, lines, register_dtype, spans, split_work, vector_lanes
from diptych.kernels.reduce import expr_dtypes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.codegen.builder import Fn, Index, Val
    from diptych.targets.base import Target

__all__ = ["RowParams", "make_l2_norm", "make_layer_norm", "make_log_softmax", "make_rms_norm", "make_softmax"]

_PASSES = {"softmax": 24, "log_softmax": 20, "layer_norm": 6, "rms_norm": 4, "l2_norm": 4}  # vector work an element


@dataclass(frozen=True, slots=True)
class RowParams:
    """Operands: `inputs` of the prologue, gamma and beta (`affine` of them), epilogue operands, the output, and the
    prologue's result where `stored`; all over (kept dims, row dims).

    `along`: vectors run along the last row dim, else along the last kept one. `buffered`: the row is kept in scratch.
    """

    kept: int
    inputs: int
    affine: int
    stored: bool
    prologue: Expr
    epilogue: Expr
    eps: float
    mode: str
    along: bool
    buffered: bool
    dtype: str  # of the prologue's result
    dim: int
    block: int
    lanes: int

    def __str__(self) -> str:
        return f"[{self.prologue}] {'in' if self.along else 'across'} vectors [{self.epilogue}]"


def make_softmax(shape: tuple[int, ...], axes: tuple[int, ...], inputs: Sequence[Operand], outputs: Sequence[Operand],
                 target: Target, *, prologue: Expr | None = None, epilogue: Expr | None = None,
                 extras: Sequence[Operand] = ()) -> Kernel:  # fmt: skip
    """Softmax over `axes` of prologue(inputs). Every operand is a view over `shape`; a second output gets the prologue's
    result, `extras` are the epilogue's registers 1.. ."""
    return _make("softmax", shape, axes, inputs, (), extras, outputs, prologue, epilogue, target)


def make_log_softmax(shape: tuple[int, ...], axes: tuple[int, ...], inputs: Sequence[Operand],
                     outputs: Sequence[Operand], target: Target, *, prologue: Expr | None = None,
                     epilogue: Expr | None = None, extras: Sequence[Operand] = ()) -> Kernel:  # fmt: skip
    """The logarithm of softmax; arguments as for `make_softmax`."""
    return _make("log_softmax", shape, axes, inputs, (), extras, outputs, prologue, epilogue, target)


def make_layer_norm(shape: tuple[int, ...], axes: tuple[int, ...], inputs: Sequence[Operand],
                    affine: Sequence[Operand], outputs: Sequence[Operand], eps: float, target: Target, *,
                    prologue: Expr | None = None, epilogue: Expr | None = None,
                    extras: Sequence[Operand] = ()) -> Kernel:  # fmt: skip
    """(x - mean) / sqrt(var + eps) * gamma + beta over `axes`; `affine` is (), (gamma,) or (gamma, beta) over `shape`
    (strides 0 where they broadcast: group and instance normalisation are this kernel too)."""
    return _make("layer_norm", shape, axes, inputs, affine, extras, outputs, prologue, epilogue, target, eps)


def make_rms_norm(shape: tuple[int, ...], axes: tuple[int, ...], inputs: Sequence[Operand], affine: Sequence[Operand],
                  outputs: Sequence[Operand], eps: float, target: Target, *, prologue: Expr | None = None,
                  epilogue: Expr | None = None, extras: Sequence[Operand] = ()) -> Kernel:  # fmt: skip
    """x / sqrt(mean(x^2) + eps) * gamma over `axes`."""
    return _make("rms_norm", shape, axes, inputs, affine, extras, outputs, prologue, epilogue, target, eps)


def make_l2_norm(shape: tuple[int, ...], axes: tuple[int, ...], inputs: Sequence[Operand], outputs: Sequence[Operand],
                 eps: float, mode: str, target: Target, *, prologue: Expr | None = None, epilogue: Expr | None = None,
                 extras: Sequence[Operand] = ()) -> Kernel:  # fmt: skip
    """x / sqrt(sum(x^2) + eps) (mode "add") or x / max(|x|, eps) (mode "max") over `axes`."""
    return _make("l2_norm", shape, axes, inputs, (), extras, outputs, prologue, epilogue, target, eps, mode)


def _make(kind: str, shape: tuple[int, ...], axes: tuple[int, ...], inputs: Sequence[Operand],
          affine: Sequence[Operand], extras: Sequence[Operand], outputs: Sequence[Operand], prologue: Expr | None,
          epilogue: Expr | None, target: Target, eps: float = 0.0, mode: str = "") -> Kernel:  # fmt: skip
    prologue, epilogue = prologue or Expr.identity(), epilogue or Expr.identity()
    every = [*inputs, *affine, *extras, *outputs]
    main = len(every) - len(outputs)
    kept_axes = [d for d in range(len(shape)) if d not in axes]
    kept, kept_walk = collapse(
        [shape[d] for d in kept_axes], [tuple(o.strides[d] for d in kept_axes) for o in every], main
    )
    if not kept:
        kept, kept_walk = [prod(shape[d] for d in kept_axes)], [[0] for _ in every]
    row, walk = collapse([shape[d] for d in axes], [tuple(o.strides[d] for d in axes) for o in every], main)
    if not row:
        row, walk = [prod(shape[d] for d in axes)], [[0] for _ in every]
    if prod(row) == 0:
        kept = [0] * len(kept)
    dtype = expr_dtypes(prologue, [o.dtype for o in inputs])[0]
    lanes = vector_lanes([dtype], target)
    unit_kept = sum(w[-1] == 1 for w in kept_walk)
    unit_row = sum(w[-1] == 1 for w in walk)
    along = unit_row > unit_kept or (unit_row == unit_kept and row[-1] >= kept[-1])
    n = prod(row)
    dim, block, work = split_work(kept, max(1, 4096 // max(1, n)), 1 if along else lanes)
    buffered = not (prologue.is_identity and inputs[0].dtype == register_dtype(dtype) and kind != "softmax")
    width = itemsize(register_dtype(dtype))
    length = prod(row[:-1]) * -(-row[-1] // (4 * lanes)) * 4 * lanes if along else n * lanes
    total = prod(kept) * n
    cost = 20 + total * (_PASSES[kind] + expr_cost(prologue) + expr_cost(epilogue)) / lanes / 6
    made = [Operand((*kept, *row), (*k, *r), o.dtype) for o, k, r in zip(every, kept_walk, walk, strict=True)]
    params = RowParams(len(kept), len(inputs), len(affine), len(outputs) > 1, prologue, epilogue, eps, mode, along,
                       buffered, dtype, dim, block, lanes)  # fmt: skip
    return Kernel(kind, params, tuple(made), len(outputs), work, cost, length * width if buffered else 0)


class _Row:
    """One row (or, across vectors, as many rows as a vector has lanes)."""

    def __init__(self, fn: Fn, kernel: Kernel, where: list[Index], lanes: int, count: int) -> None:
        self.fn, self.kernel, self.where = fn, kernel, where
        self.p: RowParams = kernel.params
        self.math = Math(fn)
        self.held = register_dtype(self.p.dtype)
        self.extents = kernel.operands[0].shape[self.p.kept :]
        self.n = prod(self.extents)
        self.lanes, self.count = (self.p.lanes if self.p.along else lanes), count

    # -- walking ----------------------------------------------------------------------------------------------
    def _dims(self, unroll: int) -> Dims:
        lanes = self.lanes
        while unroll > 1 and self.extents[-1] < lanes * unroll:
            unroll //= 2
        return Dims(self.extents, self.p.along, lanes, lanes * unroll, self.count)

    def sum(self, element: Callable[[list[Index], int, int], Val], unroll: int = 4) -> Val:
        return self._fold(0.0, self.math.add, element, unroll)

    def max(self, element: Callable[[list[Index], int, int], Val]) -> Val:
        return self._fold(-inf, self.math.max, element, 4)

    def _fold(self, neutral: float, combine: Callable[[Val, Val], Val],
              element: Callable[[list[Index], int, int], Val], unroll: int) -> Val:  # fmt: skip
        taken = Accumulator(neutral, self.held, combine)
        return fold(self.fn, self._dims(unroll), [taken], lambda i, lanes, count: [element(i, lanes, count)])[0]

    # -- elements ---------------------------------------------------------------------------------------------
    def _load(self, j: int, index: list[Index], lanes: int, count: int) -> Val:
        o = self.kernel.operands[j]
        axis = len(o.shape) - 1 if self.p.along else self.p.kept - 1
        at = self.fn.iadd(self.where[j], self.fn.dot(index, o.strides[self.p.kept :]))
        return load_lanes(self.fn, self.fn.args[f"p{j}"], at, o.strides[axis], o.dtype, lanes, count)

    def _store(self, v: Val, j: int, index: list[Index], count: int) -> None:
        o = self.kernel.operands[j]
        assert v.dtype == o.dtype, f"the result is {v.dtype}, operand {j} is {o.dtype}"
        axis = len(o.shape) - 1 if self.p.along else self.p.kept - 1
        at = self.fn.iadd(self.where[j], self.fn.dot(index, o.strides[self.p.kept :]))
        store_lanes(self.fn, v, self.fn.args[f"p{j}"], at, o.strides[axis], count)

    def _slot(self, index: list[Index], lanes: int) -> Index:
        """Where an element is kept in scratch; rows are padded there so that whole vectors fit."""
        if self.p.along:
            padded = [*self.extents[:-1], -(-self.extents[-1] // (4 * self.p.lanes)) * 4 * self.p.lanes]
            lanes = 1
        else:
            padded = list(self.extents)
        return self.fn.dot(index, [prod(padded[d + 1 :]) * lanes for d in range(len(padded))])

    def keep(self, v: Val, index: list[Index]) -> Val:
        """Remember an element for the next pass."""
        store_lanes(self.fn, v, self.fn.args["scratch"], self._slot(index, v.lanes), 1)
        return v

    def kept(self, index: list[Index], lanes: int) -> Val:
        return load_lanes(self.fn, self.fn.args["scratch"], self._slot(index, lanes), 1, self.held, lanes)

    def first(self, index: list[Index], lanes: int, count: int) -> Val:
        """An element of the prologue's result, at the first pass."""
        loaded = [self._load(j, index, lanes, count) for j in range(self.p.inputs)]
        v = self.fn.splat(evaluate(self.math, self.p.prologue, loaded)[0], lanes)
        if self.p.stored:
            self._store(v, len(self.kernel.operands) - 1, index, count)
        v = self.math.cast(v, self.held)
        return self.keep(v, index) if self.p.buffered else v

    def again(self, index: list[Index], lanes: int, count: int) -> Val:
        """The same element at a later pass."""
        if self.p.buffered:
            return self.kept(index, lanes)
        return self._load(0, index, lanes, count)

    def finish(self, value: Callable[[list[Index], int, int], Val], unroll: int = 2) -> None:
        """The last pass: gamma, beta, the epilogue, the store."""
        p, fn, m = self.p, self.fn, self.math
        unroll = 1 if expr_cost(p.epilogue) > 20 else unroll

        def body(index: list[Index], lanes: int, count: int) -> None:
            v = value(index, lanes, count)
            if p.affine:
                v = m.mul(v, m.cast(self._load(p.inputs, index, lanes, count), self.held))
            if p.affine > 1:
                v = m.add(v, m.cast(self._load(p.inputs + 1, index, lanes, count), self.held))
            out = len(self.kernel.operands) - self.kernel.outputs
            regs = [m.cast(v, p.dtype)]
            regs += [self._load(j, index, lanes, count) for j in range(p.inputs + p.affine, out)]
            result = evaluate(m, p.epilogue, regs)[0]
            self._store(fn.splat(result, lanes), out, index, count)

        sweep(fn, self._dims(unroll), body)

    def const(self, x: float, lanes: int = 1) -> Val:
        return self.math.const(x, self.held, lanes)


def _softmax(r: _Row) -> None:
    m, fn = r.math, r.fn
    top = r.max(r.first)
    total = r.sum(lambda i, n, c: r.keep(m.exp(m.sub(r.again(i, n, c), fn.splat(top, n))), i), 2)
    scale = m.div(r.const(1, total.lanes), total)
    r.finish(lambda i, n, c: m.mul(r.kept(i, n), fn.splat(scale, n)))


def _log_softmax(r: _Row) -> None:
    m, fn = r.math, r.fn
    top = r.max(r.first)
    total = m.log(r.sum(lambda i, n, c: m.exp(m.sub(r.again(i, n, c), fn.splat(top, n))), 2))
    r.finish(lambda i, n, c: m.sub(m.sub(r.again(i, n, c), fn.splat(top, n)), fn.splat(total, n)))


def _layer_norm(r: _Row) -> None:
    m, fn = r.math, r.fn
    total = r.sum(r.first)
    mean = m.div(total, r.const(r.n, total.lanes))

    def centred(i: list[Index], n: int, c: int) -> Val:
        return m.sub(r.again(i, n, c), fn.splat(mean, n))

    def squared(i: list[Index], n: int, c: int) -> Val:
        d = centred(i, n, c)
        return m.mul(d, d)

    spread = m.div(r.sum(squared), r.const(r.n, total.lanes))
    scale = m.div(r.const(1, total.lanes), m.sqrt(m.add(spread, r.const(r.p.eps, total.lanes))))
    r.finish(lambda i, n, c: m.mul(centred(i, n, c), fn.splat(scale, n)))


def _sum_of_squares(r: _Row) -> Val:
    def squared(i: list[Index], n: int, c: int) -> Val:
        x = r.first(i, n, c)
        return r.math.mul(x, x)

    return r.sum(squared)


def _rms_norm(r: _Row) -> None:
    m, fn = r.math, r.fn
    total = _sum_of_squares(r)
    mean = m.div(total, r.const(r.n, total.lanes))
    scale = m.div(r.const(1, total.lanes), m.sqrt(m.add(mean, r.const(r.p.eps, total.lanes))))
    r.finish(lambda i, n, c: m.mul(r.again(i, n, c), fn.splat(scale, n)))


def _l2_norm(r: _Row) -> None:
    m, fn = r.math, r.fn
    total = _sum_of_squares(r)
    eps, one = r.const(r.p.eps, total.lanes), r.const(1, total.lanes)
    norm = m.max(m.sqrt(total), eps) if r.p.mode == "max" else m.sqrt(m.add(total, eps))
    scale = m.div(one, norm)
    r.finish(lambda i, n, c: m.mul(r.again(i, n, c), fn.splat(scale, n)))


def _emit(fn: Fn, kernel: Kernel, algorithm: Callable[[_Row], None]) -> None:
    p: RowParams = kernel.params
    operands = kernel.operands
    shape = operands[0].shape[: p.kept]
    last = p.kept - 1
    with lines(fn, shape, p.dim, p.block, [o.strides for o in operands]) as (at, lo, hi):

        def body(i: Index, lanes: int, count: int) -> None:
            where = advance(fn, at, i, [o.strides[last] for o in operands])
            algorithm(_Row(fn, kernel, list(where), lanes, count))

        if p.along:
            with fn.loop(lo, hi, name="row") as i:
                body(i, 1, 1)
        else:
            spans(fn, lo, hi, p.lanes, p.lanes, shape[last] % p.lanes, body)


@emits("softmax")
def emit_softmax(fn: Fn, kernel: Kernel) -> None:
    """Maximum, exponentials and their sum, scaling."""
    _emit(fn, kernel, _softmax)


@emits("log_softmax")
def emit_log_softmax(fn: Fn, kernel: Kernel) -> None:
    """Maximum, sum of exponentials, shift."""
    _emit(fn, kernel, _log_softmax)


@emits("layer_norm")
def emit_layer_norm(fn: Fn, kernel: Kernel) -> None:
    """Mean, then variance about it (one pass for both would cancel), then scaling."""
    _emit(fn, kernel, _layer_norm)


@emits("rms_norm")
def emit_rms_norm(fn: Fn, kernel: Kernel) -> None:
    """Mean of squares, scaling."""
    _emit(fn, kernel, _rms_norm)


@emits("l2_norm")
def emit_l2_norm(fn: Fn, kernel: Kernel) -> None:
    """Sum of squares, scaling."""
    _emit(fn, kernel, _l2_norm)
