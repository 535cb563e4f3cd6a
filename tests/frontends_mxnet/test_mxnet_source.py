"""MxnetSource: inputs, labels, weights, chosen outputs, and what its errors say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from diptych.errors import FormatError, InputError, UnsupportedError
from diptych.frontends.mxnet import load_source
from diptych.ir import TensorType, verify
from diptych.targets.numpy import interpret

Spec = tuple[str, str, dict[str, str], list[str]]


def symbol(*specs: Spec, heads: list[tuple[str, int]] | None = None, **top: object) -> str:
    """A symbol file from (op, name, attrs, inputs) rows; inputs are "name" or "name:output"."""
    index = {name: i for i, (_, name, _, _) in enumerate(specs)}

    def entry(text: str) -> list[int]:
        name, _, k = text.partition(":")
        return [index[name], int(k or 0), 0]

    nodes = [
        {"op": op, "name": name, "inputs": [entry(i) for i in inputs], **({"attrs": attrs} if attrs else {})}
        for op, name, attrs, inputs in specs
    ]
    ends = heads or [(specs[-1][1], 0)]
    return json.dumps({"nodes": nodes, "arg_nodes": [i for i, s in enumerate(specs) if s[0] == "null"],
                       "heads": [[index[n], k, 0] for n, k in ends],
                       "attrs": {"mxnet_version": ["int", 10901]}, **top})  # fmt: skip


def var(name: str, **hidden: str) -> Spec:
    return ("null", name, {f"__{k}__": v for k, v in hidden.items()}, [])


CLASSIFIER = symbol(
    var("data"), var("fc_weight"), var("fc_bias"), ("FullyConnected", "fc", {"num_hidden": "3"}, ["data", "fc_weight", "fc_bias"]),
    ("Activation", "act", {"act_type": "relu"}, ["fc"]), var("softmax_label"), ("SoftmaxOutput", "softmax", {}, ["act", "softmax_label"]),
)  # fmt: skip
WEIGHTS = {"arg:fc_weight": np.ones((3, 4), np.float32), "fc_bias": np.arange(3, dtype=np.float32)}


def test_labels_are_no_inputs_and_extra_weights_do_no_harm() -> None:
    source = load_source(CLASSIFIER, params={**WEIGHTS, "arg:left_over": np.zeros(9, np.float32)})
    assert source.input_names == ("data",)
    graph = verify(source.graph({"data": TensorType((2, 4))}))
    assert list(graph.output_names) == ["softmax_output"]
    assert "softmax" in {n.name for n in graph.nodes} and "fc_weight" in graph.constant_names.values()
    y = interpret(graph, {"data": np.zeros((2, 4), np.float32)})["softmax_output"]
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)


def test_layers_can_be_chosen_by_name_or_by_output() -> None:
    for name in ("fc", "fc_output"):
        source = load_source(CLASSIFIER, params=WEIGHTS, outputs=[name, "softmax"])
        assert source.output_names == ("fc_output", "softmax_output")
    fc = interpret(source.graph({"data": TensorType((1, 4))}), {"data": np.ones((1, 4), np.float32)})["fc_output"]
    assert fc.tolist() == [[4.0, 5.0, 6.0]]
    with pytest.raises(InputError, match=r"conv9.*fc"):
        load_source(CLASSIFIER, params=WEIGHTS, outputs=["conv9"])


def test_a_missing_weight_is_named() -> None:
    with pytest.raises(FormatError, match="fc_bias"):
        load_source(CLASSIFIER, params={"fc_weight": WEIGHTS["arg:fc_weight"]})


def test_unknown_inputs_and_missing_types_are_named() -> None:
    source = load_source(CLASSIFIER, params=WEIGHTS)
    with pytest.raises(InputError, match="image"):
        source.graph({"image": TensorType((1, 4))})
    with pytest.raises(InputError, match="data"):
        source.graph({})


def test_types_can_come_from_the_symbol() -> None:
    text = symbol(var("x", shape="(2, 3)", dtype="4"), var("y", shape="(0, 3)"), ("_plus_scalar", "p", {"scalar": "1"}, ["x"]),
                  ("relu", "r", {}, ["y"]), heads=[("p", 0), ("r", 0)])  # fmt: skip
    source = load_source(text)
    assert source.default_types() is None  # the batch of y is open
    graph = source.graph({"y": TensorType((5, 3))})
    assert graph.input_types() == {"x": TensorType((2, 3), "i32"), "y": TensorType((5, 3))}


def test_types_that_follow_from_others_may_be_left_out() -> None:
    text = symbol(var("x"), var("state"), ("elemwise_add", "sum", {}, ["x", "state"]))
    assert load_source(text).graph({"x": TensorType((5, 3))}).input_types()["state"] == TensorType((5, 3))


def test_every_unsupported_operator_is_listed_with_its_layer() -> None:
    text = symbol(var("x"), ("Custom", "mine", {"op_type": "foo"}, ["x"]), ("Frobnicate", "frob", {}, ["mine"]),
                  ("Frobnicate", "frob2", {}, ["frob"]))  # fmt: skip
    with pytest.raises(UnsupportedError) as caught:
        load_source(text).graph({"x": TensorType((1,))})
    message = str(caught.value)
    assert "2 operators" in message and "mine" in message and "Frobnicate (layer frob)" in message and "[2 uses]" in message
    assert "outputs=" in message


def test_errors_name_the_layer() -> None:
    bad_attribute = symbol(var("x"), ("Pooling", "pool7", {"kernel": "(2,2)", "pool_type": "median"}, ["x"]))
    with pytest.raises(UnsupportedError, match="pool7"):
        load_source(bad_attribute).graph({"x": TensorType((1, 1, 4, 4))})
    bad_shape = symbol(var("x"), ("Reshape", "flat3", {"shape": "(7, -1)"}, ["x"]))
    with pytest.raises(FormatError, match="flat3"):
        load_source(bad_shape).graph({"x": TensorType((2, 3))})
    random = symbol(var("x"), ("Dropout", "drop1", {"mode": "always"}, ["x"]))
    with pytest.raises(UnsupportedError, match="drop1"):
        load_source(random).graph({"x": TensorType((2, 3))})


def test_embeddings_take_indices_as_floats_or_integers() -> None:
    text = symbol(var("ids"), var("w"), ("Embedding", "e", {"input_dim": "4", "output_dim": "2"}, ["ids", "w"]))
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    source = load_source(text, params={"w": table})
    for dtype in ("f32", "i64"):
        graph = source.graph({"ids": TensorType((3,), dtype)})
        ids = np.array([1, 9, 0], np.float32 if dtype == "f32" else np.int64)
        assert interpret(graph, {"ids": ids})["e_output"].tolist() == [[2, 3], [6, 7], [0, 1]]


def test_half_precision_checkpoints_run_in_half_precision() -> None:
    text = symbol(var("x"), var("w"), var("g"), var("b"), var("m"), var("v"),
                  ("Convolution", "c", {"kernel": "(1,1)", "num_filter": "2", "no_bias": "1"}, ["x", "w"]),
                  ("BatchNorm", "bn", {"fix_gamma": "False"}, ["c", "g", "b", "m", "v"]))  # fmt: skip
    ones = np.ones(2, np.float32)
    params = {"w": np.ones((2, 3, 1, 1), np.float16), "g": ones, "b": ones, "aux:m": ones, "aux:v": ones}
    graph = load_source(text, params=params).graph({"x": TensorType((1, 3, 2, 2), "f16")})
    assert graph.output_types()["bn_output"].dtype == "f16"
    y = interpret(graph, {"x": np.ones((1, 3, 2, 2), np.float16)})["bn_output"]
    np.testing.assert_allclose(y, 1 + 2 / np.sqrt(1.001), rtol=2e-3)


def test_outputs_of_one_name_stay_apart() -> None:
    text = symbol(var("x"), ("relu", "r", {}, ["x"]), heads=[("r", 0), ("r", 0)])
    assert load_source(text).output_names == ("r_output", "r_output_1")
