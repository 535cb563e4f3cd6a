"""Make the nodes of `np_call`: calls of functions of `mx.np` on symbols."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import name as naming
from diptych.mxnet.base import MXNetError, dtype_name
from diptych.mxnet.context import Context
from diptych.mxnet.symbol.node import SymNode
from diptych.mxnet.symbol.np_call import CONTEXT, FLOAT, OP, OPERAND, SLICE
from diptych.mxnet.symbol.np_symbol import NumpySymbol, NumpySymbolList
from diptych.mxnet.symbol.symbol import Symbol

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["deferred"]

# Functions with several results, and how many: a number, or a rule on the arguments (None: a single one, no list).
_TWO = {"slogdet", "eig", "eigh", "histogram"}
_PARTS = {"split", "array_split", "hsplit", "vsplit", "dsplit"}
_PEROPERAND = {"meshgrid", "broadcast_arrays"}


def _count(name: str, args: Sequence[Any], kwargs: dict[str, Any], operands: int) -> int | None:
    if name in _TWO:
        return 2
    if name == "svd":
        return 3
    if name in _PARTS:
        sections = args[1] if len(args) > 1 else kwargs["indices_or_sections"]
        return int(sections) if isinstance(sections, (int, np.integer)) else len(sections) + 1
    if name in _PEROPERAND:
        return operands
    if name.startswith("atleast_"):
        return operands if operands > 1 else None
    if name == "unique":
        flags = [*args[1:4], *(kwargs.get(k, False) for k in ("return_index", "return_inverse", "return_counts")[len(args[1:4]) :])]
        return 1 + sum(bool(f) for f in flags) if any(flags) else None
    if name == "average" and (args[3] if len(args) > 3 else kwargs.get("returned", False)):
        return 2
    if name in ("linspace",) and kwargs.get("retstep"):
        raise MXNetError("np.linspace(retstep=True) of a symbol is not there; compute the step from the arguments")
    if name == "unravel_index":
        shape = args[1] if len(args) > 1 else kwargs["shape"]
        return 1 if isinstance(shape, int) else len(shape)
    if name == "nonzero":
        raise MXNetError("np.nonzero of a symbol is not there: how many results it has depends on the rank of the array")
    return None


def _literal(x: Any, operands: list[Symbol]) -> Any:
    """An argument as something whose repr is a literal."""
    if isinstance(x, Symbol):
        operands.append(x)
        return (OPERAND, len(operands) - 1)
    if isinstance(x, Context):
        return (CONTEXT, str(x))
    if isinstance(x, (tuple, list)):
        return type(x)(_literal(v, operands) for v in x) if type(x) in (tuple, list) else tuple(_literal(v, operands) for v in x)
    if isinstance(x, slice):
        return (SLICE, x.start, x.stop, x.step)
    if isinstance(x, (type, np.dtype)):
        return dtype_name(x)
    if isinstance(x, np.generic):
        x = x.item()
    if isinstance(x, float) and not isfinite(x):
        return (FLOAT, str(x))
    if x is None or isinstance(x, (bool, int, float, complex, str)):
        return x
    raise TypeError(f"{type(x).__name__} cannot be an argument in a graph; make it a variable")


def deferred(path: str, *args: Any, **kwargs: Any) -> Any:
    """The symbol of a call of `mx.np.<path>`, or a list of symbols where it has several results."""
    operands: list[Symbol] = []
    kwargs.pop("name", None)
    given = [_literal(a, operands) for a in args], {k: _literal(v, operands) for k, v in kwargs.items()}
    name = path.rpartition(".")[2]
    count = _count(name, args, kwargs, len(operands))
    attrs = {"function": path, "arguments": repr(given), "outputs": str(count or 1)}
    for x in operands:
        if len(x._heads) != 1:
            raise MXNetError(f"np.{path}: an input has {len(x._heads)} outputs; choose one of them, as in x[0]")
    node = SymNode(OP, naming.current().get(None, name), [x._heads[0] for x in operands], attrs)
    if count is None:
        return NumpySymbol([(node, 0)])
    return NumpySymbolList(NumpySymbol([(node, k)]) for k in range(count))
