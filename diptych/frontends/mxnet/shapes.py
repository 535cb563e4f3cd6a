"""Partial shape and type inference over a symbol: what MXNet's infer_shape and infer_type give.

Full types flow forward through the converters themselves, so no operator states its shape rule twice. What flows
backward (weights from data, begin states from the sequence, extents MXNet leaves open as 0) is in `shape_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from diptych.errors import DiptychError, FormatError
from diptych.frontends.mxnet import converters  # noqa: F401  (fills the table of converters)
from diptych.frontends.mxnet.attributes import Attributes, parse_shape
from diptych.frontends.mxnet.convert import CONVERTERS, convert_node, dtype_of_name
from diptych.frontends.mxnet.shape_rules import LABEL_INPUTS, RULES, Partial, Shapes, full
from diptych.frontends.mxnet.symbol_schema import output_count
from diptych.ir import TensorType
from diptych.ir.types import numpy_dtype
from diptych.ops.build import Builder

if TYPE_CHECKING:
    from diptych.frontends.mxnet.symbol_graph import SymbolGraph
    from diptych.ir import Array

__all__ = ["LABEL_INPUTS", "Inference", "infer_shapes", "infer_types", "random_params"]

Known = Mapping[str, "TensorType | Sequence[int]"]
Inferred = tuple[
    dict[str, tuple[int, ...] | None], dict[str, tuple[int, ...] | None], dict[str, tuple[int, ...] | None]
]

_MAX_SWEEPS = 50


class Inference:
    """Shapes (extents may be unknown) and dtypes of every value of a symbol, refined to a fixed point by `run`."""

    rules: Mapping[str, Callable[[Shapes], None]] = RULES

    def __init__(self, symbol: SymbolGraph, known: Known, order: Sequence[int] | None = None) -> None:
        self.symbol = symbol
        self.order = tuple(range(len(symbol.nodes))) if order is None else tuple(order)
        self._shapes: dict[tuple[int, int], Partial] = {}
        self._dtypes: dict[tuple[int, int], str] = {}
        self._changed = False
        self._index = {symbol.nodes[i].name: i for i in self.order if symbol.nodes[i].op is None}
        self._forward_done: set[int] = set()
        for name, i in self._index.items():
            node = symbol.nodes[i]
            given = known.get(name)
            self._dtypes[i, 0] = _flag(node.hidden.get("__dtype__", "0"), name)
            if isinstance(given, TensorType):
                self._shapes[i, 0], self._dtypes[i, 0] = given.shape, given.dtype
            elif given is not None:
                self._shapes[i, 0] = self._open(given)
            elif "__shape__" in node.hidden:
                self._shapes[i, 0] = self._open(parse_shape(node.hidden["__shape__"]))

    def _open(self, shape: Sequence[int]) -> Partial:
        """MXNet's spelling to ours: 0 (outside of np-shape mode) and -1 are unknown; () is an unknown rank."""
        if not shape and not self.symbol.is_np_shape:
            return None
        return tuple(None if d < 0 or (d == 0 and not self.symbol.is_np_shape) else int(d) for d in shape)

    # -- what is known ----------------------------------------------------------------------------------------
    def partial(self, entry: tuple[int, int]) -> Partial:
        """The shape of an entry so far; None entries are unknown extents, None an unknown rank."""
        return self._shapes.get(entry)

    def shape(self, entry: tuple[int, int]) -> tuple[int, ...] | None:
        """The shape of an entry when it is fully known."""
        return full(self._shapes.get(entry))

    def dtype(self, entry: tuple[int, int]) -> str:
        """The element type of an entry (f32 until something says otherwise)."""
        return self._dtypes.get(entry, "f32")

    def variable_shape(self, name: str) -> tuple[int, ...] | None:
        """The full shape of a variable, if known."""
        return self.shape((self._index[name], 0)) if name in self._index else None

    def _refine(self, entry: tuple[int, int], shape: Partial, layer: str) -> None:
        if shape is None:
            return
        old = self._shapes.get(entry)
        if old is None:
            self._shapes[entry] = tuple(shape)
            self._changed = True
            return
        if len(old) != len(shape) or any(a is not None and b is not None and a != b for a, b in zip(old, shape)):
            source = self.symbol.nodes[entry[0]].name
            raise FormatError(f"layer {layer}: {source} has shape {_show(old)}, but {_show(shape)} is needed here")
        new = tuple(b if a is None else a for a, b in zip(old, shape))
        if new != old:
            self._shapes[entry] = new
            self._changed = True

    # -- the sweeps -------------------------------------------------------------------------------------------
    def run(self) -> Inference:
        """Sweep forward and backward until nothing changes."""
        for _ in range(_MAX_SWEEPS):
            self._changed = False
            for i in self.order:
                self._visit(i)
            if not self._changed:
                return self
            for i in reversed(self.order):
                self._visit(i)
        return self

    def _visit(self, i: int) -> None:
        node = self.symbol.nodes[i]
        if node.op is None or i in self._forward_done:
            return
        rule = self.rules.get(node.op)
        count = output_count(node.op, node.attrs, visible=True)
        if rule is not None:
            s = Shapes(Attributes(node.op, node.name, node.attrs), [self.partial(e) for e in node.inputs],
                       [self.partial((i, k)) for k in range(count)])  # fmt: skip
            rule(s)
            for e, shape in zip(node.inputs, s.ins):
                self._refine(e, shape, node.name)
            for k, shape in enumerate(s.outs):
                self._refine((i, k), shape, node.name)
            for position in s.like_data:  # weights have the data's element type unless the symbol says otherwise
                if position < len(node.inputs):
                    e = node.inputs[position]
                    if e[0] in self._index.values() and "__dtype__" not in self.symbol.nodes[e[0]].hidden:
                        self._dtypes.setdefault(e, self.dtype(node.inputs[0]))
        self._forward(i, count)

    def _forward(self, i: int, count: int) -> None:
        """Convert the node alone, on inputs of its operands' types, when these are all known."""
        node = self.symbol.nodes[i]
        assert node.op is not None
        entries = node.inputs[: LABEL_INPUTS.get(node.op)]
        shapes = [self.shape(e) for e in entries]
        if node.op not in CONVERTERS or any(s is None for s in shapes):
            return
        g = Builder()
        operands = tuple(g.input(f"x{k}", TensorType(s, self.dtype(e)))
                         for k, (e, s) in enumerate(zip(entries, shapes)) if s is not None)  # fmt: skip
        try:
            results = convert_node(g, node, operands, count, self.shape((i, 0)), self.symbol.is_np_shape)
        except DiptychError:
            if shapes:
                raise
            return  # a creation operator whose shape a consumer will tell in a later sweep
        for k, value in enumerate(results):
            self._refine((i, k), value.shape, node.name)
            self._dtypes[i, k] = value.dtype
        self._forward_done.add(i)


def _show(shape: Partial) -> str:
    return "?" if shape is None else "(" + ", ".join("?" if d is None else str(d) for d in shape) + ")"


def _flag(text: str, name: str) -> str:
    return "f32" if text == "-1" else dtype_of_name(text, name)


def infer_shapes(symbol: SymbolGraph, known: Known) -> Inferred:
    """Shapes by name of the arguments, the outputs and the auxiliary states; None where they stay unknown.

    `known` gives shapes (0 for an unknown extent, as MXNet writes it) or types of some variables.

    >>> from diptych.frontends.mxnet.symbol_json import read_symbol
    >>> fc = read_symbol('{"nodes": [{"op": "null", "name": "x", "inputs": []}, {"op": "null", "name": "w", "inputs": []}, '
    ...                  '{"op": "FullyConnected", "name": "fc", "attrs": {"num_hidden": "5", "no_bias": "1"}, '
    ...                  '"inputs": [[0, 0, 0], [1, 0, 0]]}], "arg_nodes": [0, 1], "heads": [[2, 0, 0]]}')
    >>> infer_shapes(fc, {"x": (2, 3)})
    ({'x': (2, 3), 'w': (5, 3)}, {'fc_output': (2, 5)}, {})
    """
    found = Inference(symbol, known).run()
    arguments = {n: found.variable_shape(n) for n in symbol.list_arguments()}
    states = {n: found.variable_shape(n) for n in symbol.list_auxiliary_states()}
    outputs = {n: found.shape(head) for n, head in zip(symbol.list_outputs(), symbol.heads)}
    return arguments, outputs, states


def infer_types(
    symbol: SymbolGraph, known: Known
) -> tuple[dict[str, TensorType], dict[str, TensorType], dict[str, TensorType]]:
    """Full types by name of the arguments, the outputs and the auxiliary states; an error names what stays unknown."""
    found = Inference(symbol, known).run()
    index = {symbol.nodes[i].name: (i, 0) for i in symbol.arg_nodes}

    def typed(entries: Mapping[str, tuple[int, int]]) -> dict[str, TensorType]:
        shapes = {n: found.shape(e) for n, e in entries.items()}
        open_ = [n for n, s in shapes.items() if s is None]
        if open_:
            raise FormatError(f"the shapes of {', '.join(open_[:8])} stay unknown; give the types of more inputs")
        return {n: TensorType(s, found.dtype(entries[n])) for n, s in shapes.items() if s is not None}

    arguments = typed({n: index[n] for n in symbol.list_arguments()})
    states = typed({n: index[n] for n in symbol.list_auxiliary_states()})
    return arguments, typed(dict(zip(symbol.list_outputs(), symbol.heads))), states


def random_params(symbol: SymbolGraph, input_types: Mapping[str, TensorType], seed: int = 0) -> dict[str, Array]:
    """Random weights for everything that is not in `input_types`, scaled so that activations stay of order one.

    Each array depends on the seed, its name and its shape only, so another program can draw the same ones.
    """
    from diptych.frontends.mxnet.random_weights import draw

    found = Inference(symbol, input_types).run()
    states = set(symbol.list_auxiliary_states())
    out: dict[str, Array] = {}
    for name in symbol.list_inputs():
        if name in input_types or name.endswith("label"):
            continue
        shape = found.variable_shape(name)
        if shape is None:
            raise FormatError(f"the shape of {name} does not follow from the input types; add it to them")
        dtype = found.dtype((found._index[name], 0))
        out[name] = draw(name, shape, seed, aux=name in states).astype(numpy_dtype(dtype), copy=False)
    return out
