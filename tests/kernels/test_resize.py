"""Resampling against the operator's reference, plain, channels-last and channel-blocked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, expr, view
from test_pointwise_pack import blocked as pack

from diptych.kernels.resize import Taps, make_resize
from diptych.kernels.resize_columns import column_runs
from diptych.ops import OPS


def tables(op: Any, shape: tuple[int, ...]) -> list[Taps]:
    return [
        tuple((tuple(map(int, i)), tuple(map(float, w))) for i, w in zip(index, weight, strict=True))
        for index, weight in op.taps(shape)
    ]


def check(x: Array, **attrs: Any) -> None:
    op = OPS["resize"](**attrs)
    want, taps = op.reference(x), tables(op, x.shape)
    tol = {"rtol": 2e-3, "atol": 2e-3} if x.dtype == np.float16 else {"rtol": 1e-5, "atol": 1e-6}
    out = np.zeros(want.shape, x.dtype)
    build(make_resize(view(x), view(out), taps, V3))(x, out)
    np.testing.assert_allclose(out, want, **tol)
    turned = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    out = np.moveaxis(np.zeros((want.shape[0], *want.shape[2:], want.shape[1]), x.dtype), -1, 1)
    build(make_resize(view(turned), view(out), taps, V3))(turned, out)
    np.testing.assert_allclose(out, want, **tol)
    if x.size:
        b = pack(x)
        full = np.zeros_like(pack(want))
        build(make_resize(view(b), view(full), taps, V3, blocked=True))(b, full)
        np.testing.assert_allclose(full, pack(want), **tol)


def test_samples_of_the_operator(rng: np.random.Generator) -> None:
    for sample in OPS["resize"].samples:
        check(sample.args[0].draw(rng), **sample.attrs)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
def test_images(mode: str, coordinates: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 5, 7, 9)).astype(np.float32)
    for size in ((14, 18), (3, 4), (7, 20), (1, 1)):
        check(x, size=size, mode=mode, coordinates=coordinates)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(("width", "to"), [(4, 8), (9, 18), (33, 50), (40, 23), (41, 123)])
def test_rows_of_many_columns(mode: str, width: int, to: int, rng: np.random.Generator) -> None:
    """Along contiguous rows vectors are shuffled together, at any ratio."""
    x = rng.standard_normal((1, 3, 5, width)).astype(np.float32)
    for coordinates in ("half_pixel", "align_corners", "asymmetric"):
        check(x, size=(9, to), mode=mode, coordinates=coordinates)
    check(rng.standard_normal((2, 1, 3, 2, width)).astype(np.float32), size=(2, 4, to), mode="nearest")
    check(rng.standard_normal((1, 2, width)).astype(np.float64), size=(to,), mode="linear")


def test_twice_as_wide_is_few_pieces_of_code() -> None:
    for mode, most in (("nearest", 2), ("linear", 4)):
        for width in (56, 1024):
            taps = tables(OPS["resize"](size=(2, 2 * width), mode=mode), (1, 1, 1, width))
            runs = column_runs([at for at, _ in taps[1]], width, 16)
            assert len(runs) <= most
            assert sum(run.count for run in runs) == width // 8
    assert column_runs([(7 * i,) for i in range(40)], 280, 16) == (), "too far apart for two vectors"
    assert column_runs([(0,), (1,), (2,)], 3, 16) == (), "shorter than any vector"


def test_vectors_run_along_rows() -> None:
    x, out = np.zeros((1, 2, 3, 56), np.float32), np.zeros((1, 2, 6, 112), np.float32)
    kernel = make_resize(view(x), view(out), tables(OPS["resize"](size=(6, 112)), (1, 2, 3, 56)), V4)
    assert kernel.params.lanes == 16
    assert kernel.params.columns


def test_epilogue(rng: np.random.Generator) -> None:
    x, r = rng.standard_normal((1, 2, 3, 4, 16)).astype(np.float32), rng.standard_normal((1, 2, 6, 8, 16)).astype(np.float32)
    op = OPS["resize"](size=(6, 8))
    out = np.zeros_like(r)
    program = expr(2, (OPS["add"](), (0, 1)))
    kernel = make_resize(view(x), view(out), tables(op, (1, 32, 3, 4)), V3, blocked=True, epilogue=program, extras=[view(r)])
    build(kernel)(x, r, out)
    np.testing.assert_array_equal(out, x.repeat(2, 2).repeat(2, 3) + r)


@pytest.mark.parametrize("target", [V4, ARM])
def test_other_machines(target: Any) -> None:
    x, out = np.zeros((1, 1, 3, 4, 16), np.float32), np.zeros((1, 1, 6, 8, 16), np.float32)
    taps = tables(OPS["resize"](size=(6, 8), mode="linear"), (1, 16, 3, 4))
    assert compile_only(make_resize(view(x), view(out), taps, target, blocked=True), target)
    x, out = np.zeros((1, 1, 3, 24), np.float32), np.zeros((1, 1, 6, 48), np.float32)
    taps = tables(OPS["resize"](size=(6, 48), mode="linear"), (1, 1, 3, 24))
    assert compile_only(make_resize(view(x), view(out), taps, target), target)
