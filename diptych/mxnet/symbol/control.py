"""Control-flow operators of symbols, run on arrays: loops and branches as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.frontends.mxnet.attributes import Attributes
from diptych.ir import TensorType
from diptych.ir.types import numpy_dtype
from diptych.mxnet.base import MXNetError
from diptych.mxnet.ndarray import control_flow
from diptych.mxnet.symbol.node import thaw, topological

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.symbol_graph import SymbolGraph
    from diptych.mxnet.ndarray.ndarray import NDArray
    from diptych.mxnet.symbol.node import SymNode

__all__ = ["run"]


def _subgraph(graph: SymbolGraph) -> Any:
    from diptych.mxnet.symbol import run as running

    heads = thaw(graph)
    order = topological(heads)
    variables = [n.name for n in order if n.op is None]

    def call(values: Sequence[NDArray]) -> list[NDArray]:
        return running.stepwise(order, heads, dict(zip(variables, values)))

    return call


def run(node: SymNode, xs: list[NDArray]) -> list[NDArray]:
    """The results of a control-flow node."""
    a = Attributes(node.op or "", node.name, node.attrs)
    if node.op == "_foreach":
        return _foreach(node, a, xs)
    if node.op == "_while_loop":
        return _while_loop(node, a, xs)
    if node.op == "_cond":
        where = [a.shape(f"{n}_input_locs", ()) for n in ("cond", "then", "else")]
        graphs = [_subgraph(s) for s in node.subgraphs]
        (chosen,) = graphs[0]([xs[i] for i in where[0]])
        k = 1 if bool(chosen.asscalar()) else 2
        return graphs[k]([xs[i] for i in where[k]])  # type: ignore[no-any-return]
    return _subgraph(node.subgraphs[0])(xs)  # type: ignore[no-any-return]


def _foreach(node: SymNode, a: Attributes, xs: list[NDArray]) -> list[NDArray]:
    data_at, state_at, rest_at = (a.shape(f"{n}_locs", ()) for n in ("in_data", "in_state", "remain"))
    count, body = a.integer("num_out_data"), _subgraph(node.subgraphs[0])
    data = xs[: len(data_at)]
    states = xs[len(data_at) : len(data_at) + len(state_at)]
    rest = dict(zip(rest_at, xs[len(data_at) + len(state_at) :]))
    total = len(node.subgraphs[0].arg_nodes)

    def step(rows: Any, held: Any) -> Any:
        bound = dict(zip(data_at, rows)) | dict(zip(state_at, held)) | rest
        results = body([bound[i] for i in range(total)])
        return results[:count], results[count:]

    outs, final = control_flow.foreach(step, list(data), list(states))
    return [*outs, *final]


def _while_loop(node: SymNode, a: Attributes, xs: list[NDArray]) -> list[NDArray]:
    cond_at, func_at, var_at = (a.shape(n, ()) for n in ("cond_input_locs", "func_input_locs", "func_var_locs"))
    count = a.integer("num_out_data")
    test, step = (_subgraph(s) for s in node.subgraphs)
    variables = len(var_at)
    rest = xs[variables:]

    def condition(*held: Any) -> Any:
        every = [*held, *rest]
        return test([every[i] for i in cond_at])[0]

    def advance(*held: Any) -> Any:
        every = [*held, *rest]
        results = step([every[i] for i in func_at])
        return results[:count], results[count:]

    most = a.integer("max_iterations")
    outs, final = control_flow.while_loop(condition, advance, list(xs[:variables]), most)
    if count and not outs:  # the body never ran: its results are zeros, of the shapes that follow from the operands
        outs = _empty(node, [xs[i] for i in func_at], count, most)
    return [*outs, *final]


def _empty(node: SymNode, xs: list[NDArray], count: int, most: int) -> list[NDArray]:
    from diptych.mxnet.imperative import type_of, wrap
    from diptych.mxnet.symbol.infer import FullInference

    graph = node.subgraphs[1]
    types = {graph.nodes[i].name: TensorType(*type_of(x._data)) for i, x in zip(graph.arg_nodes, xs)}
    found = FullInference(graph, types).run()
    made = []
    for head in graph.heads[:count]:
        shape = found.shape(head)
        if shape is None:
            raise MXNetError(f"_while_loop (layer {node.name}): its body never ran, and the shapes of its outputs stay unknown")
        made.append(wrap(np.zeros((most, *shape), numpy_dtype(found.dtype(head)))))
    return made
