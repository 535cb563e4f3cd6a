"""Expansion, depthwise convolution and projection as one kernel, against the three in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, expr, misaligned, view
from test_expand import FUNCTIONS, LINEAR, ONE, RUNNABLE, blocked, correlate, plain

from diptych.kernels.chain import make_chain
from diptych.kernels.row_ring import Window
from diptych.ops import OPS
from diptych.profile import flops_of

ADD = expr(2, (OPS["add"](), (0, 1)))
SAME3 = Window((3, 3), (1, 1), ((1, 1), (1, 1)))
HALF3 = Window((3, 3), (2, 2), ((1, 1), (1, 1)))
STEM = Window((3, 3), (2, 2), ((1, 1), (1, 1)))

# images, channels in, between, out, rows, columns, first window (None: 1x1), second window, function, residual, band
CASES: list[tuple[int, int, int, int, int, int, Window | None, Window, str, bool, int]] = [
    (1, 24, 144, 24, 14, 14, None, SAME3, "clamp", True, 1),
    (2, 16, 96, 24, 15, 30, None, HALF3, "clamp", False, 1),
    (1, 5, 40, 9, 13, 9, None, Window((5, 5), (2, 2), ((2, 2), (2, 2))), "silu", False, 2),
    (1, 40, 24, 40, 11, 17, None, SAME3, "linear", True, 3),
    (3, 16, 17, 64, 1, 17, None, SAME3, "linear", False, 4),
    (1, 3, 32, 16, 32, 30, STEM, SAME3, "clamp", False, 1),
    (1, 16, 32, 8, 12, 40, None, Window((2, 3), (3, 3), ((0, 0), (2, 0))), "linear", False, 2),
    (1, 17, 48, 33, 30, 31, None, Window((7, 7), (1, 1), ((3, 3), (3, 3))), "linear", False, 1),
]


def kernel_of(case: Any, target: Any, rng: np.random.Generator, parts: int = 1, band: int = 0) -> tuple[Any, list[Array], Any]:
    """(kernel, arrays, expected result) of a case."""
    n, c, e, o, rows, cols, one, two, name, residual, own = case
    expression, function = FUNCTIONS[name]
    window = one or ONE
    x = rng.standard_normal((n, c, rows, cols)).astype(np.float32)
    w1 = (rng.standard_normal((e, c, *window.kernel)) / np.sqrt(c * np.prod(window.kernel))).astype(np.float32)
    w2 = (rng.standard_normal((e, *two.kernel)) / np.sqrt(np.prod(two.kernel))).astype(np.float32)
    w3 = (rng.standard_normal((o, e)) / np.sqrt(e)).astype(np.float32)
    b1, b2, b3 = (rng.standard_normal(k).astype(np.float32) for k in (e, e, o))
    y = function(correlate(x, w1, window) + b1[:, None, None])
    z = np.concatenate([correlate(y[:, i : i + 1], w2[i : i + 1, None], two) for i in range(e)], 1)
    want = np.einsum("nchw,oc->nohw", function(z + b2[:, None, None]), w3) + b3[:, None, None]

    def packed(a: Array) -> Array:
        """[O, ...] -> [B, ..., 16], zeros past O."""
        full = np.zeros((-(-len(a) // 16) * 16, *a.shape[1:]), np.float32)
        full[: len(a)] = a
        return np.moveaxis(full.reshape(-1, 16, *a.shape[1:]), 1, -1).copy()

    arrays = [x if one else blocked(x), packed(w1.transpose(0, 2, 1, 3)), packed(b1), packed(w2), packed(b2), packed(w3), packed(b3)]
    if residual:
        r = rng.standard_normal(want.shape).astype(np.float32)
        want = want + r
        arrays.append(np.nan_to_num(blocked(r)))
    arrays.append(misaligned((n, -(-o // 16), *want.shape[2:], 16)))
    arrays[-1][:] = np.nan
    made = make_chain([view(a) for a in arrays], window, two, one is not None, c, e, o, expression, expression,
                      ADD if residual else LINEAR, band or own, parts, target)  # fmt: skip
    return made, arrays, want


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("target", RUNNABLE, ids=lambda t: t.name)
def test_is_all_three(case: Any, target: Any, rng: np.random.Generator) -> None:
    made, arrays, want = kernel_of(case, target, rng)
    build(made, target)(*arrays)
    got = plain(arrays[-1])
    np.testing.assert_allclose(got[:, : case[3]], want, rtol=5e-5, atol=5e-5)
    assert np.isfinite(got).all()  # lanes past the channels as well


@pytest.mark.parametrize("band", [1, 2, 5])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("case", [CASES[0], CASES[2]], ids=str)
def test_rows_cut_anywhere_give_the_same(case: Any, parts: int, band: int, rng: np.random.Generator) -> None:
    made, arrays, want = kernel_of(case, V3, rng, parts, band)
    run = build(made)
    for item in reversed(range(made.work)):  # each alone, as on so many threads
        run(*arrays, ranges=[(item, item + 1)])
    np.testing.assert_allclose(plain(arrays[-1])[:, : case[3]], want, rtol=5e-5, atol=5e-5)


def test_nan_and_infinity_go_where_they_belong(rng: np.random.Generator) -> None:
    case = (1, 16, 24, 24, 12, 20, None, SAME3, "clamp", False, 1)  # blocks of channels that are not full
    made, arrays, _ = kernel_of(case, V3, rng)
    run = build(made)
    run(*arrays)
    before = plain(arrays[-1])[:, :24].copy()
    where = np.zeros((12, 20), bool)
    where[4:7, 8:11] = True
    arrays[0][0, 0, 5, 9, 3] = np.nan
    run(*arrays)
    after = plain(arrays[-1])[:, :24]
    assert np.isnan(after[..., where]).all()
    np.testing.assert_array_equal(after[..., ~where], before[..., ~where])
    arrays[0][0, 0, 5, 9, 3] = np.inf  # the clamp makes a number of it, and no channel past the last one a NaN
    run(*arrays)
    assert np.isfinite(plain(arrays[-1])[:, :24]).all()


def test_flops_are_those_of_all_three(rng: np.random.Generator) -> None:
    made, _, _ = kernel_of(CASES[0], V3, rng)
    assert flops_of(made) == 2 * 14 * 14 * 144 * (24 + 9 + 24)


@pytest.mark.parametrize("target", [V4, ARM], ids=lambda t: t.name)
@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_other_machines(case: Any, target: Any, rng: np.random.Generator) -> None:
    assert compile_only(kernel_of(case, target, rng)[0], target)


def test_lanes_that_are_not_contiguous_are_refused(rng: np.random.Generator) -> None:
    _, arrays, _ = kernel_of(CASES[1], V3, rng)
    operands = [view(a) for a in arrays]
    operands[-1] = view(np.zeros((2, 2, 8, 15, 32), np.float32)[..., ::2])
    with pytest.raises(ValueError, match="contiguous lanes"):
        make_chain(operands, ONE, HALF3, False, 16, 96, 24, LINEAR, LINEAR, LINEAR, 1, 1, V3)
