"""Stable sorting along an axis, and the k first of the sorted order."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.builder import I32, Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.base import emits
from diptych.kernels.nest import items, loops, register_dtype, split_work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.targets.base import Target

__all__ = ["SortParams", "make_sort", "make_topk", "merge_sort"]

_RUN = 8  # elements sorted by insertion before merging begins
_SELECT = 64  # up to so many winners are kept in order by insertion


@dataclass(frozen=True, slots=True)
class SortParams:
    """Operands: x, values, indices (i64), with the axis moved to the end; the first `k` of the order are written."""

    k: int
    descending: bool
    dim: int
    block: int


def make_sort(x: Operand, axis: int, descending: bool, values: Operand, indices: Operand, target: Target) -> Kernel:
    """All of x sorted along `axis`; equal elements keep their order, NaN counts as the largest number."""
    return _make(x, axis, x.shape[axis], descending, values, indices)


def make_topk(x: Operand, axis: int, k: int, largest: bool, values: Operand, indices: Operand,
              target: Target) -> Kernel:  # fmt: skip
    """The k largest (or smallest) along `axis`, in order, the lowest index first where they tie."""
    return _make(x, axis, k, largest, values, indices)


def _make(x: Operand, axis: int, k: int, descending: bool, values: Operand, indices: Operand) -> Kernel:
    axis %= len(x.shape)
    order = [d for d in range(len(x.shape)) if d != axis] + [axis]

    def moved(o: Operand) -> Operand:
        return Operand(tuple(o.shape[d] for d in order), tuple(o.strides[d] for d in order), o.dtype)

    n = x.shape[axis]
    kept = tuple(x.shape[d] for d in order[:-1]) or (1,)
    made = tuple(moved(o) for o in (x, values, indices))
    if len(order) == 1:
        made = tuple(Operand((1, *o.shape), (0, *o.strides), o.dtype) for o in made)
    steps = n * max(1, n.bit_length()) if k > _SELECT or k == n else 2 * n
    dim, block, work = split_work(kept, max(1, 500 // max(1, steps)), 1)
    held = itemsize(register_dtype(x.dtype))
    scratch = _selected(k, n) * (held + 8) if k < n and k <= _SELECT else n * (held + 8) + 64
    return Kernel("sort", SortParams(k, descending, dim, block), made, 2, work if k else 0,
                  20 + prod(kept) * steps * 4.0, scratch)  # fmt: skip


def _selected(k: int, n: int) -> int:
    return min(k, n) + 1


@contextmanager
def _while(fn: Fn, condition: Callable[[], ir.Value]) -> Iterator[None]:
    head, body, done = (fn.function.append_basic_block(n) for n in ("while", "while.body", "while.done"))
    fn.b.branch(head)
    fn.b.position_at_end(head)
    fn.b.cbranch(condition(), body, done)
    fn.b.position_at_end(body)
    yield
    fn.b.branch(head)
    fn.b.position_at_end(done)


@emits("sort")
def emit_sort(fn: Fn, kernel: Kernel) -> None:
    """Row by row: a few winners by insertion, all of them by merging."""
    p: SortParams = kernel.params
    shape = kernel.operands[0].shape[:-1]
    with items(fn, shape, p.dim, p.block) as (lead, _, lo, hi):
        base: list[Index] = [fn.dot(lead, o.strides[: p.dim]) for o in kernel.operands]
        bounds: list[tuple[Index, Index]] = [(lo, hi), *((0, d) for d in shape[p.dim + 1 :])]
        with loops(fn, bounds, [o.strides[p.dim : -1] for o in kernel.operands], base) as at:
            row = _Row(fn, kernel, at)
            if p.k < row.n and p.k <= _SELECT:
                row.select()
            else:
                row.sort()


class _Row:
    def __init__(self, fn: Fn, kernel: Kernel, at: list[Index]) -> None:
        self.fn, self.kernel, self.at, self.m = fn, kernel, at, Math(fn)
        self.p: SortParams = kernel.params
        self.x = kernel.operands[0]
        self.n = self.x.shape[-1]
        self.held = register_dtype(self.x.dtype)
        count = self.n if self.p.k > _SELECT or self.p.k == self.n else _selected(self.p.k, self.n)
        self.keys = fn.args["scratch"]
        self.a = fn.at(self.keys, count, self.held)
        self.b = fn.at(self.a, count, "i32")

    def source(self, i: Index) -> Val:
        where = self.fn.iadd(self.at[0], self.fn.imul(i, self.x.strides[-1]))
        return self.m.cast(self.fn.load(self.fn.at(self.fn.args["p0"], where, self.x.dtype), self.x.dtype), self.held)

    def before(self, a: Val, b: Val) -> ir.Value:
        """a comes strictly before b; NaN is the largest number."""
        m = self.m
        low, high = (b, a) if self.p.descending else (a, b)  # before: low < high
        found = m.cmp("lt", low, high)
        if a.dtype[0] == "f":
            found = m.bit_or(found, m.bit_and(m.cmp("ne", high, high), m.cmp("eq", low, low)))
        return found.ir

    def write(self, i: Index, value: Val, index: ir.Value) -> None:
        fn = self.fn
        for j, v in ((1, self.m.cast(value, self.x.dtype)), (2, Val(fn.b.sext(index, fn.index(0).type), "i64"))):
            o = self.kernel.operands[j]
            fn.store(v, fn.at(fn.args[f"p{j}"], fn.iadd(self.at[j], fn.imul(i, o.strides[-1])), o.dtype))

    def key(self, i: Index) -> Val:
        return self.fn.load(self.fn.at(self.keys, i, self.held), self.held)

    def index(self, array: ir.Value, i: Index) -> ir.Value:
        return self.fn.load(self.fn.at(array, i, "i32"), "i32").ir

    def put(self, array: ir.Value, i: Index, v: ir.Value) -> None:
        self.fn.store(Val(v, "i32"), self.fn.at(array, i, "i32"))

    # -- a few winners ------------------------------------------------------------------------------------------
    def select(self) -> None:
        """The winners so far, in order; a newcomer sinks to its place from the end."""
        fn, k = self.fn, self.p.k
        have = fn.var(fn.index(0).type, fn.index(0))
        with fn.loop(0, self.n, name="i") as i:
            x = self.source(i)
            full = fn.b.icmp_signed("==", have.get(), fn.index(k))
            worse = fn.b.not_(self.before(x, self.key(k - 1)))
            # The slot of the last winner is written before it is read: an unset one does not matter while not full.
            with fn.if_(fn.b.not_(fn.b.and_(full, worse))):
                j = fn.var(fn.index(0).type, fn.b.select(full, fn.index(k - 1), have.get()))

                def sinks() -> ir.Value:
                    # Slot j - 1 is read even when j is 0: there it is slot 0, and the first condition decides.
                    at = fn.imax(fn.isub(j.get(), 1), 0)
                    return fn.b.and_(fn.b.icmp_signed(">", j.get(), fn.index(0)), self.before(x, self.key(at)))

                with _while(fn, sinks):
                    last = fn.isub(j.get(), 1)
                    fn.store(self.key(last), fn.at(self.keys, j.get(), self.held))
                    self.put(self.a, j.get(), self.index(self.a, last))
                    j.set(last)
                fn.store(x, fn.at(self.keys, j.get(), self.held))
                self.put(self.a, j.get(), fn.b.trunc(i, I32))
                have.set(fn.imin(fn.iadd(have.get(), 1), k))
        with fn.loop(0, k, name="out") as i:
            self.write(i, self.key(i), self.index(self.a, i))

    def sort(self) -> None:
        """All of them."""
        fn = self.fn
        with fn.loop(0, self.n, name="i") as i:
            fn.store(self.source(i), fn.at(self.keys, i, self.held))
        order = merge_sort(fn, self.keys, self.held, self.a, self.b, self.n, self.before)
        with fn.loop(0, self.p.k, name="out") as i:
            index = self.index(order, i)
            self.write(i, self.key(fn.b.sext(index, i.type)), index)


def merge_sort(fn: Fn, keys: ir.Value, dtype: str, a: ir.Value, b: ir.Value, n: Index,
               before: Callable[[Val, Val], ir.Value]) -> ir.Value:  # fmt: skip
    """Order `n` keys stably: returns the address of their i32 indices, which is `a` or `b` (each with room for n).

    Runs are sorted by insertion, then merged back and forth between the two arrays.
    """
    count = fn.index(0).type

    def key(i: Index) -> Val:
        return fn.load(fn.at(keys, i, dtype), dtype)

    def index(array: ir.Value, i: Index) -> ir.Value:
        return fn.load(fn.at(array, i, "i32"), "i32").ir

    def put(array: ir.Value, i: Index, v: ir.Value) -> None:
        fn.store(Val(v, "i32"), fn.at(array, i, "i32"))

    with fn.loop(0, n, _RUN, name="run") as run, fn.loop(run, fn.imin(fn.iadd(run, _RUN), n), name="i") as i:
        x = key(i)
        j = fn.var(count, i)

        def sinks() -> ir.Value:
            at = fn.imax(fn.isub(j.get(), 1), run)
            above = fn.b.icmp_signed(">", j.get(), run)
            # Index slots of this run below i are set; slot `run` itself may not be when i is run.
            safe = fn.b.select(above, fn.b.sext(index(a, at), count), fn.index(0))
            return fn.b.and_(above, before(x, key(safe)))

        with _while(fn, sinks):
            last = fn.isub(j.get(), 1)
            put(a, j.get(), index(a, last))
            j.set(last)
        put(a, j.get(), fn.b.trunc(i, I32))
    source, target = fn.var(a.type, a), fn.var(a.type, b)
    width = fn.var(count, fn.index(_RUN))
    with _while(fn, lambda: fn.b.icmp_signed("<", width.get(), fn.index(n))):
        double = fn.imul(width.get(), 2)
        start = fn.var(count, fn.index(0))
        with _while(fn, lambda: fn.b.icmp_signed("<", start.get(), fn.index(n))):
            first, middle = start.get(), fn.imin(fn.iadd(start.get(), width.get()), n)
            stop = fn.imin(fn.iadd(first, double), n)
            left, right = fn.var(count, first), fn.var(count, middle)
            # The right run's element goes first only if it is strictly before the left one's.
            with fn.loop(first, stop, name="merge") as i:
                has_left = fn.b.icmp_signed("<", left.get(), middle)
                has_right = fn.b.icmp_signed("<", right.get(), stop)
                one = index(source.get(), fn.imin(left.get(), fn.isub(stop, 1)))
                two = index(source.get(), fn.imin(right.get(), fn.isub(stop, 1)))
                wins = before(key(fn.b.sext(two, count)), key(fn.b.sext(one, count)))
                take = fn.b.and_(has_right, fn.b.or_(fn.b.not_(has_left), wins))
                put(target.get(), i, fn.b.select(take, two, one))
                right.set(fn.b.select(take, fn.iadd(right.get(), 1), right.get()))
                left.set(fn.b.select(take, left.get(), fn.iadd(left.get(), 1)))
            start.set(fn.iadd(start.get(), double))
        old = source.get()
        source.set(target.get())
        target.set(old)
        width.set(double)
    return source.get()
