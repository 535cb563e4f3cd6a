"""The symbol of what has been recorded (`autograd.get_symbol`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.mxnet.base import MXNetError
from diptych.mxnet.symbol.node import SymNode
from diptych.mxnet.symbol.symbol import Symbol
from diptych.mxnet.tape import CallNode, Variable

if TYPE_CHECKING:
    from diptych.mxnet.ndarray.ndarray import NDArray
    from diptych.mxnet.tape import Entry, Node

__all__ = ["symbol_of"]


def symbol_of(x: NDArray) -> Symbol:
    """The expression that gave x; arrays that are not on the tape become variables too."""
    if x._entry is None:
        raise MXNetError("the array is not in a computational graph; compute it under autograd.record()")
    made: dict[int, SymNode] = {}
    counter = 0

    def variable() -> SymNode:
        nonlocal counter
        counter += 1
        return SymNode(None, f"var{counter - 1}")

    def node_of(node: Node, inputs: list[Entry | None]) -> SymNode:
        if isinstance(node, Variable):
            return variable()
        if not isinstance(node, CallNode) or node.source is None:
            raise MXNetError(f"a recorded step ({type(node).__name__}) is not an operator that symbols have")
        op, attrs = node.source
        operands = [(made[e.node.number], e.index) if e is not None else (variable(), 0) for e in inputs]
        return SymNode(op, f"node_{node.number}", operands, attrs)

    stack: list[Node] = [x._entry.node]
    while stack:
        node = stack[-1]
        waiting = [e.node for e in node.inputs if e is not None and e.node.number not in made]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        if node.number not in made:
            made[node.number] = node_of(node, list(node.inputs))
    return Symbol([(made[x._entry.node.number], x._entry.index)])
