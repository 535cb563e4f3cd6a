"""Dilated convolutions: Winograd on every d-th pixel, and sums without the taps that fall on padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import diptych
from diptych.ir import TensorType
from diptych.ops import Builder, Conv


def network(shape: tuple[int, ...], outputs: int, dilations: tuple[int, int], pads: Any, strides: tuple[int, int] = (1, 1),
            groups: int = 1) -> Any:  # fmt: skip
    """A dilated convolution between others (its input lies in blocks, with room for padding or without), with a residual."""
    g, rng = Builder("dilated"), np.random.default_rng(5)
    n, c, *size = shape
    x = g.input("x", TensorType((n, 8, *size)))
    one = Conv((1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    h = g.relu(g.emit(one, x, g.constant(rng.standard_normal((c, 8, 1, 1)).astype(np.float32))))
    w = (rng.standard_normal((outputs, c // groups, 3, 3)) / np.sqrt(9 * c / groups)).astype(np.float32)
    y = g.emit(Conv(strides, pads, dilations, groups), h, g.constant(w), g.constant(rng.standard_normal(outputs).astype(np.float32)))
    side = g.emit(Conv(strides, ((0, 0), (0, 0)), (1, 1), 1), x, g.constant(rng.standard_normal((outputs, 8, 1, 1)).astype(np.float32)))
    y = g.relu(g.add(y, side)) if side.shape == y.shape else g.relu(y)
    return g.finish({"y": y})


def kinds(model: Any) -> list[str]:
    return [model.plan.kernels[s.kernel].kind for s in model.plan.steps]


CASES = [  # input, outputs, dilations, pads: even parts, uneven ones, more than one image, other dilations per axis
    ((1, 64, 24, 24), 64, (2, 2), ((2, 2), (2, 2))),
    ((1, 64, 33, 29), 48, (2, 2), ((2, 2), (2, 2))),
    ((2, 40, 27, 31), 32, (4, 3), ((4, 4), (3, 3))),
    ((1, 64, 26, 40), 64, (1, 2), ((1, 1), (2, 2))),
    ((1, 64, 30, 30), 64, (2, 2), ((0, 0), (0, 0))),
    ((1, 64, 30, 31), 64, (2, 3), ((3, 0), (1, 4))),
]


@pytest.mark.parametrize(("shape", "outputs", "dilations", "pads"), CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_winograd_on_every_dth_pixel(shape: Any, outputs: int, dilations: Any, pads: Any, threads: int, rng: np.random.Generator) -> None:
    graph = network(shape, outputs, dilations, pads)
    x = rng.standard_normal((shape[0], 8, *shape[2:])).astype(np.float32)
    model = diptych.compile(graph, threads=threads)
    assert sum(k.startswith("winograd") for k in kinds(model)) >= dilations[0] * dilations[1]
    want = diptych.compile(graph, target="numpy")(x)
    np.testing.assert_allclose(model(x), want, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(model(x), model(x))
    strict = diptych.compile(graph, threads=threads, accuracy="strict")
    assert not any(k.startswith("winograd") for k in kinds(strict))
    np.testing.assert_allclose(strict(x), want, rtol=1e-4, atol=2e-5)


def test_the_parts_share_their_weights() -> None:
    transformed = 4 * 36 * 64 * 64  # bytes, as F(4, 3) has them
    four = diptych.compile(network((1, 64, 24, 24), 64, (2, 2), ((2, 2), (2, 2))), threads=1)
    assert four.plan.weights.nbytes < 1.02 * transformed
    assert sum(k.kind == "winograd" for k in four.plan.kernels) == 1


@pytest.mark.parametrize(("shape", "outputs", "dilations", "pads", "strides", "groups"), [
    ((1, 64, 28, 28), 64, (6, 6), ((6, 6), (6, 6)), (1, 1), 1),
    ((2, 40, 25, 31), 24, (7, 9), ((7, 7), (9, 9)), (1, 1), 1),
    ((1, 64, 24, 24), 32, (8, 8), ((8, 8), (8, 8)), (1, 1), 2),
    ((1, 32, 41, 50), 32, (12, 14), ((12, 12), (14, 14)), (2, 2), 1),
    ((1, 32, 34, 36), 32, (7, 7), ((7, 0), (7, 7)), (1, 1), 1),
])  # fmt: skip
@pytest.mark.parametrize("threads", [1, 3])
def test_taps_in_the_padding_are_left_out(shape: Any, outputs: int, dilations: Any, pads: Any, strides: Any, groups: int,
                                          threads: int, rng: np.random.Generator) -> None:  # fmt: skip
    graph = network(shape, outputs, dilations, pads, strides, groups)
    x = rng.standard_normal((shape[0], 8, *shape[2:])).astype(np.float32)
    model = diptych.compile(graph, threads=threads, accuracy="strict")
    partial = [k for k in model.plan.kernels if k.kind == "contract" and k.params.picked]
    assert partial, "no rectangle has taps left out"
    assert "pad" not in kinds(model)
    np.testing.assert_allclose(model(x), diptych.compile(graph, target="numpy")(x), rtol=1e-4, atol=2e-5)


def test_small_images_keep_one_step(rng: np.random.Generator) -> None:
    """Rectangles of a few pixels would leave the FMA pipelines waiting."""
    graph = network((1, 64, 9, 9), 64, (3, 3), ((3, 3), (3, 3)))
    model = diptych.compile(graph, accuracy="strict")
    assert not any(k.kind == "contract" and k.params.picked for k in model.plan.kernels)
    x = rng.standard_normal((1, 8, 9, 9)).astype(np.float32)
    np.testing.assert_allclose(model(x), diptych.compile(graph, target="numpy")(x), rtol=1e-4, atol=2e-5)
