"""Pooling over windows of 1 to 3 spatial dims, on plain [N, C, *S] and on channel-blocked [N, C/16, *S, 16] views."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from itertools import product
from math import inf, prod
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Expr, Kernel, Operand
from diptych.kernels.access import load_lanes, shuffle, store_lanes
from diptych.kernels.base import emits, evaluate
from diptych.kernels.nest import expr_cost, items, register_dtype, split_work, vector_lanes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index, Var
    from diptych.targets.base import Target

__all__ = ["PoolParams", "make_adaptive_pool", "make_pool"]

_UNROLLED = 8  # window columns written out in the interior; longer windows loop
_TILE = 4  # outputs of a blocked row worked out together: overlapping windows share the columns they have in common
_WHOLE = 27  # taps of a window that such a tile writes out, at most


@dataclass(frozen=True, slots=True)
class PoolParams:
    """Operands: x, epilogue operands, out. With `blocked` the last dim is 16 channels, all in one vector.

    `adaptive` windows run from floor(i * size / out) to ceil((i + 1) * size / out); the other fields do not count then.
    """

    kind: str  # "max", "avg", "lp"
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    include_pad: bool
    power: float
    adaptive: bool
    blocked: bool
    epilogue: Expr
    dim: int
    block: int
    lanes: int

    def __str__(self) -> str:
        what = "adaptive" if self.adaptive else f"{self.kernel} / {self.strides}"
        return f"{self.kind} {what}{' blocked' if self.blocked else ''} [{self.epilogue}]"


def make_pool(kind: str, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[tuple[int, int], ...],
              dilations: tuple[int, ...], x: Operand, out: Operand, target: Target, *, include_pad: bool = True,
              power: float = 2.0, blocked: bool = False, epilogue: Expr | None = None,
              extras: Sequence[Operand] = ()) -> Kernel:  # fmt: skip
    """Pooling of kind "max", "avg" or "lp". The extents of `out` decide how many windows there are (all roundings);
    `extras` are epilogue registers 1.. over the shape of `out`; `blocked`: the last dim of x and out is 16 channels."""
    params = (kind, kernel, strides, pads, dilations or (1,) * len(kernel), include_pad, power, False, blocked)
    return _make(params, x, out, target, epilogue, extras, prod(kernel))


def make_adaptive_pool(kind: str, x: Operand, out: Operand, target: Target, *, blocked: bool = False,
                       epilogue: Expr | None = None, extras: Sequence[Operand] = ()) -> Kernel:  # fmt: skip
    """Adaptive pooling of kind "max" or "avg"; the extents of x and out say it all."""
    rank = len(x.shape) - 2 - blocked
    ones = (1,) * rank
    params = (kind, ones, ones, ((0, 0),) * rank, ones, True, 2.0, True, blocked)
    spatial = zip(x.shape[2 : 2 + rank], out.shape[2 : 2 + rank], strict=True)
    return _make(params, x, out, target, epilogue, extras, prod(-(-a // max(1, b)) + 1 for a, b in spatial))


def _make(params: tuple[object, ...], x: Operand, out: Operand, target: Target, epilogue: Expr | None,
          extras: Sequence[Operand], window: int) -> Kernel:  # fmt: skip
    blocked = bool(params[-1])
    epilogue = epilogue or Expr.identity()
    rank = len(x.shape) - 2 - blocked
    lanes = out.shape[-1] if blocked else vector_lanes([o.dtype for o in (x, *extras, out)], target)
    outer = out.shape[: 1 + rank]  # every dim but the last spatial one
    grain = max(1, 8192 // max(1, prod(out.shape[1 + rank :]) * window))
    dim, block, work = split_work(outer, grain, 1)
    if 0 in out.shape:
        work = 0
    per = vector_lanes([x.dtype], target)
    cost = 20 + prod(out.shape) * (window + 2 + expr_cost(epilogue)) / per / (4 if blocked else 2)
    made = PoolParams(*params, epilogue, dim, block, lanes)  # type: ignore[call-arg,arg-type]
    return Kernel("pool", made, (x, *extras, out), 1, work, cost)


@dataclass(slots=True)
class _Window:
    """One dim of a window: input index of tap 0, the taps inside the input, and how many elements count."""

    first: Index
    lo: Index
    hi: Index
    count: Index


@emits("pool")
def emit_pool(fn: Fn, kernel: Kernel) -> None:
    """Loops over outputs; columns whose windows lie inside the input have them written out, the others have bounds."""
    p: PoolParams = kernel.params
    out = kernel.operands[-1]
    rank = len(p.kernel)
    outer = out.shape[: 1 + rank]
    with items(fn, outer, p.dim, p.block) as (lead, _, lo, hi), ExitStack() as stack:
        index: list[Index] = list(lead)
        for d in range(p.dim, len(outer)):
            bounds: tuple[Index, Index] = (lo, hi) if d == p.dim else (0, outer[d])
            index.append(stack.enter_context(fn.loop(*bounds, name=f"d{d}")))
        _Pool(fn, kernel, index).row()


class _Pool:
    """One row of outputs."""

    def __init__(self, fn: Fn, kernel: Kernel, index: list[Index]) -> None:
        self.fn, self.kernel, self.math = fn, kernel, Math(fn)
        self.p: PoolParams = kernel.params
        self.x, self.out = kernel.operands[0], kernel.operands[-1]
        self.rank = len(self.p.kernel)
        self.index = index  # n, c, then all spatial output indices but the last
        self.held = register_dtype(self.x.dtype)
        self.outer = [self.window(d, index[2 + d]) for d in range(self.rank - 1)]

    # -- windows ----------------------------------------------------------------------------------------------
    def window(self, d: int, o: Index, inside: bool = False) -> _Window:
        """The window of output index `o` in spatial dim d; `inside`: no tap can lie outside the input."""
        fn, p = self.fn, self.p
        size, n_out = self.x.shape[2 + d], self.out.shape[2 + d]
        if p.adaptive:
            first = fn.idiv(fn.imul(o, size), n_out)
            stop = fn.idiv(fn.iadd(fn.imul(fn.iadd(o, 1), size), n_out - 1), n_out)
            length = fn.isub(stop, first)
            return _Window(first, 0, length, length)
        k, s, (lo, hi), dil = p.kernel[d], p.strides[d], p.pads[d], p.dilations[d]
        first = fn.isub(fn.imul(o, s), lo)
        if inside or self._all_inside(d):
            return _Window(first, 0, k, k)
        from_tap = fn.idiv(fn.iadd(fn.imax(fn.isub(0, first), 0), dil - 1), dil)
        room = fn.imax(fn.iadd(fn.isub(size, first), dil - 1), 0)
        to_tap = fn.imin(fn.idiv(room, dil), k)
        count = fn.isub(to_tap, from_tap)
        if p.include_pad:
            count = fn.isub(fn.imin(fn.iadd(first, k), size + hi), first)
        return _Window(first, from_tap, to_tap, count)

    def _all_inside(self, d: int) -> bool:
        p, size = self.p, self.x.shape[2 + d]
        reach = p.dilations[d] * (p.kernel[d] - 1)
        return p.pads[d][0] == 0 and (self.out.shape[2 + d] - 1) * p.strides[d] + reach < size

    def interior(self, d: int) -> tuple[int, int]:
        """Output indices of a dim whose windows lie wholly inside the input."""
        p = self.p
        size, n = self.x.shape[2 + d], self.out.shape[2 + d]
        if p.adaptive:
            return 0, 0
        lo, s, reach = p.pads[d][0], p.strides[d], p.dilations[d] * (p.kernel[d] - 1)
        first = min(n, -(-lo // s))
        last = (size - 1 - reach + lo) // s + 1 if size - 1 - reach + lo >= 0 else 0
        return first, max(first, min(n, last))

    # -- one row ----------------------------------------------------------------------------------------------
    def row(self) -> None:
        fn = self.fn
        first, stop = self.interior(self.rank - 1)
        if self.in_pairs(stop - first) and self.idempotent():
            self.clamped_pairs(first, stop)
            return
        if self.p.blocked and self.p.kind != "lp" and not self.p.adaptive and prod(self.p.kernel) <= _WHOLE:
            inside = self.rows_inside()
            if inside is None:
                self.tiles(first, stop)
            else:
                with fn.b.if_else(inside) as (then, otherwise):
                    with then:
                        self.tiles(first, stop)
                    with otherwise, fn.loop(first, stop, name="inside") as o:
                        self.point(o, self.p.lanes, inside=True)
            self.borders(first, stop)
            return
        self.borders(first, stop)
        if self.in_pairs(stop - first):
            inside = self.rows_inside()
            with ExitStack() as stack:
                if inside is not None:
                    then, otherwise = stack.enter_context(fn.b.if_else(inside))
                    with otherwise:
                        self.vectors(first, stop, lambda o: self.point(o, self.p.lanes, inside=True))
                    stack.enter_context(then)
                self.vectors(first, stop, lambda o: self.pairs(o, *self.corner(o)))
            return
        if self.p.blocked:
            with fn.loop(first, stop, name="inside") as o:
                self.point(o, self.p.lanes, inside=True)
            return
        lanes = self.p.lanes
        if lanes > 1 and stop - first >= lanes and len(self.kernel.operands) == 2:
            self.vectors(first, stop, lambda o: self.point(o, lanes, inside=True))
            return
        vectors = first + (stop - first) // lanes * lanes
        if lanes > 1 and vectors > first:
            with fn.loop(first, vectors, lanes, name="inside") as o:
                self.point(o, lanes, inside=True)
            first = vectors
        with fn.loop(first, stop, name="rest") as o:
            self.point(o, 1, inside=True)

    def vectors(self, first: int, stop: int, body: Callable[[ir.Value], None], inside: tuple[int, int] | None = None) -> None:
        """Vectors of columns; the last one reaches back over columns done already: the same values are written again.

        They stay within `inside`, if that is more than these columns.
        """
        fn, lanes = self.fn, self.p.lanes
        with fn.loop(first, stop, lanes, name="inside") as o:
            body(fn.imin(o, (inside or (first, stop))[1] - lanes))

    def in_pairs(self, columns: int) -> bool:
        """Whether a vector of outputs had best be made of the even and the odd columns of whole vectors of inputs."""
        p = self.p
        small = p.kind != "lp" and not p.adaptive and not p.blocked and prod(p.kernel) <= _WHOLE
        step_two = p.strides[-1] == 2 and p.dilations[-1] == 1 and 2 <= p.kernel[-1] <= 2 + p.lanes and self.x.strides[-1] == 1
        return small and step_two and p.lanes >= 4 and columns >= p.lanes and len(self.kernel.operands) == 2

    def idempotent(self) -> bool:
        """Whether reading the border in place of what lies beyond it changes nothing: it is in the window anyway."""
        p = self.p
        meets = all(
            lo < k and d == 1 and (n - 1) * s - lo < size
            for k, s, (lo, _), d, n, size in zip(p.kernel, p.strides, p.pads, p.dilations, self.out.shape[2:], self.x.shape[2:], strict=True)
        )
        return p.kind == "max" and meets

    def clamped_pairs(self, first: int, stop: int) -> None:
        """The whole row by `pairs`: rows beyond the border are clamped to it, and columns of the first and last vector."""
        fn, p, x = self.fn, self.p, self.x
        lanes, n = p.lanes, self.out.shape[1 + self.rank]
        rows: list[Index] = [fn.dot(self.index[:2], x.strides[:2])]
        for d in range(self.rank - 1):
            top = fn.isub(fn.imul(self.index[2 + d], p.strides[d]), p.pads[d][0])
            inside = [fn.imin(fn.imax(fn.iadd(top, t), 0), x.shape[2 + d] - 1) for t in range(p.kernel[d])]
            rows = [fn.iadd(row, fn.imul(i, x.strides[2 + d])) for row in rows for i in inside]
        begin, end = (lanes if first else 0), (n - lanes if stop < n else n)
        if begin < end:
            self.vectors(begin, max(end, begin + 1), lambda o: self.pairs(o, fn.isub(fn.imul(o, 2), p.pads[-1][0]), rows), (first, stop))
        for o in dict.fromkeys((0,) * (first > 0) + (n - lanes,) * (stop < n)):
            self.pairs(o, o * 2 - p.pads[-1][0], rows)

    def pairs(self, o: Index, base: Index, rows: Sequence[Index]) -> None:
        """One vector of outputs two columns apart: window rows are reduced first, then columns are picked.

        `base` is the first column in each of `rows`; where it is known, columns are clamped to the input.
        """
        fn, p, m = self.fn, self.p, self.math
        lanes, k, size = p.lanes, p.kernel[-1], self.x.shape[1 + self.rank]
        combine = m.max if p.kind == "max" else m.add

        def place(c: int, room: int) -> Index:
            """Column number `c` of the windows in the input, with `room` for so many from there on."""
            return min(max(base + c, 0), size - room) if isinstance(base, int) else fn.iadd(base, c)

        def column(c: int) -> Val:
            """The vector of inputs from column `c` on, reduced over the window's rows."""
            at = [fn.iadd(r, place(c, lanes)) for r in rows]
            return reduce(combine, [m.cast(load_lanes(fn, fn.args["p0"], a, 1, self.x.dtype, lanes), self.held) for a in at])

        def lane(c: int, start: int) -> int:
            """The lane of column `c` in the vector from column `start` on."""
            one, first = place(c, 1), place(start, lanes)
            return one - first if isinstance(one, int) and isinstance(first, int) else c - start

        span = 2 * (lanes - 1) + k  # columns that the windows meet: nothing beyond them is read
        low, high = column(0), column(lanes)
        end = column(span - lanes) if k > 2 else high
        taps: list[Val] = []
        for t in range(k):
            if t < 2:
                columns = range(t, t + 2 * lanes, 2)
                taps.append(shuffle(fn, low, high, [lane(c, 0) if c < lanes else lanes + lane(c, lanes) for c in columns]))
            else:  # one output further on
                taps.append(shuffle(fn, taps[t - 2], end, [*range(1, lanes), lanes + lane(t + 2 * (lanes - 1), span - lanes)]))
        v = reduce(combine, taps)
        if p.kind == "avg":
            v = m.mul(v, m.const(1 / prod(p.kernel), self.held, v.lanes))
        self.store(m.cast(v, self.x.dtype), o)

    def corner(self, o: Index) -> tuple[Index, list[int]]:
        """Where the first tap of the window of column `o` lies, and how far from it the window's rows begin."""
        fn, p, x = self.fn, self.p, self.x
        base: Index = fn.dot(self.index[:2], x.strides[:2])
        for d, i in enumerate([*self.index[2:], o]):
            base = fn.iadd(base, fn.imul(fn.isub(fn.imul(i, p.strides[d]), p.pads[d][0]), x.strides[2 + d]))
        rows = [
            sum(t * dil * s for t, dil, s in zip(taps, p.dilations, x.strides[2:], strict=False))
            for taps in product(*map(range, p.kernel[:-1]))
        ]
        return base, rows

    def borders(self, first: int, stop: int) -> None:
        """The columns outside [first, stop)."""
        fn, n = self.fn, self.out.shape[1 + self.rank]
        if first + n - stop > 0:
            with fn.loop(0, first + n - stop, name="border") as i:
                is_left = fn.b.icmp_signed("<", i, fn.index(first))
                o = fn.b.select(is_left, i, fn.iadd(i, stop - first))
                self.point(o, self.p.lanes if self.p.blocked else 1, inside=False)

    def rows_inside(self) -> ir.Value | None:
        """Whether the windows lie inside the input in all dims but the last; None when they always do."""
        fn = self.fn
        tests: list[ir.Value] = []
        for d in range(self.rank - 1):
            first, stop = self.interior(d)
            if (first, stop) != (0, self.out.shape[2 + d]):
                at = fn.isub(self.index[2 + d], first)
                tests.append(fn.b.icmp_unsigned("<", at, fn.index(stop - first)))
        inside: ir.Value | None = None
        for test in tests:
            inside = test if inside is None else fn.b.and_(inside, test)
        return inside

    def tiles(self, first: int, stop: int) -> None:
        """Columns [first, stop) of a row inside, some at a time."""
        last = first + (stop - first) // _TILE * _TILE
        with self.fn.loop(first, last, _TILE, name="tile") as o:
            self.tile(o, _TILE)
        if last < stop:
            self.tile(last, stop - last)

    def tile(self, o: Index, count: int) -> None:
        """`count` neighbouring outputs, everything written out; each column of the windows is reduced once."""
        fn, p, m, x = self.fn, self.p, self.math, self.x
        combine = m.max if p.kind == "max" else m.add
        base, rows = self.corner(o)
        columns: dict[int, Val] = {}

        def column(c: int) -> Val:
            if c not in columns:
                at = [fn.iadd(base, r + c * x.strides[1 + self.rank]) for r in rows]
                loaded = [m.cast(load_lanes(fn, fn.args["p0"], a, x.strides[-1], x.dtype, p.lanes), self.held) for a in at]
                columns[c] = reduce(combine, loaded)
            return columns[c]

        for i in range(count):
            v = reduce(combine, [column(i * p.strides[-1] + t * p.dilations[-1]) for t in range(p.kernel[-1])])
            if p.kind == "avg":
                v = m.mul(v, m.const(1 / prod(p.kernel), self.held, v.lanes))
            self.store(m.cast(v, x.dtype), fn.iadd(o, i))

    def point(self, o: Index, lanes: int, inside: bool) -> None:
        """One vector of outputs: along the row, or the channels of a block."""
        fn, p, m = self.fn, self.p, self.math
        last = self.window(self.rank - 1, o, inside)
        windows = [*self.outer, last]
        acc = fn.var(self.held, m.const(-inf if p.kind == "max" else 0.0, self.held, lanes).ir, lanes)
        base: Index = fn.dot(self.index[:2], self.x.strides[:2])
        for w, stride in zip(windows, self.x.strides[2:], strict=False):
            base = fn.iadd(base, fn.imul(w.first, stride))
        with ExitStack() as stack:
            for d, w in enumerate(windows[:-1]):
                tap = stack.enter_context(fn.loop(w.lo, w.hi, name="tap"))
                base = fn.iadd(base, fn.imul(tap, p.dilations[d] * self.x.strides[2 + d]))
            step = p.dilations[-1] * self.x.strides[1 + self.rank]
            if isinstance(last.hi, int) and last.hi <= _UNROLLED:
                for tap_at in range(last.hi):
                    self.take(acc, fn.iadd(base, tap_at * step), lanes)
            else:
                with fn.loop(last.lo, last.hi, name="tap") as tap:
                    self.take(acc, fn.iadd(base, fn.imul(tap, step)), lanes)
        v = self.finish(Val(acc.get(), self.held, lanes), windows)
        self.store(m.cast(v, self.x.dtype), o)

    def take(self, acc: Var, at: Index, lanes: int) -> None:
        """One tap."""
        p, m, o = self.p, self.math, self.x
        stride = o.strides[-1] if p.blocked else o.strides[-1] * p.strides[-1]
        v = m.cast(load_lanes(self.fn, self.fn.args["p0"], at, stride, o.dtype, lanes), self.held)
        old = Val(acc.get(), self.held, lanes)
        if p.kind == "max":
            acc.set(m.max(old, v).ir)
            return
        if p.kind == "lp":
            v = m.abs(v) if p.power != 2 else m.mul(v, v)
            if p.power not in (1, 2):
                v = m.pow(v, m.const(p.power, self.held, lanes))
        acc.set(m.add(old, v).ir)

    def finish(self, v: Val, windows: list[_Window]) -> Val:
        p, m, fn = self.p, self.math, self.fn
        if p.kind == "avg":
            count: Index = 1
            for w in windows:
                count = fn.imul(count, w.count)
            counted = m.cast(Val(fn.index(count), "i64"), self.held)
            return m.mul(v, fn.splat(m.div(m.const(1, self.held), counted), v.lanes))
        if p.kind == "lp" and p.power == 2:
            return m.sqrt(v)
        if p.kind == "lp" and p.power != 1:
            return m.pow(v, m.const(1 / p.power, self.held, v.lanes))
        return v

    def store(self, v: Val, o: Index) -> None:
        """The epilogue, then the output."""
        fn, lanes = self.fn, v.lanes
        where = [*self.index, o]

        def place(operand: Operand) -> tuple[ir.Value, int]:
            return fn.dot(where, operand.strides[: len(where)]), operand.strides[-1]

        values = [v]
        for j, operand in enumerate(self.kernel.operands[1:-1], 1):
            at, stride = place(operand)
            values.append(load_lanes(fn, fn.args[f"p{j}"], at, stride, operand.dtype, lanes))
        result = fn.splat(evaluate(self.math, self.p.epilogue, values)[0], lanes)
        assert result.dtype == self.out.dtype
        at, stride = place(self.out)
        store_lanes(fn, result, fn.args[f"p{len(self.kernel.operands) - 1}"], at, stride)
