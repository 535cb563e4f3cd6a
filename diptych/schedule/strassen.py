"""Which products by constant weights take Strassen's scheme, and how they are lowered."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.ir.kernel import Expr
from diptych.kernels.strassen import PRODUCTS, StrassenParams, make_strassen
from diptych.kernels.strassen_rows import make_strassen_rows
from diptych.kernels.tile import PANEL
from diptych.kernels.tiling import pixel_tiles
from diptych.ops.base import OPS
from diptych.schedule.context import PART, RowSums
from diptych.schedule.options import pick, product_key
from diptych.schedule.views import View

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diptych.ir import Array
    from diptych.schedule.context import Context
    from diptych.targets.base import Target

__all__ = ["empty_sums", "lower_strassen", "pack_strassen", "strassen_shape"]

_ROWS, _COLUMNS, _DEPTH = 48, 192, 96  # smaller products gain less than the sums cost
_HALF = 128  # longest stretch: its sums are rounded like a chain of that many additions
_SPILLS = {16: (11,)}  # lanes -> widths of tiles that LLVM does not keep in registers at every depth (seen by the tests)
_SUMS_OF_L3 = 4  # the rows' sums may be a quarter of the last level
_PASS = 1024  # depth whose weights (7/4 of the usual) stay in L2 beside the rows


def strassen_shape(shape: Sequence[int], w: Sequence[int], strict: bool) -> tuple[int, int, int] | None:
    """(batch, rows, half stretch) of a product [..., m, n] by weights [k, n] that goes this way; None for the usual one."""
    *lead, m, n = shape
    half = _half(w[0])
    if strict or not half or n < _COLUMNS or w[0] < _DEPTH or 0 in shape:
        return None
    # Pairs of rows stay within an entry of the batch, where its rows are many and do not pair up evenly.
    batch = lead[0] if lead and lead[0] > 1 and prod(lead[1:]) * m % 2 and prod(lead[1:]) * m >= 128 else 1
    rows = prod(lead) * m // batch
    return (batch, rows, half) if rows >= _ROWS else None


def lower_strassen(ctx: Context, a: View | RowSums, w: Array, expr: Expr, operands: Sequence[View], out: View) -> bool:
    """out[..., m, n] = expr(a[..., m, k] w[k, n], operands) with seven eighths of the multiplications, or False when the
    usual way is the faster or the only one. What a kernel before has made of the rows already comes as RowSums."""
    depth, n = w.shape
    way = strassen_shape(out.shape, w.shape, ctx.strict)
    if way is None:
        return False
    # What exists as sums only has no other way; elsewhere tuning may ask for the plain one.
    results = ctx.group.results if ctx.group is not None else ()
    ways = {"Strassen": True, "plain": False}
    if isinstance(a, View) and not pick(ctx, product_key(out.shape, depth, ctx.group, "scheme of"), ways, results):
        return False
    batch, rows, half = way
    target = out.reshape((batch, rows, n)) if out.strides[-1] == 1 else None
    if target is None or target.strides[-1] != 1:
        if isinstance(a, View):
            return False
        target = ctx.temp((batch, rows, n))
    sides = [_side(ctx, v, out.shape, (batch, rows, n)) for v in operands]
    if isinstance(a, View):
        x = a.reshape((batch, rows, depth))
        if x is None or x.strides[-1] != 1:
            copied = ctx.copy(a, "matrix operand").reshape((batch, rows, depth))
            assert copied is not None
            x = copied
        parts = _parts(ctx.target, batch * rows, depth, half)
        part = depth // parts
        to = target
        for at in range(0, depth, part):  # each adds what the one before has left
            is_last = at == depth - part
            way_out, others = (expr, sides) if is_last else (Expr.identity(), [])
            if at:
                way_out, others = way_out.with_operand(OPS["add"]()), [to, *others]
            to = target if is_last else ctx.temp((batch, rows, n))
            _product(ctx, _sums(ctx, _depths(x, at, part), half), w[at : at + part], half, way_out, others, to)
    else:
        _product(ctx, a, w, half, expr, sides, target)
    if target.buffer != out.buffer:
        again = target.reshape(out.shape)
        assert again is not None
        ctx.copy_to(again, out)
    return True


def _parts(target: Target, rows: int, depth: int, half: int) -> int:
    """In how many parts of the depth a product is made. Every group of columns reads the rows' sums; where these are too
    large to stay in the last level of cache beside the weights, those of a part do. A part is one pass."""
    if 4 * len(PRODUCTS) * rows * depth // 4 <= target.l3 // _SUMS_OF_L3:
        return 1
    stretches = depth // (2 * half)
    return next(d for d in range(1, stretches + 1) if stretches % d == 0 and depth // d <= _PASS)


def _depths(x: View, first: int, count: int) -> View:
    """Part of the last axis of [batch, rows, depth]."""
    return x if count == x.shape[-1] else x.slice((0, 0, first), (1, 1, 1), (*x.shape[:-1], count))


def _product(ctx: Context, a: RowSums, w: Array, half: int, expr: Expr, sides: Sequence[View], out: View) -> None:
    """out[batch, rows, n] = expr(rows times w[k, n], sides) for the rows whose sums `a` is."""
    (batch, rows, n), depth = out.shape, w.shape[0]
    columns = _column_scales(w)
    params = _params(ctx.target, ctx.threads, batch, rows, n, depth, half, expr, columns is not None)
    shape = (params.panel_pairs, depth // (2 * half) * len(PRODUCTS) * half * PANEL)
    group = params.pairs_per_tile
    at_once = group * max(1, PART // (depth * group * 2 * PANEL * w.itemsize))

    def fill(packed: Array) -> Iterator[None]:
        for first in range(0, params.panel_pairs, at_once):
            part = slice(first * 2 * PANEL, (first + at_once) * 2 * PANEL)
            scales = None if columns is None else columns[part]
            pack_strassen(w[:, part], half, group, scales, packed[first : first + at_once])
            yield

    weights = ctx.packed(shape, fill)
    args = [a.sums, weights, a.scales]
    if columns is not None:
        args.append(ctx.weights((1 / columns).astype(np.float32)))
    args += [*sides, out]
    ctx.call(make_strassen(params, [v.operand for v in args], ctx.target.lanes(4)), args)


def _half(depth: int) -> int:
    """The longest half stretch that cuts the depth evenly; 0 if none does."""
    for half in range(_HALF, 47, -PANEL):
        if depth % (2 * half) == 0:
            return half
    return 0


def _params(target: Target, threads: int, batch: int, rows: int, n: int, depth: int, half: int, expr: Expr,
            scaled_columns: bool) -> StrassenParams:  # fmt: skip
    per_panel = PANEL // min(PANEL, target.lanes(4))
    pairs = 2 if per_panel == 1 and n > 2 * PANEL else 1
    most = max(1, (target.registers - per_panel * pairs - 1) // (per_panel * pairs))
    tiles = pixel_tiles(-(-rows // 2), min(most, 28), per_panel * pairs, _SPILLS.get(target.lanes(4), ()))
    count = sum(c for _, c in tiles)
    stretches = depth // (2 * half)
    per_pass = max(d for d in range(1, stretches + 1) if stretches % d == 0 and (d == 1 or d * 2 * half <= _PASS))
    groups = -(-n // (2 * PANEL * pairs))
    w_bytes, x_bytes = 7 * n * depth, 7 * rows * depth
    panel_outer = w_bytes > 2 * x_bytes or (x_bytes < target.l2 and w_bytes > target.l2 // 2)
    # Where all rows go by the weights of one group after another, the more of them at once the better: they are read in
    # order and come from L3 in time. Otherwise those of a work item are read once per group, so they had better stay in L2.
    budget = max(1, target.l2 // 3 // (per_pass * 2 * half * 7))
    most_tiles = count if panel_outer else max(1, min(count, budget // tiles[0][0]))
    per_block = _balanced(batch, groups, count, most_tiles, panel_outer, threads)
    return StrassenParams(batch, rows, n, half, stretches, per_pass, True, scaled_columns, expr, tiles, pairs, per_block,
                          panel_outer)  # fmt: skip


def _balanced(batch: int, groups: int, tiles: int, most: int, panel_outer: bool, threads: int) -> int:
    """Tiles of a work item, at most about `most`, so that the threads get shares of like size."""
    least = -(-tiles // most)
    best, lowest = most, 0.0
    for blocks in range(least, min(tiles, 2 * least + 2 * threads) + 1):
        size = -(-tiles // blocks)
        row = [min(size, tiles - at) for at in range(0, tiles, size)]
        items = row * groups if panel_outer else [t for t in row for _ in range(groups)]
        items *= batch
        ends = [i * len(items) // threads for i in range(threads + 1)]
        cost = max(sum(items[a:b]) for a, b in pairwise(ends)) * threads / sum(items) + 0.01 * blocks / least
        if not lowest or cost < lowest:
            best, lowest = size, cost
    return best


def _side(ctx: Context, view: View, shape: tuple[int, ...], merged: tuple[int, ...]) -> View:
    view = view.broadcast(shape)
    again = view.reshape(merged) if view.strides[-1] in (0, 1) else None
    if again is None or again.strides[-1] not in (0, 1):
        again = ctx.copy(view, "epilogue operand").reshape(merged)
    assert again is not None
    return again


def _sums(ctx: Context, x: View, half: int) -> RowSums:
    """The sums of x's quarters, made once for all products of the same rows."""
    key = (x, half)
    found = ctx.strassen.get(key)
    if found is None:
        batch, rows, depth = x.shape
        found = empty_sums(ctx, batch, rows, depth, half)
        outs = (found.sums, found.scales)
        kernel = make_strassen_rows([x.operand], [v.operand for v in outs], rows, half)
        ctx.call(kernel, (x, *outs), fused=("strassen sums",))
        ctx.strassen[key] = found
    return found


def empty_sums(ctx: Context, batch: int, rows: int, depth: int, half: int) -> RowSums:
    """Room for them."""
    pairs = -(-rows // 2)
    return RowSums(ctx.temp((batch, depth // (2 * half), pairs, len(PRODUCTS), half)), ctx.temp((batch, pairs)))


def _column_scales(w: Array) -> Array | None:
    """Powers of two by which to multiply the columns of the second panel of each pair so that they are as large as those
    of the first; None when they are within a factor of two already. (Rows are scaled at run time, see `strassen_rows`.)"""
    n = w.shape[1]
    pairs = -(-n // (2 * PANEL))
    size = np.zeros(pairs * 2 * PANEL, np.float32)
    size[:n] = np.abs(w).max(0)
    power = np.where(np.isfinite(size), np.frexp(np.maximum(size, np.float32(1e-38)))[1], 0).reshape(pairs, 2, PANEL)
    apart = (power[:, 0] - power[:, 1]).clip(-60, 60)  # a column of zeros counts as tiny
    apart[(np.arange(pairs)[:, None] * 2 + 1) * PANEL + np.arange(PANEL) >= n] = 0  # no such columns
    if (np.abs(apart) <= 1).all():
        return None
    scales = np.ones((pairs, 2, PANEL), np.float32)
    scales[:, 1] = np.exp2(apart)
    return scales.reshape(-1)[:n]


def pack_strassen(w: Array, half: int, pairs_per_tile: int, scales: Array | None, out: Array) -> None:
    """w[K, N] -> out[panel pairs, packed]: per group of pairs [stretch][product][pair][half K][16], zeros where N ends."""
    depth, n = w.shape
    pairs = -(-n // (2 * PANEL))
    stretches = depth // (2 * half)
    flat, at = out.reshape(-1), 0
    for first in range(0, pairs, pairs_per_tile):  # group by group, for they are added up in double precision
        count = min(pairs_per_tile, pairs - first)
        part = np.zeros((depth, count * 2 * PANEL), np.float64)
        columns = slice(first * 2 * PANEL, min(n, (first + count) * 2 * PANEL))
        part[:, : columns.stop - columns.start] = w[:, columns]
        if scales is not None:
            part[:, : columns.stop - columns.start] *= scales[columns]
        quarters = part.reshape(stretches, 2, half, count, 2, PANEL)
        quarter = {f"B{i + 1}{j + 1}": quarters[:, i, :, :, j].transpose(0, 2, 1, 3) for i in (0, 1) for j in (0, 1)}
        size = stretches * len(PRODUCTS) * count * half * PANEL
        place = flat[at : at + size].reshape(stretches, len(PRODUCTS), count, half, PANEL)
        at += size
        for i, (_, name, _) in enumerate(PRODUCTS):
            one, sign, other = quarter[name[:3]], name[3:4], quarter.get(name[4:], 0.0)
            place[:, i] = one - other if sign == "-" else one + other if sign else one
