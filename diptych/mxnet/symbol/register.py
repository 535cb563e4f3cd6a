"""Functions made from operator signatures: `mx.sym.X(data, attribute=..., name=...)`."""

from __future__ import annotations

from functools import cache
from typing import Any

from diptych.mxnet.ndarray.register import PREFIXES, public_names_of
from diptych.mxnet.ops.registry import find
from diptych.mxnet.symbol.compose import compose
from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["function", "module_getattr"]


@cache
def function(name: str) -> Any:
    """The symbolic function of an operator, by any of its names."""
    op = find(name)

    def generated(*args: Any, **kwargs: Any) -> Any:
        # Gluon's layers call these operators in both modes: the result is a symbol of the interface that its operands are of.
        kind = next((type(x) for x in (*args, *kwargs.values()) if isinstance(x, Symbol) and type(x) is not Symbol), Symbol)
        return kind(compose(name, args, kwargs, Symbol))

    generated.__name__ = name.lstrip("_") if name.startswith(tuple(PREFIXES)) else name
    generated.__qualname__ = generated.__name__
    generated.__doc__ = f"The operator {op.name} of MXNet 1.9.1 on symbols; see mx.nd for its arguments."
    return generated


def module_getattr(space: str) -> Any:
    """A module-level `__getattr__` for a namespace of operators."""

    def lookup(name: str) -> Any:
        found = public_names_of(space).get(name)
        if found is None:
            raise AttributeError(f"module 'diptych.mxnet.symbol.{space}' has no attribute {name!r}")
        return function(found)

    return lookup
