"""Naming inputs, making them, and the demonstration's data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diptych.compare import demo
from diptych.compare.demo import subject as demo_subject
from diptych.compare.subject import InputSpec, parse_input, random_inputs
from diptych.errors import DiptychError
from diptych.frontends.mxnet.params import load_params, split_arg_aux
from diptych.ir import TensorType

FOLDER = Path(demo_subject.__file__).parent


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("data=1x3x224x224", InputSpec("data", TensorType((1, 3, 224, 224)))),
        ("data=1,3,8,8:float32", InputSpec("data", TensorType((1, 3, 8, 8)))),
        ("ids=2x7:i64<30522", InputSpec("ids", TensorType((2, 7), "i64"), 30522)),
        ("mask=4:bool", InputSpec("mask", TensorType((4,), "bool"))),
    ],
)
def test_inputs_are_read(text: str, spec: InputSpec) -> None:
    assert parse_input(text) == spec


@pytest.mark.parametrize("text", ["data", "=1x2", "data=", "data=1xx2", "data=-1x2", "data=1x2:f99", "data=1x2:f32<"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(DiptychError):
        parse_input(text)


def test_random_inputs_are_seeded_and_bounded() -> None:
    specs = [parse_input("x=4x5"), parse_input("ids=100:i64<3"), parse_input("b=50:bool")]
    made, again = random_inputs(specs), random_inputs(specs)
    assert {k: (a.dtype.name, a.shape) for k, a in made.items()} == {
        "x": ("float32", (4, 5)), "ids": ("int64", (100,)), "b": ("bool", (50,)),
    }  # fmt: skip
    assert set(made["ids"]) == {0, 1, 2} and set(made["b"]) == {False, True}
    assert all(np.array_equal(made[k], again[k]) for k in made)


def test_demo_data_are_images_of_digits_with_labels() -> None:
    subject = demo(4)
    assert subject.batch == 4 and subject.inputs["data"].shape == (4, 1, 8, 8)
    samples = subject.samples
    assert samples is not None and samples.inputs["data"].shape == (360, 1, 8, 8)
    images = samples.inputs["data"]
    assert images.dtype == np.float32 and images.min() == 0 and images.max() == 1
    assert sorted(set(samples.labels.tolist())) == list(range(10))


def test_demo_split_is_the_one_that_the_readme_defines() -> None:
    index = np.load(FOLDER / "digits_held_out.npz")["index"]
    assert np.array_equal(index, np.random.RandomState(2026).permutation(1797)[-360:])


def test_demo_images_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip(
        "sklearn.datasets", reason="scikit-learn, the source of the images, is not installed"
    )
    digits = datasets.load_digits()
    with np.load(FOLDER / "digits_held_out.npz") as data:
        assert np.array_equal(data["pixels"], digits.images[data["index"]])
        assert np.array_equal(data["labels"], digits.target[data["index"]])


def test_demo_checkpoint_is_small_and_an_mxnet_symbol() -> None:
    symbol = json.loads((FOLDER / "digits-symbol.json").read_text())
    assert [n["op"] for n in symbol["nodes"] if n["op"] != "null"][-1] == "SoftmaxOutput"
    assert sum((FOLDER / f"digits{e}").stat().st_size for e in ("-symbol.json", "-0000.params")) < 300_000


def test_demo_twin_has_the_weights_of_the_checkpoint() -> None:
    args, auxs = split_arg_aux(load_params(FOLDER / "digits-0000.params"))
    read = {**args, **auxs}
    with np.load(FOLDER / "digits_weights.npz") as twin:
        assert set(twin.files) == set(read)
        for name, array in read.items():
            assert np.array_equal(np.asarray(array), twin[name]), name
