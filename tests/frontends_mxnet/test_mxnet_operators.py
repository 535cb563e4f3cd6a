"""Every converter against real MXNet 1.9.1: the cases that scripts/mxnet_goldens.py ran there, on the NumPy target."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from diptych.frontends.mxnet import load_source
from diptych.ir import Array, TensorType, dtype_of, verify
from diptych.targets.numpy import interpret

DATA = Path(__file__).resolve().parents[1] / "data"
SYMBOLS: dict[str, dict[str, object]] = json.loads((DATA / "mxnet_ops.json").read_text())


@cache
def arrays() -> dict[str, Array]:
    with np.load(DATA / "mxnet_ops.npz") as z:
        return dict(z)


def replay(key: str, constants: bool) -> tuple[dict[str, Array], list[Array]]:
    """Our results and MXNet's; with `constants`, everything but the first operand is a weight of the model."""
    inputs = [arrays()[f"{key}/in{i}"] for i in range(20) if f"{key}/in{i}" in arrays()]
    wanted = [arrays()[f"{key}/out{i}"] for i in range(20) if f"{key}/out{i}" in arrays()]
    named = {f"x{i}": a for i, a in enumerate(inputs)}
    weights = {n: a for n, a in named.items() if constants and n != "x0"}
    source = load_source(json.dumps(SYMBOLS[key]), params=weights)
    graph = verify(source.graph({n: TensorType(named[n].shape, dtype_of(named[n])) for n in source.input_names}))
    return interpret(graph, {n: named[n] for n in graph.input_names}), wanted


@pytest.mark.parametrize("key", SYMBOLS)
def test_operator(key: str) -> None:
    for constants in (False, True):
        ours, wanted = replay(key, constants)
        assert len(ours) == len(wanted)
        for (name, y), w in zip(ours.items(), wanted, strict=True):
            assert y.shape == w.shape, name
            assert y.dtype == w.dtype, name
            scale = float(np.sqrt(np.mean(np.square(w, dtype=np.float64)))) if w.size else 0.0
            np.testing.assert_allclose(y, w, rtol=2e-5, atol=2e-6 * max(scale, 1e-3), err_msg=name)
