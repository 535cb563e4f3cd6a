"""Shapes of the operators that hold graphs: what inference over the body says about inputs and results, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.frontends.mxnet.attributes import Attributes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.shape_rules import Partial
    from diptych.frontends.mxnet.symbol_graph import SymbolGraph
    from diptych.mxnet.symbol.infer import FullInference

__all__ = ["CONTROL", "visit"]

CONTROL = frozenset({"_foreach", "_while_loop", "_cond"})


def _inner(outer: FullInference, i: int, graph: SymbolGraph, places: Sequence[int], shapes: Sequence[Partial]) -> FullInference:
    """Inference over a subgraph whose input k is operand places[k] of node i, with shape shapes[k] so far."""
    node = outer.symbol.nodes[i]
    inner = type(outer)(graph, {})
    for place, at, shape in zip(places, graph.arg_nodes, shapes):
        inner._refine((at, 0), shape, node.name)
        inner._dtypes[at, 0] = outer.dtype(node.inputs[place])
    inner.run()
    return inner


def _ahead(extent: int | None, shape: Partial) -> Partial:
    return None if shape is None else (extent, *shape)


def _foreach(s: FullInference, i: int) -> None:
    node = s.symbol.nodes[i]
    a = Attributes("_foreach", node.name, node.attrs)
    data_at, state_at, rest_at = (a.shape(f"{n}_locs", ()) for n in ("in_data", "in_state", "remain"))
    count = a.integer("num_out_data")
    graph = node.subgraphs[0]
    # The operand that each input of the body is bound to; data loses its first axis on the way.
    operand = {at: k for k, at in enumerate((*data_at, *state_at, *rest_at)) if at >= 0}
    places = [operand[k] for k in range(len(graph.arg_nodes))]
    outer = [s.partial(node.inputs[p]) for p in places]
    sliced = [p < len(data_at) for p in places]
    inner = _inner(s, i, graph, places, [o[1:] if cut and o is not None else o for o, cut in zip(outer, sliced)])
    steps = next((shape[0] for e in node.inputs[: len(data_at)] if (shape := s.partial(e)) is not None), None)
    for p, at, cut in zip(places, graph.arg_nodes, sliced):
        found = inner.partial((at, 0))
        s._refine(node.inputs[p], _ahead(steps, found) if cut else found, node.name)
    for k, head in enumerate(graph.heads):
        found = inner.partial(head)
        s._refine((i, k), _ahead(steps, found) if k < count else found, node.name)
        s._dtypes[i, k] = inner.dtype(head)
        if k >= count:
            s._refine(node.inputs[len(data_at) + k - count], found, node.name)


def _while_loop(s: FullInference, i: int) -> None:
    node = s.symbol.nodes[i]
    a = Attributes("_while_loop", node.name, node.attrs)
    cond_at, func_at = (a.shape(f"{n}_input_locs", ()) for n in ("cond", "func"))
    count, most = a.integer("num_out_data"), a.integer("max_iterations")
    for graph, places in zip(node.subgraphs, (cond_at, func_at)):
        inner = _inner(s, i, graph, places, [s.partial(node.inputs[p]) for p in places])
        for p, at in zip(places, graph.arg_nodes):
            s._refine(node.inputs[p], inner.partial((at, 0)), node.name)
    for k, head in enumerate(node.subgraphs[1].heads):  # `inner` is that of the body now
        found = inner.partial(head)
        s._refine((i, k), _ahead(most, found) if k < count else found, node.name)
        s._dtypes[i, k] = inner.dtype(head)
        if k >= count:
            s._refine(node.inputs[k - count], found, node.name)


def _cond(s: FullInference, i: int) -> None:
    node = s.symbol.nodes[i]
    a = Attributes("_cond", node.name, node.attrs)
    for which, graph in zip(("cond", "then", "else"), node.subgraphs):
        places = a.shape(f"{which}_input_locs", ())
        inner = _inner(s, i, graph, places, [s.partial(node.inputs[p]) for p in places])
        for p, at in zip(places, graph.arg_nodes):
            s._refine(node.inputs[p], inner.partial((at, 0)), node.name)
        if which != "cond":
            for k, head in enumerate(graph.heads):
                s._refine((i, k), inner.partial(head), node.name)
                s._dtypes[i, k] = inner.dtype(head)


def visit(s: FullInference, i: int) -> None:
    """Refine what is known of the operands and results of node i, one of `CONTROL`."""
    {"_foreach": _foreach, "_while_loop": _while_loop, "_cond": _cond}[s.symbol.nodes[i].op or ""](s, i)
