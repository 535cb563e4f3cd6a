"""An MXNet checkpoint as a Source: which inputs it takes, and its Graph for given input types."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import FormatError, InputError, UnsupportedError
from diptych.frontends.base import Missing, unsupported
from diptych.frontends.mxnet import converters  # noqa: F401  (fills the table of converters)
from diptych.frontends.mxnet.attributes import parse_shape
from diptych.frontends.mxnet.convert import CONVERTERS, convert_node, dtype_of_name
from diptych.frontends.mxnet.converters import ADVICE
from diptych.frontends.mxnet.params import BFloat16, ParamValue, load_params, split_arg_aux
from diptych.frontends.mxnet.shapes import LABEL_INPUTS, Inference
from diptych.frontends.mxnet.symbol_graph import SymbolGraph, SymbolNode
from diptych.frontends.mxnet.symbol_json import read_symbol
from diptych.frontends.mxnet.symbol_schema import output_count, output_name
from diptych.ir import Graph, TensorType, Value
from diptych.ir.types import dtype_of
from diptych.ops.build import Builder

if TYPE_CHECKING:
    from diptych.ir import Array

__all__ = ["MxnetSource", "load_source"]


def load_source(symbol_file: str | os.PathLike[str] | SymbolGraph, params_file: str | os.PathLike[str] | None = None,
                *, params: Mapping[str, ParamValue] | None = None, outputs: Sequence[str] | None = None) -> MxnetSource:  # fmt: skip
    """Read a checkpoint: the symbol file and its weights (from a .params file or as a mapping of arrays).

    `outputs` names layers (or their outputs, as `get_internals` does) to return instead of the model's own heads.

    >>> source = load_source('{"nodes": [{"op": "null", "name": "x", "inputs": []}, {"op": "relu", "name": "r", '
    ...                      '"inputs": [[0, 0, 0]]}], "arg_nodes": [0], "heads": [[1, 0, 0]]}')
    >>> source.input_names, source.output_names
    (('x',), ('r_output',))
    """
    symbol = symbol_file if isinstance(symbol_file, SymbolGraph) else read_symbol(symbol_file)
    name = "mxnet"
    if isinstance(symbol_file, os.PathLike) or (
        isinstance(symbol_file, str) and not symbol_file.lstrip().startswith("{")
    ):
        name = Path(symbol_file).name.removesuffix(".json").removesuffix("-symbol")
    weights: dict[str, ParamValue] = {}
    if params_file is not None:
        for group in split_arg_aux(load_params(params_file) or {}):  # a model without weights saves an empty list
            weights.update(group)
    for group in split_arg_aux(dict(params or {})):
        weights.update(group)
    return MxnetSource(symbol, weights, name=name, outputs=outputs)


class MxnetSource:
    """A symbol with its weights, not yet fixed to input shapes (implements `diptych.frontends.base.Source`)."""

    def __init__(self, symbol: SymbolGraph, params: Mapping[str, ParamValue], *, name: str = "mxnet",
                 outputs: Sequence[str] | None = None) -> None:  # fmt: skip
        self.name = name
        self.symbol = symbol
        self.params = params
        self.heads = _heads(symbol, outputs)
        self._order = _needed(symbol, [i for i, _ in self.heads.values()])
        variables = [self._node(i) for i in self._order if self._node(i).op is None]
        self._variables = {v.name: v for v in variables if v.name not in self.params}
        looks_like_weight = _weight_positions(symbol, self._order)
        missing = [v for v in self._variables if v in looks_like_weight] if self.params else []
        if missing:
            raise FormatError(
                f"{name}: the params hold no array for {', '.join(missing[:8])}"
                f"{' ...' if len(missing) > 8 else ''} ({len(missing)} weights are missing); "
                "check that the .params file belongs to this symbol file"
            )

    def _node(self, i: int) -> SymbolNode:
        return self.symbol.nodes[i]

    @property
    def input_names(self) -> tuple[str, ...]:
        """The variables the params do not hold, labels of loss layers left out."""
        return tuple(self._variables)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the results, as MXNet spells them (`softmax_output`)."""
        return tuple(self.heads)

    def _stated(self, name: str) -> TensorType | None:
        """The type that the variable's own `__shape__` and `__dtype__` give, when complete."""
        hidden = self._variables[name].hidden
        if "__shape__" not in hidden:
            return None
        shape = parse_shape(hidden["__shape__"])
        if any(d < 0 or (d == 0 and not self.symbol.is_np_shape) for d in shape) or not shape:
            return None
        return TensorType(shape, self._dtype(name))

    def _dtype(self, name: str) -> str:
        flag = self._variables[name].hidden.get("__dtype__", "0")
        return "f32" if flag == "-1" else dtype_of_name(flag, name)

    def default_types(self) -> dict[str, TensorType] | None:
        """Input types when every input states its shape in the symbol file."""
        found = {n: self._stated(n) for n in self.input_names}
        known = {n: t for n, t in found.items() if t is not None}
        return known if len(known) == len(found) else None

    def _input_types(self, types: Mapping[str, TensorType]) -> tuple[dict[str, TensorType], Inference | None]:
        unknown = sorted(set(types) - set(self.input_names))
        if unknown:
            raise InputError(
                f"{self.name} has no input {', '.join(unknown)}; its inputs are {', '.join(self.input_names)}"
            )
        given = dict(types)
        for name in self.input_names:
            stated = self._stated(name)
            if name not in given and stated is not None:
                given[name] = stated
        if len(given) == len(self.input_names) and not self._needs_inference():
            return given, None
        known = dict(given)
        for i in self._order:
            node = self._node(i)
            if node.op is None and node.name in self.params:
                array, dtype = _dense(node.name, self.params[node.name])
                known[node.name] = TensorType(array.shape, dtype)
        inference = Inference(self.symbol, known, self._order)
        inference.run()
        for name in self.input_names:
            shape = inference.variable_shape(name)
            if name not in given and shape is not None:
                given[name] = TensorType(shape, self._dtype(name))
        lacking = [n for n in self.input_names if n not in given]
        if lacking:
            raise InputError(
                f"{self.name}: give the type of input {', '.join(lacking)}; nothing in the model tells its shape"
            )
        return {n: given[n] for n in self.input_names}, inference

    def _needs_inference(self) -> bool:
        return any(self._node(i).op in _OPEN for i in self._order)

    def graph(self, types: Mapping[str, TensorType]) -> Graph:
        """The Graph for exactly these input types; inputs whose shape follows from others may be left out."""
        missing = [m for i in self._order for m in _missing(self._node(i))]
        if missing:
            raise unsupported(self.name, missing)
        inputs, inference = self._input_types(types)
        g = Builder(self.name)
        env: dict[tuple[int, int], Value] = {}
        values = {name: g.input(name, inputs[name]) for name in self.input_names}
        for i in self._order:
            node = self._node(i)
            if node.op is None:
                if node.name in values:
                    env[i, 0] = values[node.name]
                else:
                    array, dtype = _dense(node.name, self.params[node.name])
                    env[i, 0] = g.constant(array, dtype, node.name)
                continue
            operands = tuple(env[e] for e in node.inputs[: LABEL_INPUTS.get(node.op)])
            shape = inference.shape((i, 0)) if inference else None
            results = convert_node(g, node, operands, output_count(node.op, node.attrs, visible=True), shape,
                                   self.symbol.is_np_shape)  # fmt: skip
            env.update({(i, k): value for k, value in enumerate(results)})
        for name, head in self.heads.items():
            if head not in env:
                raise UnsupportedError(f"{self.name}: output {name} of {self._node(head[0]).op} means something in training "
                                       "only; choose other layers with outputs=[...]")  # fmt: skip
        return g.finish({name: env[head] for name, head in self.heads.items()})


# Operators whose result's shape their own attributes and operands may not tell.
_OPEN = frozenset({"_zeros", "_ones", "_full", "_zeros_without_dtype", "_arange", "Reshape"})


def _missing(node: SymbolNode) -> list[Missing]:
    """The operators without a converter in a node and in the graphs inside it."""
    inner = [m for graph in node.subgraphs for n in graph.nodes for m in _missing(n)]
    if node.op is None or node.op in CONVERTERS:
        return inner
    return [Missing(node.op, node.name, advice=ADVICE.get(node.op, ""))]


def _dense(name: str, value: ParamValue) -> tuple[Array, str]:
    """A weight as an array and its IR dtype."""
    if isinstance(value, BFloat16):
        return value.bits, "bf16"
    if isinstance(value, np.ndarray):
        return value, dtype_of(value)
    if value is None:
        raise FormatError(f"the parameter {name!r} was saved without a value; save the checkpoint after training")
    array = value.dense()
    return array, dtype_of(array)


def _heads(symbol: SymbolGraph, outputs: Sequence[str] | None) -> dict[str, tuple[int, int]]:
    """Output name -> (node, index), for the model's own heads or the chosen layers."""
    if outputs is None:
        heads: dict[str, tuple[int, int]] = {}
        for name, head in zip(symbol.list_outputs(), symbol.heads, strict=True):
            unique, n = name, 1
            while unique in heads:
                unique, n = f"{name}_{n}", n + 1
            heads[unique] = head
        return heads
    internals: dict[str, list[tuple[str, tuple[int, int]]]] = {}
    for i, node in enumerate(symbol.nodes):
        if node.op is not None:
            for k in range(output_count(node.op, node.attrs, visible=True)):
                name = output_name(node.op, node.name, node.attrs, k)
                internals.setdefault(name, []).append((name, (i, k)))
                if name != node.name:
                    internals.setdefault(node.name, []).append((name, (i, k)))
    absent = [o for o in outputs if o not in internals]
    if absent:
        raise InputError(f"no layer or output is named {', '.join(absent)}; layers of this symbol: "
                         + ", ".join(n.name for n in symbol.nodes[-12:] if n.op is not None) + ", ...")  # fmt: skip
    return dict(pair for o in outputs for pair in internals[o])


def _needed(symbol: SymbolGraph, roots: Sequence[int]) -> tuple[int, ...]:
    """The nodes the roots depend on at inference, in order: label inputs of loss layers are not followed."""
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        i = stack.pop()
        if i not in seen:
            seen.add(i)
            node = symbol.nodes[i]
            stack += [n for n, _ in node.inputs[: LABEL_INPUTS.get(node.op or "")]]
    return tuple(sorted(seen))


def _weight_positions(symbol: SymbolGraph, order: Sequence[int]) -> set[str]:
    """The names of variables that stand where an operator takes a weight: without params these are no inputs."""
    from diptych.frontends.mxnet.symbol_schema import input_names

    weights = {"weight", "bias", "gamma", "beta", "moving_mean", "moving_var", "parameters"}
    found: set[str] = set()
    for i in order:
        node = symbol.nodes[i]
        names = input_names(node.op, node.attrs) if node.op else None
        for (source, _), what in zip(node.inputs, names or ()):
            if what in weights and symbol.nodes[source].op is None:
                found.add(symbol.nodes[source].name)
    return found
