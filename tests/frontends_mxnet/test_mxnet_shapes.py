"""Shape inference: weights from data, states from sequences, and real checkpoints whose weights must fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.frontends.mxnet import infer_shapes, infer_types, random_params
from diptych.frontends.mxnet.params import load_params, split_arg_aux
from diptych.frontends.mxnet.random_weights import draw
from diptych.frontends.mxnet.symbol_json import SymbolGraph, read_symbol
from diptych.ir import TensorType


def chain(*nodes: tuple[str, str, dict[str, str], list[str]]) -> SymbolGraph:
    index = {name: i for i, (_, name, _, _) in enumerate(nodes)}
    rows = [{"op": op, "name": name, "attrs": attrs, "inputs": [[index[i], 0, 0] for i in inputs]} for op, name, attrs, inputs in nodes]
    return read_symbol(json.dumps({"nodes": rows, "arg_nodes": [i for i, n in enumerate(nodes) if n[0] == "null"],
                                   "heads": [[len(nodes) - 1, 0, 0]], "attrs": {"mxnet_version": ["int", 10901]}}))  # fmt: skip


def var(name: str, **hidden: str) -> tuple[str, str, dict[str, str], list[str]]:
    return ("null", name, {f"__{k}__": v for k, v in hidden.items()}, [])


CASES = {
    "conv": (chain(var("x"), var("w"), var("b"), ("Convolution", "c", {"kernel": "(3,3)", "num_filter": "8", "num_group": "2"}, ["x", "w", "b"])),
             {"x": (1, 4, 7, 7)}, {"w": (8, 2, 3, 3), "b": (8,)}, (1, 8, 5, 5)),
    "deconv": (chain(var("x"), var("w"), ("Deconvolution", "c", {"kernel": "(2,2)", "stride": "(2,2)", "num_filter": "6"}, ["x", "w"])),
               {"x": (1, 4, 7, 7)}, {"w": (4, 6, 2, 2)}, (1, 6, 14, 14)),
    "flatten": (chain(var("x"), var("w"), var("b"), ("FullyConnected", "f", {"num_hidden": "5"}, ["x", "w", "b"])),
                {"x": (2, 3, 4)}, {"w": (5, 12), "b": (5,)}, (2, 5)),
    "prelu": (chain(var("x"), var("g"), ("LeakyReLU", "p", {"act_type": "prelu"}, ["x", "g"])), {"x": (2, 3, 4)}, {"g": (3,)}, (2, 3, 4)),
    "lstm": (chain(var("x"), var("p"), var("h"), var("c"), ("RNN", "r", {"mode": "lstm", "state_size": "5", "num_layers": "2", "bidirectional": "1"}, ["x", "p", "h", "c"])),
             {"x": (7, 2, 3)}, {"p": (2 * (4 * 5 * (3 + 5 + 2) + 4 * 5 * (10 + 5 + 2)),), "h": (4, 2, 5), "c": (4, 2, 5)}, (7, 2, 10)),
    "label": (chain(var("x"), var("l"), ("SoftmaxOutput", "s", {"multi_output": "1"}, ["x", "l"])), {"x": (2, 3, 4, 5)}, {"l": (2, 4, 5)}, (2, 3, 4, 5)),
    "zeros": (chain(var("x"), ("_zeros", "z", {"shape": "(0, 4)"}, []), var("w"), ("FullyConnected", "f", {"num_hidden": "4", "no_bias": "1"}, ["z", "w"]),
                    ("elemwise_add", "s", {}, ["x", "f"])), {"x": (3, 4)}, {"w": (4, 4)}, (3, 4)),
    "open": (chain(var("x"), var("y"), ("elemwise_mul", "s", {}, ["x", "y"])), {"x": (0, 4), "y": (3, 0)}, {"x": (3, 4), "y": (3, 4)}, (3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    symbol, known, weights, result = CASES[name]
    arguments, outputs, _ = infer_shapes(symbol, known)
    assert {n: arguments[n] for n in weights} == weights
    assert list(outputs.values()) == [result]


def test_what_stays_unknown_is_none_and_conflicts_are_errors() -> None:
    symbol = chain(var("x"), var("y"), ("elemwise_mul", "s", {}, ["x", "y"]))
    assert infer_shapes(symbol, {})[0] == {"x": None, "y": None}
    assert infer_shapes(symbol, {"x": (0, 4)})[0] == {"x": None, "y": None}
    with pytest.raises(FormatError, match="layer s"):
        infer_shapes(symbol, {"x": (2, 4), "y": (3, 4)})
    with pytest.raises(FormatError, match="x, y"):
        infer_types(symbol, {})


@pytest.mark.parametrize("name", ["insightface_gender_age", "retinaface_mnet25", "laser_eye_iris", "lffd_lp", "ssr_gender", "mtcnn_det4"])
def test_weights_of_published_checkpoints_have_the_inferred_shapes(mxnet_models: Path, name: str) -> None:
    entry = json.loads((mxnet_models / "golden" / "manifest.json").read_text())[name]
    symbol = read_symbol(mxnet_models / entry["symbol"])
    arguments, outputs, states = infer_shapes(symbol, entry["inputs"])
    assert [list(s or ()) for s in outputs.values()] == [s for _, s in entry["outputs"]]
    weights, aux = split_arg_aux(load_params(mxnet_models / entry["params"]))
    for found, real in ((arguments, weights), (states, aux)):
        assert {n: s for n, s in found.items() if n in real} == {n: a.shape for n, a in real.items() if n in found and a is not None}
    assert not [n for n, s in {**arguments, **states}.items() if s is None]


def test_random_weights_depend_on_name_shape_and_seed_only() -> None:
    symbol = CASES["conv"][0]
    params = random_params(symbol, {"x": TensorType((1, 4, 7, 7))}, seed=3)
    assert list(params) == ["w", "b"]
    np.testing.assert_array_equal(params["w"], draw("w", (8, 2, 3, 3), 3))
    assert not np.array_equal(draw("w", (8,), 3), draw("w", (8,), 4))
    assert draw("bn_moving_var", (100,), aux=True).min() > 0
