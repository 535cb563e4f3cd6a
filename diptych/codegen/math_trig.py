"""Trigonometric functions: f32 by polynomials on whole vectors, f64 by the C library lane by lane."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from diptych.codegen import math_tables as tables
from diptych.codegen.builder import Val
from diptych.codegen.math_parts import Parts

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Trigonometry"]

_FAR = 1e5  # beyond, the reduction of f32 arguments loses digits: the C library takes over


class Trigonometry(Parts):
    """Error bounds are in units in the last place (ULP) of f32; where a value is tiny by cancellation they still hold."""

    def _f32(self, x: Val, name: str, body: Callable[[Val], Val]) -> Val:
        """Dispatch on the dtype: f16 by way of f32, f64 by the C library."""
        if x.dtype == "f16":
            return self._half(body, x)
        return self.lanewise(name, x) if x.dtype == "f64" else body(x)

    # -- sine, cosine, tangent --------------------------------------------------------------------------------
    def _quadrant(self, x: Val) -> tuple[Val, Val, Val]:
        """x = q pi/2 + r, |r| <= pi/4: gives q as an integer, sin(r), cos(r)."""
        magic = self.like(1.5 * 2**23, x)
        shifted = self.fma(x, self.like(2 / math.pi, x), magic)
        q = self.sub(shifted, magic)
        r = x
        for piece in tables.HALF_PI_F32:  # exact in the first step, since q < 2^24
            r = self.fma(q, self.like(-piece, x), r)
        z = self.mul(r, r)
        sine = self.fma(self.mul(r, z), self.polynomial(z, tables.SIN_F32), r)
        tail = self.fma(self.mul(z, z), self.polynomial(z, tables.COS_F32), self.mul(z, self.like(-0.5, z)))
        return self.bits(shifted), sine, self.add(tail, self.like(1, z))

    def _wave(self, x: Val, symbol: str, advance: int) -> Val:
        q, sine, cosine = self._quadrant(x)
        if advance:
            q = self.add(q, self.like(advance, q))
        one, two = self.like(1, q), self.like(2, q)
        y = self.select(self.cmp("ne", self.bit_and(q, one), self.like(0, q)), cosine, sine)
        sign = self._new(self.fn.b.shl(self.bit_and(q, two).ir, self.like(30, q).ir), q)
        y = self.from_bits(self.bit_xor(self.bits(y), sign))
        return self.rarely(self._far(x), y, lambda: self.lanewise(symbol, x))

    def _far(self, x: Val) -> Val:
        return self.cmp("gt", self.abs(x), self.like(_FAR, x))

    def sin(self, x: Val) -> Val:
        """The sine. f32: error <= 1.5 ULP, the C library's for |x| > 1e5."""
        return self._f32(x, "sin", lambda v: self._wave(v, "sinf", 0))

    def cos(self, x: Val) -> Val:
        """The cosine. f32: error <= 1.5 ULP, the C library's for |x| > 1e5."""
        return self._f32(x, "cos", lambda v: self._wave(v, "cosf", 1))

    def tan(self, x: Val) -> Val:
        """The tangent. f32: error <= 3.5 ULP, the C library's for |x| > 1e5."""
        return self._f32(x, "tan", self._tan)

    def _tan(self, x: Val) -> Val:
        q, sine, cosine = self._quadrant(x)
        odd = self.cmp("ne", self.bit_and(q, self.like(1, q)), self.like(0, q))
        y = self.div(self.select(odd, self.neg(cosine), sine), self.select(odd, sine, cosine))
        return self.rarely(self._far(x), y, lambda: self.lanewise("tanf", x))

    # -- inverse functions ------------------------------------------------------------------------------------
    def _asin_parts(self, x: Val) -> tuple[Val, Val]:
        """Whether |x| < 1/2, and asin(|x|) there, else asin(sqrt((1 - |x|) / 2))."""
        a = self.abs(x)
        near = self.cmp("lt", a, self.like(0.5, x))
        far = self.fma(a, self.like(-0.5, x), self.like(0.5, x))
        z = self.select(near, self.mul(a, a), far)
        s = self.select(near, a, self.sqrt(far))
        return near, self.fma(self.mul(s, z), self.polynomial(z, tables.ASIN_F32), s)

    def asin(self, x: Val) -> Val:
        """The arc sine; NaN outside [-1, 1]. f32: error <= 2.5 ULP."""
        return self._f32(x, "asin", self._asin)

    def _asin(self, x: Val) -> Val:
        near, p = self._asin_parts(x)
        y = self.select(near, p, self.fma(p, self.like(-2, x), self.like(math.pi / 2, x)))
        return self.copysign(y, x)

    def acos(self, x: Val) -> Val:
        """The arc cosine; NaN outside [-1, 1]. f32: error <= 2 ULP."""
        return self._f32(x, "acos", self._acos)

    def _acos(self, x: Val) -> Val:
        near, p = self._asin_parts(x)
        negative = self.cmp("lt", x, self.like(0, x))
        center = self.sub(self.like(math.pi / 2, x), self.copysign(p, x))
        double = self.add(p, p)
        edge = self.select(negative, self.sub(self.like(math.pi, x), double), double)
        return self.select(near, center, edge)

    def _atan_ratio(self, a: Val, b: Val) -> Val:
        """atan(a / b) for a, b >= 0, by way of the ratio that is <= 1."""
        steep = self.cmp("gt", a, b)
        low, high = self.select(steep, b, a), self.select(steep, a, b)
        t = self.div(low, high)
        # 0 / 0 counts as 0 and inf / inf as 1, as IEEE 754 has it for atan2
        t = self.select(self.cmp("eq", low, self.like(0, low)), low, t)
        t = self.select(self.cmp("eq", low, self.like(math.inf, low)), self.like(1, t), t)
        z = self.mul(t, t)
        y = self.fma(self.mul(t, z), self.polynomial(z, tables.ATAN_F32), t)
        return self.select(steep, self.sub(self.like(math.pi / 2, y), y), y)

    def atan(self, x: Val) -> Val:
        """The arc tangent. f32: error <= 2 ULP."""
        return self._f32(
            x, "atan", lambda v: self.copysign(self._atan_ratio(self.abs(v), self.like(1, v)), v)
        )

    def atan2(self, y: Val, x: Val) -> Val:
        """The angle of the point (x, y), with the signs of zeros as in C. f32: error <= 3 ULP."""
        if y.dtype == "f64":
            return self.lanewise("atan2", y, x)
        if y.dtype == "f16":
            return self._half(self.atan2, y, x)
        angle = self._atan_ratio(self.abs(y), self.abs(x))
        left = self.cmp("lt", self.bits(x), self.like(0, self.bits(x)))  # counts -0 as negative
        angle = self.select(left, self.sub(self.like(math.pi, x), angle), angle)
        either = self.bit_or(self._unordered(x), self._unordered(y))
        return self.select(either, self.like(math.nan, x), self.copysign(angle, y))
