"""attention -> its kernel: queries, keys and values are read where they lie, the result is written where it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.ir.kernel import Expr
from diptych.kernels.attention import make_attention
from diptych.kernels.attention_few import choose_parts, make_attention_few, make_attention_join, takes_few
from diptych.kernels.pointwise import make_copy
from diptych.ops.base import attributes
from diptych.schedule.views import View

if TYPE_CHECKING:
    from diptych.ir import Node
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["lower_attention"]


def lower_attention(ctx: Context, group: Group) -> None:
    """attention on f32, with the expression that makes its mask."""
    node = group.anchor
    assert node is not None
    a, (q, k, v) = attributes(node.op), (ctx.view(x) for x in node.inputs[:3])
    out = _result(ctx, node)
    if 0 in out.shape:
        return
    h, s, shared, t = q.shape[1], q.shape[2], k.shape[1], k.shape[2]
    expr, masks = _mask(ctx, group, (*q.shape[:3], t))
    target = out if out.strides[-1] == 1 or out.shape[-1] == 1 else ctx.temp(out.shape)
    # heads that share a key head, as an axis of their own
    q, *masks, rows = (_split(x, shared, h // shared) for x in (q, *masks, target))
    causal = a["offset"] if a["causal"] else None
    if causal is not None and causal >= t - 1:
        causal = None  # every query sees every key
    if s == 1 and causal is None:  # the heads of a group are the rows of one product
        q, *masks, rows = (x.transpose((0, 1, 3, 2, 4)) for x in (q, *masks, rows))
    zeros = a["unseen"] == "zeros"
    operands = (q.operand, k.operand, v.operand, [m.operand for m in masks])
    if takes_few(q.operand, k.operand, v.operand, rows.operand):
        parts = choose_parts(k.shape[0] * shared, t, ctx.threads)
        into = rows if parts == 1 else ctx.temp((k.shape[0], shared, parts, q.shape[3], v.shape[3] + 2))
        few = make_attention_few(*operands, into.operand, a["scale"], ctx.target, causal=causal, mask_expr=expr, zeros=zeros, parts=parts)
        ctx.call(few, [q, k, v, *masks, into])
        if into is not rows:
            ctx.call(make_attention_join(into.operand, rows.operand, zeros), [into, rows])
    else:
        kernel = make_attention(
            *operands, rows.operand, a["scale"], ctx.target, causal=causal, mask_expr=expr, zeros=zeros, threads=ctx.threads
        )
        ctx.call(kernel, [q, k, v, *masks, rows])
    if target is not out:
        ctx.call(make_copy(target.operand, out.operand, ctx.target), (target, out))


def _result(ctx: Context, node: Node) -> View:
    """Where the result goes: where it is only read transposed, it lies in that order, so that heads join without a copy."""
    value, t = node.outputs[0], ctx.graph.types[node.outputs[0]]
    readers = ctx.graph.uses().get(value, [])
    orders = {attributes(n.op)["perm"] if n.op.name == "transpose" else None for n in readers}
    if value not in ctx.views and value not in ctx.results and len(orders) == 1:
        (perm,) = orders
        if perm is not None and perm[-1] == 3:  # the columns of a row stay together
            lies = ctx.temp(tuple(t.shape[p] for p in perm), t.dtype)
            ctx.views[value] = lies.transpose(tuple(perm.index(i) for i in range(4)))
    return ctx.result(value)


def _split(view: View, shared: int, group: int) -> View:
    """[B, H, ...] as [B, shared, group, ...]."""
    (b, _, *rest), (sb, sh, *strides) = view.shape, view.strides
    return View(view.buffer, view.offset, (b, shared, group, *rest), (sb, sh * group, sh, *strides), view.dtype)


def _mask(ctx: Context, group: Group, scores: tuple[int, ...]) -> tuple[Expr | None, list[View]]:
    """The expression that is added to the scores, and its operands over them."""
    node = group.anchor
    assert node is not None
    if len(node.inputs) < 4:
        return None, []
    mask = node.inputs[3]
    if not group.prologue:
        return Expr.identity(), [ctx.view(mask).broadcast(scores)]
    made, shape = group.prologue[-1].outputs[0], ctx.graph.types[group.prologue[-1].outputs[0]].shape
    moves: list[Node] = []
    while mask != made:
        moves.insert(0, ctx.producer[mask])
        mask = moves[0].inputs[0]
    expr, values = ctx.expression(group.prologue)
    views = [_moved(ctx, ctx.view(v).broadcast(shape), moves) for v in values]
    if all(v is not None for v in views):
        return expr, [v.broadcast(scores) for v in views if v is not None]
    # strides cannot say where an operand's elements end up: make the mask first
    whole = ctx.temp(shape)
    ctx.pointwise(group.prologue, whole)
    ctx.views[made] = whole
    return Expr.identity(), [ctx.view(node.inputs[3]).broadcast(scores)]


def _moved(ctx: Context, view: View, moves: list[Node]) -> View | None:
    for node in moves:
        moved = ctx.move(node, view)
        if moved is None:
            return None
        view = moved
    return view
