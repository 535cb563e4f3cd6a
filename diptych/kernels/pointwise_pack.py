"""Packing into blocks of 16 lanes and back: channel-blocked images and weight panels, missing lanes as zeros."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.access import keep_lanes, load_lanes, store_lanes, transpose_lanes
from diptych.kernels.base import emits
from diptych.kernels.nest import items, loops, merged, split_work

if TYPE_CHECKING:
    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index, Val
    from diptych.targets.base import Target

__all__ = ["BLOCK", "PackParams", "make_pack_channels", "make_pack_panels", "make_unpack_channels"]

BLOCK = 16  # channels of a block: one cache line of f32


@dataclass(frozen=True, slots=True)
class PackParams:
    """Plain operand: [outer, blocks, *spatial] and the stride between channels; blocked: the same with 16 lanes inside.

    `channels` exist; a work item is a split of (outer, blocks, *spatial) at `dim`.
    """

    channels: int
    channel_stride: int
    dim: int
    block: int
    lanes: int


def make_pack_channels(x: Operand, out: Operand, target: Target) -> Kernel:
    """x[N, C, *S] into out[N, ceil(C / 16), *S, 16]; lanes past C become 0."""
    return _make("pack_channels", x, out, target)


def make_unpack_channels(x: Operand, out: Operand, target: Target) -> Kernel:
    """x[N, ceil(C / 16), *S, 16] into out[N, C, *S]."""
    return _make("unpack_channels", out, x, target)


def make_pack_panels(x: Operand, out: Operand, target: Target) -> Kernel:
    """x[*batch, K, N] into panels out[*batch, ceil(N / 16), K, 16]; columns past N become 0."""
    *batch, k, n = x.shape
    *strides, sk, sn = x.strides
    rank = len(batch)
    dims, (sx, so) = merged(batch, [tuple(strides), out.strides[:rank]])
    if len(dims) > 1:
        raise ValueError(f"pack_panels: batch dims {tuple(batch)} of the operands do not merge; pack a copy instead")
    outer, bx, bo = (dims[0], sx[0], so[0]) if dims else (prod(batch), 0, 0)
    source = Operand((outer, n, k), (bx, sn, sk), x.dtype)
    packed = Operand((outer, *out.shape[rank:]), (bo, *out.strides[rank:]), out.dtype)
    return make_pack_channels(source, packed, target)


def _make(kind: str, plain: Operand, blocked: Operand, target: Target) -> Kernel:
    n, channels, *spatial = plain.shape
    blocks = -(-channels // BLOCK)
    if blocked.shape != (n, blocks, *spatial, BLOCK) or blocked.strides[-1] != 1 or blocked.dtype != plain.dtype:
        raise ValueError(f"{kind}: {plain} and {blocked} are not the plain and the blocked view of one tensor")
    dims, (sp, sb) = merged(spatial, [plain.strides[2:], blocked.strides[2:-1]])
    if not dims:
        dims, sp, sb = [prod(spatial)], [1], [BLOCK]
    shape = (n, blocks, *dims)
    lanes = min(BLOCK, target.lanes(itemsize(plain.dtype)))
    dim, block, work = split_work(shape, 256, lanes)
    made = (
        Operand(shape, (plain.strides[0], plain.strides[1] * BLOCK, *sp), plain.dtype),
        Operand(shape, (blocked.strides[0], blocked.strides[1], *sb), plain.dtype),
    )
    if kind == "unpack_channels":
        made = made[::-1]
    cost = 20 + prod(plain.shape) * itemsize(plain.dtype) / 12
    return Kernel(kind, PackParams(channels, plain.strides[1], dim, block, lanes), made, 1, work, cost)


@emits("pack_channels")
def emit_pack_channels(fn: Fn, kernel: Kernel) -> None:
    """Square tiles of channels by pixels, transposed in registers."""
    _emit(fn, kernel, packing=True)


@emits("unpack_channels")
def emit_unpack_channels(fn: Fn, kernel: Kernel) -> None:
    """The way back: only channels that exist are written."""
    _emit(fn, kernel, packing=False)


def _emit(fn: Fn, kernel: Kernel, packing: bool) -> None:
    p: PackParams = kernel.params
    plain, blocked = kernel.operands if packing else kernel.operands[::-1]
    source, target = (fn.args["p0"], fn.args["p1"]) if packing else (fn.args["p1"], fn.args["p0"])
    shape = plain.shape
    last = len(shape) - 1
    tail = p.channels % BLOCK
    with items(fn, shape, p.dim, p.block) as (lead, _, lo, hi):
        bounds: list[tuple[Index, Index]] = [(i, fn.iadd(i, 1)) for i in lead]
        bounds += [(lo, hi), *((0, d) for d in shape[p.dim + 1 :])]
        # The block index must be known before the spatial loops: the last block may have fewer channels.
        with fn.loop(*bounds[0], name="n") as n, fn.loop(*bounds[1], name="block") as block:
            base: list[Index] = [fn.dot([n, block], o.strides[:2]) for o in (plain, blocked)]

            def block_of(channels: int) -> None:
                tiles = _Tiles(fn, p, plain, blocked, source, target, channels, packing)
                with loops(fn, bounds[2:last], [o.strides[2:last] for o in (plain, blocked)], base) as at:
                    tiles.row(at[0], at[1], *bounds[last])

            if not tail:
                block_of(BLOCK)
            elif shape[1] == 1:
                block_of(tail)
            else:
                is_last = fn.b.icmp_signed("==", block, fn.index(shape[1] - 1))
                with fn.b.if_else(is_last) as (then, otherwise):
                    with then:
                        block_of(tail)
                    with otherwise:
                        block_of(BLOCK)


@dataclass(slots=True)
class _Tiles:
    """One row of pixels of one block of channels."""

    fn: Fn
    p: PackParams
    plain: Operand
    blocked: Operand
    plain_pointer: ir.Value
    blocked_pointer: ir.Value
    channels: int
    packing: bool

    def row(self, plain_at: Index, blocked_at: Index, lo: Index, hi: Index) -> None:
        fn, n = self.fn, self.p.lanes
        sp, sb = self.plain.strides[-1], self.blocked.strides[-1]
        at = lo
        if sp == 1 and self.p.channel_stride != 1 and itemsize(self.plain.dtype) in (4, 8) and n > 1:
            at = fn.iadd(lo, fn.imul(fn.idiv(fn.isub(hi, lo), n), n))
            with fn.loop(lo, at, n, name="tile") as i:
                for first in range(0, BLOCK, n):
                    plain = fn.iadd(plain_at, fn.iadd(i, first * self.p.channel_stride))
                    self.tile(plain, fn.iadd(blocked_at, fn.iadd(fn.imul(i, sb), first)), min(n, self.channels - first))
        with fn.loop(at, hi, name="pixel") as i:
            for first in range(0, BLOCK, n):
                plain = fn.iadd(plain_at, fn.iadd(fn.imul(i, sp), first * self.p.channel_stride))
                self.pixel(plain, fn.iadd(blocked_at, fn.iadd(fn.imul(i, sb), first)), min(n, self.channels - first))

    def tile(self, plain: Index, blocked: Index, count: int) -> None:
        """n channels (of which `count` exist) by n pixels."""
        fn, n, dtype = self.fn, self.p.lanes, self.plain.dtype
        step = self.blocked.strides[-1]
        if self.packing:
            rows: list[Val] = [
                load_lanes(fn, self.plain_pointer, fn.iadd(plain, c * self.p.channel_stride), 1, dtype, n)
                for c in range(max(0, count))
            ]
            rows += [fn.const(0, dtype, n)] * (n - len(rows))
            for i, row in enumerate(transpose_lanes(fn, rows) if count > 0 else rows):
                store_lanes(fn, row, self.blocked_pointer, fn.iadd(blocked, i * step), 1)
        elif count > 0:
            rows = [load_lanes(fn, self.blocked_pointer, fn.iadd(blocked, i * step), 1, dtype, n) for i in range(n)]
            for c, row in enumerate(transpose_lanes(fn, rows)[:count]):
                store_lanes(fn, row, self.plain_pointer, fn.iadd(plain, c * self.p.channel_stride), 1)

    def pixel(self, plain: Index, blocked: Index, count: int) -> None:
        """n channels of one pixel."""
        fn, n, dtype, step = self.fn, self.p.lanes, self.plain.dtype, self.p.channel_stride
        if self.packing:
            zero = fn.const(0, dtype, n)
            v = zero
            if count > 0:
                v = keep_lanes(fn, load_lanes(fn, self.plain_pointer, plain, step, dtype, n, count), count, zero)
            store_lanes(fn, v, self.blocked_pointer, blocked, 1)
        elif count > 0:
            v = load_lanes(fn, self.blocked_pointer, blocked, 1, dtype, n)
            store_lanes(fn, v, self.plain_pointer, plain, step, count)
