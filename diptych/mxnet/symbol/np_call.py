"""Nodes that stand for a call of a function of `mx.np` which is no operator of its own: it runs when the graph does.

The function's name and its arguments are attributes of the node, as literals; operands are marked by their position.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from diptych.mxnet.context import Context
from diptych.mxnet.ops.registry import register_operator

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CONTEXT", "OP", "OPERAND", "SLICE", "run"]

OP = "_np_call"
OPERAND, CONTEXT, SLICE = "$operand", "$context", "$slice"
register_operator(f"{OP}\toperands*\t\tfunction:text arguments:text outputs:int=1\n")

def _value(x: Any, operands: Sequence[Any]) -> Any:
    if isinstance(x, tuple) and len(x) == 2 and x[0] == OPERAND:
        return operands[x[1]]
    if isinstance(x, tuple) and len(x) == 2 and x[0] == CONTEXT:
        kind, _, number = x[1].partition("(")
        return Context(kind, int(number.rstrip(")") or 0))
    if isinstance(x, tuple) and len(x) == 4 and x[0] == SLICE:
        return slice(*x[1:])
    if isinstance(x, (tuple, list)):
        return type(x)(_value(v, operands) for v in x)
    return x


def run(attrs: dict[str, str], operands: Sequence[Any]) -> list[Any]:
    """The results of such a node for arrays."""
    from diptych.mxnet import numpy
    from diptych.mxnet.numpy.call import as_ndarray

    function: Any = numpy
    for part in attrs["function"].split("."):
        function = getattr(function, part)
    args, kwargs = _value(ast.literal_eval(attrs["arguments"]), [as_ndarray(x) for x in operands])
    found = function(*args, **kwargs)
    return list(found) if isinstance(found, (tuple, list)) else [found]
