"""A product by constant weights with seven multiplications where eight are usual: one level of Strassen's scheme.

Rows are taken in neighbouring pairs (2 i, 2 i + 1), panels of 16 columns in neighbouring pairs, and the depth in pairs
of stretches. With A the rows and B the weights, the products and where they go are those of `PRODUCTS`: Strassen's own,
not Winograd's with fewer additions, because the additions are cheap here and its rounding errors are a third larger.
The sums of quarters of A come from `strassen_rows`, those of B are made when the weights are packed; the four results of
a register tile gather in L1, so the scheme costs a few vector operations per tile and no pass over memory.
Source: V. Strassen, "Gaussian elimination is not optimal", Numerische Mathematik 13 (1969).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import I32, VOID, Val, register_type
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel
from diptych.kernels.base import emits, evaluate
from diptych.kernels.tile import PANEL, RegisterTile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.codegen.builder import Fn
    from diptych.ir.kernel import Expr, Operand

__all__ = ["PRODUCTS", "SLOTS", "StrassenParams", "make_strassen"]

# What `strassen_rows` makes, in this order. (A22 is there because it is scaled, see there.)
SLOTS = ("A11+A22", "A21+A22", "A22", "A11+A12", "A21-A11", "A12-A22")
# In the order in which they are made and their weights packed: rows, weights, and the results they are added to.
PRODUCTS = (
    ("A11+A22", "B11+B22", {"C11": 1, "C22": 1}),
    ("A21+A22", "B11", {"C21": 1, "C22": -1}),
    ("A11", "B12-B22", {"C12": 1, "C22": 1}),
    ("A22", "B21-B11", {"C11": 1, "C21": 1}),
    ("A11+A12", "B22", {"C11": -1, "C12": 1}),
    ("A21-A11", "B11+B12", {"C22": 1}),
    ("A12-A22", "B21+B22", {"C11": 1}),
)


@dataclass(frozen=True, slots=True)
class StrassenParams:
    """Operands: x[batch, rows, K], its sums [batch, 6, pairs, K/2], weights, inverse row scales [batch, pairs] and
    column scales [n] (as the flags say), epilogue operands, out[batch, rows, n]; the last axis of x and out is dense."""

    batch: int
    rows: int
    n: int
    half: int  # a stretch of the depth is 2 * half long
    stretches: int
    per_pass: int  # stretches whose weights are kept in L2 while the rows go by
    scaled_rows: bool
    scaled_columns: bool
    epilogue: Expr  # register 0 is the sum
    tiles: tuple[tuple[int, int], ...]  # register tiles: (pairs of rows, how many)
    pairs_per_tile: int  # of panels
    tiles_per_block: int
    panel_outer: bool

    @property
    def row_pairs(self) -> int:
        return -(-self.rows // 2)

    @property
    def panel_pairs(self) -> int:
        return -(-self.n // (2 * PANEL))

    @property
    def groups(self) -> int:
        return -(-self.panel_pairs // self.pairs_per_tile)

    @property
    def row_blocks(self) -> int:
        return -(-sum(c for _, c in self.tiles) // self.tiles_per_block)

    @property
    def work(self) -> int:
        return self.batch * self.groups * self.row_blocks

    @property
    def depth(self) -> int:
        return 2 * self.half * self.stretches

    @property
    def group_weights(self) -> int:
        """Packed weights of a whole group, in elements."""
        return self.stretches * len(PRODUCTS) * self.pairs_per_tile * self.half * PANEL

    def __str__(self) -> str:
        return f"[{self.batch}x{self.rows}x{self.n}] K={self.stretches}x2x{self.half} tiles={self.tiles} {self.epilogue}"


def make_strassen(params: StrassenParams, operands: Sequence[Operand], target_lanes: int) -> Kernel:
    """The kernel; operands as StrassenParams has them."""
    p = params
    cost = 1.75 * p.batch * p.rows * p.n * p.depth / (7.5 * target_lanes / 2)
    scratch = 4 * 4 * max(w for w, _ in p.tiles) * p.pairs_per_tile * PANEL
    return Kernel("strassen", params, tuple(operands), 1, p.work, cost, scratch)


class _Emitter:
    """Writes one product; holds what its parts share."""

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn, self.math, self.operands = fn, Math(fn), kernel.operands
        self.p: StrassenParams = kernel.params
        self.lanes = min(PANEL, fn.target.lanes(4))
        self.vectors = PANEL // self.lanes
        self.pointers = [fn.args[f"p{i}"] for i in range(len(kernel.operands))]
        p = self.p
        at = 3
        self.row_scales = self.pointers[at] if p.scaled_rows else None
        at += p.scaled_rows
        self.column_scales = self.pointers[at] if p.scaled_columns else None
        self.first_side = at + p.scaled_columns

    # -- the loop nest over work items ----------------------------------------------------------------------------
    def emit(self) -> None:
        fn, p = self.fn, self.p
        last_two = [p.groups, p.row_blocks] if p.panel_outer else [p.row_blocks, p.groups]
        with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
            batch, first, second = fn.unravel(item, [p.batch, *last_two])
            group, block = (first, second) if p.panel_outer else (second, first)
            full, left = divmod(p.panel_pairs, p.pairs_per_tile)
            last_pairs = left or p.pairs_per_tile
            tail = bool(p.n % (2 * PANEL))
            if (not left and not tail) or not full:
                self.block(batch, group, block, last_pairs, tail)
                return
            if p.groups == 1:
                self.block(batch, group, block, last_pairs, tail)
                return
            with fn.b.if_else(fn.b.icmp_signed("==", group, fn.index(p.groups - 1))) as (then, otherwise):
                with then:
                    self.block(batch, group, block, last_pairs, tail)
                with otherwise:
                    self.block(batch, group, block, p.pairs_per_tile, False)

    def block(self, batch: ir.Value, group: ir.Value, block: ir.Value, pairs: int, tail: bool) -> None:
        """One work item: all passes over its rows."""
        fn, p = self.fn, self.p
        t0 = fn.imul(block, p.tiles_per_block)
        t1 = fn.imin(fn.iadd(t0, p.tiles_per_block), sum(c for _, c in p.tiles))
        w = fn.at(self.pointers[2], fn.imul(group, p.group_weights))
        with fn.loop(0, p.stretches, p.per_pass, name="pass") as first:
            start, pair0 = 0, 0
            for width, count in p.tiles:
                lo = fn.imax(t0, start) if start else t0
                hi = fn.imin(t1, start + count) if len(p.tiles) > 1 else t1
                with fn.loop(lo, hi, name="tile") as tile:
                    pair = fn.iadd(fn.imul(fn.isub(tile, start), width), pair0)
                    self.tile(batch, w, first, pair, width, pairs, fn.isub(tile, t0))
                    self.finish(batch, group, first, pair, width, pairs, tail)
                start += count
                pair0 += width * count

    # -- one register tile ----------------------------------------------------------------------------------------
    def tile(self, batch: ir.Value, w: ir.Value, first: ir.Value, pair: ir.Value, width: int, pairs: int,
             number: ir.Value) -> None:  # fmt: skip
        """The seven products of a tile, gathered in scratch. Tile `number` of its block fetches its share of the weights
        that come next: a pass over few rows is soon through with what it has, and memory is far."""
        fn, p = self.fn, self.p
        x, sums = self.operands[0], self.operands[1]
        own = fn.at(self.pointers[0], fn.iadd(fn.imul(batch, x.strides[0]), fn.imul(pair, 2 * x.strides[1])))
        made = fn.at(self.pointers[1], fn.iadd(fn.imul(batch, sums.strides[0]), fn.imul(pair, sums.strides[2])))
        once = p.per_pass == 1  # nothing gathered yet: the first sums are stored, not added
        if not once:
            self.clear(width, pairs)
        count = len(PRODUCTS)
        fetching = min(count, -(-count * pairs // min(p.tiles_per_block, sum(c for _, c in p.tiles))))
        behind = fn.imul(fn.iadd(first, p.per_pass), count * pairs * p.half * PANEL)
        with fn.loop(first, fn.iadd(first, p.per_pass), name="stretch") as stretch:
            ws = fn.at(w, fn.imul(stretch, len(PRODUCTS) * pairs * p.half * PANEL))
            seen: set[str] = set()
            for j, (source, _, results) in enumerate(PRODUCTS):
                tile = RegisterTile(fn, width, pairs)
                if source == "A11":
                    base = fn.at(own, fn.imul(stretch, 2 * p.half))
                    xs = [fn.at(base, i * 2 * x.strides[1]) for i in range(width)]
                else:
                    base = fn.at(made, fn.iadd(fn.imul(stretch, p.half), SLOTS.index(source) * sums.strides[1]))
                    xs = [fn.at(base, i * sums.strides[2]) for i in range(width)]
                wj = fn.at(ws, j * pairs * p.half * PANEL)
                if j < fetching:
                    part = fn.iadd(fn.imul(fn.iadd(fn.imul(number, p.per_pass), fn.isub(stretch, first)), fetching), j)
                    ahead = fn.at(w, fn.iadd(behind, fn.imul(part, p.half * PANEL)))
                    tile.accumulate(xs, wj, p.half, 1, p.half * PANEL, [ahead], locality=2)
                else:
                    tile.accumulate(xs, wj, p.half, 1, p.half * PANEL)
                for result, sign in results.items():
                    self.gather(tile, result, sign, fresh=once and result not in seen)
                    seen.add(result)

    def clear(self, width: int, pairs: int) -> None:
        fn = self.fn
        zero = self.math.const(0.0, "f32", self.lanes)
        with fn.loop(0, 2 * width * 2 * pairs * PANEL, self.lanes, name="clear") as i:
            fn.store(zero, fn.at(fn.args["scratch"], i))

    def gather(self, tile: RegisterTile, result: str, sign: int, fresh: bool) -> None:
        """Add a product to one of the four results. Scratch holds rows of [panel pair][half][16], the odd ones of all
        pairs after the even ones."""
        fn, m, width = self.fn, self.math, len(tile.acc)
        area, half = int(result[1]) - 1, int(result[2]) - 1
        for i, row in enumerate(tile.acc):
            for q, panel in enumerate(row):
                for v, var in enumerate(panel):
                    slot = ((area * width + i) * len(row) + q) * 2 * PANEL + half * PANEL + v * self.lanes
                    at = fn.at(fn.args["scratch"], slot)
                    value = Val(var.get(), "f32", self.lanes)
                    if not fresh:
                        before = fn.load(at, "f32", self.lanes)
                        value = m.add(before, value) if sign > 0 else m.sub(before, value)
                    else:
                        assert sign > 0
                    fn.store(value, at)

    # -- leaving scratch ------------------------------------------------------------------------------------------
    def finish(self, batch: ir.Value, group: ir.Value, first: ir.Value, pair: ir.Value, width: int, pairs: int,
               tail: bool) -> None:  # fmt: skip
        """Results from scratch to the output: raw until the last pass, which applies the epilogue."""
        fn, p = self.fn, self.p
        passes = p.stretches // p.per_pass
        if passes == 1:
            self.rows(batch, group, pair, width, pairs, tail, join=False, last=True)
            return
        with fn.b.if_else(fn.b.icmp_signed("==", first, fn.index(0))) as (then, otherwise):
            with then:
                self.rows(batch, group, pair, width, pairs, tail, join=False, last=False)
            with otherwise:
                final = fn.b.icmp_signed("==", first, fn.index(p.stretches - p.per_pass))
                with fn.b.if_else(final) as (then_last, otherwise_more):
                    with then_last:
                        self.rows(batch, group, pair, width, pairs, tail, join=True, last=True)
                    if passes > 2:
                        with otherwise_more:
                            self.rows(batch, group, pair, width, pairs, tail, join=True, last=False)
                    else:
                        with otherwise_more:
                            pass

    def rows(self, batch: ir.Value, group: ir.Value, pair: ir.Value, width: int, pairs: int, tail: bool, *,
             join: bool, last: bool) -> None:  # fmt: skip
        fn, p = self.fn, self.p
        column = fn.imul(group, p.pairs_per_tile * 2 * PANEL)
        with fn.loop(0, width, name="row") as i:
            top = fn.imul(fn.iadd(pair, i), 2)
            for odd in (0, 1):

                def write(odd: int = odd, i: ir.Value = i, top: ir.Value = top) -> None:
                    self.row(batch, fn.iadd(top, odd), column, fn.iadd(i, odd * width), pairs, tail, odd, join, last)

                if odd and p.rows % 2:
                    with fn.if_(fn.b.icmp_signed("<", fn.iadd(top, 1), fn.index(p.rows))):
                        write()
                else:
                    write()

    def row(self, batch: ir.Value, row: ir.Value, column: ir.Value, slot: ir.Value, pairs: int, tail: bool, odd: int,
            join: bool, last: bool) -> None:  # fmt: skip
        """One row of a tile."""
        fn, p, m, lanes = self.fn, self.p, self.math, self.lanes
        sides = range(self.first_side, len(self.pointers))
        bases = {}
        for j in sides:
            o = self.operands[j]
            bases[j] = fn.at(self.pointers[j], fn.dot([batch, row, column], o.strides))
        out = sides[-1]
        scale = None
        if last and odd and self.row_scales is not None:
            index = fn.iadd(fn.imul(batch, p.row_pairs), fn.idiv(row, 2))
            scale = fn.splat(fn.load(fn.at(self.row_scales, index)), lanes)
        source = fn.at(fn.args["scratch"], fn.imul(slot, 2 * pairs * PANEL))
        keep = p.n - (p.groups - 1) * p.pairs_per_tile * 2 * PANEL if tail else 2 * pairs * PANEL
        for at in range(0, 2 * pairs * PANEL, lanes):
            if at >= keep:
                break
            mask = None
            if at + lanes > keep:
                bits = [int(at + lane < keep) for lane in range(lanes)]
                mask = ir.Constant(ir.VectorType(ir.IntType(1), lanes), bits)
            value = fn.load(fn.at(source, at), "f32", lanes)
            if join:
                value = m.add(self.load(fn.at(bases[out], at), mask), value)
            if last:
                if scale is not None:
                    value = m.mul(value, scale)
                if self.column_scales is not None:
                    value = m.mul(value, self.load(fn.at(self.column_scales, fn.iadd(column, at)), mask))
                values = [value]
                for j in sides[:-1]:
                    if self.operands[j].strides[-1]:
                        values.append(self.load(fn.at(bases[j], at), mask))
                    else:
                        values.append(fn.splat(fn.load(bases[j]), lanes))
                value = evaluate(m, p.epilogue, values)[0]
            self.store(value, fn.at(bases[out], at), mask)

    def load(self, address: ir.Value, mask: ir.Value | None) -> Val:
        if mask is None:
            return self.fn.load(address, "f32", self.lanes)
        t = register_type("f32", self.lanes)
        args = [address, ir.Constant(I32, 4), mask, self.math.const(0.0, "f32", self.lanes).ir]
        return Val(self.fn.intrinsic(f"llvm.masked.load.v{self.lanes}f32.p0", t, args), "f32", self.lanes)

    def store(self, value: Val, address: ir.Value, mask: ir.Value | None) -> None:
        if mask is None:
            self.fn.store(value, address)
            return
        args = [value.ir, address, ir.Constant(I32, 4), mask]
        self.fn.intrinsic(f"llvm.masked.store.v{self.lanes}f32.p0", VOID, args)


@emits("strassen")
def emit_strassen(fn: Fn, kernel: Kernel) -> None:
    """Write the product (see the module's docstring)."""
    _Emitter(fn, kernel).emit()
