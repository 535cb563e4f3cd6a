"""Row operators (softmax, normalisations) and pooling -> kernel calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.ir.kernel import Expr
from diptych.kernels.pool import make_adaptive_pool, make_pool
from diptych.kernels.rows import make_layer_norm, make_log_softmax, make_rms_norm, make_softmax
from diptych.ops.base import attributes
from diptych.schedule.norm_sums import lower_norm_sums

if TYPE_CHECKING:
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["lower_adaptive_pool", "lower_pool", "lower_row"]


def lower_row(ctx: Context, group: Group) -> None:
    """softmax, log_softmax, layer_norm, rms_norm, with what is fused before and after."""
    node = group.anchor
    assert node is not None
    if group.for_products is not None:
        lower_norm_sums(ctx, group, group.for_products)
        return
    a, x, name = attributes(node.op), node.inputs[0], node.op.name
    shape = ctx.graph.types[x].shape
    # rms_norm has no axis: it normalises as many axes as its scale has
    axis = a["axis"] % len(shape) if "axis" in a else len(shape) - len(ctx.graph.types[node.inputs[1]].shape)
    axes = (axis,) if "softmax" in name else tuple(range(axis, len(shape)))
    prologue, values = ctx.expression(group.prologue, results=(x,)) if group.prologue else (Expr.identity(), [x])
    epilogue, extra = ctx.expression(group.epilogue, first=(node.outputs[0],), results=group.results)
    out = ctx.result(group.results[0])
    inputs = [ctx.view(v).broadcast(shape) for v in values]
    affine = [ctx.view(v).broadcast(shape) for v in node.inputs[1:]]
    extras = [ctx.view(v).broadcast(shape) for v in extra]
    ins, outs, more = [v.operand for v in inputs], [out.operand], [v.operand for v in extras]
    scales = [v.operand for v in affine]
    if name == "softmax":
        kernel = make_softmax(shape, axes, ins, outs, ctx.target, prologue=prologue, epilogue=epilogue, extras=more)
    elif name == "log_softmax":
        kernel = make_log_softmax(shape, axes, ins, outs, ctx.target, prologue=prologue, epilogue=epilogue, extras=more)
    else:
        make = make_layer_norm if name == "layer_norm" else make_rms_norm
        kernel = make(shape, axes, ins, scales, outs, a["eps"], ctx.target, prologue=prologue, epilogue=epilogue,
                      extras=more)  # fmt: skip
    ctx.call(kernel, [*inputs, *affine, *extras, out])


def lower_pool(ctx: Context, group: Group) -> None:
    """max_pool, avg_pool, lp_pool and their blocked forms."""
    node = group.anchor
    assert node is not None
    a, name = attributes(node.op), node.op.name
    x, out = ctx.view(node.inputs[0]), ctx.result(group.results[0])
    epilogue, extra = ctx.expression(group.epilogue, first=(node.outputs[0],), results=group.results)
    extras = [ctx.view(v).broadcast(out.shape) for v in extra]
    kind = next(k for k in ("max", "avg", "lp") if f"{k}_pool" in name)
    kernel = make_pool(
        kind, a["kernel"], a["strides"], a["pads"], a.get("dilations", ()), x.operand, out.operand, ctx.target,
        include_pad=a.get("count_include_pad", True), power=a.get("p", 2.0), blocked=name.startswith("blocked"),
        epilogue=epilogue, extras=[v.operand for v in extras],
    )  # fmt: skip
    ctx.call(kernel, [x, *extras, out])


def lower_adaptive_pool(ctx: Context, group: Group) -> None:
    """adaptive_avg_pool and adaptive_max_pool."""
    node = group.anchor
    assert node is not None
    x, out = ctx.view(node.inputs[0]), ctx.result(group.results[0])
    kind = "max" if "max" in node.op.name else "avg"
    ctx.call(make_adaptive_pool(kind, x.operand, out.operand, ctx.target), [x, out])
