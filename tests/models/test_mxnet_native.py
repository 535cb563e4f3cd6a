"""Published MXNet checkpoints and the demonstration's, as native code, against what real MXNet 1.9.1 gave."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych.ir import TensorType
from diptych.targets.numpy import interpret

MODELS = (
    "mtcnn_det1", "mtcnn_det2", "mtcnn_det3", "mtcnn_det4", "insightface_gender_age", "retinaface_mnet25",
    "laser_eye_iris", "lffd_lp", "lffd_lp_small", "mlnet_linear", "ssr_gender",
)  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_checkpoint(mxnet_models: Path, name: str) -> None:
    entry = json.loads((mxnet_models / "golden" / "manifest.json").read_text())[name]
    source = diptych.load(mxnet_models / entry["symbol"], mxnet_models / entry["params"])
    model = diptych.compile(source, {n: tuple(s) for n, s in entry["inputs"].items()}, threads=2)
    assert list(model.output_names) == [n for n, _ in entry["outputs"]]
    with np.load(mxnet_models / "golden" / f"{name}.npz") as golden:
        inputs = {n: golden[f"in:{n}"] for n in model.input_names}
        wanted = {key.split(":", 2)[2]: golden[key] for key in golden.files if key.startswith("out:")}
    result = model(**inputs)
    ours = dict(zip(model.output_names, result if isinstance(result, tuple) else (result,), strict=True))
    for output, truth in interpret(model.graph, inputs, precision="f64").items():
        scale = float(np.sqrt(np.mean(truth**2)))
        error = float(np.abs(ours[output] - truth).max()) / scale
        theirs = float(np.abs(wanted[output] - truth).max()) / scale
        assert error <= max(4 * theirs, 1e-6), f"{output}: error {error:.2e}, MXNet has {theirs:.2e}"


def demonstration() -> tuple[diptych.Model, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    demo = files("diptych") / "compare" / "demo"
    net = diptych.load(str(demo / "digits-symbol.json"), str(demo / "digits-0000.params"))
    with np.load(str(demo / "digits_held_out.npz")) as held_out:
        images, labels = held_out["pixels"].reshape(-1, 1, 8, 8).astype(np.float32) / 16, held_out["labels"]
    return diptych.compile(net, {net.input_names[0]: (1, 1, 8, 8)}, dynamic="batch"), images, labels


def test_digits_accuracy_is_that_of_real_mxnet() -> None:
    model, images, labels = demonstration()
    assert int(np.sum(model(images).argmax(1) == labels)) == 357  # of 360: compare/demo/README.md


def test_a_batch_is_its_rows() -> None:
    model, images, _ = demonstration()
    rows = np.concatenate([model(images[i : i + 1]) for i in range(11)])
    np.testing.assert_allclose(model(images[:11]), rows, rtol=1e-5, atol=1e-6)


def test_input_types_may_be_given_as_types_or_arrays() -> None:
    demo = files("diptych") / "compare" / "demo"
    net = diptych.load(str(demo / "digits-symbol.json"), str(demo / "digits-0000.params"))
    x = np.random.default_rng(0).random((2, 1, 8, 8)).astype(np.float32)
    name = net.input_names[0]
    answers = [diptych.compile(net, given)(x) for given in (
        {name: TensorType((2, 1, 8, 8))}, {name: x}, {name: (2, 1, 8, 8)}, (x,), x)]  # fmt: skip
    for a in answers[1:]:
        np.testing.assert_array_equal(a, answers[0])
