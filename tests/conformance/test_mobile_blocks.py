"""Inverted residuals with and without squeeze-and-excite as native code: joined kernels against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiled import Array, mismatches, run, runnable_targets

from diptych.ir import Graph, TensorType, Value, verify
from diptych.ops import OPS, Builder, Conv, Silu
from diptych.targets import host


class Blocks:
    """Writes the blocks of a mobile network with random weights."""

    def __init__(self, images: int, size: tuple[int, int], channels: int = 3) -> None:
        self.g, self.rng = Builder("blocks"), np.random.default_rng(7)
        self.given = {"x": self.rng.standard_normal((images, channels, *size)).astype(np.float32)}
        self.x = self.g.input("x", TensorType((images, channels, *size)))

    def weight(self, *shape: int) -> Value:
        return self.g.constant((self.rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32))

    def conv(self, x: Value, o: int, kernel: int = 1, stride: int = 1, depthwise: bool = False) -> Value:
        c, pad = x.shape[1], kernel // 2
        op = Conv((stride, stride), ((pad, pad), (pad, pad)), (1, 1), c if depthwise else 1)
        weight = self.weight(o, 1 if depthwise else c, kernel, kernel)
        return self.g.emit(op, x, weight, self.weight(o)) if o % 2 == 0 else self.g.emit(op, x, weight)

    def act(self, kind: str, x: Value) -> Value:
        if kind == "silu":
            return self.g.emit(Silu(), x)
        if kind == "hard":
            return self.g.emit(OPS["hard_swish"](), x)
        return self.g.minimum(self.g.relu(x), 6.0)

    def excite(self, x: Value) -> Value:
        mean = self.g.emit(OPS["mean"](axes=(2, 3), keepdims=True), x)
        small = self.g.relu(self.conv(mean, max(2, x.shape[1] // 4)))
        return self.g.mul(x, self.g.sigmoid(self.conv(small, x.shape[1])))

    def block(self, x: Value, inner: int, out: int, kernel: int, stride: int, kind: str, excite: bool) -> Value:
        y = self.act(kind, self.conv(x, inner))
        y = self.act(kind, self.conv(y, inner, kernel, stride, depthwise=True))
        y = self.conv(self.excite(y) if excite else y, out)
        return self.g.add(y, x) if y.shape == x.shape else y

    def finish(self, *ys: Value) -> Graph:
        return verify(self.g.finish({f"y{i}": y for i, y in enumerate(ys)}))


def check(b: Blocks, graph: Graph, target: str, threads: int) -> dict[str, Array]:
    got = run(graph, b.given, host.find(target), threads)
    assert not mismatches(graph, b.given, got)
    return got


@pytest.mark.parametrize("target", runnable_targets())
@pytest.mark.parametrize(("images", "size", "threads"), [(1, (33, 31), 2), (3, (22, 40), 3), (2, (11, 64), 1)])
@pytest.mark.parametrize(("kind", "excite"), [("clamp", False), ("silu", True), ("hard", True)])
def test_network_of_blocks(target: str, images: int, size: tuple[int, int], threads: int, kind: str, excite: bool) -> None:
    b = Blocks(images, size)
    x = b.act(kind, b.conv(b.x, 18, 3, 2))
    x = b.conv(b.act(kind, b.conv(x, 18, 3, depthwise=True)), 12)
    x = b.block(x, 40, 12, 3, 1, kind, excite)
    x = b.block(x, 50, 20, 5, 2, kind, excite)
    x = b.block(x, 80, 20, 3, 1, kind, excite)
    check(b, b.finish(x), target, threads)


@pytest.mark.parametrize("what", ["output", "residual", "sum"])
def test_image_between_that_others_read_stays(what: str) -> None:
    b = Blocks(1, (17, 19))
    x = b.act("clamp", b.conv(b.x, 16, 3))
    y = b.act("clamp", b.conv(x, 16, 3, depthwise=True))
    others: dict[str, Any] = {"output": lambda: x, "residual": lambda: b.g.add(x, y),
                              "sum": lambda: b.g.emit(OPS["sum"](axes=(2, 3), keepdims=True), x)}  # fmt: skip
    check(b, b.finish(y, others[what]()), runnable_targets()[0], 2)


@pytest.mark.parametrize("keepdims", [True, False])
def test_mean_of_an_image_that_is_an_output_too(keepdims: bool) -> None:
    b = Blocks(2, (20, 18), 24)
    y = b.act("silu", b.conv(b.act("silu", b.conv(b.x, 48)), 48, 3, depthwise=True))
    check(b, b.finish(y, b.g.emit(OPS["mean"](axes=(2, 3), keepdims=keepdims), y)), runnable_targets()[0], 2)


def test_factors_of_a_larger_window_and_of_a_short_image() -> None:
    """Neither goes into the weights: padding is not scaled, and few pixels are scaled more cheaply than weights."""
    b = Blocks(2, (12, 12), 16)
    check(b, b.finish(b.conv(b.excite(b.conv(b.x, 32)), 16, 3), b.conv(b.excite(b.conv(b.x, 32, 5, 4)), 64)),
          runnable_targets()[0], 2)  # fmt: skip
