"""Products by constant weights in seven multiplications: sizes that cut tiles, panels, pairs and passes; error bounds."""

from __future__ import annotations

import numpy as np
import pytest

import diptych
from diptych.ir import Graph, TensorType
from diptych.kernels.strassen import PRODUCTS
from diptych.ops import Gelu, LayerNorm
from diptych.ops.build import Builder
from diptych.schedule import strassen
from diptych.schedule.strassen import pack_strassen
from diptych.targets import host
from diptych.targets.numpy import interpret

Array = np.ndarray  # type: ignore[type-arg]
LEVELS = [n for n in ("x86-64-v4", "x86-64-v3", "aarch64") if host.find(n).is_host]


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def _graph(rng: np.random.Generator, lead: tuple[int, ...], k: int, n: int, transposed: bool = False) -> Graph:
    g = Builder("product")
    x = g.input("x", TensorType((*lead, k)))
    w = g.constant(_normal(rng, n, k) if transposed else _normal(rng, k, n))
    y = g.add(g.matmul(x, w, transpose_b=transposed), g.constant(_normal(rng, n)))
    return g.finish({"y": g.add(g.relu(y), g.input("z", y.type))})


def _kinds(model: diptych.Model) -> list[str]:
    assert model.plan is not None
    return [k.kind for k in model.plan.kernels]


def _steps(model: diptych.Model) -> list[str]:
    assert model.plan is not None
    return [model.plan.kernels[s.kernel].kind for s in model.plan.steps]


def _row_error(got: Array, expected: Array) -> float:
    """The largest error in any row, over the row's own size."""
    got, expected = (a.reshape(-1, a.shape[-1]) for a in (got, expected))
    size = np.sqrt(np.mean(expected.astype(np.float64) ** 2, 1, keepdims=True))
    return float((np.abs(got - expected) / np.maximum(size, 1e-30)).max())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("lead", "k", "n", "threads"),
    [
        ((48,), 96, 192, 1),  # the smallest that goes this way
        ((128,), 768, 768, 2),
        ((197,), 384, 200, 3),  # a row without a partner, a panel cut off
        ((61,), 160, 225, 2),
        ((2, 129), 192, 193, 2),  # rows pair up within each entry of the batch
        ((3, 50), 512, 777, 3),
        ((49,), 3072, 208, 2),  # several passes over the depth
        ((300,), 128, 4100, 1),
    ],
)
def test_against_float64(rng: np.random.Generator, level: str, lead: tuple[int, ...], k: int, n: int, threads: int) -> None:
    graph = _graph(rng, lead, k, n, transposed=n % 2 == 0)
    model = diptych.compile(graph, threads=threads, target=level)
    assert "strassen" in _kinds(model)
    inputs = {name: _normal(rng, *t.shape) for name, t in graph.input_types().items()}
    expected = interpret(graph, inputs, "f64")["y"]
    assert _row_error(model(**inputs), expected) < 3e-5


@pytest.mark.parametrize("threads", [1, 2])
def test_sums_larger_than_the_caches_are_made_by_parts_of_the_depth(
    rng: np.random.Generator, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every part adds to what the one before has left; only the last has bias, activation and residual."""
    monkeypatch.setattr(strassen, "_SUMS_OF_L3", 1 << 12)
    graph = _graph(rng, (2, 33), 2560, 300)
    model = diptych.compile(graph, threads=threads)
    assert [k for k in _steps(model) if "strassen" in k] == ["strassen_rows", "strassen"] * 5
    x = {name: _normal(rng, *t.shape) for name, t in graph.input_types().items()}
    x["x"][1] *= 1000  # rows of another size are scaled apart
    assert _row_error(model(**x), interpret(graph, x, "f64")["y"]) < 3e-5
    x["x"][1, 32, 7] = np.nan
    y = model(**x)
    assert np.isnan(y[1, 32]).all() and np.isfinite(y[0]).all() and np.isfinite(y[1, :31]).all()


def test_errors_stay_near_those_of_the_plain_sum(rng: np.random.Generator) -> None:
    graph = _graph(rng, (128,), 768, 768)
    inputs = {name: _normal(rng, *t.shape) for name, t in graph.input_types().items()}
    expected = interpret(graph, inputs, "f64")["y"]
    own = diptych.compile(graph, threads=2)(**inputs) - expected
    numpy = interpret(graph, inputs)["y"] - expected
    assert np.sqrt(np.mean(own**2)) < 2 * np.sqrt(np.mean(numpy**2))


def test_strict_keeps_to_plain_sums(rng: np.random.Generator) -> None:
    assert "strassen" not in _kinds(diptych.compile(_graph(rng, (128,), 768, 768), accuracy="strict"))


@pytest.mark.parametrize("size", [1e-18, 1e-3, 0.0, 1e3, 1e18])
def test_a_row_is_as_exact_beside_one_of_another_size(rng: np.random.Generator, size: float) -> None:
    g = Builder("product")
    x = g.input("x", TensorType((64, 384)))
    graph = g.finish({"y": g.matmul(x, g.constant(_normal(rng, 384, 256)))})
    a = _normal(rng, 64, 384)
    a[1::4] *= np.float32(size)
    a[2::4] *= np.float32(size)
    got, expected = diptych.compile(graph, threads=2)(a), a.astype(np.float64) @ graph.constants[1].astype(np.float64)
    zero = ~a.any(1)
    assert np.abs(got[zero]).max(initial=0) < 1e-20
    assert _row_error(got[~zero], expected[~zero]) < 3e-5


@pytest.mark.parametrize(("k", "norm"), [(384, False), (96, True), (384, True)])
def test_a_row_with_an_outlier_is_as_exact_as_others(rng: np.random.Generator, k: int, norm: bool) -> None:
    """Trained transformers have them, at places whose weights are small: a row beside it must not be scaled up to it."""
    g = Builder("outlier")
    rows = x = g.input("x", TensorType((64, k)))
    if norm:  # held in registers, in scratch
        rows = g.emit(LayerNorm(axis=1, eps=1e-5), x, g.constant(np.ones(k, np.float32)), g.constant(np.zeros(k, np.float32)))
    w = _normal(rng, k, 256)
    w[5] *= np.float32(1e-3)
    graph = g.finish({"y": g.matmul(rows, g.constant(w))})
    a = _normal(rng, 64, k)
    a[1::4, 5] = a[2::4, 5] = 40
    model = diptych.compile(graph, threads=2)
    assert "strassen_rows" in _kinds(model)
    expected = interpret(graph, {"x": a}, "f64")["y"]

    def errors(y: Array) -> Array:
        return np.sqrt(np.mean((y - expected) ** 2, 1) / np.mean(expected**2, 1)).reshape(16, 4).mean(0)

    own, plain = errors(model(a)), errors(interpret(graph, {"x": a})["y"])
    assert (own < 6 * plain).all()


def test_sizes_of_very_large_rows_do_not_overflow(rng: np.random.Generator) -> None:
    g = Builder("large")
    x = g.input("x", TensorType((64, 384)))
    graph = g.finish({"y": g.matmul(x, g.constant(_normal(rng, 384, 256) * np.float32(1e-3)))})
    a = _normal(rng, 64, 384)
    a[::2] *= np.float32(1e37)
    a[1::2] *= np.float32(1e30)
    got, expected = diptych.compile(graph, threads=2)(a), a.astype(np.float64) @ graph.constants[1].astype(np.float64)
    assert _row_error(got, expected) < 3e-5


def test_rows_of_like_size_are_not_drawn_apart(rng: np.random.Generator) -> None:
    """Those on both sides of a power of two neither: what is doubled for nothing doubles its neighbour's errors."""
    graph = _graph(rng, (64,), 96, 192)
    model = diptych.compile(graph, threads=1)
    assert model.plan is not None
    inputs = {name: _normal(rng, *t.shape) for name, t in graph.input_types().items()}
    even = np.full((64, 96), 1.02, np.float32)
    even[1::2] = 0.98
    even *= np.where(rng.random((1, 96)) < 0.5, -1, 1).astype(np.float32)
    inputs["x"] = even
    expected = interpret(graph, inputs, "f64")["y"]
    error = model(**inputs) - expected
    top, bottom = (np.sqrt(np.mean(error[i::2] ** 2)) for i in (0, 1))
    assert top < 1.5 * bottom


def test_a_column_is_as_exact_beside_one_of_another_size(rng: np.random.Generator) -> None:
    w = _normal(rng, 384, 250)
    w[:, 3] *= 1e-6
    w[:, 100] = 0
    w[:, 249] *= 1e6
    g = Builder("product")
    x = g.input("x", TensorType((64, 384)))
    model = diptych.compile(g.finish({"y": g.matmul(x, g.constant(w))}), threads=2)
    a = _normal(rng, 64, 384)
    got, expected = model(a), a.astype(np.float64) @ w.astype(np.float64)
    assert np.abs(got[:, 100]).max() < 1e-20
    keep = np.arange(250) != 100
    assert _row_error(got.T[keep], expected.T[keep]) < 3e-5


def test_what_is_not_finite_reaches_no_further_than_its_pair_of_rows(rng: np.random.Generator) -> None:
    graph = _graph(rng, (65,), 192, 200)
    model = diptych.compile(graph, threads=2)
    inputs = {name: _normal(rng, *t.shape) for name, t in graph.input_types().items()}
    clean = model(**inputs)
    inputs["x"][7, 5] = np.nan
    inputs["x"][64, 0] = np.inf
    y = model(**inputs)
    assert np.isnan(y[7]).all()
    assert not np.isfinite(y[64]).all()
    keep = [i for i in range(64) if i not in (6, 7)]
    np.testing.assert_array_equal(y[keep], clean[keep])


def test_rows_that_are_not_dense_and_epilogues(rng: np.random.Generator) -> None:
    g = Builder("net")
    x = g.input("x", TensorType((96, 2, 70)))
    rows = g.reshape(g.transpose(x, (1, 2, 0)), (140, 96))
    w = g.constant(_normal(rng, 96, 192))
    scale = g.input("scale", TensorType((140, 1)))
    y = g.mul(g.emit(Gelu(), g.matmul(rows, w)), scale)
    graph = g.finish({"y": y, "t": g.transpose(g.matmul(rows, w), (1, 0))})
    inputs = {name: _normal(rng, *t.shape) for name, t in graph.input_types().items()}
    expected = interpret(graph, inputs, "f64")
    for got, e in zip(diptych.compile(graph, threads=2)(**inputs), expected.values(), strict=True):
        assert np.abs(got - e).max() < 3e-5 * np.sqrt(np.mean(e**2))


def test_products_of_the_same_rows_share_their_sums(rng: np.random.Generator) -> None:
    g = Builder("net")
    x = g.input("x", TensorType((64, 96)))
    made = {f"y{i}": g.matmul(x, g.constant(_normal(rng, 96, 192))) for i in range(3)}
    model = diptych.compile(g.finish(made), threads=2)
    assert model.plan is not None
    assert sum(model.plan.kernels[s.kernel].kind == "strassen_rows" for s in model.plan.steps) == 1


def test_the_products_give_the_four_quarters(rng: np.random.Generator) -> None:
    quarters = {f"{m}{i}{j}": rng.integers(-9, 9) for m in "AB" for i in (1, 2) for j in (1, 2)}
    results = dict.fromkeys(("C11", "C12", "C21", "C22"), 0)
    for a, b, into in PRODUCTS:
        product = eval(a, {}, quarters) * eval(b, {}, quarters)
        for name, sign in into.items():
            results[name] += sign * product
    for i in (1, 2):
        for j in (1, 2):
            assert results[f"C{i}{j}"] == sum(quarters[f"A{i}{k}"] * quarters[f"B{k}{j}"] for k in (1, 2))


def test_packed_weights_hold_zeros_where_the_columns_end(rng: np.random.Generator) -> None:
    w = _normal(rng, 96, 200)
    packed = np.zeros((7, 7 * 48 * 16), np.float32)  # 200 columns: 13 panels, 7 pairs
    pack_strassen(w, 48, 2, None, packed)
    last = packed.reshape(-1)[6 * 7 * 48 * 16 :].reshape(7, 48, 16)  # the odd pair: panels 12 and 13
    b22 = [i for i, (_, name, _) in enumerate(PRODUCTS) if name == "B22"]
    assert not last[b22].any()
