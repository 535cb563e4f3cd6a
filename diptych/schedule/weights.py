"""Weights that arrive at run time (in training they are operands like any other): packed by a step of the program."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.kernels.contract import PANEL
from diptych.kernels.pointwise_pack import make_pack_channels, make_unpack_channels
from diptych.schedule.views import View, contiguous

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diptych.schedule.context import Context

__all__ = ["channel_rows", "depthwise_weights", "pack_conv_weights", "packed_size", "unpack_conv_weights"]


def packed_size(shape: tuple[int, ...], groups: int) -> tuple[int, int, int]:
    """(groups, panels, elements of a panel) of weights [O, C, *K] as `pack_weights` lays them out."""
    o, c, *kernel = shape
    return groups, -(-o // groups // PANEL), c * prod(kernel) * PANEL


def _parts(w: View, packed: View, groups: int, whole: bool) -> Iterator[tuple[View, View]]:
    """(plain, blocked) views of whole blocks of input channels, then of those left over.

    `whole`: the packed form has room for whole blocks only ([block][tap][16][16] to the end).
    """
    o, c, *kernel = w.shape
    blocks, tail = divmod(c, PANEL)
    so, sc, *sk = w.strides
    taps = prod(kernel)
    per_group = o // groups
    panels, per_panel = packed.shape[1:]
    for start, count, inner in ((0, blocks, PANEL), (blocks, 1, tail)):
        if not count or not inner:
            continue
        depth = PANEL if whole else inner
        plain = View(w.buffer, w.offset + start * PANEL * sc, (groups, per_group, count, inner, *kernel),
                     (per_group * so, so, PANEL * sc, sc, *sk), w.dtype)  # fmt: skip
        steps = tuple(depth * PANEL * s for s in contiguous(tuple(kernel)))
        blocked = View(packed.buffer, packed.offset + start * taps * PANEL * PANEL, (groups, panels, count, inner, *kernel, PANEL),
                       (panels * per_panel, per_panel, taps * PANEL * PANEL, PANEL, *steps, 1), w.dtype)  # fmt: skip
        yield plain, blocked


def pack_conv_weights(ctx: Context, w: View, groups: int, out: View | None = None) -> View:
    """w[O, C, *K] (any strides) as [groups, panels, packed]: what `pack_weights` makes of a constant."""
    out = out or ctx.temp(packed_size(w.shape, groups))
    for plain, blocked in _parts(w, out, groups, whole=False):
        ctx.call(make_pack_channels(plain.operand, blocked.operand, ctx.target), (plain, blocked), fused=("pack",))
    return out


def unpack_conv_weights(ctx: Context, packed: View, w: View, groups: int) -> None:
    """The way back, from [groups, panels, blocks * taps * 16 * 16]."""
    for plain, blocked in _parts(w, packed, groups, whole=True):
        ctx.call(make_unpack_channels(blocked.operand, plain.operand, ctx.target), (blocked, plain), fused=("unpack",))


def depthwise_weights(ctx: Context, w: View) -> View:
    """w[C, *K] as [blocks, *K, 16]."""
    c, *kernel = w.shape
    out = ctx.temp((-(-c // PANEL), *kernel, PANEL))
    plain = View(w.buffer, w.offset, (1, *w.shape), (0, *w.strides), w.dtype)
    blocked = View(out.buffer, 0, (1, *out.shape), (0, *out.strides), w.dtype)
    ctx.call(make_pack_channels(plain.operand, blocked.operand, ctx.target), (plain, blocked), fused=("pack",))
    return out


def channel_rows(ctx: Context, value: int, rows: int) -> View:
    """A value [channels] (a bias) as [rows, 16], constant or not; past the last channel there is anything finite."""
    array = ctx.constant(value)
    if array is not None:
        padded = np.zeros(rows * PANEL, np.float32)
        padded[: array.size] = array
        return ctx.weights(padded.reshape(rows, PANEL))
    view = ctx.view(value)
    if view.shape[0] == rows * PANEL and view.strides[0] == 1:
        return View(view.buffer, view.offset, (rows, PANEL), (PANEL, 1), view.dtype)
    return depthwise_weights(ctx, view)
