"""Symbol files of each version, the upgrade rules one by one, and the lists derived from a graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from samples import loop_symbol, node, small_symbol, symbol, variable

from diptych.errors import FormatError
from diptych.frontends.mxnet.symbol_aliases import ALIASES, canonical
from diptych.frontends.mxnet.symbol_json import SymbolGraph, SymbolNode, read_symbol, write_symbol
from diptych.frontends.mxnet.symbol_schema import input_names, output_count


def one(
    op: str, attrs: dict[str, str], inputs: int = 1, version: int | None = 10901, key: str = "attrs"
) -> SymbolGraph:
    nodes = [variable(f"x{i}") for i in range(inputs)]
    return read_symbol(symbol([*nodes, node(op, "n", *range(inputs), **{key: attrs})], [[inputs, 0, 0]], version))


@pytest.mark.parametrize("version", [None, 903, 10300, 10901])
def test_every_version_reads_as_the_same_graph(version: int | None) -> None:
    graph = read_symbol(small_symbol(version))
    assert graph.version == (version or 800)
    arguments = ("data", "w", "b", "g", "beta", "label") if version else ("data", "w", "b", "g", "beta", "out_label")
    states = ("mean", "var") if version else ("bn_moving_mean", "bn_moving_var")
    assert graph.list_arguments() == arguments
    assert graph.list_auxiliary_states() == states
    assert graph.list_outputs() == ("s_output0", "out_output")
    conv = next(n for n in graph.nodes if n.op == "Convolution")
    assert conv.attrs == {"kernel": "(3,3)", "num_filter": "4", "no_bias": "False"}
    assert [graph.nodes[i].name for i, _ in conv.inputs] == ["data", "w", "b"]


def test_the_source_may_be_a_path_text_or_bytes(tmp_path: Path) -> None:
    text = small_symbol()
    path = tmp_path / "m-symbol.json"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_symbol(path) == read_symbol(str(path)) == read_symbol(text) == read_symbol(text.encode())


def test_param_attr_and_attrs_are_merged() -> None:
    nodes = [variable("x"), node("Activation", "n", 0, param={"act_type": "tanh"}, attr={"ctx_group": "a"})]
    graph = read_symbol(symbol(nodes, [[1, 0]], None))
    assert graph.nodes[1].attrs == {"act_type": "tanh"}
    assert graph.nodes[1].hidden == {"__ctx_group__": "a"}


@pytest.mark.parametrize("version, moved", [(None, True), (10000, True), (10900, True), (10901, False)])
def test_plain_keys_of_users_become_hidden_before_1_9_1(version: int | None, moved: bool) -> None:
    graph = one(
        "FullyConnected", {"num_hidden": "1", "weight_lr_mult": "3", "lr_mult": "2", "x9_lr_mult": "4"}, 3, version
    )
    weight, layer = graph.nodes[1], graph.nodes[3]
    if moved:
        assert weight.hidden == {"__lr_mult__": "3"}
        assert layer.hidden == {"__lr_mult__": "2"}
        assert layer.attrs == {"num_hidden": "1", "x9_lr_mult": "4"}  # no input is called x9
    else:
        assert not weight.hidden and not layer.hidden and "weight_lr_mult" in layer.attrs


def test_inputs_missing_before_0_9_are_variables_named_after_the_layer() -> None:
    graph = one("SVMOutput", {}, 1, None, "param")
    assert graph.list_arguments() == ("x0", "n_label")
    assert one("SVMOutput", {}, 1, 900, "attr").list_arguments() == ("x0",)
    nameless = read_symbol(
        symbol([variable("x"), node("LeakyReLU", "", 0, param={"act_type": "prelu"})], [[1, 0]], None)
    )
    assert nameless.list_arguments() == ("x", "gamma")
    assert nameless.list_outputs() == ("output",)


def test_initializers_of_states_are_set_before_0_9_4() -> None:
    for version, text in ((903, '["one", {}]'), (904, None)):
        graph = one("BatchNorm", {}, 5, version, "attr")
        assert graph.nodes[4].hidden.get("__init__") == text


def test_an_axis_of_minus_one_meant_all_axes_before_0_9_5() -> None:
    assert one("argmax", {"axis": "-1"}, 1, 904, "attr").nodes[1].attrs == {}
    assert one("argmax", {"axis": "-1"}, 1, 905, "attr").nodes[1].attrs == {"axis": "-1"}
    assert one("argmin", {"axis": "1"}, 1, 904, "attr").nodes[1].attrs == {"axis": "1"}
    assert one("sum", {"axis": "-1"}, 1, 904, "attr").nodes[1].attrs == {"axis": "-1"}


def test_aliases_are_written_by_their_first_name() -> None:
    assert one("flatten", {}).nodes[1].op == "Flatten"
    assert canonical("crop") == "slice" and canonical("Crop") == "Crop"
    assert len(ALIASES) == 281 and not set(ALIASES) & set(ALIASES.values())


def test_nodes_that_lead_nowhere_are_left_out_and_order_is_that_of_the_walk() -> None:
    nodes = [variable("unused"), variable("b"), variable("a"), node("elemwise_add", "n", 2, 1)]
    graph = read_symbol(symbol(nodes, [[3, 0, 0]]))
    assert graph.list_inputs() == ("a", "b")


def test_a_shared_state_is_listed_once_and_control_dependences_are_kept() -> None:
    nodes = [variable(n) for n in ("x", "g", "b", "m", "v")]
    nodes += [node("BatchNorm", "p", 0, 1, 2, 3, 4), node("BatchNorm", "q", 5, 1, 2, 3, 4, control_deps=[0])]
    graph = read_symbol(symbol(nodes, [[6, 0, 0], [0, 0, 0]]))
    assert graph.list_arguments() == ("x", "g", "b")
    assert graph.list_auxiliary_states() == ("m", "v")
    assert graph.list_outputs() == ("q_output", "x")
    assert graph.nodes[6].control_deps == (0,)
    text = write_symbol(graph)
    assert "[3, 0, 2], [4, 0, 2]" in text  # MXNet counts how often a state was written to
    assert read_symbol(text) == graph


def test_subgraphs_are_graphs_of_their_own() -> None:
    graph = read_symbol(loop_symbol())
    loop = graph.nodes[-1]
    assert loop.op == "_foreach"
    assert loop.subgraphs[0].list_arguments() == ("x0", "s0")
    assert graph.list_outputs() == ("loop_output0", "loop_output1")
    assert read_symbol(write_symbol(graph)) == graph


def test_numpy_shape_semantics_are_remembered() -> None:
    graph = read_symbol(
        symbol([variable("x")], [[0, 0, 0]], attrs={"mxnet_version": ["int", 10901], "is_np_shape": ["int", 1]})
    )
    assert graph.is_np_shape
    assert read_symbol(write_symbol(graph)).is_np_shape


@pytest.mark.parametrize("version", [None, 903, 10300, 10901])
def test_writing_gives_back_the_upgraded_graph(version: int | None) -> None:
    graph = read_symbol(small_symbol(version))
    assert read_symbol(write_symbol(graph)) == replace(graph, version=10901)


def test_the_written_text_is_mxnets() -> None:
    graph = SymbolGraph(
        (SymbolNode(None, "x", hidden={"__a__": 'q"\n'}), SymbolNode("relu", "r", ((0, 0),))), (0,), ((1, 0),)
    )
    assert write_symbol(graph) == (
        '{\n  "nodes": [\n    {\n      "op": "null", \n      "name": "x", \n      "attrs": {"__a__": "q\\"\\n"}, \n'
        '      "inputs": []\n    }, \n    {\n      "op": "relu", \n      "name": "r", \n      "inputs": [[0, 0, 0]]\n'
        '    }\n  ], \n  "arg_nodes": [0], \n  "node_row_ptr": [0, 1, 2], \n  "heads": [[1, 0, 0]], \n'
        '  "attrs": {"mxnet_version": ["int", 10901]}\n}'
    )


def test_names_of_several_outputs() -> None:
    assert one("topk", {"ret_typ": "both"}).list_outputs() == ("n_output0",)
    assert one("topk", {}).list_outputs() == ("n_output",)
    assert one("LayerNorm", {}, 3).list_outputs() == ("n_output",)
    assert output_count("LayerNorm", {"output_mean_var": "True"}, visible=True) == 3
    assert output_count("RNN", {"mode": "lstm", "state_outputs": "True"}) == 3
    assert input_names("RNN", {"mode": "lstm"}) == ("data", "parameters", "state", "state_cell")
    assert input_names("Deconvolution", {}) == ("data", "weight")


def test_a_wrong_bool_is_an_error_where_it_matters() -> None:
    with pytest.raises(FormatError, match=r"FullyConnected \(layer n\): attribute 'no_bias': 'perhaps' is not a bool"):
        one("FullyConnected", {"no_bias": "perhaps"}, 1, None, "param")
    with pytest.raises(FormatError, match=r"Pooling \(layer n\): attribute 'kernel': '\(3' is not a well-formed"):
        write_symbol(one("Pooling", {"kernel": "(3"}))
    with pytest.raises(FormatError, match=r"_split_v2 \(layer n\): attribute 'indices'"):
        one("_split_v2", {"indices": "(1"}).list_outputs()
