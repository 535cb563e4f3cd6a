"""Run a symbol on arrays: as one graph where all its operators are part of graphs, else operator by operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.errors import DiptychError
from diptych.frontends.mxnet.convert import Effects, convert_node
from diptych.frontends.mxnet.symbol_graph import SymbolNode
from diptych.frontends.mxnet.symbol_schema import input_names, output_count
from diptych.ir import TensorType
from diptych.mxnet.base import MXNetError
from diptych.mxnet.imperative import call, infer, invoke_all, type_of, wrap
from diptych.mxnet.ops import live
from diptych.mxnet.ops.prepare import Prepared, converter_of, finish, has_graph
from diptych.mxnet.ops.registry import find
from diptych.mxnet.symbol import control, np_call
from diptych.mxnet.symbol.node import shapeless_draw, topological
from diptych.mxnet.tape import state
from diptych.ops.build import Builder

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from diptych.mxnet.ndarray.ndarray import NDArray
    from diptych.mxnet.symbol.node import SymNode
    from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["carried_out", "label_operands", "open_shapes", "prepared_symbol", "run"]


def run(symbol: Symbol, operands: Mapping[str, NDArray], monitor: Any = None, monitor_all: bool = False,
        params: Collection[str] = ()) -> list[NDArray]:  # fmt: skip
    """The outputs of a symbol for arrays by variable name, recorded when recording is on.

    `monitor(name, operator, array)` is called for every operator's outputs; monitor_all: for its operands too, and for the
    variables among them with None for the operator. `params`: the variables that are seldom written to between calls.
    """
    order = topological(symbol._heads)
    if monitor is None and len(order) > 1:
        variables = [n for n in order if n.op is None]
        arrays = [operands[n.name] for n in variables]
        prepared = prepared_symbol(symbol, order, variables, arrays)
        if prepared is not None and params and not state.training:
            return infer(prepared, arrays, tuple([i for i, n in enumerate(variables) if n.name in params]))
        if prepared is not None:
            return call(prepared, arrays)
    shapes = open_shapes(symbol, order, {n.name: operands[n.name]._data.shape for n in order if n.op is None})
    return stepwise(order, symbol._heads, operands, monitor, monitor_all, shapes)


def open_shapes(symbol: Symbol, order: list[SymNode], known: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes by node of arrays that are made with unknown extents (`zeros(shape=(0, 8))`), told by what uses them."""
    open_nodes = [n for n in order if n.op is not None and not n.inputs and (
        {"0", "-1"} & set(_extents(n.attrs.get("shape", ""))) or shapeless_draw(n.op, n.attrs))]
    if not open_nodes or state.np_shape:
        return {}
    internals = symbol.get_internals()
    found = dict(zip(internals.list_outputs(), internals.infer_shape_partial(**known)[1]))
    return {n.name: tuple(found[n.output_name(0)]) for n in open_nodes if all(found.get(n.output_name(0), (0,)))}


def _extents(shape: str) -> list[str]:
    return [d.strip() for d in shape.strip("()[]").split(",")]


def stepwise(order: list[SymNode], heads: Any, operands: Mapping[str, NDArray], monitor: Any = None,
             monitor_all: bool = False, shapes: Mapping[str, tuple[int, ...]] | None = None) -> list[NDArray]:  # fmt: skip
    """Operator by operator."""
    env: dict[int, list[NDArray]] = {}
    for n in order:
        if n.op is None:
            env[id(n)] = [operands[n.name]]
            continue
        xs = [env[id(m)][k] for m, k in n.inputs]
        if monitor is not None and monitor_all:
            label_operands(n, xs, monitor)
        env[id(n)] = carried_out(n, xs, shapes)
        if monitor is not None:
            for k, y in enumerate(env[id(n)]):
                monitor(n.output_name(k), n.op, wrap(y._data))
    return [env[id(n)][k] for n, k in heads]


def carried_out(n: SymNode, xs: list[NDArray], shapes: Mapping[str, tuple[int, ...]] | None) -> list[NDArray]:
    """The results of one node."""
    if n.op == np_call.OP:
        return np_call.run(n.attrs, xs)
    if n.subgraphs:
        return control.run(n, xs)
    assert n.op is not None
    return invoke_all(n.op, xs, n.attrs, shape=shapes.get(n.name) if shapes and not xs else None)


def label_operands(n: SymNode, xs: list[NDArray], monitor: Any) -> None:
    """Show a monitor the operands of a node: variables by their own names first, all as `NODE_OPERAND`."""
    for i, ((m, _), x) in enumerate(zip(n.inputs, xs)):
        if m.op is None:
            monitor(m.name, None, wrap(x._data))
        monitor(f"{n.name}_{_input_label(n, i)}", n.op, wrap(x._data))


# Operators of one operand that have a name for it, in what hooks and monitors are told.
_NAMED_OPERAND = frozenset({
    "Dropout", "GridGenerator", "IdentityAttachKLSparseReg", "L2Normalization", "LRN", "LeakyReLU", "MakeLoss", "Pad", "Pooling",
    "SequenceLast", "SequenceMask", "SequenceReverse", "SliceChannel", "SwapAxis", "_CrossDeviceCopy", "_contrib_BilinearResize2D",
    "_contrib_MultiBoxPrior", "_contrib_index_array", "_contrib_quadratic", "depth_to_space", "diag", "log_softmax", "repeat",
    "reverse", "softmax", "space_to_depth", "squeeze", "tile",
})  # fmt: skip


def _input_label(node: SymNode, index: int) -> str:
    """What an operand is called to those who watch: by its own name, or by its number where the operator has none for it."""
    op = find(node.op or "")
    if op.variadic and node.op != "Custom":
        return f"arg{index}"
    names = input_names(op.name, node.attrs) or op.inputs
    if index >= len(names) or (len(names) == 1 and node.op not in _NAMED_OPERAND):
        return f"input{index}"
    return names[index]


def prepared_symbol(symbol: Symbol, order: list[SymNode], variables: list[SymNode], arrays: list[NDArray]) -> Prepared | None:
    """The whole symbol as one graph for these operands; None when an operator in it runs in Python."""
    if state.recording and any(n.op in live.HOST_GRADIENTS for n in order):
        return None
    kept = symbol._prepared
    train = state.training
    key = (train, state.np_shape, tuple(type_of(a._array) if a._array is not None else a._promised_type() for a in arrays))
    if key not in kept:
        known = ("shapes", *key[1:])  # the same for both modes, and dear for a network of many operators
        shapes = kept.get(known) or open_shapes(symbol, order, {n.name: shape for n, (shape, _) in zip(variables, key[2])})
        if shapes:
            kept[known] = shapes
        kept[key] = _prepare(order, symbol._heads, variables, key[2], train, shapes)
    found: Prepared | None = kept[key]
    return found


def _prepare(order: list[SymNode], heads: Any, variables: list[SymNode], types: Any, train: bool,
             shapes: Mapping[str, tuple[int, ...]]) -> Prepared | None:  # fmt: skip
    if any(n.op is not None and (not has_graph(n.op, train) or n.subgraphs or n.op in ("_while_loop", "Custom", np_call.OP)) for n in order):
        return None
    g = Builder("symbol")
    effects = Effects(train=train)
    env: dict[int, tuple[Any, ...]] = {}
    try:
        for i, (n, (shape, dtype)) in enumerate(zip(variables, types)):
            env[id(n)] = (g.input(f"x{i}", TensorType(shape, dtype)),)
        operands = {env[id(n)][0].id: i for i, n in enumerate(variables)}
        for n in order:
            if n.op is None:
                continue
            attrs = find(n.op).checked(n.attrs)
            node = SymbolNode(n.op, n.name, attrs=attrs)
            count = output_count(n.op, attrs, visible=True)
            g.source = n.op  # what the profiler calls the steps of this layer
            results = convert_node(g, node, tuple(env[id(m)][k] for m, k in n.inputs), count, shapes.get(n.name), state.np_shape, effects,
                                   converter_of(n.op, train))  # fmt: skip
            env[id(n)] = results if n.op in live.OPEN_COUNT else results[:count]
        return finish(g, [env[id(n)][k] for n, k in heads], effects, operands, network=True)
    except DiptychError as error:
        raise MXNetError(f"Error in operator {error}") from error
    except KeyError:
        return None  # an effect on a value that is no variable: operator by operator, where that is an error
