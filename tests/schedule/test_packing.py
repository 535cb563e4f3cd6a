"""Constants are packed in place: right at every size, and without a second copy of a large one."""

from __future__ import annotations

import tracemalloc
from math import prod
from typing import Any

import numpy as np
import pytest

from diptych.compiler import compile_plan
from diptych.ir import Graph, TensorType
from diptych.kernels.staged import pack_groups
from diptych.kernels.winograd_streamed import pack_raw, raw_shape
from diptych.ops.build import Builder
from diptych.ops.conv import Conv
from diptych.options import Options
from diptych.schedule.contraction import pack_weights
from diptych.targets import host

Array = np.ndarray[Any, Any]


def at(shape: tuple[int, ...]) -> Array:
    """An array whose elements all differ."""
    return np.arange(1, prod(shape) + 1, dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("lead", [(), (3,), (2, 2), (0,)])
@pytest.mark.parametrize(("o", "k", "taps"), [(16, 16, 1), (32, 48, 9), (1, 1, 1), (17, 35, 4), (40, 7, 3), (5, 64, 1), (33, 0, 1)])
def test_panels(lead: tuple[int, ...], o: int, k: int, taps: int) -> None:
    w = at((*lead, taps, k, o)).transpose(*range(len(lead)), -1, -2, -3)  # no particular order in memory
    panels = -(-o // 16)
    out = np.zeros((*lead, panels, k * taps * 16), np.float32)
    pack_weights(w, out)
    for where in np.ndindex(*lead):
        for panel in range(panels):
            expected = [
                w[where][16 * panel + lane, c, tap] if 16 * panel + lane < o else 0
                for first in range(0, k, 16)
                for tap in range(taps)
                for c in range(first, min(first + 16, k))
                for lane in range(16)
            ]
            np.testing.assert_array_equal(out[where][panel], expected)


@pytest.mark.parametrize(("o", "c", "group", "depth"), [(64, 32, 2, 16), (61, 32, 4, 32), (16, 48, 1, 16)])
def test_raw_winograd_weights(o: int, c: int, group: int, depth: int) -> None:
    w = at((o, c, 3, 3))
    out = np.zeros(raw_shape(-(-o // 16), group, c, depth), np.float32)
    pack_raw(w, out)
    for (g, s, p, d, tap, lane), found in np.ndenumerate(out.reshape(*out.shape[:-1], 9, 16)):
        n = (g * group + p) * 16 + lane
        assert found == (w[n, s * depth + d].reshape(9)[tap] if n < o else 0)


def test_staged_weights() -> None:
    w = at((70, 24))
    out = np.zeros((3, 24, 32), np.float32)
    pack_groups(w, out)
    padded = np.pad(w, ((0, 96 - 70), (0, 0)))
    np.testing.assert_array_equal(out, padded.reshape(3, 32, 24).transpose(0, 2, 1))


def product(rows: int, n: int) -> Graph:
    g = Builder("product")
    x = g.input("x", TensorType((rows, 1024)))
    return g.finish({"y": g.matmul(x, g.constant(np.ones((1024, n), np.float32)))})


def convolution(size: int, stride: int, kernel: int, channels: int = 512) -> Graph:
    g = Builder("convolution")
    x = g.input("x", TensorType((1, channels, size, size)))
    w = g.constant(np.ones((channels, channels, kernel, kernel), np.float32))
    pads = ((kernel // 2, kernel // 2),) * 2
    return g.finish({"y": g.emit(Conv((stride, stride), pads, (1, 1), 1), x, w)})


@pytest.mark.parametrize("graph", [
    product(1, 3000), product(7, 3001), product(512, 3072),  # the last by Strassen's scheme
    convolution(7, 1, 3), convolution(28, 1, 3), convolution(14, 2, 3), convolution(14, 1, 5), convolution(28, 1, 1, 1536),
])  # fmt: skip
def test_no_copy_of_what_is_packed(graph: Graph) -> None:
    """By tracemalloc, which NumPy tells of its arrays: no more than a fraction of the weights beside their place."""
    plan = compile_plan(graph, Options(threads=1), host.find(None))
    assert plan.constants.nbytes > 8 << 20
    calls = []
    tracemalloc.start()
    try:
        plan.constants.pack(lambda: calls.append(tracemalloc.get_traced_memory()[0]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(calls) >= 2
    room = (2 << 20) + (2 << 20)  # huge pages: aligned, and whole
    assert peak <= plan.constants.nbytes + room + (4 << 20)
    assert plan.constants.pack() is plan.weights, "once"
