"""1x1 convolutions that take the elementwise operators before them: in compiled graphs, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from harness import ARM, V3, V4, compile_only

import diptych
from diptych import compiler
from diptych.ir import Graph, TensorType, Value
from diptych.kernels.staged import staged_tiling
from diptych.ops import Conv
from diptych.ops.build import Builder
from diptych.options import Options
from diptych.targets.numpy import interpret

CASES = [  # N, channels, spatial, outputs
    (1, 64, (14, 14), 32),
    (2, 20, (7, 9), 33),  # tails of both kinds of channels, one panel too many for a pair
    (1, 300, (5, 5), 48),  # deep: sums in several chains
    (3, 16, (31,), 16),
    (1, 33, (3, 6, 5), 40),
    (1, 7, (4, 4), 3),
]


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:  # type: ignore[type-arg]
    return rng.standard_normal(shape).astype(np.float32)


def _graph(rng: np.random.Generator, n: int, c: int, spatial: tuple[int, ...], o: int) -> Graph:
    """A blocked value, batch normalisation and ReLU of it by hand, a 1x1 convolution, a residual."""
    g = Builder("dense")
    ones, rank = (1,) * len(spatial), len(spatial)
    x = g.input("x", TensorType((n, 5, *spatial)))

    def conv(v: Value, outputs: int, size: int) -> Value:
        w = g.constant(_normal(rng, outputs, v.shape[1], *(size for _ in spatial)))
        pads = ((size // 2, size // 2),) * rank
        return g.emit(Conv(ones, pads, ones), v, w, g.constant(_normal(rng, outputs)))

    a = conv(x, c, 1)
    scale, shift = (g.constant(_normal(rng, c, *ones)) for _ in range(2))
    y = conv(g.relu(g.add(g.mul(a, scale), shift)), o, 1)
    z = conv(g.relu(g.add(y, g.input("z", TensorType(y.shape)))), 16, 3)  # y lies in a buffer with a border
    return g.finish({"a": a, "z": z})


def _kinds(graph: Graph, target: object, threads: int = 2) -> list[str]:
    plan = compiler.compile_plan(graph, Options(threads=threads, accuracy="strict"), target)  # type: ignore[arg-type]
    return [plan.kernels[s.kernel].kind for s in plan.steps]


@pytest.mark.parametrize("target", ["x86-64-v3", None])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_float64(rng: np.random.Generator, case: tuple[int, int, tuple[int, ...], int], threads: int,
                         target: str | None) -> None:  # fmt: skip
    graph = _graph(rng, *case)
    assert "staged" in _kinds(graph, V3)
    inputs = {k: _normal(rng, *t.shape) for k, t in graph.input_types().items()}
    expected = interpret(graph, inputs, "f64")
    got = diptych.compile(graph, threads=threads, accuracy="strict", target=target)(**inputs)
    for (name, e), r in zip(expected.items(), got, strict=True):
        assert np.abs(r - e).max() <= 5e-6 * np.sqrt(np.mean(e**2)), name


@pytest.mark.parametrize("target", [V4, ARM], ids=["v4", "arm"])
def test_compiles_elsewhere(rng: np.random.Generator, target: object) -> None:
    plan = compiler.compile_plan(_graph(rng, *CASES[1]), Options(threads=2), target)  # type: ignore[arg-type]
    (kernel,) = (k for k in plan.kernels if k.kind == "staged")
    assert compile_only(kernel, target)  # type: ignore[arg-type]


def test_garbage_past_the_last_channel_stays_out(rng: np.random.Generator) -> None:
    """The lanes past 20 channels hold what the prologue makes of zeros: infinities."""
    g = Builder("garbage")
    x = g.input("x", TensorType((1, 20, 6, 6)))
    blocked = g.emit(Conv((1, 1), ((0, 0), (0, 0)), (1, 1)), x, g.constant(_normal(rng, 20, 20, 1, 1)))
    y = g.emit(Conv((1, 1), ((0, 0), (0, 0)), (1, 1)), g.div(g.constant(np.float32(1)), blocked), g.constant(_normal(rng, 16, 20, 1, 1)))
    graph = g.finish({"blocked": blocked, "y": y})
    assert "staged" in _kinds(graph, V3)
    assert np.isfinite(diptych.compile(graph)(_normal(rng, 1, 20, 6, 6))[1]).all()


def test_layers_that_differ_in_depth_share_their_code() -> None:
    g = Builder("block")
    x = g.input("x", TensorType((1, 16, 8, 8)))
    w = lambda o, c, k: g.constant(np.ones((o, c, k, k), np.float32))  # noqa: E731
    same = Conv((1, 1), ((1, 1), (1, 1)), (1, 1))
    features = [g.emit(same, x, w(32, 16, 3))]
    for _ in range(4):
        joined = g.concat(features, 1) if len(features) > 1 else features[0]
        scale = g.constant(np.linspace(1, 2, joined.shape[1], dtype=np.float32).reshape(-1, 1, 1))
        inner = g.emit(Conv((1, 1), ((0, 0), (0, 0)), (1, 1)), g.relu(g.mul(joined, scale)), w(32, joined.shape[1], 1))
        features.append(g.emit(same, g.relu(inner), w(16, 32, 3)))
    plan = compiler.compile_plan(g.finish({"y": g.concat(features, 1)}), Options(threads=2, accuracy="strict"), V3)
    from diptych.codegen.program import emit_program
    from diptych.kernels.base import emit_kernel

    assert sum(k.kind == "staged" for k in plan.kernels) == 4
    assert not any(p for p in plan.fused if "concat" in p)  # every joined tensor is made in place
    module = emit_program(plan.kernels, plan.steps, 0, 0, V3, emit_kernel)
    assert sum(f.name.startswith("staged.") for f in module.functions) == 1


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("pixels", [16, 49, 196, 784, 3136])
def test_two_threads_get_even_shares(batch: int, pixels: int) -> None:
    for target in (V3, V4, ARM):
        t = staged_tiling(target, batch, pixels, 8)
        count = sum(n for _, n in t.tiles)
        assert sum(width * n for width, n in t.tiles) == pixels
        blocks = -(-count // t.tiles_per_block)
        sizes = [min(t.tiles_per_block, count - i * t.tiles_per_block) for i in range(blocks)] * batch
        shares = [n for n in sizes for _ in range(t.parts)]
        half = len(shares) // 2
        assert max(sum(shares[:half]), sum(shares[half:])) <= 0.6 * sum(shares)
