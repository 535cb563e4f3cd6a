"""Operators that read and write at computed positions -> kernel calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.kernels.index import (
    make_gather,
    make_gather_nd,
    make_scatter_add,
    make_scatter_nd,
    make_slice_update,
    make_take,
)
from diptych.ops.base import attributes

if TYPE_CHECKING:
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["INDEXING", "lower_indexing"]

INDEXING = ("take", "gather", "gather_nd", "scatter_nd", "scatter_add", "slice_update")


def lower_indexing(ctx: Context, group: Group) -> None:
    """take, gather, gather_nd, scatter_nd, scatter_add, slice_update."""
    node = group.anchor
    assert node is not None
    a, name = attributes(node.op), node.op.name
    views = [ctx.view(v) for v in node.inputs]
    out = ctx.result(node.outputs[0])
    x, *rest = (v.operand for v in views)
    if name == "take":
        kernel = make_take(x, rest[0], a["axis"], a["mode"], out.operand, ctx.target)
    elif name == "gather":
        kernel = make_gather(x, rest[0], a["axis"], out.operand, ctx.target)
    elif name == "gather_nd":
        kernel = make_gather_nd(x, rest[0], out.operand, ctx.target)
    elif name == "scatter_nd":
        kernel = make_scatter_nd(x, rest[0], out.operand, ctx.target)
        views.reverse()  # the kernel reads the indices first
    elif name == "scatter_add":
        kernel = make_scatter_add(x, rest[0], rest[1], a["axis"], out.operand, ctx.target)
    else:
        kernel = make_slice_update(x, rest[0], a["starts"], a["steps"], out.operand, ctx.target)
    ctx.call(kernel, [*views, out])
