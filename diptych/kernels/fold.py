"""Folding dims into accumulators: within vectors or across them, in short chains so that rounding errors stay small."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.builder import Val
from diptych.kernels.access import fold_lanes, keep_lanes, pow2_above
from diptych.kernels.nest import spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from diptych.codegen.builder import Fn, Index, Var

__all__ = ["Accumulator", "Dims", "fold", "sweep"]

_CHAIN = 32  # longest chain of dependent additions: rounding errors grow with it, not with the extent

Bank = list["Var"]  # one variable per accumulator


@dataclass(frozen=True, slots=True)
class Accumulator:
    """A neutral value of a dtype, and the associative operation that takes one more element in."""

    neutral: float | int | bool
    dtype: str
    combine: Callable[[Val, Val], Val]


@dataclass(frozen=True, slots=True)
class Dims:
    """Dims to walk. `along`: vectors of `wide`, then `lanes` elements run along the last dim; else every step is one
    vector of `lanes` independent elements, of which `count` exist."""

    extents: tuple[int, ...]
    along: bool
    lanes: int
    wide: int
    count: int

    def widths(self) -> list[int]:
        """Vector widths in use, falling."""
        if not self.along:
            return [self.lanes]
        n = self.extents[-1]
        found = [w for w, used in ((self.wide, n >= self.wide), (self.lanes, n % self.wide >= self.lanes)) if used]
        if n % self.lanes and self.lanes not in found:
            found.append(self.lanes if n > self.lanes else pow2_above(n % self.lanes))
        return list(dict.fromkeys(found)) or [1]


def fold(fn: Fn, dims: Dims, accumulators: Sequence[Accumulator],
         element: Callable[[list[Index], int, int], list[Val]]) -> list[Val]:  # fmt: skip
    """Fold element(indices, lanes, count) over `dims`: one scalar per accumulator, or one vector across vectors."""
    return _Fold(fn, dims, accumulators, element).run()


def sweep(fn: Fn, dims: Dims, body: Callable[[list[Index], int, int], None]) -> None:
    """body(indices, lanes, count) over all of `dims`."""
    with ExitStack() as stack:
        outer = dims.extents[:-1] if dims.along else dims.extents
        index: list[Index] = [stack.enter_context(fn.loop(0, n, name="s")) for n in outer]
        if dims.along:
            n = dims.extents[-1]
            spans(fn, 0, n, dims.lanes, dims.wide, n % dims.lanes, lambda i, lanes, count: body([*index, i], lanes, count))
        else:
            body(index, dims.lanes, dims.count)


class _Fold:
    """Accumulators come in banks, one per vector width in use. Long chains are cut: a piece is folded into fresh
    accumulators, which are then combined into the outer ones."""

    def __init__(self, fn: Fn, dims: Dims, accumulators: Sequence[Accumulator],
                 element: Callable[[list[Index], int, int], list[Val]]) -> None:  # fmt: skip
        self.fn, self.dims, self.accumulators, self.element = fn, dims, accumulators, element
        self.widths = dims.widths()

    def run(self) -> list[Val]:
        banks = self._banks()
        self._level(0, [], banks)
        out: list[Val] = []
        for k, acc in enumerate(self.accumulators):
            total: Val | None = None
            for width, bank in zip(self.widths, banks, strict=True):
                v = self._get(bank, k, width)
                total = v if total is None else acc.combine(fold_lanes(self.fn, total, width, acc.combine), v)
            assert total is not None
            out.append(fold_lanes(self.fn, total, 1, acc.combine) if self.dims.along else total)
        return out

    # -- accumulators -----------------------------------------------------------------------------------------
    def _banks(self) -> list[Bank]:
        fn = self.fn
        return [[fn.var(a.dtype, fn.const(a.neutral, a.dtype, w).ir, w) for a in self.accumulators] for w in self.widths]

    def _get(self, bank: Bank, k: int, width: int) -> Val:
        return Val(bank[k].get(), self.accumulators[k].dtype, width)

    def _add(self, bank: Bank, width: int, values: Sequence[Val]) -> None:
        for k, (acc, v) in enumerate(zip(self.accumulators, values, strict=True)):
            bank[k].set(acc.combine(self._get(bank, k, width), v).ir)

    @contextmanager
    def _fresh(self, outer: list[Bank]) -> Iterator[list[Bank]]:
        inner = self._banks()
        yield inner
        for width, bank, into in zip(self.widths, inner, outer, strict=True):
            self._add(into, width, [self._get(bank, k, width) for k in range(len(bank))])

    # -- loops ------------------------------------------------------------------------------------------------
    def _level(self, d: int, at: list[Index], banks: list[Bank]) -> None:
        extents = self.dims.extents
        if d == len(extents) - self.dims.along:
            self._leaf(at, banks)
            return
        below = prod(extents[d + 1 :])
        if self.dims.along:
            below = -(-below // self.widths[0])
        piece = max(1, _CHAIN // max(1, below)) if extents[d] * below > 2 * _CHAIN else extents[d]
        self._chain(extents[d], piece, banks, lambda i, inside: self._level(d + 1, [*at, i], inside))

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
                self._pieces(start, fn.imin(fn.iadd(start, big), extent), piece, outer, body)
        else:
            self._pieces(0, extent, piece, banks, body)

    def _pieces(self, start: Index, stop: Index, piece: int, banks: list[Bank],
                body: Callable[[Index, list[Bank]], None]) -> None:  # fmt: skip
        fn = self.fn
        with (
            fn.loop(start, stop, piece, name="piece") as lo,
            self._fresh(banks) as inner,
            fn.loop(lo, fn.imin(fn.iadd(lo, piece), stop), name="r") as i,
        ):
            body(i, inner)

    def _leaf(self, at: list[Index], banks: list[Bank]) -> None:
        dims, fn = self.dims, self.fn
        if not dims.along:
            self._add(banks[0], dims.lanes, self.element(at, dims.lanes, dims.count))
            return
        extent, start = dims.extents[-1], 0
        for width in [w for w in (dims.wide, dims.lanes) if w in self.widths]:
            steps = (extent - start) // width
            if not steps:
                continue
            which = self.widths.index(width)

            def body(i: Index, inside: list[Bank], width: int = width, which: int = which, start: int = start) -> None:
                here = fn.iadd(fn.imul(i, width), start)
                self._add(inside[which], width, self.element([*at, here], width, width))

            self._chain(steps, _CHAIN if steps > 2 * _CHAIN else steps, banks, body)
            start += steps * width
        if start < extent:
            rest, width = extent - start, self.widths[-1]
            values = self.element([*at, start], width, rest)
            padded = [
                keep_lanes(fn, v, rest, fn.const(acc.neutral, acc.dtype, width))
                for acc, v in zip(self.accumulators, values, strict=True)
            ]
            self._add(banks[-1], width, padded)
