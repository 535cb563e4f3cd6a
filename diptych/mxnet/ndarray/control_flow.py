"""Control flow on arrays: Python's own loops and branches, in the form that symbols have too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diptych.mxnet import autograd
from diptych.mxnet.base import MXNetError
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.ndarray.register import function

__all__ = ["cond", "flatten", "foreach", "regroup", "while_loop"]


def flatten(args: Any, what: str, leaf: Any = NDArray) -> tuple[list[Any], Any]:
    """The arrays of nested lists, and the form to put them back into (`regroup`)."""
    if isinstance(args, leaf):
        return [args], 0
    if not isinstance(args, (list, tuple)):
        raise AssertionError(f"{what}: an array or nested lists of arrays, not {args} of {type(args)}")
    flat: list[Any] = []
    forms = []
    for a in args:
        part, form = flatten(a, what, leaf)
        flat += part
        forms.append(form)
    return flat, forms


def regroup(args: list[Any], form: Any) -> tuple[Any, list[Any]]:
    """The inverse of `flatten`; what is left over comes second."""
    if isinstance(form, int):
        return args[0], args[1:]
    out = []
    for f in form:
        made, args = regroup(args, f)
        out.append(made)
    return out, args


def _stack(parts: list[Any]) -> Any:
    return function("stack")(*parts, axis=0, num_args=len(parts))


def foreach(body: Callable[..., Any], data: Any, init_states: Any) -> tuple[Any, Any]:
    """Run `body(slice, states) -> (outputs, states)` over the first axis; outputs are stacked."""
    arrays, data_form = flatten(data, "foreach input")
    flatten(init_states, "foreach states")
    states = init_states
    collected: list[list[Any]] = []
    form: Any = 0
    for i in range(arrays[0].shape[0]):
        row, _ = regroup([a[i] for a in arrays], data_form)
        out, states = body(row, states)
        flat, form = flatten(out, "foreach output") if not (isinstance(out, (list, tuple)) and not out) else ([], [])
        if not collected:
            collected = [[] for _ in flat]
        for parts, o in zip(collected, flat):
            parts.append(o)
    outputs, _ = regroup([_stack(p) for p in collected], form)
    return outputs, states


def while_loop(cond: Callable[..., Any], func: Callable[..., Any], loop_vars: Any,
               max_iterations: int | None = None) -> tuple[Any, Any]:  # fmt: skip
    """Run `func(*loop_vars) -> (outputs, loop_vars)` while `cond(*loop_vars)`; outputs are stacked and padded with zeros."""
    if max_iterations is None:
        raise ValueError("while_loop: give max_iterations, the outputs have room for so many")
    single = isinstance(loop_vars, NDArray)
    variables = [loop_vars] if single else list(loop_vars)
    if not variables:
        raise ValueError("while_loop: give one loop variable at least")
    collected: list[list[Any]] = []
    form: Any = []
    steps = 0
    while steps < int(max_iterations) and bool(_scalar(cond(*variables))):
        out, new = func(*variables)
        none = out is None or (isinstance(out, (list, tuple)) and not out)
        flat, form = ([], []) if none else flatten(out, "while output")
        new = [new] if isinstance(new, NDArray) else list(new)
        if len(new) != len(variables):
            raise ValueError("while_loop: func gives back as many variables as it took")
        variables = new
        if not collected:
            collected = [[] for _ in flat]
        for parts, o in zip(collected, flat):
            parts.append(o)
        steps += 1
    stacked = []
    for parts in collected:
        whole = _stack(parts)
        missing = int(max_iterations) - len(parts)
        if missing:
            with autograd.pause():
                from diptych.mxnet.ndarray.create import zeros

                rest = zeros((missing, *parts[0].shape), dtype=parts[0].dtype)
            whole = function("Concat")(whole, rest, dim=0)
        stacked.append(whole)
    outputs = regroup(stacked, form)[0] if stacked else []
    return outputs, variables[0] if single else variables


def _scalar(value: Any) -> Any:
    return value.asscalar() if isinstance(value, NDArray) else value


def cond(pred: Any, then_func: Callable[[], Any], else_func: Callable[[], Any]) -> Any:
    """The result of one of two functions, chosen by an array of one element."""
    if not isinstance(pred, NDArray) or pred.size != 1:
        raise MXNetError("cond takes a predicate that is an array of one element")
    return then_func() if bool(pred.asscalar()) else else_func()
