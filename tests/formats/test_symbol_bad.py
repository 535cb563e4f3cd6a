"""Symbol files that are broken or hostile: one FormatError each, soon and without taking memory."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from samples import loop_symbol, node, small_symbol, symbol, variable

from diptych.errors import FormatError
from diptych.frontends.mxnet.strict_json import MAX_BYTES
from diptych.frontends.mxnet.symbol_json import SymbolGraph, SymbolNode, read_symbol, write_symbol

X = variable("x")


def graph(**change: Any) -> str:
    return json.dumps({"nodes": [X, node("relu", "r", 0)], "arg_nodes": [0], "heads": [[1, 0, 0]]} | change)


def nodes(*extra: object) -> str:
    return graph(nodes=[X, *extra])


def nested(levels: int) -> str:
    inner: Any = json.loads(symbol([X], [[0, 0, 0]], None))
    for _ in range(levels):
        inner = json.loads(symbol([X, node("_foreach", "f", 0, subgraphs=[inner])], [[1, 0, 0]], None))
    return json.dumps(inner)


BAD = {
    "not JSON": ("{", "truncated or corrupt"),
    "a list": ("[1]", "must be a JSON object"),
    "no nodes": ("{}", "has no 'nodes'"),
    "unknown key": (graph(tvm=1), "unknown key 'tvm'"),
    "duplicate key": ('{"nodes": [], "nodes": []}', "comes twice"),
    "NaN": ('{"nodes": NaN}', "NaN is not JSON"),
    "no heads": (graph(heads=[]), "no heads"),
    "head out of range": (graph(heads=[[2, 0, 0]]), "from 0 to 1"),
    "negative head": (graph(heads=[[-1, 0, 0]]), "from 0 to 1"),
    "bool as a number": (graph(heads=[[True, 0, 0]]), "from 0 to 1"),
    "float as a number": (graph(heads=[[1.0, 0, 0]]), "from 0 to 1"),
    "head too short": (graph(heads=[[1]]), r"must be \[node, output\]"),
    "argument out of range": (graph(arg_nodes=[7]), "from 0 to 1"),
    "operator as argument": (graph(arg_nodes=[1]), "not a variable"),
    "forward reference": (nodes(node("relu", "r", 2), node("relu", "s", 1)), "from 0 to 0"),
    "itself as input": (nodes(node("relu", "r", 1)), "from 0 to 0"),
    "no node before": (graph(nodes=[node("relu", "r", 0)]), "no node precedes"),
    "second output of a variable": (nodes({**node("relu", "r"), "inputs": [[0, 1, 0]]}), "output 1 of 'x'"),
    "huge output": (nodes({**node("relu", "r"), "inputs": [[0, 2**60, 0]]}), "three numbers"),
    "variable with inputs": (
        nodes({"op": "null", "name": "y", "inputs": [[0, 0, 0]]}),
        "is a variable, yet it has inputs",
    ),
    "name that is a number": (nodes({"op": "relu", "name": 3, "inputs": []}), "must be a string"),
    "empty operator": (nodes({"op": "", "name": "r", "inputs": []}), "name of an operator"),
    "attribute that is a number": (nodes(node("relu", "r", 0, attrs={"a": 3})), "must be a string"),
    "attributes that are a list": (nodes(node("relu", "r", 0, attrs=[])), "object of strings"),
    "unknown key of a node": (nodes({**node("relu", "r", 0), "shape": []}), "unknown key 'shape'"),
    "version as text": (graph(attrs={"mxnet_version": ["int", "1.9"]}), "a number"),
    "control dependence ahead": (nodes(node("relu", "r", 0, control_deps=[1])), "from 0 to 0"),
    "subgraph that is a number": (nodes(node("_foreach", "f", 0, subgraphs=[3])), "subgraph 0 of node 1"),
    "bad subgraph": (loop_symbol().replace('"x0"', "5"), "must be a string"),
    "deep subgraphs": (nested(20), "deeper than 8"),
    "very deep subgraphs": (nested(60), "deeper than 8"),
    "half a surrogate pair": (graph().replace('"x"', r'"\ud800"'), "surrogate"),
    "a number of 5000 digits": (graph().replace("[[1,", "[[" + "1" * 5000 + ","), "not usable JSON"),
}


@pytest.mark.parametrize("text, message", BAD.values(), ids=list(BAD))
def test_broken_symbol(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_symbol(text.encode())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_the_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net-symbol.json"
    path.write_text(graph(heads=[]))
    with pytest.raises(FormatError, match=r"net-symbol\.json"):
        read_symbol(path)


@pytest.mark.parametrize(
    "data", [b"\x12\x01\0\0\0\0\0\0", b'{"\xff": 1}', b""], ids=["params file", "not UTF-8", "empty"]
)
def test_bytes_that_are_no_text(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_symbol(data)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[" * 1_000_000, "too deeply"),
        ('{"a":' * 200_000, "too deeply"),
        ('{"nodes": [' + "[]," * 2_000_001 + "[]]}", "lists and objects"),
        ('{"nodes": ' + "1" * 20_000_000 + "}", "not usable"),
    ],
    ids=["lists", "objects", "many lists", "a long number"],
)
def test_what_would_cost_time_or_memory_is_refused_soon(text: str, message: str) -> None:
    data = text.encode()
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(FormatError, match=message):
        read_symbol(data)
    assert time.monotonic() - started < 5
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_brackets_within_strings_do_not_nest() -> None:
    text = graph().replace('"r"', json.dumps('r"\\' + "[" * 300))
    assert read_symbol(text).nodes[1].name.endswith("[[[")


def test_a_file_of_more_than_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge-symbol.json"
    with path.open("wb") as file:
        file.truncate(200 << 20)  # sparse: it takes no room on the disk
    tracemalloc.start()
    with pytest.raises(FormatError, match="more than the"):
        read_symbol(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MAX_BYTES * 3


@pytest.mark.parametrize("text", [small_symbol(), loop_symbol(), small_symbol(None)])
def test_every_truncation_is_an_error(text: str) -> None:
    data = text.encode()
    for end in range(1, len(data) - 1, 7):
        with pytest.raises(FormatError):
            read_symbol(data[:end])


def test_text_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(FormatError, match="surrogate"):
        write_symbol(SymbolGraph((SymbolNode(None, "\ud800"),), (0,), ((0, 0),)))
