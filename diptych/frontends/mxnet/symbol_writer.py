"""Write a symbol in the form of MXNet 1.9.1, to the letter: the same spacing, key order and line breaks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diptych.errors import FormatError
from diptych.frontends.mxnet.symbol_graph import SymbolGraph, SymbolNode

__all__ = ["write_symbol"]

_WRITER_VERSION = 10901
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_LONG_LIST = 10  # longer lists of numbers get a line each


def write_symbol(graph: SymbolGraph) -> str:
    """The JSON text of a symbol, as MXNet 1.9.1 would write it (and reads it).

    >>> from diptych.frontends.mxnet.symbol_json import SymbolGraph, SymbolNode, read_symbol
    >>> graph = SymbolGraph((SymbolNode(None, "x"), SymbolNode("relu", "r", ((0, 0),))), (0,), ((1, 0),))
    >>> read_symbol(write_symbol(graph)) == graph
    True
    """
    attrs = {"mxnet_version": f'["int", {_WRITER_VERSION}]'}
    if graph.is_np_shape:
        attrs["is_np_shape"] = '["int", 1]'
    return _graph(graph, 0, attrs)


def _string(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FormatError(f"{text!r} holds half of a surrogate pair and cannot be written") from None
    return '"' + text.translate(_ESCAPES) + '"'


def _object(pairs: Sequence[tuple[str, str]], level: int, *, multi: bool) -> str:
    return _wrap([f"{_string(key)}: {value}" for key, value in pairs], "{}", level, multi=multi)


def _wrap(items: Sequence[str], brackets: str, level: int, *, multi: bool) -> str:
    """Items between brackets; `level` is that of the line on which the brackets open."""
    if not items or not multi:
        return brackets[0] + ", ".join(items) + brackets[1]
    inner = "\n" + "  " * (level + 1)
    return brackets[0] + inner + (", " + inner).join(items) + "\n" + "  " * level + brackets[1]


def _numbers(values: Iterable[object], level: int) -> str:
    items = [str(v) for v in values]
    return _wrap(items, "[]", level, multi=len(items) > _LONG_LIST)


def _graph(graph: SymbolGraph, level: int, attrs: dict[str, str] | None, *, count: bool = True) -> str:
    # `count` is false within a fused operator: MXNet numbers the writes to its states outside.
    versions: dict[int, int] = {}  # how often a variable has been written to so far: MXNet numbers its states
    nodes: list[str] = []
    rows = [0]
    for node in graph.nodes:
        nodes.append(_node(node, level + 2, versions, count))
        rows.append(rows[-1] + node.output_count())
    heads = [f"[{n}, {i}, {versions.get(n, 0)}]" for n, i in graph.heads]
    pairs = [
        ("nodes", _wrap(nodes, "[]", level + 1, multi=True)),
        ("arg_nodes", _numbers(graph.arg_nodes, level + 1)),
        ("node_row_ptr", _numbers(rows, level + 1)),
        ("heads", _numbers(heads, level + 1)),
    ]
    if attrs:
        pairs.append(("attrs", _object(sorted(attrs.items()), level + 1, multi=len(attrs) > 1)))
    return _object(pairs, level, multi=True)


def _node(node: SymbolNode, level: int, versions: dict[int, int], count: bool) -> str:
    pairs = [("op", _string(node.op or "null")), ("name", _string(node.name))]
    attrs = {**node.attrs, **node.hidden}
    if attrs:
        texts = [(key, _string(value)) for key, value in sorted(attrs.items())]
        pairs.append(("attrs", _object(texts, level + 1, multi=len(texts) > 1)))
    numbers = [versions.get(source, 0) for source, _ in node.inputs]
    for position in node.written_inputs() if count else ():
        source = node.inputs[position][0]
        versions[source] = numbers[position] = versions.get(source, 0) + 1
    entries = [f"[{n}, {i}, {v}]" for (n, i), v in zip(node.inputs, numbers, strict=True)]
    pairs.append(("inputs", _numbers(entries, level + 1)))
    if node.control_deps:
        pairs.append(("control_deps", _numbers(node.control_deps, level + 1)))
    if node.subgraphs:
        texts_of = [_graph(s, level + 2, None, count=not node.is_fused) for s in node.subgraphs]
        pairs.append(("subgraphs", _wrap(texts_of, "[]", level + 1, multi=True)))
    return _object(pairs, level, multi=True)
