"""Functions made from operator signatures: `mx.nd.X(data, attribute=...)`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from diptych.mxnet.base import MXNetError
from diptych.mxnet.context import Context
from diptych.mxnet.imperative import invoke_all
from diptych.mxnet.ndarray.ndarray import NDArray, context_for_new
from diptych.mxnet.ops.registry import Operator, bind, find, names

__all__ = ["PREFIXES", "function", "public_names"]

# Operators of a prefix live in a namespace of their own, without it.
PREFIXES: dict[str, str] = {
    "_contrib_": "contrib", "_linalg_": "linalg", "_sparse_": "sparse", "_image_": "image", "_random_": "random",
}  # fmt: skip


def public_names(space: str) -> dict[str, str]:
    """The names a namespace ("op", "_internal", "contrib", ...) shows -> registered names."""
    out: dict[str, str] = {}
    for name in names():
        prefix = next((p for p in PREFIXES if name.startswith(p)), "")
        if prefix:
            if PREFIXES[prefix] == space:
                out[name[len(prefix) :]] = name
        elif name.startswith(("_npi_", "_npx_", "_np_")):
            if space == "np":
                out[name] = name
        elif name.startswith("_"):
            if space == "_internal":
                out[name] = name
        elif space == "op":
            out[name] = name
    if space == "_internal":
        out.update({n: n for n in names() if n.startswith("_")})
    return out


def operands_in_order(op: Operator, given: list[Any], named: dict[str, Any]) -> list[Any]:
    """Operands sorted by the operator's own order of inputs; inputs that were left out are skipped."""
    if not named:
        return [x for x in given if x is not None]
    places = dict(zip(op.inputs, given))
    for key, value in named.items():
        if key not in op.inputs:
            if op.variadic or op.name == "Custom":
                given = [*given, value]
                continue
            raise MXNetError(f"{op.name} has no input {key!r}; its inputs are {', '.join(op.inputs)}")
        places[key] = value
    if op.variadic:
        return [x for x in given if x is not None] + [v for k, v in named.items() if k in op.inputs]
    return [places[n] for n in op.inputs if places.get(n) is not None]


@cache
def function(name: str) -> Any:
    """The imperative function of an operator, by any of its names."""
    op = find(name)

    def generated(*args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        kwargs.pop("name", None)
        if op.name == "Custom":
            from diptych.mxnet.operator import custom_call

            return custom_call(args, kwargs, out)
        ctx = kwargs.get("ctx")
        if ctx is not None:
            kwargs["ctx"] = str(ctx)
        given, attrs, named = bind(op, args, kwargs, NDArray)
        operands = operands_in_order(op, given, named)
        for i, x in enumerate(operands):
            if not isinstance(x, NDArray):
                if isinstance(x, np.ndarray):
                    raise TypeError(f"{name}: argument {i} is a NumPy array; make it an NDArray with mx.nd.array")
                raise TypeError(f"{name}: argument {i} must be an NDArray, not {type(x).__name__}")
        if op.count_key and op.count_key not in attrs:
            attrs[op.count_key] = str(len(operands))
        results = invoke_all(op.name, operands, attrs, out)
        chosen = operands[0]._ctx if operands else context_for_new(_context(ctx) if ctx is not None else None)
        if chosen is not None and out is None:
            for r in results:
                r._ctx = chosen
        return results[0] if len(results) == 1 else results

    generated.__name__ = name.lstrip("_") if name.startswith(tuple(PREFIXES)) else name
    generated.__qualname__ = generated.__name__
    inputs = ", ".join(op.inputs)
    generated.__doc__ = f"The operator {op.name} of MXNet 1.9.1 on arrays: ({inputs}); attributes: " + ", ".join(
        f"{a.name}={a.default}" if a.default is not None else a.name for a in op.attributes.values()
    )
    return generated


def _context(ctx: Any) -> Context:
    if isinstance(ctx, Context):
        return ctx
    kind, _, number = str(ctx).partition("(")
    return Context(kind, int(number.rstrip(")") or 0))


def module_getattr(space: str) -> Any:
    """A module-level `__getattr__` for a namespace of operators."""

    def lookup(name: str) -> Any:
        found = public_names_of(space).get(name)
        if found is None:
            raise AttributeError(f"module 'diptych.mxnet.ndarray.{space}' has no attribute {name!r}")
        return function(found)

    return lookup


@cache
def public_names_of(space: str) -> dict[str, str]:
    """`public_names`, remembered."""
    return public_names(space)


