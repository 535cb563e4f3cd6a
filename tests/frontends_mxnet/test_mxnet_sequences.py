"""Exported recurrent, attention and control-flow networks against real MXNet 1.9.1 (scripts/mxnet_sequences.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import UnsupportedError
from diptych.frontends.mxnet import load_source
from diptych.ir import Graph, TensorType, verify
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


def _clipping(mode: str, **limits: object) -> str:
    """The symbol file of a layer with limits of its states."""
    attrs = {"mode": mode, "num_layers": "1", "state_size": "5", "state_outputs": "True", **{f"lstm_state_clip_{k}": str(v) for k, v in limits.items()}}
    names = ["data", "parameters", "state", *(["state_cell"] if mode == "lstm" else [])]
    nodes: list[dict[str, object]] = [{"op": "null", "name": n, "inputs": []} for n in names]
    nodes.append({"op": "RNN", "name": "clipped", "attrs": attrs, "inputs": [[i, 0, 0] for i in range(len(names))]})
    heads = [[len(names), i, 0] for i in range(len(names) - 1)]
    return json.dumps({"nodes": nodes, "arg_nodes": list(range(len(names))), "heads": heads, "attrs": {"mxnet_version": ["int", 10901]}})


def _graph(text: str) -> Graph:
    shapes = {"data": (6, 2, 3), "parameters": (4 * 5 * (3 + 5 + 2),), "state": (1, 2, 5), "state_cell": (1, 2, 5)}
    source = load_source(text, params={})
    return verify(source.graph({n: TensorType(shapes[n]) for n in source.input_names}))


@pytest.mark.parametrize("stops", [True, False])
def test_states_of_a_checkpoint_are_clipped(stops: bool) -> None:
    rng = np.random.default_rng(3)
    graph = _graph(_clipping("lstm", min=-0.125, max=0.25, nan=stops))
    fed = {n: rng.uniform(-1, 1, t.shape).astype(np.float32) for n, t in graph.input_types().items()}
    _, _, cells = interpret(graph, fed).values()
    assert (cells.min(), cells.max()) == (-0.125, 0.25)
    fed["data"][-1, 0, 0] = np.nan
    _, _, cells = interpret(graph, fed).values()
    assert (cells[0, 0] == -0.125).all() if stops else np.isnan(cells[0, 0]).all()


@pytest.mark.parametrize(("mode", "limits", "said"), [
    ("lstm", {"min": -1.0}, "give both"), ("lstm", {"max": 1.0}, "give both"), ("lstm", {"min": 1.0, "max": -1.0}, "minimum first"),
    ("gru", {"min": -1.0, "max": 1.0}, "only LSTM"),
])  # fmt: skip
def test_limits_that_say_nothing_are_refused(mode: str, limits: dict[str, float], said: str) -> None:
    with pytest.raises(UnsupportedError, match=f"layer clipped.*{said}"):
        _graph(_clipping(mode, **limits))


def test_nan_alone_clips_nothing() -> None:
    graph = _graph(_clipping("lstm", nan=True))
    assert [n.op.name for n in graph.nodes if n.op.name.startswith("lstm")] == ["lstm"]
