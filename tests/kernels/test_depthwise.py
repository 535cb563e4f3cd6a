"""Depthwise convolution against a direct sum: kernel sizes, strides, pads, dilations, epilogues."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, expr, misaligned, view

from diptych.kernels.depthwise import make_depthwise
from diptych.ops import OPS

Pads = tuple[tuple[int, int], tuple[int, int]]


def direct(x: Array, w: Array, b: Array, strides: tuple[int, int], pads: Pads, dil: tuple[int, int]) -> Array:
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *pads, (0, 0)))
    kh, kw = w.shape[1:3]
    oh, ow = ((padded.shape[2 + i] - dil[i] * (w.shape[1 + i] - 1) - 1) // strides[i] + 1 for i in range(2))
    y = np.zeros((*x.shape[:2], oh, ow, 16)) + b[None, :, None, None]
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dil[0], i * dil[0] + strides[0] * (oh - 1) + 1, strides[0])
            cols = slice(j * dil[1], j * dil[1] + strides[1] * (ow - 1) + 1, strides[1])
            y += padded[:, :, rows, cols] * w[:, i, j][None, :, None, None]
    return y


CASES = [
    ((1, 2, 7, 7), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    ((2, 1, 14, 14), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    ((1, 3, 28, 29), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    ((1, 1, 13, 30), (5, 5), (2, 2), ((2, 2), (2, 2)), (1, 1)),
    ((1, 1, 15, 17), (5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1)),
    ((1, 1, 12, 12), (3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1)),
    ((1, 1, 20, 19), (3, 3), (1, 1), ((2, 2), (3, 1)), (2, 3)),
    ((1, 1, 1, 40), (1, 7), (1, 2), ((0, 0), (3, 3)), (1, 1)),
    ((1, 1, 9, 9), (7, 7), (1, 1), ((3, 3), (3, 3)), (1, 1)),
    ((1, 1, 3, 2), (5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1)),
    ((1, 1, 5, 5), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    ((1, 1, 4, 60), (3, 31), (1, 1), ((1, 1), (15, 15)), (1, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "kernel", "strides", "pads", "dil"), CASES)
@pytest.mark.parametrize("bias", [True, False])
def test_direct(shape: Any, kernel: Any, strides: Any, pads: Any, dil: Any, bias: bool, rng: np.random.Generator) -> None:
    x = rng.standard_normal((*shape, 16)).astype(np.float32)
    w = rng.standard_normal((shape[1], *kernel, 16)).astype(np.float32)
    b = rng.standard_normal((shape[1], 16)).astype(np.float32) * bias
    want = direct(x, w, b, strides, pads, dil)
    out = misaligned(want.shape)
    made = make_depthwise(view(x), view(w), view(b) if bias else None, view(out), strides, pads, dil, V3)
    build(made)(x, w, *((b,) if bias else ()), out)
    np.testing.assert_allclose(out, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("heavy", [True, False])
def test_epilogue_with_residual_and_channel_scale(heavy: bool, rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((1, 2, 10, 11, 16)).astype(np.float32), rng.standard_normal((2, 3, 3, 16)).astype(np.float32)
    b, r = rng.standard_normal((2, 16)).astype(np.float32), rng.standard_normal((1, 2, 10, 11, 16)).astype(np.float32)
    g = np.broadcast_to(rng.standard_normal((1, 2, 1, 1, 1)).astype(np.float32), r.shape)
    first = OPS["sigmoid" if heavy else "relu"]()
    program = expr(3, (first, (0,)), (OPS["add"](), (3, 1)), (OPS["mul"](), (4, 2)))
    out = np.zeros_like(r)
    pads = ((1, 1), (1, 1))
    made = make_depthwise(view(x), view(w), view(b), view(out), (1, 1), pads, (1, 1), V3, epilogue=program, extras=[view(r), view(g)])
    build(made)(x, w, b, r, g, out)
    y = direct(x, w, b, (1, 1), pads, (1, 1))
    y = 1 / (1 + np.exp(-y)) if heavy else np.maximum(y, 0)
    np.testing.assert_allclose(out, (y + r) * g, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", [V4, ARM])
def test_other_machines(target: Any) -> None:
    x, w = np.zeros((1, 1, 14, 14, 16), np.float32), np.zeros((1, 3, 3, 16), np.float32)
    assert compile_only(make_depthwise(view(x), view(w), None, view(x), (1, 1), ((1, 1), (1, 1)), (1, 1), target), target)
