"""Normalisations joined with the products behind them: gathers before, other readers, odd rows, what is not finite."""

from __future__ import annotations

import numpy as np
import pytest

import diptych
from diptych.ir import Graph, TensorType, Value
from diptych.kernels.strassen_rows import Norm
from diptych.ops import LayerNorm, RmsNorm, Take
from diptych.ops.build import Builder
from diptych.schedule.groups import partition
from diptych.schedule.norm_sums import join_norms
from diptych.targets import host
from diptych.targets.numpy import interpret

Array = np.ndarray  # type: ignore[type-arg]
LEVELS = [n for n in ("x86-64-v4", "x86-64-v3", "aarch64") if host.find(n).is_host]
RNG = np.random.default_rng(11)


def _normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def _norm(g: Builder, x: Value, kind: str = "layer") -> Value:
    k = x.shape[-1]
    if kind == "rms":
        return g.emit(RmsNorm(eps=1e-6), x, g.constant(_normal(k)))
    return g.emit(LayerNorm(axis=x.rank - 1, eps=1e-5), x, g.constant(_normal(k)), g.constant(_normal(k)))


def _product(g: Builder, x: Value, n: int) -> Value:
    w = g.constant(_normal(x.shape[-1], n) / np.float32(np.sqrt(x.shape[-1])))
    return g.add(g.matmul(x, w), g.constant(_normal(n)))


def _take(g: Builder, x: Value, count: int) -> Value:
    rows = x.shape[0]
    order = RNG.permutation(rows) if count == rows else RNG.integers(0, rows, count)
    return g.emit(Take(axis=0, mode="clip"), x, g.constant(order.astype(np.int32), "i32"))


def _norms(model: diptych.Model) -> list[Norm]:
    """Of the kernels that make sums: what they do to the rows first."""
    assert model.plan is not None
    return [k.params.norm for k in model.plan.kernels if k.kind == "strassen_rows" and k.params.norm is not None]


def _check(graph: Graph, threads: int = 2, level: str | None = None, tol: float = 3e-5) -> diptych.Model:
    model = diptych.compile(graph, threads=threads, target=level)
    inputs = {n: _normal(*t.shape) for n, t in graph.input_types().items()}
    expected = interpret(graph, inputs, "f64")
    got = model(**inputs)
    named = got if isinstance(got, dict) else dict(zip(expected, got if isinstance(got, tuple) else (got,), strict=True))
    for name, e in expected.items():
        assert np.abs(named[name] - e).max() < tol * np.abs(e).max(), name
    return model


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("lead", "k", "n", "kind", "threads"),
    [
        ((48,), 96, 192, "layer", 1),  # held in registers
        ((61,), 192, 200, "layer", 3),  # a row without a partner
        ((2, 129), 192, 193, "rms", 2),  # within each entry of the batch
        ((50,), 768, 208, "layer", 2),  # in scratch
        ((53,), 1024, 192, "rms", 3),
        ((3, 20), 224, 192, "layer", 2),
    ],
)
def test_rows_are_normalised_on_the_way(level: str, lead: tuple[int, ...], k: int, n: int, kind: str, threads: int) -> None:
    g = Builder("norm")
    x = g.input("x", TensorType((*lead, k)))
    graph = g.finish({"y": g.relu(_product(g, _norm(g, x, kind), n))})
    model = _check(graph, threads, level)
    (norm,) = _norms(model)
    assert not norm.kept and not norm.indexed


@pytest.mark.parametrize("k", [96, 384])
def test_several_products_and_a_residual_addition_read_the_rows(k: int) -> None:
    g = Builder("three")
    x = _norm(g, g.input("x", TensorType((2, 65, k))))
    q, v = _product(g, x, 192), _product(g, x, 256)
    graph = g.finish({"q": q, "v": v, "y": g.add(x, _product(g, g.relu(v), k))})
    (norm,) = _norms(_check(graph))
    assert norm.kept


@pytest.mark.parametrize("k", [96, 384])
@pytest.mark.parametrize("rows", [(80, 80), (70, 91)])
def test_rows_are_gathered_on_the_way(k: int, rows: tuple[int, int]) -> None:
    g = Builder("gathered")
    x = _take(g, g.input("x", TensorType((rows[0], k))), rows[1])
    y = _product(g, _norm(g, x), 200)
    residual = g.add(g.reshape(x, (1, rows[1], k)), g.reshape(_product(g, g.relu(y), k), (1, rows[1], k)))
    (norm,) = _norms(_check(g.finish({"y": residual})))
    assert norm.indexed and norm.gathered and not norm.kept


def test_gathered_rows_that_no_one_else_reads_are_not_written() -> None:
    g = Builder("alone")
    y = _product(g, _norm(g, g.reshape(_take(g, g.input("x", TensorType((64, 128))), 64), (4, 16, 128))), 200)
    model = _check(g.finish({"y": y}))
    (norm,) = _norms(model)
    assert norm.indexed and not norm.gathered
    assert model.plan is not None
    assert {k.kind for k in model.plan.kernels} == {"strassen_rows", "strassen"}


def test_a_gather_that_is_read_before_the_norm_stays_a_kernel() -> None:
    g = Builder("earlier")
    x = _take(g, g.input("x", TensorType((64, 128))), 64)
    largest = g.max(x, 1)
    graph = g.finish({"m": largest, "y": _product(g, _norm(g, x), 200)})
    (norm,) = _norms(_check(graph))
    assert not norm.indexed


def test_outputs_are_written_too() -> None:
    g = Builder("outputs")
    x = _take(g, g.input("x", TensorType((64, 128))), 64)
    normed = _norm(g, x)
    graph = g.finish({"x": x, "n": g.reshape(normed, (8, 8, 128)), "y": _product(g, normed, 200)})
    (norm,) = _norms(_check(graph))
    assert norm.gathered and norm.kept


def test_rows_that_are_read_in_two_ways() -> None:
    g = Builder("two ways")
    x = _norm(g, g.input("x", TensorType((2, 129, 128))))
    graph = g.finish({"a": _product(g, x, 192), "b": _product(g, g.reshape(x, (258, 128)), 192), "c": _product(g, x, 208)})
    assert len(_norms(_check(graph))) == 1  # a pass moves the reshape behind its product, so that all share the sums
    (joined,) = [group.for_products for group in join_norms(graph, partition(graph), strict=False) if group.for_products]
    assert joined.way[:2] == (2, 129) and joined.values == (x.id,) and joined.kept  # as it stands, one way gets the rows


def test_a_result_that_lies_inside_another_one() -> None:
    g = Builder("inside")
    x, z = g.input("x", TensorType((2, 30, 128))), g.input("z", TensorType((2, 3, 200)))
    graph = g.finish({"y": g.relu(g.concat([z, _product(g, _norm(g, x), 200)], 1))})
    assert len(_norms(_check(graph))) == 1


@pytest.mark.parametrize("k", [96, 384])
def test_what_is_not_finite_stays_within_its_pair(k: int) -> None:
    g = Builder("finite")
    x = g.input("x", TensorType((65, k)))
    model = diptych.compile(g.finish({"y": _product(g, _norm(g, x), 192)}), threads=2)
    a = _normal(65, k)
    clean = model(a)
    a[7, 5], a[64, 3], a[20] = np.nan, np.inf, 0
    y = model(a)
    assert np.isnan(y[[7, 64]]).all()
    assert np.isfinite(y[20]).all()
    keep = [i for i in range(64) if i not in (6, 7, 20, 21)]
    np.testing.assert_array_equal(y[keep], clean[keep])


def test_rows_far_from_zero_keep_their_variance() -> None:
    g = Builder("far")
    x = g.input("x", TensorType((64, 384)))
    graph = g.finish({"y": _product(g, _norm(g, x), 192)})
    a = _normal(64, 384) + 1000
    got, expected = diptych.compile(graph, threads=2)(a), interpret(graph, {"x": a}, "f64")["y"]
    assert np.abs(got - expected).max() < 2e-3 * np.abs(expected).max()


def test_strict_keeps_to_kernels_of_their_own() -> None:
    g = Builder("strict")
    x = _take(g, g.input("x", TensorType((64, 128))), 64)
    model = diptych.compile(g.finish({"y": _product(g, _norm(g, x), 200)}), accuracy="strict")
    assert model.plan is not None
    assert {k.kind for k in model.plan.kernels} == {"gather", "layer_norm", "contract"}
