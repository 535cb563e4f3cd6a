"""Exported recurrent, attention and control-flow networks against real MXNet 1.9.1 (scripts/mxnet_sequences.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diptych.frontends.mxnet import load_source
from diptych.ir import TensorType, verify
from diptych.targets.numpy import interpret

DATA = Path(__file__).resolve().parents[1] / "data"
SYMBOLS: dict[str, dict[str, object]] = json.loads((DATA / "mxnet_sequences.json").read_text())


@pytest.mark.parametrize("name", SYMBOLS)
def test_exported_network(name: str) -> None:
    with np.load(DATA / "mxnet_sequences.npz") as z:
        mine = {k.split("/", 1)[1]: z[k] for k in z.files if k.startswith(name + "/")}
    inputs = [mine[f"in{i}"] for i in range(3) if f"in{i}" in mine]
    wanted = [mine[f"out{i}"] for i in range(5) if f"out{i}" in mine]
    source = load_source(json.dumps(SYMBOLS[name]), params={k: a for k, a in mine.items() if k.startswith(("arg:", "aux:"))})
    fed = dict(zip([n for n in source.input_names if n.startswith("data")], inputs, strict=False))
    graph = verify(source.graph({n: TensorType(a.shape) for n, a in fed.items()}))
    for n, t in graph.input_types().items():  # begin states nobody gave: gluon passes zeros of the inferred shape
        fed.setdefault(n, np.zeros(t.shape, np.float32))
    ours = list(interpret(graph, fed).values())
    assert len(ours) == len(wanted)
    for y, w in zip(ours, wanted, strict=True):
        np.testing.assert_allclose(y, w, rtol=2e-5, atol=2e-6)
