"""Random networks as native code: no further from float64 than NumPy's float32, with one thread and with two."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Array, run, runnable_targets
from random_networks import Network

from diptych.ir import Graph
from diptych.targets import host
from diptych.targets.numpy import interpret


def check(graph: Graph, seed: int, threads: int) -> None:
    rng = np.random.default_rng(seed)
    given = {n: rng.standard_normal(t.shape).astype(np.float32) for n, t in graph.input_types().items()}
    exact, plain = interpret(graph, given, precision="f64"), interpret(graph, given)
    got = run(graph, given, host.find(runnable_targets()[0]), threads)
    for name, y in got.items():
        e = exact[name]
        scale = float(np.sqrt(np.mean(np.square(e)))) if e.size else 1.0
        theirs, ours = error(plain[name], e), error(y, e)
        assert ours <= 4 * theirs + 3e-6 * scale, f"{name}: {ours:.2e} off, NumPy {theirs:.2e}, of {scale:.2e}\n{graph}"


def error(y: Array, exact: Array) -> float:
    return float(np.abs(y - exact).max(initial=0.0))


@pytest.mark.parametrize("seed", range(24))
def test_network(seed: int) -> None:
    check(Network(seed).finish(steps=4 + seed), seed, threads=1 + seed % 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1060))
def test_larger_network(seed: int) -> None:
    check(Network(seed).finish(steps=40), seed, threads=2 - seed % 2)
