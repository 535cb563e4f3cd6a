"""Convolutions in groups inside one block of channels against the operator's reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, compile_only, view

import diptych
from diptych.ir import TensorType
from diptych.kernels.grouped import make_grouped
from diptych.ops import Builder, Conv

CASES = [  # input, channels of a group, kernel, strides, pads, dilations
    ((1, 32, 14, 14), 4, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    ((2, 24, 9, 31), 8, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    ((1, 20, 7, 5), 2, (3, 3), (1, 1), ((0, 1), (2, 0)), (1, 1)),
    ((1, 16, 12, 13), 4, (3, 5), (1, 2), ((2, 2), (2, 3)), (2, 1)),
    ((1, 40, 3, 3), 4, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    ((2, 32, 45), 8, (7,), (1,), ((3, 3),), (1,)),
]  # fmt: skip


def graph(shape: Any, group: int, kernel: Any, strides: Any, pads: Any, dil: Any, heavy: bool) -> Any:
    """A convolution first, so that channels past the last one hold anything; then groups, bias, residual, activation."""
    g, rng = Builder("grouped"), np.random.default_rng(7)
    rank, c = len(kernel), shape[1]
    x = g.input("x", TensorType((shape[0], 8, *shape[2:])))
    first = Conv((1,) * rank, ((0, 0),) * rank, (1,) * rank, 1)
    h = g.emit(first, x, g.constant(rng.standard_normal((c, 8, *(1,) * rank)).astype(np.float32)), g.constant(np.ones(c, np.float32)))
    w = rng.standard_normal((c, group, *kernel)).astype(np.float32)
    y = g.emit(Conv(strides, pads, dil, c // group), h, g.constant(w), g.constant(rng.standard_normal(c).astype(np.float32)))
    y = g.add(y, g.constant(rng.standard_normal((1, c, *(1,) * rank)).astype(np.float32)))
    return g.finish({"y": g.sigmoid(g.mul(y, y)) if heavy else g.relu(y)})


@pytest.mark.parametrize(("shape", "group", "kernel", "strides", "pads", "dil"), CASES)
@pytest.mark.parametrize("threads", [1, 3])
def test_groups(shape: Any, group: int, kernel: Any, strides: Any, pads: Any, dil: Any, threads: int, rng: np.random.Generator) -> None:
    net = graph(shape, group, kernel, strides, pads, dil, heavy=threads > 1)
    x = rng.standard_normal((shape[0], 8, *shape[2:])).astype(np.float32)
    model = diptych.compile(net, threads=threads)
    assert sum(k.kind == "grouped" for k in model.plan.kernels) == 1
    np.testing.assert_allclose(model(x), diptych.compile(net, target="numpy")(x), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(model(x), model(x))


@pytest.mark.parametrize("group", [2, 4, 8])
@pytest.mark.parametrize("target", [V3, V4, ARM], ids=lambda t: t.name)
def test_compiles_elsewhere(target: Any, group: int) -> None:
    x, w = np.zeros((1, 2, 9, 23, 16), np.float32), np.zeros((2, 3, 3, group, 16), np.float32)
    out = np.zeros((1, 2, 7, 21, 16), np.float32)
    assert compile_only(make_grouped(view(x), view(w), None, view(out), (1, 1), (1, 1), target), target)


def test_a_group_longer_than_a_vector(rng: np.random.Generator) -> None:
    """As with NEON: 8 channels of a group in two vectors of 4; run here on narrower vectors."""
    from dataclasses import replace

    from harness import build

    narrow = replace(V3, vector_bytes=16)
    x, w = rng.standard_normal((1, 1, 5, 12, 16)).astype(np.float32), rng.standard_normal((1, 3, 3, 8, 16)).astype(np.float32)
    out = np.zeros((1, 1, 3, 10, 16), np.float32)
    build(make_grouped(view(x), view(w), None, view(out), (1, 1), (1, 1), narrow), narrow)(x, w, out)
    want = np.zeros(out.shape)
    for i, j, k in np.ndindex(3, 3, 8):
        lanes = [lane - lane % 8 + k for lane in range(16)]
        want += x[:, :, i : i + 3, j : j + 10, lanes] * w[0, i, j, k].astype(np.float64)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


def test_a_block_is_filled_by_groups() -> None:
    x, w, out = (np.zeros(s, np.float32) for s in ((1, 1, 3, 3, 16), (1, 3, 3, 3, 16), (1, 1, 1, 1, 16)))
    with pytest.raises(ValueError, match="groups of 3 channels"):
        make_grouped(view(x), view(w), None, view(out), (1, 1), (1, 1), V3)
