"""A convolution and the depthwise one behind it as one kernel, against both done one after the other in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, expr, misaligned, view

from diptych.ir.kernel import Expr
from diptych.kernels.expand import Window, make_expand, row_parts
from diptych.ops import OPS
from diptych.profile import flops_of
from diptych.targets import host

ONE = Window((1, 1), (1, 1), ((0, 0), (0, 0)))
LINEAR = Expr.identity()
CLAMP = expr(1, (OPS["maximum"](), (0, 1)), (OPS["minimum"](), (3, 2)), consts=((0.0, "f32"), (6.0, "f32")))
SILU = expr(1, (OPS["sigmoid"](), (0,)), (OPS["mul"](), (0, 1)))
FUNCTIONS = {"linear": (LINEAR, lambda v: v), "clamp": (CLAMP, lambda v: np.clip(v, 0, 6)),
             "silu": (SILU, lambda v: v / (1 + np.exp(-v)))}  # fmt: skip
RUNNABLE = [t for t in (V3, host.find("x86-64-v4")) if host.find(t.name).is_host]


def correlate(x: Array, w: Array, window: Window) -> Array:
    """x[N, C, H, W], w[O, C, KH, KW] -> [N, O, OH, OW]."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *window.pads))
    (kh, kw), (sh, sw) = window.kernel, window.strides
    views = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), (2, 3))[:, :, ::sh, ::sw]
    return np.einsum("nchwij,ocij->nohw", views, w)


def blocked(x: Array) -> Array:
    """[N, C, H, W] -> [N, B, H, W, 16] with NaN beyond the channels of the last block, which must not be read."""
    n, c, *s = x.shape
    full = np.full((n, -(-c // 16) * 16, *s), np.nan, np.float32)
    full[:, :c] = x
    return np.ascontiguousarray(np.moveaxis(full.reshape(n, -1, 16, *s), 2, -1))


def plain(y: Array) -> Array:
    n, b, *s, _ = y.shape
    return np.moveaxis(y, -1, 2).reshape(n, b * 16, *s)


# images, channels in, blocks out, rows, columns, first window (None: 1x1), second window, function
CASES: list[tuple[int, int, int, int, int, Window | None, Window, str]] = [
    (1, 16, 1, 14, 14, None, Window((3, 3), (1, 1), ((1, 1), (1, 1))), "clamp"),
    (2, 24, 3, 11, 30, None, Window((3, 3), (1, 1), ((1, 1), (1, 1))), "linear"),
    (1, 5, 2, 13, 9, None, Window((5, 5), (2, 2), ((2, 2), (2, 2))), "silu"),
    (1, 40, 2, 57, 7, None, Window((3, 3), (2, 2), ((0, 1), (0, 1))), "clamp"),
    (3, 16, 1, 1, 17, None, Window((3, 3), (1, 1), ((1, 1), (1, 1))), "silu"),
    (1, 17, 1, 30, 31, None, Window((7, 7), (1, 1), ((3, 3), (3, 3))), "linear"),
    (1, 16, 1, 12, 40, None, Window((2, 3), (3, 3), ((0, 0), (2, 0))), "linear"),
    (1, 16, 2, 9, 29, None, Window((3, 3), (1, 1), ((0, 0), (0, 0))), "silu"),
    (1, 3, 2, 33, 29, Window((3, 3), (2, 2), ((1, 1), (1, 1))), Window((3, 3), (1, 1), ((1, 1), (1, 1))), "clamp"),
    (2, 3, 1, 20, 21, Window((3, 3), (2, 2), ((0, 1), (0, 1))), Window((3, 3), (2, 2), ((1, 1), (1, 1))), "silu"),
    (1, 1, 1, 16, 70, Window((7, 7), (1, 1), ((3, 3), (3, 3))), Window((3, 3), (1, 1), ((1, 1), (1, 1))), "linear"),
    (1, 4, 2, 8, 6, Window((5, 5), (1, 1), ((4, 4), (4, 4))), Window((5, 5), (1, 1), ((2, 2), (2, 2))), "linear"),
]


def kernel_of(case: Any, target: Any, parts: int | None = None, sums: bool = True,
              rng: np.random.Generator | None = None) -> tuple[Any, list[Array], Any]:  # fmt: skip
    """(kernel, arrays, expected result) of a case."""
    n, c, b, rows, cols, one, two, name = case
    rng = rng or np.random.default_rng(0)
    expression, function = FUNCTIONS[name]
    window = one or ONE
    x = rng.standard_normal((n, c, rows, cols)).astype(np.float32)
    w1 = (rng.standard_normal((b * 16, c, *window.kernel)) / np.sqrt(c * np.prod(window.kernel))).astype(np.float32)
    w2 = (rng.standard_normal((b * 16, *two.kernel)) / np.sqrt(np.prod(two.kernel))).astype(np.float32)
    b1, b2 = rng.standard_normal((2, b * 16)).astype(np.float32)
    y = function(correlate(x, w1, window) + b1[:, None, None])
    each = np.concatenate([correlate(y[:, i : i + 1], w2[i : i + 1, None], two) for i in range(b * 16)], 1)
    want = function(each + b2[:, None, None])
    # w1: [B, KH, C, KW, 16]; w2: [B, KH, KW, 16]
    packed1 = np.moveaxis(w1.reshape(b, 16, *w1.shape[1:]), 1, -1).transpose(0, 2, 1, 3, 4).copy()
    packed2 = np.moveaxis(w2.reshape(b, 16, *two.kernel), 1, -1).copy()
    given = x if one else blocked(x)
    out = misaligned((n, b, *want.shape[2:], 16))
    parts = parts or row_parts(n, b, want.shape[2], y.shape[3], two, target)
    arrays = [given, packed1, b1.reshape(b, 16), packed2, b2.reshape(b, 16), out]
    if sums:
        arrays.append(np.full((n, b, parts, 16), np.nan, np.float32))
    made = make_expand([view(a) for a in arrays], window, two, one is not None, c, expression, expression, parts, target)
    return made, arrays, want


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("target", RUNNABLE, ids=lambda t: t.name)
def test_is_both_convolutions(case: Any, target: Any, rng: np.random.Generator) -> None:
    made, arrays, want = kernel_of(case, target, rng=rng)
    build(made, target)(*arrays)
    np.testing.assert_allclose(plain(arrays[5]), want, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(plain(arrays[6].sum(2, keepdims=True)[:, :, :, None]), want.sum((2, 3), keepdims=True),
                               rtol=2e-5, atol=2e-5 * want[0, 0].size)  # fmt: skip


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8])
def test_rows_cut_anywhere_give_the_same(parts: int, rng: np.random.Generator) -> None:
    case = (1, 16, 2, 23, 15, None, Window((5, 5), (2, 2), ((2, 2), (2, 2))), "clamp")
    made, arrays, want = kernel_of(case, V3, parts, rng=rng)
    run = build(made)
    for item in reversed(range(made.work)):  # each alone, as on so many threads
        run(*arrays, ranges=[(item, item + 1)])
    np.testing.assert_allclose(plain(arrays[5]), want, rtol=2e-5, atol=2e-5)
    whole = arrays[6].sum(2)
    np.testing.assert_allclose(whole.reshape(-1), want.sum((2, 3)).reshape(-1), rtol=1e-4, atol=1e-3)


def test_nan_and_infinity_go_where_they_belong(rng: np.random.Generator) -> None:
    case = (1, 16, 1, 12, 20, None, Window((3, 3), (1, 1), ((1, 1), (1, 1))), "clamp")
    made, arrays, _ = kernel_of(case, V3, sums=False, rng=rng)
    run = build(made)
    run(*arrays)
    before = arrays[5].copy()
    arrays[0][0, 0, 5, 9, 3] = np.nan
    run(*arrays)
    off = np.isnan(arrays[5]).any(-1)[0, 0]
    where = np.zeros_like(off)
    where[4:7, 8:11] = True
    np.testing.assert_array_equal(off, where)
    np.testing.assert_array_equal(arrays[5][0, 0][~where], before[0, 0][~where])


def test_flops_are_those_of_both_convolutions() -> None:
    made, arrays, want = kernel_of(CASES[0], V3)
    assert flops_of(made) == 2 * 16 * 14 * 14 * 16 + 2 * want.size * 9 == made.params.flops(arrays[5].shape)


def test_loads_are_even() -> None:
    """Two and four threads get items that differ little, and few rows are made twice."""
    two = Window((3, 3), (1, 1), ((1, 1), (1, 1)))
    for blocks, rows in ((9, 56), (6, 112), (5, 28), (15, 28), (2, 112)):
        parts = row_parts(1, blocks, rows, rows, two, V4)
        assert -(-blocks * parts // 2) * 2 <= 1.07 * blocks * parts, (blocks, rows, parts)
        assert (rows + 2 * (parts - 1)) / rows < 1.12


@pytest.mark.parametrize("target", [V4, ARM], ids=lambda t: t.name)
@pytest.mark.parametrize("case", CASES[1::4], ids=str)
def test_other_machines(case: Any, target: Any) -> None:
    assert compile_only(kernel_of(case, target)[0], target)


def test_lanes_that_are_not_contiguous_are_refused() -> None:
    _, arrays, _ = kernel_of(CASES[0], V3)
    operands = [view(a) for a in arrays]
    operands[5] = view(np.zeros((1, 1, 14, 14, 32), np.float32)[..., ::2])
    with pytest.raises(ValueError, match="contiguous lanes"):
        make_expand(operands, ONE, CASES[0][6], False, 16, LINEAR, LINEAR, 1, V3)
