"""What Strassen's scheme multiplies besides the rows themselves: sums and differences of the quarters of each row pair.

Of each pair of rows the second is first scaled by a power of two to the size of the first (and its results scaled back),
so that the scheme's rounding errors stay in proportion to the row that they land in: without that a row beside a much
larger one would inherit errors of the larger one's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import I32, Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel
from diptych.kernels.access import fold_lanes
from diptych.kernels.base import emits
from diptych.kernels.strassen import PRODUCTS

if TYPE_CHECKING:
    from diptych.codegen.builder import Fn
    from diptych.ir.kernel import Operand

__all__ = ["StrassenRowsParams", "make_strassen_rows"]

_MOST = 60  # powers of two by which a row is scaled at most: squares of such rows stay finite beside ordinary ones


@dataclass(frozen=True, slots=True)
class StrassenRowsParams:
    """Operands: x[batch, rows, K]; then its sums [batch, stretches, pairs, 7, half] and, where `scaled`, inverse scales
    [batch, pairs]. All that a register tile reads for one stretch lies side by side, at distances that do not fight for
    the same places in L1."""

    batch: int
    rows: int
    half: int
    stretches: int
    scaled: bool

    def __str__(self) -> str:
        return f"[{self.batch}x{self.rows}] K={self.stretches}x2x{self.half}{' scaled' if self.scaled else ''}"


def make_strassen_rows(x: Operand, sums: Operand, scales: Operand | None, half: int) -> Kernel:
    """The kernel; x[batch, rows, K], sums[batch, stretches, pairs, 7, half] and scales[batch, pairs] have dense last axes."""
    batch, rows, depth = x.shape
    params = StrassenRowsParams(batch, rows, half, depth // (2 * half), scales is not None)
    made = [sums] if scales is None else [sums, scales]
    return Kernel("strassen_rows", params, (x, *made), len(made), batch * sums.shape[2], batch * rows * depth * 0.25)


@emits("strassen_rows")
def emit_strassen_rows(fn: Fn, kernel: Kernel) -> None:
    """A work item is a pair of rows."""
    _Emitter(fn, kernel).emit()


class _Emitter:
    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn, self.math = fn, Math(fn)
        self.p: StrassenRowsParams = kernel.params
        self.x, self.sums = kernel.operands[:2]
        self.lanes = min(16, fn.target.lanes(4))

    def emit(self) -> None:
        fn, p = self.fn, self.p
        pairs = self.sums.shape[2]
        with fn.loop(fn.args["begin"], fn.args["end"], name="pair") as item:
            batch, pair = fn.unravel(item, [p.batch, pairs])
            top = fn.at(fn.args["p0"], fn.dot([batch, fn.imul(pair, 2)], self.x.strides[:2]))
            out = fn.at(fn.args["p1"], fn.iadd(fn.imul(batch, self.sums.strides[0]), fn.imul(pair, self.sums.strides[2])))
            if p.rows % 2:
                with fn.b.if_else(fn.b.icmp_signed("==", pair, fn.index(pairs - 1))) as (then, otherwise):
                    with then:
                        self.pair(item, top, None, out)
                    with otherwise:
                        self.pair(item, top, fn.at(top, self.x.strides[1]), out)
            else:
                self.pair(item, top, fn.at(top, self.x.strides[1]), out)

    def pair(self, item: ir.Value, top: ir.Value, bottom: ir.Value | None, out: ir.Value) -> None:
        """Sums of one pair of rows; without the second one it is zero."""
        fn, p, m, lanes = self.fn, self.p, self.math, self.lanes
        factor = None
        if p.scaled:
            forth, back = self.scale(top, bottom) if bottom is not None else (m.const(1.0, "f32"), m.const(1.0, "f32"))
            fn.store(back, fn.at(fn.args["p2"], item))
            factor = fn.splat(forth, lanes)
        zero = m.const(0.0, "f32", lanes)
        with fn.loop(0, p.stretches, name="stretch") as stretch:
            a, to = fn.imul(stretch, 2 * p.half), fn.imul(stretch, self.sums.strides[1])
            with fn.loop(0, p.half, lanes, name="k") as k:
                at, put = fn.iadd(a, k), fn.iadd(to, k)

                def quarter(row: ir.Value | None, half: int, at: ir.Value = at) -> Val:
                    if row is None:
                        return zero
                    v = fn.load(fn.at(row, fn.iadd(at, half * p.half)), "f32", lanes)
                    return m.mul(v, factor) if row is bottom and factor is not None else v

                a11, a12 = quarter(top, 0), quarter(top, 1)
                a21, a22 = quarter(bottom, 0), quarter(bottom, 1)
                made = {
                    "A11": a11, "A11+A22": m.add(a11, a22), "A21+A22": m.add(a21, a22), "A22": a22, "A11+A12": m.add(a11, a12),
                    "A21-A11": m.sub(a21, a11), "A12-A22": m.sub(a12, a22),
                }  # fmt: skip
                for i, (name, _, _) in enumerate(PRODUCTS):
                    fn.store(made[name], fn.at(out, fn.iadd(put, i * self.sums.strides[3])))

    def scale(self, top: ir.Value, bottom: ir.Value) -> tuple[Val, Val]:
        """The power of two that brings the second row to the size of the first, and its inverse; 1 for rows that are
        not finite. (A row of zeros counts as tiny: what it inherits is tiny too.)"""
        b = self.fn.b
        field = [b.and_(b.bitcast(self.largest(row).ir, I32), ir.Constant(I32, 0x7F800000)) for row in (top, bottom)]
        usual = [b.icmp_signed("<", f, ir.Constant(I32, 0x7F800000)) for f in field]
        apart = b.sub(field[0], field[1])
        limit = ir.Constant(I32, _MOST << 23)
        low = ir.Constant(I32, -(_MOST << 23))
        apart = b.select(b.icmp_signed(">", apart, limit), limit, apart)
        apart = b.select(b.icmp_signed("<", apart, low), low, apart)
        apart = b.select(b.and_(*usual), apart, ir.Constant(I32, 0))
        one = ir.Constant(I32, 127 << 23)
        f32 = ir.FloatType()
        return (Val(b.bitcast(b.add(one, apart), f32), "f32"), Val(b.bitcast(b.sub(one, apart), f32), "f32"))

    def largest(self, row: ir.Value) -> Val:
        """The largest magnitude of a row."""
        fn, m, lanes = self.fn, self.math, self.lanes
        depth = 2 * self.p.half * self.p.stretches
        count = 4 if depth % (4 * lanes) == 0 else 2 if depth % (2 * lanes) == 0 else 1
        low = m.const(-inf, "f32", lanes)
        found = [fn.var("f32", low.ir, lanes) for _ in range(count)]
        with fn.loop(0, depth, count * lanes, name="size") as k:
            for i, var in enumerate(found):
                v = m.abs(fn.load(fn.at(row, fn.iadd(k, i * lanes)), "f32", lanes))
                var.set(m.max(Val(var.get(), "f32", lanes), v).ir)
        values = [Val(var.get(), "f32", lanes) for var in found]
        while len(values) > 1:
            values = [m.max(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
        return fold_lanes(fn, values[0], 1, m.max)
