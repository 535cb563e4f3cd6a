"""Packing into blocks of 16 and back, padding, filling."""

from __future__ import annotations

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, misaligned, view

from diptych.kernels.pointwise import make_fill
from diptych.kernels.pointwise_pack import make_pack_channels, make_pack_panels, make_unpack_channels
from diptych.kernels.pointwise_pad import make_pad


def blocked(x: Array) -> Array:
    n, c, *s = x.shape
    full = np.zeros((n, -(-c // 16) * 16, *s), x.dtype)
    full[:, :c] = x
    return np.ascontiguousarray(np.moveaxis(full.reshape(n, -1, 16, *s), 2, -1))


@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "f2"])
@pytest.mark.parametrize("shape", [(1, 16, 8), (2, 3, 5, 7), (1, 37, 9, 11), (1, 17, 33), (3, 32, 1, 1), (1, 5, 2, 3, 4), (1, 24, 40, 40)])
def test_channel_blocks(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> None:
    x = (rng.standard_normal(shape) * 50).astype(dtype)
    want = blocked(x)
    out = misaligned(want.shape, dtype)
    out[...] = 9
    build(make_pack_channels(view(x), view(out), V3))(x, out)
    np.testing.assert_array_equal(out, want)
    back = misaligned(shape, dtype)
    build(make_unpack_channels(view(out), view(back), V3))(out, back)
    np.testing.assert_array_equal(back, x)


def test_channels_last_and_padded_destination(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 6, 7, 21)).astype(np.float32).transpose(0, 3, 1, 2)
    want = blocked(x)
    room = np.zeros((2, 2, 8, 9, 16), np.float32)
    inner = room[:, :, 1:-1, 1:-1]
    build(make_pack_channels(view(x), view(inner), V3))(x, inner)
    np.testing.assert_array_equal(inner, want)
    assert room.sum() == pytest.approx(want.sum(), rel=1e-4)
    back = np.zeros((2, 6, 7, 21), np.float32).transpose(0, 3, 1, 2)
    build(make_unpack_channels(view(inner), view(back), V3))(inner, back)
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("shape", [(5, 7), (3, 64, 48), (2, 2, 9, 33), (10, 16)])
@pytest.mark.parametrize("transposed", [False, True])
def test_panels(shape: tuple[int, ...], transposed: bool, rng: np.random.Generator) -> None:
    x = rng.standard_normal(shape).astype(np.float32)
    if transposed:
        x = np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    *batch, k, n = shape
    full = np.zeros((*batch, k, -(-n // 16) * 16), np.float32)
    full[..., :n] = x
    want = np.moveaxis(full.reshape(*batch, k, -1, 16), -2, -3)
    out = misaligned(want.shape)
    build(make_pack_panels(view(x), view(out), V3))(x, out)
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize(
    ("shape", "pads"),
    [((5,), ((2, 3),)), ((4, 6), ((0, 0), (1, 2))), ((2, 3, 9, 13), ((0, 0), (0, 0), (1, 1), (2, 0))),
     ((3, 4, 40), ((1, 2), (0, 0), (0, 0))), ((70, 3, 3), ((0, 0), (1, 1), (1, 2))), ((200,), ((30, 50),))],
)  # fmt: skip
def test_padding(mode: str, shape: tuple[int, ...], pads: tuple[tuple[int, int], ...], rng: np.random.Generator) -> None:
    for dtype in ("f4", "i8", "u1"):
        x = (rng.standard_normal(shape) * 40).astype(dtype)
        want = np.pad(x, pads, mode, constant_values=3) if mode == "constant" else np.pad(x, pads, mode)  # type: ignore[call-overload]
        out = misaligned(want.shape, dtype)
        build(make_pad(view(x), view(out), tuple(p[0] for p in pads), mode, 3, V3))(x, out)
        np.testing.assert_array_equal(out, want)


def test_pad_of_views(rng: np.random.Generator) -> None:
    x = rng.standard_normal((12, 10)).astype(np.float32).T
    out = np.zeros((30, 14), np.float32)[:, ::-1][4:16]
    build(make_pad(view(x), view(out[:, :14]), (1, 0), "constant", -1.5, V3))(x, out)
    np.testing.assert_array_equal(out, np.pad(x, ((1, 1), (0, 2)), constant_values=-1.5))


@pytest.mark.parametrize(("dtype", "value"), [("f4", 1.5), ("i8", -3), ("?", True), ("f8", float("-inf"))])
def test_fill(dtype: str, value: float, rng: np.random.Generator) -> None:
    out = np.zeros((7, 50), dtype)
    build(make_fill(value, view(out[:, 3:40]), V3))(out[:, 3:40])
    want = np.zeros((7, 50), dtype)
    want[:, 3:40] = value
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("target", [V4, ARM])
def test_other_machines(target: object) -> None:
    x, b = np.zeros((1, 21, 30), np.float32), np.zeros((1, 2, 30, 16), np.float32)
    for made in (make_pack_channels(view(x), view(b), target), make_unpack_channels(view(b), view(x), target)):  # type: ignore[arg-type]
        assert compile_only(made, target)  # type: ignore[arg-type]
