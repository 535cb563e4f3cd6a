"""Arithmetic, bits and casts of every dtype against NumPy, and what the generated code may call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jit import Array, compiled
from llvmlite import ir

from diptych.codegen.builder import PTR, Fn, Val
from diptych.codegen.math import C_FUNCTIONS, Math
from diptych.codegen.object import object_code
from diptych.ir import DTYPES, numpy_dtype
from diptych.ops import OPS, Cast
from diptych.runtime.elf import EXTERNAL, parse_object
from diptych.targets.base import Target

INTS = ["i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64"]
BINARY = [
    "add", "sub", "mul", "div", "fmod", "mod", "floor_div", "pow", "maximum", "minimum", "left_shift", "right_shift",
    "bitwise_and", "bitwise_or", "bitwise_xor", "equal", "less", "greater_equal",
]  # fmt: skip


def corners(dtype: str) -> tuple[Array, Array]:
    """All pairs of the values where integer arithmetic goes wrong."""
    t = numpy_dtype(dtype)
    info = np.iinfo(t)
    values = [0, 1, 2, 3, 7, 63, info.max, info.max - 1, info.min, info.min + 1]
    values += [-1, -2, -3, -7] if t.kind == "i" else []
    a, b = np.meshgrid(np.array(values, t), np.array(values, t))
    return a.ravel(), b.ravel()


@pytest.mark.parametrize("dtype", INTS)
def test_integer_operators(dtype: str) -> None:
    a, b = corners(dtype)
    for name in BINARY:
        op: Any = OPS[name]()
        output = "bool" if name in ("equal", "less", "greater_equal") else dtype
        got = compiled(op.lower, [dtype, dtype], output)(a, b)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(got, op.reference(a, b), err_msg=f"{name} {dtype}")
    for name in ("neg", "abs", "sign", "relu", "bitwise_not", "floor"):
        op = OPS[name]()
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(compiled(op.lower, [dtype], dtype)(a), op.reference(a), err_msg=name)


def test_bool_operators() -> None:
    a, b = (v.ravel() for v in np.meshgrid([False, True], [False, True]))
    for name in ("logical_and", "logical_or", "logical_xor", "bitwise_and", "maximum", "minimum", "equal", "not_equal"):
        op: Any = OPS[name]()
        np.testing.assert_array_equal(compiled(op.lower, ["bool", "bool"], "bool")(a, b), op.reference(a, b))
    for name in ("logical_not", "bitwise_not"):
        op = OPS[name]()
        np.testing.assert_array_equal(compiled(op.lower, ["bool"], "bool")(a), op.reference(a))


@pytest.mark.parametrize("source", ["f32", "f64", "f16", "bf16", "bool", *INTS])
@pytest.mark.parametrize("target", ["f32", "f64", "f16", "bf16", "bool", *INTS])
def test_casts(source: str, target: str, rng: np.random.Generator) -> None:
    low, high = (0, 120) if "u" in source[0] + target[0] else (-120, 120)
    x = rng.uniform(low, high, 200)
    x[:3] = 0, 1, 0.25
    array = Cast("bf16").reference(x) if source == "bf16" else x.astype(numpy_dtype(source))
    op = Cast(target, "bf16" if source == "bf16" else "")
    np.testing.assert_array_equal(compiled(op.lower, [source], target)(array), op.reference(array))


def test_f64_to_f16_is_rounded_once(rng: np.random.Generator) -> None:
    ties = 1 + np.arange(64) * 2.0**-11
    x = np.concatenate([ties, ties * (1 + 2.0**-40), ties * (1 - 2.0**-40), rng.uniform(-9, 9, 500), [65519.999, 65520, 1e300]])
    x = np.concatenate([x, -x, x * 1e-8, [np.inf, np.nan, 0.0, -0.0, 5e-324]])
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    np.testing.assert_array_equal(compiled(lambda k, v: k.cast(v, "f16"), ["f64"], "f16")(x), expected)


def test_wide_integers_wrap_when_narrowed_and_keep_their_value_when_widened() -> None:
    x = np.array([-1, 255, 256, 300, 1 << 40, -(1 << 40) - 7], np.int64)
    for target in ("i8", "u8", "i32", "u32", "u64", "f32", "f64"):
        got = compiled(lambda k, v, target=target: k.cast(v, target), ["i64"], target)(x)
        np.testing.assert_array_equal(got, x.astype(numpy_dtype(target)))


def test_bf16_rounds_to_nearest_even_and_keeps_nan_and_infinity(rng: np.random.Generator) -> None:
    bits = rng.integers(0, 2**32, 20000, dtype=np.uint64).astype(np.uint32)
    ties = (np.arange(0x3F80, 0x3FA0, dtype=np.uint32) << 16) | 0x8000
    nans = np.array([0x7F800001, 0xFFFFFFFF, 0x7F800000, 0xFF800000], np.uint32)
    x = np.concatenate([bits, ties, nans]).view(np.float32)
    got = compiled(lambda k, v: k.cast(v, "bf16"), ["f32"], "bf16")(x)
    np.testing.assert_array_equal(got, Cast("bf16").reference(x))
    back = (got.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(x))
    assert np.all(got[len(bits) : -4] % 2 == 0)  # ties went to the even neighbour


def test_nan_comes_through_max_min_and_relu() -> None:
    nan = np.float32("nan")
    a, b = np.array([nan, 1, nan, -2], np.float32), np.array([1, nan, nan, 5], np.float32)
    np.testing.assert_array_equal(compiled(lambda k, x, y: k.max(x, y), ["f32", "f32"], "f32")(a, b), np.maximum(a, b))
    np.testing.assert_array_equal(compiled(lambda k, x, y: k.min(x, y), ["f32", "f32"], "f32")(a, b), np.minimum(a, b))
    np.testing.assert_array_equal(compiled(lambda k, x: k.relu(x), ["f32"], "f32")(a), np.maximum(a, np.float32(0)))


UNARY = [
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "tanh", "sigmoid", "sinh", "cosh", "asinh", "acosh",
    "atanh", "sin", "cos", "tan", "asin", "acos", "atan", "erf", "erfinv", "lgamma", "sqrt", "floor", "ceil", "rint",
    "trunc", "abs", "neg", "relu",
]  # fmt: skip


MACHINES = [
    Target("x86-64-v3", "x86_64-unknown-linux-gnu", "x86-64-v3", "", 32, 16),
    Target("x86-64-v4", "x86_64-unknown-linux-gnu", "znver4", "", 64, 32, is_host=False),
    Target("aarch64", "aarch64-unknown-linux-gnu", "neoverse-v1", "", 16, 32, is_host=False),
]


def undefined(target: Target, bodies: list[tuple[str, Callable[[Math, Val], Val]]], lanes: int) -> set[str]:
    """The symbols that machine code leaves to the loader."""
    module = ir.Module("calls")
    fn = Fn(module, "f", [("x", PTR), ("y", PTR)], target)
    k = Math(fn)
    for i, (dtype, body) in enumerate(bodies):
        fn.store(body(k, fn.load(fn.args["x"], dtype, lanes)), fn.at(fn.args["y"], 1024 * i, "i8"))
    fn.finish()
    symbols = parse_object(object_code(module, target)).symbols
    return {symbols.name(i) for i in range(len(symbols)) if symbols.section[i] == EXTERNAL} - {""}


@pytest.mark.parametrize("target", MACHINES, ids=lambda t: t.name)
@pytest.mark.parametrize("lanes", [1, 8])
def test_code_calls_only_what_a_loader_is_told_about(target: Target, lanes: int) -> None:
    functions: list[Callable[[Math, Val], Val]] = [lambda k, x, n=n: getattr(k, n)(x) for n in UNARY]
    pairs = ("pow", "atan2", "hypot", "fmod", "mod", "floor_div", "max", "min", "div")
    functions += [lambda k, x, n=n: getattr(k, n)(x, x) for n in pairs]
    found = {d: undefined(target, [(d, f) for f in functions], lanes) for d in ("f16", "f32", "f64")}
    assert found["f32"] == {"sinf", "cosf", "tanf", "fmodf", "lgamma"}
    assert found["f16"] == found["f32"]
    assert found["f64"] | found["f32"] == set(C_FUNCTIONS)


@pytest.mark.parametrize("target", MACHINES, ids=lambda t: t.name)
def test_casts_call_nothing(target: Target) -> None:
    casts: list[tuple[str, Callable[[Math, Val], Val]]] = [
        (a, lambda k, x, b=b: k.cast(x, b)) for a in DTYPES for b in DTYPES
    ]
    assert undefined(target, casts, 4) == set()
