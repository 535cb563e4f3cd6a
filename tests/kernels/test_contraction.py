"""The contraction kernel through compiled graphs: products and convolutions of sizes that cut tiles, panels and blocks."""

from __future__ import annotations

import numpy as np
import pytest

import diptych
from diptych import compiler
from diptych.ir import Graph, TensorType
from diptych.ops import Conv, ConvTranspose
from diptych.ops.build import Builder
from diptych.options import Options
from diptych.targets import host
from diptych.targets.numpy import interpret


def _check(graph: Graph, rng: np.random.Generator, threads: int = 2, tolerance: float = 5e-6) -> None:
    inputs = {k: rng.standard_normal(t.shape).astype(np.float32) for k, t in graph.input_types().items()}
    expected = interpret(graph, inputs, "f64")
    result = diptych.compile(graph, threads=threads, accuracy="strict")(**inputs)
    results = result if isinstance(result, tuple) else (result,)
    for (name, e), r in zip(expected.items(), results, strict=True):
        assert r.shape == e.shape, name
        if e.size:
            assert np.abs(r - e).max() <= tolerance * max(1e-30, np.sqrt(np.mean(e**2))), name


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:  # type: ignore[type-arg]
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("m", [1, 2, 3, 5, 7, 13, 50])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (16, 16), (37, 21), (200, 130)])
def test_products_with_constant_weights(rng: np.random.Generator, m: int, k: int, n: int) -> None:
    g = Builder("product")
    x = g.input("x", TensorType((m, k)))
    y = g.add(g.matmul(x, g.constant(_normal(rng, n, k)), transpose_b=True), g.constant(_normal(rng, n)))
    _check(g.finish({"y": g.mul(g.relu(y), g.input("z", y.type))}), rng)


@pytest.mark.parametrize(("ta", "tb"), [(False, False), (True, False), (False, True), (True, True)])
def test_products_of_activations(rng: np.random.Generator, ta: bool, tb: bool) -> None:
    g = Builder("attention")
    q = g.input("q", TensorType((2, 3, 11, 19) if ta else (2, 3, 19, 11)))
    k = g.input("k", TensorType((2, 1, 23, 11) if tb else (2, 1, 11, 23)))
    _check(g.finish({"s": g.mul(g.matmul(q, k, ta, tb), 0.25)}), rng)


def test_rows_a_page_apart_are_copied_once_for_all_products_of_them(rng: np.random.Generator) -> None:
    """And only where there are more of them than a set of L1 has lines, and columns enough to pay."""
    def build(rows: int, n: int, depth: int) -> Graph:
        g = Builder("pages")
        x = g.relu(g.input("x", TensorType((2, rows, depth))))
        return g.finish([g.matmul(x, g.constant(_normal(rng, depth, n))) for _ in range(2)])

    def copies(graph: Graph) -> int:
        plan = compiler.compile_plan(graph, Options(accuracy="strict"), host.find("x86-64-v4"))
        return sum(fused == ("pack",) for fused in plan.fused)

    graph = build(21, 272, 1024)
    assert copies(graph) == 1
    _check(graph, rng, tolerance=1e-5)
    assert copies(build(21, 272, 1040)) == 0
    assert copies(build(21, 64, 1024)) == 0
    assert copies(build(4, 272, 1024)) == 0


def test_a_row_of_many_batches(rng: np.random.Generator) -> None:
    g = Builder("decode")
    q, k = g.input("q", TensorType((4, 1, 32))), g.input("k", TensorType((4, 32, 40)))
    _check(g.finish({"s": g.matmul(q, k)}), rng)


def test_empty_and_deep_empty_products(rng: np.random.Generator) -> None:
    g = Builder("empty")
    a, b = g.input("a", TensorType((0, 7))), g.input("b", TensorType((5, 0)))
    w = g.constant(_normal(rng, 7, 4))
    _check(g.finish({"none": g.matmul(a, w), "zeros": g.matmul(b, g.constant(_normal(rng, 0, 3)))}), rng)


@pytest.mark.parametrize(
    ("shape", "w", "strides", "pads", "dilations", "groups"),
    [
        ((1, 3, 23, 21), (20, 3, 7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1), 1),
        ((2, 20, 9, 7), (33, 20, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
        ((1, 40, 12, 12), (16, 40, 1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
        ((1, 24, 15, 14), (16, 24, 3, 2), (2, 1), ((0, 1), (2, 0)), (1, 3), 1),
        ((1, 64, 8, 8), (64, 16, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 4),
        ((2, 24, 8, 8), (12, 4, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 6),
        ((1, 12, 8, 8), (24, 1, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 12),
        ((1, 40, 9, 9), (40, 1, 5, 5), (2, 2), ((2, 2), (2, 2)), (1, 1), 40),
        ((2, 20, 31), (33, 20, 3), (1,), ((2, 2),), (2,), 1),
        ((1, 18, 4, 6, 5), (17, 18, 2, 3, 3), (1, 2, 1), ((1, 0), (1, 1), (1, 1)), (1, 1, 1), 1),
    ],
)
def test_convolutions(rng: np.random.Generator, shape: tuple[int, ...], w: tuple[int, ...], strides: tuple[int, ...],
                      pads: tuple[tuple[int, int], ...], dilations: tuple[int, ...], groups: int) -> None:  # fmt: skip
    g = Builder("conv")
    x = g.input("x", TensorType(shape))
    conv = Conv(strides, pads, dilations, groups)
    y = g.emit(conv, g.relu(x), g.constant(_normal(rng, *w)), g.constant(_normal(rng, w[0])))
    _check(g.finish({"y": g.relu(g.add(y, g.input("z", y.type)))}), rng)


def test_two_paddings_of_one_value_and_a_concatenation(rng: np.random.Generator) -> None:
    g = Builder("net")
    x = g.input("x", TensorType((2, 3, 14, 10)))
    same = ((1, 1), (1, 1))
    h = g.relu(g.emit(Conv((1, 1), same, (1, 1)), x, g.constant(_normal(rng, 32, 3, 3, 3))))
    a = g.emit(Conv((1, 1), same, (1, 1)), h, g.constant(_normal(rng, 16, 32, 3, 3)))
    b = g.emit(Conv((1, 1), ((2, 2), (2, 2)), (2, 2)), h, g.constant(_normal(rng, 16, 32, 3, 3)))
    c = g.concat([a, g.relu(b), h], 1)
    up = g.emit(ConvTranspose((2, 2), same, (1, 1)), c, g.constant(_normal(rng, 64, 8, 4, 4)))
    _check(g.finish({"c": c, "up": up, "mean": g.mean(c, (2, 3))}), rng)


def test_nan_and_infinity_stay_in_their_rows(rng: np.random.Generator) -> None:
    g = Builder("special")
    x = g.input("x", TensorType((8, 33)))
    model = diptych.compile(g.finish({"y": g.relu(g.matmul(x, g.constant(_normal(rng, 33, 20))))}))
    a = _normal(rng, 8, 33)
    clean = model(a)
    a[3, 32] = np.nan
    a[5, 0] = np.inf
    y = model(a)
    assert np.isnan(y[3]).all()
    assert (np.isinf(y[5]) | (y[5] == 0)).all()
    keep = [0, 1, 2, 4, 6, 7]
    np.testing.assert_array_equal(y[keep], clean[keep])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("shape", "o", "kernel", "strides", "pads", "dilations", "groups", "extra"),
    [
        ((1, 20, 7, 6), 33, (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), 1, ()),
        ((2, 32, 5, 6), 16, (4, 4), (2, 2), ((1, 1), (1, 1)), (1, 1), 1, ()),
        ((1, 16, 6, 5), 20, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 1, (1, 1)),
        ((1, 24, 5, 5), 12, (2, 3), (3, 2), ((0, 1), (2, 0)), (2, 1), 1, (2, 0)),  # phases without any tap
        ((2, 32, 4, 4), 32, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2, ()),
        ((1, 24, 4, 4), 24, (4, 4), (2, 2), ((1, 1), (1, 1)), (1, 1), 24, ()),
        ((2, 18, 9), 17, (5,), (3,), ((2, 1),), (1,), 1, ()),
        ((1, 16, 3, 4, 2), 18, (2, 2, 2), (2, 2, 2), ((0, 0),) * 3, (1, 1, 1), 1, ()),
        ((1, 16, 3, 4, 2), 18, (2, 3, 2), (2, 1, 2), ((0, 0), (1, 1), (0, 1)), (1, 1, 1), 1, ()),
    ],
)
def test_transposed_convolutions(rng: np.random.Generator, shape: tuple[int, ...], o: int, kernel: tuple[int, ...],
                                 strides: tuple[int, ...], pads: tuple[tuple[int, int], ...], dilations: tuple[int, ...],
                                 groups: int, extra: tuple[int, ...], threads: int) -> None:  # fmt: skip
    """Between blocked neighbours, into a concatenation that a 3x3 convolution pads."""
    g = Builder("up")
    rank, c = len(kernel), shape[1]
    ones, none = (1,) * rank, ((0, 0),) * rank
    x = g.relu(g.emit(Conv(ones, none, ones), g.input("x", TensorType(shape)), g.constant(_normal(rng, c, c, *ones))))
    op = ConvTranspose(strides, pads, dilations, groups, extra)
    w = _normal(rng, c, o // groups, *kernel)
    up = g.relu(g.emit(op, x, g.constant(w), g.constant(_normal(rng, o))))
    up = g.mul(up, g.input("z", up.type))
    skip = g.emit(Conv(ones, none, ones), g.input("s", TensorType((shape[0], 5, *up.shape[2:]))),
                  g.constant(_normal(rng, 32, 5, *ones)))  # fmt: skip
    joined = g.concat([skip, up], 1)
    y = g.emit(Conv(ones, ((1, 1),) * rank, ones), joined, g.constant(_normal(rng, 16, 32 + o, *(3,) * rank)))
    _check(g.finish({"y": y, "up": up}), rng, threads)
