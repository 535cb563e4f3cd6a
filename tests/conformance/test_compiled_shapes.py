"""Contractions of awkward sizes: tails in every direction, strides, dilations, groups, what is fused behind them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiled import Array, mismatches, run, runnable_targets

from diptych.ir import TensorType, Value, verify
from diptych.ops import Builder, Conv, ConvTranspose, MatMul
from diptych.targets import host
from diptych.targets.numpy import interpret

# (input [N, C, *S], outputs, kernel, strides, pads, dilations, groups)
CONVS: list[tuple[tuple[int, ...], int, tuple[int, ...], tuple[int, ...], int, int, int]] = [
    ((1, 3, 15, 17), 24, (7, 7), (2, 2), 3, 1, 1),  # a stem
    ((1, 1, 9, 9), 16, (3, 3), (1, 1), 1, 1, 1),
    ((2, 4, 8, 8), 20, (3, 3), (1, 1), 0, 1, 1),
    ((1, 5, 6, 6), 7, (3, 3), (1, 1), 1, 1, 1),  # no whole block of channels
    ((1, 16, 7, 7), 16, (3, 3), (1, 1), 1, 1, 1),
    ((2, 17, 7, 5), 33, (3, 3), (1, 1), 1, 1, 1),  # one more than a block, one more than two
    ((1, 31, 13, 13), 47, (1, 1), (1, 1), 0, 1, 1),
    ((3, 48, 4, 4), 64, (1, 1), (2, 2), 0, 1, 1),
    ((1, 32, 14, 14), 32, (3, 3), (2, 2), 1, 1, 1),
    ((1, 32, 9, 11), 16, (5, 5), (1, 1), 2, 1, 1),
    ((1, 16, 12, 12), 16, (3, 3), (1, 1), 2, 2, 1),  # dilated
    ((1, 16, 12, 12), 32, (1, 7), (1, 1), 3, 1, 1),
    ((1, 16, 8, 8), 16, (3, 3), (1, 1), 4, 1, 1),  # more padding than kernel
    ((1, 64, 6, 6), 64, (3, 3), (1, 1), 1, 1, 4),  # whole blocks per group
    ((1, 64, 6, 6), 32, (3, 3), (1, 1), 1, 1, 32),  # groups that are merged
    ((1, 12, 6, 6), 24, (3, 3), (1, 1), 1, 1, 3),
    ((2, 24, 10, 10), 24, (3, 3), (1, 1), 1, 1, 24),  # depthwise, channels not whole blocks
    ((1, 32, 11, 11), 32, (5, 5), (2, 2), 2, 1, 32),
    ((1, 16, 9, 9), 32, (3, 3), (1, 1), 1, 1, 16),  # depthwise with a multiplier
    ((2, 20, 23), 18, (3,), (2,), 1, 1, 1),  # one axis
    ((1, 16, 30), 16, (5,), (1,), 4, 2, 16),
    ((1, 6, 5, 6, 7), 10, (3, 3, 3), (1, 1, 1), 1, 1, 1),  # three axes
    ((1, 512, 3, 3), 40, (3, 3), (1, 1), 1, 1, 1),  # more than one chunk of the reduction
]
# (batch of a, batch of b, M, K, N, transpose_a, transpose_b)
MATMULS: list[tuple[tuple[int, ...], tuple[int, ...], int, int, int, bool, bool]] = [
    ((), (), 1, 64, 100, False, False),  # a row
    ((), (), 64, 100, 1, False, False),  # a column
    ((), (), 1, 1, 1, False, False),
    ((), (), 7, 13, 19, False, True),
    ((), (), 19, 33, 50, True, False),
    ((), (), 16, 16, 16, True, True),
    ((), (), 5, 2, 300, False, False),
    ((), (), 37, 1100, 17, False, True),  # a long reduction
    ((3,), (), 9, 20, 31, False, False),
    ((3,), (3,), 9, 20, 31, False, True),
    ((2, 3), (3,), 4, 17, 5, False, False),
    ((2, 1), (1, 3), 6, 8, 40, True, False),
]


@pytest.fixture(params=runnable_targets())
def target(request: pytest.FixtureRequest) -> Any:
    return host.find(request.param)


def draw(*shape: int) -> Array:
    return np.random.default_rng(sum(shape) + len(shape)).standard_normal(shape).astype(np.float32)


def check(g: Builder, outs: dict[str, Value], given: dict[str, Array], target: Any, threads: int) -> None:
    graph = verify(g.finish(outs))
    assert mismatches(graph, given, run(graph, given, target, threads)) == []


def epilogue(g: Builder, y: Value, residual: Value, kind: int) -> Value:
    """What models put behind a contraction: nothing, a relu, a residual and a relu, a gate."""
    if kind == 1:
        return g.relu(y)
    if kind == 2:
        return g.relu(g.add(y, residual))
    if kind == 3:
        return g.mul(g.sigmoid(y), residual)
    return y


@pytest.mark.parametrize(("kind", "threads"), [(0, 1), (1, 2), (2, 1), (2, 2), (3, 2)])
def test_convolutions(target: Any, kind: int, threads: int) -> None:
    g, given, outs = Builder("convs"), {}, {}
    for i, (shape, o, kernel, strides, pad, dilation, groups) in enumerate(CONVS):
        rank = len(kernel)
        pads = tuple((pad, pad) if k > 1 else (0, 0) for k in kernel)
        op = Conv(strides=strides, pads=pads, dilations=(dilation,) * rank, groups=groups)
        given[f"x{i}"] = draw(*shape)
        w = draw(o, shape[1] // groups, *kernel)
        bias = [g.constant(draw(o))] if i % 2 else []
        y = g.emit(op, g.input(f"x{i}", TensorType(shape)), g.constant(w), *bias)
        given[f"r{i}"] = draw(*y.shape)
        outs[f"y{i}"] = epilogue(g, y, g.input(f"r{i}", y.type), kind)
    check(g, outs, given, target, threads)


@pytest.mark.parametrize("constant", [False, True], ids=["two inputs", "constant"])
@pytest.mark.parametrize("kind", range(4), ids=["plain", "relu", "residual", "gate"])
def test_matrix_products(target: Any, kind: int, constant: bool) -> None:
    g, given, outs = Builder("products"), {}, {}
    for i, (batch_a, batch_b, m, k, n, ta, tb) in enumerate(MATMULS):
        a, b = draw(*batch_a, *((k, m) if ta else (m, k))), draw(*batch_b, *((n, k) if tb else (k, n)))
        given[f"a{i}"] = a
        x = g.input(f"a{i}", TensorType(a.shape))
        if not constant:
            given[f"b{i}"] = b
        w = g.constant(b) if constant else g.input(f"b{i}", TensorType(b.shape))
        y = g.emit(MatMul(transpose_a=ta, transpose_b=tb), x, w)
        given[f"r{i}"] = draw(*y.shape)
        outs[f"y{i}"] = epilogue(g, y, g.input(f"r{i}", y.type), kind)
    check(g, outs, given, target, threads=1 + (kind % 2))


def test_transposed_convolutions(target: Any) -> None:
    g, given, outs = Builder("transposed"), {}, {}
    for i, (shape, o, kernel, stride, pad, more) in enumerate(
        [((1, 16, 5, 5), 16, (4, 4), 2, 1, 0), ((2, 5, 4, 6), 7, (3, 3), 2, 1, 1), ((1, 32, 6, 6), 20, (2, 2), 2, 0, 0),
         ((1, 8, 5, 5), 8, (5, 5), 3, 2, 2), ((1, 4, 9), 6, (4,), 2, 1, 0)]
    ):
        rank = len(kernel)
        op = ConvTranspose((stride,) * rank, ((pad, pad),) * rank, (1,) * rank, 1, (more,) * rank)
        given[f"x{i}"] = draw(*shape)
        w, bias = g.constant(draw(shape[1], o, *kernel)), g.constant(draw(o))
        outs[f"y{i}"] = g.relu(g.emit(op, g.input(f"x{i}", TensorType(shape)), w, bias))
    check(g, outs, given, target, threads=2)


def test_deep_sums_are_summed_in_parts(target: Any) -> None:
    """Rounding errors grow with the square root of a part's length, not of the whole sum's."""
    x, w = draw(1, 512, 6, 6), draw(32, 512, 3, 3)
    a, b = draw(8, 6000), draw(6000, 16)
    g = Builder("deep")
    conv = g.emit(Conv((1, 1), ((1, 1), (1, 1)), (1, 1)), g.input("x", TensorType(x.shape)), g.constant(w))
    product = g.matmul(g.input("a", TensorType(a.shape)), g.constant(b))
    graph, given = verify(g.finish({"conv": conv, "product": product})), {"x": x, "a": a}
    exact = interpret(graph, given, precision="f64")
    for name, y in run(graph, given, target, threads=2, accuracy="strict").items():
        error = np.sqrt(np.mean((y - exact[name]) ** 2) / np.mean(exact[name] ** 2))
        assert error < 5e-7, f"{name}: {error:.1e}; one chain of additions has about 1.4e-6"


def test_a_wrong_answer_is_seen() -> None:
    g = Builder("seen")
    x = g.input("x", TensorType((2, 3)))
    graph = verify(g.finish({"y": g.exp(x)}))
    right = np.exp(draw(2, 3))
    assert mismatches(graph, {"x": draw(2, 3)}, {"y": right}) == []
    wrong = right.copy()
    wrong[1, 2] *= np.float32(1.0001)
    assert len(mismatches(graph, {"x": draw(2, 3)}, {"y": wrong})) == 1
    wrong[1, 2] = np.nan
    assert len(mismatches(graph, {"x": draw(2, 3)}, {"y": wrong})) == 1
