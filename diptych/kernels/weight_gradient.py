"""The gradient of a convolution's weights on channel blocks: products of two images, summed over all their pixels.

dw[g, p, q, t, c, o] = sum over pixels of x[pixel of tap t, block q, c] * dy[pixel, panel p, o]

A line of pixels of dy in one block of 16 channels lies as a panel of packed weights does: so the register tile of the
contraction does this too, with channels of x as its pixels and pixels as its depth. The result is laid out as packed
weights are. Pixels are taken in chunks that stay in L1 while every tap and channel meets them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import Fn, Val
from diptych.ir.kernel import Kernel, Operand
from diptych.kernels.base import emits
from diptych.kernels.tile import PANEL, RegisterTile
from diptych.kernels.tiling import pixel_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.codegen.builder import Index, Var
    from diptych.targets.base import Target

__all__ = ["DepthwiseGradientParams", "WeightGradientParams", "make_depthwise_gradient", "make_weight_gradient"]

_MANY = 16  # work items that are enough for any number of threads
_FLOPS_PER_NS = 60.0


@dataclass(frozen=True, slots=True)
class WeightGradientParams:
    """Operands: x, dy, out [groups, panels, blocks, taps, elements, 16] (contiguous).

    `x_lines` and `dy_lines` are the strides of the dims that number the lines of pixels (batch first); a line has `depth`
    pixels, `x_step` apart in x and 16 in dy.
    """

    groups: int
    panels: int  # of a group
    blocks: int  # of input channels, of a group
    taps: tuple[int, ...]  # offsets in x, looped over
    elements: tuple[int, ...]  # offsets in x that register tiles are made of (the channels of a block)
    x_group: int
    x_block: int
    dy_group: int
    dy_panel: int
    lines: tuple[int, ...]
    x_lines: tuple[int, ...]
    dy_lines: tuple[int, ...]
    depth: int
    x_step: int
    # -- the schedule ---------------------------------------------------------------------------------------------
    tiles: tuple[tuple[int, int], ...]
    panels_per_tile: int
    taps_per_item: int
    chunk: int  # lines

    @property
    def panel_groups(self) -> int:
        return -(-self.panels // self.panels_per_tile)

    @property
    def tap_groups(self) -> int:
        return -(-len(self.taps) // self.taps_per_item)

    @property
    def work(self) -> int:
        return self.groups * self.panel_groups * self.blocks * self.tap_groups

    def __str__(self) -> str:
        size = "x".join(map(str, (self.groups, self.panels * PANEL, self.blocks * len(self.elements), len(self.taps))))
        return f"[{size}] K={prod(self.lines)}x{self.depth} tiles={self.tiles} P={self.panels_per_tile}"


def make_weight_gradient(x: Operand, dy: Operand, out: Operand, *, groups: int, taps: Sequence[int], elements: Sequence[int],
                         x_block: int, x_lines: Sequence[int], x_step: int, target: Target) -> Kernel:  # fmt: skip
    """dy[N, groups * panels, *T, 16] with lanes dense in its lines; x by offsets and strides (`x_lines`: batch, *T but the last)."""
    groups_, panels, blocks = out.shape[:3]
    assert groups_ == groups and out.shape[3:] == (len(taps), len(elements), PANEL)
    if dy.strides[-1] != 1 or dy.strides[-2] != PANEL or dy.dtype != "f32" or x.dtype != "f32":
        raise ValueError(f"weight_gradient: pixels of {dy} do not lie one after another")
    lines, depth = [dy.shape[0], *dy.shape[2:-2]], dy.shape[-2]
    walks = [list(x_lines), [dy.strides[0], *dy.strides[2:-2]]]
    while len(lines) > 1 and walks[0][-1] == x_step * depth and walks[1][-1] == PANEL * depth:
        depth *= lines.pop()  # lines that follow one another densely are one
        for w in walks:
            w.pop()
    lanes = min(PANEL, target.lanes(4))
    vectors = PANEL // lanes
    per_tile = min(2 if vectors == 1 else 1, panels)
    most = max(1, (target.registers - vectors * per_tile - 1) // (vectors * per_tile))
    tiles = pixel_tiles(len(elements), min(most, 16), vectors * per_tile)
    line_bytes = 4 * depth * (PANEL * per_tile + min(PANEL, abs(x_step)))
    chunk = max(1, target.l1 // line_bytes, -(-64 // depth))
    items = groups * -(-panels // per_tile) * blocks
    parts = min(len(taps), max(1, -(-_MANY // items)))
    params = WeightGradientParams(
        groups, panels, blocks, tuple(taps), tuple(elements), x.strides[1] * blocks if groups > 1 else 0, x_block,
        panels * dy.strides[1], dy.strides[1], tuple(lines), tuple(walks[0]), tuple(walks[1]), depth, x_step, tiles, per_tile,
        -(-len(taps) // parts), min(chunk, prod(lines)),
    )  # fmt: skip
    cost = 20 + 2.0 * prod(out.shape) * prod(lines) * depth / _FLOPS_PER_NS
    work = params.work if prod(lines) * depth else 0
    return Kernel("weight_gradient", params, (x, dy, out), 1, work, cost)


@emits("weight_gradient")
def emit_weight_gradient(fn: Fn, kernel: Kernel) -> None:
    """Items are (group, panels, block of input channels, some of the taps), each over all pixels."""
    _Emitter(fn, kernel).emit()


class _Emitter:
    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn = fn
        self.p: WeightGradientParams = kernel.params
        self.lanes = min(PANEL, fn.target.lanes(4))
        self.out_strides = kernel.operands[2].strides

    def emit(self) -> None:
        fn, p = self.fn, self.p
        with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
            group, panels, block, part = fn.unravel(item, (p.groups, p.panel_groups, p.blocks, p.tap_groups))
            full, left = divmod(p.panels, p.panels_per_tile)
            if not left:
                self.item(group, panels, block, part, p.panels_per_tile)
            elif not full:
                self.item(group, panels, block, part, left)
            else:
                with fn.b.if_else(fn.b.icmp_signed("==", panels, fn.index(full))) as (then, otherwise):
                    with then:
                        self.item(group, panels, block, part, left)
                    with otherwise:
                        self.item(group, panels, block, part, p.panels_per_tile)

    def item(self, group: ir.Value, panel_group: ir.Value, block: ir.Value, part: ir.Value, panels: int) -> None:
        fn, p = self.fn, self.p
        panel = fn.imul(panel_group, p.panels_per_tile)
        x = fn.at(fn.args["p0"], fn.dot([group, block], (p.x_group, p.x_block)))
        dy = fn.at(fn.args["p1"], fn.dot([group, panel], (p.dy_group, p.dy_panel)))
        out = fn.at(fn.args["p2"], fn.dot([group, panel, block], self.out_strides[:3]))
        first = fn.imul(part, p.taps_per_item)
        stop = fn.imin(fn.iadd(first, p.taps_per_item), len(p.taps))
        lines = prod(p.lines)
        with fn.loop(0, lines, p.chunk, name="chunk") as lo:
            hi = fn.imin(fn.iadd(lo, p.chunk), lines)
            with fn.loop(first, stop, name="tap") as tap:
                x_tap = fn.at(x, self.offset("taps", p.taps, tap)) if len(p.taps) > 1 else fn.at(x, p.taps[0])
                at = fn.at(out, fn.imul(tap, self.out_strides[3]))
                start = 0
                for width, count in p.tiles:
                    self.tiles(x_tap, dy, at, lo, hi, start, width, count, panels)
                    start += width * count

    def offset(self, name: str, values: Sequence[int], i: ir.Value) -> ir.Value:
        """Entry i of a table written into the module."""
        name = f"{name}.{self.fn.function.name}"
        table = self.fn.module.globals.get(name)
        if table is None:
            t = ir.ArrayType(ir.IntType(64), len(values))
            table = ir.GlobalVariable(self.fn.module, t, name)
            table.initializer = ir.Constant(t, list(values))
            table.global_constant = True
            table.linkage = "internal"
        return self.fn.load(self.fn.at(table, i, "i64"), "i64").ir

    def tiles(self, x: ir.Value, dy: ir.Value, out: ir.Value, lo: ir.Value, hi: ir.Value, start: int, width: int, count: int,
              panels: int) -> None:  # fmt: skip
        """`count` tiles of `width` elements from `start` on: in a loop where the elements are evenly spaced."""
        fn, p = self.fn, self.p
        inside = p.elements[start : start + width * count]
        step = inside[width] - inside[0] if count > 1 else 0
        if count > 1 and all(b - a == step for a, b in zip(inside, inside[width:])):
            with fn.loop(0, count, name="tile") as i:
                at = fn.at(x, fn.imul(i, step))
                self.tile(at, dy, fn.at(out, fn.imul(fn.iadd(fn.imul(i, width), start), PANEL)), lo, hi, inside[:width], panels)
            return
        for i in range(count):
            part = inside[i * width : (i + 1) * width]
            self.tile(x, dy, fn.at(out, (start + i * width) * PANEL), lo, hi, part, panels)

    def tile(self, x: ir.Value, dy: ir.Value, out: ir.Value, lo: ir.Value, hi: ir.Value, elements: Sequence[int],
             panels: int) -> None:  # fmt: skip
        """out (+)= the sum over lines lo..hi."""
        fn, p = self.fn, self.p
        tile = RegisterTile(fn, len(elements), panels)
        with fn.loop(lo, hi, name="line") as line:
            where = fn.unravel(line, p.lines)
            x_line = fn.at(x, fn.dot(where, p.x_lines))
            dy_line = fn.at(dy, fn.dot(where, p.dy_lines))
            tile.accumulate([fn.at(x_line, e) for e in elements], dy_line, p.depth, p.x_step, p.dy_panel)
        if prod(p.lines) > p.chunk:
            with fn.if_(fn.b.icmp_signed(">", lo, fn.index(0))):
                self.each(tile, out, lambda at, var: var.set(fn.b.fadd(var.get(), fn.load(at, "f32", self.lanes).ir)))
        self.each(tile, out, lambda at, var: fn.store(Val(var.get(), "f32", self.lanes), at))

    def each(self, tile: RegisterTile, out: ir.Value, act: object) -> None:
        """act(address, variable) for every vector of a tile."""
        assert callable(act)
        for i, element in enumerate(tile.acc):
            for q, panel in enumerate(element):
                for v, var in enumerate(panel):
                    act(self.fn.at(out, q * self.out_strides[1] + i * PANEL + v * self.lanes), var)


# -- one input channel per output channel -------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class DepthwiseGradientParams:
    """Operands: x and dy over [N, blocks, *S, 16], out [blocks, taps, 16]; a work item is some taps of a block."""

    taps: tuple[int, ...]
    taps_per_item: int
    lines: tuple[int, ...]
    x_lines: tuple[int, ...]
    dy_lines: tuple[int, ...]
    depth: int
    x_step: int
    lanes: int

    def __str__(self) -> str:
        return f"taps={len(self.taps)} K={prod(self.lines)}x{self.depth}"


def make_depthwise_gradient(x: Operand, dy: Operand, out: Operand, *, taps: Sequence[int], x_lines: Sequence[int], x_step: int,
                            target: Target) -> Kernel:  # fmt: skip
    """The gradient of depthwise weights, 16 channels side by side."""
    lanes = min(PANEL, target.lanes(4))
    per_item = min(len(taps), 8)
    parts = -(-len(taps) // per_item)
    params = DepthwiseGradientParams(
        tuple(taps), -(-len(taps) // parts), (dy.shape[0], *dy.shape[2:-2]), tuple(x_lines), (dy.strides[0], *dy.strides[2:-2]),
        dy.shape[-2], x_step, lanes,
    )  # fmt: skip
    pixels = prod(params.lines) * params.depth
    work = out.shape[0] * -(-len(taps) // params.taps_per_item) if pixels else 0
    return Kernel("depthwise_gradient", params, (x, dy, out), 1, work, 20 + prod(out.shape) * pixels / lanes / 3)


@emits("depthwise_gradient")
def emit_depthwise_gradient(fn: Fn, kernel: Kernel) -> None:
    """Lines are summed on their own first: rounding errors grow with lines plus depth, not with all pixels."""
    p: DepthwiseGradientParams = kernel.params
    x, dy, out = kernel.operands
    parts = -(-len(p.taps) // p.taps_per_item)
    with fn.loop(fn.args["begin"], fn.args["end"], name="item") as item:
        block, part = fn.unravel(item, (out.shape[0], parts))
        for k in range(parts):
            with fn.if_(fn.b.icmp_signed("==", part, fn.index(k))), fn.loop(0, PANEL, p.lanes, name="lane") as lane:
                taps = p.taps[k * p.taps_per_item : (k + 1) * p.taps_per_item]
                x_at = fn.at(fn.args["p0"], fn.iadd(fn.imul(block, x.strides[1]), lane))
                dy_at = fn.at(fn.args["p1"], fn.iadd(fn.imul(block, dy.strides[1]), lane))
                sums = _depthwise_sums(fn, p, x_at, dy_at, dy.strides[-2], taps)
                base = fn.at(fn.args["p2"], fn.iadd(fn.imul(block, out.strides[0]), lane))
                for i, v in enumerate(sums):
                    fn.store(Val(v.get(), "f32", p.lanes), fn.at(base, (k * p.taps_per_item + i) * PANEL))


def _depthwise_sums(fn: Fn, p: DepthwiseGradientParams, x: ir.Value, dy: ir.Value, dy_step: int, taps: Sequence[int]) -> list[Var]:
    zero = fn.const(0, "f32", p.lanes).ir
    sums = [fn.var("f32", zero, p.lanes) for _ in taps]
    with fn.loop(0, prod(p.lines), name="line") as line:
        where: list[Index] = list(fn.unravel(line, p.lines))
        x_line, dy_line = fn.at(x, fn.dot(where, p.x_lines)), fn.at(dy, fn.dot(where, p.dy_lines))
        own = [fn.var("f32", zero, p.lanes) for _ in taps]
        with fn.loop(0, p.depth, name="pixel") as i:
            d = fn.load(fn.at(dy_line, fn.imul(i, dy_step)), "f32", p.lanes)
            x_pixel = fn.at(x_line, fn.imul(i, p.x_step))
            for tap, var in zip(taps, own, strict=True):
                seen = fn.load(fn.at(x_pixel, tap), "f32", p.lanes)
                var.set(fn.fma(seen, d, Val(var.get(), "f32", p.lanes)).ir)
        for total, var in zip(sums, own, strict=True):
            total.set(fn.b.fadd(total.get(), var.get()))
    return sums
