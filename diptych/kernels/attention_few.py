"""Attention of few queries over many keys, as when text is generated: keys and values are read once, where they lie.

Packing would cost more than the products. A vector runs along a key: as many sums as it has lanes become one vector of
scores; the values of a key are added up with its weight. Where there are fewer heads than threads, the keys of a head are
split, and a second kernel joins the parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from diptych.codegen.builder import Fn, Index, Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Expr, Kernel, Operand
from diptych.kernels.access import keep_lanes, load_lanes, store_lanes
from diptych.kernels.attention_parts import Masking, RowSoftmax, fold_rows
from diptych.kernels.base import emits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir

    from diptych.targets.base import Target

__all__ = ["FewParams", "JoinParams", "choose_parts", "make_attention_few", "make_attention_join", "takes_few"]

_FEW = 8  # query rows of a key head at most
_STRIP = 256  # keys at a time
_NS_PER_FLOAT = 4 / 30.0  # reading keys and values from beyond L2


@dataclass(frozen=True, slots=True)
class FewParams:
    """Operands: q[B,H,1,S,D], k[B,H,T,D], v[B,H,T,Dv], operands of the mask over [B,H,1,S,T], out.

    With one part out is [B,H,1,S,Dv]; with more it is [B,H,parts,S,Dv + 2]: sums not yet divided, the largest score, the sum
    of the weights.
    """

    scale: float
    causal: int | None
    mask: Expr | None
    parts: int
    each: int  # keys of a part
    zeros: bool

    def __str__(self) -> str:
        causal = "" if self.causal is None else f" causal+{self.causal}"
        return f"parts={self.parts}x{self.each}{causal} [{self.mask or ''}]"


@dataclass(frozen=True, slots=True)
class JoinParams:
    """Operands: parts[B,H,parts,S,Dv + 2], out[B,H,1,S,Dv]."""

    zeros: bool


def takes_few(q: Operand, k: Operand, v: Operand, out: Operand) -> bool:
    """Whether the kernel for few queries is the right one: packing is not worth it, and vectors run along keys and values."""
    rows, group = q.shape[3], q.shape[2]
    dense = all(o.strides[-1] == 1 or o.shape[-1] == 1 for o in (k, v, out))
    return group == 1 and rows <= _FEW and dense


def choose_parts(heads: int, t: int, threads: int) -> int:
    """Into how many parts the keys of each of `heads` heads go (those of the whole batch counted)."""

    def span(parts: int) -> float:
        return -(-heads * parts // threads) * (-(-t // parts) + 40) + (60 if parts > 1 else 0)

    return min(range(1, max(1, min(threads, t // 128)) + 1), key=lambda parts: (span(parts), parts))


def make_attention_few(q: Operand, k: Operand, v: Operand, mask: Sequence[Operand], out: Operand, scale: float, target: Target, *,
                       causal: int | None = None, mask_expr: Expr | None = None, zeros: bool = True, parts: int = 1) -> Kernel:  # fmt: skip
    """The kernel over operands as `FewParams` has them."""
    b, h, group, s, d = q.shape
    t, dv = v.shape[2:]
    if group != 1 or not takes_few(q, k, v, out):
        raise ValueError(f"attention of few queries takes up to {_FEW} rows, and keys and values with dense last axes")
    lanes = target.lanes(4)
    each = _up(-(-t // parts), lanes)
    params = FewParams(scale, causal, mask_expr, -(-t // each), each, zeros)
    cost = 100 + b * h * t * (d + dv) * _NS_PER_FLOAT * max(1.0, s / 3)
    return Kernel("attention_few", params, (q, k, v, *mask, out), 1, b * h * params.parts, cost, 4 * _places(s, d, dv, lanes)[-1])


def make_attention_join(parts: Operand, out: Operand, zeros: bool) -> Kernel:
    """Parts of rows become rows."""
    b, h, n, s, wide = parts.shape
    return Kernel("attention_join", JoinParams(zeros), (parts, out), 1, b * h, 50 + b * h * n * s * (wide + 20) / 10)


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def _places(s: int, d: int, dv: int, lanes: int) -> list[int]:
    """Where in scratch queries, scores, sums, the softmax's space, factors and state lie, and where they end; in floats."""
    slots = _up(s, lanes)
    at = [0]
    for size in (s * _up(d, lanes), s * _STRIP, s * _up(dv, lanes), RowSoftmax.space(s, lanes), slots, 2 * slots):
        at.append(at[-1] + _up(size, 16))
    return at


@emits("attention_few")
def emit_attention_few(fn: Fn, kernel: Kernel) -> None:
    """Work items, then strips of keys."""
    _Emitter(fn, kernel).emit()


class _Emitter:
    """Writes one attention of few queries."""

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn, self.math = fn, Math(fn)
        self.p: FewParams = kernel.params
        self.lanes = fn.target.lanes(4)
        self.q, self.k, self.v, *masks, self.out = kernel.operands
        self.result = fn.args[f"p{len(kernel.operands) - 1}"]
        self.masking = Masking(fn, self.math, self.lanes, masks, self.p.mask, self.p.causal)
        *_, self.s, self.d = self.q.shape
        self.softmax = RowSoftmax(fn, self.math, self.lanes, self.s, self.p.zeros)
        self.t, self.dv = self.v.shape[2:]
        at = _places(self.s, self.d, self.dv, self.lanes)
        self.queries, self.scores, self.sums, self.space, self.factors, self.state = (fn.at(fn.args["scratch"], a) for a in at[:-1])
        self.columns = [(i, min(self.lanes, self.dv - i)) for i in range(0, self.dv, self.lanes)]

    def emit(self) -> None:
        fn, p = self.fn, self.p
        b, h = self.q.shape[:2]
        with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
            batch, head, part = fn.unravel(item, [b, h, p.parts])
            self.start(batch, head)
            k, v = (fn.at(fn.args[f"p{j}"], fn.dot([batch, head], o.strides[:2])) for j, o in ((1, self.k), (2, self.v)))
            low = fn.imul(part, p.each)
            seen = self.t if p.causal is None else min(self.t, self.s + p.causal)  # by the last query
            stop = fn.imin(fn.iadd(low, p.each), seen) if p.parts > 1 else seen
            with fn.loop(low, stop, _STRIP, name="strip") as key0:
                self.strip(batch, head, k, v, key0, fn.imin(fn.isub(stop, key0), _STRIP))
            self.finish(batch, head, part)

    def start(self, batch: ir.Value, head: ir.Value) -> None:
        """Scaled queries into scratch, zeros behind them; no key seen yet."""
        fn, lanes, sd = self.fn, self.lanes, self.q.strides[4]
        q = fn.dot([batch, head], self.q.strides[:2])
        for row in range(self.s):
            for i in range(0, self.d, lanes):
                there = min(lanes, self.d - i)
                x = load_lanes(fn, fn.args["p0"], fn.iadd(q, row * self.q.strides[3] + i * sd), sd, "f32", lanes, there)
                x = keep_lanes(fn, self.math.mul(x, fn.const(self.p.scale, "f32", lanes)), there, fn.const(0.0, "f32", lanes))
                fn.store(x, fn.at(self.queries, row * _up(self.d, lanes) + i))
            for i, _ in self.columns:
                fn.store(fn.const(0.0, "f32", lanes), fn.at(self.sums, row * _up(self.dv, lanes) + i))
        self.softmax.start(self.state)

    def strip(self, batch: ir.Value, head: ir.Value, k: ir.Value, v: ir.Value, key0: ir.Value, count: Index) -> None:
        """`count` keys from `key0` on."""
        fn, lanes = self.fn, self.lanes
        vectors = fn.idiv(fn.iadd(count, lanes - 1), lanes)
        left = self.t % lanes
        # whole vectors of keys also reach past the ones to be seen, never past the last one
        whole = fn.imin(vectors, fn.idiv(fn.isub(self.t, key0), lanes)) if left else vectors
        with fn.loop(0, whole, name="keys") as i:
            self.score(batch, head, k, key0, fn.imul(i, lanes), lanes)
        if left:
            with fn.if_(fn.b.icmp_signed("<", whole, vectors)):
                self.score(batch, head, k, key0, fn.imul(whole, lanes), left)
        self.softmax.rows(self.scores, _STRIP, self.s, vectors, self.space, self.factors, self.state)
        self.weigh(fn.at(v, fn.imul(key0, self.v.strides[2])), count)

    def score(self, batch: ir.Value, head: ir.Value, k: ir.Value, key0: ir.Value, first: ir.Value, there: int) -> None:
        """The scores of one vector of keys, of which `there` exist."""
        fn, m, lanes, key = self.fn, self.math, self.lanes, self.fn.iadd(key0, first)
        base = fn.at(k, fn.imul(key, self.k.strides[2]))
        keys = [fn.at(base, j * self.k.strides[2]) for j in range(there)]
        zero = fn.const(0.0, "f32", lanes)
        here = self.masking.at([batch, head, 0], 0, key)
        for row in range(self.s):
            query = fn.at(self.queries, row * _up(self.d, lanes))
            sums = [fn.var("f32", zero.ir, lanes) for _ in keys]

            def multiply(i: Index, size: int, query: ir.Value = query, sums: list = sums) -> None:  # type: ignore[type-arg]
                x = fn.load(fn.at(query, i), "f32", lanes)
                for at, total in zip(keys, sums, strict=True):
                    y = keep_lanes(fn, load_lanes(fn, at, i, 1, "f32", lanes, size), size, zero)
                    total.set(fn.fma(x, y, Val(total.get(), "f32", lanes)).ir)

            whole = self.d - self.d % lanes
            with fn.loop(0, whole, lanes, name="d") as i:
                multiply(i, lanes)
            if whole < self.d:
                multiply(whole, self.d - whole)
            rows = [Val(total.get(), "f32", lanes) for total in sums] + [zero] * (lanes - there)
            x = fold_rows(fn, rows, m.add)
            fn.store(self.masking.apply(x, here, row, 0, there), fn.at(self.scores, fn.iadd(first, row * _STRIP)))

    def weigh(self, v: ir.Value, count: Index) -> None:
        """Add the values of `count` keys, weighed, to the sums, which first shrink by their rows' factors."""
        at_once = min(len(self.columns), 4)
        rows = min(self.s, max(1, 8 // at_once))
        sets = 2 if rows * at_once < 8 else 1
        for row0 in range(0, self.s, rows):
            some = range(row0, min(self.s, row0 + rows))
            for c in range(0, len(self.columns), at_once):
                self.columns_of(v, count, some, self.columns[c : c + at_once], sets)

    def columns_of(self, v: ir.Value, count: Index, rows: range, columns: list[tuple[int, int]], sets: int) -> None:
        fn, m, lanes = self.fn, self.math, self.lanes
        zero, wide, step = fn.const(0.0, "f32", lanes), _up(self.dv, lanes), self.v.strides[2]
        sums = [[[fn.var("f32", zero.ir, lanes) for _ in range(sets)] for _ in columns] for _ in rows]

        def keys(t: Index, n: int) -> None:
            for j in range(n):
                values = [load_lanes(fn, v, fn.iadd(fn.imul(fn.iadd(t, j), step), i), 1, "f32", lanes, size) for i, size in columns]
                for row, mine in zip(rows, sums, strict=True):
                    weight = fn.splat(fn.load(fn.at(self.scores, fn.iadd(t, row * _STRIP + j))), lanes)
                    for total, y in zip(mine, values, strict=True):
                        total[j].set(fn.fma(weight, y, Val(total[j].get(), "f32", lanes)).ir)

        whole = fn.imul(fn.idiv(count, sets), sets)
        with fn.loop(0, whole, sets, name="key") as t:
            keys(t, sets)
        if sets > 1:
            with fn.loop(whole, count, name="key") as t:
                keys(t, 1)
        for row, mine in zip(rows, sums, strict=True):
            factor = fn.splat(fn.load(fn.at(self.factors, row)), lanes)
            for total, (i, _) in zip(mine, columns, strict=True):
                at = fn.at(self.sums, row * wide + i)
                new = [Val(x.get(), "f32", lanes) for x in total]
                fn.store(fn.fma(fn.load(at, "f32", lanes), factor, m.add(*new) if sets > 1 else new[0]), at)

    def finish(self, batch: ir.Value, head: ir.Value, part: ir.Value) -> None:
        """Rows divided by the sum of their weights; or what a part knows of them."""
        fn, o = self.fn, self.out
        out = fn.dot([batch, head, part if self.p.parts > 1 else 0], o.strides[:3])
        for row in range(self.s):
            base = fn.iadd(out, row * o.strides[3])
            top, total = (fn.load(fn.at(self.state, row + j)) for j in (0, self.softmax.slots))
            scale = fn.const(1.0) if self.p.parts > 1 else self.softmax.reciprocal(total)
            for i, size in self.columns:
                x = fn.load(fn.at(self.sums, row * _up(self.dv, self.lanes) + i), "f32", self.lanes)
                store_lanes(fn, self.math.mul(x, fn.splat(scale, self.lanes)), self.result, fn.iadd(base, i), 1, size)
            if self.p.parts > 1:
                fn.store(top, fn.at(self.result, fn.iadd(base, self.dv)))
                fn.store(total, fn.at(self.result, fn.iadd(base, self.dv + 1)))


@emits("attention_join")
def emit_attention_join(fn: Fn, kernel: Kernel) -> None:
    """Every part's sums shrink to the scale of the largest score of all."""
    parts, out = kernel.operands
    _, h, n, s, wide = parts.shape
    dv, lanes, m = wide - 2, fn.target.lanes(4), Math(fn)
    softmax = RowSoftmax(fn, m, lanes, 1, kernel.params.zeros)
    with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
        batch, head = fn.unravel(item, [parts.shape[0], h])
        with fn.loop(0, s, name="row") as row:
            own = fn.iadd(fn.dot([batch, head], parts.strides[:2]), fn.imul(row, parts.strides[3]))
            sources = [fn.at(fn.args["p0"], fn.iadd(own, i * parts.strides[2])) for i in range(n)]
            tops = [fn.load(fn.at(x, dv)) for x in sources]
            top = tops[0]
            for other in tops[1:]:
                top = m.limit_max(top, other)
            shift = m.select(m.cmp("eq", top, m.const(-inf)), m.const(0.0), top)
            factors = [m.exp_of_nonpositive(m.sub(x, shift)) for x in tops]
            total = m.const(0.0)
            for x, factor in zip(sources, factors, strict=True):
                total = m.fma(fn.load(fn.at(x, dv + 1)), factor, total)
            scale = softmax.reciprocal(total)
            base = fn.iadd(fn.dot([batch, head, 0], out.strides[:3]), fn.imul(row, out.strides[3]))
            for i in range(0, dv, lanes):
                size = min(lanes, dv - i)
                sum_ = fn.const(0.0, "f32", lanes)
                for x, factor in zip(sources, factors, strict=True):
                    sum_ = m.fma(load_lanes(fn, x, i, 1, "f32", lanes, size), fn.splat(factor, lanes), sum_)
                store_lanes(fn, m.mul(sum_, fn.splat(scale, lanes)), fn.args["p1"], fn.iadd(base, i), 1, size)
