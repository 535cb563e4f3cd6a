"""Attention: softmax(scale * q k^T + mask) v by tiles, without the matrix of scores in memory.

A work item is a block of queries of one head (of all heads that share a key head). Keys and values are packed into
panels once per item, then every register tile of queries goes through them: scores into a strip that stays in L1, the
softmax of its rows, the product with the values. Where there are more keys than a strip holds, they come in chunks and
each row carries its largest score and its sum along (Milakov and Gimelshein 2018; Dao et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import Fn, Index, Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Expr, Kernel, Operand
from diptych.kernels.access import load_lanes, store_lanes
from diptych.kernels.attention_parts import Masking, RowSoftmax, pack_panel
from diptych.kernels.base import emits
from diptych.kernels.tile import PANEL, RegisterTile, each_tile
from diptych.kernels.tiling import pixel_tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.targets.base import Target

__all__ = ["AttentionParams", "make_attention"]

_STRIP = 288  # keys of a chunk at most: their scores for a tile of queries stay within half of L1
_BLOCK = 512  # query rows of a work item at most, where rows carry a state
_FLOPS_PER_NS = 60.0


@dataclass(frozen=True, slots=True)
class AttentionParams:
    """Operands: q[B,H,G,S,D], k[B,H,T,D], v[B,H,T,Dv], operands of the mask over [B,H,G,S,T], out[B,H,G,S,Dv].

    G query heads share a key head. With `causal`, query s sees keys 0..s + causal. `mask` gives what is added to the scores.
    """

    scale: float
    causal: int | None
    mask: Expr | None
    tiles: tuple[tuple[int, int], ...]  # register tiles of queries: (rows, how many of them), at most two entries
    panels: int  # panels of 16 keys, or of 16 columns of v, per register tile
    tiles_per_block: int
    chunk: int  # keys at a time, a multiple of 16
    zeros: bool = True  # a query that sees no key gets zeros, else NaN

    @property
    def blocks(self) -> int:
        return -(-sum(count for _, count in self.tiles) // self.tiles_per_block)

    def __str__(self) -> str:
        causal = "" if self.causal is None else f" causal+{self.causal}"
        return f"tiles={self.tiles}/{self.tiles_per_block} chunk={self.chunk}{causal} [{self.mask or ''}]"


def make_attention(q: Operand, k: Operand, v: Operand, mask: Sequence[Operand], out: Operand, scale: float, target: Target, *,
                   causal: int | None = None, mask_expr: Expr | None = None, zeros: bool = True, threads: int = 1) -> Kernel:  # fmt: skip
    """The kernel over operands as `AttentionParams` has them (any strides; columns of `out` dense), cut for `threads`."""
    b, h, g, s, d = q.shape
    t, dv = v.shape[2:]
    assert out.strides[-1] == 1 or dv == 1, "the columns of the result must be dense"
    if mask and mask_expr is None:
        raise ValueError("mask operands without an expression of them")
    lanes = min(PANEL, target.lanes(4))
    per_panel = PANEL // lanes
    panels = 2 if per_panel == 1 else 1
    most = max(1, (target.registers - per_panel * panels - 1) // (per_panel * panels))
    tiles = pixel_tiles(s, most, per_panel * panels)
    chunks = -(-t // _STRIP)
    chunk = _up(-(-t // chunks), PANEL)
    count = sum(n for _, n in tiles)
    best: tuple[float, int] | None = None
    for blocks in range(1, count + 1):
        each = -(-count // blocks)
        if -(-count // each) != blocks or (chunks > 1 and each * tiles[0][0] * g > max(_BLOCK, tiles[0][0] * g)):
            continue
        # cycles: two products of 16 lanes, and packing keys and values, which every item does anew
        item = g * each * tiles[0][0] * t * (d + dv) / PANEL + 0.4 * t * (d + dv) / 2 + 200
        cost = -(-b * h * blocks // threads) * item
        if best is None or cost < best[0] * 0.995:
            best = (cost, each)
    assert best is not None
    params = AttentionParams(scale, causal, mask_expr, tiles, panels, best[1], chunk, zeros)
    share = 1.0 if causal is None else min(1.0, (0.5 * s + causal) / t + 0.1)
    cost = 200 + 2.0 * b * h * g * s * t * (d + dv) * share / _FLOPS_PER_NS
    operands = (q, k, v, *mask, out)
    return Kernel("attention", params, operands, 1, b * h * params.blocks, cost, 4 * _places(params, operands, lanes).size)


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


@dataclass(frozen=True, slots=True)
class _Places:
    """Where things lie in a thread's scratch, in floats."""

    keys: int
    values: int
    scores: int
    queries: int
    space: int
    factors: int
    state: int
    sums: int
    size: int


def _places(p: AttentionParams, operands: Sequence[Operand], lanes: int) -> _Places:
    (_, _, g, _, d), dv = operands[0].shape, operands[2].shape[3]
    rows = max(w for w, _ in p.tiles)
    slots = p.tiles_per_block * g if operands[1].shape[2] > p.chunk else 0
    sizes = (
        p.chunk * d, p.chunk * _up(dv, PANEL), rows * p.chunk, rows * _up(d, PANEL), RowSoftmax.space(rows, lanes), _up(rows, lanes),
        2 * slots * _up(rows, lanes), slots * rows * _up(dv, PANEL),
    )  # fmt: skip
    at = [0]
    for size in sizes:
        at.append(at[-1] + _up(size, PANEL))
    return _Places(*at)


@emits("attention")
def emit_attention(fn: Fn, kernel: Kernel) -> None:
    """Work items, then chunks of keys, then the heads that share them, then tiles of queries."""
    _Emitter(fn, kernel).emit()


class _Emitter:
    """Writes one attention; holds what its parts share."""

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn, self.kernel, self.math = fn, kernel, Math(fn)
        self.p: AttentionParams = kernel.params
        self.lanes = min(PANEL, fn.target.lanes(4))
        self.rows = max(w for w, _ in self.p.tiles)
        self.masking = Masking(fn, self.math, self.lanes, kernel.operands[3:-1], self.p.mask, self.p.causal)
        self.softmax = RowSoftmax(fn, self.math, self.lanes, self.rows, self.p.zeros)
        self.q, self.k, self.v, *self.masks, self.out = kernel.operands
        _, _, self.group, self.s, self.d = self.q.shape
        self.t, self.dv = self.v.shape[2:]
        self.chunks = -(-self.t // self.p.chunk)
        self.at = _places(self.p, kernel.operands, self.lanes)
        self.dq = _up(self.d, PANEL)  # floats of a row of packed queries

    def scratch(self, where: int) -> ir.Value:
        return self.fn.at(self.fn.args["scratch"], where)

    # -- loops ----------------------------------------------------------------------------------------------------
    def emit(self) -> None:
        fn, p = self.fn, self.p
        b, h = self.q.shape[:2]
        with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
            batch, head, block = fn.unravel(item, [b, h, p.blocks])
            if p.causal is not None and p.blocks > 1:
                # later queries see more keys: early and late blocks in turn, so that equal shares are equal work
                half = fn.idiv(block, 2)
                odd = fn.b.trunc(block, ir.IntType(1))
                block = fn.b.select(odd, fn.isub(p.blocks - 1, half), half)
            t0 = fn.imul(block, p.tiles_per_block)
            t1 = fn.imin(fn.iadd(t0, p.tiles_per_block), sum(n for _, n in p.tiles))
            seen: Index = self.t  # keys that the last query of the block sees
            if p.causal is not None:
                seen = fn.imin(fn.iadd(self.first_row(t1), p.causal), self.t)
            if self.chunks == 1:
                self.chunk(batch, head, t0, t1, 0, seen)
            else:
                self.clear()
                with fn.loop(0, seen, p.chunk, name="chunk") as key0:
                    self.chunk(batch, head, t0, t1, key0, seen)

    def first_row(self, tile: Index) -> Index:
        """The first query of a tile."""
        fn, ((width, count), *more) = self.fn, self.p.tiles
        if not more:
            return fn.imul(tile, width)
        first = fn.imul(fn.imin(tile, count), width)
        return fn.iadd(first, fn.imul(fn.imax(fn.isub(tile, count), 0), more[0][0]))

    def clear(self) -> None:
        """The states of the block's rows before their first chunk."""
        fn, wide = self.fn, self.rows * _up(self.dv, PANEL)
        with fn.loop(0, self.p.tiles_per_block * self.group, name="slot") as slot:
            self.softmax.start(fn.at(self.scratch(self.at.state), fn.imul(slot, 2 * self.softmax.slots)))
            with fn.loop(fn.imul(slot, wide), fn.imul(fn.iadd(slot, 1), wide), self.lanes, name="sum") as i:
                fn.store(fn.const(0.0, "f32", self.lanes), fn.at(self.scratch(self.at.sums), i))

    def chunk(self, batch: ir.Value, head: ir.Value, t0: Index, t1: Index, key0: Index, seen: Index) -> None:
        """Pack keys from `key0` on, of which the block sees those below `seen`, and let all tiles see them."""
        fn, p = self.fn, self.p
        stop = seen if self.chunks == 1 else fn.imin(fn.iadd(key0, p.chunk), seen)
        self.pack(batch, head, key0, stop)
        with fn.loop(0, self.group, name="head") as g:
            for width, tile, row in each_tile(fn, p.tiles, t0, t1):
                slot = fn.iadd(fn.imul(g, p.tiles_per_block), fn.isub(tile, t0))
                self.tile_of(width, [batch, head, g], row, slot, key0, stop)

    def tile_of(self, width: int, where: list[ir.Value], row: ir.Value, slot: Index, key0: Index, stop: Index) -> None:
        fn, p = self.fn, self.p
        if p.causal is None:
            self.tile(width, where, row, slot, key0, stop, self.t)
            return
        own = fn.imin(fn.iadd(row, width + p.causal), self.t)  # keys that the tile's last query sees
        if self.chunks == 1:
            self.tile(width, where, row, slot, key0, own, own)
            return
        with fn.if_(fn.b.icmp_signed(">", own, fn.index(key0))):
            self.tile(width, where, row, slot, key0, fn.imin(own, stop), own)

    def panels(self, count: Index, body: Callable[[Index, int], None]) -> None:
        """body(first panel, how many) over `count` panels, as many at a time as a register tile has."""
        fn, per = self.fn, self.p.panels
        whole = fn.imul(fn.idiv(count, per), per)
        with fn.loop(0, whole, per, name="panel") as first:
            body(first, per)
        if per > 1:
            assert per == 2
            if isinstance(count, int):
                if count % 2:
                    body(count - 1, 1)
            else:
                with fn.if_(fn.b.trunc(count, ir.IntType(1))):
                    body(whole, 1)

    # -- packing --------------------------------------------------------------------------------------------------
    def pack(self, batch: ir.Value, head: ir.Value, key0: Index, stop: Index) -> None:
        """Keys and values key0 .. stop as panels: keys [16 keys][d][16], values [16 columns][keys][16]."""
        fn = self.fn
        k = fn.at(fn.args["p1"], fn.iadd(fn.dot([batch, head], self.k.strides[:2]), fn.imul(key0, self.k.strides[2])))
        v = fn.at(fn.args["p2"], fn.iadd(fn.dot([batch, head], self.v.strides[:2]), fn.imul(key0, self.v.strides[2])))
        keys, values = self.scratch(self.at.keys), self.scratch(self.at.values)
        count = fn.isub(stop, key0)
        sk, sd = self.k.strides[2:]

        def panel(i: Index, there: int) -> None:
            source, out = fn.at(k, fn.imul(i, PANEL * sk)), fn.at(keys, fn.imul(i, PANEL * self.d))
            pack_panel(fn, source, out, sk, sd, self.d, there, self.lanes)

        # whole panels also reach past `stop` where only causality ends there, never past the last key
        left = self.t % PANEL
        panels = fn.idiv(fn.iadd(count, PANEL - 1), PANEL)
        whole = fn.imin(panels, fn.idiv(fn.isub(self.t, key0), PANEL)) if left else panels
        with fn.loop(0, whole, name="panel") as i:
            panel(i, PANEL)
        ends = fn.b.icmp_signed("<", whole, panels)
        if left:
            with fn.if_(ends):
                panel(whole, left)
        # products are worked out in steps of up to four keys, so values too are padded to whole panels
        real = fn.imin(fn.imul(panels, PANEL), fn.isub(self.t, key0))
        st, sv = self.v.strides[2:]
        for q in range(-(-self.dv // PANEL)):
            out = fn.at(values, q * PANEL * self.p.chunk)
            pack_panel(fn, fn.at(v, q * PANEL * sv), out, sv, st, real, min(PANEL, self.dv - q * PANEL), self.lanes)
            if left:
                with fn.if_(ends), fn.loop(fn.imul(real, PANEL), fn.imul(panels, PANEL * PANEL), self.lanes) as i:
                    fn.store(fn.const(0.0, "f32", self.lanes), fn.at(out, i))

    def pack_queries(self, width: int, q: ir.Value) -> None:
        """Rows of scaled queries one after another."""
        fn, (ss, sd), lanes = self.fn, self.q.strides[3:], self.lanes
        factor = fn.const(self.p.scale, "f32", lanes)
        vectors = -(-self.d // lanes)

        def pack(i: Index, j: Index, size: int) -> None:
            x = load_lanes(fn, q, fn.iadd(fn.imul(i, ss), fn.imul(j, sd)), sd, "f32", lanes, size)
            fn.store(self.math.mul(x, factor), fn.at(self.scratch(self.at.queries), fn.iadd(fn.imul(i, self.dq), j)))

        if sd == 1 and vectors <= 8:
            for i in range(width):
                for j in range(0, self.d, lanes):
                    pack(i, j, min(lanes, self.d - j))
            return
        with fn.loop(0, width, name="row") as row:
            whole = self.d - self.d % lanes
            with fn.loop(0, whole, lanes, name="d") as d:
                pack(row, d, lanes)
            if whole < self.d:
                pack(row, whole, self.d - whole)

    # -- one tile of queries --------------------------------------------------------------------------------------
    def tile(self, width: int, where: list[ir.Value], row: ir.Value, slot: Index, key0: Index, stop: Index,
             own: Index) -> None:  # fmt: skip
        """Queries row .. row + width on keys key0 .. stop; they see keys below `own` in all."""
        fn, p = self.fn, self.p
        q = fn.at(fn.args["p0"], fn.iadd(fn.dot(where, self.q.strides[:3]), fn.imul(row, self.q.strides[3])))
        self.pack_queries(width, q)
        queries, scores = self.scratch(self.at.queries), self.scratch(self.at.scores)
        count = fn.isub(stop, key0)
        const = fn._const(count)
        panels: Index = -(-const // PANEL) if const is not None else fn.idiv(fn.iadd(count, PANEL - 1), PANEL)

        def score(first: Index, some: int) -> None:
            tile = RegisterTile(fn, width, some)
            keys = fn.at(self.scratch(self.at.keys), fn.imul(first, PANEL * self.d))
            tile.accumulate([fn.at(queries, i * self.dq) for i in range(width)], keys, self.d, 1, PANEL * self.d)
            self.masked(fn.iadd(first, fn.idiv(key0, PANEL)), some, self.t,
                        lambda tail: self.store_scores(tile, where, row, key0, first, tail))  # fmt: skip

        self.panels(panels, score)
        factors = self.scratch(self.at.factors)
        vectors: Index = panels * (PANEL // self.lanes) if isinstance(panels, int) else fn.imul(panels, PANEL // self.lanes)
        state = fn.at(self.scratch(self.at.state), fn.imul(slot, 2 * self.softmax.slots)) if self.chunks > 1 else None
        self.softmax.rows(scores, p.chunk, width, vectors, self.scratch(self.at.space), factors, state)

        def weigh(first: Index, some: int) -> None:
            tile = RegisterTile(fn, width, some)
            values = fn.at(self.scratch(self.at.values), fn.imul(first, PANEL * p.chunk))
            depth: Index = const if const is not None else count
            tile.accumulate([fn.at(scores, i * p.chunk) for i in range(width)], values, depth, 1, PANEL * p.chunk)
            if self.chunks == 1:
                scale = [fn.load(fn.at(factors, i)) for i in range(width)]
                self.masked(first, some, self.dv, lambda tail: self.store_result(tile, where, row, first, scale, tail))
            else:
                self.carry(tile, where, row, slot, first, stop, own)

        self.panels(-(-self.dv // PANEL), weigh)

    def masked(self, first: Index, some: int, extent: int, write: Callable[[int], None]) -> None:
        """write(lanes of the last panel) in a branch each for whole panels and for the cut-off last one of `extent`."""
        fn, left = self.fn, extent % PANEL
        if not left:
            write(PANEL)
            return
        last = fn._const(first)
        if last is not None:
            write(left if last + some - 1 == extent // PANEL else PANEL)
            return
        is_last = fn.b.icmp_signed("==", fn.iadd(first, some - 1), fn.index(extent // PANEL))
        with fn.b.if_else(is_last) as (then, otherwise):
            with then:
                write(left)
            with otherwise:
                write(PANEL)

    def vectors(self, tile: RegisterTile, tail: int):  # type: ignore[no-untyped-def]
        """(row, offset from the first panel, value, how many lanes exist) of each accumulator."""
        for i, row in enumerate(tile.acc):
            for q, panel in enumerate(row):
                for v, var in enumerate(panel):
                    there = self.lanes if q < len(row) - 1 else max(0, min(self.lanes, tail - v * self.lanes))
                    yield i, q * PANEL + v * self.lanes, Val(var.get(), "f32", self.lanes), there

    def store_scores(self, tile: RegisterTile, where: list[ir.Value], row: ir.Value, key0: Index, first: Index, tail: int) -> None:
        """Sums, masked, into the strip."""
        fn, column = self.fn, self.fn.imul(first, PANEL)
        here = self.masking.at(where, row, fn.iadd(key0, column))
        for i, offset, x, there in self.vectors(tile, tail):
            x = self.masking.apply(x, here, i, offset, there)
            fn.store(x, fn.at(self.scratch(self.at.scores), fn.iadd(column, i * self.p.chunk + offset)))

    def store_result(self, tile: RegisterTile, where: list[ir.Value], row: ir.Value, first: Index, scale: list[Val],
                     tail: int) -> None:  # fmt: skip
        """Sums divided by those of the weights."""
        fn, out = self.fn, self.out
        base = fn.iadd(fn.dot(where, out.strides[:3]), fn.iadd(fn.imul(row, out.strides[3]), fn.imul(first, PANEL)))
        for i, offset, x, there in self.vectors(tile, tail):
            if there:
                x = self.math.mul(x, fn.splat(scale[i], self.lanes))
                store_lanes(fn, x, fn.args[f"p{3 + len(self.masks)}"], fn.iadd(base, i * out.strides[3] + offset), 1, there)

    def carry(self, tile: RegisterTile, where: list[ir.Value], row: ir.Value, slot: Index, first: Index, stop: Index,
              own: Index) -> None:  # fmt: skip
        """Join a chunk's sums with those of the chunks before; after the last one write the result."""
        fn, wide = self.fn, _up(self.dv, PANEL)
        sums = fn.at(self.scratch(self.at.sums), fn.iadd(fn.imul(slot, self.rows * wide), fn.imul(first, PANEL)))
        factors = [fn.splat(fn.load(fn.at(self.scratch(self.at.factors), i)), self.lanes) for i in range(len(tile.acc))]
        for i, pixel in enumerate(tile.acc):
            for q, panel in enumerate(pixel):
                for v, var in enumerate(panel):
                    before = fn.load(fn.at(sums, i * wide + q * PANEL + v * self.lanes), "f32", self.lanes)
                    var.set(self.math.fma(before, factors[i], Val(var.get(), "f32", self.lanes)).ir)
        last = fn.b.icmp_signed("==", fn.index(stop), fn.index(own))
        with fn.b.if_else(last) as (then, otherwise):
            with then:
                totals = fn.at(self.scratch(self.at.state), fn.iadd(fn.imul(slot, 2 * self.softmax.slots), self.softmax.slots))
                scale = [self.softmax.reciprocal(fn.load(fn.at(totals, i))) for i in range(len(tile.acc))]
                self.masked(first, len(tile.acc[0]), self.dv,
                            lambda tail: self.store_result(tile, where, row, first, scale, tail))  # fmt: skip
            with otherwise:
                for i, offset, x, _ in self.vectors(tile, PANEL):
                    fn.store(x, fn.at(sums, i * wide + offset))
