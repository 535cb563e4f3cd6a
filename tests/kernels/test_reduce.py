"""Reductions against NumPy: every order of kept and reduced dims, tails, dtypes, fused programs, accuracy of sums."""

from __future__ import annotations

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, expr, misaligned, view

from diptych.ir.kernel import Expr, Kernel
from diptych.kernels.reduce import make_reduce
from diptych.ops import OPS

ONE = Expr.identity()


def reduce(x: Array, name: str, axes: tuple[int, ...], out: Array) -> Kernel:
    kernel = make_reduce(x.shape, axes, ONE, (OPS[name](axes),), ONE, [view(x)], [], [view(out)], V3)
    build(kernel)(x, out)
    return kernel


SHAPES = [(3, 5), (17, 33), (4, 67), (2, 3, 49), (5, 8, 7), (131, 9), (1, 1, 1), (2, 40, 3), (3, 300, 70)]


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_over_any_axes(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x = rng.standard_normal(shape).astype(np.float32)
    rank = len(shape)
    for bits in range(1, 1 << rank):
        axes = tuple(d for d in range(rank) if bits >> d & 1)
        want = x.sum(axes, np.float64)
        out = misaligned(want.shape)
        reduce(x, "sum", axes, out)
        np.testing.assert_allclose(out, want, rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("name", ["sum", "max", "min", "prod"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i4", "i8", "u1"])
def test_dtypes(name: str, dtype: str, rng: np.random.Generator) -> None:
    x = rng.integers(1, 4, (6, 5, 19)).astype(dtype)
    if name == "prod":
        x[:, :, 3:] = 1
    for axes in ((0,), (1,), (2,), (0, 2) if name != "prod" else (0,)):
        want = getattr(np, name)(x.astype("f4") if dtype == "f2" else x, axes, keepdims=False)
        out = np.zeros(want.shape, dtype)
        reduce(x, name, axes, out)
        np.testing.assert_array_equal(out, want.astype(dtype))


@pytest.mark.parametrize("name", ["any", "all"])
def test_bools(name: str, rng: np.random.Generator) -> None:
    x = rng.random((7, 70)) < (0.02 if name == "any" else 0.98)
    for axes in ((0,), (1,), (0, 1)):
        want = np.asarray(getattr(np, name)(x, axes))
        out = np.zeros(want.shape, bool)
        reduce(x, name, axes, out)
        np.testing.assert_array_equal(out, want)


def test_nan_and_infinity(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 77)).astype(np.float32)
    x[1, 70], x[2, 3], x[3, 76] = np.nan, np.inf, -np.inf
    for name in ("max", "min", "sum"):
        for axes in ((0,), (1,)):
            want = getattr(np, name)(x, axes)
            out = np.zeros(want.shape, np.float32)
            reduce(x, name, axes, out)
            np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


def test_views(rng: np.random.Generator) -> None:
    x = rng.standard_normal((30, 44)).astype(np.float32)
    for v in (x.T, x[::-1, ::-2], x[::3, 5:], np.broadcast_to(x[:1], (9, 44)), np.broadcast_to(x[:, :1], (30, 50))):
        for axes in ((0,), (1,), (0, 1)):
            want = v.sum(axes, np.float64)
            out = np.zeros((*want.shape, 2), np.float32)[..., 0]
            reduce(v, "sum", axes, out)
            np.testing.assert_allclose(out, want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("shape", "axes"), [((3, 0), (1,)), ((0, 3), (1,)), ((2, 3), ()), ((), ()), ((1, 5, 1), (0, 2))])
def test_degenerate(shape: tuple[int, ...], axes: tuple[int, ...], rng: np.random.Generator) -> None:
    x = np.asarray(rng.standard_normal(shape), np.float32)
    out = np.full(x.sum(axes).shape, 5, np.float32)
    reduce(x, "sum", axes, out)
    np.testing.assert_array_equal(out, x.sum(axes))


def test_long_sums_stay_accurate() -> None:
    n = 1 << 21
    x = np.full((1, n), 0.1, np.float32)
    out = np.zeros(1, np.float32)
    reduce(x, "sum", (1,), out)
    assert abs(out[0] / (float(np.float32(0.1)) * n) - 1) < 1e-6
    tall = np.full((1 << 17, 9), 0.1, np.float32)
    out = np.zeros(9, np.float32)
    reduce(tall, "sum", (0,), out)
    np.testing.assert_allclose(out, float(np.float32(0.1)) * (1 << 17), rtol=1e-6)


def test_fused_programs_and_two_folds(rng: np.random.Generator) -> None:
    a, b = (rng.standard_normal((6, 11, 45)).astype(np.float32) for _ in range(2))
    gain = rng.standard_normal((6, 11)).astype(np.float32)
    prologue = expr(2, (OPS["mul"](), (0, 1)), (OPS["add"](), (0, 1)), results=(2, 3))
    epilogue = expr(3, (OPS["mul"](), (0, 2)), (OPS["sub"](), (1, 0)), results=(3, 4))
    for x, y in ((a, b), (a.transpose(2, 0, 1).copy().transpose(1, 2, 0), b.transpose(2, 0, 1).copy().transpose(1, 2, 0))):
        outs = [np.zeros((6, 11), np.float32) for _ in range(2)]
        ops = (OPS["sum"]((2,)), OPS["max"]((2,)))
        kernel = make_reduce(x.shape, (2,), prologue, ops, epilogue, [view(x), view(y)], [view(gain)], [view(o) for o in outs], V3)
        build(kernel)(x, y, gain, *outs)
        total, top = (a * b).sum(2), (a + b).max(2)
        np.testing.assert_allclose(outs[0], total * gain, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(outs[1], top - total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", [V4, ARM])
def test_other_machines(target: object) -> None:
    x, out = np.zeros((20, 300), np.float32), np.zeros(20, np.float32)
    for v in (x, x.reshape(300, 20).T):
        kernel = make_reduce(v.shape, (1,), ONE, (OPS["sum"]((1,)),), ONE, [view(v)], [], [view(out)], target)  # type: ignore[arg-type]
        assert compile_only(kernel, target)  # type: ignore[arg-type]
