"""Operators along one axis (scans, extrema, sorting) and resampling -> kernel calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.errors import TypeRuleError
from diptych.kernels.resize import make_resize
from diptych.kernels.scan import make_arg_extremum, make_scan
from diptych.kernels.sorting import make_sort, make_topk
from diptych.ops.base import attributes
from diptych.ops.blocked import BlockedResize
from diptych.ops.resize import Resize
from diptych.schedule.views import View

if TYPE_CHECKING:
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["ALONG", "lower_along", "lower_resize"]

_SCANS = {"cum_sum": "cumsum", "cum_prod": "cumprod"}
_EXTREMA = {"arg_max": "argmax", "arg_min": "argmin"}
ALONG = (*_SCANS, *_EXTREMA, "sort", "top_k")


def lower_along(ctx: Context, group: Group) -> None:
    """cum_sum, cum_prod, arg_max, arg_min, sort, top_k."""
    node = group.anchor
    assert node is not None
    a, name = attributes(node.op), node.op.name
    x = ctx.view(node.inputs[0])
    axis = a["axis"] % len(x.shape) if x.shape else 0
    outs = [ctx.result(v) for v in node.outputs]
    if name in _SCANS:
        ctx.call(make_scan(_SCANS[name], x.operand, axis, outs[0].operand, ctx.target), [x, outs[0]])
    elif name in _EXTREMA:
        out = outs[0]
        strides = out.strides if a["keepdims"] else (*out.strides[:axis], 0, *out.strides[axis:])
        spread = View(out.buffer, out.offset, x.shape, strides, out.dtype)
        ctx.call(make_arg_extremum(_EXTREMA[name], x.operand, axis, spread.operand, ctx.target), [x, out])
    elif name == "sort":
        kernel = make_sort(x.operand, axis, a["descending"], outs[0].operand, outs[1].operand, ctx.target)
        ctx.call(kernel, [x, *outs])
    else:
        kernel = make_topk(x.operand, axis, a["k"], a["largest"], outs[0].operand, outs[1].operand, ctx.target)
        ctx.call(kernel, [x, *outs])


def lower_resize(ctx: Context, group: Group) -> None:
    """resize and its blocked form, with their tables of taps written into the module."""
    node = group.anchor
    assert node is not None
    op = node.op
    blocked = isinstance(op, BlockedResize)
    plain = op.plain() if isinstance(op, BlockedResize) else op
    if not isinstance(plain, Resize):
        raise TypeRuleError(f"{op.name} is not a resampling operator")
    x, out = ctx.view(node.inputs[0]), ctx.result(group.results[0])
    epilogue, extra = ctx.expression(group.epilogue, first=(node.outputs[0],), results=group.results)
    extras = [ctx.view(v).broadcast(out.shape) for v in extra]
    taps = [
        tuple((tuple(map(int, i)), tuple(map(float, w))) for i, w in zip(index, weight, strict=True))
        for index, weight in plain.taps(x.shape[:-1] if blocked else x.shape)
    ]
    kernel = make_resize(x.operand, out.operand, taps, ctx.target, blocked=blocked, epilogue=epilogue,
                         extras=[v.operand for v in extras])  # fmt: skip
    ctx.call(kernel, [x, *extras, out])
