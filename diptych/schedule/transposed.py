"""Transposed convolutions on blocked tensors -> contraction kernels: one convolution of stride 1 for each phase."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.ir.kernel import Kernel
from diptych.kernels.contract import PANEL, ContractParams, Side
from diptych.kernels.pointwise import make_fill
from diptych.kernels.tiling import choose
from diptych.ops.base import attributes
from diptych.schedule.contraction import (
    _FLOPS_PER_NS,
    _conv_side,
    _epilogue,
    _readable,
    pack_weights,
    pad_spatial,
)
from diptych.schedule.views import View
from diptych.schedule.weights import channel_rows, pack_conv_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.ir import Array, Graph, Node
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["lower_transposed", "transposed_pads"]

Pads = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Phase:
    """Output positions stride * m + first, m < count, of one axis: the sum over `taps` of x[m + offset] w[tap]."""

    first: int
    count: int
    taps: tuple[tuple[int, int], ...]  # (kernel position, offset)


def _phases(graph: Graph, node: Node) -> list[list[_Phase]]:
    """The phases of every spatial axis."""
    a = attributes(node.op)
    w, out = graph.types[node.inputs[1]].shape[2:], graph.types[node.outputs[0]].shape[2:-1]
    found = []
    for k, s, (lo, _), d, extent in zip(w, a["strides"], a["pads"], a["dilations"], out, strict=True):
        axis = []
        for r in range(min(s, extent)):
            taps = tuple((t, (r + lo - d * t) // s) for t in range(k) if (r + lo - d * t) % s == 0)
            axis.append(_Phase(r, -(-(extent - r) // s), taps))
        found.append(axis)
    return found


def transposed_pads(graph: Graph, node: Node) -> Pads:
    """The border around the input within which every tap of every phase lies."""
    size = graph.types[node.inputs[0]].shape[2:-1]
    pads = []
    for axis, extent in zip(_phases(graph, node), size, strict=True):
        low = min((off for p in axis for _, off in p.taps), default=0)
        high = max((p.count - 1 + off for p in axis for _, off in p.taps), default=0)
        pads.append((max(0, -low), max(0, high - extent + 1)))
    return tuple(pads)


def lower_transposed(ctx: Context, group: Group) -> None:
    """blocked_conv_transpose with its epilogue; the phases write interleaved pixels of the result."""
    node = group.anchor
    assert node is not None
    x, out = ctx.view(node.inputs[0]), ctx.result(group.results[0])
    pads = transposed_pads(ctx.graph, node)
    if any(p != (0, 0) for p in pads):
        x = pad_spatial(ctx, x, pads, False, ctx.halos.get(node.inputs[0]))
    axes = _phases(ctx.graph, node)
    combined = list(product(*axes))
    alike = len({tuple((p.count, tuple(off for _, off in p.taps)) for p in phase) for phase in combined}) == 1
    for together in [combined] if alike else [[phase] for phase in combined]:
        _Emit(ctx, group, node, x, out, pads).phases(together, [len(a) for a in axes] if alike else [])


class _Emit:
    """What the phases of one transposed convolution share."""

    def __init__(self, ctx: Context, group: Group, node: Node, x: View, out: View, pads: Pads) -> None:
        self.ctx, self.node, self.x, self.out, self.pads = ctx, node, x, out, pads
        a = attributes(node.op)
        self.groups, self.strides = a["groups"], a["strides"]
        self.panels = out.shape[1] // self.groups
        self.has_bias = len(node.inputs) > 2
        self.expr, values = _epilogue(ctx, group, self.has_bias)
        self.views = [_readable(ctx, ctx.view(v), out.shape, -1) for v in values]

    def phases(self, phases: Sequence[tuple[_Phase, ...]], counts: Sequence[int]) -> None:
        """One kernel for phases with the same taps (`counts` of them along each axis), or for a single one."""
        ctx, x, groups, panels = self.ctx, self.x, self.groups, self.panels
        w = ctx.constant(self.node.inputs[1])
        first, n = phases[0], x.shape[0]
        spatial = [p.count for p in first]
        outer = spatial[:-2]
        rows, cols = spatial[-2] if len(spatial) > 1 else 1, spatial[-1]
        o, c = ctx.graph.types[self.node.inputs[1]].shape[:2]
        xs = x.strides[2 : 2 + len(spatial)]
        offsets = [[(off + lo) * s for _, off in p.taps] for p, (lo, _), s in zip(first, self.pads, xs, strict=True)]
        taps = tuple(map(sum, product(*offsets))) or (0,)  # no tap: the bias alone, from weights that are zero
        per_panel = c * len(taps) * PANEL

        def weights(out: Array) -> None:
            assert w is not None
            for phase, place in zip(phases, out, strict=True):
                where = np.ix_(range(o), range(c), *([t for t, _ in p.taps] for p in phase))
                picked = w[where].reshape(groups, o // groups, c, -1)
                if picked.shape[-1]:
                    pack_weights(picked, place)

        shape = (len(phases), groups, panels, per_panel)
        packed = ctx.packed(shape, weights) if w is not None else self.pack(phases, shape)
        along = [prod(counts[i + 1 :]) * groups * panels * per_panel for i in range(len(counts))]

        def part(view: View) -> Side:
            starts, steps = (0, 0, *(p.first for p in first), 0), (1, 1, *self.strides, 1)
            side = _conv_side(view.slice(starts, steps, (*view.shape[:2], *spatial, PANEL)), panels)
            between = view.strides[2 : 2 + len(counts)]
            return Side((side.batch[0], *between, *side.batch[1:]), side.row, side.col, side.panel, side.lane)

        views, sides = list(self.views), [part(v) for v in self.views]
        if self.has_bias:
            views.insert(0, channel_rows(ctx, self.node.inputs[2], panels * groups))
            still = (0,) * len(outer)
            sides.insert(0, Side((0, *(0 for _ in counts), panels * PANEL, *still), 0, 0, PANEL, 1))
        step = list(xs)
        x_side = Side((x.strides[0], *(0 for _ in counts), 0 if groups == 1 else c // PANEL * x.strides[1], *step[:-2]),
                      step[-2] if len(step) > 1 else 0, step[-1], 0)  # fmt: skip
        batch = (n, *counts, groups, *outer)
        t = choose(ctx.target, batch=prod(batch), pixels=rows * cols, panels=panels, k=c, taps=len(taps))
        params = ContractParams(
            batch, rows, cols, panels * PANEL, c // PANEL, c % PANEL, taps, x_side, x.strides[1], x.strides[-1],
            (0, *along, panels * per_panel, *(0 for _ in outer)), per_panel, part(self.out), True, self.expr,
            tuple(sides), t.tiles, t.panels_per_tile, t.tiles_per_block, t.k_chunk, t.panel_outer,
        )  # fmt: skip
        args = [x, packed, *views, self.out.slice((0, 0, *(p.first for p in first), 0), (1,) * len(self.out.shape),
                                                  (*self.out.shape[:2], *self._left(first), PANEL))]  # fmt: skip
        cost = 2.0 * prod(batch) * panels * rows * cols * PANEL * c * len(taps) / _FLOPS_PER_NS
        args[2:-1] = [v.slice((0, 0, *(p.first for p in first), 0), (1,) * len(v.shape),
                              (*v.shape[:2], *self._left(first), PANEL)) if i >= self.has_bias else v
                      for i, v in enumerate(views)]  # fmt: skip
        ctx.call(Kernel("contract", params, tuple(v.operand for v in args), 1, params.work, cost), args)

    def pack(self, phases: Sequence[tuple[_Phase, ...]], shape: tuple[int, ...]) -> View:
        """The weights of each phase packed at run time: its kernel positions are evenly spaced along every axis."""
        ctx = self.ctx
        w, out = ctx.view(self.node.inputs[1]), ctx.temp(shape)
        for i, phase in enumerate(phases):
            part = View(out.buffer, out.offset + i * out.strides[0], shape[1:], out.strides[1:], "f32")
            positions = [[t for t, _ in p.taps] for p in phase]
            if not all(positions):  # no tap: the bias alone
                ctx.call(make_fill(0.0, part.operand, ctx.target), (part,), fused=("pack",))
                continue
            steps = [t[1] - t[0] if len(t) > 1 else 1 for t in positions]
            picked = w.slice((0, 0, *(t[0] for t in positions)), (1, 1, *steps), (*w.shape[:2], *map(len, positions)))
            pack_conv_weights(ctx, picked, self.groups, part)
        return out

    def _left(self, phase: tuple[_Phase, ...]) -> list[int]:
        """Extents of the result from the first pixel of a phase on."""
        return [d - p.first for d, p in zip(self.out.shape[2:-1], phase, strict=True)]
