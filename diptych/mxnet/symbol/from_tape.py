"""The symbol of what has been recorded (`autograd.get_symbol`)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from diptych.mxnet.base import MXNetError
from diptych.mxnet.imperative import HostNode
from diptych.mxnet.symbol.node import SymNode, freeze, topological
from diptych.mxnet.symbol.symbol import Symbol
from diptych.mxnet.tape import CallNode, Variable

if TYPE_CHECKING:
    from diptych.mxnet.ndarray.ndarray import NDArray
    from diptych.mxnet.symbol.node import Entry
    from diptych.mxnet.tape import Node

__all__ = ["symbol_of"]


def symbol_of(x: NDArray) -> Symbol:
    """The expression that gave x; arrays that are not on the tape become variables too."""
    if x._entry is None:
        raise MXNetError("the array was not computed under autograd.record()")
    made: dict[int, list[Entry]] = {}  # the results of each node of the tape
    counter = itertools.count()

    def variable() -> SymNode:
        return SymNode(None, f"var{next(counter)}")

    def results_of(node: Node) -> list[Entry]:
        if isinstance(node, Variable):
            return [(variable(), 0)]
        operands = [made[e.node.number][e.index] if e is not None else (variable(), 0) for e in node.inputs]
        if isinstance(node, HostNode):
            source: Any = node.op, node.attrs
        elif isinstance(node, CallNode) and node.source is not None:
            source = node.source
        else:
            raise MXNetError(f"a recorded step ({type(node).__name__}) is not an operator that symbols have")
        what, about = source
        if isinstance(what, str):
            whole = SymNode(what, f"node_{node.number}", operands, about)
        elif about:
            return _expanded(what, operands, node.number)
        else:
            whole = SymNode("_CachedOp", f"node_{node.number}", operands, {}, subgraphs=(freeze(what._heads),))
        return [(whole, i) for i in range(node.outputs)]

    stack: list[Node] = [x._entry.node]
    while stack:
        node = stack[-1]
        waiting = [e.node for e in node.inputs if e is not None and e.node.number not in made]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        if node.number not in made:
            made[node.number] = results_of(node)
    return Symbol([made[x._entry.node.number][x._entry.index]])


def _expanded(symbol: Symbol, operands: list[Entry], number: int) -> list[Entry]:
    """The heads of a copy of a symbol's operators, with entries in the place of its variables."""
    given = iter(operands)
    copies: dict[int, Entry] = {}
    for i, n in enumerate(topological(symbol._heads)):
        if n.op is None:
            copies[id(n)] = next(given)
        else:
            inputs = [copies[id(m)] if m.op is None else (copies[id(m)][0], k) for m, k in n.inputs]
            copies[id(n)] = SymNode(n.op, f"node_{number}_{i}", inputs, n.attrs, n.user, n.subgraphs), 0
    return [copies[id(n)] if n.op is None else (copies[id(n)][0], k) for n, k in symbol._heads]
