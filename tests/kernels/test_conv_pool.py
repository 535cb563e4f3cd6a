"""A convolution of a plain image and the max-pooling behind it as one kernel, against both in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, expr, misaligned, view

from diptych.ir.kernel import Expr
from diptych.kernels.conv_pool import make_conv_pool
from diptych.kernels.row_ring import Window, row_cuts
from diptych.ops import OPS
from diptych.profile import flops_of
from diptych.targets import host

LINEAR = Expr.identity()
RELU = expr(1, (OPS["relu"](), (0,)))
CLAMP = expr(1, (OPS["maximum"](), (0, 1)), (OPS["minimum"](), (3, 2)), consts=((0.0, "f32"), (6.0, "f32")))
LEAKY = expr(1, (OPS["mul"](), (0, 1)), (OPS["maximum"](), (0, 2)), consts=((0.25, "f32"),))
FUNCTIONS = {"linear": (LINEAR, lambda v: v), "relu": (RELU, lambda v: np.maximum(v, 0)),
             "clamp": (CLAMP, lambda v: np.clip(v, 0, 6)), "leaky": (LEAKY, lambda v: np.maximum(v, 0.25 * v))}  # fmt: skip
RUNNABLE = [t for t in (V3, host.find("x86-64-v4")) if host.find(t.name).is_host]


def square(kernel: int, stride: int, before: int, after: int | None = None) -> Window:
    pads = (before, before if after is None else after)
    return Window((kernel, kernel), (stride, stride), (pads, pads))


# images, channels in, blocks out, rows, columns, convolution, pool, rows and columns of the result, function
CASES: list[tuple[int, int, int, int, int, Window, Window, tuple[int, int], str]] = [
    (1, 3, 4, 32, 32, square(7, 2, 3), square(3, 2, 1), (8, 8), "relu"),
    (2, 3, 4, 29, 41, square(3, 2, 0), square(3, 2, 0), (7, 10), "relu"),
    (1, 3, 2, 28, 30, square(3, 2, 0), square(3, 2, 0, 1), (6, 7), "clamp"),  # rounded up: the last windows are cut
    (1, 1, 1, 17, 23, square(5, 1, 2), square(2, 2, 0), (8, 11), "linear"),
    (3, 4, 3, 15, 19, square(3, 1, 1), square(3, 1, 1), (15, 19), "leaky"),
    (1, 2, 2, 12, 9, square(3, 1, 1), Window((2, 3), (1, 2), ((0, 0), (1, 1))), (11, 5), "linear"),
    (1, 3, 1, 9, 60, square(1, 1, 0), square(5, 3, 2), (3, 20), "relu"),
    (1, 3, 2, 5, 4, square(3, 1, 2), square(3, 2, 1), (4, 3), "clamp"),
]


def convolution(x: Array, w: Array, one: Window) -> Array:
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *one.pads))
    views = np.lib.stride_tricks.sliding_window_view(padded, one.kernel, (2, 3))[:, :, :: one.strides[0], :: one.strides[1]]
    return np.einsum("nchwij,ocij->nohw", views, w)


def pooled(y: Array, two: Window, size: tuple[int, int]) -> Array:
    far = [(lo, max(0, (o - 1) * s + k - lo - d))
           for o, s, k, (lo, _), d in zip(size, two.strides, two.kernel, two.pads, y.shape[2:], strict=True)]  # fmt: skip
    padded = np.pad(y, ((0, 0), (0, 0), *far), constant_values=-np.inf)
    views = np.lib.stride_tricks.sliding_window_view(padded, two.kernel, (2, 3))[:, :, :: two.strides[0], :: two.strides[1]]
    return views.max((-1, -2))[:, :, : size[0], : size[1]]


def kernel_of(case: Any, target: Any, rng: np.random.Generator, parts: int = 1) -> tuple[Any, list[Array], Any]:
    """(kernel, arrays, expected result) of a case."""
    n, c, b, rows, cols, one, two, size, name = case
    expression, function = FUNCTIONS[name]
    x = rng.standard_normal((n, c, rows, cols)).astype(np.float32)
    w = (rng.standard_normal((b * 16, c, *one.kernel)) / np.sqrt(c * np.prod(one.kernel))).astype(np.float32)
    bias = rng.standard_normal(b * 16).astype(np.float32)
    want = pooled(function(convolution(x, w, one) + bias[:, None, None]), two, size)
    packed = np.moveaxis(w.reshape(b, 16, *w.shape[1:]), 1, -1).transpose(0, 2, 1, 3, 4).copy()
    arrays = [x, packed, bias.reshape(b, 16), misaligned((n, b, *size, 16))]
    return make_conv_pool([view(a) for a in arrays], one, two, c, expression, LINEAR, parts, target), arrays, want


def plain(y: Array) -> Array:
    n, b, *s, _ = y.shape
    return np.moveaxis(y, -1, 2).reshape(n, b * 16, *s)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("target", RUNNABLE, ids=lambda t: t.name)
def test_is_both(case: Any, target: Any, rng: np.random.Generator) -> None:
    made, arrays, want = kernel_of(case, target, rng)
    assert made.params.unsigned == (case[-1] in ("relu", "clamp"))
    build(made, target)(*arrays)
    np.testing.assert_allclose(plain(arrays[3]), want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 7])
def test_rows_cut_anywhere_give_the_same(parts: int, rng: np.random.Generator) -> None:
    made, arrays, want = kernel_of(CASES[0], V3, rng, parts)
    run = build(made)
    for item in reversed(range(made.work)):  # each alone, as on so many threads
        run(*arrays, ranges=[(item, item + 1)])
    np.testing.assert_allclose(plain(arrays[3]), want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["linear", "relu", "clamp"])
@pytest.mark.parametrize("value", [np.nan, -np.float32(np.nan), np.inf, -np.inf], ids=["nan", "-nan", "inf", "-inf"])
def test_nan_and_infinity_go_through(name: str, value: float, rng: np.random.Generator) -> None:
    case = (1, 1, 1, 13, 17, square(1, 1, 0), square(3, 2, 1), (7, 9), name)
    made, arrays, _ = kernel_of(case, V3, rng)
    arrays[1][:] = 1.0
    arrays[1][0, 0, 0, 0, 8:] = -1.0
    arrays[2][:] = -0.5
    arrays[0][0, 0, 6, 8] = value
    build(made)(*arrays)
    y = np.concatenate([np.repeat(arrays[0], 8, 1), np.repeat(-arrays[0], 8, 1)], 1) - np.float32(0.5)
    want = pooled(FUNCTIONS[name][1](y), case[6], case[7])
    np.testing.assert_array_equal(plain(arrays[3]), want.astype(np.float32))
    if np.isnan(value):
        assert np.isnan(plain(arrays[3])).sum() == 16 * 1 * 1


def test_zeros_of_either_sign_lose_to_what_is_larger(rng: np.random.Generator) -> None:
    """Bits as unsigned numbers would put -0 above all: sums with a bias never are -0."""
    made, arrays, _ = kernel_of((1, 1, 1, 8, 8, square(1, 1, 0), square(2, 2, 0), (4, 4), "relu"), V3, rng)
    arrays[0][:] = -1e-40
    arrays[0][0, 0, ::2, ::2] = 2.0
    arrays[1][:] = 1e-30
    arrays[2][:] = 0.0
    build(made)(*arrays)
    np.testing.assert_array_equal(arrays[3], np.float32(2e-30) * np.ones_like(arrays[3]))


def test_flops_are_those_of_the_convolution(rng: np.random.Generator) -> None:
    made, _, _ = kernel_of(CASES[0], V3, rng)
    assert flops_of(made) == 2 * 64 * 16 * 16 * 3 * 49


def test_loads_are_even() -> None:
    two = square(3, 2, 1)
    assert row_cuts(2, 56, two, 2) == 1  # two groups of channels: no row is made twice
    assert row_cuts(1, 56, two, 2) == 2
    assert row_cuts(1, 56, two, 1) == 1
    assert row_cuts(3, 56, two, 4) in (4, 8)
    assert row_cuts(1, 1, two, 4) == 1


@pytest.mark.parametrize("target", [V4, ARM], ids=lambda t: t.name)
@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_other_machines(case: Any, target: Any, rng: np.random.Generator) -> None:
    assert compile_only(kernel_of(case, target, rng)[0], target)


def test_windows_without_an_element_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="holds nothing"):
        kernel_of((1, 3, 1, 8, 8, square(3, 1, 1), square(2, 4, 0), (3, 3), "relu"), V3, rng)
