"""A product by constant weights with seven multiplications where eight are usual: one level of Strassen's scheme.

Rows are taken in neighbouring pairs (2 i, 2 i + 1), panels of 16 columns in neighbouring pairs, and the depth in pairs
of stretches. With A the rows and B the weights, the products and where they go are those of `PRODUCTS`: Strassen's own,
not Winograd's with fewer additions, because the additions are cheap here and its rounding errors are a third larger.
The sums of quarters of A come from `strassen_rows`, those of B are made when the weights are packed; the four results of
a register tile are put together on their way out of the registers, from products that wait in L1: the scheme costs a
few vector operations per tile and no pass over memory.
Source: V. Strassen, "Gaussian elimination is not optimal", Numerische Mathematik 13 (1969).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel
from diptych.kernels.base import emits, evaluate
from diptych.kernels.nest import expr_cost
from diptych.kernels.tile import PANEL, Fetch, RegisterTile, each_tile, load_masked, store_masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from diptych.codegen.builder import Fn, Index
    from diptych.ir.kernel import Expr, Operand

__all__ = ["PRODUCTS", "StrassenParams", "make_strassen"]

# In the order in which they are made and their weights packed: rows (made by `strassen_rows`), weights, and the results
# they are added to.
PRODUCTS = (
    ("A11+A22", "B11+B22", {"C11": 1, "C22": 1}),
    ("A21+A22", "B11", {"C21": 1, "C22": -1}),
    ("A11", "B12-B22", {"C12": 1, "C22": 1}),
    ("A22", "B21-B11", {"C11": 1, "C21": 1}),
    ("A11+A12", "B22", {"C11": -1, "C12": 1}),
    ("A21-A11", "B11+B12", {"C22": 1}),
    ("A12-A22", "B21+B22", {"C11": 1}),
)


def _completes() -> dict[int, tuple[str, dict[int, int]]]:
    """By its last product: a result, and the signs of the products before it."""
    last = {r: max(j for j, (_, _, to) in enumerate(PRODUCTS) if r in to) for r in ("C11", "C12", "C21", "C22")}
    return {j: (r, {k: to[r] for k, (_, _, to) in enumerate(PRODUCTS[:j]) if r in to}) for r, j in last.items()}


COMPLETES = _completes()


@dataclass(frozen=True, slots=True)
class StrassenParams:
    """Operands: the rows' sums [batch, stretches, pairs, 7, half], weights, inverse row scales [batch, pairs] and column
    scales [n] (as the flags say), epilogue operands, out[batch, rows, n] with a dense last axis."""

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
    areas = len(PRODUCTS) + 4 * _is_long(p.epilogue)
    scratch = 4 * areas * max(w for w, _ in p.tiles) * p.pairs_per_tile * PANEL
    return Kernel("strassen", params, tuple(operands), 1, p.work, cost, scratch)


def _is_long(epilogue: Expr) -> bool:
    """Whether an epilogue is too long to be written out for every vector of a register tile."""
    return expr_cost(epilogue) > 12


@dataclass(frozen=True, slots=True)
class _Tile:
    """Where a register tile lies: its first pair of rows, first column, and the first stretch of the pass."""

    batch: ir.Value
    pair: ir.Value
    width: int  # pairs of rows
    pairs: int  # of panels
    column: ir.Value
    tail: bool  # the group is the last, cut-off one
    first: ir.Value


class _Emitter:
    """Writes one product; holds what its parts share."""

    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn, self.math, self.operands = fn, Math(fn), kernel.operands
        self.p: StrassenParams = kernel.params
        self.lanes = min(PANEL, fn.target.lanes(4))
        self.vectors = PANEL // self.lanes
        self.pointers = [fn.args[f"p{i}"] for i in range(len(kernel.operands))]
        p = self.p
        at = 2
        self.row_scales = self.pointers[at] if p.scaled_rows else None
        at += p.scaled_rows
        self.column_scales = self.pointers[at] if p.scaled_columns else None
        self.first_side = at + p.scaled_columns
        self.heavy = _is_long(p.epilogue)

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
        w = fn.at(self.pointers[1], fn.imul(group, p.group_weights))
        column = fn.imul(group, p.pairs_per_tile * 2 * PANEL)
        with fn.loop(0, p.stretches, p.per_pass, name="pass") as first:
            for width, tile, pair in each_tile(fn, p.tiles, t0, t1):
                self.tile(_Tile(batch, pair, width, pairs, column, tail, first), w, fn.isub(tile, t0))

    # -- one register tile ----------------------------------------------------------------------------------------
    def tile(self, at: _Tile, w: ir.Value, number: ir.Value) -> None:
        """The seven products of a tile over the stretches of a pass, then its four results. Tile `number` of its block
        fetches its share of the weights that come next: a pass over few rows is soon through with what it has, and
        memory is far."""
        fn, p = self.fn, self.p
        sums = self.operands[0].strides
        rows = fn.at(self.pointers[0], fn.iadd(fn.imul(at.batch, sums[0]), fn.imul(at.pair, sums[2])))
        count = len(PRODUCTS)
        product_weights = at.pairs * p.half * PANEL
        # The tiles of a block share the weights of the next pass evenly among all their updates: more at a time would
        # keep the queue of misses full, and what comes from L2 would wait behind what comes from memory.
        share = -(-at.pairs * PANEL // min(p.tiles_per_block, sum(c for _, c in p.tiles)))
        behind = fn.imul(fn.iadd(at.first, p.per_pass), count * product_weights)

        def product(j: int, stretch: ir.Value) -> RegisterTile:
            tile = RegisterTile(fn, at.width, at.pairs)
            base = fn.at(rows, fn.iadd(fn.imul(stretch, sums[1]), j * sums[3]))
            xs = [fn.at(base, i * sums[2]) for i in range(at.width)]
            wj = fn.at(w, fn.imul(fn.iadd(fn.imul(stretch, count), j), product_weights))
            part = fn.iadd(fn.imul(fn.iadd(fn.imul(number, p.per_pass), fn.isub(stretch, at.first)), count), j)
            fetches = [Fetch(fn.at(w, fn.iadd(behind, fn.imul(part, p.half * share))), share, 2)]
            # The weights of the next product, which the rows of a whole group may have pushed out to L3, and the lines
            # that this product's sums go to, which weights and rows have pushed out of L1.
            fetches.append(Fetch(fn.at(wj, product_weights), at.pairs * PANEL))
            if p.per_pass > 1:
                fetches.append(Fetch(self.slot(at, j, 0, 0, 0), -(-at.width * at.pairs * PANEL // p.half), write=True))
            tile.accumulate(xs, wj, p.half, 1, p.half * PANEL, fetches=fetches)
            return tile

        closing = fn.iadd(at.first, p.per_pass - 1)
        if p.per_pass > 1:
            with fn.loop(at.first, closing, name="stretch") as stretch:
                opens = fn.b.icmp_signed("==", stretch, at.first)
                for j in range(count):
                    self.keep(at, j, product(j, stretch), opens if p.per_pass > 2 else None)
        ends = list(COMPLETES.values())
        for j in range(count):
            if j < len(ends):
                self.fetch(at, ends[j][0])
            self.close(at, j, product(j, closing))
        if self.heavy:
            self.in_pass(at, lambda join, last: self.rows(at, join) if last else None)

    def fetch(self, at: _Tile, result: str) -> None:
        """Ask for the lines that a result will be written to, and for what its epilogue reads with them: stores that have
        to wait for memory would hold up all those behind them."""
        fn = self.fn
        odd, half = int(result[1]) - 1, int(result[2]) - 1
        for j in range(self.first_side, len(self.pointers)):
            if not self.operands[j].strides[1]:
                continue
            for i in range(at.width):
                for q in range(at.pairs):
                    address = self.address(at, j, odd, i, (2 * q + half) * PANEL)
                    fn.prefetch(address, 3, write=j == len(self.pointers) - 1)

    def keep(self, at: _Tile, j: int, tile: RegisterTile, opens: ir.Value | None) -> None:
        """Product j of one stretch to scratch: added to what the stretches before left, unless it `opens` the pass
        (None: it does)."""
        fn, m = self.fn, self.math

        def store(add: bool) -> None:
            for i, q, v, value in self.vectors_of(tile):
                slot = self.slot(at, j, i, q, v)
                fn.store(m.add(fn.load(slot, "f32", self.lanes), value) if add else value, slot)

        if opens is None:
            store(False)
            return
        with fn.b.if_else(opens) as (then, otherwise):
            with then:
                store(False)
            with otherwise:
                store(True)

    def close(self, at: _Tile, j: int, tile: RegisterTile) -> None:
        """Product j of the last stretch: kept where a later result needs it; the result that it completes leaves."""
        fn, m, p = self.fn, self.math, self.p
        result, others = COMPLETES.get(j, ("", {}))
        fn.forget(fn.args["scratch"])
        if self.row_scales is not None:
            fn.forget(self.row_scales)
        wanted = any(j in parts for _, parts in COMPLETES.values())
        whole = {}
        for i, q, v, value in self.vectors_of(tile):
            slot = self.slot(at, j, i, q, v)
            if p.per_pass > 1:
                value = m.add(fn.load(slot, "f32", self.lanes), value)
            if wanted:
                fn.store(value, slot)
            whole[i, q, v] = value
        if not result:
            return
        odd, half = int(result[1]) - 1, int(result[2]) - 1

        def write(join: bool, last: bool) -> None:
            for (i, q, v), value in whole.items():
                total: Val | None = None
                for k, sign in others.items():
                    part = fn.load(self.slot(at, k, i, q, v), "f32", self.lanes)
                    total = part if total is None else m.add(total, part) if sign > 0 else m.sub(total, part)
                assert total is not None
                total = m.add(total, value)
                if last and self.heavy:
                    fn.store(total, self.result(at, odd, i, q, half, v))
                else:
                    self.leave(at, total, odd, i, (2 * q + half) * PANEL + v * self.lanes, join, last)

        self.in_pass(at, write)

    def vectors_of(self, tile: RegisterTile) -> Iterator[tuple[int, int, int, Val]]:
        """(row pair, panel, vector, sum) of a register tile."""
        for i, row in enumerate(tile.acc):
            for q, panel in enumerate(row):
                for v, var in enumerate(panel):
                    yield i, q, v, Val(var.get(), "f32", self.lanes)

    def slot(self, at: _Tile, j: int, i: int, q: int, v: int) -> ir.Value:
        """Where scratch has a vector of product j."""
        return self.fn.at(self.fn.args["scratch"], ((j * at.width + i) * at.pairs + q) * PANEL + v * self.lanes)

    def result(self, at: _Tile, odd: int, i: Index, q: int, half: int, v: int) -> ir.Value:
        """Where scratch, behind the products, has a vector of a result: whole rows, the odd ones after the even ones."""
        fn, row = self.fn, 2 * at.pairs * PANEL
        first = len(PRODUCTS) * at.width * at.pairs * PANEL + odd * at.width * row + (2 * q + half) * PANEL + v * self.lanes
        return fn.at(fn.args["scratch"], fn.iadd(fn.imul(i, row), first))

    def in_pass(self, at: _Tile, write: Callable[[bool, bool], None]) -> None:
        """Call `write(join, last)` in a branch for each kind of pass: whether others came before, whether it is the last."""
        fn, p = self.fn, self.p
        passes = p.stretches // p.per_pass
        if passes == 1:
            write(False, True)
            return
        with fn.b.if_else(fn.b.icmp_signed("==", at.first, fn.index(p.stretches - p.per_pass))) as (then, otherwise):
            with then:
                write(True, True)
            with otherwise:
                if passes == 2:
                    write(False, False)
                else:
                    with fn.b.if_else(fn.b.icmp_signed("==", at.first, fn.index(0))) as (then_first, otherwise_more):
                        with then_first:
                            write(False, False)
                        with otherwise_more:
                            write(True, False)

    # -- leaving the tile -----------------------------------------------------------------------------------------
    def rows(self, at: _Tile, join: bool) -> None:
        """The results of a tile from scratch to the output, row by row: a long epilogue is not worth unrolling."""
        fn = self.fn
        for odd in (0, 1):
            with fn.loop(0, at.width, name="row") as i:
                for c in range(0, 2 * at.pairs * PANEL, self.lanes):
                    q, within = divmod(c, 2 * PANEL)
                    value = fn.load(self.result(at, odd, i, q, 0, within // self.lanes), "f32", self.lanes)
                    self.leave(at, value, odd, i, c, join, last=True)

    def leave(self, at: _Tile, value: Val, odd: int, i: Index, column: int, join: bool, last: bool) -> None:
        """One vector of a result to row 2 i + odd of the tile, `column` of the group: raw until the last pass, which
        applies scales and epilogue."""
        fn, p, m, lanes = self.fn, self.p, self.math, self.lanes
        keep = p.n - (p.groups - 1) * p.pairs_per_tile * 2 * PANEL if at.tail else 2 * at.pairs * PANEL
        if column >= keep:
            return
        mask = None
        if column + lanes > keep:
            bits = [int(column + lane < keep) for lane in range(lanes)]
            mask = ir.Constant(ir.VectorType(ir.IntType(1), lanes), bits)
        out = len(self.pointers) - 1
        row = fn.iadd(fn.imul(fn.iadd(at.pair, i), 2), odd)

        def address(j: int) -> ir.Value:
            return self.address(at, j, odd, i, column)

        def write(value: Val = value) -> None:
            if join:
                value = m.add(load_masked(fn, address(out), lanes, mask), value)
            if last:
                if odd and self.row_scales is not None:
                    index = fn.iadd(fn.iadd(fn.imul(at.batch, p.row_pairs), at.pair), i)
                    value = m.mul(value, fn.splat(fn.load(fn.at(self.row_scales, index)), lanes))
                if self.column_scales is not None:
                    value = m.mul(value, load_masked(fn, fn.at(self.column_scales, fn.iadd(at.column, column)), lanes, mask))
                values = [value]
                for j in range(self.first_side, out):
                    if self.operands[j].strides[-1]:
                        values.append(load_masked(fn, address(j), lanes, mask))
                    else:
                        values.append(fn.splat(fn.load(address(j)), lanes))
                value = evaluate(m, p.epilogue, values)[0]
            store_masked(fn, value, address(out), mask)

        if odd and p.rows % 2 and (not isinstance(i, int) or i == at.width - 1):  # the last row may lack its partner
            with fn.if_(fn.b.icmp_signed("<", fn.index(row), fn.index(p.rows))):
                write()
        else:
            write()

    def address(self, at: _Tile, j: int, odd: int, i: Index, column: int) -> ir.Value:
        """Where operand j has row 2 i + odd of the tile, `column` of the group."""
        fn, o = self.fn, self.operands[j]
        base = fn.at(self.pointers[j], fn.dot([at.batch, fn.imul(at.pair, 2), at.column], o.strides))
        return fn.at(base, fn.iadd(fn.imul(i, 2 * o.strides[1]), odd * o.strides[1] + column * o.strides[2]))


@emits("strassen")
def emit_strassen(fn: Fn, kernel: Kernel) -> None:
    """Write the product (see the module's docstring)."""
    _Emitter(fn, kernel).emit()
