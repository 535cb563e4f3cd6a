"""`mx.viz`: a table of the layers of a symbol, and its drawing."""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

__all__ = ["plot_network", "print_summary"]

_WEIGHTS = ("_weight", "_bias", "_beta", "_gamma", "_moving_var", "_moving_mean", "_running_var", "_running_mean")


def _nodes(symbol: Any) -> tuple[list[dict[str, Any]], list[list[int]]]:
    from diptych.mxnet.symbol.symbol import Symbol

    if not isinstance(symbol, Symbol):
        raise TypeError("give a Symbol: the network, not its parameters or a Block")
    content = json.loads(symbol.tojson())
    return content["nodes"], content["heads"]


def _shapes(symbol: Any, shape: dict[str, Any] | None) -> dict[str, Any]:
    if shape is None:
        return {}
    internals = symbol.get_internals()
    _, found, _ = internals.infer_shape(**shape)
    if found is None:
        raise ValueError("the shapes given leave some unknown: name the shape of every input")
    return dict(zip(internals.list_outputs(), found))


def _numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def _parameters(node: dict[str, Any], before: int, shapes: dict[str, Any]) -> int:
    """How many parameters an operator has, given the channels that come in."""
    attrs = node.get("attrs", {})
    bias = attrs.get("no_bias") not in ("True", "1", "true")
    if node["op"] == "Convolution":
        count = before * int(attrs["num_filter"]) // int(attrs.get("num_group", "1"))
        for k in _numbers(attrs["kernel"]):
            count *= k
        return count + (int(attrs["num_filter"]) if bias else 0)
    if node["op"] == "FullyConnected":
        return (before + bias) * int(attrs["num_hidden"])
    if node["op"] == "BatchNorm":
        known = shapes.get(f"{node['name']}_output")
        return int(known[1]) * 2 if known else 0
    if node["op"] == "Embedding":
        return int(attrs["input_dim"]) * int(attrs["output_dim"])
    return 0


def print_summary(symbol: Any, shape: dict[str, Any] | None = None, line_length: int = 120,
                  positions: Any = (0.44, 0.64, 0.74, 1.0)) -> None:  # fmt: skip
    """Print a table of the layers: output shapes (where `shape` gives those of the inputs), parameters, inputs."""
    nodes, heads = _nodes(symbol)
    shapes = _shapes(symbol, shape)
    ends = [int(line_length * p) for p in positions] if positions[-1] <= 1 else list(positions)
    outputs = {h[0] for h in heads}

    def row(*fields: Any) -> None:
        line = ""
        for field, end in zip(fields, ends):
            line = (line + str(field))[:end].ljust(end)
        print(line)

    print("_" * line_length)
    row("Layer (type)", "Output Shape", "Param #", "Previous Layer")
    print("=" * line_length)
    total = 0
    for i, node in enumerate(nodes):
        if node["op"] == "null" and i > 0:
            continue
        before, channels = [], 0
        for source in node["inputs"]:
            other = nodes[source[0]]
            if other["op"] == "null" and source[0] not in outputs and source[0] != 0:
                continue
            key = other["name"] if other["op"] == "null" else f"{other['name']}_output"
            if other["op"] != "null":
                before.append(other["name"])
            if key in shapes and len(shapes[key]) > 1 and not other["name"].endswith(_WEIGHTS) and other["op"] != "null":
                channels += int(shapes[key][1])
        own = shapes.get(node["name"] if node["op"] == "null" else f"{node['name']}_output", ())[1:]
        count = _parameters(node, channels, shapes)
        total += count
        row(f"{node['name']}({node['op']})", "x".join(map(str, own)), count, before[0] if before else "")
        for name in before[1:]:
            row("", "", "", name)
        print(("=" if i == len(nodes) - 1 else "_") * line_length)
    print(f"Total params: {total}")
    print("_" * line_length)


_FILLS = {"null": "#8dd3c7", "Convolution": "#fb8072", "FullyConnected": "#fb8072", "Activation": "#ffffb3", "LeakyReLU": "#ffffb3",
          "BatchNorm": "#bebada", "Pooling": "#80b1d3", "Concat": "#fdb462", "Flatten": "#fdb462", "Reshape": "#fdb462",
          "softmax": "#b3de69", "Softmax": "#b3de69"}  # fmt: skip


def _label(node: dict[str, Any]) -> str:
    op, a = node["op"], node.get("attrs", {})

    def across(key: str, missing: str) -> str:
        return "x".join(map(str, _numbers(a[key]))) if key in a else missing

    if op == "Convolution":
        return f"Convolution\n{across('kernel', '')}/{across('stride', '1')}, {a['num_filter']}"
    if op == "FullyConnected":
        return f"FullyConnected\n{a['num_hidden']}"
    if op == "Pooling":
        return f"Pooling\n{a.get('pool_type', 'max')}, {across('kernel', '[]')}/{across('stride', '1')}"
    if op in ("Activation", "LeakyReLU"):
        return f"{op}\n{a.get('act_type', 'leaky')}"
    return str(a["op_type"]) if op == "Custom" else str(node["name"])


def plot_network(symbol: Any, title: str = "plot", save_format: str = "pdf", shape: dict[str, Any] | None = None,
                 dtype: dict[str, Any] | None = None, node_attrs: dict[str, str] | None = None, hide_weights: bool = True) -> Any:  # fmt: skip
    """The graph of a symbol as a graphviz.Digraph; needs the package graphviz."""
    try:
        import importlib

        graph: Any = importlib.import_module("graphviz")
    except ImportError as error:
        raise ImportError("plot_network draws by graphviz: pip install graphviz") from error
    nodes, _ = _nodes(symbol)
    shapes = _shapes(symbol, shape)
    types: dict[str, Any] = {}
    if dtype is not None:
        internals = symbol.get_internals()
        _, found, _ = internals.infer_type(**dtype)
        if found is None:
            raise ValueError("the types given leave some unknown: name the type of every input")
        types = dict(zip(internals.list_outputs(), found))
    names = [n["name"] for n in nodes]
    if repeated := sorted({n for n in names if names.count(n) > 1}):
        warnings.warn("There are multiple variables with the same name in your graph, this may result in cyclic graph. Repeated "
                      "names: " + ",".join(repeated), RuntimeWarning, stacklevel=2)  # fmt: skip
    usual = {"shape": "box", "fixedsize": "true", "width": "1.3", "height": "0.8034", "style": "filled", **(node_attrs or {})}
    dot = graph.Digraph(name=title, format=save_format)
    hidden = {n["name"] for n in nodes if n["op"] == "null" and n["name"].endswith(_WEIGHTS)} if hide_weights else set()
    for node in nodes:
        if node["name"] in hidden and node["op"] == "null":
            continue
        look = {**usual, "fillcolor": _FILLS.get(node["op"], "#fccde5")}
        if node["op"] == "null":
            look["shape"] = "oval"
        dot.node(name=node["name"], label=_label(node), **look)
    for node in nodes:
        for source, index, *_ in node["inputs"]:
            other = nodes[source]
            if other["op"] == "null" and other["name"] in hidden:
                continue
            key = other["name"] if other["op"] == "null" else f"{other['name']}_output"
            if key not in shapes and f"{key}{index}" in shapes:
                key = f"{key}{index}"
            label = "x".join(map(str, shapes[key][1:])) if key in shapes else ""
            if key in types:
                label += f"({types[key].__name__})"
            dot.edge(tail_name=node["name"], head_name=other["name"], dir="back", arrowtail="open", label=label)
    return dot
