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

__all__ = ["CONTEXT", "FLOAT", "OP", "OPERAND", "SLICE", "run"]

OP = "_np_call"
OPERAND, CONTEXT, SLICE, FLOAT = "$operand", "$context", "$slice", "$float"
register_operator(f"{OP}\toperands*\t\tfunction:text arguments:text outputs:int=1\n")

def _value(x: Any, operands: Sequence[Any]) -> Any:
    if isinstance(x, tuple) and len(x) == 2 and x[0] == OPERAND:
        return operands[x[1]]
    if isinstance(x, tuple) and len(x) == 2 and x[0] == CONTEXT:
        kind, _, number = x[1].partition("(")
        return Context(kind, int(number.rstrip(")") or 0))
    if isinstance(x, tuple) and len(x) == 4 and x[0] == SLICE:
        return slice(*x[1:])
    if isinstance(x, tuple) and len(x) == 2 and x[0] == FLOAT:
        return float(x[1])
    if isinstance(x, (tuple, list)):
        return type(x)(_value(v, operands) for v in x)
    if isinstance(x, dict):
        return {k: _value(v, operands) for k, v in x.items()}
    return x


def run(attrs: dict[str, str], operands: Sequence[Any]) -> list[Any]:
    """The results of such a node for arrays."""
    from diptych.mxnet import numpy, numpy_extension
    from diptych.mxnet.numpy.call import as_ndarray

    path = attrs["function"].split(".")
    function: Any = numpy_extension if path[0] == "npx" else numpy
    for part in path[path[0] == "npx" :]:
        function = getattr(function, part)
    args, kwargs = _value(ast.literal_eval(attrs["arguments"]), [as_ndarray(x) for x in operands])
    found = function(*args, **kwargs)
    return list(found) if isinstance(found, (tuple, list)) else [found]
