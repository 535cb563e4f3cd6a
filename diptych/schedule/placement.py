"""Let values be made where they are needed: inside a concatenation's result, or with room for padding around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.ir.types import itemsize
from diptych.ops.base import attributes
from diptych.schedule.views import View, contiguous
from diptych.schedule.winograd import choose_winograd, winograd_pads

if TYPE_CHECKING:
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["is_depthwise", "place_values"]


def place_values(ctx: Context, groups: list[Group]) -> None:
    """Fix the views of values before anything is lowered.

    A value that a convolution pads gets a zero border of its own ("halo" buffers keep their border zero for good: no
    kernel ever writes there), and the operands of a concatenation become parts of its result. Kernels write any
    strides, so neither costs a copy.
    """
    made = {v for g in groups for v in g.results}
    if not ctx.strict:
        for group in groups:
            node = group.anchor
            if node is not None and node.op.name == "blocked_conv":
                chosen = choose_winograd(ctx.graph, node, ctx.target, ctx.threads)
                if chosen is not None:
                    ctx.winograd[node.outputs[0]] = chosen
    _halos(ctx, groups, made)
    _concatenations(ctx, groups, made)


def is_depthwise(ctx: Context, group: Group) -> bool:
    """Whether a blocked_conv has one input channel per group (and a kernel of its own)."""
    node = group.anchor
    assert node is not None
    return bool(attributes(node.op)["groups"] > 1 and ctx.graph.types[node.inputs[1]].shape[1] == 1)


def _halos(ctx: Context, groups: list[Group], made: set[int]) -> None:
    room: dict[int, list[tuple[int, int]]] = {}
    for group in groups:
        node = group.anchor
        if node is None or node.op.name != "blocked_conv":
            continue
        a, v = attributes(node.op), node.inputs[0]
        if a["plain_input"] or is_depthwise(ctx, group) or v not in made or v in ctx.results:
            continue
        pads, chosen = a["pads"], ctx.winograd.get(node.outputs[0])
        if chosen is not None:
            g = chosen.geometry
            pads = winograd_pads(pads, g.rows, g.cols, g.m)
        if any(p != (0, 0) for p in pads):
            old = room.get(v, [(0, 0)] * len(a["pads"]))
            room[v] = [(max(o[0], p[0]), max(o[1], p[1])) for o, p in zip(old, pads, strict=True)]
    for v, pads in room.items():
        t = ctx.graph.types[v]
        n, blocks, *spatial, lanes = t.shape
        outer = (n, blocks, *(d + lo + hi for d, (lo, hi) in zip(spatial, pads, strict=True)), lanes)
        strides = contiguous(outer)
        buffer = ctx.buffer("halo", strides[0] * n * itemsize(t.dtype))
        ctx.buffers[buffer].halo = (outer, tuple(pads), t.dtype)
        before = sum(lo * s for (lo, _), s in zip(pads, strides[2:-1], strict=True))
        ctx.views[v] = View(buffer, before, t.shape, strides, t.dtype)
        ctx.halos[v] = tuple(pads)


def _concatenations(ctx: Context, groups: list[Group], made: set[int]) -> None:
    for group in reversed(groups):  # outer concatenations come after the inner ones they contain
        node = group.anchor
        if node is None or node.op.name != "concat":
            continue
        axis, out, at = attributes(node.op)["axis"], ctx.result(node.outputs[0]), 0
        for v in node.inputs:
            shape = ctx.graph.types[v].shape
            if v in made and v not in ctx.results and v not in ctx.views:
                starts = tuple(at if i == axis else 0 for i in range(len(shape)))
                ctx.views[v] = out.slice(starts, (1,) * len(shape), shape)
                ctx.placed.add((node.outputs[0], at))
            at += shape[axis]
