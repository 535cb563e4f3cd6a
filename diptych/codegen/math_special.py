"""The error function and its inverse, log gamma, and the remainders."""

from __future__ import annotations

import math

from diptych.codegen import math_tables as tables
from diptych.codegen.builder import Val
from diptych.codegen.math_lookup import Lookup

__all__ = ["Special"]


class Special(Lookup):
    """f32 by polynomials on whole vectors unless it says otherwise; bounds in units in the last place (ULP)."""

    def erf(self, x: Val) -> Val:
        """The error function. f32: error <= 2 ULP. f64: the C library's, lane by lane."""
        if x.dtype == "f16":
            return self._half(self.erf, x)
        if x.dtype == "f64":
            return self.lanewise("erf", x)
        a, one = self.limit_min(self.abs(x), self.like(4.0, x)), self.like(1, x)
        z = self.mul(a, a)
        near = self.fma(a, self.polynomial(z, tables.ERF_LOW_F32), a)
        # erfc as the exponential of a polynomial; its argument lies in [-19, 0] wherever the result is used
        exponent = self.limit_min(self.polynomial(a, tables.ERF_HIGH_F32), self.like(0, x))
        far = self.sub(one, self._exp_negative(exponent))
        return self.copysign(self.select(self.cmp("lt", a, one), near, far), x)

    def normal_cdf(self, x: Val) -> Val:
        """The normal distribution (1 + erf(x / sqrt(2))) / 2. f32: absolute error <= 6.5e-8. f64: by the C library's erfc.

        f32: one of 16 polynomials, found by permuting registers; elsewhere by way of erf.
        """
        if x.dtype == "f16":
            return self._half(self.normal_cdf, x)
        if x.dtype == "f64":
            return self.mul(self.like(0.5, x), self.lanewise("erfc", self.mul(x, self.like(-math.sqrt(0.5), x))))
        half = self.like(0.5, x)
        if not self.has_lookup:
            return self.fma(self.erf(self.mul(x, self.like(math.sqrt(0.5), x))), half, half)
        step, magic = tables.NORMAL_CDF_STEP, self.like(1.5 * 2**23, x)
        a = self.limit_min(self.abs(x), self.like(15 * step, x))  # there and beyond, the last piece: 1/2
        rounded = self.fma(a, self.like(1 / step, x), magic)
        d = self.fma(self.sub(rounded, magic), self.like(-step, x), a)
        index = self.bits(rounded)
        y = self.lookup(index, tables.NORMAL_CDF_F32[-1])
        for row in tables.NORMAL_CDF_F32[-2::-1]:
            y = self.fma(y, d, self.lookup(index, row))
        return self.add(self.copysign(y, x), half)

    def erfinv(self, x: Val) -> Val:
        """The inverse of erf; infinite at -1 and 1, NaN outside. f32: error <= 4 ULP. f64: two steps of Newton on that."""
        if x.dtype == "f16":
            return self._half(self.erfinv, x)
        if x.dtype == "f64":
            return self._erfinv_f64(x)
        one = self.like(1, x)
        a = self.abs(x)
        w = self.neg(self.log(self.mul(self.sub(one, a), self.add(one, a))))
        center = self.polynomial(self.sub(w, self.like(2.5, w)), tables.ERFINV_CENTER_F32)
        tail = self.polynomial(self.sub(self.sqrt(w), self.like(3.0, w)), tables.ERFINV_TAIL_F32)
        y = self.mul(self.select(self.cmp("lt", w, self.like(5.0, w)), center, tail), x)
        return self.select(self.cmp("eq", a, one), self.copysign(self.like(math.inf, x), x), y)

    def _erfinv_f64(self, x: Val) -> Val:
        """Halley's method on erf (near 0) or erfc (near 1), from the start that f32 would use extended to the tail."""
        one, a = self.like(1, x), self.abs(x)
        # Winitzki's formula: erf(y)^2 is close to 1 - exp(-y^2 (4/pi + c y^2) / (1 + c y^2)) with c = 0.147
        log = self.log(self.mul(self.sub(one, a), self.add(one, a)))
        half = self.fma(log, self.like(0.5, x), self.like(2 / (math.pi * 0.147), x))
        inner = self.sqrt(self.sub(self.mul(half, half), self.mul(log, self.like(1 / 0.147, x))))
        y = self.sqrt(self.limit_max(self.sub(inner, half), self.like(0, x)))
        for _ in range(4):
            near = self.sub(self.lanewise("erf", y), a)
            far = self.sub(self.sub(one, a), self.lanewise("erfc", y))
            error = self.select(self.cmp("gt", a, self.like(0.5, a)), far, near)
            slope = self.mul(self.exp(self.mul(y, y)), self.like(math.sqrt(math.pi) / 2, y))
            step = self.mul(error, slope)
            y = self.sub(y, self.div(step, self.fma(y, step, one)))
        y = self.copysign(y, x)
        return self.select(self.cmp("eq", a, one), self.copysign(self.like(math.inf, x), x), y)

    def lgamma(self, x: Val) -> Val:
        """log|gamma(x)|: the C library's in f64, lane by lane, rounded to the dtype."""
        return self.cast(self.lanewise("lgamma", self.cast(x, "f64")), x.dtype)

    def hypot(self, a: Val, b: Val) -> Val:
        """sqrt(a^2 + b^2). f32: evaluated in f64, error <= 1 ULP. f64: the C library's, lane by lane."""
        if a.dtype == "f64":
            return self.lanewise("hypot", a, b)
        wide = [self.cast(v, "f64") for v in (a, b)]
        y = self.cast(self.sqrt(self.fma(wide[0], wide[0], self.mul(wide[1], wide[1]))), a.dtype)
        inf = self.like(math.inf, a)
        either = self.bit_or(self.cmp("eq", self.abs(a), inf), self.cmp("eq", self.abs(b), inf))
        return self.select(either, inf, y)  # infinite even if the other is NaN

    # -- remainders -------------------------------------------------------------------------------------------
    def fmod(self, a: Val, b: Val) -> Val:
        """The remainder with the sign of a, exact: the C library's for floats; 0 where an integer b is 0."""
        if a.dtype == "f16":
            return self._half(self.fmod, a, b)
        if a.dtype in ("f32", "f64"):
            return self.lanewise("fmodf" if a.dtype == "f32" else "fmod", a, b)
        return self.rem(a, b)

    def mod(self, a: Val, b: Val) -> Val:
        """The remainder with the sign of b, as Python's %; 0 where an integer b is 0."""
        if a.dtype == "f16":
            return self._half(self.mod, a, b)
        zero = self.like(0, a)
        left = self.fmod(a, b)
        if a.dtype[0] == "u":
            return left
        differ = self.bit_xor(self.cmp("lt", left, zero), self.cmp("lt", b, zero))
        y = self.select(self.bit_and(differ, self.cmp("ne", left, zero)), self.add(left, b), left)
        if a.dtype[0] == "i":
            return y
        return self.select(self.cmp("eq", left, zero), self.copysign(zero, b), y)

    def floor_div(self, a: Val, b: Val) -> Val:
        """The quotient rounded down, as Python's //; 0 where an integer b is 0."""
        if a.dtype == "f16":
            return self._half(self.floor_div, a, b)
        zero = self.like(0, a)
        if a.dtype[0] == "u":
            return self.div(a, b)
        left = self.fmod(a, b)
        differ = self.bit_xor(self.cmp("lt", left, zero), self.cmp("lt", b, zero))
        lower = self.bit_and(differ, self.cmp("ne", left, zero))
        one = self.like(1, a)
        if a.dtype[0] == "i":
            q = self.div(a, b)
            return self.select(self.bit_and(lower, self.cmp("ne", b, zero)), self.sub(q, one), q)
        # a - left is a multiple of b but for its rounding, which the floor and the half below take care of
        q = self.div(self.sub(a, left), b)
        q = self.select(lower, self.sub(q, one), q)
        y = self.floor(q)
        y = self.select(self.cmp("gt", self.sub(q, y), self.like(0.5, q)), self.add(y, one), y)
        ratio = self.div(a, b)
        y = self.select(self.cmp("eq", q, zero), self.copysign(zero, ratio), y)
        return self.select(self.cmp("eq", b, zero), ratio, y)
