"""Which convolutions go the Winograd way, in which of its forms, and how they are lowered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import TYPE_CHECKING

from diptych.kernels.tiling import pixel_tiles
from diptych.kernels.winograd import WinogradGeometry, make_fused, make_input_transform, make_products
from diptych.kernels.winograd_few import make_few, passes
from diptych.kernels.winograd_points import transform_weights
from diptych.kernels.winograd_streamed import make_streamed, pack_raw, raw_shape
from diptych.kernels.winograd_weights import make_weight_transform
from diptych.ops.base import attributes
from diptych.schedule.views import View
from diptych.schedule.weights import pack_conv_weights

if TYPE_CHECKING:
    from diptych.ir import Array, Graph, Node
    from diptych.ir.kernel import Expr
    from diptych.kernels.contract import Side
    from diptych.schedule.context import Context
    from diptych.targets.base import Target

__all__ = [
    "GAIN", "PANEL", "WinogradSchedule", "candidates", "choose_winograd", "direct_cycles", "lower_winograd", "winograd_alternatives",
    "winograd_options", "winograd_pads",
]  # fmt: skip

PANEL = 16
# Cycles of one tile of 16 channels in and out, by stride and m: counted from the code, with the loads and stores it waits for.
_TRANSFORM = {(1, 4): (180.0, 130.0), (1, 2): (75.0, 55.0), (2, 2): (110.0, 80.0), (2, 4): (400.0, 290.0)}
# Cycles of transforming the weights of one channel for 16 outputs.
_WEIGHTS = {(1, 4): 110.0, (1, 2): 50.0, (2, 2): 70.0, (2, 4): 230.0}
_AT_HAND = 0.85  # of L2
_LEAN = 1.08  # what holds the weights as they are (9 floats instead of 16 or 36) may be so much slower by estimate
_BARRIER = 2500.0  # cycles that meeting once more costs, the uneven arrival included
_WORTH_A_TRIAL, _RUNNERS_UP = 1.5, 5
GAIN = 0.92  # Winograd must be this much better than direct sums to be worth its error


@dataclass(frozen=True, slots=True)
class WinogradSchedule:
    """One way to compute a convolution: the tiles, what is computed together, and its estimated cycles."""

    geometry: WinogradGeometry
    group: int
    tiles: tuple[tuple[int, int], ...]
    fused: bool
    panel_outer: bool
    cycles: float
    depth: int = 0  # weights are transformed where they are used, so many channels at a time
    few: bool = False  # weights are transformed in registers; `depth` are all channels then

    def __str__(self) -> str:
        g = self.geometry
        name = f"F({g.m},3)" if g.stride == 1 else f"F({g.m},3) of stride {g.stride}"
        if self.few:
            return f"F({g.m},3) weights in registers"
        if self.depth:
            return f"{name} weights as they come by {g.per_block}x{self.group}x{self.depth}"
        order = ", panels first" if self.panel_outer else ""
        return f"{name} {'fused' if self.fused else 'in two steps'} by {g.per_block}x{self.group}{order}"


def choose_winograd(graph: Graph, node: Node, target: Target, threads: int) -> WinogradSchedule | None:
    """How a blocked_conv goes the Winograd way, or None when the direct way is faster or the only one."""
    if not _possible(graph, node):
        return None
    w, out = graph.types[node.inputs[1]], graph.types[node.outputs[0]]
    batch, panels, rows, cols, _ = out.shape
    found = candidates(batch, rows, cols, w.shape[1], panels, target, threads, attributes(node.op)["strides"][0])
    constant = node.inputs[1] in graph.constants
    best = _best([s for s in found if constant or not s.depth])
    if not constant:
        best = replace(best, cycles=best.cycles + _weights_cycles(best.geometry.points, w.shape[1], panels, target, threads))
    return best if best.cycles < GAIN * direct_cycles(batch, rows, cols, w.shape[1], panels, target, threads) else None


def _best(schedules: Sequence[WinogradSchedule]) -> WinogradSchedule:
    """The fastest by estimate, or one that is nearly as fast and holds far fewer bytes of weights."""
    first = min(schedules, key=lambda s: s.cycles)
    lean = [s for s in schedules if s.depth and s.cycles < _LEAN * first.cycles]
    return min(lean, key=lambda s: s.cycles, default=first)


def winograd_options(graph: Graph, node: Node, target: Target, threads: int) -> list[WinogradSchedule]:
    """Schedules worth measuring beside the one that was chosen, the most promising first: of each form the best by
    estimate, then runners-up."""
    if not _possible(graph, node):
        return []
    w, out = graph.types[node.inputs[1]], graph.types[node.outputs[0]]
    batch, panels, rows, cols, _ = out.shape
    found = candidates(batch, rows, cols, w.shape[1], panels, target, threads, attributes(node.op)["strides"][0])
    ordered = sorted((s for s in found if node.inputs[1] in graph.constants or not s.depth), key=lambda s: s.cycles)
    near = [s for s in ordered if s.cycles < _WORTH_A_TRIAL * ordered[0].cycles]
    forms: dict[tuple[int, bool, bool, bool], WinogradSchedule] = {}
    for s in near:
        forms.setdefault((s.geometry.m, s.fused, s.depth > 0, s.few), s)
    apart: list[WinogradSchedule] = []  # runners-up that are not nearly the same as one before
    for s in near:
        if all((s.group, s.fused, s.geometry.m, s.depth) != (t.group, t.fused, t.geometry.m, t.depth) or
               abs(s.geometry.per_block - t.geometry.per_block) > t.geometry.per_block // 4 for t in apart):  # fmt: skip
            apart.append(s)
    return list(dict.fromkeys([ordered[0], *forms.values(), *apart[:_RUNNERS_UP]]))


def _weights_cycles(points: int, channels: int, panels: int, target: Target, threads: int) -> float:
    """What transforming the weights costs when they arrive at run time."""
    return max(channels * panels * 2.5 * points / threads, 4.0 * points * channels * panels * PANEL / target.rates.dram)


def direct_cycles(batch: int, rows: int, cols: int, channels: int, panels: int, target: Target, threads: int) -> float:
    """The estimate for direct sums."""
    per_panel = PANEL // _lanes(target)
    compute = batch * rows * cols * 9.0 * channels * panels / target.fma_per_cycle * per_panel / 0.95 / threads
    return max(compute, 9.0 * channels * panels * PANEL * 4 / target.rates.dram)


def winograd_alternatives(graph: Graph, node: Node, target: Target, threads: int) -> dict[str, float]:
    """What `choose_winograd` weighed: estimated cycles of direct sums and of the best of each Winograd form."""
    if not _possible(graph, node):
        return {}
    w, out = graph.types[node.inputs[1]], graph.types[node.outputs[0]]
    batch, panels, rows, cols, _ = out.shape
    shape = (batch, rows, cols, w.shape[1], panels, target, threads)
    found = {"direct": direct_cycles(*shape)}
    for s in sorted(candidates(*shape, attributes(node.op)["strides"][0]), key=lambda s: s.cycles):
        form = "weights in registers" if s.few else "weights as they come" if s.depth else "fused" if s.fused else "in two steps"
        found.setdefault(f"F({s.geometry.m},3) {form}", s.cycles)
    return found


def _possible(graph: Graph, node: Node) -> bool:
    """Whether a blocked_conv can go the Winograd way at all."""
    a = attributes(node.op)
    w, out = graph.types[node.inputs[1]], graph.types[node.outputs[0]]
    plain = w.shape[2:] == (3, 3) and a["strides"] in ((1, 1), (2, 2)) and a["dilations"] == (1, 1)
    return plain and a["groups"] == 1 and not a["plain_input"] and w.shape[1] >= 16 and out.rank == 5


@cache
def candidates(batch: int, rows: int, cols: int, channels: int, panels: int, target: Target, threads: int,
               stride: int = 1) -> tuple[WinogradSchedule, ...]:  # fmt: skip
    """Every sensible way for one shape."""
    found = []
    per_panel = PANEL // _lanes(target)
    for m in (4, 2):
        whole = WinogradGeometry(m, batch, rows, cols, channels, 1, stride)
        for per_block in _block_sizes(whole.tiles):
            g = WinogradGeometry(m, batch, rows, cols, channels, per_block, stride)
            for group in (1, 2, 3, 4):
                most = (target.registers - per_panel * group - 1) // (per_panel * group)
                if panels % group or most < 1:
                    continue
                tiles = pixel_tiles(per_block, min(most, 28), per_panel * group)
                if group > 2 * sum(count for _, count in tiles):
                    continue  # more weights would have to be fetched per update than the core can wait for
                for fused in (True, False):
                    for panel_outer in (False,) if fused else (False, True):
                        s = WinogradSchedule(g, group, tiles, fused, panel_outer, 0.0)
                        found.append(replace(s, cycles=_cycles(s, panels, target, threads)))
                for depth in _depths(channels) if per_block == whole.tiles else ():
                    s = WinogradSchedule(g, group, tiles, False, False, 0.0, depth)
                    if _bytes_at_hand(s) < _AT_HAND * target.l2:
                        found.append(replace(s, cycles=_streamed_cycles(s, panels, target, threads)))
        if stride == 1 and passes(m, whole.tiles, target) is not None:
            g = WinogradGeometry(m, batch, rows, cols, channels, whole.tiles)
            s = WinogradSchedule(g, 1, ((whole.tiles, 1),), False, False, 0.0, channels, few=True)
            found.append(replace(s, cycles=_few_cycles(s, panels, target, threads)))
    return tuple(found)


def _depths(channels: int) -> Iterator[int]:
    """Numbers of channels of which all can be worked through evenly: whole blocks, or all at once."""
    for depth in (16, 32, 48, 64, 96, 128):
        if channels % depth == 0 or (depth == 128 and channels < depth):
            yield min(depth, channels)


def _block_sizes(tiles: int) -> Iterator[int]:
    """Sizes that cut `tiles` evenly into any number of blocks, largest first."""
    last = 0
    for blocks in range(1, tiles + 1):
        size = -(-tiles // blocks)
        if size != last and size <= 128:
            yield size
        last = size
        if size <= 4:
            return


def _lanes(target: Target) -> int:
    return min(PANEL, target.lanes(4))


def _cycles(s: WinogradSchedule, panels: int, target: Target, threads: int) -> float:
    """The estimate, whichever of arithmetic and memory is slower."""
    g = s.geometry
    per_panel, rate, memory = PANEL // _lanes(target), target.fma_per_cycle, target.rates
    groups = panels // s.group
    # A turn of the inner loop waits for its FMAs, or for the loads of pixels (two a cycle) and weights, or for latency.
    turn = sum(count * max(w * s.group * per_panel / rate, w / 2 + s.group * per_panel / rate, 5.0) for w, count in s.tiles)
    stores = 3.0 * g.chunks * g.per_block * s.group * per_panel / rate + 6.0 * sum(c for _, c in s.tiles)
    products = g.points * (turn * g.channels + stores)  # of one block and group
    slow = 1.0 if target.vector_bytes >= 64 else 1.3
    t_in, t_out = (slow * t for t in _TRANSFORM[g.stride, g.m])
    cb = -(-g.channels // PANEL)
    u_bytes = 4.0 * g.points * g.channels * panels * PANEL
    v_block = 4.0 * g.points * g.per_block * g.v_row
    m_block = 4.0 * g.points * g.per_block * s.group * PANEL
    items = g.blocks if s.fused else g.blocks * groups
    share = -(-items // threads)  # of the busiest thread
    once = u_bytes / memory.dram  # weights of this layer were evicted by those of the others
    if s.fused:
        outside = v_block + m_block > 0.7 * target.l2
        again = u_bytes / (memory.l3 if u_bytes + v_block > 0.8 * target.l2 else memory.l2)
        block = max(groups * products, again) + 0.35 * min(groups * products, again)
        block += g.per_block * (cb * t_in + panels * t_out) + (groups * v_block / memory.l3 if outside else 0.0)
        return max(share * block, once * (1.0 if threads == 1 else 1.2))  # each thread reads all weights
    shared_v = g.blocks * v_block
    item_v = v_block / (memory.l2 if v_block < 0.5 * target.l2 and not s.panel_outer else memory.l3)
    u_group = u_bytes / groups
    item_u = u_group / (memory.l2 if s.panel_outer and u_group < 0.5 * target.l2 else memory.l3)
    item = max(products, item_v + item_u) + 0.2 * min(products, item_v + item_u) + g.per_block * s.group * t_out
    if m_block > 0.5 * target.l2:
        item += 2 * m_block / memory.l3
    transform = g.tiles * cb * t_in / threads + 2 * shared_v / memory.l3 / threads * (shared_v > target.l2 / 2)
    return max(share * item, once) + 0.15 * min(share * item, once) + transform + _BARRIER


def _bytes_at_hand(s: WinogradSchedule) -> float:
    """What a thread goes through again and again where weights are transformed as they come: V, M and a stretch of U."""
    g = s.geometry
    return 4.0 * g.points * (g.tiles * (g.channels + s.group * PANEL) + s.group * s.depth * PANEL)


def _streamed_cycles(s: WinogradSchedule, panels: int, target: Target, threads: int) -> float:
    """The estimate where weights are transformed as they come."""
    g = s.geometry
    per_panel, rate, memory = PANEL // _lanes(target), target.fma_per_cycle, target.rates
    stretches, items = g.channels // s.depth, -(-(panels // s.group) // threads)
    slow = 1.0 if target.vector_bytes >= 64 else 1.3
    t_in, t_out = (slow * t for t in _TRANSFORM[g.stride, g.m])
    turn = sum(count * max(w * s.group * per_panel / rate, w / 2 + s.group * per_panel / rate, 5.0) for w, count in s.tiles)
    stores = 3.0 * g.per_block * s.group * per_panel / rate + 6.0 * sum(c for _, c in s.tiles)
    v, u = 4.0 * g.points * g.tiles * g.channels / stretches, 4.0 * g.points * PANEL * s.group * s.depth
    work = g.points * (turn * s.depth + stores) + s.group * s.depth * slow * _WEIGHTS[g.stride, g.m]
    fetch = (v + u) / memory.l2
    item = stretches * (max(work, fetch) + 0.2 * min(work, fetch)) + g.tiles * s.group * t_out
    once = 4.0 * 9 * g.channels * panels * PANEL / memory.dram
    transform = g.tiles * -(-g.channels // PANEL) * t_in / threads
    return max(items * item, once) + 0.15 * min(items * item, once) + transform + _BARRIER


def _few_cycles(s: WinogradSchedule, panels: int, target: Target, threads: int) -> float:
    """The estimate where weights are transformed in registers."""
    g = s.geometry
    per_panel, rate, memory = PANEL // _lanes(target), target.fma_per_cycle, target.rates
    cut = passes(g.m, g.tiles, target)
    assert cut is not None
    slow = 1.0 if target.vector_bytes >= 64 else 1.3
    t_in, t_out = (slow * t for t in _TRANSFORM[g.stride, g.m])
    # Of each row of points: the taps are combined (but the first and last row's), then the points, then come the products.
    turn = sum(max(g.tiles * len(points) + 2.0 * (len(points) - len({0, g.m + 1} & set(points))) / 2, 5.0) for points in cut)
    rows = (g.m + 2) * turn + g.m * 6.0 * len(cut)
    item = g.channels * rows * per_panel / rate * 1.1 + g.tiles * t_out
    once = 4.0 * 9 * g.channels * panels * PANEL / memory.dram
    items = -(-panels // threads)
    transform = g.tiles * -(-g.channels // PANEL) * t_in / threads
    return max(items * item, once) + 0.15 * min(items * item, once) + transform + _BARRIER


def winograd_pads(pads: tuple[tuple[int, int], ...], rows: int, cols: int, m: int, stride: int = 1) -> tuple[tuple[int, int], ...]:
    """Padding with which whole tiles can be read."""
    (top, bottom), (left, right) = pads
    return (top, bottom + -rows % m * stride), (left, right + -cols % m * stride)


def lower_winograd(ctx: Context, x: View, w: Array | View, s: WinogradSchedule, out: View, expr: Expr,
                   views: list[View], sides: list[Side], out_side: Side, weights: View | None = None) -> View:  # fmt: skip
    """Emit the kernels; x is padded by `winograd_pads` already. The weights are constant, or a View of what arrives.

    Returns the transformed weights; what an earlier call for the same w, m and group returned can be given as `weights`."""
    g, panels = s.geometry, out.shape[1]
    assert prod(out.shape)
    extras = [e.operand for e in views]
    if s.few:
        assert not isinstance(w, View)
        array = w
        if weights is None:
            weights = ctx.packed(raw_shape(panels, 1, g.channels, g.channels), lambda out: pack_raw(array, out))
        v = ctx.temp(g.v_shape)
        ctx.call(make_input_transform(x.operand, v.operand, g, ctx.target, bare=True), (x, v), fused=("winograd input transform",))
        ctx.call(make_few(v.operand, weights.operand, extras, out.operand, g, expr, sides, out_side), (v, weights, *views, out))
        return weights
    if s.depth:
        assert not isinstance(w, View)
        array = w
        if weights is None:
            weights = ctx.packed(raw_shape(panels, s.group, g.channels, s.depth), lambda out: pack_raw(array, out))
        v = ctx.temp(g.streamed_v_shape(s.depth))
        ctx.call(make_input_transform(x.operand, v.operand, g, ctx.target, s.depth, bare=True), (x, v), fused=("winograd input transform",))
        kernel = make_streamed(v.operand, weights.operand, extras, out.operand, g, expr, sides, out_side, s.tiles)
        ctx.call(kernel, (v, weights, *views, out))
        return weights
    shape = (panels // s.group, g.points, g.chunks, s.group, g.channels // g.chunks * PANEL)

    def fill(out: Array) -> None:
        assert not isinstance(w, View)
        for panel in range(panels):
            u = transform_weights(w[panel * PANEL : (panel + 1) * PANEL], g.m, g.stride)
            out[panel // s.group, :, :, panel % s.group] = u.reshape(g.points, g.chunks, shape[4])

    if weights is not None:
        assert weights.shape == shape
    elif isinstance(w, View):
        packed, weights = pack_conv_weights(ctx, w, 1), ctx.temp(shape)
        kernel = make_weight_transform(packed.operand, weights.operand, g.m, g.channels, g.stride)
        ctx.call(kernel, (packed, weights), fused=("winograd weights",))
    else:
        weights = ctx.packed(shape, fill)
    prefetch = 4 * prod(shape) > ctx.target.l2 // 2
    if s.fused:
        kernel = make_fused(x.operand, weights.operand, extras, out.operand, g, s.group, expr, sides, out_side, s.tiles,
                            prefetch)  # fmt: skip
        ctx.call(kernel, (x, weights, *views, out))
        return weights
    v = ctx.temp(g.v_shape)
    ctx.call(make_input_transform(x.operand, v.operand, g, ctx.target), (x, v), fused=("winograd input transform",))
    kernel = make_products(v.operand, weights.operand, extras, out.operand, g, s.group, expr, sides, out_side, s.tiles,
                           prefetch, s.panel_outer)  # fmt: skip
    ctx.call(kernel, (v, weights, *views, out))
    return weights
