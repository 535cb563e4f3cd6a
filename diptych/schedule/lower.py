"""Graph -> kernel calls: one rule per kind of anchor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from diptych.ir.kernel import Expr
from diptych.ir.tuning import Tuning
from diptych.kernels.pointwise import make_copy
from diptych.kernels.pointwise_pack import make_pack_channels, make_unpack_channels
from diptych.kernels.pointwise_pad import make_pad
from diptych.kernels.reduce import make_reduce
from diptych.ops.base import Reduction, attributes
from diptych.schedule.along import ALONG, lower_along, lower_resize
from diptych.schedule.attention import lower_attention
from diptych.schedule.chain import chain_key, join_chains, lower_chain, pays
from diptych.schedule.context import Context
from diptych.schedule.contraction import lower_conv
from diptych.schedule.conv_gradient import lower_weight_gradient
from diptych.schedule.conv_pool import join_pools, lower_conv_pool
from diptych.schedule.depthwise import lower_depthwise
from diptych.schedule.detection import DETECTION, lower_detection
from diptych.schedule.expand import join_depthwise, lower_expand
from diptych.schedule.gate import join_gates
from diptych.schedule.grouped import is_grouped, lower_grouped
from diptych.schedule.groups import partition
from diptych.schedule.indexing import INDEXING, lower_indexing
from diptych.schedule.naive import lower_plain_conv, lower_product
from diptych.schedule.narrow import lower_narrow_conv
from diptych.schedule.norm_sums import join_norms
from diptych.schedule.options import conv_key, pick
from diptych.schedule.placement import is_depthwise, place_values
from diptych.schedule.recurrent import lower_backward, lower_recurrent
from diptych.schedule.rows import lower_adaptive_pool, lower_pool, lower_row
from diptych.schedule.staged import lower_staged
from diptych.schedule.transposed import lower_transposed
from diptych.schedule.update import lower_update_at, updated_inputs
from diptych.schedule.views import View, contiguous
from diptych.schedule.winograd import winograd_alternatives

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.ir import Graph, Node
    from diptych.schedule.groups import Group
    from diptych.targets.base import Target

__all__ = ["lower"]


def lower(graph: Graph, target: Target, fuse: bool = True, strict: bool = False, threads: int = 1,
          in_place: Sequence[tuple[str, str]] = (), tuning: Tuning | None = None) -> Context:  # fmt: skip
    """All kernel calls of a graph, in order, over buffers whose places are not yet fixed; to be run by `threads`.

    in_place: pairs (output, input), see `Options`.
    """
    ctx = Context(graph, target, strict, threads, producer=graph.producer(), tuning=tuning or Tuning())
    for i, v in enumerate(graph.inputs):
        t = graph.types[v]
        ctx.views[v] = _whole(ctx, "input", i, t.shape, t.dtype, t.nbytes)
    groups = partition(graph, fuse, lambda before, anchor: _joined(ctx, "staged", before, anchor))
    if fuse:
        groups = join_depthwise(graph, groups, lambda one, two: _joined(ctx, "expand", one.anchor, two.anchor))
        groups = join_chains(graph, groups, lambda before, group: _chained(ctx, before, group))
        groups = join_pools(graph, groups, lambda one, two: _pooled(ctx, one.anchor, two.anchor))
        groups = join_norms(graph, join_gates(graph, groups), strict)
    made = {v for g in groups for v in g.results}
    kept_in = updated_inputs(graph, in_place)
    ctx.updated = tuple(graph.input_names[graph.inputs.index(v)] for v in kept_in.values())
    for v, x in kept_in.items():
        ctx.results[v] = ctx.views[x]
    finals = []  # outputs that are views, constants, inputs, or named twice: copied at the end
    ctx.returned = tuple(j for j, v in enumerate(graph.outputs) if v not in kept_in)
    for i, j in enumerate(ctx.returned):
        v = graph.outputs[j]
        t = graph.types[v]
        view = _whole(ctx, "output", i, t.shape, t.dtype, t.nbytes)
        if v in made and v not in ctx.results:
            ctx.results[v] = view
        else:
            finals.append((v, view))
    place_values(ctx, groups)
    for group in groups:
        ctx.group = group
        first = len(ctx.calls)
        _rule(ctx, group)
        _explain(ctx, group, first)
    ctx.group = None
    for v, view in finals:
        source = ctx.view(v)
        ctx.call(make_copy(source.operand, view.operand, target), (source, view), "output", ("copy",))
    return ctx


def _whole(ctx: Context, kind: str, index: int, shape: tuple[int, ...], dtype: str, nbytes: int) -> View:
    return View(ctx.buffer(kind, nbytes, index), 0, shape, contiguous(shape), dtype)


def _joined(ctx: Context, what: str, before: Node | None, after: Node | None) -> bool:
    """Whether to make one kernel of two nodes that could be one."""
    assert before is not None and after is not None
    shapes = " by ".join("x".join(map(str, ctx.graph.types[v].shape)) for v in before.inputs)
    key = f"{what} {before.op.name} {shapes} into {conv_key(ctx.graph, after, (), ctx.strict)}"
    return pick(ctx, key, {"one kernel": True, "apart": False}, (*before.outputs, *after.outputs))


def _pooled(ctx: Context, conv: Node | None, pool: Node | None) -> bool:
    """Whether to make one kernel of a convolution and a pooling that could be one."""
    assert conv is not None and pool is not None
    key = f"stem {conv_key(ctx.graph, conv, (), ctx.strict)} into {pool.op}"
    return pick(ctx, key, {"one kernel": True, "apart": False}, (*conv.outputs, *pool.outputs))


def _chained(ctx: Context, before: Group, group: Group) -> bool:
    """Whether to make one kernel of the three convolutions of an inverted residual that could be one."""
    options = {"one kernel": True, "apart": False}
    if not pays(ctx.graph, before, group, ctx.threads, ctx.target):
        options = {"apart": False, "one kernel": True}
    values = [v for n in (*before.nodes, *group.nodes) for v in n.outputs]
    return pick(ctx, chain_key(ctx.graph, before, group, ctx.strict), options, values)


def _rule(ctx: Context, group: Group) -> None:
    anchor = group.anchor
    if anchor is None:
        ctx.pointwise(group.epilogue, ctx.result(group.results[0]))
        return
    rule = _RULES.get(anchor.op.name)
    if rule is not None:
        rule(ctx, group)
    elif isinstance(anchor.op, Reduction):
        _reduce(ctx, group)
    else:
        raise ctx.refuse(anchor, "there is no native kernel for this operator yet; use target='numpy'")


def _explain(ctx: Context, group: Group, first: int) -> None:
    """Note on the last call of a group what else there was to choose, and what could not be fused."""
    # What has a kernel of its own was never to be fused: only refusals by a rule are worth a note.
    notes = [f"not fused: {why}" for why in group.refused if "already part of" not in why]
    node = group.anchor
    if node is not None and node.op.name == "blocked_conv" and not is_depthwise(ctx, group):
        ways = {} if ctx.strict else winograd_alternatives(ctx.graph, node, ctx.target, ctx.threads)
        if ways:
            notes.insert(0, "estimated Mcycles: " + ", ".join(f"{k} {v / 1e6:.2f}" for k, v in ways.items()))
    for key in dict.fromkeys(k for n in group.nodes for v in n.outputs for k in ctx.governed.get(v, ())):
        tried = ctx.tuning.entries.get(key)
        if tried is not None and tried.microseconds:
            by_time = sorted(tried.microseconds.items(), key=lambda item: item[1])
            notes.insert(0, f"tuned to {tried.taken}; measured us: " + "; ".join(f"{o} {t:.1f}" for o, t in by_time))
    if notes and len(ctx.calls) > first:
        ctx.calls[-1] = replace(ctx.calls[-1], notes=tuple(notes))


def _reduce(ctx: Context, group: Group) -> None:
    node = group.anchor
    assert node is not None
    a, x = attributes(node.op), node.inputs[0]
    shape = ctx.graph.types[x].shape
    if x in ctx.sums and not group.prologue and node.op.name == "sum" and a["axes"] == (2, 3) and a["keepdims"]:
        _reduce_sums(ctx, group)
        return
    prologue, values = ctx.expression(group.prologue, results=(x,)) if group.prologue else (Expr.identity(), [x])
    axes = tuple(a["axes"])
    epilogue, extra = ctx.expression(group.epilogue, first=(node.outputs[0],), results=group.results)
    out = ctx.result(group.results[0])
    kept = tuple(d for i, d in enumerate(shape) if i not in axes)

    def over_kept(view: View) -> View:
        """A view of the result's shape without the axes that keepdims left."""
        return view.only([i for i in range(len(shape)) if i not in axes]) if a["keepdims"] else view

    views = [ctx.view(v).broadcast(shape) for v in values]
    extras = [over_kept(ctx.view(v).broadcast(out.shape)) for v in extra]
    target = over_kept(out)
    assert target.shape == kept
    kernel = make_reduce(
        shape, axes, prologue, (node.op,), epilogue, [v.operand for v in views], [v.operand for v in extras],
        [target.operand], ctx.target,
    )  # fmt: skip
    ctx.call(kernel, [*views, *extras, target])


def _reduce_sums(ctx: Context, group: Group) -> None:
    """The sum over an image's pixels, from the sums of its parts that the kernel that made the image left."""
    node = group.anchor
    assert node is not None
    source, out = ctx.sums[node.inputs[0]], ctx.result(group.results[0])
    epilogue, extra = ctx.expression(group.epilogue, first=(node.outputs[0],), results=group.results)
    keep = [0, 1, len(out.shape) - 1]
    extras = [ctx.view(v).broadcast(out.shape).only(keep) for v in extra]
    target = out.only(keep)
    kernel = make_reduce(
        source.shape, (2,), Expr.identity(), (node.op,), epilogue, [source.operand], [v.operand for v in extras],
        [target.operand], ctx.target,
    )  # fmt: skip
    ctx.call(kernel, [source, *extras, target])


def _conv(ctx: Context, group: Group) -> None:
    if group.before is not None:
        (lower_expand if group.before.before is None else lower_chain)(ctx, group)
    elif group.prologue:
        lower_staged(ctx, group)
    elif is_depthwise(ctx, group):
        lower_depthwise(ctx, group)
    else:
        assert group.anchor is not None
        (lower_grouped if is_grouped(ctx.graph, group.anchor) else lower_conv)(ctx, group)


def _pool(ctx: Context, group: Group) -> None:
    (lower_pool if group.before is None else lower_conv_pool)(ctx, group)


def _pack(ctx: Context, group: Group) -> None:
    node = group.anchor
    assert node is not None
    x, out = ctx.view(node.inputs[0]), ctx.result(node.outputs[0])
    ctx.call(make_pack_channels(x.operand, out.operand, ctx.target), (x, out))


def _unpack(ctx: Context, group: Group) -> None:
    node = group.anchor
    assert node is not None
    x, out = ctx.view(node.inputs[0]), ctx.result(node.outputs[0])
    ctx.call(make_unpack_channels(x.operand, out.operand, ctx.target), (x, out))


def _concat(ctx: Context, group: Group) -> None:
    node = group.anchor
    assert node is not None
    axis, out = attributes(node.op)["axis"], ctx.result(node.outputs[0])
    at = 0
    for k, v in enumerate(node.inputs):
        if (node.outputs[0], k) in ctx.placed:
            at += ctx.graph.types[v].shape[axis]
            continue
        x = ctx.view(v)
        starts = tuple(at if i == axis else 0 for i in range(len(x.shape)))
        part = out.slice(starts, (1,) * len(x.shape), x.shape)
        ctx.call(make_copy(x.operand, part.operand, ctx.target), (x, part))
        at += x.shape[axis]


def _pad(ctx: Context, group: Group) -> None:
    node = group.anchor
    assert node is not None
    a = attributes(node.op)
    x, out = ctx.view(node.inputs[0]), ctx.result(node.outputs[0])
    before = tuple(lo for lo, _ in a["pads"])
    ctx.call(make_pad(x.operand, out.operand, before, a["mode"], a["value"], ctx.target), (x, out))


_RULES: dict[str, Callable[[Context, Group], None]] = {
    "mat_mul": lower_product,
    "attention": lower_attention,
    "conv": lower_plain_conv,
    **dict.fromkeys(("lstm", "lstm_general", "gru", "rnn"), lower_recurrent),
    **dict.fromkeys(("lstm_backward", "recurrent_backward"), lower_backward),
    "blocked_conv": _conv,
    "narrow_conv": lower_narrow_conv,
    "blocked_conv_transpose": lower_transposed,
    "blocked_conv_weight_gradient": lower_weight_gradient,
    "pack_channels": _pack,
    "unpack_channels": _unpack,
    "concat": _concat,
    **dict.fromkeys(INDEXING, lower_indexing),
    "slice_update_at": lower_update_at,
    **dict.fromkeys(("softmax", "log_softmax", "layer_norm", "rms_norm"), lower_row),
    **dict.fromkeys(("max_pool", "avg_pool", "lp_pool", "blocked_max_pool", "blocked_avg_pool"), _pool),
    **dict.fromkeys(("adaptive_avg_pool", "adaptive_max_pool"), lower_adaptive_pool),
    **dict.fromkeys(ALONG, lower_along),
    **dict.fromkeys(DETECTION, lower_detection),
    **dict.fromkeys(("resize", "blocked_resize"), lower_resize),
    "pad": _pad,
}
