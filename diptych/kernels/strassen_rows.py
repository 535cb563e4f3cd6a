"""What Strassen's scheme multiplies besides the rows themselves: sums and differences of the quarters of each row pair.

The rows may be normalised on the way (`Norm`), and gathered before that: the normalised ones then stay in L1, and are
written to memory only if somebody else reads them too.

Of each pair of rows the second is first scaled by a power of two to the size of the first (and its results scaled back),
so that the scheme's rounding errors stay in proportion to the row that they land in: without that a row beside a much
larger one would inherit errors of the larger one's size. The size is the mean magnitude, not the largest: trained
transformers have rows with one very large element, and a neighbour scaled up to that would drown all the others of its
row in its errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import I32, I64, Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel
from diptych.kernels.access import fold_lanes
from diptych.kernels.base import emits
from diptych.kernels.strassen import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.codegen.builder import Fn, Index
    from diptych.ir.kernel import Operand

__all__ = ["Norm", "StrassenRowsParams", "make_strassen_rows"]

_HELD = 12  # vectors of a row that is held in registers, with its partner
_MOST = 60  # powers of two by which a row is scaled at most: squares of such rows stay finite beside ordinary ones


@dataclass(frozen=True, slots=True)
class Norm:
    """What is done to each row first."""

    kind: str  # layer_norm or rms_norm
    eps: float
    affine: int  # how many of gamma and beta there are
    indexed: bool  # row i is row index[i] of x
    gathered: bool  # such rows are stored as they are,
    kept: bool  # and as they are normalised


@dataclass(frozen=True, slots=True)
class StrassenRowsParams:
    """Operands: x[batch, rows, K] (`indexed`: [1, any, K] and i32 [batch, rows]), gamma and beta [K]; then the gathered
    rows and the normalised rows [batch, rows, K], the sums [batch, stretches, pairs, 7, half] and, where `scaled`, inverse
    scales [batch, pairs]. All that a register tile reads for one stretch lies side by side, at distances that do not
    fight for the same places in L1."""

    batch: int
    rows: int
    half: int
    stretches: int
    scaled: bool
    norm: Norm | None = None

    @property
    def depth(self) -> int:
        return 2 * self.half * self.stretches

    def __str__(self) -> str:
        norm = "" if self.norm is None else f"{' gathered' if self.norm.indexed else ''} {self.norm.kind}"
        return f"[{self.batch}x{self.rows}] K={self.stretches}x2x{self.half}{norm}{' scaled' if self.scaled else ''}"


def make_strassen_rows(inputs: Sequence[Operand], outputs: Sequence[Operand], rows: int, half: int, scaled: bool = True,
                       norm: Norm | None = None) -> Kernel:  # fmt: skip
    """The kernel; operands as StrassenRowsParams has them, with dense last axes."""
    depth, sums = inputs[0].shape[-1], outputs[-2 if scaled else -1]
    batch, stretches, pairs = sums.shape[:3]
    params = StrassenRowsParams(batch, rows, half, stretches, scaled, norm)
    cost = batch * rows * depth * (0.25 if norm is None else 0.5)
    scratch = 0 if norm is None else 2 * depth * 4
    return Kernel("strassen_rows", params, (*inputs, *outputs), len(outputs), batch * pairs, cost, scratch)


@emits("strassen_rows")
def emit_strassen_rows(fn: Fn, kernel: Kernel) -> None:
    """A work item is a pair of rows."""
    _Emitter(fn, kernel).emit()


@dataclass(frozen=True, slots=True)
class _Row:
    """A row: vector at offset k, and the mean magnitude."""

    load: Callable[[Index], Val]
    size: Val


class _Emitter:
    def __init__(self, fn: Fn, kernel: Kernel) -> None:
        self.fn, self.math = fn, Math(fn)
        self.p: StrassenRowsParams = kernel.params
        self.operands = kernel.operands
        self.sums = kernel.operands[-1 - self.p.scaled]
        self.pointers = [fn.args[f"p{i}"] for i in range(len(kernel.operands))]
        self.lanes = min(16, fn.target.lanes(4))

    def emit(self) -> None:
        fn, p = self.fn, self.p
        pairs = self.sums.shape[2]
        with fn.loop(fn.args["begin"], fn.args["end"], name="pair") as item:
            batch, pair = fn.unravel(item, [p.batch, pairs])
            start = fn.iadd(fn.imul(batch, self.sums.strides[0]), fn.imul(pair, self.sums.strides[2]))
            out = fn.at(self.pointers[-1 - p.scaled], start)
            row = fn.imul(pair, 2)
            both = [row, fn.iadd(row, 1)]
            if p.rows % 2:
                with fn.b.if_else(fn.b.icmp_signed("==", pair, fn.index(pairs - 1))) as (then, otherwise):
                    with then:
                        self.pair(item, self.rows(batch, both[:1]), out)
                    with otherwise:
                        self.pair(item, self.rows(batch, both), out)
            else:
                self.pair(item, self.rows(batch, both), out)

    # -- the rows -------------------------------------------------------------------------------------------------
    def rows(self, batch: ir.Value, rows: list[ir.Value]) -> list[_Row]:
        """One or two rows: in memory, or normalised in registers or scratch."""
        fn, p, x = self.fn, self.p, self.operands[0]
        if p.norm is None:
            return [self.lying(fn.at(self.pointers[0], fn.dot([batch, row], x.strides[:2]))) for row in rows]
        sources = []
        for row in rows:
            if p.norm.indexed:
                at = fn.dot([batch, row], self.operands[1].strides)
                index = fn.b.sext(fn.load(fn.at(self.pointers[1], at, "i32"), "i32").ir, I64)
                sources.append(fn.at(self.pointers[0], fn.imul(index, x.strides[1])))
            else:
                sources.append(fn.at(self.pointers[0], fn.dot([batch, row], x.strides[:2])))
        at, stores = 1 + p.norm.indexed + p.norm.affine, []
        for wanted in (p.norm.gathered, p.norm.kept):
            strides = self.operands[at].strides[:2] if wanted else ()
            stores.append([fn.at(self.pointers[at], fn.dot([batch, row], strides)) for row in rows] if wanted else [])
            at += wanted
        if p.depth // self.lanes <= _HELD:
            return self.in_registers(p.norm, sources, *stores)
        return self.in_scratch(p.norm, sources, *stores)

    def lying(self, address: ir.Value) -> _Row:
        """A row in memory."""
        fn, lanes = self.fn, self.lanes

        def load(k: Index) -> Val:
            return fn.load(fn.at(address, k), "f32", lanes)

        (size,) = self.over_rows("size", 1, lambda _, k: self.magnitude(load(k)))
        return _Row(load, size)

    def in_registers(self, norm: Norm, sources: list[ir.Value], gathered: list[ir.Value], kept: list[ir.Value]) -> list[_Row]:
        """Short rows, normalised without a loop."""
        fn, m, lanes, n = self.fn, self.math, self.lanes, self.p.depth // self.lanes
        values = [[fn.load(fn.at(source, i * lanes), "f32", lanes) for i in range(n)] for source in sources]
        for to, row in zip(gathered, values, strict=False):
            for i, v in enumerate(row):
                fn.store(v, fn.at(to, i * lanes))
        if norm.kind == "layer_norm":
            means = self.means([self.folded(row) for row in values])
            values = [[m.sub(v, mean) for v in row] for row, mean in zip(values, means, strict=True)]
        scales = self.scales(norm, [self.folded([m.mul(v, v) for v in row]) for row in values])
        values = [[m.mul(v, scale) for v in row] for row, scale in zip(values, scales, strict=True)]
        values = [[self.affine(norm, v, i * lanes) for i, v in enumerate(row)] for row in values]
        for to, row in zip(kept, values, strict=False):
            for i, v in enumerate(row):
                fn.store(v, fn.at(to, i * lanes))

        def held(row: list[Val]) -> Callable[[Index], Val]:
            return lambda k: row[fn._const(k) // lanes]  # type: ignore[operator]  # offsets are constants: no loops here

        return [_Row(held(row), self.folded([self.magnitude(v) for v in row])) for row in values]

    def in_scratch(self, norm: Norm, sources: list[ir.Value], gathered: list[ir.Value], kept: list[ir.Value]) -> list[_Row]:
        """Long rows: two or three passes, all rows at a time so that their chains of additions overlap."""
        fn, m, lanes, depth = self.fn, self.math, self.lanes, self.p.depth

        def source(r: int, k: Index) -> Val:
            return fn.load(fn.at(sources[r], k), "f32", lanes)

        def first(r: int, k: Index) -> Val:
            v = source(r, k)
            if gathered:
                fn.store(v, fn.at(gathered[r], k))
            return v

        means: list[Val] = []
        if norm.kind == "layer_norm":
            means = self.means(self.over_rows("mean", len(sources), first))

        def centred(r: int, k: Index) -> Val:
            return m.sub(source(r, k), means[r]) if means else source(r, k)

        def square(r: int, k: Index) -> Val:
            v = centred(r, k) if means else first(r, k)
            return m.mul(v, v)

        scales = self.scales(norm, self.over_rows("spread", len(sources), square))

        def last(r: int, k: Index) -> Val:
            v = self.affine(norm, m.mul(centred(r, k), scales[r]), k)
            fn.store(v, fn.at(fn.args["scratch"], fn.iadd(k, r * depth)))
            if kept:
                fn.store(v, fn.at(kept[r], k))
            return self.magnitude(v)

        sizes = self.over_rows("norm", len(sources), last)

        def stored(r: int) -> Callable[[Index], Val]:
            return lambda k: fn.load(fn.at(fn.args["scratch"], fn.iadd(k, r * depth)), "f32", lanes)

        return [_Row(stored(r), value) for r, value in enumerate(sizes)]

    def means(self, totals: list[Val]) -> list[Val]:
        count = self.math.const(self.p.depth, "f32")
        return [self.fn.splat(self.math.div(total, count), self.lanes) for total in totals]

    def scales(self, norm: Norm, totals: list[Val]) -> list[Val]:
        """One over the root of the mean square."""
        fn, m = self.fn, self.math
        count, eps, one = m.const(self.p.depth, "f32"), m.const(norm.eps, "f32"), m.const(1, "f32")
        return [fn.splat(m.div(one, m.sqrt(m.add(m.div(total, count), eps))), self.lanes) for total in totals]

    def affine(self, norm: Norm, v: Val, k: Index) -> Val:
        at = 1 + norm.indexed
        if norm.affine:
            v = self.math.mul(v, self.fn.load(self.fn.at(self.pointers[at], k), "f32", self.lanes))
        if norm.affine > 1:
            v = self.math.add(v, self.fn.load(self.fn.at(self.pointers[at + 1], k), "f32", self.lanes))
        return v

    def magnitude(self, v: Val) -> Val:
        """What elements add to the size of their row: divided before they are added, so that no finite row overflows."""
        return self.math.mul(self.math.abs(v), self.math.const(2.0 ** -(self.p.depth - 1).bit_length(), "f32", self.lanes))

    def over_rows(self, name: str, rows: int, element: Callable[[int, Index], Val]) -> list[Val]:
        """The elements of each row added up, in as many chains as hide the latency."""
        fn, m, lanes, depth = self.fn, self.math, self.lanes, self.p.depth
        count = next(c for c in (4 // rows, 3, 2, 1) if depth % (c * lanes) == 0)
        begin = m.const(0.0, "f32", lanes)
        found = [[fn.var("f32", begin.ir, lanes) for _ in range(count)] for _ in range(rows)]
        with fn.loop(0, depth, count * lanes, name=name) as k:
            for i in range(count):
                for r in range(rows):
                    v = element(r, fn.iadd(k, i * lanes))
                    found[r][i].set(m.add(Val(found[r][i].get(), "f32", lanes), v).ir)
        return [self.folded([Val(var.get(), "f32", lanes) for var in row]) for row in found]

    def folded(self, values: list[Val]) -> Val:
        """Vectors added up pairwise, and then their lanes."""
        m = self.math
        while len(values) > 1:
            values = [m.add(*values[i : i + 2]) if i + 1 < len(values) else values[i] for i in range(0, len(values), 2)]
        return fold_lanes(self.fn, values[0], 1, m.add)

    # -- their sums -----------------------------------------------------------------------------------------------
    def pair(self, item: ir.Value, rows: list[_Row], out: ir.Value) -> None:
        """Sums of one pair of rows, written in the order in which they lie; a second row that is missing is zero."""
        fn, p, m, lanes = self.fn, self.p, self.math, self.lanes
        factor = None
        if p.scaled:
            one = m.const(1.0, "f32")
            forth, back = self.scale(rows[0].size, rows[1].size) if len(rows) > 1 else (one, one)
            fn.store(back, fn.at(self.pointers[-1], item))
            factor = fn.splat(forth, lanes)

        def quarter(name: str, at: Index) -> Val:
            row, half = int(name[1]) - 1, int(name[2]) - 1
            if row >= len(rows):
                return m.const(0.0, "f32", lanes)
            v = rows[row].load(fn.iadd(at, half * p.half))
            return m.mul(v, factor) if row and factor is not None else v

        def stretch(a: Index, to: Index, unrolled: bool) -> None:
            for i, (name, _, _) in enumerate(PRODUCTS):
                where = fn.at(out, fn.iadd(to, i * self.sums.strides[3]))

                def put(k: Index, name: str = name, where: ir.Value = where) -> None:
                    v = quarter(name[:3], fn.iadd(a, k))
                    if len(name) > 3:
                        other = quarter(name[4:], fn.iadd(a, k))
                        v = m.add(v, other) if name[3] == "+" else m.sub(v, other)
                    fn.store(v, fn.at(where, k))

                if unrolled:
                    for k in range(0, p.half, lanes):
                        put(k)
                else:
                    with fn.loop(0, p.half, lanes, name="k") as k_:
                        put(k_)

        if p.norm is not None and p.depth // lanes <= _HELD:
            for j in range(p.stretches):
                stretch(j * 2 * p.half, j * self.sums.strides[1], True)
        else:
            with fn.loop(0, p.stretches, name="stretch") as j_:
                stretch(fn.imul(j_, 2 * p.half), fn.imul(j_, self.sums.strides[1]), False)

    def scale(self, top: Val, bottom: Val) -> tuple[Val, Val]:
        """The power of two that brings the second row to the size of the first, given the mean magnitude of each, and its
        inverse; 1 for rows that are not finite. (A row of zeros counts as tiny: what it inherits is tiny too.)"""
        b = self.fn.b
        # Without the sign, which a NaN may have, bits are in the order of the numbers.
        bits = [b.and_(b.bitcast(row.ir, I32), ir.Constant(I32, 0x7FFFFFFF)) for row in (top, bottom)]
        usual = [b.icmp_signed("<", f, ir.Constant(I32, 0x7F800000)) for f in bits]
        # To the nearest power: rows of like size on both sides of one are not drawn apart.
        apart = b.and_(b.add(b.sub(*bits), ir.Constant(I32, 1 << 22)), ir.Constant(I32, -1 << 23))
        limit = ir.Constant(I32, _MOST << 23)
        low = ir.Constant(I32, -(_MOST << 23))
        apart = b.select(b.icmp_signed(">", apart, limit), limit, apart)
        apart = b.select(b.icmp_signed("<", apart, low), low, apart)
        apart = b.select(b.and_(*usual), apart, ir.Constant(I32, 0))
        one = ir.Constant(I32, 127 << 23)
        f32 = ir.FloatType()
        return (Val(b.bitcast(b.add(one, apart), f32), "f32"), Val(b.bitcast(b.sub(one, apart), f32), "f32"))
