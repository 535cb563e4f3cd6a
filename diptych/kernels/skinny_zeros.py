"""A product of one row that often holds zeros (what a ReLU leaves) by constant weights: zeros are not multiplied.

Such a product takes as long as reading its weights does, and the weights that a zero would be multiplied by need not be
read. Each thread first packs the elements that are not zero, and where their weights lie, into its scratch; the work
items are those of `skinny`. Nothing else than the order of the sum changes: the weights are finite (the schedule looks),
so that a product by zero adds nothing, and NaN is no zero.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import I64, Val
from diptych.kernels.base import emits
from diptych.kernels.skinny import AHEAD, SkinnyEmitter, chain_of, flat, sets_of
from diptych.kernels.tile import PANEL, RegisterTile, load_masked

if TYPE_CHECKING:
    from diptych.codegen.builder import Fn
    from diptych.ir.kernel import Kernel

__all__ = ["zeros_scratch"]

_LATER = AHEAD // 4 // PANEL  # elements from the one multiplied to the one whose weights are fetched
_UNROLL = 4


def _room(depth: int) -> int:
    """Elements of a packed row: it is written by whole vectors, and read past its end when weights are fetched."""
    return -(-(depth + _LATER + _UNROLL) // PANEL) * PANEL + PANEL


def zeros_scratch(depth: int) -> int:
    """Bytes of scratch for a row of `depth` elements."""
    return 8 * _room(depth)


@emits("skinny_zeros")
def emit_skinny_zeros(fn: Fn, kernel: Kernel) -> None:
    """Write a product of one row (see the module's docstring); parameters and operands are those of `skinny`."""
    _Emitter(fn, kernel).emit()


class _Emitter(SkinnyEmitter):
    """Scratch holds the elements, then the offsets of their weights within a panel."""

    def emit(self) -> None:
        fn, p = self.fn, self.p
        self.depth = p.k_blocks * PANEL + p.k_tail
        self.elements = fn.args["scratch"]
        self.offsets = fn.at(self.elements, _room(self.depth))
        with fn.if_(fn.b.icmp_signed("<", fn.args["begin"], fn.args["end"])):
            self.count = self.pack()
            super().emit()

    def pack(self) -> ir.Value:
        """Write scratch; returns how many elements there are, rounded up with zeros to a multiple of what a turn takes."""
        fn, p, lanes = self.fn, self.p, self.lanes
        x = fn.at(self.pointers[0], p.taps[0])
        count = fn.var(I64, fn.index(0))
        first = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [i * PANEL for i in range(lanes)])
        whole = self.depth - self.depth % lanes

        def put(values: Val, k: ir.Value) -> None:
            b = fn.b
            wanted = b.fcmp_unordered("!=", values.ir, fn.const(0.0, "f32", lanes).ir)
            at = b.add(first, fn.splat(Val(b.trunc(fn.imul(k, PANEL), ir.IntType(32)), "i32"), lanes).ir)
            n = count.get()
            fn.store(self.compressed(values, wanted), fn.at(self.elements, n))
            fn.store(self.compressed(Val(at, "i32", lanes), wanted), fn.at(self.offsets, n, "i32"))
            bits = b.zext(b.bitcast(wanted, ir.IntType(lanes)) if lanes > 1 else wanted, I64)
            count.set(b.add(n, fn.intrinsic("llvm.ctpop.i64", I64, [bits])))

        with fn.loop(0, whole, lanes, name="pack") as k:
            put(fn.load(fn.at(x, k), "f32", lanes), k)
        if whole < self.depth:
            mask = ir.Constant(ir.VectorType(ir.IntType(1), lanes), [int(i < self.depth - whole) for i in range(lanes)])
            put(load_masked(fn, fn.at(x, whole), lanes, mask), fn.index(whole))
        n = count.get()
        for i in range(0, _LATER + _UNROLL, lanes):
            fn.store(fn.const(0.0, "f32", lanes), fn.at(self.elements, fn.iadd(n, i)))
            fn.store(fn.const(0, "i32", lanes), fn.at(self.offsets, fn.iadd(n, i), "i32"))
        return fn.imul(fn.idiv(fn.iadd(n, _UNROLL - 1), _UNROLL), _UNROLL)

    def compressed(self, values: Val, wanted: ir.Value) -> Val:
        """The wanted lanes side by side at the front."""
        t = values.ir.type
        kind = f"v{values.lanes}{values.dtype}"
        nothing = ir.Constant(t, ir.Undefined)
        made = self.fn.intrinsic(f"llvm.experimental.vector.compress.{kind}", t, [values.ir, wanted, nothing])
        return Val(made, values.dtype, values.lanes)

    def sums(self, xs: list[ir.Value], w: ir.Value, panels: int, k0: ir.Value, depth: int) -> list:  # type: ignore[type-arg]
        """The sums over all elements of the row, long ones in parts."""
        fn = self.fn
        vectors = PANEL // self.lanes
        sets = [RegisterTile(fn, 1, panels) for _ in range(min(_UNROLL, sets_of(1, panels * vectors, fn.target)))]
        part = chain_of(depth) * len(sets)
        assert part % _UNROLL == 0, f"a part of {part} elements is not whole turns of {_UNROLL}"
        total = RegisterTile(fn, 1, panels)
        zero = fn.const(0.0, "f32", self.lanes).ir
        with fn.loop(0, self.count, part, name="part") if part < depth else nullcontext(fn.index(0)) as start:
            end = fn.imin(fn.iadd(start, part), self.count) if part < depth else self.count
            for var in (v for tile in sets for v in flat(tile)):
                var.set(zero)
            with fn.loop(start, end, _UNROLL, name="k") as k:
                self.turn(w, sets, k)
            left = sets
            while len(left) > 1:  # pairwise
                for one, other in zip(left[::2], left[1::2], strict=True):
                    for a, b in zip(flat(one), flat(other), strict=True):
                        a.set(fn.b.fadd(a.get(), b.get()))
                left = left[::2]
            for a, b in zip(flat(total), flat(left[0]), strict=True):
                a.set(fn.b.fadd(a.get(), b.get()))
        return total.acc

    def turn(self, w: ir.Value, sets: list[RegisterTile], k: ir.Value) -> None:
        """Elements k to k + _UNROLL."""
        fn, p, lanes = self.fn, self.p, self.lanes
        vectors = PANEL // lanes
        values = [[v.get() for v in flat(tile)] for tile in sets]

        def weights(d: int) -> ir.Value:
            offset = fn.load(fn.at(self.offsets, fn.iadd(k, d), "i32"), "i32").ir
            return fn.at(w, fn.b.zext(offset, I64))

        for d in range(_UNROLL):
            now, line = values[d % len(sets)], weights(d)
            later = weights(d + _LATER) if p.prefetch else None
            x = fn.splat(fn.load(fn.at(self.elements, fn.iadd(k, d))), lanes)
            for j in range(len(now)):
                q, v = divmod(j, vectors)
                if later is not None and not v:
                    fn.prefetch(fn.at(later, q * self.spread * p.w_panel), 2)
                wv = fn.load(fn.at(line, q * self.spread * p.w_panel + v * lanes), "f32", lanes)
                now[j] = fn.fma(x, wv, Val(now[j], "f32", lanes)).ir
        for tile, new in zip(sets, values, strict=True):
            for var, value in zip(flat(tile), new, strict=True):
                var.set(value)
