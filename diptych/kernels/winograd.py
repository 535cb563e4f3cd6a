"""Winograd convolution F(m x m, 3 x 3) on channel-blocked tensors: an input transform, then products with the output
transform fused behind them.

V[block of tiles][(m+2)^2][tile][channel] = B^T d B;  per block and panel of 16 outputs: M = V * U for each of the
(m+2)^2 frequencies (tiles are the pixels of a register tile), then y = A^T M A, bias, epilogue, store.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import Val, register_type
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.kernels.base import emits, evaluate
from diptych.kernels.contract import Side
from diptych.kernels.tile import PANEL, RegisterTile
from diptych.kernels.tiling import pixel_tiles
from diptych.kernels.winograd_points import matrices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.codegen.builder import Fn, Index, Var
    from diptych.ir.kernel import Expr
    from diptych.kernels.winograd_points import Array
    from diptych.targets.base import Target

__all__ = ["WinogradGeometry", "make_input_transform", "make_products"]

_CHAIN = 128  # additions in one chain: partial sums of this depth are added up, which rounds less than one long chain


@dataclass(frozen=True, slots=True)
class WinogradGeometry:
    """How an image is cut: outputs rows x cols in tiles of m x m, `per_block` tiles of a batch entry together."""

    m: int
    rows: int
    cols: int
    channels: int
    per_block: int

    @property
    def across(self) -> int:
        return -(-self.cols // self.m)

    @property
    def tiles(self) -> int:
        return -(-self.rows // self.m) * self.across

    @property
    def blocks(self) -> int:
        return -(-self.tiles // self.per_block)

    @property
    def points(self) -> int:
        return (self.m + 2) ** 2

    @property
    def padded_channels(self) -> int:
        return -(-self.channels // PANEL) * PANEL

    def v_shape(self, batch: int) -> tuple[int, ...]:
        return batch, self.blocks, self.points, self.per_block, self.padded_channels


@dataclass(frozen=True, slots=True)
class TransformParams:
    """Operands: padded blocked x, V."""

    geometry: WinogradGeometry
    batch: int

    def __str__(self) -> str:
        g = self.geometry
        return f"F({g.m},3) {g.rows}x{g.cols}x{g.channels} in {g.tiles} tiles"


@dataclass(frozen=True, slots=True)
class ProductParams:
    """Operands: V, U, epilogue operands .. (the bias first, if any), out."""

    geometry: WinogradGeometry
    batch: int
    panels: int
    expr: Expr
    sides: tuple[Side, ...]
    out: Side
    tiles: tuple[tuple[int, int], ...]
    panel_outer: bool

    def __str__(self) -> str:
        g = self.geometry
        return f"F({g.m},3) {g.rows}x{g.cols} {g.channels}->{self.panels * PANEL} by {g.per_block} {self.expr}"


def make_input_transform(x: Operand, v: Operand, geometry: WinogradGeometry, target: Target) -> Kernel:
    """x is [N, Cb, rows + pads, cols + pads, 16], with whole tiles readable; v has shape `geometry.v_shape(N)`."""
    batch, blocks = x.shape[0], x.shape[1]
    work = batch * geometry.tiles * blocks
    cost = work * 16 / target.lanes(4) * geometry.points * 1.2
    return Kernel("winograd_input", TransformParams(geometry, batch), (x, v), 1, work, cost)


def make_products(v: Operand, u: Operand, extras: Sequence[Operand], out: Operand, geometry: WinogradGeometry,
                  expr: Expr, sides: Sequence[Side], out_side: Side, panels: int, target: Target) -> Kernel:  # fmt: skip
    """The products and the output transform; `sides` walk the epilogue operands as in a contraction."""
    lanes = min(PANEL, target.lanes(4))
    per_panel = PANEL // lanes
    most = max(1, (target.registers - per_panel - 1) // per_panel)
    tiles = pixel_tiles(geometry.per_block, min(most, 28), per_panel)
    batch = out.shape[0]
    work = batch * geometry.blocks * panels
    u_bytes = 4 * prod(u.shape)
    panel_outer = u_bytes > target.l2 and geometry.blocks <= 4
    scratch = geometry.points * geometry.per_block * PANEL * 4 + geometry.m**2 * PANEL * 4
    flops = 2.0 * batch * geometry.blocks * geometry.per_block * geometry.points * geometry.channels * panels * PANEL
    params = ProductParams(geometry, batch, panels, expr, tuple(sides), out_side, tiles, panel_outer)
    return Kernel("winograd_products", params, (v, u, *extras, out), 1, work, flops / 60.0, scratch)


# -- transforms ---------------------------------------------------------------------------------------------------
def apply(fn: Fn, matrix: Array, xs: Sequence[Val]) -> list[Val]:
    """matrix @ xs on vectors. Rows or columns that differ only in the signs of every other entry share their sums."""
    rows, cols = matrix.shape
    out: list[Val | None] = [None] * rows
    for i in range(rows):
        if out[i] is not None:
            continue
        twin = next((j for j in range(i + 1, rows) if out[j] is None and _mirrored(matrix[i], matrix[j])), None)
        if twin is None:
            out[i] = _sum(fn, [(matrix[i, c], xs[c]) for c in range(cols)])
            continue
        even = _sum(fn, [(matrix[i, c], xs[c]) for c in range(cols) if matrix[i, c] == matrix[twin, c]])
        odd = _sum(fn, [(matrix[i, c], xs[c]) for c in range(cols) if matrix[i, c] != matrix[twin, c]])
        out[i] = Val(fn.b.fadd(even.ir, odd.ir), "f32", even.lanes)
        out[twin] = Val(fn.b.fsub(even.ir, odd.ir), "f32", even.lanes)
    return [v for v in out if v is not None]


def _mirrored(a: Array, b: Array) -> bool:
    """Whether b is a with some (not all, not no) entries negated."""
    same, flipped = (a == b) & (a != 0), (a == -b) & (a != 0)
    return bool(((a == b) | (a == -b)).all() and same.any() and flipped.any())


def apply_columns(fn: Fn, matrix: Array, xs: Sequence[Val]) -> list[Val]:
    """matrix @ xs where pairs of columns are mirrored: their sums and differences serve all rows."""
    rows, cols = matrix.shape
    terms: list[tuple[Array, Val]] = []
    done: set[int] = set()
    for c in range(cols):
        if c in done:
            continue
        twin = next((d for d in range(c + 1, cols) if d not in done and _mirrored(matrix[:, c], matrix[:, d])), None)
        if twin is None:
            terms.append((matrix[:, c], xs[c]))
            continue
        done.add(twin)
        same = matrix[:, c] == matrix[:, twin]
        plus = Val(fn.b.fadd(xs[c].ir, xs[twin].ir), "f32", xs[c].lanes)
        minus = Val(fn.b.fsub(xs[c].ir, xs[twin].ir), "f32", xs[c].lanes)
        terms.append((matrix[:, c] * same, plus))
        terms.append((matrix[:, c] * ~same, minus))
    return [_sum(fn, [(column[r], x) for column, x in terms]) for r in range(rows)]


def _sum(fn: Fn, terms: Sequence[tuple[float, Val]]) -> Val:
    """The sum of coefficient * value, with plain additions where a coefficient is 1 or -1."""
    live = sorted(((float(c), x) for c, x in terms if c != 0), key=lambda t: abs(t[0]) != 1.0)
    (c, total), *rest = live
    lanes = total.lanes
    if c != 1.0:
        total = Val(fn.b.fmul(total.ir, fn.const(c, "f32", lanes).ir), "f32", lanes)
    for c, x in rest:
        if c == 1.0:
            total = Val(fn.b.fadd(total.ir, x.ir), "f32", lanes)
        elif c == -1.0:
            total = Val(fn.b.fsub(total.ir, x.ir), "f32", lanes)
        else:
            total = fn.fma(x, fn.const(c, "f32", lanes), total)
    return total


@emits("winograd_input")
def emit_input_transform(fn: Fn, kernel: Kernel) -> None:
    """One work item: one tile of one block of 16 channels; the inner 16 lanes go in vectors."""
    p: TransformParams = kernel.params
    g = p.geometry
    x, v = kernel.operands
    n = g.m + 2
    lanes = min(PANEL, fn.target.lanes(4))
    _, _, bt = matrices(g.m)
    vec = register_type("f32", lanes)
    between = [[fn.var(vec) for _ in range(n)] for _ in range(n)]
    blocks = x.shape[1]
    with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
        image, tile, cb = fn.unravel(item, (0, g.tiles, blocks))
        block, part = fn.idiv(tile, g.per_block), fn.imod(tile, g.per_block)
        ty, tx = fn.idiv(tile, g.across), fn.imod(tile, g.across)
        at = fn.dot([image, cb, fn.imul(ty, g.m), fn.imul(tx, g.m)], x.strides[:4])
        source = fn.at(fn.args["p0"], at)
        channel = fn.imul(cb, PANEL)
        to = fn.at(fn.args["p1"], fn.dot([image, block, 0, part, channel], v.strides))
        with fn.loop(0, PANEL // lanes, name="lane") as lane:
            off = fn.imul(lane, lanes)
            for j in range(n):
                column = [
                    fn.load(fn.at(source, fn.iadd(off, i * x.strides[2] + j * x.strides[3])), "f32", lanes)
                    for i in range(n)
                ]
                for i, value in enumerate(apply(fn, bt, column)):
                    between[i][j].set(value.ir)
            for i in range(n):
                row = [Val(var.get(), "f32", lanes) for var in between[i]]
                for j, value in enumerate(apply(fn, bt, row)):
                    fn.store(value, fn.at(to, fn.iadd(off, (i * n + j) * v.strides[2])))


@emits("winograd_products")
def emit_products(fn: Fn, kernel: Kernel) -> None:
    """One work item: one block of tiles by one panel of outputs."""
    p: ProductParams = kernel.params
    g = p.geometry
    v, u = kernel.operands[:2]
    pointers = [fn.args[f"p{i}"] for i in range(len(kernel.operands))]
    scratch = fn.args["scratch"]
    last_two = (p.panels, g.blocks) if p.panel_outer else (g.blocks, p.panels)
    with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
        image, a, b = fn.unravel(item, (p.batch, *last_two))
        panel, block = (a, b) if p.panel_outer else (b, a)
        vs = fn.at(pointers[0], fn.dot([image, block], v.strides[:2]))
        us = fn.at(pointers[1], fn.imul(panel, u.strides[0]))
        chunks = next(n for n in range(max(1, g.channels // _CHAIN), 0, -1) if g.channels % n == 0)
        depth = g.channels // chunks
        with fn.loop(0, g.points, name="point") as point, fn.loop(0, chunks, name="chunk") as chunk:
            vf = fn.at(vs, fn.iadd(fn.imul(point, v.strides[2]), fn.imul(chunk, depth)))
            uf = fn.at(us, fn.iadd(fn.imul(point, u.strides[1]), fn.imul(chunk, depth * PANEL)))
            mf = fn.at(scratch, fn.imul(point, g.per_block * PANEL))
            first = 0
            for width, count in p.tiles:
                with fn.loop(0, count, name="rows") as t:
                    tile0 = fn.iadd(fn.imul(t, width), first)
                    x0 = fn.at(vf, fn.imul(tile0, v.strides[3]))
                    tile = RegisterTile(fn, width, 1)
                    xs = [fn.at(x0, i * v.strides[3]) for i in range(width)]
                    tile.accumulate(xs, uf, depth, 1, 0)
                    to = fn.at(mf, fn.imul(tile0, PANEL))
                    if chunks > 1:
                        with fn.if_(fn.b.icmp_signed(">", chunk, fn.index(0))):
                            for at, var in _places(fn, tile, to):
                                var.set(fn.b.fadd(fn.load(at, "f32", tile.lanes).ir, var.get()))
                    for at, var in _places(fn, tile, to):
                        fn.store(Val(var.get(), "f32", tile.lanes), at)
                first += width * count
        first_tile = fn.imul(block, g.per_block)
        stop = fn.imin(fn.isub(g.tiles, first_tile), g.per_block)
        with fn.loop(0, stop, name="tile") as t:
            _output_tile(fn, kernel, pointers[2:], image, panel, t, fn.iadd(first_tile, t))


def _places(fn: Fn, tile: RegisterTile, to: ir.Value) -> list[tuple[ir.Value, Var]]:
    """Where each accumulator of a tile of one panel goes, and the accumulator."""
    return [
        (fn.at(to, i * PANEL + q * tile.lanes), var)
        for i, (row,) in enumerate(tile.acc)
        for q, var in enumerate(row)
    ]


def _output_tile(fn: Fn, kernel: Kernel, pointers: Sequence[ir.Value], image: Index, panel: Index, within: ir.Value,
                 tile: ir.Value) -> None:  # fmt: skip
    """A^T M A of one tile, then epilogue and store of the pixels that lie in the image."""
    p: ProductParams = kernel.params
    g = p.geometry
    n, m = g.m + 2, g.m
    at_matrix, _, _ = matrices(m)
    lanes = min(PANEL, fn.target.lanes(4))
    vec = register_type("f32", lanes)
    point = g.per_block * PANEL
    source = fn.at(fn.args["scratch"], fn.imul(within, PANEL))
    result = fn.at(fn.args["scratch"], g.points * point)  # m x m pixels of 16 channels
    between = [[fn.var(vec) for _ in range(n)] for _ in range(m)]
    with fn.loop(0, PANEL // lanes, name="lane") as lane:
        off = fn.imul(lane, lanes)
        for j in range(n):
            column = [fn.load(fn.at(source, fn.iadd(off, (i * n + j) * point)), "f32", lanes) for i in range(n)]
            for i, value in enumerate(apply_columns(fn, at_matrix, column)):
                between[i][j].set(value.ir)
        for i in range(m):
            row = [Val(var.get(), "f32", lanes) for var in between[i]]
            for j, value in enumerate(apply_columns(fn, at_matrix, row)):
                fn.store(value, fn.at(result, fn.iadd(off, (i * m + j) * PANEL)))
    ty, tx = fn.idiv(tile, g.across), fn.imod(tile, g.across)
    y0, x0 = fn.imul(ty, m), fn.imul(tx, m)
    math = Math(fn)
    sides = (*p.sides, p.out)
    bases = [
        fn.at(pointer, fn.iadd(fn.imul(image, s.batch[0]), fn.imul(panel, s.panel)))
        for pointer, s in zip(pointers, sides, strict=True)
    ]
    with fn.loop(0, fn.imin(fn.isub(g.rows, y0), m), name="y") as y, \
            fn.loop(0, fn.imin(fn.isub(g.cols, x0), m), name="x") as x:  # fmt: skip
        pixel = fn.at(result, fn.imul(fn.iadd(fn.imul(y, m), x), PANEL))
        places = [
            fn.at(base, fn.iadd(fn.imul(fn.iadd(y0, y), s.row), fn.imul(fn.iadd(x0, x), s.col)))
            for base, s in zip(bases, sides, strict=True)
        ]
        for q in range(PANEL // lanes):
            values = [fn.load(fn.at(pixel, q * lanes), "f32", lanes)]
            for place, s in zip(places[:-1], p.sides, strict=True):
                values.append(fn.load(fn.at(place, q * lanes * s.lane), "f32", lanes if s.lane else 1))
            done = evaluate(math, p.expr, values)[0]
            fn.store(done, fn.at(places[-1], q * lanes))
