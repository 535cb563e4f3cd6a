"""Gradients of convolution weights on channel blocks -> kernel calls."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from diptych.kernels.contract import PANEL
from diptych.kernels.pointwise_pack import make_unpack_channels
from diptych.kernels.weight_gradient import make_depthwise_gradient, make_weight_gradient
from diptych.ops.base import attributes
from diptych.schedule.contraction import pad_spatial
from diptych.schedule.views import View
from diptych.schedule.weights import unpack_conv_weights

if TYPE_CHECKING:
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["lower_weight_gradient"]


def lower_weight_gradient(ctx: Context, group: Group) -> None:
    """blocked_conv_weight_gradient: over a padded input, into packed weights, which are then unpacked."""
    node = group.anchor
    assert node is not None
    at = attributes(node.op)
    kernel, plain = at["kernel"], at["plain_input"]
    x, dy, out = ctx.view(node.inputs[0]), ctx.view(node.inputs[1]), ctx.result(node.outputs[0])
    if any(p != (0, 0) for p in at["pads"]):
        x = pad_spatial(ctx, x, at["pads"], plain, ctx.halos.get(node.inputs[0]))
    if dy.strides[-1] != 1 or dy.strides[-2] != PANEL:
        dy = ctx.copy(dy, "gradient")
    xs = x.strides[2 : 2 + len(kernel)]
    step = [s * k for s, k in zip(xs, at["strides"], strict=True)]
    reach = [s * d for s, d in zip(xs, at["dilations"], strict=True)]
    where = {"x_lines": (x.strides[0], *step[:-1]), "x_step": step[-1], "target": ctx.target}

    def offsets(sizes: tuple[int, ...], steps: list[int]) -> list[int]:
        return [sum(i * r for i, r in zip(place, steps, strict=True)) for place in product(*map(range, sizes))]

    o, c = out.shape[:2]
    groups = at["groups"]
    if groups > 1 and c == 1 and groups == o:
        taps = offsets(kernel, reach)
        packed = ctx.temp((dy.shape[1], len(taps), PANEL))
        ctx.call(make_depthwise_gradient(x.operand, dy.operand, packed.operand, taps=taps, **where), (x, dy, packed))
        blocked = View(packed.buffer, 0, (1, dy.shape[1], *kernel, PANEL), (0, len(taps) * PANEL, *_dense(kernel), 1), "f32")
        target = View(out.buffer, out.offset, (1, o, *kernel), (0, out.strides[0], *out.strides[2:]), "f32")
        ctx.call(make_unpack_channels(blocked.operand, target.operand, ctx.target), (blocked, target), fused=("unpack",))
        return
    panels = dy.shape[1] // groups
    if plain:  # the taps of the last axis and the channels are elements of register tiles
        taps, elements = offsets(kernel[:-1], reach[:-1]), offsets((kernel[-1], c), [reach[-1], x.strides[1]])
        blocks, x_block = 1, 0
    else:
        taps, elements = offsets(kernel, reach), list(range(PANEL))
        blocks, x_block = x.shape[1] // groups, x.strides[1]
    packed = ctx.temp((groups, panels, blocks, len(taps), len(elements), PANEL))
    made = make_weight_gradient(x.operand, dy.operand, packed.operand, groups=groups, taps=taps, elements=elements,
                                x_block=x_block, **where)  # fmt: skip
    ctx.call(made, (x, dy, packed))
    if plain:  # [panel][taps but the last axis][last axis][channel][16]
        blocked = View(packed.buffer, 0, (1, panels, c, *kernel, PANEL),
                       (0, packed.strides[1], PANEL, *(c * s for s in _dense(kernel)), 1), "f32")  # fmt: skip
        target = View(out.buffer, out.offset, (1, *out.shape), (0, *out.strides), "f32")
        ctx.call(make_unpack_channels(blocked.operand, target.operand, ctx.target), (blocked, target), fused=("unpack",))
        return
    flat = View(packed.buffer, 0, (groups, panels, packed.strides[1]), (packed.strides[0], packed.strides[1], 1), "f32")
    unpack_conv_weights(ctx, flat, out, groups)


def _dense(kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of taps that follow one another, 16 elements each."""
    steps, step = [], PANEL
    for k in reversed(kernel):
        steps.append(step)
        step *= k
    return tuple(reversed(steps))
