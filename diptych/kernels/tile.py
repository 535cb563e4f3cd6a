"""The register tile: some pixels by some panels of 16 output channels, held in accumulators while the depth runs by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import I32, VOID, Val, register_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diptych.codegen.builder import Fn, Index, Var

__all__ = ["PANEL", "Fetch", "RegisterTile", "each_tile", "load_masked", "store_masked"]

PANEL = 16  # output channels of a weight panel, and channels of a block of the blocked layout: one cache line of f32
# Rank-1 updates per turn of the innermost loop, by bytes of a vector register. Given more of them LLVM moves loads so
# far up that accumulators spill: with 512 bits one update fills all 32 registers (tests/conformance counts spills).
_UNROLL = {16: 2, 32: 4, 64: 1}


@dataclass(frozen=True, slots=True)
class Fetch:
    """Memory to ask for while the depth runs by: `step` floats from `at` on with every update, into L1 (locality 3) or L2
    (2), to read or to write it."""

    at: ir.Value
    step: int
    locality: int = 3
    write: bool = False


class RegisterTile:
    """`width` pixels by `panels` panels of accumulators, zero at first.

    With `half` the last panel has 8 channels only: one vector of that many lanes, which takes half the time of a wider one.
    """

    def __init__(self, fn: Fn, width: int, panels: int, half: bool = False) -> None:
        self.fn = fn
        self.lanes = min(PANEL, fn.target.lanes(4))
        self.vectors = PANEL // self.lanes
        self.half = half
        self.acc: list[list[list[Var]]] = [
            [[self._zero(lanes) for lanes in self.widths(q, panels)] for q in range(panels)] for _ in range(width)
        ]

    def widths(self, panel: int, panels: int) -> list[int]:
        """Lanes of the vectors of a panel."""
        channels = PANEL // 2 if self.half and panel == panels - 1 else PANEL
        lanes = min(self.lanes, channels)
        return [lanes] * (channels // lanes)

    def _zero(self, lanes: int) -> Var:
        vec = register_type("f32", lanes)
        return self.fn.var(vec, self.fn.const(0.0, "f32", lanes).ir)

    def accumulate(self, xs: Sequence[ir.Value], w: ir.Value, depth: Index, x_k: int, w_panel: int,
                   ahead: Sequence[ir.Value] = (), ahead_step: int = PANEL, locality: int = 3,
                   fetches: Sequence[Fetch] = ()) -> None:  # fmt: skip
        """`depth` rank-1 updates: pixel i reads xs[i][k * x_k], panel q reads 16 weights at w[q * w_panel + 16 k].

        A depth known at run time only is rounded up to a multiple of 4, or of fewer updates where registers allow fewer.

        Update k also fetches the `ahead_step` floats at k * ahead_step of each of `ahead`, which later tiles will read: so
        that weights come from memory while there is arithmetic to do, not all at once when their turn has come. They
        come into L1, or with `locality` 2 into L2. `fetches` are further ones, which say for themselves where to.
        """
        fn, unroll = self.fn, _UNROLL.get(self.fn.target.vector_bytes, 4)
        whole = depth if isinstance(depth, ir.Value) else depth - depth % unroll
        if isinstance(depth, int) and depth <= unroll:
            self._update(xs, w, depth, x_k, w_panel)
            return
        with fn.loop(0, whole, unroll, name="k") as k:
            step = fn.imul(k, x_k)
            for later in ahead:
                for i in range(0, unroll * ahead_step, min(ahead_step, PANEL)):
                    fn.prefetch(fn.at(later, fn.iadd(fn.imul(k, ahead_step), i)), locality)
            for f in fetches:
                for i in range(0, unroll * f.step, PANEL):
                    fn.prefetch(fn.at(f.at, fn.iadd(fn.imul(k, f.step), i)), f.locality, write=f.write)
            self._update([fn.at(x, step) for x in xs], fn.at(w, fn.imul(k, PANEL)), unroll, x_k, w_panel)
        if isinstance(depth, int) and isinstance(whole, int) and whole < depth:
            self._update([fn.at(x, whole * x_k) for x in xs], fn.at(w, whole * PANEL), depth - whole, x_k, w_panel)

    def _update(self, xs: Sequence[ir.Value], w: ir.Value, depth: int, x_k: int, w_panel: int) -> None:
        fn, lanes = self.fn, self.lanes
        sums = [[[v.get() for v in panel] for panel in pixel] for pixel in self.acc]
        panels = len(self.acc[0])
        widths = [self.widths(q, panels) for q in range(panels)]
        for k in range(depth):
            ws = [
                [fn.load(fn.at(w, q * w_panel + k * PANEL + v * own[v]), "f32", own[v]) for v in range(len(own))]
                for q, own in enumerate(widths)
            ]
            for x, row in zip(xs, sums, strict=True):
                xv = fn.splat(fn.load(fn.at(x, k * x_k)), lanes)
                for q, panel in enumerate(row):
                    for v, own in enumerate(widths[q]):
                        panel[v] = fn.fma(self._part(xv, own), ws[q][v], Val(panel[v], "f32", own)).ir
        for pixel, new_pixel in zip(self.acc, sums, strict=True):
            for variables, values in zip(pixel, new_pixel, strict=True):
                for var, value in zip(variables, values, strict=True):
                    var.set(value)

    def _part(self, x: Val, lanes: int) -> Val:
        """The first lanes of a vector."""
        if lanes == x.lanes:
            return x
        mask = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
        return Val(self.fn.b.shuffle_vector(x.ir, x.ir, mask), "f32", lanes)


def each_tile(fn: Fn, tiles: Sequence[tuple[int, int]], first: Index, end: Index) -> Iterator[tuple[int, ir.Value, ir.Value]]:
    """Tiles `first` to `end` of a row of (width, how many): for each width, within its loop, the width, the number of the
    tile and the row at which it begins."""
    start, row0 = 0, 0
    for width, count in tiles:
        lo = fn.imax(first, start) if start else first
        hi = fn.imin(end, start + count) if len(tiles) > 1 else end
        with fn.loop(lo, hi, name="tile") as tile:
            yield width, tile, fn.iadd(fn.imul(fn.isub(tile, start), width), row0)
        start += count
        row0 += width * count


def load_masked(fn: Fn, address: ir.Value, lanes: int, mask: ir.Value | None) -> Val:
    """A vector of f32; lanes that a mask leaves out are zero, and their memory is not touched."""
    if mask is None:
        return fn.load(address, "f32", lanes)
    vec = register_type("f32", lanes)
    args = [address, ir.Constant(I32, 4), mask, fn.const(0.0, "f32", lanes).ir]
    return Val(fn.intrinsic(f"llvm.masked.load.v{lanes}f32.p0", vec, args), "f32", lanes)


def store_masked(fn: Fn, value: Val, address: ir.Value, mask: ir.Value | None) -> None:
    """Store the lanes of a vector of f32 that a mask lets through."""
    if mask is None:
        fn.store(value, address)
        return
    args = [value.ir, address, ir.Constant(I32, 4), mask]
    fn.intrinsic(f"llvm.masked.store.v{value.lanes}f32.p0", VOID, args)
