"""Products of a few rows by packed weights: each weight is read once, so that the time is that of reading them.

The kernel computes what `contract` does for one to eight pixels and one tap. A work item takes `panels_per_tile` panels
that lie a share of the matrix apart: over the work items of a thread each of them is one unbroken stream, which is how
memory is read fastest. With few rows several sums are kept for each output, or a sum would wait for the one before.
"""

from __future__ import annotations

from contextlib import nullcontext
from math import isqrt
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import Val
from diptych.kernels.base import emits
from diptych.kernels.contract import ContractEmitter
from diptych.kernels.tile import PANEL, RegisterTile
from diptych.kernels.tiling import Tiling

if TYPE_CHECKING:
    from diptych.codegen.builder import Fn
    from diptych.ir.kernel import Kernel
    from diptych.kernels.contract import Side
    from diptych.targets.base import Target

__all__ = ["AHEAD", "ROWS", "SkinnyEmitter", "chain_of", "choose_skinny", "flat", "sets_of"]

ROWS = 8  # more rows have enough arithmetic for the register tiles of `contract`
AHEAD = 1024  # bytes of each stream that are under way from memory
_LATENCY = 8  # independent sums that keep the multipliers busy
_CHAIN = 64  # additions in one chain, at most, of sums of some thousand elements


def chain_of(depth: int) -> int:
    """The longest chain of additions in a sum of `depth` elements: it is cut into parts, which are added up.

    As long as the parts are many for very deep sums, where the chain over the parts would round more than those within. A
    multiple of PANEL, which every loop over the depth walks in whole turns.
    """
    return -(-max(_CHAIN, isqrt(depth)) // PANEL) * PANEL


def sets_of(rows: int, vectors: int, target: Target) -> int:
    """Sums of each output that are kept apart: as many as hide the latency of one."""
    sets = 1
    while sets < 8 and rows * vectors * sets < _LATENCY and rows * vectors * sets * 2 <= target.registers - 4:
        sets *= 2
    return sets


def choose_skinny(target: Target, *, batch: int, pixels: int, panels: int, k: int, memory: bool) -> Tiling | None:
    """The schedule of a product of few rows; None when the registers do not hold them.

    `memory`: the weights come from beyond the last level of cache.
    """
    if not 0 < pixels <= ROWS or not k:
        return None
    vectors = PANEL // min(PANEL, target.lanes(4))

    def fits(group: int) -> bool:
        passing = 1 if pixels == 1 else group * vectors + 1  # one row multiplies weights straight from memory
        return pixels * group * vectors + passing + 1 <= target.registers

    most = max((g for g in range(1, 9) if fits(g)), default=0)
    if not most:
        return None
    # Streams from memory: one row is waiting for them alone; from three rows on there is arithmetic between the loads,
    # and it takes more of them to keep memory at work.
    streams = 4 if not memory or pixels == 2 else 8 if pixels == 1 else 6
    most = min(panels, most, streams)

    def unevenness(group: int) -> float:
        items = batch * -(-panels // group)
        lost = sum(-(-items // threads) * threads / items for threads in (2, 4))
        return lost + 0.02 * (most - group)

    group = min(range(most, 0, -1), key=unevenness)
    whole = k // PANEL
    parts = -(-k // (chain_of(k) * sets_of(pixels, group * vectors, target)))
    return Tiling(((pixels, 1),), group, 1, max(1, -(-whole // parts)), False, memory)


@emits("skinny")
def emit_skinny(fn: Fn, kernel: Kernel) -> None:
    """Write a product of few rows (see the module's docstring)."""
    SkinnyEmitter(fn, kernel).emit()


class SkinnyEmitter(ContractEmitter):
    """The work items and the innermost loop; leaving the registers is as for any contraction."""

    spread = 1  # panels from one of a work item to the next

    def emit(self) -> None:
        fn, p = self.fn, self.p
        full, left = divmod(p.panels, p.panels_per_tile)
        with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
            *batch, group = fn.unravel(item, [*p.batch, p.groups])
            if left and full:
                rest = fn.b.icmp_signed("==", group, fn.index(full))
                with fn.b.if_else(rest) as (then, otherwise):
                    with then:
                        self.item(batch, fn.index(full * p.panels_per_tile), left, 1, True)
                    with otherwise:
                        self.item(batch, group, p.panels_per_tile, full, False)
            else:
                self.item(batch, group, left or p.panels_per_tile, 1 if left else full, True)

    def item(self, batch: list[ir.Value], panel: ir.Value, panels: int, spread: int, has_last: bool) -> None:
        """All rows by the panels `panel`, `panel + spread`, ..."""
        fn, p = self.fn, self.p
        self.spread = spread
        w = fn.at(self.pointers[1], fn.iadd(fn.dot(batch, p.w_batch), fn.imul(panel, p.w_panel)))
        x = fn.at(self.pointers[0], fn.iadd(fn.dot(batch, p.x.batch), p.taps[0]))
        rows = p.rows * p.cols
        xs = self.pixels(x, p.x, fn.index(0), rows)
        sides = (*p.sides, p.out)
        at = [
            self.pixels(fn.at(pointer, fn.iadd(fn.dot(batch, s.batch), fn.imul(panel, s.panel))), s, fn.index(0), rows)
            for pointer, s in zip(self.pointers[2:], sides, strict=True)
        ]
        is_last = None
        if has_last and p.n % PANEL and not p.padded:
            last = p.panels - 1 - (panels - 1) * spread
            is_last = fn.b.icmp_signed("==", panel, fn.index(last))
        depth, chunk = p.k_blocks * PANEL + p.k_tail, p.k_chunk * PANEL
        if p.k_chunk >= p.k_blocks:
            acc = self.sums(xs, w, panels, fn.index(0), depth)
            self.masked(is_last, lambda tail: self.store_final(acc, at, tail))
            return
        ends = depth - depth % chunk - (0 if depth % chunk else chunk)
        for start in (0, ends) if ends else (0,):  # the chunks but the last one, then that
            count = depth - start if start == ends else chunk
            with fn.loop(start, ends, chunk, name="chunk") if start < ends else nullcontext(fn.index(start)) as k0:
                acc = self.sums(xs, w, panels, k0, count)
                if start == ends:
                    self.masked(is_last, lambda tail, acc=acc: self.join(acc, at[-1], tail))
                    self.masked(is_last, lambda tail, acc=acc: self.store_final(acc, at, tail))
                    continue
                with fn.if_(fn.b.icmp_signed(">", k0, fn.index(0))):
                    self.masked(is_last, lambda tail, acc=acc: self.join(acc, at[-1], tail))
                self.masked(is_last, lambda tail, acc=acc: self.store_raw(acc, at[-1], tail))

    def sums(self, xs: list[ir.Value], w: ir.Value, panels: int, k0: ir.Value, depth: int) -> list:  # type: ignore[type-arg]
        """The sums over `depth` elements from k0 on, in the registers of a tile."""
        fn = self.fn
        vectors = PANEL // self.lanes
        sets = [RegisterTile(fn, len(xs), panels) for _ in range(sets_of(len(xs), panels * vectors, fn.target))]
        unroll = max(len(sets), 4 if len(xs) == 1 else 2 if len(xs) <= 4 else 1)
        whole = depth - depth % unroll
        if whole:
            with fn.loop(k0, fn.iadd(k0, whole), unroll, name="k") as k:
                self.update(xs, w, sets, k, unroll)
        if whole < depth:
            self.update(xs, w, sets, fn.iadd(k0, whole), depth - whole)
        acc = sets[0].acc
        while len(sets) > 1:  # pairwise
            for one, other in zip(sets[::2], sets[1::2], strict=True):
                for a, b in zip(flat(one), flat(other), strict=True):
                    a.set(fn.b.fadd(a.get(), b.get()))
            sets = sets[::2]
        return acc

    def update(self, xs: list[ir.Value], w: ir.Value, sets: list[RegisterTile], k: ir.Value, depth: int) -> None:
        fn, p, lanes = self.fn, self.p, self.lanes
        vectors = PANEL // lanes
        xs = [fn.at(x, fn.imul(k, p.x_k)) for x in xs]
        w = fn.at(w, fn.imul(k, PANEL))
        values = [[v.get() for v in flat(tile)] for tile in sets]
        for d in range(depth):
            now = values[d % len(sets)]
            xv = [fn.splat(fn.load(fn.at(x, d * p.x_k)), lanes) for x in xs]
            for q in range(len(now) // (len(xs) * vectors)):
                line = fn.at(w, q * self.spread * p.w_panel + d * PANEL)
                if p.prefetch:
                    fn.prefetch(fn.at(line, AHEAD // 4), 2)
                for v in range(vectors):
                    wv = fn.load(fn.at(line, v * lanes), "f32", lanes)
                    for i, x in enumerate(xv):
                        j = (i * (len(now) // len(xs))) + q * vectors + v
                        now[j] = fn.fma(x, wv, Val(now[j], "f32", lanes)).ir
        for tile, new in zip(sets, values, strict=True):
            for var, value in zip(flat(tile), new, strict=True):
                var.set(value)

    def address(self, pixels: list[ir.Value], side: Side, i: int, q: int, v: int) -> ir.Value:
        return super().address(pixels, side, i, q * self.spread, v)


def flat(tile: RegisterTile) -> list:  # type: ignore[type-arg]
    """The accumulators of a tile, row by row."""
    return [v for row in tile.acc for panel in row for v in panel]
