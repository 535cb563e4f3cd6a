"""The vector functions against wider arithmetic, over all exponents; the bounds are those their docstrings state."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jit import Array, compiled, ulps

from diptych.codegen.math import Math
from diptych.ops import special

Exact = Callable[[Array], Array]

F32: dict[str, Exact] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2, "log10": np.log10,
    "log1p": np.log1p, "tanh": np.tanh, "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos,
    "atan": np.arctan, "erf": special.erf, "sqrt": np.sqrt,
}  # fmt: skip
F64 = [n for n in F32 if n not in ("erf", "sin", "cos", "tan", "asin", "acos", "atan")]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 2.0, 10.0]


def bound(name: str) -> float:
    """The error bound that the docstring promises, in ULP."""
    doc = getattr(Math, name).__doc__
    if "correctly rounded" in doc:
        return 0.5
    found = re.search(r"[Ee]rror <= ([\d.]+) ULP", doc)
    assert found, f"{name} states no bound"
    return float(found[1])


def sweep32(rng: np.random.Generator) -> Array:
    """Every exponent with both signs, the ranges where functions bend, subnormals and special values."""
    bits = np.arange(0, 2**32, 8191, dtype=np.uint64).astype(np.uint32).view(np.float32)
    parts = [bits, np.linspace(-20, 20, 80001), np.linspace(-1, 1, 80001), rng.uniform(-110, 110, 80000)]
    edges = [88.72283, 88.72284, 89.41, 89.42, -87.33654, -103.97, -103.98, -126.0, 128.0, 127.99999, 1e-45, -1e-45]
    return np.concatenate([np.asarray(p, np.float32) for p in (*parts, SPECIAL, edges)])


def sweep64(rng: np.random.Generator) -> Array:
    bits = rng.integers(0, 2**64, 60000, dtype=np.uint64).view(np.float64)
    parts = [bits, np.linspace(-20, 20, 20001), np.linspace(-1, 1, 20001), rng.uniform(-760, 720, 20000)]
    edges = [709.78, 709.79, 710.47, 710.48, -745.13, -745.14, 5e-324, -5e-324, 1024.0, -1074.5]
    return np.concatenate([*parts, SPECIAL, edges])


def worst(name: str, x: Array, got: Array, exact: Array) -> tuple[float, str]:
    distance = ulps(got, exact)
    i = int(np.argmax(np.where(np.isnan(distance), np.inf, distance)))
    return float(distance[i]), f"{name}({x[i]!r}) = {got[i]!r}, should be {exact[i]!r}"


@pytest.mark.parametrize("name", F32)
def test_f32_function_is_within_its_bound(name: str, rng: np.random.Generator) -> None:
    x = sweep32(rng)
    got = compiled(lambda k, v: getattr(k, name)(v), ["f32"], "f32")(x)
    with np.errstate(all="ignore"):
        error, where = worst(name, x, got, F32[name](x.astype(np.float64)))
    assert error <= bound(name) + 0.001, where  # the "exact" value has an error of its own


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="NumPy has no type wider than float64 here")
@pytest.mark.parametrize("name", F64)
def test_f64_function_is_within_its_bound(name: str, rng: np.random.Generator) -> None:
    x = sweep64(rng)
    got = compiled(lambda k, v: getattr(k, name)(v), ["f64"], "f64", lanes=4)(x)
    with np.errstate(all="ignore"):
        error, where = worst(name, x, got, F32[name](x.astype(np.longdouble)))
    assert error <= bound(name) + 0.001, where


@pytest.mark.parametrize("name", ["sin", "cos", "tan", "asin", "acos", "atan", "erf", "lgamma", "erfinv"])
def test_f64_function_of_the_c_library(name: str, rng: np.random.Generator) -> None:
    x = np.concatenate([rng.uniform(-1, 1, 300), rng.uniform(-6, 6, 100), SPECIAL])
    got = compiled(lambda k, v: getattr(k, name)(v), ["f64"], "f64", lanes=4)(x)
    with np.errstate(all="ignore"):
        expected = {**F32, "lgamma": special.lgamma, "erfinv": special.erfinv}[name](x)
    np.testing.assert_allclose(got, expected, rtol=2e-15, atol=1e-15)


def test_sigmoid(rng: np.random.Generator) -> None:
    for dtype, wide, x in (("f32", np.float64, sweep32(rng)), ("f64", np.longdouble, sweep64(rng))):
        got = compiled(lambda k, v: k.sigmoid(v), [dtype], dtype, lanes=4)(x)
        with np.errstate(all="ignore"):
            exact = 1 / (1 + np.exp(-x.astype(wide)))
        least = np.finfo(x.dtype).tiny
        normal = ~(np.abs(exact) < least)
        error, where = worst("sigmoid", x[normal], got[normal], exact[normal])
        assert error <= bound("sigmoid") + 0.001, where
        assert np.all((got[~normal] >= 0) & (got[~normal] <= least))


def test_exp_of_nonpositive(rng: np.random.Generator) -> None:
    x = sweep32(rng)
    x = np.concatenate([x[x <= 0], x[np.isnan(x)], [np.float32(-0.0)]])
    for lanes in (1, 8, 16):
        got = compiled(lambda k, v: k.exp_of_nonpositive(v), ["f32"], "f32", lanes=lanes)(x)
        with np.errstate(all="ignore"):
            exact = np.exp(x.astype(np.float64))
            far, near = x < -87.7, x > -87.5
            relative = np.abs(got - exact) / exact
        np.testing.assert_array_equal(np.isnan(got), np.isnan(x))
        assert (got[far] == 0).all()
        assert (got[x == 0] == 1).all()
        assert (relative[near] <= 1.2e-7 + 1.2e-8 * np.abs(x[near])).all(), x[near][np.argmax(relative[near])]
        assert np.nanmax(np.abs(got - exact)) <= 1.2e-7


def test_normal_cdf(rng: np.random.Generator) -> None:
    x = np.concatenate([np.linspace(-8, 8, 200001), rng.uniform(-6, 6, 5000), SPECIAL, [1e-30, -1e30]]).astype(np.float32)
    exact = 0.5 * (1 + special.erf(x.astype(np.float64) * math.sqrt(0.5)))
    for lanes in (1, 4, 8, 16, 32):
        got = compiled(lambda k, v: k.normal_cdf(v), ["f32"], "f32", lanes=lanes)(x)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(x))
        assert np.nanmax(np.abs(got - exact)) <= 6.5e-8
        assert np.nanmin(got) >= 0
        assert np.nanmax(got) <= 1
        assert (got[x < -6] == 0).all()
    wide = compiled(lambda k, v: k.normal_cdf(v), ["f64"], "f64", lanes=4)(x.astype(np.float64))
    np.testing.assert_allclose(wide, exact, atol=2e-16)


def test_erfinv_and_lgamma_f32(rng: np.random.Generator) -> None:
    near_one = 1 - np.exp2(-np.arange(1, 25, 0.25))
    x = np.concatenate([rng.uniform(-1, 1, 4000), near_one, -near_one, SPECIAL, [1e-30, -1e-40]]).astype(np.float32)
    got = compiled(lambda k, v: k.erfinv(v), ["f32"], "f32")(x)
    error, where = worst("erfinv", x, got, special.erfinv(x.astype(np.float64)))
    assert error <= bound("erfinv"), where
    x = np.concatenate([rng.uniform(-9, 40, 2000), SPECIAL, [1e30, -3.0]]).astype(np.float32)
    got = compiled(lambda k, v: k.lgamma(v), ["f32"], "f32")(x)
    error, where = worst("lgamma", x, got, special.lgamma(x.astype(np.float64)))
    assert error <= 0.501, where


def grid(dtype: type[np.floating[Any]], rng: np.random.Generator) -> tuple[Array, Array]:
    """All pairs of interesting values, and random pairs of every size."""
    values = [*SPECIAL, -2.0, 3.0, -3.0, 1e-45, -1e-45, 3e38, -3e38, 1e10, 2.5, -2.5, 127.0, -149.0, 16777217.0]
    a, b = (v.ravel() for v in np.meshgrid(values, values))
    size = np.exp(rng.uniform(-80, 80, 40000)) * rng.choice([-1, 1], 40000)
    a = np.concatenate([a, size, np.exp(rng.uniform(-9, 9, 20000)), rng.integers(-20, 20, 20000)])
    b = np.concatenate([b, rng.uniform(-9, 9, 60000), rng.integers(-9, 9, 20000)])
    return a.astype(dtype), b.astype(dtype)


@pytest.mark.parametrize(("name", "exact"), [("pow", np.power), ("atan2", np.arctan2), ("hypot", np.hypot)])
def test_f32_function_of_two_operands(name: str, exact: np.ufunc, rng: np.random.Generator) -> None:
    a, b = grid(np.float32, rng)
    got = compiled(lambda k, x, y: getattr(k, name)(x, y), ["f32", "f32"], "f32")(a, b)
    with np.errstate(all="ignore"):
        wide = exact(a.astype(np.float64), b.astype(np.float64))
    distance = ulps(got, wide)
    i = int(np.argmax(distance))
    assert distance[i] <= bound(name), f"{name}({a[i]!r}, {b[i]!r}) = {got[i]!r}, should be {wide[i]!r}"
    zero = wide == 0
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(wide[zero]))


@pytest.mark.parametrize(
    ("name", "exact"),
    [("fmod", np.fmod), ("mod", np.mod), ("floor_div", np.floor_divide), ("max", np.maximum), ("min", np.minimum)],
)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_exact_function_of_two_operands(name: str, exact: np.ufunc, dtype: str, rng: np.random.Generator) -> None:
    a, b = grid(np.float32 if dtype == "f32" else np.float64, rng)
    got = compiled(lambda k, x, y: getattr(k, name)(x, y), [dtype, dtype], dtype)(a, b)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got, exact(a, b))


@pytest.mark.parametrize("lanes", [1, 2, 8, 16])
def test_the_number_of_lanes_changes_no_bit(lanes: int, rng: np.random.Generator) -> None:
    def body(k: Math, x: Any) -> Any:
        return k.add(k.add(k.erf(x), k.normal_cdf(x)), k.add(k.sin(x), k.mul(k.tanh(x), k.log(k.abs(x)))))

    x = np.concatenate([rng.uniform(-5, 5, 333), [2e5, -3e30]]).astype(np.float32)
    expected = compiled(body, ["f32"], "f32", lanes=4)(x)
    np.testing.assert_array_equal(compiled(body, ["f32"], "f32", lanes=lanes)(x), expected)


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid", "erf", "sin", "sqrt", "floor", "abs"])
def test_half_precision_is_rounded_once_from_f32(name: str, rng: np.random.Generator) -> None:
    x = rng.uniform(-9, 9, 500).astype(np.float16)
    got = compiled(lambda k, v: getattr(k, name)(v), ["f16"], "f16")(x)
    with np.errstate(all="ignore"):
        table = {**F32, "sigmoid": lambda v: 1 / (1 + np.exp(-v)), "floor": np.floor, "abs": np.abs}
        exact = table[name](x.astype(np.float64))
    assert np.nanmax(ulps(got, exact)) <= 0.51
    np.testing.assert_array_equal(np.isnan(got), np.isnan(exact))


def test_far_arguments_of_sine_keep_their_digits() -> None:
    x = np.array([1e5, 1.0001e5, 123456.7, 1e8, 3.3e20, 3e38, -7e30, 99999.99], np.float32)
    for name in ("sin", "cos", "tan"):
        got = compiled(lambda k, v, name=name: getattr(k, name)(v), ["f32"], "f32", lanes=4)(x)
        exact = np.array([getattr(math, name)(float(v)) for v in x])
        assert ulps(got, exact).max() <= bound(name)


def test_silu(rng: np.random.Generator) -> None:
    for dtype, wide, x in (("f32", np.float64, sweep32(rng)), ("f64", np.longdouble, sweep64(rng))):
        got = compiled(lambda k, v: k.silu(v), [dtype], dtype, lanes=4)(x)
        with np.errstate(all="ignore"):
            factor = 1 / (1 + np.exp(-x.astype(wide)))
            exact = x * factor
        normal = ~(factor < np.finfo(x.dtype).tiny)
        error, where = worst("silu", x[normal], got[normal], exact[normal])
        assert error <= bound("silu") + 0.001, where
        near = np.abs(x) < 20
        assert worst("silu", x[near], got[near], exact[near])[0] <= 4.101
        vanishing = ~normal & np.isfinite(x)
        assert np.all(np.abs(got[vanishing]) <= np.abs(exact[vanishing]).astype(x.dtype) + np.finfo(x.dtype).tiny)
        assert np.all(np.isnan(got[np.isneginf(x)]))  # -inf * 0
