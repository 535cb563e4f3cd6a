"""Exponentials, logarithms and what is made of them, in f32 and f64: one algorithm each, two sets of coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diptych.codegen import math_tables as tables
from diptych.codegen.builder import Val
from diptych.codegen.math_parts import Parts

__all__ = ["ExpLog"]


@dataclass(frozen=True, slots=True)
class _Format:
    """A float format and the constants of the algorithms in it."""

    mantissa: int  # stored bits
    bias: int
    magic: float  # 1.5 * 2^mantissa: adding it rounds to an integer, which is then in the low bits
    low: float  # exp of anything below is 0
    high: float  # exp of anything above is infinite
    least: float  # smallest normal number
    ln2: tuple[float, float]
    exp: tuple[float, ...]
    expm1: tuple[float, ...]


_F32 = _Format(23, 127, 1.5 * 2**23, -104.0, 89.0, 2.0**-126, tables.LN2_F32, tables.EXP_F32, tables.EXPM1_F32)
_F64 = _Format(52, 1023, 1.5 * 2**52, -746.0, 710.0, 2.0**-1022, tables.LN2_F64, tables.EXP_F64, tables.EXPM1_F64)
_FORMATS = {"f32": _F32, "f64": _F64}


class ExpLog(Parts):
    """Error bounds are in units in the last place (ULP) against the exact value, measured by tests/codegen."""

    # -- pieces -----------------------------------------------------------------------------------------------
    def _power_of_two(self, k: Val, f: _Format) -> Val:
        """2^k for an integer k in the normal range."""
        shift = self.like(f.mantissa, k)
        return self.from_bits(self._new(self.fn.b.shl(self.add(k, self.like(f.bias, k)).ir, shift.ir), k))

    def _half_power(self, k: Val) -> Val:
        return self._new(self.fn.b.ashr(k.ir, self.like(1, k).ir), k)

    def _reduce(self, x: Val, f: _Format) -> tuple[Val, Val]:
        """x = k log(2) + r with integer k and |r| <= log(2) / 2: gives (k, r)."""
        magic = self.like(f.magic, x)
        shifted = self.fma(x, self.like(1 / math.log(2), x), magic)
        k = self.sub(shifted, magic)
        r = self.fma(k, self.like(-f.ln2[0], x), x)
        r = self.fma(k, self.like(-f.ln2[1], x), r)
        return self.sub(self.bits(shifted), self.bits(magic)), r

    def _exp_of_rest(self, r: Val, f: _Format) -> Val:
        """exp(r) = 1 + r + r^2 P(r)."""
        return self.add(self.fma(self.mul(r, r), self.polynomial(r, f.exp), r), self.like(1, r))

    def _scaled(self, y: Val, k: Val, f: _Format) -> Val:
        """y 2^k in two steps, so that k may lie outside the exponents of normal numbers; rounded once."""
        half = self._half_power(k)
        return self.mul(self.mul(y, self._power_of_two(half, f)), self._power_of_two(self.sub(k, half), f))

    def _split(self, x: Val, f: _Format) -> tuple[Val, Val]:
        """A positive normal x = 2^e (1 + m), sqrt(1/2) <= 1 + m < sqrt(2): gives (e as a float, m)."""
        start = self.bits(self.like(1.0, x))
        offset = {"f32": 0x3F3504F3, "f64": 0x3FE6A09E667F3BCD}[x.dtype]  # the bits of sqrt(1/2)
        moved = self.sub(self.bits(x), self.like(offset, start))
        e = self._new(self.fn.b.ashr(moved.ir, self.like(f.mantissa, moved).ir), moved)
        fraction = self._new(self.fn.b.and_(moved.ir, self.like((1 << f.mantissa) - 1, moved).ir), moved)
        m = self.from_bits(self.add(fraction, self.like(offset, fraction)))
        return self._small_float(e, x.dtype), self.sub(m, self.like(1, x))

    def _small_float(self, k: Val, dtype: str) -> Val:
        """An integer below 2^22 in size as a float, without the 64-bit conversion that AVX2 lacks."""
        magic = self.const(_FORMATS[dtype].magic, dtype, k.lanes)
        return self.sub(self.from_bits(self.add(k, self.bits(magic))), magic)

    def _log_of_rest(self, m: Val, e: Val, ln2: tuple[float, float]) -> Val:
        """e log(2) + log(1 + m)."""
        if m.dtype == "f32":
            square = self.mul(m, m)
            tail = self.mul(self.mul(m, square), self.polynomial(m, tables.LOG_F32))
            tail = self.fma(e, self.like(ln2[1], m), tail)
            y = self.add(self.fma(square, self.like(-0.5, m), tail), m)
        else:
            # log(1 + m) = 2 atanh(s), s = m / (2 + m); with h = m^2 / 2 it is m - (h - s (h + s^2 P(s^2))),
            # where only the last, small terms carry the error of the division
            s = self.div(m, self.add(m, self.like(2, m)))
            z = self.mul(s, s)
            h = self.mul(self.mul(m, m), self.like(0.5, m))
            inner = self.fma(z, self.polynomial(z, tables.LOG_F64), h)
            tail = self.fma(s, inner, self.mul(e, self.like(ln2[1], m)))
            y = self.sub(m, self.sub(h, tail))
        return self.fma(e, self.like(ln2[0], m), y)

    # -- exponentials -----------------------------------------------------------------------------------------
    def exp(self, x: Val) -> Val:
        """e^x. Error <= 1 ULP; overflow, subnormal results, infinities and NaN as IEEE 754 has them."""
        if x.dtype == "f16":
            return self._half(self.exp, x)
        f = _FORMATS[x.dtype]
        x = self.limit_max(self.limit_min(x, self.like(f.high, x)), self.like(f.low, x))
        k, r = self._reduce(x, f)
        return self._scaled(self._exp_of_rest(r, f), k, f)

    def _exp_negative(self, x: Val) -> Val:
        """e^x for x <= 0; results below 0.7 of the smallest normal number become 0."""
        f = _FORMATS[x.dtype]
        x = self.limit_max(x, self.like(-f.bias * math.log(2), x))  # there k is such that 2^k comes out as 0
        k, r = self._reduce(x, f)
        return self.mul(self._exp_of_rest(r, f), self._power_of_two(k, f))

    def exp_of_nonpositive(self, x: Val) -> Val:
        """e^x of f32 for x <= 0: for weights, whose error counts beside the largest of them, 1.

        Relative error <= 1.2e-7 + 1.2e-8 |x|, which is less than 1.2e-7 of 1; below e^-87.6 it is 0. The shortest there is:
        log(2) in one piece, and a plain Horner scheme.
        """
        f = _FORMATS[x.dtype]
        x = self.limit_max(x, self.like(-f.bias * math.log(2), x))  # there k is such that 2^k comes out as 0
        magic = self.like(f.magic, x)
        shifted = self.fma(x, self.like(1 / math.log(2), x), magic)
        r = self.fma(self.sub(shifted, magic), self.like(-math.log(2), x), x)
        # shifted up by the mantissa's width, nothing of the magic number is left above k
        return self.mul(self.polynomial(r, (1.0, 1.0, *f.exp)), self._power_of_two(self.bits(shifted), f))

    def exp2(self, x: Val) -> Val:
        """2^x. Error <= 1.5 ULP."""
        if x.dtype == "f16":
            return self._half(self.exp2, x)
        f = _FORMATS[x.dtype]
        least = float(f.mantissa + f.bias + 1)
        x = self.limit_max(self.limit_min(x, self.like(float(f.bias + 1), x)), self.like(-least, x))
        magic = self.like(f.magic, x)
        shifted = self.add(x, magic)
        r = self.mul(self.sub(x, self.sub(shifted, magic)), self.like(math.log(2), x))
        return self._scaled(self._exp_of_rest(r, f), self.sub(self.bits(shifted), self.bits(magic)), f)

    def _half_expm1(self, x: Val) -> Val:
        """(e^x - 1) / 2, which overflows only where sinh does."""
        f = _FORMATS[x.dtype]
        # above, k ends one past the exponents of normal numbers plus one; below, the result is -1/2
        x = self.limit_max(self.limit_min(x, self.like(f.high + 0.5, x)), self.like(-0.85 * f.mantissa, x))
        k, r = self._reduce(x, f)
        p = self.fma(self.mul(r, r), self.polynomial(r, f.expm1), r)
        scale = self._power_of_two(self.sub(k, self.like(2, k)), f)
        quarter = self.fma(scale, p, self.sub(scale, self.like(0.25, scale)))
        return self.add(quarter, quarter)

    def expm1(self, x: Val) -> Val:
        """e^x - 1. Error <= 2 ULP."""
        if x.dtype == "f16":
            return self._half(self.expm1, x)
        h = self._half_expm1(x)
        small = self.cmp("lt", self.abs(x), self.like(2.0**-30 if x.dtype == "f32" else 2.0**-60, x))
        return self.select(small, x, self.add(h, h))

    # -- logarithms -------------------------------------------------------------------------------------------
    def log(self, x: Val) -> Val:
        """The natural logarithm. Error <= 1 ULP; -inf at 0, NaN below."""
        return self._log(x, 1.0)

    def log2(self, x: Val) -> Val:
        """The logarithm to base 2. Error <= 2 ULP."""
        return self._log(x, math.log(2))

    def log10(self, x: Val) -> Val:
        """The logarithm to base 10. Error <= 3 ULP."""
        return self._log(x, math.log(10))

    def _log(self, x: Val, base: float) -> Val:
        if x.dtype == "f16":
            return self._half(lambda v: self._log(v, base), x)
        f = _FORMATS[x.dtype]
        subnormal = self.cmp("lt", x, self.like(f.least, x))
        lifted = self.select(subnormal, self.mul(x, self.like(2.0 ** (f.mantissa + 2), x)), x)
        e, m = self._split(lifted, f)
        e = self.sub(e, self.select(subnormal, self.like(f.mantissa + 2, e), self.like(0, e)))
        if base == 1.0:
            y = self._log_of_rest(m, e, f.ln2)
        elif base == math.log(2):
            y = self.fma(self._log_of_rest(m, self.like(0, e), f.ln2), self.like(1 / base, x), e)
        else:
            y = self.mul(self._log_of_rest(m, e, f.ln2), self.like(1 / base, x))
        return self._log_special(x, y)

    def _log_special(self, x: Val, y: Val) -> Val:
        """The logarithm y of x put right where x is 0, infinite, negative or NaN."""
        inf = self.like(math.inf, x)
        y = self.select(self.cmp("lt", x, inf), y, x)  # inf and NaN are their own logarithms
        y = self.select(self.cmp("lt", x, self.like(0, x)), self.like(math.nan, x), y)
        return self.select(self.cmp("eq", x, self.like(0, x)), self.like(-math.inf, x), y)

    def log1p(self, x: Val) -> Val:
        """log(1 + x). Error <= 2 ULP."""
        if x.dtype == "f16":
            return self._half(self.log1p, x)
        f, one = _FORMATS[x.dtype], self.like(1, x)
        u = self.add(x, one)
        # what the sum has lost, from whichever operand is the larger
        big = self.cmp("gt", x, one)
        lost = self.select(big, self.sub(one, self.sub(u, x)), self.sub(x, self.sub(u, one)))
        e, m = self._split(u, f)
        y = self.add(self._log_of_rest(m, e, f.ln2), self.div(lost, u))
        y = self._log_special(u, y)
        small = self.cmp("lt", self.abs(x), self.like(2.0**-30 if x.dtype == "f32" else 2.0**-60, x))
        return self.select(small, x, y)

    # -- hyperbolics and the logistic function ----------------------------------------------------------------
    def _one_plus_exp(self, x: Val) -> Val:
        """1 + e^-x, infinite where e^-x is above 2^127.5."""
        f = _FORMATS[x.dtype]
        shifted, k = self._steps(x, f, 1)
        r = self.fma(k, self.like(f.ln2[1], x), self.fma(k, self.like(f.ln2[0], x), x))  # -x = k log(2) - r
        signs = [(-1.0) ** i for i in range(len(f.exp) + 2)]
        p = self.polynomial(r, [s * c for s, c in zip(signs, (1.0, 1.0, *f.exp), strict=True)])
        scale = self._power_of_two(self.sub(self.bits(shifted), self.bits(self.like(f.magic, x))), f)
        return self.fma(p, scale, self.like(1, x))

    def _steps(self, x: Val, f: _Format, per_octave: int) -> tuple[Val, Val]:
        """The integer k nearest to -x per_octave / log(2), plus magic and alone."""
        magic = self.like(f.magic, x)
        shifted = self.fma(x, self.like(-per_octave / math.log(2), x), magic)
        return shifted, self.sub(shifted, magic)

    def _within(self, x: Val) -> Val:
        """x limited to where 2^k is made of the exponent's bits alone: e^-x is infinite at one end, 0 at the other."""
        bias = _FORMATS[x.dtype].bias
        low, high = self.like(-(bias + 1) * math.log(2), x), self.like(bias * math.log(2), x)
        return self.limit_max(self.limit_min(x, high), low)

    def _quick_one_plus_exp(self, x: Val) -> Val:
        """1 + e^-x of f32 with three multiply-adds less, which is what its time is made of: half powers of two make the
        polynomial shorter by two, and log(2) is rounded once: 2.7e-9 of x, an error relative to e^-x."""
        shifted, k = self._steps(x, _F32, 2)
        p = self.polynomial(self.fma(k, self.like(math.log(2) / 2, x), x), tables.EXP_MINUS_F32)
        n = self.bits(shifted)  # its low bits are k; moved up by 22 the lowest of them makes a factor 1.5
        even = self.add(self._new(self.fn.b.shl(n.ir, self.like(22, n).ir), n), self.bits(self.like(1.0, x)))
        odd = self.add(even, self.like(0x3FB504F3 - 0x3FC00000, n))  # the bits of sqrt(2) for those of 1.5
        is_odd = self.cmp("ne", self._new(self.fn.b.and_(n.ir, self.like(1, n).ir), n), self.like(0, n))
        return self.fma(p, self.from_bits(self.select(is_odd, odd, even)), self.like(1, x))

    def sigmoid(self, x: Val) -> Val:
        """1 / (1 + e^-x). Error <= 2.5 ULP; results below the smallest normal number may become 0."""
        if x.dtype == "f16":
            return self._half(self.sigmoid, x)
        return self.div(self.like(1, x), self._one_plus_exp(self._within(x)))

    def silu(self, x: Val) -> Val:
        """x / (1 + e^-x). Error <= 7 ULP, 4.1 where |x| < 20; where e^-x is above 2^127.5 the result may become 0."""
        if x.dtype == "f16":
            return self._half(self.silu, x)
        quick = self._quick_one_plus_exp if x.dtype == "f32" else self._one_plus_exp
        return self.div(x, quick(self._within(x)))

    def tanh(self, x: Val) -> Val:
        """The hyperbolic tangent. Error <= 2.5 ULP."""
        if x.dtype == "f16":
            return self._half(self.tanh, x)
        # with h = (e^(-2|x|) - 1) / 2:  tanh |x| = -h / (h + 1)
        h = self._half_expm1(self.mul(self.abs(x), self.like(-2, x)))
        y = self.div(self.neg(h), self.add(h, self.like(1, x)))
        small = self.cmp("lt", self.abs(x), self.like(2.0**-20 if x.dtype == "f32" else 2.0**-40, x))
        return self.select(small, x, self.copysign(y, x))

    def sinh(self, x: Val) -> Val:
        """The hyperbolic sine. Error <= 2.5 ULP."""
        if x.dtype == "f16":
            return self._half(self.sinh, x)
        h = self._half_expm1(self.abs(x))
        y = self.add(h, self.div(h, self.fma(h, self.like(2, h), self.like(1, h))))
        y = self.select(self.cmp("lt", h, self.like(2.0**60, h)), y, h)  # inf / inf would be NaN
        small = self.cmp("lt", self.abs(x), self.like(2.0**-20 if x.dtype == "f32" else 2.0**-40, x))
        return self.select(small, x, self.copysign(y, x))

    def cosh(self, x: Val) -> Val:
        """The hyperbolic cosine. Error <= 2 ULP."""
        if x.dtype == "f16":
            return self._half(self.cosh, x)
        f = _FORMATS[x.dtype]
        a = self.limit_min(self.abs(x), self.like(f.high + 1, x))
        k, r = self._reduce(a, f)
        half = self._scaled(self._exp_of_rest(r, f), self.sub(k, self.like(1, k)), f)
        return self.add(half, self.div(self.like(0.25, x), half))

    def asinh(self, x: Val) -> Val:
        """The inverse hyperbolic sine. Error <= 2.5 ULP."""
        if x.dtype == "f16":
            return self._half(self.asinh, x)
        a, one = self.abs(x), self.like(1, x)
        square = self.mul(a, a)
        root = self.sqrt(self.add(square, one))
        y = self._log1p_doubled(a, self.add(a, self.div(square, self.add(root, one))))
        return self.copysign(y, x)

    def acosh(self, x: Val) -> Val:
        """The inverse hyperbolic cosine; NaN below 1. Error <= 2.5 ULP."""
        if x.dtype == "f16":
            return self._half(self.acosh, x)
        t = self.sub(x, self.like(1, x))
        y = self._log1p_doubled(x, self.add(t, self.sqrt(self.fma(t, t, self.add(t, t)))))
        return self.select(self.cmp("lt", x, self.like(1, x)), self.like(math.nan, x), y)

    def _log1p_doubled(self, a: Val, usual: Val) -> Val:
        """log1p(usual), or log(2 a) where a is so large that `usual` may overflow and the two agree."""
        big = self.cmp("gt", a, self.like(2.0**40 if a.dtype == "f32" else 2.0**60, a))
        y = self.log1p(self.select(big, a, usual))
        return self.add(y, self.select(big, self.like(math.log(2), a), self.like(0, a)))

    def atanh(self, x: Val) -> Val:
        """The inverse hyperbolic tangent; NaN outside [-1, 1]. Error <= 2.5 ULP."""
        if x.dtype == "f16":
            return self._half(self.atanh, x)
        a, one = self.abs(x), self.like(1, x)
        y = self.mul(self.log1p(self.div(self.add(a, a), self.sub(one, a))), self.like(0.5, x))
        return self.copysign(y, x)

    # -- powers -----------------------------------------------------------------------------------------------
    def pow(self, x: Val, y: Val) -> Val:
        """x^y. f32: error <= 1 ULP, evaluated in f64. f64: the C library's, lane by lane. Integers: by squaring."""
        if x.dtype == "f16":
            return self._half(self.pow, x, y)
        if x.dtype == "f64":
            return self.lanewise("pow", x, y)
        if x.dtype != "f32":
            return self._integer_power(x, y)
        magnitude = self.mul(self.cast(y, "f64"), self.log(self.cast(self.abs(x), "f64")))
        result = self.cast(self.exp(magnitude), "f32")
        zero, one = self.like(0, x), self.like(1, x)
        whole = self.cmp("eq", self.trunc(y), y)
        half = self.mul(y, self.like(0.5, y))
        odd = self.bit_and(whole, self.cmp("ne", self.trunc(half), half))
        result = self.select(odd, self.copysign(result, x), result)
        finite_negative = self.bit_and(self.cmp("lt", x, zero), self.cmp("gt", x, self.like(-math.inf, x)))
        nan = self.bit_and(finite_negative, self.bit_not(self.bit_or(whole, self._unordered(y))))
        result = self.select(nan, self.like(math.nan, x), result)
        # 1 whatever the other operand: x^0, 1^y, and (-1)^(+-inf)
        infinite = self.cmp("eq", self.abs(y), self.like(math.inf, y))
        units = self.bit_or(self.cmp("eq", x, one), self.bit_and(infinite, self.cmp("eq", self.abs(x), one)))
        return self.select(self.bit_or(units, self.cmp("eq", y, zero)), one, result)

    def _integer_power(self, x: Val, y: Val) -> Val:
        zero, one = self.like(0, x), self.like(1, x)
        signed = x.dtype[0] == "i"
        bits = int(x.dtype[1:])
        result, base, left = one, x, y
        for step in range(bits - signed):
            bit = self.cmp("ne", self.bit_and(left, one), zero)
            result = self.select(bit, self.mul(result, base), result)
            if step + 1 < bits - signed:
                base = self.mul(base, base)
                left = self._new(self.fn.b.lshr(left.ir, one.ir), left)
        if not signed:
            return result
        # the truncated power for a negative exponent: +-1 has one, anything else is less than 1
        minus_one = self.like(-1, x)
        odd = self.cmp("ne", self.bit_and(y, one), zero)
        inverse = self.select(self.cmp("eq", x, one), one, zero)
        inverse = self.select(self.cmp("eq", x, minus_one), self.select(odd, minus_one, one), inverse)
        return self.select(self.cmp("lt", y, zero), inverse, result)
