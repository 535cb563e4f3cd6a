"""Products without a crafted kernel: other dtypes than f32, convolutions whose weights arrive at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.kernels.naive import make_naive_conv, make_naive_matmul
from diptych.ops.base import attributes
from diptych.schedule.contraction import lower_matmul, pad_spatial
from diptych.schedule.strassen import lower_strassen

if TYPE_CHECKING:
    from diptych.ir import Array
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group
    from diptych.schedule.views import View

__all__ = ["emit_naive_product", "lower_plain_conv", "lower_product"]


def lower_product(ctx: Context, group: Group) -> None:
    """mat_mul: f32 as a contraction, other dtypes the simple way."""
    node = group.anchor
    assert node is not None
    flags = attributes(node.op)
    if ctx.graph.types[node.outputs[0]].dtype == "f32":
        w = ctx.constant(node.inputs[1])
        if w is None or w.ndim != 2 or flags["transpose_a"] or not _fewer_products(ctx, group, w, flags["transpose_b"]):
            lower_matmul(ctx, group)
        return
    a, b = (ctx.view(v) for v in node.inputs)
    if flags["transpose_a"]:
        a = _swapped(a)
    if flags["transpose_b"]:
        b = _swapped(b)
    emit_naive_product(ctx, a, b, ctx.result(node.outputs[0]))


def _fewer_products(ctx: Context, group: Group, w: Array, transposed: bool) -> bool:
    assert group.anchor is not None
    expr, values = ctx.expression(group.epilogue, first=group.anchor.outputs, results=group.results)
    source = group.anchor.inputs[0]
    a, out = ctx.row_sums.get(source) or ctx.view(source), ctx.result(group.results[0])
    return lower_strassen(ctx, a, w.T if transposed else w, expr, [ctx.view(v) for v in values], out)


def _swapped(view: View) -> View:
    rank = len(view.shape)
    return view.transpose((*range(rank - 2), rank - 1, rank - 2))


def emit_naive_product(ctx: Context, a: View, b: View, out: View) -> None:
    """out = a @ b, batch axes broadcast."""
    *batch, m, n = out.shape
    k = a.shape[-1]
    if n > 1 and b.strides[-1] != 1:  # vectors run along n
        b = ctx.copy(b, "matrix operand")
    a, b = a.broadcast((*batch, m, k)), b.broadcast((*batch, k, n))
    ctx.call(make_naive_matmul(a.operand, b.operand, out.operand, ctx.target), (a, b, out))


def lower_plain_conv(ctx: Context, group: Group) -> None:
    """conv that the layout pass left alone."""
    node = group.anchor
    assert node is not None
    at = attributes(node.op)
    x, w, *bias = (ctx.view(v) for v in node.inputs)
    out = ctx.result(node.outputs[0])
    if 0 in out.shape:
        return
    if any(p != (0, 0) for p in at["pads"]):
        x = pad_spatial(ctx, x, at["pads"], plain=True)
    kernel = make_naive_conv(
        x.operand, w.operand, [b.operand for b in bias], out.operand, at["strides"], at["dilations"], at["groups"],
        ctx.target,
    )  # fmt: skip
    ctx.call(kernel, (x, w, *bias, out))
