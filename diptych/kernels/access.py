"""Vectors in and out of strided memory: contiguous, broadcast, reversed and gathered, whole and partial."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from diptych.codegen.builder import I32, Val, undefined

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.codegen.builder import Fn, Index

__all__ = [
    "fold_lanes", "halves", "keep_lanes", "load_lanes", "pieces", "pow2_above", "pow2_below", "shuffle", "store_lanes",
    "sum_lanes", "transpose_lanes",
]  # fmt: skip


def pow2_above(n: int) -> int:
    """The smallest power of two >= n.

    >>> pow2_above(5)
    8
    """
    return 1 << max(0, n - 1).bit_length()


def pow2_below(n: int) -> int:
    """The largest power of two <= n (n >= 1)."""
    return 1 << (n.bit_length() - 1)


def pieces(count: int) -> list[tuple[int, int]]:
    """`count` as (offset, size) runs of falling powers of two.

    >>> pieces(7)
    [(0, 4), (4, 2), (6, 1)]
    """
    out, at = [], 0
    while at < count:
        size = pow2_below(count - at)
        out.append((at, size))
        at += size
    return out


@lru_cache(1 << 12)
def _mask(lanes: tuple[int, ...]) -> ir.Constant:
    return ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))


def shuffle(fn: Fn, a: Val, b: Val | None, mask: Sequence[int]) -> Val:
    """Lanes of a (and of b, counted on from a's) picked by `mask`; a scalar when one lane is picked."""
    if a.lanes == 1:
        assert b is None and set(mask) == {0}
        return fn.splat(a, len(mask))
    if len(mask) == 1:
        source = a if mask[0] < a.lanes or b is None else b
        return Val(fn.b.extract_element(source.ir, ir.Constant(I32, mask[0] % a.lanes)), a.dtype, 1)
    other: Any = b.ir if b is not None else undefined(a.dtype, a.lanes)
    return Val(fn.b.shuffle_vector(a.ir, other, _mask(tuple(mask))), a.dtype, len(mask))


def halves(fn: Fn, v: Val) -> tuple[Val, Val]:
    """Lower and upper half of a vector."""
    h = v.lanes // 2
    return shuffle(fn, v, None, range(h)), shuffle(fn, v, None, range(h, v.lanes))


def fold_lanes(fn: Fn, v: Val, lanes: int, combine: Callable[[Val, Val], Val]) -> Val:
    """Combine the lanes of v pairwise until `lanes` are left."""
    while v.lanes > lanes:
        v = combine(*halves(fn, v))
    return v


def keep_lanes(fn: Fn, v: Val, count: int, other: Val) -> Val:
    """The first `count` lanes of v, the rest from `other`."""
    if count >= v.lanes:
        return v
    return shuffle(fn, v, other, [i if i < count else v.lanes + i for i in range(v.lanes)])


def load_lanes(fn: Fn, base: ir.Value, at: Index, stride: int, dtype: str, lanes: int, count: int | None = None) -> Val:
    """Lanes i < count from element `at + i * stride`; lanes past count repeat the first one.

    A stride of 0 gives a scalar load in every lane. Nothing outside the `count` elements is touched.
    """
    count = lanes if count is None else count
    if stride == 0 or lanes == 1:
        return fn.splat(fn.load(fn.at(base, at, dtype), dtype), lanes)
    if stride == -1 and count == lanes:
        v = fn.load(fn.at(base, fn.iadd(at, 1 - lanes), dtype), dtype, lanes)
        return shuffle(fn, v, None, range(lanes - 1, -1, -1))
    if stride == 2 and count == lanes and lanes >= 4:
        # Two loads that meet in the middle reach from the first element to the last and no further.
        low = fn.load(fn.at(base, at, dtype), dtype, lanes)
        high = fn.load(fn.at(base, fn.iadd(at, lanes - 1), dtype), dtype, lanes)
        return shuffle(fn, low, high, [2 * i if 2 * i < lanes else 2 * i + 1 for i in range(lanes)])
    if stride == 1:
        if count == lanes:
            return fn.load(fn.at(base, at, dtype), dtype, lanes)
        runs = pieces(count)
        out: Val | None = None
        for off, size in runs:
            part = fn.load(fn.at(base, fn.iadd(at, off), dtype), dtype, size)
            wide = shuffle(fn, part, None, [i if 0 <= i < size else 0 for i in range(-off, lanes - off)])
            out = wide if out is None else keep_lanes(fn, out, off, wide)
        assert out is not None
        if len(runs) == 1:
            return out
        return shuffle(fn, out, None, [i if i < count else 0 for i in range(lanes)])
    gathered: Any = None
    for i in range(count):
        one = fn.load(fn.at(base, fn.iadd(at, i * stride), dtype), dtype)
        if gathered is None:
            gathered = fn.splat(one, lanes).ir if count < lanes else undefined(dtype, lanes)
        gathered = fn.b.insert_element(gathered, one.ir, ir.Constant(I32, i))
    return Val(gathered, dtype, lanes)


def store_lanes(fn: Fn, v: Val, base: ir.Value, at: Index, stride: int, count: int | None = None) -> None:
    """Store lanes i < count to element `at + i * stride`."""
    count = v.lanes if count is None else count
    if v.lanes == 1 or (stride == 1 and count == v.lanes):
        fn.store(v, fn.at(base, at, v.dtype))
    elif stride == -1 and count == v.lanes:
        back = shuffle(fn, v, None, range(count - 1, -1, -1))
        fn.store(back, fn.at(base, fn.iadd(at, 1 - count), v.dtype))
    else:
        runs = pieces(count) if stride == 1 else [(i, 1) for i in range(count)]
        for off, size in runs:
            part = shuffle(fn, v, None, range(off, off + size))
            fn.store(part, fn.at(base, fn.iadd(at, off * stride), v.dtype))


def transpose_lanes(fn: Fn, rows: Sequence[Val]) -> list[Val]:
    """Transpose n vectors of n lanes (n a power of two).

    First inside blocks of four lanes (two of 8-byte elements) with the interleavings that every machine has in one
    instruction, then blocks against blocks.
    """
    n = len(rows)
    size = 8 if rows[0].dtype in ("f64", "i64", "u64") else 4
    block = min(n, 16 // size)
    out = list(rows)
    step = 1
    while step < block:
        # Interleave runs of `step` lanes of rows i and i + step, within each block of lanes.
        new = list(out)
        for i in range(n):
            if i % (2 * step) < step:
                low: list[int] = []
                high: list[int] = []
                for start in range(0, n, block):
                    half = block // 2
                    for k in range(0, half, step):
                        low += [*range(start + k, start + k + step), *range(n + start + k, n + start + k + step)]
                        h = start + half + k
                        high += [*range(h, h + step), *range(n + h, n + h + step)]
                new[i] = shuffle(fn, out[i], out[i + step], low)
                new[i + step] = shuffle(fn, out[i], out[i + step], high)
        out = new
        step *= 2
    # Each block row group now holds its columns in bit-reversed order.
    bits = block.bit_length() - 1
    rev = [int(format(i, f"0{bits}b")[::-1], 2) if bits else 0 for i in range(block)]
    out = [out[g + rev[i]] for g in range(0, n, block) for i in range(block)]
    step = block
    while step < n:
        new = list(out)
        for i in range(n):
            if not i & step:
                a, b = out[i], out[i + step]
                new[i] = shuffle(fn, a, b, [j if not j & step else n + j - step for j in range(n)])
                new[i + step] = shuffle(fn, a, b, [j + step if not j & step else n + j for j in range(n)])
        out = new
        step *= 2
    return out


def sum_lanes(fn: Fn, rows: Sequence[Val], add: Callable[[Val, Val], Val]) -> Val:
    """The sums over the lanes of each of n vectors of n lanes (n a power of two), as the lanes of one vector.

    Vectors are shuffled together in pairs and added, half as many each time: first inside blocks of four lanes, for
    which every machine has single instructions, then blocks with blocks.
    """
    n = len(rows)
    block = 4 if n >= 4 else 1
    starts = range(0, n, block)

    def joined(low: list[int], high: list[int]) -> list[Val]:
        return [add(shuffle(fn, a, b, low), shuffle(fn, a, b, high)) for a, b in zip(out[::2], out[1::2], strict=True)]

    out = list(rows)
    if block == 4:
        out = joined([i + s for s in starts for i in (0, n, 1, n + 1)], [i + s for s in starts for i in (2, n + 2, 3, n + 3)])
        out = joined([i + s for s in starts for i in (0, 1, n, n + 1)], [i + s for s in starts for i in (2, 3, n + 2, n + 3)])
    while len(out) > 1:
        runs = range(0, 2 * n, block)  # runs of a, then of b; even ones are added to odd ones
        out = joined(*([i for s in runs[odd::2] for i in range(s, s + block)] for odd in (0, 1)))
    return out[0]
