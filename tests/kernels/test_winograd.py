"""Winograd convolution: the matrices, and whole convolutions of sizes that cut tiles, blocks and panels."""

from __future__ import annotations

import numpy as np
import pytest

import diptych
from diptych.ir import Graph, TensorType
from diptych.kernels.winograd_points import POINTS, matrices
from diptych.ops import Conv
from diptych.ops.build import Builder
from diptych.targets.numpy import interpret


@pytest.mark.parametrize("m", sorted(POINTS))
def test_matrices_compute_a_correlation(m: int, rng: np.random.Generator) -> None:
    at, g, bt = matrices(m)
    d, w = rng.standard_normal(m + 2), rng.standard_normal(3)
    expected = [d[i : i + 3] @ w for i in range(m)]
    np.testing.assert_allclose(at @ ((g @ w) * (bt @ d)), expected, rtol=1e-12, atol=1e-12)


def _conv(rng: np.random.Generator, n: int, c: int, o: int, h: int, w: int, pads: tuple[tuple[int, int], ...]) -> Graph:
    """conv + bias, then relu(conv + residual): both kinds of epilogue."""
    g = Builder("winograd")
    x = g.input("x", TensorType((n, c, h, w)))
    weight = (rng.standard_normal((o, c, 3, 3)) * (9 * c) ** -0.5).astype(np.float32)
    bias = rng.standard_normal(o).astype(np.float32)
    y = g.emit(Conv((1, 1), pads, (1, 1)), g.relu(x), g.constant(weight), g.constant(bias))
    other = g.input("other", y.type)
    return g.finish({"y": g.relu(g.add(y, other))})


def _kinds(model: diptych.Model) -> set[str]:
    assert model.plan is not None
    return {model.plan.kernels[s.kernel].kind for s in model.plan.steps}


@pytest.mark.parametrize(
    ("n", "c", "o", "h", "w", "pads"),
    [
        (1, 64, 32, 16, 16, ((1, 1), (1, 1))),
        (2, 40, 33, 13, 15, ((1, 1), (1, 1))),
        (1, 64, 64, 17, 9, ((0, 2), (1, 0))),
        (3, 128, 16, 30, 30, ((0, 0), (0, 0))),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_matches_float64(rng: np.random.Generator, n: int, c: int, o: int, h: int, w: int,
                         pads: tuple[tuple[int, int], ...], threads: int) -> None:  # fmt: skip
    graph = _conv(rng, n, c, o, h, w, pads)
    inputs = {k: rng.standard_normal(t.shape).astype(np.float32) for k, t in graph.input_types().items()}
    expected = interpret(graph, inputs, "f64")["y"]
    fast = diptych.compile(graph, threads=threads)
    strict = diptych.compile(graph, threads=threads, accuracy="strict")
    assert "winograd_products" in _kinds(fast)
    assert "winograd_products" not in _kinds(strict)
    rms = np.sqrt(np.mean(expected**2))
    assert np.abs(strict(**inputs) - expected).max() / rms < 4e-6
    assert np.abs(fast(**inputs) - expected).max() / rms < 2e-5
    np.testing.assert_array_equal(fast(**inputs), fast(**inputs))


def test_small_images_with_many_channels_take_the_smaller_tile(rng: np.random.Generator) -> None:
    graph = _conv(rng, 1, 512, 512, 7, 7, ((1, 1), (1, 1)))
    model = diptych.compile(graph, threads=1)
    assert model.plan is not None
    products = [k for k in model.plan.kernels if k.kind == "winograd_products"]
    assert [k.params.geometry.m for k in products] == [2]
    inputs = {k: rng.standard_normal(t.shape).astype(np.float32) for k, t in graph.input_types().items()}
    expected = interpret(graph, inputs, "f64")["y"]
    assert np.abs(model(**inputs) - expected).max() / np.sqrt(np.mean(expected**2)) < 2e-5
