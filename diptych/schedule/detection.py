"""Operators of object detectors -> kernel calls."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from diptych.kernels.nms import NmsParams, make_box_nms
from diptych.kernels.pointwise import make_copy
from diptych.kernels.sampling import make_deformable_columns, make_grid_sample, make_roi_align, make_roi_pool
from diptych.ops.base import attributes

if TYPE_CHECKING:
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["DETECTION", "lower_detection"]

DETECTION = ("box_nms", "roi_align", "roi_pool", "grid_sample", "deformable_columns")


def lower_detection(ctx: Context, group: Group) -> None:
    """box_nms, roi_align, roi_pool, grid_sample, deformable_columns."""
    node = group.anchor
    assert node is not None
    a, name = attributes(node.op), node.op.name
    views, out = [ctx.view(v) for v in node.inputs], ctx.result(node.outputs[0])
    x, *rest = (v.operand for v in views)
    if name == "box_nms":
        shape = (prod(out.shape[:-2]), *out.shape[-2:])
        data = views[0].reshape(shape) or ctx.copy(views[0], node.name or name).reshape(shape)
        flat = out.reshape(shape)
        if flat is None:
            flat = ctx.temp(shape, out.dtype)
        assert data is not None
        ctx.call(make_box_nms(data.operand, flat.operand, NmsParams(**a), ctx.target), [data, flat])
        if flat.buffer != out.buffer:
            again = flat.reshape(out.shape)
            assert again is not None
            ctx.call(make_copy(again.operand, out.operand, ctx.target), (again, out))
        return
    if name == "grid_sample":
        kernel = make_grid_sample(x, rest[0], out.operand, a["align_corners"], ctx.target)
    elif name == "deformable_columns":
        kernel = make_deformable_columns(
            x, rest[0], rest[1] if len(rest) > 1 else None, out.operand, a["kernel"], a["strides"], a["pads"],
            a["dilations"], a["groups"], a["border"], ctx.target,
        )  # fmt: skip
    elif name == "roi_align":
        kernel = make_roi_align(x, rest[0], out.operand, a["scale"], a["samples_per_cell"], a["aligned"],
                                a["by_position"], ctx.target)  # fmt: skip
    else:
        kernel = make_roi_pool(x, rest[0], out.operand, a["scale"], ctx.target)
    ctx.call(kernel, [*views, out])
