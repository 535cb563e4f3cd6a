"""Running sums and positions of extrema against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, view

from diptych.ir.kernel import Operand
from diptych.kernels.scan import make_arg_extremum, make_scan

SHAPES = [(1,), (70,), (3, 5), (4, 100), (100, 4), (2, 9, 17), (5, 33, 8), (1, 1000), (1000, 1)]


def arg(kind: str, x: Array, axis: int) -> None:
    want = getattr(np, kind)(x, axis, keepdims=True)
    out = np.full(want.shape, -1, np.int64)
    spread = Operand(x.shape, view(out).strides, "i64")
    build(make_arg_extremum(kind, view(x), axis, spread, V3))(x, out)
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("shape", SHAPES)
def test_positions(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    for dtype in ("f4", "f8", "i4", "u1", "f2"):
        x = rng.integers(0, 9, shape).astype(dtype)  # many ties
        for axis in range(len(shape)):
            for kind in ("argmax", "argmin"):
                arg(kind, x, axis)
                arg(kind, x.T, axis)


def test_nan_comes_first(rng: np.random.Generator) -> None:
    for at in ([5], [77, 3], [99], [0], [40, 41, 42]):
        x = rng.standard_normal((3, 100)).astype(np.float32)
        x[1, at] = np.nan
        x[2] = -np.inf
        for kind in ("argmax", "argmin"):
            arg(kind, x, 1)
            arg(kind, x.T, 0)
            arg(kind, x, 0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["cumsum", "cumprod"])
def test_running(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    for dtype in ("f4", "f8", "i8", "u1"):
        x = (rng.standard_normal(shape) if dtype[0] == "f" else rng.integers(0, 4, shape)).astype(dtype)
        for axis in range(len(shape)):
            for v in (x, x.T, x[::-1]):
                want = getattr(np, kind)(v, axis, v.dtype)
                out = np.zeros(v.shape, dtype)
                build(make_scan(kind, view(v), axis, view(out), V3))(v, out)
                np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", [V4, ARM])
def test_other_machines(target: Any) -> None:
    x, out = np.zeros((30, 200), np.float32), np.zeros((30, 1), np.int64)
    for axis in (0, 1):
        assert compile_only(make_scan("cumsum", view(x), axis, view(x), target), target)
        spread = Operand(x.shape, (1, 1), "i64")
        assert compile_only(make_arg_extremum("argmax", view(x), axis, spread, target), target)
    assert out.size
