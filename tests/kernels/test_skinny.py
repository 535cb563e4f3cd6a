"""Products of few rows: sizes that cut panels, streams and chunks; operands computed at run time; several threads; NaN."""

from __future__ import annotations

import numpy as np
import pytest

import diptych
from diptych import compiler
from diptych.ir import Graph, TensorType
from diptych.kernels.skinny import choose_skinny
from diptych.ops.build import Builder
from diptych.options import Options
from diptych.schedule.context import Context
from diptych.targets import host
from diptych.targets.numpy import interpret

Array = np.ndarray


def _normal(rng: np.random.Generator, *shape: int) -> Array:  # type: ignore[type-arg]
    return rng.standard_normal(shape).astype(np.float32)


def _kinds(graph: Graph) -> list[str]:
    return [k.kind for k in compiler.compile_plan(graph, Options(), host.find(None)).kernels]


def _check(graph: Graph, rng: np.random.Generator, threads: int = 2, tolerance: float = 5e-6) -> None:
    inputs = {k: _normal(rng, *t.shape) for k, t in graph.input_types().items()}
    expected = interpret(graph, inputs, "f64")
    result = diptych.compile(graph, threads=threads)(**inputs)
    for (name, e), r in zip(expected.items(), result if isinstance(result, tuple) else (result,), strict=True):
        assert np.abs(r - e).max() <= tolerance * np.sqrt(np.mean(np.square(e))), name


def _product(rng: np.random.Generator, m: int, k: int, n: int) -> Graph:
    """Bias, activation and residual around it."""
    g = Builder("product")
    x = g.input("x", TensorType((m, k)))
    y = g.add(g.matmul(x, g.constant(_normal(rng, n, k)), transpose_b=True), g.constant(_normal(rng, n)))
    return g.finish({"y": g.add(g.relu(y), g.input("z", y.type))})


# One panel with and without a tail, fewer panels than streams, streams of one length, and panels left over.
@pytest.mark.parametrize(("k", "n"), [(1, 1), (16, 16), (37, 21), (40, 64), (100, 200), (784, 333), (5, 1000)])
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 6, 7, 8])
def test_sizes(rng: np.random.Generator, m: int, k: int, n: int) -> None:
    graph = _product(rng, m, k, n)
    assert "skinny" in _kinds(graph)
    _check(graph, rng)


@pytest.mark.parametrize(("m", "k"), [(1, 9000), (3, 3000), (4, 3072), (5, 2049), (8, 1040)])
@pytest.mark.parametrize("threads", [1, 2])
def test_deep_sums_are_cut_into_chunks(rng: np.random.Generator, m: int, k: int, threads: int) -> None:
    tiling = choose_skinny(host.find(None), batch=1, pixels=m, panels=5, k=k, memory=False)
    assert tiling is not None and tiling.k_chunk < k // 16
    _check(_product(rng, m, k, 70), rng, threads)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("m", "k"), [(1, 1024), (2, 1024), (8, 512), (8, 2048)])
def test_errors_are_those_of_short_chains(rng: np.random.Generator, m: int, k: int, zeros: bool) -> None:
    """A classifier's rms error is that of the whole network: one chain of 512 additions alone makes 4e-7 of it."""
    g = Builder("classifier")
    x = g.input("x", TensorType((m, k)))
    y = g.relu(x) if zeros else x
    graph = g.finish({"y": g.matmul(y, g.constant(_normal(rng, 1000, k)), transpose_b=True)})
    assert ("skinny_zeros" if zeros and m == 1 else "skinny") in _kinds(graph)
    inputs = {"x": _normal(rng, m, k)}
    exact = interpret(graph, inputs, "f64")["y"]
    error = diptych.compile(graph, threads=1)(**inputs) - exact
    assert np.sqrt(np.mean(np.square(error))) < 2.2e-7 * np.sqrt(np.mean(np.square(exact)))


@pytest.mark.parametrize("m", [1, 2, 4])
@pytest.mark.parametrize("n", [40, 128, 290])
def test_weights_from_memory(rng: np.random.Generator, m: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched ahead: the same sums."""
    monkeypatch.setattr(Context, "constant_bytes", property(lambda self: 1 << 40))
    _check(_product(rng, m, 200, n), rng)


@pytest.mark.parametrize(("ta", "tb"), [(False, False), (True, True)])
def test_batches_of_computed_operands(rng: np.random.Generator, ta: bool, tb: bool) -> None:
    g = Builder("decode")
    q = g.input("q", TensorType((2, 3, 33, 2) if ta else (2, 3, 2, 33)))
    k = g.input("k", TensorType((2, 1, 45, 33) if tb else (2, 1, 33, 45)))
    graph = g.finish({"s": g.mul(g.matmul(q, k, ta, tb), 0.25)})
    assert "skinny" in _kinds(graph)
    _check(graph, rng)


def test_a_convolution_of_one_pixel(rng: np.random.Generator) -> None:
    from diptych.ops import Conv

    g = Builder("gate")
    x = g.input("x", TensorType((2, 40, 1, 1)))
    conv = Conv((1, 1), ((0, 0), (0, 0)), (1, 1))
    h = g.relu(g.emit(conv, x, g.constant(_normal(rng, 24, 40, 1, 1)), g.constant(_normal(rng, 24))))
    _check(g.finish({"y": g.emit(conv, h, g.constant(_normal(rng, 40, 24, 1, 1)))}), rng)


def test_nothing_and_no_depth(rng: np.random.Generator) -> None:
    g = Builder("empty")
    none = g.matmul(g.input("a", TensorType((0, 7))), g.constant(_normal(rng, 7, 4)))
    zeros = g.matmul(g.input("b", TensorType((2, 0))), g.constant(_normal(rng, 0, 3)))
    model = diptych.compile(g.finish({"none": none, "zeros": zeros}))
    a, b = model(np.zeros((0, 7), np.float32), np.zeros((2, 0), np.float32))
    assert a.shape == (0, 4)
    np.testing.assert_array_equal(b, np.zeros((2, 3)))


def test_not_a_number_stays_in_its_row_and_infinities_propagate(rng: np.random.Generator) -> None:
    g = Builder("rows")
    x = g.input("x", TensorType((3, 50)))
    w = np.abs(_normal(rng, 50, 70)) + 1
    model = diptych.compile(g.finish({"y": g.matmul(x, g.constant(w))}), threads=2)
    given = np.abs(_normal(rng, 3, 50))
    given[0, 7], given[2, 49] = np.nan, np.inf
    y = model(given)
    assert np.isnan(y[0]).all() and np.isfinite(y[1]).all() and np.isposinf(y[2]).all()


def _after_relu(rng: np.random.Generator, k: int, n: int, w: Array | None = None) -> Graph:
    g = Builder("zeros")
    x = g.relu(g.input("x", TensorType((1, k))))
    y = g.matmul(x, g.constant(_normal(rng, n, k) if w is None else w), transpose_b=True)
    return g.finish({"y": g.add(y, g.constant(_normal(rng, n)))})


def _zeros_model(graph: Graph, threads: int, level: str | None = None) -> diptych.CompiledModel:
    model = diptych.compile(graph, threads=threads, target=level)
    assert "skinny_zeros" in [k.kind for k in model.plan.kernels]
    return model


# One vector and a tail, fewer panels than streams, panels left over, sums in parts.
@pytest.mark.parametrize(("k", "n"), [(64, 1), (67, 21), (512, 512), (100, 200), (784, 333), (9001, 70), (9801, 300), (4500, 1000)])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("level", [None, "x86-64-v3"])
def test_zeros_are_left_out(rng: np.random.Generator, k: int, n: int, threads: int, level: str | None) -> None:
    graph = _after_relu(rng, k, n)
    model = _zeros_model(graph, threads, level)
    for density in (0.0, 0.03, 0.5, 1.0):
        x = np.where(rng.random((1, k)) < density, np.abs(_normal(rng, 1, k)) + 0.1, -1.0).astype(np.float32)
        (e,) = interpret(graph, {"x": x}, "f64").values()
        assert np.abs(model(x) - e).max() <= 5e-6 * np.sqrt(np.mean(np.square(e))), density
    x[:] = -0.0
    np.testing.assert_array_equal(model(x), model(np.full_like(x, -1.0)))


@pytest.mark.parametrize("n", [40, 290])
def test_zeros_are_left_out_of_weights_from_memory(rng: np.random.Generator, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "constant_bytes", property(lambda self: 1 << 40))
    graph = _after_relu(rng, 300, n)
    assert "skinny_zeros" in _kinds(graph)
    _check(graph, rng)


def test_not_a_number_is_no_zero(rng: np.random.Generator) -> None:
    w = np.abs(_normal(rng, 70, 130)) + 1
    model = _zeros_model(_after_relu(rng, 130, 70, w), 2)
    x = _normal(rng, 1, 130)
    x[0, 128] = np.nan
    assert np.isnan(model(x)).all()
    x[0, 128] = np.inf
    assert np.isposinf(model(x)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_meet_every_zero(rng: np.random.Generator, bad: float) -> None:
    w = _normal(rng, 70, 130)
    w[5, 7] = bad
    w[6, 9] = -bad
    graph = _after_relu(rng, 130, 70, w)
    assert "skinny_zeros" not in _kinds(graph)
    y = diptych.compile(graph, threads=2)(np.full((1, 130), -1.0, np.float32))
    assert np.isnan(y[0, 5:7]).all() and np.isfinite(np.delete(y, (5, 6))).all()


def test_no_zeros_are_looked_for_where_none_are_likely(rng: np.random.Generator) -> None:
    g = Builder("plain")
    h = g.relu(g.matmul(g.input("x", TensorType((2, 100))), g.constant(_normal(rng, 100, 100))))
    two_rows = g.matmul(h, g.constant(_normal(rng, 100, 100)))
    assert "skinny_zeros" not in _kinds(g.finish({"y": two_rows}))
    assert "skinny_zeros" not in _kinds(_product(rng, 1, 100, 100))
