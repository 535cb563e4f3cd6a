"""Control flow in symbols: bodies become subgraphs of the operators `_foreach`, `_while_loop` and `_cond`."""

from __future__ import annotations

from typing import Any

from diptych.mxnet import attribute
from diptych.mxnet import name as naming
from diptych.mxnet.attribute import AttrScope
from diptych.mxnet.base import MXNetError
from diptych.mxnet.ndarray.control_flow import flatten, regroup
from diptych.mxnet.symbol.node import Entry, SymNode, freeze, topological
from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["cond", "foreach", "while_loop"]


class _Body:
    """A subgraph: its own variables by name, and what it takes from outside."""

    def __init__(self, heads: list[Entry], own: list[str]) -> None:
        # Outputs must be nodes of the subgraph itself: a variable handed through goes through a copy.
        self.heads = [e if e[0].op is not None else (SymNode("_copy", f"{e[0].name}_copy", [e]), 0) for e in heads]
        self.graph = freeze(self.heads)
        self.variables = [n for n in topological(self.heads) if n.op is None]
        self.own = own

    def locations(self, names: list[str]) -> list[int]:
        """Where these variables stand among the inputs of the subgraph; -1 for those it does not use."""
        places = {v.name: i for i, v in enumerate(self.variables)}
        return [places.get(n, -1) for n in names]

    def closure(self) -> list[SymNode]:
        """The variables that are not its own: they come from outside."""
        return [v for v in self.variables if v.name not in self.own]


def _subgraph_scope(name: str) -> AttrScope:
    """Attributes for the symbols of a body: the name of the subgraph they are in, each name given out once."""
    inside = attribute.current().get(None).get("__subgraph_name__", "")
    name = f"{inside}${name}" if inside else name
    AttrScope._subgraph_names[name] += 1
    return AttrScope(__subgraph_name__=f"{name}{AttrScope._subgraph_names[name] - 1}")


def _variable(name: str) -> Symbol:
    return Symbol([(SymNode(None, name), 0)])


def _entries(symbols: list[Symbol], what: str) -> list[Entry]:
    out = []
    for s in symbols:
        if len(s._heads) != 1:
            raise MXNetError(f"{what}: a symbol with {len(s._heads)} outputs; choose one of them")
        out.append(s._heads[0])
    return out


def _text(values: list[int]) -> str:
    return str(tuple(values))


def _results(node: SymNode, count: int) -> list[Symbol]:
    return [Symbol([(node, k)]) for k in range(count)]


def _flat(args: Any, what: str) -> tuple[list[Symbol], Any]:
    if isinstance(args, (list, tuple)) and not args:
        return [], []
    return flatten(args, what, Symbol)


def foreach(body: Any, data: Any, init_states: Any, name: str = "foreach") -> tuple[Any, Any]:
    """Run `body(slice, states) -> (outputs, states)` over the first axis; outputs are stacked."""
    datas, data_form = _flat(data, "foreach input")
    states, state_form = _flat(init_states, "foreach states")
    own_name, name = name, naming.current().get(None, name)
    data_names = [f"{name}_data{i}" for i in range(len(datas))]
    state_names = [f"{name}_state{i}" for i in range(len(states))]
    given, _ = regroup([_variable(n) for n in data_names], data_form)
    held = regroup([_variable(n) for n in state_names], state_form)[0] if states else []
    with _subgraph_scope(own_name):
        out, new = body(given, held)
    outs, out_form = _flat(out, "foreach output")
    news, new_form = _flat(new, "foreach loop_vars")
    if len(news) != len(states):
        raise ValueError("the body must return as many states as it was given")
    inner = _Body(_entries([*outs, *news], "foreach"), [*data_names, *state_names])
    rest = inner.closure()
    inputs = [*_entries(datas, "foreach"), *_entries(states, "foreach"), *((v, 0) for v in rest)]
    attrs = {
        "num_args": str(len(inputs) + 1), "num_outputs": str(len(outs) + len(news)), "num_out_data": str(len(outs)),
        "in_data_locs": _text(inner.locations(data_names)), "in_state_locs": _text(inner.locations(state_names)),
        "remain_locs": _text(inner.locations([v.name for v in rest])),
    }  # fmt: skip
    node = SymNode("_foreach", name, inputs, attrs, subgraphs=[inner.graph])
    results = _results(node, len(outs) + len(news))
    outputs = regroup(results[: len(outs)], out_form)[0] if outs else []
    return outputs, regroup(results[len(outs) :], new_form)[0] if news else []


def while_loop(cond: Any, func: Any, loop_vars: Any, max_iterations: int | None = None, name: str = "while_loop") -> tuple[Any, Any]:
    """Run `func(*loop_vars) -> (outputs, loop_vars)` while `cond(*loop_vars)`, `max_iterations` times at most."""
    if max_iterations is None:
        raise ValueError("while_loop: give max_iterations, the outputs have room for so many")
    single = isinstance(loop_vars, Symbol)
    states, state_form = _flat([loop_vars] if single else list(loop_vars), "while loop_vars")
    if not states:
        raise ValueError("while_loop: give one loop variable at least")
    own_name, name = name, naming.current().get(None, name)
    names = [f"{name}_var{i}" for i in range(len(states))]
    own, _ = regroup([_variable(n) for n in names], state_form)
    with _subgraph_scope(f"{own_name}_cond"):
        test = _Body(_entries([cond(*own)], "while_loop"), names)
    with _subgraph_scope(f"{own_name}_func"):
        out, new = func(*own)
    outs, out_form = _flat([] if out is None else out, "while output")
    news, _ = _flat([new] if isinstance(new, Symbol) else list(new), "while loop_vars")
    if len(news) != len(states):
        raise ValueError("while_loop: func gives back as many variables as it took")
    step = _Body(_entries([*outs, *news], "while_loop"), names)
    rest = list({id(v): v for v in (*test.closure(), *step.closure())}.values())
    inputs = [*_entries(states, "while_loop"), *((v, 0) for v in rest)]
    where = {n: i for i, n in enumerate([*names, *(v.name for v in rest)])}
    func_inputs = [where[v.name] for v in step.variables]
    attrs = {
        "num_args": str(len(inputs) + 2), "num_outputs": str(len(outs) + len(news)), "num_out_data": str(len(outs)),
        "max_iterations": str(int(max_iterations)),
        "cond_input_locs": _text([where[v.name] for v in test.variables]), "func_input_locs": _text(func_inputs),
        "func_var_locs": _text([func_inputs.index(i) if i in func_inputs else -1 for i in range(len(states))]),
    }  # fmt: skip
    node = SymNode("_while_loop", name, inputs, attrs, subgraphs=[test.graph, step.graph])
    results = _results(node, len(outs) + len(news))
    outputs = regroup(results[: len(outs)], out_form)[0] if outs else []
    final = results[len(outs) :]
    return outputs, final[0] if single else regroup(final, state_form)[0]


def cond(pred: Any, then_func: Any, else_func: Any, name: str = "cond") -> Any:
    """The result of one of two functions, chosen by a value when the graph runs."""
    own_name, name = name, naming.current().get(None, name)
    with _subgraph_scope(f"{own_name}_pred"):
        test = _Body(_entries([pred], "cond"), [])
    with _subgraph_scope(f"{own_name}_then"):
        then, form = _flat(then_func(), "then_func")
    with _subgraph_scope(f"{own_name}_else"):
        other, other_form = _flat(else_func(), "else_func")
    if len(then) != len(other) or form != other_form:
        raise ValueError("then_func and else_func must return the same number of symbols")
    bodies = [test, _Body(_entries(then, "cond"), []), _Body(_entries(other, "cond"), [])]
    rest = list({id(v): v for b in bodies for v in b.variables}.values())
    where = {id(v): i for i, v in enumerate(rest)}
    attrs = {"num_args": str(len(rest) + 3), "num_outputs": str(len(then))}
    for key, b in zip(("cond", "then", "else"), bodies):
        attrs[f"{key}_input_locs"] = _text([where[id(v)] for v in b.variables])
    node = SymNode("_cond", name, [(v, 0) for v in rest], attrs, subgraphs=[b.graph for b in bodies])
    return regroup(_results(node, len(then)), form)[0]
