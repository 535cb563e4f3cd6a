"""Read and write MXNet symbol files (``*-symbol.json``) of every version from 0.8 to 1.9.1.

>>> graph = read_symbol('{"nodes": [{"op": "null", "name": "x", "inputs": []}, {"op": "relu", "name": "r", '
...                     '"inputs": [[0, 0, 0]]}], "arg_nodes": [0], "heads": [[1, 0, 0]]}')
>>> graph.list_arguments(), graph.list_outputs()
(('x',), ('r_output',))
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from diptych.errors import FormatError
from diptych.frontends.mxnet.strict_json import MAX_BYTES, decode, parse_json
from diptych.frontends.mxnet.symbol_aliases import canonical
from diptych.frontends.mxnet.symbol_graph import SymbolGraph, SymbolNode
from diptych.frontends.mxnet.symbol_upgrade import Draft, upgrade
from diptych.frontends.mxnet.symbol_writer import write_symbol

__all__ = ["SymbolGraph", "SymbolNode", "read_symbol", "write_symbol"]

_NO_VERSION = 800  # a file that does not name its writer's version comes from 0.8.0 or earlier
_MAX_SUBGRAPH_DEPTH = 8
_GRAPH_KEYS = frozenset({"nodes", "arg_nodes", "heads", "node_row_ptr", "attrs"})
_NODE_KEYS = frozenset(
    {"op", "name", "inputs", "attrs", "attr", "param", "control_deps", "subgraphs", "backward_source_id"}
)


def read_symbol(source: str | bytes | os.PathLike[str]) -> SymbolGraph:
    """The graph in a symbol file, upgraded to the form of MXNet 1.9.1.

    `source` is a path, or the JSON itself as text (it starts with a brace) or bytes. Whatever is wrong with it is
    reported as one FormatError.
    """
    if isinstance(source, bytes):
        return _read(decode(source, "symbol JSON"), "symbol JSON")
    if isinstance(source, str) and source.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
        return _read(source.lstrip("\ufeff"), "symbol JSON")
    path = Path(source)
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)  # one more than allowed, so that decode sees that there is too much
    return _read(decode(data, path.name), path.name)


def _read(text: str, where: str) -> SymbolGraph:
    top = parse_json(text, where)
    try:
        return _graph(top, "the file", 0, top=True)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None


def _wrong(what: str, value: object, wanted: str) -> FormatError:
    shown = repr(value)
    return FormatError(f"{what} is {shown if len(shown) <= 60 else shown[:57] + '...'}, but must be {wanted}")


def _check_keys(value: object, allowed: frozenset[str], required: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(what, value, "a JSON object")
    for key in required:
        if key not in value:
            raise FormatError(f"{what} has no {key!r}; this is not an MXNet symbol or it is incomplete")
    for key in value:
        if key not in allowed:
            raise FormatError(
                f"{what} has the unknown key {key[:60]!r}; this is not an MXNet symbol of versions 0.8 to 1.9.1"
            )
    return value


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(what, value, "a list")
    return value


def _index(value: object, limit: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
        raise _wrong(
            what, value, f"the number of a node from 0 to {limit - 1}" if limit else "absent: no node precedes it"
        )
    return value


def _entry(value: object, drafts: list[Draft], limit: int, what: str) -> tuple[Draft, int]:
    """One ``[node, output]`` or ``[node, output, version]``; `limit` is the first node it may not name."""
    items = _list(value, what)
    if len(items) not in (2, 3):
        raise _wrong(what, value, "[node, output] or [node, output, version]")
    node = drafts[_index(items[0], limit, f"the node of {what}")]
    for number in items[1:]:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 31:
            raise _wrong(what, value, "three numbers, none negative")
    if node.op is None and items[1] != 0:
        raise FormatError(f"{what} asks for output {items[1]} of {node.name!r}, a variable, which has one")
    return node, items[1]


def _text_map(value: object, what: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong(what, value, "a JSON object of strings")
    for key, item in value.items():
        if not isinstance(item, str):
            raise _wrong(f"{key!r} in {what}", item, "a string")
    return value


def _node(value: object, position: int, drafts: list[Draft], depth: int) -> Draft:
    fields = _check_keys(value, _NODE_KEYS, ("op", "name", "inputs"), f"node {position}")
    op, name = fields["op"], fields["name"]
    if not isinstance(op, str) or not op:
        raise _wrong(f"'op' of node {position}", op, "the name of an operator")
    if not isinstance(name, str):
        raise _wrong(f"'name' of node {position}", name, "a string")
    what = f"node {position} ({op} {name!r})" if len(name) < 200 else f"node {position} ({op})"
    draft = Draft(None if op == "null" else canonical(op), name, {})
    for key in ("param", "attr", "attrs"):  # the later ones win, as in MXNet's loader
        if key in fields:
            draft.attrs.update(_text_map(fields[key], f"{key!r} of {what}"))
    draft.inputs = [
        _entry(e, drafts, position, f"an input of {what}") for e in _list(fields["inputs"], f"'inputs' of {what}")
    ]
    if draft.op is None and draft.inputs:
        raise FormatError(f"{what} is a variable, yet it has inputs")
    deps = _list(fields.get("control_deps", []), f"'control_deps' of {what}")
    draft.control_deps = [drafts[_index(d, position, f"a control dependence of {what}")] for d in deps]
    subgraphs = _list(fields.get("subgraphs", []), f"'subgraphs' of {what}")
    if subgraphs and depth >= _MAX_SUBGRAPH_DEPTH:
        raise FormatError(f"{what} nests subgraphs deeper than {_MAX_SUBGRAPH_DEPTH} levels")
    draft.subgraphs = tuple(_graph(s, f"subgraph {i} of {what}", depth + 1) for i, s in enumerate(subgraphs))
    return draft


def _graph_attrs(value: object) -> tuple[int, bool]:
    if not isinstance(value, dict):
        raise _wrong("'attrs' of the file", value, "a JSON object")
    found = {}
    for key in ("mxnet_version", "is_np_shape"):
        pair = value.get(key)
        if pair is None:
            continue
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], int) or not 0 <= pair[1] < 1 << 31:
            raise _wrong(f"{key!r}", pair, '["int", a number]')
        found[key] = int(pair[1])
    return found.get("mxnet_version", _NO_VERSION), bool(found.get("is_np_shape", 0))


def _graph(value: object, what: str, depth: int, *, top: bool = False) -> SymbolGraph:
    fields = _check_keys(value, _GRAPH_KEYS, ("nodes", "arg_nodes", "heads"), what)
    drafts: list[Draft] = []
    try:
        for position, node in enumerate(_list(fields["nodes"], "'nodes'")):
            drafts.append(_node(node, position, drafts, depth))
        heads = [_entry(h, drafts, len(drafts), "a head") for h in _list(fields["heads"], "'heads'")]
        for index in _list(fields["arg_nodes"], "'arg_nodes'"):
            node = drafts[_index(index, len(drafts), "an entry of 'arg_nodes'")]
            if node.op is not None:
                raise FormatError(
                    f"'arg_nodes' lists {node.name!r}, which is the operator {node.op} and not a variable"
                )
        if not heads:
            raise FormatError("there are no heads: the graph has no outputs")
        # MXNet upgrades the outer graph only; subgraphs exist since 1.3 and need no rule.
        version, is_np = _graph_attrs(fields.get("attrs", {})) if top else (10901, False)
        order = upgrade(heads, version)
    except FormatError as error:
        raise (FormatError(f"{what}: {error}") if depth else error) from None
    return _freeze(order, heads, version, is_np)


def _freeze(order: list[Draft], heads: list[tuple[Draft, int]], version: int, is_np: bool) -> SymbolGraph:
    place = {id(draft): index for index, draft in enumerate(order)}
    nodes = []
    for draft in order:
        hidden = {k: v for k, v in draft.attrs.items() if len(k) > 4 and k.startswith("__") and k.endswith("__")}
        nodes.append(
            SymbolNode(
                op=draft.op,
                name=draft.name,
                inputs=tuple((place[id(d)], i) for d, i in draft.inputs),
                attrs={k: v for k, v in draft.attrs.items() if k not in hidden},
                hidden=hidden,
                subgraphs=draft.subgraphs,
                control_deps=tuple(place[id(d)] for d in draft.control_deps),
            )
        )
    arg_nodes = tuple(i for i, node in enumerate(nodes) if node.op is None)
    return SymbolGraph(tuple(nodes), arg_nodes, tuple((place[id(d)], i) for d, i in heads), version, is_np)
