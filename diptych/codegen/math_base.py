"""Arithmetic on Val, scalar or vector: one method per thing a machine does, the same for every dtype it makes sense for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llvmlite import ir

from diptych.codegen.builder import Fn, Val, register_type

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Arithmetic", "is_float", "is_signed"]

_SYMBOLS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_BITS = {
    "f16": 16, "f32": 32, "f64": 64, "bool": 1, "bf16": 16,
    "i8": 8, "u8": 8, "i16": 16, "u16": 16, "i32": 32, "u32": 32, "i64": 64, "u64": 64,
}  # fmt: skip
_LLVM = {"f16": "f16", "f32": "f32", "f64": "f64"}


def is_float(dtype: str) -> bool:
    """Whether arithmetic on it is floating (bf16 is storage only and is not)."""
    return dtype in ("f16", "f32", "f64")


def is_signed(dtype: str) -> bool:
    """Whether an integer dtype has a sign."""
    return dtype[0] == "i"


def _is_number(v: Val) -> bool:
    """Whether a float value is a constant that is not NaN (constants are the same in every lane)."""
    found = v.ir.constant if isinstance(v.ir, ir.Constant) else None
    first = found[0].constant if isinstance(found, list) and isinstance(found[0], ir.Constant) else found
    return isinstance(first, float) and not math.isnan(first)


class Arithmetic:
    """What one instruction or a handful of them do, on operands of one dtype and number of lanes."""

    def __init__(self, fn: Fn) -> None:
        self.fn = fn

    # -- making values ----------------------------------------------------------------------------------------
    def const(self, x: float | int | bool, dtype: str = "f32", lanes: int = 1) -> Val:
        """A constant in every lane; bf16 is rounded to nearest."""
        if dtype != "bf16":
            return self.fn.const(x, dtype, lanes)
        import struct

        bits = int.from_bytes(struct.pack("<f", float(x)), "little")
        bits = (bits >> 16) | 0x40 if math.isnan(x) else (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return Val(ir.Constant(register_type("bf16", lanes), bits if lanes == 1 else [bits] * lanes), "bf16", lanes)

    def like(self, x: float | int | bool, v: Val) -> Val:
        """A constant of the dtype and lanes of `v`."""
        return self.const(x, v.dtype, v.lanes)

    def _new(self, value: ir.Value, like: Val) -> Val:
        return Val(value, like.dtype, like.lanes)

    def _intrinsic(self, name: str, *xs: Val) -> Val:
        x = xs[0]
        suffix = _LLVM.get(x.dtype) or f"i{_BITS[x.dtype]}"
        full = f"llvm.{name}.{suffix}" if x.lanes == 1 else f"llvm.{name}.v{x.lanes}{suffix}"
        return self._new(self.fn.intrinsic(full, register_type(x.dtype, x.lanes), [v.ir for v in xs]), x)

    # -- arithmetic -------------------------------------------------------------------------------------------
    def add(self, a: Val, b: Val) -> Val:
        """a + b."""
        return self._new((self.fn.b.fadd if is_float(a.dtype) else self.fn.b.add)(a.ir, b.ir), a)

    def sub(self, a: Val, b: Val) -> Val:
        """a - b."""
        return self._new((self.fn.b.fsub if is_float(a.dtype) else self.fn.b.sub)(a.ir, b.ir), a)

    def mul(self, a: Val, b: Val) -> Val:
        """a * b."""
        return self._new((self.fn.b.fmul if is_float(a.dtype) else self.fn.b.mul)(a.ir, b.ir), a)

    def div(self, a: Val, b: Val) -> Val:
        """a / b; integers truncate, and where b is 0 give 0 (the machine would trap)."""
        if is_float(a.dtype):
            return self._new(self.fn.b.fdiv(a.ir, b.ir), a)
        zero = self.like(0, a)
        none = self.cmp("eq", b, zero)
        return self.select(none, zero, self._quotient(a, self._divisor(a, b)))

    def rem(self, a: Val, b: Val) -> Val:
        """The remainder of integers with the sign of a; 0 where b is 0."""
        zero = self.like(0, a)
        safe = self._divisor(a, b)
        left = self.sub(a, self.mul(self._quotient(a, safe), safe))
        # the divisor that replaces -1 leaves the right remainder, that is 0
        return self.select(self.cmp("eq", b, zero), zero, left)

    def _divisor(self, a: Val, b: Val) -> Val:
        """b without the values that make the machine trap: 0, and -1 under the lowest integer (1 does as well there)."""
        bad = self.cmp("eq", b, self.like(0, b))
        if is_signed(a.dtype):
            lowest = self.cmp("eq", a, self.like(-(1 << (_BITS[a.dtype] - 1)), a))
            bad = self.bit_or(bad, self.bit_and(lowest, self.cmp("eq", b, self.like(-1, b))))
        return self.select(bad, self.like(1, b), b)

    def _quotient(self, a: Val, b: Val) -> Val:
        return self._new((self.fn.b.sdiv if is_signed(a.dtype) else self.fn.b.udiv)(a.ir, b.ir), a)

    def neg(self, x: Val) -> Val:
        """-x."""
        return self._new(self.fn.b.fneg(x.ir) if is_float(x.dtype) else self.fn.b.neg(x.ir), x)

    def abs(self, x: Val) -> Val:
        """|x|; the lowest integer stays itself."""
        if is_float(x.dtype):
            return self._intrinsic("fabs", x)
        if not is_signed(x.dtype):
            return x
        return self.select(self.cmp("lt", x, self.like(0, x)), self.neg(x), x)

    def fma(self, a: Val, b: Val, c: Val) -> Val:
        """a * b + c, rounded once."""
        if a.dtype == "f16":
            wide = [self.cast(v, "f32") for v in (a, b, c)]
            return self.cast(self.fn.fma(*wide), "f16")
        return self.fn.fma(a, b, c)

    def max(self, a: Val, b: Val) -> Val:
        """The larger; NaN if either is."""
        if is_float(a.dtype) and _is_number(b):
            return self.limit_max(a, b)
        return self._extremum(">", "gt", a, b)

    def min(self, a: Val, b: Val) -> Val:
        """The smaller; NaN if either is."""
        if is_float(a.dtype) and _is_number(b):
            return self.limit_min(a, b)
        return self._extremum("<", "lt", a, b)

    def _extremum(self, symbol: str, predicate: str, a: Val, b: Val) -> Val:
        if a.dtype == "bool":
            return self.bit_or(a, b) if symbol == ">" else self.bit_and(a, b)
        if not is_float(a.dtype):
            return self.select(self.cmp(predicate, a, b), a, b)
        # One max instruction gives b when the comparison is unordered, so a NaN in b comes through by itself.
        chosen = self.select(self.cmp(predicate, a, b), a, b)
        return self.select(self._unordered(a), a, chosen)

    def limit_max(self, x: Val, limit: Val) -> Val:
        """The larger of x and a limit that is not NaN; NaN stays NaN. One instruction."""
        return self.select(self.cmp("gt", limit, x), limit, x)

    def limit_min(self, x: Val, limit: Val) -> Val:
        """The smaller of x and a limit that is not NaN; NaN stays NaN. One instruction."""
        return self.select(self.cmp("lt", limit, x), limit, x)

    def relu(self, x: Val) -> Val:
        """max(x, 0); NaN stays NaN."""
        return x if x.dtype[0] == "u" else self.limit_max(x, self.like(0, x))

    def sqrt(self, x: Val) -> Val:
        """The square root, correctly rounded."""
        return self._half(self.sqrt, x) if x.dtype == "f16" else self._intrinsic("sqrt", x)

    def floor(self, x: Val) -> Val:
        """The largest integer <= x."""
        return self._rounded("floor", x)

    def ceil(self, x: Val) -> Val:
        """The smallest integer >= x."""
        return self._rounded("ceil", x)

    def rint(self, x: Val) -> Val:
        """The nearest integer, halves to even."""
        return self._rounded("rint", x)

    def trunc(self, x: Val) -> Val:
        """The integer part."""
        return self._rounded("trunc", x)

    def _rounded(self, name: str, x: Val) -> Val:
        if not is_float(x.dtype):
            return x
        if x.dtype == "f16":
            return self.cast(self._intrinsic(name, self.cast(x, "f32")), "f16")
        return self._intrinsic(name, x)

    def copysign(self, x: Val, sign: Val) -> Val:
        """|x| with the sign of `sign`."""
        return self._intrinsic("copysign", x, sign)

    def _half(self, fn: Callable[..., Val], *xs: Val) -> Val:
        """Evaluate on f16 by way of f32."""
        return self.cast(fn(*(self.cast(x, "f32") for x in xs)), "f16")

    # -- comparison, selection, bits --------------------------------------------------------------------------
    def cmp(self, predicate: str, a: Val, b: Val) -> Val:
        """eq, ne, lt, le, gt or ge -> bool; with a NaN only ne holds."""
        b_ = self.fn.b
        symbol = _SYMBOLS[predicate]
        if is_float(a.dtype):
            compare = b_.fcmp_unordered if predicate == "ne" else b_.fcmp_ordered
        else:
            compare = b_.icmp_signed if is_signed(a.dtype) else b_.icmp_unsigned
        return Val(compare(symbol, a.ir, b.ir), "bool", a.lanes)

    def _unordered(self, x: Val) -> Val:
        return Val(self.fn.b.fcmp_unordered("uno", x.ir, x.ir), "bool", x.lanes)

    def select(self, c: Val, a: Val, b: Val) -> Val:
        """a where c, else b."""
        return self._new(self.fn.b.select(c.ir, a.ir, b.ir), a)

    def bit_and(self, a: Val, b: Val) -> Val:
        """a & b of integers or bools."""
        return self._new(self.fn.b.and_(a.ir, b.ir), a)

    def bit_or(self, a: Val, b: Val) -> Val:
        """a | b of integers or bools."""
        return self._new(self.fn.b.or_(a.ir, b.ir), a)

    def bit_xor(self, a: Val, b: Val) -> Val:
        """a ^ b of integers or bools."""
        return self._new(self.fn.b.xor(a.ir, b.ir), a)

    def bit_not(self, x: Val) -> Val:
        """~x of integers, not x of bools."""
        return self._new(self.fn.b.not_(x.ir), x)

    logical_and, logical_or, logical_xor, logical_not = bit_and, bit_or, bit_xor, bit_not

    def shl(self, a: Val, b: Val) -> Val:
        """a << b; a count outside [0, bits) gives 0."""
        inside = self._in_range(b)
        zero = self.like(0, a)
        shifted = self._new(self.fn.b.shl(a.ir, self.select(inside, b, self.like(0, b)).ir), a)
        return self.select(inside, shifted, zero)

    def shr(self, a: Val, b: Val) -> Val:
        """a >> b, signed integers keep their sign; a count outside [0, bits) shifts everything out."""
        inside = self._in_range(b)
        if is_signed(a.dtype):
            count = self.select(inside, b, self.like(_BITS[b.dtype] - 1, b))
            return self._new(self.fn.b.ashr(a.ir, count.ir), a)
        shifted = self._new(self.fn.b.lshr(a.ir, self.select(inside, b, self.like(0, b)).ir), a)
        return self.select(inside, shifted, self.like(0, a))

    def _in_range(self, count: Val) -> Val:
        top = ir.Constant(count.ir.type, _BITS[count.dtype] if count.lanes == 1 else [_BITS[count.dtype]] * count.lanes)
        return Val(self.fn.b.icmp_unsigned("<", count.ir, top), "bool", count.lanes)

    # -- casts ------------------------------------------------------------------------------------------------
    def cast(self, x: Val, dtype: str) -> Val:
        """Convert: floats to integers truncate (a value outside the integer's range gives anything), to bool is x != 0."""
        b, lanes = self.fn.b, x.lanes
        if dtype == x.dtype:
            return x
        if x.dtype == "bf16":
            return self.cast(self._from_bf16(x), dtype)
        if dtype == "bf16":
            return self._to_bf16(self.cast(x, "f32"))
        t = register_type(dtype, lanes)
        if dtype == "bool":
            return self.cmp("ne", x, self.like(0, x))
        if is_float(x.dtype):
            if x.dtype == "f64" and dtype == "f16":
                return self.cast(self._rounded_to_odd(x), "f16")
            if is_float(dtype):
                op = b.fpext if _BITS[dtype] > _BITS[x.dtype] else b.fptrunc
                return Val(op(x.ir, t), dtype, lanes)
            # by way of a wider signed integer, so that out-of-range values wrap around as they do in C compilers' code
            wide = ir.IntType(64 if _BITS[dtype] > 16 and dtype != "i32" else 32)
            if dtype == "u64":
                return Val(b.fptoui(x.ir, t), dtype, lanes)
            v = b.fptosi(x.ir, wide if lanes == 1 else ir.VectorType(wide, lanes))
            return Val(b.trunc(v, t) if wide.width > _BITS[dtype] else v, dtype, lanes)
        if is_float(dtype):
            op = b.sitofp if is_signed(x.dtype) else b.uitofp
            return Val(op(x.ir, t), dtype, lanes)
        if _BITS[dtype] == _BITS[x.dtype]:
            return Val(x.ir, dtype, lanes)
        if _BITS[dtype] < _BITS[x.dtype]:
            return Val(b.trunc(x.ir, t), dtype, lanes)
        return Val((b.sext if is_signed(x.dtype) else b.zext)(x.ir, t), dtype, lanes)

    def _rounded_to_odd(self, x: Val) -> Val:
        """f64 -> f32 such that a further rounding to f16 gives what one rounding would: inexact results get an odd last
        bit. (LLVM makes a call to a run-time library of the conversion in one step.)"""
        lanes = x.lanes
        near = Val(self.fn.b.fptrunc(x.ir, register_type("f32", lanes)), "f32", lanes)
        back = self.cast(near, "f64")
        bits = self.bits(near)
        one, zero = self.like(1, bits), self.like(0, bits)
        shrunk = self.sub(bits, self.select(self.cmp("gt", self.abs(back), self.abs(x)), one, zero))
        exact = self.bit_or(self.cmp("eq", back, x), self._unordered(x))
        return self.from_bits(self.select(exact, bits, self.bit_or(shrunk, one)))

    def bits(self, x: Val) -> Val:
        """The bit pattern of a float as a signed integer of its size."""
        dtype = {"f16": "i16", "f32": "i32", "f64": "i64"}[x.dtype]
        return Val(self.fn.b.bitcast(x.ir, register_type(dtype, x.lanes)), dtype, x.lanes)

    def from_bits(self, x: Val) -> Val:
        """The float that has this bit pattern."""
        dtype = {"i16": "f16", "i32": "f32", "i64": "f64"}[x.dtype]
        return Val(self.fn.b.bitcast(x.ir, register_type(dtype, x.lanes)), dtype, x.lanes)

    def _from_bf16(self, x: Val) -> Val:
        wide = Val(self.fn.b.zext(x.ir, register_type("i32", x.lanes)), "i32", x.lanes)
        return self.from_bits(self._new(self.fn.b.shl(wide.ir, self.like(16, wide).ir), wide))

    def _to_bf16(self, x: Val) -> Val:
        """The upper half of the bits, rounded to nearest even; a NaN is made quiet instead, lest it round to infinity."""
        b, bits = self.fn.b, self.bits(x)
        sixteen = self.like(16, bits)
        upper = self._new(b.lshr(bits.ir, sixteen.ir), bits)
        up = self.add(self.like(0x7FFF, bits), self.bit_and(upper, self.like(1, bits)))
        rounded = self._new(b.lshr(self.add(bits, up).ir, sixteen.ir), bits)
        chosen = self.select(self._unordered(x), self.bit_or(upper, self.like(0x40, bits)), rounded)
        return Val(b.trunc(chosen.ir, register_type("bf16", x.lanes)), "bf16", x.lanes)
