"""Matrix products and blocked convolutions -> contraction kernels."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.ir.kernel import Expr, Kernel
from diptych.kernels.contract import PANEL, ContractParams, Side
from diptych.kernels.pointwise import make_copy
from diptych.kernels.pointwise_pack import make_pack_panels
from diptych.kernels.pointwise_pad import make_pad
from diptych.kernels.skinny import ROWS, choose_skinny
from diptych.kernels.skinny_zeros import zeros_scratch
from diptych.kernels.tiling import Tiling, alternatives, choose
from diptych.ops.base import OPS, attributes
from diptych.schedule.context import PART
from diptych.schedule.dilated import input_pads, lower_dilated, rectangles
from diptych.schedule.gate import scaled_weights
from diptych.schedule.groups import VIEWS
from diptych.schedule.options import pick, product_key
from diptych.schedule.views import View, contiguous
from diptych.schedule.weights import channel_rows, pack_conv_weights
from diptych.schedule.winograd import lower_winograd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diptych.ir import Array, Graph, Node
    from diptych.kernels.tiling import Tiling
    from diptych.schedule.context import Context
    from diptych.schedule.dilated import Rectangle
    from diptych.schedule.groups import Group
    from diptych.targets.base import Target

__all__ = ["direct_tilings", "emit_product", "lower_conv", "lower_matmul", "pack_matrix", "pack_weights"]

_ZEROS_DEPTH = 64  # from here on a row is worth looking for zeros
_KEEP_ZEROS = {*VIEWS, "pack_channels", "unpack_channels", "minimum", "max_pool", "blocked_max_pool"}
_FLOPS_PER_NS = 60.0  # a cautious core, for rough costs


def pack_weights(w: Array, out: Array) -> None:
    """w[..., O, K, taps] -> out[..., panels, packed], of zeros: per panel of 16 outputs [K block][tap][16 K][16 O], the K tail last."""
    *lead, o, k, taps = w.shape
    blocks, tail = divmod(k, PANEL)
    cut = blocks * taps * PANEL * PANEL
    n = len(lead)
    axes = tuple(range(n))
    for first, panels, lanes in ((0, o // PANEL, PANEL), (o // PANEL, 1, o % PANEL)):  # whole panels, then what is left
        if not panels or not lanes:
            continue
        part = w[..., first * PANEL : first * PANEL + panels * lanes, :, :].reshape(*lead, panels, lanes, k, taps)
        place = out[..., first : first + panels, :]
        if blocks:
            inner = part[..., : blocks * PANEL, :].reshape(*lead, panels, lanes, blocks, PANEL, taps)
            inner = inner.transpose(*axes, n, n + 2, n + 4, n + 3, n + 1)
            place[..., :cut].reshape(*lead, panels, blocks, taps, PANEL, PANEL)[..., :lanes] = inner
        if tail:
            rest = part[..., blocks * PANEL :, :].transpose(*axes, n, n + 3, n + 2, n + 1)
            place[..., cut:].reshape(*lead, panels, taps, tail, PANEL)[..., :lanes] = rest


def _epilogue(ctx: Context, group: Group, bias: bool) -> tuple[Expr, list[int]]:
    """The Expr after the sum (register 0), with the bias as register 1 when there is one, and its operand values."""
    assert group.anchor is not None
    anchor = group.anchor.outputs[0]
    expr, values = ctx.expression(group.epilogue, first=(anchor,), results=group.results)
    return (expr.with_operand(OPS["add"]()) if bias else expr), values


def _readable(ctx: Context, view: View, shape: tuple[int, ...], lane: int) -> View:
    """`view` over `shape`, copied if axis `lane` has a stride other than 0 and 1."""
    view = view.broadcast(shape)
    return view if view.strides[lane] in (0, 1) else ctx.copy(view, "epilogue operand")


def _merge(extents: list[int], strides: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """Merge neighbouring axes that every operand walks as one; `strides` is per operand."""
    dims: list[int] = []
    out: list[list[int]] = [[] for _ in strides]
    for i, d in enumerate(extents):
        if d == 1 and len(extents) > 1 and not (i == len(extents) - 1 and not dims):
            continue
        if dims and all(o[-1] == s[i] * d for o, s in zip(out, strides, strict=True)):
            dims[-1] *= d
            for o, s in zip(out, strides, strict=True):
                o[-1] = s[i]
        else:
            dims.append(d)
            for o, s in zip(out, strides, strict=True):
                o.append(s[i])
    return dims, out


def _tiling(ctx: Context, batch: int, pixels: int, panels: int, k: int, taps: int, skinny: bool = True) -> tuple[str, Tiling]:
    """The kind of kernel for a contraction, and its schedule."""
    if skinny and taps == 1:
        from_memory = ctx.constant_bytes > ctx.target.l3
        tiling = choose_skinny(ctx.target, batch=batch, pixels=pixels, panels=panels, k=k, memory=from_memory)
        if tiling is not None:
            return "skinny", tiling
    return "contract", choose(ctx.target, batch=batch, pixels=pixels, panels=panels, k=k, taps=taps)


def lower_matmul(ctx: Context, group: Group) -> None:
    """mat_mul with its epilogue: rows of a are pixels, columns of b are output channels."""
    node = group.anchor
    assert node is not None
    flags = attributes(node.op)
    a, out = ctx.view(node.inputs[0]), ctx.result(group.results[0])
    if flags["transpose_a"]:
        a = a.transpose((*range(len(a.shape) - 2), len(a.shape) - 1, len(a.shape) - 2))
    *batch, m, _ = out.shape
    a = a.broadcast((*batch, m, a.shape[-1]))
    value = node.inputs[1]
    b = ctx.constant(value)
    w, w_batch = pack_matrix(ctx, ctx.view(value) if b is None else b, flags["transpose_b"], tuple(batch))
    expr, values = _epilogue(ctx, group, bias=False)
    sparse = b is not None and _leaves_zeros(ctx, node.inputs[0]) and _finite(b)
    emit_product(ctx, a, w, w_batch, expr, [ctx.view(v) for v in values], out, sparse)


def _leaves_zeros(ctx: Context, value: int) -> bool:
    """Whether a value comes from a ReLU: one that is zero at every other place or so (after pooling, at some)."""
    while (node := ctx.producer.get(value)) is not None and node.op.name in _KEEP_ZEROS:
        value = node.inputs[0]
    return node is not None and node.op.name == "relu"


def _finite(w: Array) -> bool:
    """Whether no element is NaN or infinite (in one pass and without a second array: a sum of doubles shows it)."""
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(w.sum(dtype=np.float64)))


def emit_product(ctx: Context, a: View, w: View, w_batch: tuple[int, ...], expr: Expr, operands: Sequence[View],
                 out: View, sparse: bool = False) -> None:  # fmt: skip
    """out[..., m, n] = expr(a[..., m, k] times packed w, operands); operands broadcast to `out`.

    `sparse`: `a` is likely to hold zeros, and they need not be multiplied.
    """
    *batch, m, n = out.shape
    k = a.shape[-1]
    w_panel = k * PANEL
    views = [_readable(ctx, v, out.shape, -1) for v in operands]
    target = out if out.strides[-1] == 1 or n == 1 else ctx.temp(out.shape)
    if 0 in out.shape:
        return
    a = ctx.spread_rows(a, n)
    walks = [list(a.strides[:-1]), [*w_batch, 0], *(list(v.strides[:-1]) for v in views), list(target.strides[:-1])]
    dims, merged = _merge([*batch, m], walks)
    if merged[1][-1]:  # m is 1 and fell away: the last axis left is a batch axis, along which the weights change
        dims.append(1)
        for walk in merged:
            walk.append(0)
    cols, outer = dims[-1], tuple(dims[:-1])

    def side(walk: list[int], lane: int) -> Side:
        return Side(tuple(walk[:-1]), 0, walk[-1], PANEL * lane, lane)

    panels = -(-n // PANEL)
    kind, t = _tiling(ctx, prod(outer), cols, panels, k, 1)
    if kind == "contract":
        tilings = alternatives(ctx.target, batch=prod(outer), pixels=cols, panels=panels, k=k, taps=1)
        results = ctx.group.results if ctx.group is not None else ()
        t = pick(ctx, product_key((*outer, cols, n), k, ctx.group), {str(t): t for t in tilings}, results)
    sk, scratch = a.strides[-1], 0
    if kind == "skinny" and sparse and prod(outer) * cols == 1 and sk == 1 and k >= _ZEROS_DEPTH:
        kind, t, scratch = "skinny_zeros", replace(t, k_chunk=max(1, k // PANEL)), zeros_scratch(k)
    params = ContractParams(
        outer, 1, cols, n, k // PANEL, k % PANEL, (0,), side(merged[0], 0), PANEL * sk, sk, tuple(merged[1][:-1]),
        w_panel, side(merged[-1], 1), False, expr,
        tuple(side(m, v.strides[-1]) for m, v in zip(merged[2:-1], views, strict=True)),
        t.tiles, t.panels_per_tile, t.tiles_per_block, t.k_chunk, t.panel_outer, t.prefetch,
    )  # fmt: skip
    args = [a, w, *views, target]
    flops = 2.0 * prod(out.shape) * k
    cost = max(flops / _FLOPS_PER_NS, 4.0 * prod(w.shape) / 16)
    ctx.call(Kernel(kind, params, tuple(v.operand for v in args), 1, params.work, cost, scratch), args)
    if target is not out:
        ctx.call(make_copy(target.operand, out.operand, ctx.target), (target, out))


def pack_matrix(ctx: Context, b: View | Array, transposed: bool, batch: tuple[int, ...],
                ) -> tuple[View, tuple[int, ...]]:  # fmt: skip
    """Packed panels of b[..., k, n] ([..., n, k] if transposed): where they lie, their strides over the batch axes."""
    if not isinstance(b, View):
        b = b if transposed else np.swapaxes(b, -1, -2)  # [..., n, k]
        own, (n, k) = b.shape[:-2], b.shape[-2:]
        matrices = b[..., None]
        panels, at_once = -(-n // PANEL), max(1, PART // max(1, PANEL * k * b.itemsize))

        def fill(packed: Array) -> Iterator[None]:
            for first in range(0, panels, at_once):
                rows = matrices[..., first * PANEL : (first + at_once) * PANEL, :, :]
                pack_weights(rows, packed[..., first : first + at_once, :])
                yield

        view = ctx.packed((*own, panels, k * PANEL), fill)
    else:
        if transposed:
            b = b.transpose((*range(len(b.shape) - 2), len(b.shape) - 1, len(b.shape) - 2))
        own, (k, n) = b.shape[:-2], b.shape[-2:]
        view = ctx.temp((*own, -(-n // PANEL), k, PANEL))
        if not _batch_merges(b, own, view):
            b = ctx.copy(b, "matrix operand")
        ctx.call(make_pack_panels(b.operand, view.operand, ctx.target), (b, view), fused=("pack",))
    strides = contiguous((*own, -(-n // PANEL) * k * PANEL))[:-1]
    lead = len(batch) - len(own)
    over = tuple(0 if own[i] == 1 else strides[i] for i in range(len(own)))
    return view, (0,) * lead + over


def _batch_merges(view: View, own: tuple[int, ...], packed: View) -> bool:
    """Whether the batch axes of a matrix walk as one axis."""
    dims, _ = _merge(list(own) or [1], [list(view.strides[:-2]) or [0], list(packed.strides[: len(own)]) or [0]])
    return len(dims) <= 1


def lower_conv(ctx: Context, group: Group) -> None:
    """blocked_conv with its epilogue, as a direct convolution over a padded input."""
    node = group.anchor
    assert node is not None
    at = attributes(node.op)
    w = ctx.constant(node.inputs[1])
    groups, plain = at["groups"], at["plain_input"]
    x, out = ctx.view(group.gate[0] if group.gate else node.inputs[0]), ctx.result(group.results[0])
    o, c, *kernel = ctx.graph.types[node.inputs[1]].shape
    winograd = ctx.winograd.get(node.outputs[0])
    parts = () if winograd else rectangles(ctx.graph, node)
    pads = input_pads(ctx.graph, node, winograd) if winograd else at["pads"]
    if not parts and any(p != (0, 0) for p in pads):
        x = pad_spatial(ctx, x, pads, plain, ctx.halos.get(node.inputs[0]))
    xs = x.strides[2 : 2 + len(kernel)]
    step = [s * stride for s, stride in zip(xs, at["strides"], strict=True)]
    reach = [s * d for s, d in zip(xs, at["dilations"], strict=True)]
    taps = tuple(sum(i * r for i, r in zip(where, reach, strict=True)) for where in product(*map(range, kernel)))
    n, panels_all, *spatial, _ = out.shape
    panels = panels_all // groups
    has_bias = len(node.inputs) > 2
    expr, values = _epilogue(ctx, group, has_bias)
    views = [_readable(ctx, ctx.view(v), out.shape, -1) for v in values]
    sides = [_conv_side(v, panels) for v in views]
    outer = spatial[:-2]  # the last two spatial axes are the pixels of a tile; any before them are like a batch
    if has_bias:
        views.insert(0, channel_rows(ctx, node.inputs[2], panels_all))
        sides.insert(0, Side((0, panels * PANEL, *(0 for _ in outer)), 0, 0, PANEL, 1))
    if winograd is not None and w is not None and at["dilations"] != (1, 1):
        lower_dilated(ctx, at["dilations"], x, w, winograd, out, expr, views, int(has_bias), lambda v: _conv_side(v, panels), sides)
        return
    if winograd is not None:
        lower_winograd(ctx, x, ctx.view(node.inputs[1]) if w is None else w, winograd, out, expr, views, sides, _conv_side(out, panels))
        return
    per_panel = c * len(taps) * PANEL
    if w is None:
        weights = pack_conv_weights(ctx, ctx.view(node.inputs[1]), groups)
    else:
        array = w.reshape(groups, o // groups, c, len(taps))
        weights = ctx.packed((groups, panels, per_panel), lambda out: pack_weights(array, out))
    w_image = 0  # the weights are the same for all images of a batch
    if group.gate:
        weights, w_image = scaled_weights(ctx, weights, ctx.view(group.gate[1]), c), panels * per_panel
    per_group = 0 if groups == 1 else c // PANEL * x.strides[1]
    row = step[-2] if len(step) > 1 else 0
    x_side = Side((x.strides[0], per_group, *step[:-2]), row, step[-1], 0)
    rows, cols = spatial[-2] if len(spatial) > 1 else 1, spatial[-1]
    x_block, x_k = (0, x.strides[1]) if plain else (x.strides[1], x.strides[-1])
    if parts:
        for part in parts:
            _rectangle(ctx, node, part, x, weights, views, sides, out, expr)
        return
    linear = plain or x_block == PANEL * x_k  # the depth is walked in even steps
    kind, t = _tiling(ctx, n * groups * prod(outer), rows * cols, panels, c, len(taps), skinny=linear)
    if kind == "contract":
        t = ctx.tilings.get(node.outputs[0], t)
    blocks, tail = (0, c) if plain else divmod(c, PANEL)
    params = ContractParams(
        (n, groups, *outer), rows, cols, panels * PANEL, blocks, tail, taps, x_side, x_block, x_k,
        (w_image, panels * per_panel, *(0 for _ in outer)), per_panel, _conv_side(out, panels), True, expr,
        tuple(sides), t.tiles, t.panels_per_tile, t.tiles_per_block, t.k_chunk, t.panel_outer, t.prefetch,
    )  # fmt: skip
    args = [x, weights, *views, out]
    cost = 2.0 * prod(out.shape) * c * len(taps) / _FLOPS_PER_NS
    ctx.call(Kernel(kind, params, tuple(v.operand for v in args), 1, params.work, cost), args)


def _rectangle(ctx: Context, node: Node, part: Rectangle, x: View, weights: View, views: list[View], sides: list[Side],
               out: View, expr: Expr) -> None:  # fmt: skip
    """The outputs of a rectangle, over the taps that lie in the image; x is not padded. Views without pixels keep their sides."""
    a = attributes(node.op)
    c, *kernel = ctx.graph.types[node.inputs[1]].shape[1:]
    (rows, cols), groups, n = part.shape, a["groups"], out.shape[0]
    panels = out.shape[1] // groups

    def window(view: View) -> View:
        return view.slice((0, 0, *part.at, 0), (1,) * 5, (*view.shape[:2], rows, cols, PANEL))

    windows = [window(v) if len(v.shape) == len(out.shape) else v for v in views]
    sides = [_conv_side(v, panels) if len(v.shape) == len(out.shape) else s for v, s in zip(windows, sides, strict=True)]
    y = window(out)
    first = [o * s - lo + t * d for o, s, (lo, _), t, d in zip(part.at, a["strides"], a["pads"], part.taps[0], a["dilations"], strict=True)]
    source = x.slice((0, 0, *first, 0), (1,) * 5, (*x.shape[:2], *(d - f for d, f in zip(x.shape[2:4], first, strict=True)), PANEL))
    xs = x.strides[2:4]
    reach = [s * d for s, d in zip(xs, a["dilations"], strict=True)]
    taps = tuple(sum((t - t0) * r for t, t0, r in zip(tap, part.taps[0], reach, strict=True)) for tap in part.taps)
    row, col = (s * t for s, t in zip(xs, a["strides"], strict=True))
    per_panel = weights.shape[2]
    t = choose(ctx.target, batch=n * groups, pixels=rows * cols, panels=panels, k=c, taps=len(taps))
    every = len(taps) == prod(kernel)
    picked = () if every else tuple(i * kernel[1] + j for i, j in part.taps)
    params = ContractParams(
        (n, groups), rows, cols, panels * PANEL, c // PANEL, c % PANEL, taps,
        Side((x.strides[0], 0 if groups == 1 else c // PANEL * x.strides[1]), row, col, 0), x.strides[1], x.strides[-1],
        (0, panels * per_panel), per_panel, _conv_side(y, panels), True, expr, tuple(sides),
        t.tiles, t.panels_per_tile, t.tiles_per_block, t.k_chunk, t.panel_outer, t.prefetch and every, picked, prod(kernel),
    )  # fmt: skip
    args = [source, weights, *windows, y]
    cost = 2.0 * prod(y.shape) * c * len(taps) / _FLOPS_PER_NS
    ctx.call(Kernel("contract", params, tuple(v.operand for v in args), 1, params.work, cost), args)


def direct_tilings(graph: Graph, node: Node, target: Target) -> tuple[Tiling, ...]:
    """Tilings of a blocked_conv by direct sums, the default first; just that where the kernel for few rows may take it."""
    w, groups = graph.types[node.inputs[1]].shape, attributes(node.op)["groups"]
    n, panels, *spatial, _ = graph.types[node.outputs[0]].shape
    outer, pixels = prod(spatial[:-2]), prod(spatial[-2:])
    found = alternatives(target, batch=n * groups * outer, pixels=pixels, panels=panels // groups, k=w[1], taps=prod(w[2:]))
    return found[:1] if pixels <= ROWS and prod(w[2:]) == 1 else found


def _conv_side(view: View, panels: int) -> Side:
    n, block, *spatial, lane = view.strides
    row = spatial[-2] if len(spatial) > 1 else 0
    return Side((n, panels * block, *spatial[:-2]), row, spatial[-1], block, lane)


def pad_spatial(ctx: Context, x: View, pads: Sequence[tuple[int, int]], plain: bool,
                halo: Sequence[tuple[int, int]] | None = None) -> View:  # fmt: skip
    """x with zeros around its two spatial axes (blocked: axes 2 and 3 of 5): a view if it has them already."""
    if halo is not None and all(p[0] <= h[0] and p[1] <= h[1] for p, h in zip(pads, halo, strict=True)):
        n, blocks, *spatial, lanes = x.shape
        shape = (n, blocks, *(d + lo + hi for d, (lo, hi) in zip(spatial, pads, strict=True)), lanes)
        before = sum(lo * s for (lo, _), s in zip(pads, x.strides[2:-1], strict=True))
        return View(x.buffer, x.offset - before, shape, x.strides, x.dtype)
    spread = ((0, 0), (0, 0), *pads) if plain else ((0, 0), (0, 0), *pads, (0, 0))
    shape = tuple(d + lo + hi for d, (lo, hi) in zip(x.shape, spread, strict=True))
    out = ctx.temp(shape, x.dtype)
    kernel = make_pad(x.operand, out.operand, tuple(lo for lo, _ in spread), "constant", 0.0, ctx.target)
    ctx.call(kernel, (x, out), fused=("pad",))
    return out
