"""Winograd convolution: the matrices, and whole convolutions of sizes that cut tiles, blocks and panels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

import diptych
from diptych.ir import Graph, TensorType
from diptych.kernels.winograd_points import EVEN_POINTS, POINTS, matrices
from diptych.ops import Conv
from diptych.ops.build import Builder
from diptych.schedule import placement, winograd
from diptych.schedule.winograd import WinogradSchedule
from diptych.targets import host
from diptych.targets.numpy import interpret

WINOGRAD = {"winograd", "winograd_products", "winograd_streamed", "winograd_few"}


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("m", sorted(POINTS))
def test_matrices_compute_a_correlation(m: int, bare: bool, rng: np.random.Generator) -> None:
    at, g, bt = matrices(m, bare)
    assert not bare or set(g[:, 0]) == {0.0, 1.0}
    d, w = rng.standard_normal(m + 2), rng.standard_normal(3)
    expected = [d[i : i + 3] @ w for i in range(m)]
    np.testing.assert_allclose(at @ ((g @ w) * (bt @ d)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("m", sorted(EVEN_POINTS))
def test_matrices_of_stride_2_take_every_other_output(m: int, bare: bool, rng: np.random.Generator) -> None:
    at, g, bt = matrices(m, bare, stride=2)
    d, w = rng.standard_normal(2 * m + 1), rng.standard_normal(3)
    expected = [d[2 * i : 2 * i + 3] @ w for i in range(m)]
    np.testing.assert_allclose(at @ ((g @ w) * (bt @ d)), expected, rtol=1e-12, atol=1e-12)
    assert np.count_nonzero(bt[m + 1 :]) == np.count_nonzero(g[m + 1 :]) == m  # odd inputs are multiplied as they are


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
    assert _kinds(fast) & WINOGRAD
    assert not _kinds(strict) & WINOGRAD
    rms = np.sqrt(np.mean(expected**2))
    assert np.abs(strict(**inputs) - expected).max() / rms < 4e-6
    assert np.abs(fast(**inputs) - expected).max() / rms < 2e-5
    np.testing.assert_array_equal(fast(**inputs), fast(**inputs))


@pytest.mark.parametrize(("c", "h", "kind"), [(512, 7, "winograd_few"), (256, 14, "winograd_streamed")])
def test_few_tiles_hold_their_weights_as_they_are(rng: np.random.Generator, c: int, h: int, kind: str) -> None:
    graph = _conv(rng, 1, c, c, h, h, ((1, 1), (1, 1)))
    model = diptych.compile(graph, threads=2)
    assert model.plan is not None
    if host.find(None).vector_bytes < 64:
        pytest.skip("the choice depends on the registers and caches of a machine with AVX-512")
    assert kind in _kinds(model)
    assert model.plan.constants.nbytes < 1.01 * 4 * 9 * c * c
    inputs = {k: rng.standard_normal(t.shape).astype(np.float32) for k, t in graph.input_types().items()}
    expected = interpret(graph, inputs, "f64")["y"]
    assert np.abs(model(**inputs) - expected).max() / np.sqrt(np.mean(expected**2)) < 2e-5


def _graph_with_epilogue(rng: np.random.Generator, n: int, c: int, o: int, h: int, w: int, heavy: bool, stride: int = 1) -> Graph:
    g = Builder("winograd")
    x = g.input("x", TensorType((n, c, h, w)))
    weight = (rng.standard_normal((o, c, 3, 3)) * (9 * c) ** -0.5).astype(np.float32)
    bias = rng.standard_normal(o).astype(np.float32)
    y = g.emit(Conv((stride, stride), ((1, 1), (1, 1)), (1, 1)), g.relu(x), g.constant(weight), g.constant(bias))
    y = g.add(y, g.input("other", y.type))
    return g.finish({"y": g.mul(y, g.sigmoid(y)) if heavy else g.relu(y)})


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3"])
@pytest.mark.parametrize("heavy", [True, False], ids=["sigmoid", "relu"])
@pytest.mark.parametrize(
    ("n", "c", "o", "h", "w", "few"),
    [(3, 40, 64, 13, 10, False), (1, 96, 48, 8, 24, False), (2, 128, 33, 9, 5, False), (1, 160, 17, 3, 30, False),
     (1, 40, 64, 7, 7, True), (2, 256, 33, 5, 3, True), (1, 130, 16, 4, 6, True), (1, 16, 16, 1, 1, True)],
)  # fmt: skip
def test_weights_as_they_come_give_the_same(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, target: str, heavy: bool,
                                            n: int, c: int, o: int, h: int, w: int, few: bool) -> None:  # fmt: skip
    """Channels that are no whole blocks or several chunks, outputs that leave a panel half empty, tiles over the border."""
    machine = host.find(target)
    if not machine.is_host:
        pytest.skip(f"this machine cannot run {target}")
    graph = _graph_with_epilogue(rng, n, c, o, h, w, heavy)
    found = [s for s in winograd.candidates(n, h, w, c, -(-o // 16), machine, 2) if s.depth and s.few == few]
    forms = {(s.geometry.m, s.group > 1): s for s in found}  # of each kind the deepest
    assert forms
    _check_forms(graph, forms.values(), target, {"winograd_few" if few else "winograd_streamed"}, rng, monkeypatch)


def _check_forms(graph: Graph, forms: Iterable[WinogradSchedule], target: str, kinds: set[str], rng: np.random.Generator,
                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Every form is taken, and right."""
    monkeypatch.setenv("DIPTYCH_CACHE", "off")  # it knows a model by its graph, which is the same for all forms
    inputs = {k: rng.standard_normal(t.shape).astype(np.float32) for k, t in graph.input_types().items()}
    expected = interpret(graph, inputs, "f64")["y"]
    for form in forms:
        monkeypatch.setattr(placement, "choose_winograd", lambda *_, form=form: form)
        model = diptych.compile(graph, threads=2, target=target)
        assert _kinds(model) & kinds
        assert np.abs(model(**inputs) - expected).max() / np.sqrt(np.mean(expected**2)) < 1e-5, form


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3"])
@pytest.mark.parametrize(("n", "c", "o", "h", "w"), [(1, 40, 64, 13, 10), (2, 256, 33, 8, 17)])
def test_every_form_of_stride_2(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, target: str, n: int, c: int, o: int,
                                h: int, w: int) -> None:  # fmt: skip
    """Odd and even sizes of the image, tiles over its border, several chunks of channels, blocks that are not full."""
    machine = host.find(target)
    if not machine.is_host:
        pytest.skip(f"this machine cannot run {target}")
    graph = _graph_with_epilogue(rng, n, c, o, h, w, heavy=False, stride=2)
    forms = {}
    for s in winograd.candidates(n, -(-h // 2), -(-w // 2), c, -(-o // 16), machine, 2, 2):
        forms[s.geometry.m, s.fused, s.depth > 0] = s
    assert set(forms) == {(m, *form) for m in EVEN_POINTS for form in ((True, False), (False, False), (False, True))}
    _check_forms(graph, forms.values(), target, WINOGRAD, rng, monkeypatch)


@pytest.mark.parametrize("stride", [1, 2])
def test_weights_of_the_user_are_transformed_whole(rng: np.random.Generator, stride: int) -> None:
    """Weights that arrive at run time are no constants to be packed: the forms that hold them as they are stay out."""
    g = Builder("winograd")
    size = (7, 7) if stride == 1 else (56, 56)
    x, weight = g.input("x", TensorType((1, 64, *size))), g.input("w", TensorType((64, 64, 3, 3)))
    graph = g.finish({"y": g.emit(Conv((stride, stride), ((1, 1), (1, 1)), (1, 1)), g.relu(x), weight)})
    inputs = {k: rng.standard_normal(t.shape).astype(np.float32) for k, t in graph.input_types().items()}
    model = diptych.compile(graph, threads=2)
    assert not _kinds(model) & {"winograd_few", "winograd_streamed"}
    assert stride == 1 or _kinds(model) & {"winograd", "winograd_products"}
    expected = interpret(graph, inputs, "f64")["y"]
    assert np.abs(model(**inputs) - expected).max() / np.sqrt(np.mean(expected**2)) < 2e-5


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("heavy", [True, False], ids=["sigmoid", "relu"])
def test_every_form_gives_the_same(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, target: str, fused: bool,
                                   heavy: bool) -> None:  # fmt: skip
    """All tile sizes, panel groups and orders, with tiles that reach over the border and a last block that is not full."""
    machine = host.find(target)
    if not machine.is_host:
        pytest.skip(f"this machine cannot run {target}")
    graph = _graph_with_epilogue(rng, 3, 40, 64, 13, 10, heavy)
    forms = {}
    for s in winograd.candidates(3, 13, 10, 40, 4, machine, 2):
        if s.fused == fused and not s.depth and s.geometry.per_block in (5, 9, 12, 36):
            forms[s.geometry.m, s.group, s.panel_outer, s.geometry.per_block] = s
    assert len(forms) >= (6 if target == "x86-64-v4" else 3)
    _check_forms(graph, forms.values(), target, {"winograd" if fused else "winograd_products"}, rng, monkeypatch)


@pytest.mark.parametrize("threads", [1, 2])
def test_weights_from_memory_are_fetched_ahead(rng: np.random.Generator, threads: int) -> None:
    """The prefetching form reads past the weights' end in the last slice: that must be harmless, and the sums right."""
    graph = _conv(rng, 1, 256, 256, 14, 14, ((1, 1), (1, 1)))
    model = diptych.compile(graph, threads=threads)
    assert model.plan is not None
    assert any(getattr(k.params, "prefetch", False) for k in model.plan.kernels)
    inputs = {k: rng.standard_normal(t.shape).astype(np.float32) for k, t in graph.input_types().items()}
    expected = interpret(graph, inputs, "f64")["y"]
    assert np.abs(model(**inputs) - expected).max() / np.sqrt(np.mean(expected**2)) < 1e-5
