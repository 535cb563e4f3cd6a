"""The contraction kernel: matrix product and direct convolution are one register-tiled loop nest with other strides.

out[b, r, c, n] = epilogue(sum over taps t and k of x[b, r, c, t, k] * w[b, t, k, n])

`n` runs in panels of 16; weights are packed per panel as [k block][tap][16 k][16 n], so that one pass over a tile
reads them once, in order. x is read element by element and broadcast, so any strides of x cost nothing: row-major
matrices, transposed ones, plain NCHW images and channel-blocked ones take the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import Fn, Index, Val, register_type
from diptych.codegen.math import Math
from diptych.kernels.base import emits, evaluate
from diptych.kernels.tile import PANEL, RegisterTile, each_tile, load_masked, store_masked

if TYPE_CHECKING:
    from diptych.ir.kernel import Expr, Kernel

__all__ = ["PANEL", "ContractEmitter", "ContractParams", "Side"]


@dataclass(frozen=True, slots=True)
class Side:
    """Strides (in elements) of an operand over the output's batch dims, rows, columns, panels; `lane` is 0 or 1."""

    batch: tuple[int, ...]
    row: int
    col: int
    panel: int
    lane: int = 1


@dataclass(frozen=True, slots=True)
class ContractParams:
    """Everything the code of a contraction depends on. Operands: x, weights, epilogue operands ..., out.

    Pixels are numbered row by row. A side whose rows follow one another densely is walked with one stride; for any
    other a table of pixel offsets is written into the code, so register tiles may cross from row to row.
    """

    batch: tuple[int, ...]
    rows: int
    cols: int
    n: int  # output channels
    k_blocks: int  # full blocks of 16 reduction elements
    k_tail: int  # reduction elements of the last, partial block
    taps: tuple[int, ...]  # offset of each tap in x (elements)
    x: Side  # panel unused
    x_block: int  # stride of a block of 16 reduction elements
    x_k: int  # stride of one reduction element
    w_batch: tuple[int, ...]
    w_panel: int  # elements of one packed panel
    out: Side
    padded: bool  # the output has room for whole panels (blocked layout)
    epilogue: Expr  # register 0 is the sum
    sides: tuple[Side, ...]  # epilogue operands 1..
    # -- the schedule ---------------------------------------------------------------------------------------------
    tiles: tuple[tuple[int, int], ...]  # register tiles: (pixels, how many of them), at most two entries
    panels_per_tile: int
    tiles_per_block: int  # a work item covers this many tiles
    k_chunk: int  # blocks of reduction elements per pass
    panel_outer: bool  # work items of one panel group are neighbours (weights stay in cache), else of one pixel block
    prefetch: bool = False  # weights come from beyond L2: register tiles fetch the ones to be read next
    picked: tuple[int, ...] = ()  # which of the packed taps these are, if not all of them
    packed_taps: int = 0  # how many taps are packed then

    @property
    def w_taps(self) -> int:
        """Taps that the weights are packed with."""
        return self.packed_taps if self.picked else len(self.taps)

    @property
    def panels(self) -> int:
        return -(-self.n // PANEL)

    @property
    def groups(self) -> int:
        """Panel groups."""
        return -(-self.panels // self.panels_per_tile)

    @property
    def pixel_tiles(self) -> int:
        return sum(count for _, count in self.tiles)

    @property
    def pixel_blocks(self) -> int:
        return -(-self.pixel_tiles // self.tiles_per_block)

    @property
    def work(self) -> int:
        return prod(self.batch) * self.pixel_blocks * self.groups

    def __str__(self) -> str:
        shape = "x".join(map(str, (*self.batch, self.rows, self.cols, self.n)))
        k = self.k_blocks * PANEL + self.k_tail
        return f"[{shape}] K={len(self.taps)}x{k} tiles={self.tiles} P={self.panels_per_tile} {self.epilogue}"


@dataclass(frozen=True, slots=True)
class _Ahead:
    """Weights to fetch while a tile is worked out: addresses, and floats of each per rank-1 update."""

    at: list[ir.Value]
    step: int


class ContractEmitter:
    """Writes one contraction; holds what its parts share."""

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn = fn
        self.p: ContractParams = kernel.params
        self.math = Math(fn)
        self.lanes = min(PANEL, fn.target.lanes(4))
        self.vec = register_type("f32", self.lanes)
        self.k_chunks = max(1, -(-self.p.k_blocks // self.p.k_chunk)) if self.p.k_blocks else 1
        self.pointers = [fn.args[f"p{i}"] for i in range(len(kernel.operands))]

    # -- the loop nest over work items ----------------------------------------------------------------------------
    def emit(self) -> None:
        fn, p = self.fn, self.p
        last_two = [p.groups, p.pixel_blocks] if p.panel_outer else [p.pixel_blocks, p.groups]
        with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
            *batch, first, second = fn.unravel(item, [*p.batch, *last_two])
            group, pixel_block = (first, second) if p.panel_outer else (second, first)
            full, left = divmod(p.panels, p.panels_per_tile)
            if not left:
                self.block(batch, group, pixel_block, p.panels_per_tile)
            elif not full:
                self.block(batch, group, pixel_block, left)
            else:
                last = fn.b.icmp_signed("==", group, fn.index(full))
                with fn.b.if_else(last) as (then, otherwise):
                    with then:
                        self.block(batch, group, pixel_block, left)
                    with otherwise:
                        self.block(batch, group, pixel_block, p.panels_per_tile)

    def block(self, batch: list[ir.Value], group: ir.Value, pixel_block: ir.Value, panels: int) -> None:
        """One work item: all reduction chunks over its pixels."""
        fn, p = self.fn, self.p
        panel0 = fn.imul(group, p.panels_per_tile)
        w = fn.at(self.pointers[1], fn.iadd(fn.dot(batch, p.w_batch), fn.imul(panel0, p.w_panel)))
        x = fn.at(self.pointers[0], fn.dot(batch, p.x.batch))
        bases = [
            fn.at(pointer, fn.iadd(fn.dot(batch, side.batch), fn.imul(panel0, side.panel)))
            for pointer, side in zip(self.pointers[2:], (*p.sides, p.out), strict=True)
        ]
        t0 = fn.imul(pixel_block, p.tiles_per_block)
        t1 = fn.imin(fn.iadd(t0, p.tiles_per_block), p.pixel_tiles)
        with fn.loop(0, self.k_chunks, name="chunk") as chunk:
            for width, tile, pixel in each_tile(fn, p.tiles, t0, t1):
                ahead = self.ahead(w, chunk, fn.isub(tile, t0), panels) if p.prefetch else _Ahead([], PANEL)
                self.tile(x, w, bases, chunk, pixel, width, panels, panel0, ahead)

    def ahead(self, w: ir.Value, chunk: ir.Value, number: ir.Value, panels: int) -> _Ahead:
        """What tile `number` of a work item fetches: its part of the weights of the next chunk, or of the next group.

        The tiles take the panels in turn; those of one panel share its weights evenly.
        """
        fn, p = self.fn, self.p
        chunk_floats = p.k_chunk * len(p.taps) * PANEL * PANEL
        passes = p.tiles_per_block
        following = fn.at(w, fn.imul(fn.iadd(chunk, 1), chunk_floats))
        if self.k_chunks > 1:
            is_last = fn.b.icmp_signed("==", chunk, fn.index(self.k_chunks - 1))
            following = fn.b.select(is_last, fn.at(w, panels * p.w_panel), following)
        else:
            following = fn.at(w, panels * p.w_panel)
        if passes < panels:  # every tile fetches for several panels
            each = -(-panels // passes)
            first = fn.at(following, fn.imul(number, each * p.w_panel))
            return _Ahead([fn.at(first, q * p.w_panel) for q in range(each)], PANEL)
        shares = passes // panels
        step = -(-PANEL // shares)
        part = fn.imul(fn.idiv(number, panels), -(-chunk_floats // PANEL) * step)
        return _Ahead([fn.at(following, fn.iadd(fn.imul(fn.imod(number, panels), p.w_panel), part))], step)

    def pixels(self, base: ir.Value, side: Side, pixel: ir.Value, width: int) -> list[ir.Value]:
        """Addresses of `width` pixels from number `pixel` on."""
        fn, p = self.fn, self.p
        if p.rows == 1 or side.row == side.col * p.cols:
            first = fn.at(base, fn.imul(pixel, side.col))
            return [fn.at(first, i * side.col) for i in range(width)]
        offsets = [r * side.row + c * side.col for r in range(p.rows) for c in range(p.cols)]
        table = self.table(f"pixels.{p.rows}.{p.cols}.{side.row}.{side.col}", offsets)
        return [
            fn.at(base, fn.load(fn.at(table, fn.iadd(pixel, i), "i64"), "i64").ir) for i in range(width)
        ]

    # -- one register tile ----------------------------------------------------------------------------------------
    def tile(self, x: ir.Value, w: ir.Value, bases: list[ir.Value], chunk: ir.Value, pixel: ir.Value,
             width: int, panels: int, panel0: ir.Value, ahead: _Ahead) -> None:  # fmt: skip
        fn, p = self.fn, self.p
        xs = self.pixels(x, p.x, pixel, width)
        tile = RegisterTile(fn, width, panels)
        masked = bool(p.n % PANEL) and not p.padded
        is_last = fn.b.icmp_signed("==", panel0, fn.index(p.panels - panels)) if masked else None

        def out() -> list[ir.Value]:
            return self.pixels(bases[-1], p.out, pixel, width)

        first = fn.imul(chunk, p.k_chunk)
        if p.k_blocks:
            stop = fn.imin(fn.iadd(first, p.k_chunk), p.k_blocks) if self.k_chunks > 1 else fn.index(p.k_blocks)
            with fn.loop(first, stop, name="kb") as kb:
                at = fn.imul(fn.isub(kb, first), len(p.taps) * PANEL * ahead.step)
                self.multiply(xs, w, tile, kb, PANEL, _Ahead([fn.at(a, at) for a in ahead.at], ahead.step))

        def last_pass() -> None:
            if p.k_tail:
                skip = p.k_blocks * p.w_taps * PANEL * PANEL
                self.multiply([fn.at(a, p.k_blocks * p.x_block) for a in xs], fn.at(w, skip), tile, 0, p.k_tail,
                              _Ahead([], PANEL))
            if self.k_chunks > 1:
                self.masked(is_last, lambda tail: self.join(tile.acc, out(), tail))
            sides = (*p.sides, p.out)
            self.masked(is_last, lambda tail: self.store_final(
                tile.acc, [self.pixels(base, side, pixel, width) for base, side in zip(bases, sides, strict=True)], tail))

        if self.k_chunks == 1:
            last_pass()
        else:
            with fn.b.if_else(fn.b.icmp_signed("==", chunk, fn.index(self.k_chunks - 1))) as (then, otherwise):
                with then:
                    last_pass()
                with otherwise:
                    with fn.if_(fn.b.icmp_signed(">", chunk, fn.index(0))):
                        self.masked(is_last, lambda tail: self.join(tile.acc, out(), tail))
                    self.masked(is_last, lambda tail: self.store_raw(tile.acc, out(), tail))

    def masked(self, is_last: ir.Value | None, write: object) -> None:
        """Call `write(tail)` in a branch each for whole panels and for the cut-off last one."""
        assert callable(write)
        if is_last is None:
            write(False)
            return
        with self.fn.b.if_else(is_last) as (then, otherwise):
            with then:
                write(True)
            with otherwise:
                write(False)

    def multiply(self, xs: list[ir.Value], w: ir.Value, tile: RegisterTile, kb: Index, depth: int,
                 ahead: _Ahead) -> None:  # fmt: skip
        """tile += x block * w block, over all taps; `depth` reduction elements."""
        fn, p = self.fn, self.p
        wb = fn.at(w, fn.imul(kb, p.w_taps * PANEL * PANEL))
        xs = [fn.at(x, fn.imul(kb, p.x_block)) for x in xs]
        if len(p.taps) == 1:
            wb = fn.at(wb, p.picked[0] * depth * PANEL) if p.picked else wb
            tile.accumulate([fn.at(x, p.taps[0]) for x in xs], wb, depth, p.x_k, p.w_panel, ahead.at, ahead.step)
            return
        table = self.table("taps." + fn.function.name, list(p.taps))
        with fn.loop(0, len(p.taps), name="tap") as tap:
            offset = fn.load(fn.at(table, tap, "i64"), "i64").ir
            step = fn.at(wb, fn.imul(self.packed_tap(tap), depth * PANEL))
            later = [fn.at(a, fn.imul(tap, depth * ahead.step)) for a in ahead.at]
            tile.accumulate([fn.at(x, offset) for x in xs], step, depth, p.x_k, p.w_panel, later, ahead.step)

    def packed_tap(self, tap: ir.Value) -> ir.Value:
        """Which of the packed taps number `tap` is."""
        fn, p = self.fn, self.p
        if not p.picked:
            return tap
        return fn.load(fn.at(self.table("picked." + fn.function.name, list(p.picked)), tap, "i64"), "i64").ir

    def table(self, name: str, values: list[int]) -> ir.Value:
        """A constant table of offsets in the module, written once."""
        found = self.fn.module.globals.get(name)
        if found is None:
            t = ir.ArrayType(ir.IntType(64), len(values))
            found = ir.GlobalVariable(self.fn.module, t, name)
            found.initializer = ir.Constant(t, values)
            found.global_constant = True
            found.linkage = "internal"
        return found

    # -- leaving the registers ------------------------------------------------------------------------------------
    def each(self, acc: list, tail: bool):  # type: ignore[type-arg, no-untyped-def]
        """(pixel, panel, vector, variable, mask or None); vectors wholly outside are left out."""
        keep = self.p.n % PANEL
        for i, pixel in enumerate(acc):
            for q, panel in enumerate(pixel):
                for v, var in enumerate(panel):
                    left = keep - v * self.lanes if tail and q == len(pixel) - 1 else self.lanes
                    if left <= 0:
                        continue
                    mask = None
                    if left < self.lanes:
                        mask = ir.Constant(
                            ir.VectorType(ir.IntType(1), self.lanes), [int(lane < left) for lane in range(self.lanes)]
                        )
                    yield i, q, v, var, mask

    def address(self, pixels: list[ir.Value], side: Side, i: int, q: int, v: int) -> ir.Value:
        return self.fn.at(pixels[i], q * side.panel + v * self.lanes * side.lane)

    def load(self, address: ir.Value, mask: ir.Value | None) -> Val:
        return load_masked(self.fn, address, self.lanes, mask)

    def store(self, value: ir.Value, address: ir.Value, mask: ir.Value | None) -> None:
        store_masked(self.fn, Val(value, "f32", self.lanes), address, mask)

    def join(self, acc: list, out: list[ir.Value], tail: bool) -> None:  # type: ignore[type-arg]
        """Add what the chunks before left in the output.

        Each chunk is summed from zero: going on from the sum so far would round every product at its full size, and
        cost a deep sum (4608 products of a 3x3 convolution over 512 channels) three to four times the error.
        """
        for i, q, v, var, mask in self.each(acc, tail):
            before = self.load(self.address(out, self.p.out, i, q, v), mask)
            var.set(self.fn.b.fadd(before.ir, var.get()))

    def store_raw(self, acc: list, out: list[ir.Value], tail: bool) -> None:  # type: ignore[type-arg]
        for i, q, v, var, mask in self.each(acc, tail):
            self.store(var.get(), self.address(out, self.p.out, i, q, v), mask)

    def store_final(self, acc: list, at: list[list[ir.Value]], tail: bool) -> None:  # type: ignore[type-arg]
        p = self.p
        for i, q, v, var, mask in self.each(acc, tail):
            values = [Val(var.get(), "f32", self.lanes)]
            for pixels, side in zip(at[:-1], p.sides, strict=True):
                address = self.address(pixels, side, i, q, v)
                values.append(self.load(address, mask) if side.lane else self.fn.load(address))
            result = evaluate(self.math, p.epilogue, values)[0]
            self.store(result.ir, self.address(at[-1], p.out, i, q, v), mask)


@emits("contract")
def emit_contract(fn: Fn, kernel: Kernel) -> None:
    """Write a contraction (see the module's docstring)."""
    ContractEmitter(fn, kernel).emit()
