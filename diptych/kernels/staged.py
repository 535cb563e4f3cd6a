"""1x1 convolution of an expression of its input: out = epilogue(sum over k of prologue(x)[pixel, k] * w[k, n]).

A work item takes some pixels, works the expression out for all of their channels once, into scratch that stays in L2,
and multiplies that by every panel of weights. A dense block has one such layer after another that differ in their
depth only: they share one body of code, which is told the depth when it is called.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import I64, PTR, Fn, Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Expr, Kernel, Operand
from diptych.kernels.access import keep_lanes
from diptych.kernels.base import emits, evaluate
from diptych.kernels.contract import PANEL, Side
from diptych.kernels.nest import expr_cost
from diptych.kernels.tile import RegisterTile
from diptych.kernels.tiling import pixel_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.codegen.builder import Index
    from diptych.ir import Array
    from diptych.targets.base import Target

__all__ = ["StagedParams", "StagedTiling", "make_staged", "pack_groups", "staged_tiling"]

_CHAIN = 16  # blocks of 16 products in one chain of sums; longer ones round more, so partial sums are added up
_UNROLL = {16: 2, 32: 4, 64: 1}  # products a turn, by bytes of a vector (see `tile`)


@dataclass(frozen=True, slots=True)
class StagedTiling:
    """Register tiles (width, count), panels of a register tile, tiles of a work item, items that share those pixels."""

    tiles: tuple[tuple[int, int], ...]
    panels_per_tile: int
    tiles_per_block: int
    parts: int


@dataclass(frozen=True, slots=True)
class StagedParams:
    """Operands: inputs of the prologue, weights (from `pack_groups`), epilogue operands, out.

    A Side's `panel` is the stride of a block of 16 channels: those summed over for an input, outputs for the others.
    """

    batch: tuple[int, ...]
    rows: int
    cols: int
    panels: int
    k_blocks: int
    k_tail: int
    prologue: Expr
    inputs: tuple[Side, ...]
    epilogue: Expr
    sides: tuple[Side, ...]
    out: Side
    tiling: StagedTiling

    @property
    def pixel_tiles(self) -> int:
        return sum(count for _, count in self.tiling.tiles)

    @property
    def pixel_blocks(self) -> int:
        return -(-self.pixel_tiles // self.tiling.tiles_per_block)

    @property
    def staged_pixels(self) -> int:
        """Room for the pixels of a work item."""
        return self.tiling.tiles_per_block * self.tiling.tiles[0][0]

    def __str__(self) -> str:
        shape = "x".join(map(str, (*self.batch, self.rows, self.cols, self.panels * PANEL)))
        return f"[{shape}] K={self.k_blocks * PANEL + self.k_tail} [{self.prologue}] {self.tiling.tiles} [{self.epilogue}]"


def staged_tiling(target: Target, batch: int, pixels: int, panels: int) -> StagedTiling:
    """The schedule. It leaves the depth out of account, so that layers of a dense block agree on it."""
    per_panel = PANEL // min(PANEL, target.lanes(4))
    group = 2 if per_panel == 1 and panels % 2 == 0 else 1
    most = max(1, (target.registers - per_panel * group - 1) // (per_panel * group))
    tiles = pixel_tiles(pixels, min(most, 28), per_panel * group)
    count = sum(c for _, c in tiles)
    if batch * count < 8 and panels // group > 1:  # few pixels: weights are most of the traffic, each item reads a part
        return StagedTiling(tiles, group, count, min(4, panels // group))
    return StagedTiling(tiles, group, max(range(1, min(count, 4) + 1), key=lambda n: (_evenness(batch, count, n), n)), 1)


def _evenness(batch: int, tiles: int, per_block: int) -> float:
    """How evenly two threads share the tiles, when items take so many of them: 1 at best, in steps of a hundredth."""
    blocks = -(-tiles // per_block)
    half = batch * blocks // 2
    first = half // blocks * tiles + min(half % blocks * per_block, tiles)
    return round(batch * tiles / 2 / max(first, batch * tiles - first), 2)


def pack_groups(w: Array, out: Array) -> None:
    """w[O, K] -> out[panels / per_tile, K, 16 * per_tile], of zeros; outputs past O stay zero."""
    lanes = out.shape[2]
    for group, place in enumerate(out):
        part = w[group * lanes : (group + 1) * lanes]
        place[:, : len(part)] = part.T


def make_staged(params: StagedParams, operands: Sequence[Operand], target: Target) -> Kernel:
    """The kernel; `params.tiling` comes from `staged_tiling`."""
    if any(o.dtype != "f32" for o in operands) or any(s.lane not in (0, 1) for s in (*params.inputs, *params.sides)):
        raise ValueError("staged: operands are f32, their 16 lanes contiguous or one value for all")
    t = params.tiling
    pixels, k = prod(params.batch) * params.rows * params.cols, params.k_blocks * PANEL + params.k_tail
    work = prod(params.batch) * params.pixel_blocks * t.parts
    scratch = 4 * PANEL * (t.tiles[0][0] * t.panels_per_tile + params.staged_pixels * -(-k // PANEL))
    cost = 2.0 * pixels * k * params.panels * PANEL / 60.0 + pixels * k * expr_cost(params.prologue) / target.lanes(4) / 6
    return Kernel("staged", params, tuple(operands), 1, work, cost, scratch)


@emits("staged")
def emit_staged(fn: Fn, kernel: Kernel) -> None:
    """A call of the shared body."""
    p: StagedParams = kernel.params
    digest = hashlib.sha256(repr(replace(p, k_blocks=0)).encode()).hexdigest()[:16]
    body = fn.module.globals.get(f"staged.{digest}")
    if body is None:
        params = [("begin", I64), ("end", I64), ("scratch", PTR), *((f"p{i}", PTR) for i in range(len(kernel.operands)))]
        shared = Fn(fn.module, f"staged.{digest}", [*params, ("k_blocks", I64)], fn.target, internal=True)
        shared.function.attributes.add("noinline")
        _Emitter(shared, p).emit()
        body = shared.finish()
    names = ("begin", "end", "scratch", *(f"p{i}" for i in range(len(kernel.operands))))
    fn.b.call(body, [*(fn.args[n] for n in names), fn.index(p.k_blocks)])


class _Emitter:
    """Writes the body; `k` is its depth in blocks, known at run time."""

    def __init__(self, fn: Fn, p: StagedParams) -> None:
        self.fn, self.p, self.math = fn, p, Math(fn)
        self.lanes = min(PANEL, fn.target.lanes(4))
        self.vectors = PANEL // self.lanes
        self.k = fn.args["k_blocks"]
        n = len(p.inputs)
        pointers = [fn.args[f"p{i}"] for i in range(n + 2 + len(p.sides))]
        self.inputs, self.weights, self.outs = pointers[:n], pointers[n], pointers[n + 1 :]
        self.width, self.group = p.tiling.tiles[0][0], p.tiling.panels_per_tile
        self.partial = fn.args["scratch"]
        self.staged = fn.at(self.partial, self.width * self.group * PANEL)

    def emit(self) -> None:
        fn, p, t = self.fn, self.p, self.p.tiling
        groups = p.panels // self.group
        with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
            *batch, block, part = fn.unravel(item, [*p.batch, p.pixel_blocks, t.parts])
            t0 = fn.imul(block, t.tiles_per_block)
            t1 = fn.imin(fn.iadd(t0, t.tiles_per_block), p.pixel_tiles)
            pixel0 = self.pixel_of(t0)
            self.stage(batch, pixel0, self.pixel_of(t1))
            first, last = (fn.idiv(fn.imul(fn.iadd(part, i), groups), t.parts) for i in (0, 1))
            with fn.loop(first, last, name="group") as group:
                self.multiply(batch, group, t0, t1, pixel0)

    def pixel_of(self, tile: Index) -> ir.Value:
        """The first pixel of a register tile."""
        fn, ((wide, count), *rest) = self.fn, self.p.tiling.tiles
        whole = fn.imul(fn.imin(tile, count), wide)
        return fn.iadd(whole, fn.imul(fn.imax(fn.isub(tile, count), 0), rest[0][0])) if rest else whole

    def pixel(self, base: ir.Value, side: Side, pixel: Index) -> ir.Value:
        """The address of a pixel; where rows do not follow one another densely a table has their offsets."""
        fn, p = self.fn, self.p
        if p.rows == 1 or side.row == side.col * p.cols:
            return fn.at(base, fn.imul(pixel, side.col))
        name = f"pixels.{p.rows}.{p.cols}.{side.row}.{side.col}"
        table = fn.module.globals.get(name)
        if table is None:
            offsets = [r * side.row + c * side.col for r in range(p.rows) for c in range(p.cols)]
            t = ir.ArrayType(I64, len(offsets))
            table = ir.GlobalVariable(fn.module, t, name)
            table.initializer, table.global_constant, table.linkage = ir.Constant(t, offsets), True, "internal"
        return fn.at(base, fn.load(fn.at(table, pixel, "i64"), "i64").ir)

    # -- the prologue ---------------------------------------------------------------------------------------------
    def stage(self, batch: list[ir.Value], pixel0: ir.Value, pixel1: ir.Value) -> None:
        """prologue(x) of pixels [pixel0, pixel1) into scratch: [block of channels][pixel][16]."""
        fn, p = self.fn, self.p
        bases = [fn.at(x, fn.dot(batch, s.batch)) for x, s in zip(self.inputs, p.inputs, strict=True)]
        with fn.loop(0, self.k, name="kb") as kb:
            self.stage_block(bases, kb, pixel0, pixel1, PANEL)
        if p.k_tail:
            self.stage_block(bases, self.k, pixel0, pixel1, p.k_tail)

    def stage_block(self, bases: Sequence[ir.Value], kb: ir.Value, pixel0: ir.Value, pixel1: ir.Value,
                    channels: int) -> None:  # fmt: skip
        fn, p = self.fn, self.p
        blocks = [fn.at(base, fn.imul(kb, s.panel)) for base, s in zip(bases, p.inputs, strict=True)]
        to = fn.at(self.staged, fn.imul(kb, p.staged_pixels * PANEL))
        with fn.loop(pixel0, pixel1, name="pixel") as pixel:
            sources = [self.pixel(b, s, pixel) for b, s in zip(blocks, p.inputs, strict=True)]
            place = fn.at(to, fn.imul(fn.isub(pixel, pixel0), PANEL))
            for v in range(self.vectors):
                values = [
                    fn.load(fn.at(x, v * self.lanes * s.lane), "f32", self.lanes if s.lane else 1)
                    for x, s in zip(sources, p.inputs, strict=True)
                ]
                done = fn.splat(evaluate(self.math, p.prologue, values)[0], self.lanes)
                left = channels - v * self.lanes
                zero = fn.const(0, "f32", self.lanes)
                if left < self.lanes:  # lanes past the last channel hold anything, NaN included
                    done = keep_lanes(fn, done, left, zero) if left > 0 else zero
                fn.store(done, fn.at(place, v * self.lanes))

    # -- the products ---------------------------------------------------------------------------------------------
    def multiply(self, batch: list[ir.Value], group: ir.Value, t0: ir.Value, t1: ir.Value, pixel0: ir.Value) -> None:
        fn, p = self.fn, self.p
        depth = fn.iadd(fn.imul(self.k, PANEL), p.k_tail)
        w = fn.at(self.weights, fn.imul(fn.imul(group, depth), self.group * PANEL))
        bases = [
            fn.at(pointer, fn.iadd(fn.dot(batch, s.batch), fn.imul(group, self.group * s.panel)))
            for pointer, s in zip(self.outs, (*p.sides, p.out), strict=True)
        ]
        start, first = 0, 0
        for width, count in p.tiling.tiles:
            with fn.loop(fn.imax(t0, start), fn.imin(t1, start + count), name="tile") as tile:
                pixel = fn.iadd(fn.imul(fn.isub(tile, start), width), first)
                self.tile(fn.at(self.staged, fn.imul(fn.isub(pixel, pixel0), PANEL)), w, bases, pixel, width)
            start += count
            first += width * count

    def tile(self, x: ir.Value, w: ir.Value, bases: Sequence[ir.Value], pixel: ir.Value, width: int) -> None:
        """One register tile over the whole depth, `_CHAIN` blocks at a time."""
        fn, p = self.fn, self.p
        tile = RegisterTile(fn, width, self.group)
        zero = ir.Constant(ir.VectorType(ir.FloatType(), self.lanes), [0.0] * self.lanes)
        with fn.loop(0, self.k, _CHAIN, name="chain") as lo:
            for _, _, _, var in self.each(tile):
                var.set(zero)
            with fn.loop(lo, fn.imin(fn.iadd(lo, _CHAIN), self.k), name="kb") as kb:
                self.accumulate(tile, x, w, kb, PANEL)
            with fn.if_(fn.b.icmp_signed(">", lo, fn.index(0))):
                for i, q, v, var in self.each(tile):
                    var.set(fn.b.fadd(fn.load(self.slot(i, q, v), "f32", self.lanes).ir, var.get()))
            with fn.if_(fn.b.icmp_signed("<", fn.iadd(lo, _CHAIN), self.k)):
                for i, q, v, var in self.each(tile):
                    fn.store(Val(var.get(), "f32", self.lanes), self.slot(i, q, v))
        if p.k_tail:
            self.accumulate(tile, x, w, self.k, p.k_tail)
        sides = (*p.sides, p.out)
        places = [[self.pixel(b, s, fn.iadd(pixel, i)) for i in range(width)] for b, s in zip(bases, sides, strict=True)]
        for i, q, v, var in self.each(tile):
            values = [Val(var.get(), "f32", self.lanes)]
            for at, s in zip(places[:-1], p.sides, strict=True):
                values.append(fn.load(self.element(at[i], s, q, v), "f32", self.lanes if s.lane else 1))
            fn.store(evaluate(self.math, p.epilogue, values)[0], self.element(places[-1][i], p.out, q, v))

    def each(self, tile: RegisterTile):  # type: ignore[no-untyped-def]
        """(pixel, panel, vector, accumulator)."""
        for i, pixel in enumerate(tile.acc):
            for q, panel in enumerate(pixel):
                for v, var in enumerate(panel):
                    yield i, q, v, var

    def slot(self, i: int, q: int, v: int) -> ir.Value:
        return self.fn.at(self.partial, (i * self.group + q) * PANEL + v * self.lanes)

    def element(self, at: ir.Value, side: Side, q: int, v: int) -> ir.Value:
        return self.fn.at(at, q * side.panel + v * self.lanes * side.lane)

    def accumulate(self, tile: RegisterTile, x: ir.Value, w: ir.Value, kb: ir.Value, depth: int) -> None:
        """`depth` rank-1 updates of a block."""
        fn, p = self.fn, self.p
        x = fn.at(x, fn.imul(kb, p.staged_pixels * PANEL))
        w = fn.at(w, fn.imul(kb, PANEL * PANEL * self.group))
        unroll = _UNROLL.get(fn.target.vector_bytes, 4)
        whole = depth - depth % unroll
        if whole:
            with fn.loop(0, whole, unroll, name="k") as k:
                self.update(tile, fn.at(x, k), fn.at(w, fn.imul(k, PANEL * self.group)), unroll)
        if whole < depth:
            self.update(tile, fn.at(x, whole), fn.at(w, whole * PANEL * self.group), depth - whole)

    def update(self, tile: RegisterTile, x: ir.Value, w: ir.Value, depth: int) -> None:
        fn, lanes = self.fn, self.lanes
        sums = [[[v.get() for v in panel] for panel in pixel] for pixel in tile.acc]
        for k in range(depth):
            ws = [
                fn.load(fn.at(w, (k * self.group + q) * PANEL + v * lanes), "f32", lanes)
                for q in range(self.group) for v in range(self.vectors)
            ]  # fmt: skip
            for i, pixel in enumerate(sums):
                xv = fn.splat(fn.load(fn.at(x, i * PANEL + k)), lanes)
                for q, panel in enumerate(pixel):
                    for v in range(self.vectors):
                        panel[v] = fn.fma(xv, ws[q * self.vectors + v], Val(panel[v], "f32", lanes)).ir
        for pixel, done in zip(tile.acc, sums, strict=True):
            for variables, values in zip(pixel, done, strict=True):
                for var, value in zip(variables, values, strict=True):
                    var.set(value)
