"""Let values be made where they are needed: inside a concatenation's result, or with room for padding around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diptych.ir.types import itemsize
from diptych.kernels.tiling import Tiling
from diptych.ops.base import attributes
from diptych.schedule.context import Halo
from diptych.schedule.contraction import direct_tilings
from diptych.schedule.dilated import choose_dilated, input_pads, rectangles
from diptych.schedule.grouped import is_grouped
from diptych.schedule.options import conv_key, pick
from diptych.schedule.transposed import transposed_pads
from diptych.schedule.views import View, contiguous
from diptych.schedule.winograd import choose_winograd, winograd_options

if TYPE_CHECKING:
    from diptych.ir import Node
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group
    from diptych.schedule.winograd import WinogradSchedule

__all__ = ["is_depthwise", "place_values"]

Pads = tuple[tuple[int, int], ...]
# Operators on blocked tensors whose kernels read a padded input.
_PADDING = frozenset({"blocked_conv", "blocked_conv_transpose", "blocked_conv_weight_gradient", "narrow_conv"})


def place_values(ctx: Context, groups: list[Group]) -> None:
    """Fix the views of values before anything is lowered.

    A value that a convolution pads gets a zero border of its own ("halo" buffers keep their border zero for good: no
    kernel ever writes there), and the operands of a concatenation become parts of its result, which has a border when
    one of them needs it. Kernels write any strides, so neither costs a copy.
    """
    made = {v for g in groups for v in g.results}
    for group in groups:
        node = group.anchor
        if node is None or node.op.name != "blocked_conv" or group.before is not None or group.prologue:
            continue
        if not is_depthwise(ctx, group) and not is_grouped(ctx.graph, node):
            _way(ctx, group, node)
    room = _rooms(ctx, groups, made)
    homes = _homes(ctx, groups, made, room)
    for v in list(room):
        root = v
        while root in homes:  # what holds a padded value is padded
            root = homes[root].result
            _widen(room, root, room[v])
    for v in (*room, *homes):
        _place(ctx, v, homes, room)


def _way(ctx: Context, group: Group, node: Node) -> None:
    """How a convolution is computed: by Winograd's algorithm in one of its forms, or by direct sums in some tiling."""
    chosen = None if ctx.strict else (
        choose_winograd(ctx.graph, node, ctx.target, ctx.threads) or choose_dilated(ctx.graph, node, ctx.target, ctx.threads)
    )
    tilings = direct_tilings(ctx.graph, node, ctx.target)
    ways: list[WinogradSchedule | Tiling] = [tilings[0] if chosen is None else chosen]
    if not ctx.strict and not group.gate:
        ways += winograd_options(ctx.graph, node, ctx.target, ctx.threads)
    ways += tilings
    key = conv_key(ctx.graph, node, group.epilogue, ctx.strict)
    way = pick(ctx, key, {str(w): w for w in ways}, node.outputs)
    if isinstance(way, Tiling):
        ctx.tilings[node.outputs[0]] = way
    else:
        ctx.winograd[node.outputs[0]] = way


def is_depthwise(ctx: Context, group: Group) -> bool:
    """Whether a blocked_conv has one input channel per group (and a kernel of its own)."""
    node = group.anchor
    assert node is not None
    return bool(attributes(node.op)["groups"] > 1 and ctx.graph.types[node.inputs[1]].shape[1] == 1)


def _rooms(ctx: Context, groups: list[Group], made: set[int]) -> dict[int, Pads]:
    """How much padding the convolutions that read a value want around it."""
    room: dict[int, Pads] = {}
    for group in groups:
        node = group.anchor
        if node is None or node.op.name not in _PADDING:
            continue
        a, v = attributes(node.op), node.inputs[0]
        if v not in made or v in ctx.results:
            continue
        if node.op.name == "blocked_conv_transpose":
            pads = transposed_pads(ctx.graph, node)
        elif a["plain_input"] or (node.op.name == "blocked_conv" and is_depthwise(ctx, group)):
            continue
        else:
            pads = a["pads"]
        chosen = ctx.winograd.get(node.outputs[0])
        if chosen is not None:
            pads = input_pads(ctx.graph, node, chosen)
        elif node.op.name == "blocked_conv" and rectangles(ctx.graph, node):
            continue  # what lies in the padding is left out
        if any(p != (0, 0) for p in pads):
            _widen(room, v, pads)
    return room


def _widen(room: dict[int, Pads], v: int, pads: Pads) -> None:
    old = room.get(v, ((0, 0),) * len(pads))
    room[v] = tuple((max(o[0], p[0]), max(o[1], p[1])) for o, p in zip(old, pads, strict=True))


@dataclass(frozen=True, slots=True)
class _Home:
    """Where a value lies inside a concatenation's result."""

    result: int
    axis: int
    start: int

    @property
    def keeps_border(self) -> bool:
        """Whether the border of the result is that of the value: joined along the batch or the channels."""
        return self.axis < 2


def _homes(ctx: Context, groups: list[Group], made: set[int], room: dict[int, Pads]) -> dict[int, _Home]:
    """Operands of concatenations lie inside the result, and concatenations inside longer ones that repeat them.

    The features of a dense block are joined again and again, each time with one more at the end: every joined tensor
    is a run of channels of the longest one, so all of them are views of one buffer. Operands that lie there are noted
    in `ctx.placed`; any other is copied by the first concatenation that has it.
    """
    homes: dict[int, _Home] = {}
    joins = [g.anchor for g in groups if g.anchor is not None and g.anchor.op.name == "concat"]
    done: set[int] = set()
    for i in range(len(joins) - 1, -1, -1):  # outer concatenations come after the inner ones they contain
        node, result = joins[i], joins[i].outputs[0]
        if result in done:
            continue
        axis, starts = attributes(node.op)["axis"], [0]
        for v in node.inputs:
            starts.append(starts[-1] + ctx.graph.types[v].shape[axis])
        holders = [(node, 0)]  # concatenations that lie here, and which operand their first one is
        for other in reversed(joins[:i]):
            v = other.outputs[0]
            at = _run(other.inputs, node.inputs) if attributes(other.op)["axis"] == axis else None
            if at is None or v in homes or v in ctx.results:
                continue
            where = _Home(result, axis, starts[at])
            if v not in room or _can_pad(ctx, where, homes):
                homes[v] = where
                done.add(v)
                holders.insert(0, (other, at))
        for k, v in enumerate(node.inputs):
            where = _Home(result, axis, starts[k])
            if v in made and v not in ctx.results and v not in homes and (v not in room or _can_pad(ctx, where, homes)):
                homes[v] = where
            having = [(n.outputs[0], k - at) for n, at in holders if at <= k < at + len(n.inputs)]
            ctx.placed.update(having if homes.get(v) == where else having[1:])
    return homes


def _run(part: tuple[int, ...], whole: tuple[int, ...]) -> int | None:
    """Where `part` stands in `whole`."""
    n = len(part)
    return next((i for i in range(len(whole) - n + 1) if whole[i : i + n] == part), None)


def _can_pad(ctx: Context, home: _Home, homes: dict[int, _Home]) -> bool:
    """Whether a value that lies there can have a border."""
    while home.keeps_border:
        if home.result in ctx.results:
            return False
        if home.result not in homes:
            return True
        home = homes[home.result]
    return False


def _place(ctx: Context, v: int, homes: dict[int, _Home], room: dict[int, Pads]) -> None:
    """Fix the view of v, after that of the concatenation it lies in."""
    if v in ctx.views:
        return
    home = homes.get(v)
    if home is not None:
        _place(ctx, home.result, homes, room)
        shape = ctx.graph.types[v].shape
        starts = tuple(home.start if i == home.axis else 0 for i in range(len(shape)))
        ctx.views[v] = ctx.views[home.result].slice(starts, (1,) * len(shape), shape)
        if home.keeps_border and home.result in ctx.halos:
            ctx.halos[v] = ctx.halos[home.result]
    elif v in room:
        t = ctx.graph.types[v]
        n, blocks, *spatial, lanes = t.shape
        outer = (n, blocks, *(d + lo + hi for d, (lo, hi) in zip(spatial, room[v], strict=True)), lanes)
        strides = contiguous(outer)
        buffer = ctx.buffer("halo", strides[0] * n * itemsize(t.dtype))
        if n > 1 and any(h.result == v and h.axis == 1 for h in homes.values()):
            # Blocks of channels before images: what is joined is one stretch of memory, which others may use till then.
            strides = (strides[1], n * strides[1], *strides[2:])
        ctx.buffers[buffer].halo = Halo(outer, room[v], t.dtype)
        before = sum(lo * s for (lo, _), s in zip(room[v], strides[2:-1], strict=True))
        ctx.views[v] = View(buffer, before, t.shape, strides, t.dtype)
        ctx.halos[v] = room[v]
    else:
        ctx.result(v)
