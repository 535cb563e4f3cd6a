"""Published checkpoints against the outputs of real MXNet 1.9.1, through the NumPy target."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diptych.frontends.mxnet import load_source
from diptych.ir import TensorType, verify
from diptych.targets.numpy import interpret

MODELS = (
    "mtcnn_det1", "mtcnn_det2", "mtcnn_det3", "mtcnn_det4", "insightface_gender_age", "retinaface_mnet25",
    "laser_eye_iris", "lffd_lp", "lffd_lp_small", "mlnet_linear", "ssr_gender",
)  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_checkpoint_gives_mxnets_numbers(mxnet_models: Path, name: str) -> None:
    entry = json.loads((mxnet_models / "golden" / "manifest.json").read_text())[name]
    source = load_source(mxnet_models / entry["symbol"], mxnet_models / entry["params"])
    assert set(source.input_names) == set(entry["inputs"])
    graph = verify(source.graph({n: TensorType(tuple(s)) for n, s in entry["inputs"].items()}))
    assert [[n, list(t.shape)] for n, t in graph.output_types().items()] == entry["outputs"]
    with np.load(mxnet_models / "golden" / f"{name}.npz") as golden:
        inputs = {n: golden[f"in:{n}"] for n in graph.input_names}
        wanted = {key.split(":", 2)[2]: golden[key] for key in golden.files if key.startswith("out:")}
    ours, exact = interpret(graph, inputs), interpret(graph, inputs, precision="f64")
    for output, truth in exact.items():
        scale = float(np.sqrt(np.mean(truth**2)))
        error = float(np.abs(ours[output] - truth).max()) / scale
        theirs = float(np.abs(wanted[output] - truth).max()) / scale
        # Both are float32 roundings of one function, so neither may be much further from float64 than the other.
        assert theirs <= max(4 * error, 1e-5), f"{output}: MXNet is {theirs:.2e} away from float64, we are {error:.2e}"
        assert error <= max(4 * theirs, 1e-6), f"{output}: error {error:.2e}, MXNet has {theirs:.2e}"
