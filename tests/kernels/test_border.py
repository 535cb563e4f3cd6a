"""Zeroed borders, and plans in which padded values share memory with others."""

from __future__ import annotations

import numpy as np
import pytest
from harness import ARM, V4, build, compile_only, view
from random_networks import skip_connections
from test_contraction import _check, _normal

from diptych import compiler
from diptych.ir import Graph, TensorType
from diptych.kernels.border import make_border
from diptych.ops import Conv, MaxPool
from diptych.ops.build import Builder
from diptych.options import Options
from diptych.targets import host


@pytest.mark.parametrize(
    ("shape", "pads"),
    [
        ((2, 3, 6, 7, 16), ((1, 1), (1, 1))),
        ((1, 2, 5, 4, 16), ((0, 2), (1, 0))),
        ((1, 1, 9, 16), ((2, 3),)),
        ((1, 2, 4, 5, 6, 16), ((1, 0), (0, 1), (1, 2))),
        ((1, 2, 4, 4, 16), ((0, 0), (0, 0))),
    ],
)
def test_the_border_and_nothing_else(shape: tuple[int, ...], pads: tuple[tuple[int, int], ...]) -> None:
    out = np.full(shape, 7, np.float32)
    kernel = make_border(view(out), pads)
    build(kernel)(out)
    inside = (..., *(slice(lo, d - hi) for (lo, hi), d in zip(pads, shape[2:-1], strict=True)), slice(None))
    assert (out[inside] == 7).all()
    out[inside] = 0
    assert not out.any()
    if kernel.work:
        assert compile_only(kernel, V4)
        assert compile_only(kernel, ARM)


def _pyramid(rng: np.random.Generator) -> Graph:
    """Convolutions of four sizes: no padded value has the geometry of another."""
    g = Builder("pyramid")
    x = g.input("x", TensorType((1, 16, 72, 72)))
    for _ in range(4):
        for _ in range(2):
            w = g.constant(_normal(rng, 16, 16, 3, 3) / 12)
            x = g.relu(g.emit(Conv((1, 1), ((1, 1), (1, 1)), (1, 1)), x, w))
        x = g.emit(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), x)
    return g.finish({"y": x})


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_padded_values_share_memory(rng: np.random.Generator, threads: int) -> None:
    graph = _pyramid(rng)
    _check(graph, rng, threads)
    plan = compiler.compile_plan(graph, Options(threads=threads), host.find("x86-64-v3"))
    assert any(k.kind == "border" for k in plan.kernels)
    two_largest = 4 * 16 * (74 * 74 + 72 * 72)
    assert plan.arena_bytes - plan.scratch_bytes * threads <= 1.3 * two_largest


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_joined_values_share_memory_part_by_part(rng: np.random.Generator, threads: int, batch: int) -> None:
    graph = skip_connections(batch, size=40)
    _check(graph, rng, threads)
    plan = compiler.compile_plan(graph, Options(threads=threads), host.find("x86-64-v3"))
    assert any(k.kind == "border" for k in plan.kernels) or plan.over_bound <= 0.1
