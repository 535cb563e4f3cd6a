"""Tables of 16 values looked up by permuting registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import I32, Val
from diptych.codegen.math_exp import ExpLog

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Lookup"]


class Lookup(ExpLog):
    """Look-ups of f32 values by a vector of indices."""

    @property
    def has_lookup(self) -> bool:
        """Whether `lookup` is a handful of instructions here."""
        return self.fn.target.triple.startswith("x86_64")

    def lookup(self, index: Val, table: Sequence[float]) -> Val:
        """table[index mod 16] in every lane, for 16 f32 values held in registers (or read once)."""
        b, native = self.fn.b, 16 if self.fn.target.vector_bytes >= 64 else 8
        entries = [self._vector(table[i : i + native]) for i in range(0, 16, native)]
        name = "llvm.x86.avx512.permvar.sf.512" if native == 16 else "llvm.x86.avx2.permps"
        pieces: list[ir.Value] = []
        for first in range(0, index.lanes, native):
            piece = self._lanes(index.ir, index.lanes, first, native, I32)
            found = [self.fn.intrinsic(name, t.type, [t, piece]) for t in entries]
            if native == 8:
                four = ir.Constant(piece.type, [28] * native)
                upper = b.icmp_signed("<", b.shl(piece, four), ir.Constant(piece.type, [0] * native))
                found = [b.select(upper, found[1], found[0])]
            pieces.append(found[0])
        while len(pieces) > 1:
            width = pieces[0].type.count
            mask = ir.Constant(ir.VectorType(I32, 2 * width), list(range(2 * width)))
            pieces = [b.shuffle_vector(x, y, mask) for x, y in zip(pieces[::2], pieces[1::2], strict=True)]
        whole = pieces[0].type.count
        return Val(self._lanes(pieces[0], whole, 0, index.lanes, ir.FloatType()), "f32", index.lanes)

    def _vector(self, values: Sequence[float]) -> ir.Value:
        return ir.Constant(ir.VectorType(ir.FloatType(), len(values)), [float(v) for v in values])

    def _lanes(self, v: ir.Value, lanes: int, first: int, count: int, element: ir.Type) -> ir.Value:
        """`count` lanes of a vector (or a scalar) from `first` on; those that are not there repeat others."""
        b = self.fn.b
        if lanes == 1 and count == 1:
            return v
        if lanes == 1:
            v = b.insert_element(ir.Constant(ir.VectorType(element, count), ir.Undefined), v, ir.Constant(I32, 0))
            return b.shuffle_vector(v, v, ir.Constant(ir.VectorType(I32, count), [0] * count))
        if count == 1:
            return b.extract_element(v, ir.Constant(I32, first))
        if (first, count) == (0, lanes):
            return v
        mask = [min(first + i, lanes - 1) for i in range(count)]
        return b.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), ir.Constant(ir.VectorType(I32, count), mask))
