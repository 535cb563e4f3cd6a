"""A recorded computation and its gradient as one program, for steps that come again and again.

The first time a recorded computation is differentiated it is done call by call. When one of the same form comes again
(the same operators on the same types, wired in the same way), all calls and the gradients of all variables are made one
graph: the forward pass is computed once, nothing in it twice, and when the program has proved hot it is native code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import DiptychError
from diptych.ir.types import numpy_dtype
from diptych.mxnet.imperative import wrap
from diptych.mxnet.ops.program import Program
from diptych.mxnet.tape import FLOATS, CallNode, Entry, Variable, deliver, settle, state
from diptych.ops.build import Builder
from diptych.passes.gradient import gradient

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from diptych.ir import Array, TensorType, Value
    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["backward"]

AFTER = 2  # how often a form must have been seen before it is made one program; hybridized networks are at once
_LIMIT = 512


class _Form:
    """A recorded computation taken apart: its nodes in order, its leaves, and the key that tells its form."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.nodes: list[CallNode] = []
        self.variables: dict[int, tuple[Variable, Array]] = {}
        self.usable = self._collect(entries)
        self.leaves: list[Array] = []
        self.types: list[TensorType] = []
        self.wiring: list[tuple[tuple[int, int], ...]] = []

    def _collect(self, entries: Sequence[Entry]) -> bool:
        seen: dict[int, CallNode] = {}
        stack = [e.node for e in entries]
        while stack:
            node = stack.pop()
            if isinstance(node, Variable) or node.number in seen:
                continue
            if not isinstance(node, CallNode) or node.used or node.args is None:
                return False
            seen[node.number] = node
            stack.extend(e.node for e in node.inputs if e is not None)
        self.nodes = [seen[n] for n in sorted(seen)]
        return bool(self.nodes)

    def wire(self) -> bool:
        """Find what each operand is: (-1, leaf) or (node, result). False when it cannot be one program."""
        place = {n.number: k for k, n in enumerate(self.nodes)}
        known: dict[tuple[str, int], int] = {}
        for node in self.nodes:
            assert node.args is not None
            refs: list[tuple[int, int]] = []
            for i, arg in enumerate(node.args):
                entry = node.inputs[i] if i < len(node.inputs) else None
                if entry is not None and not isinstance(entry.node, Variable):
                    refs.append((place[entry.node.number], entry.index))
                    continue
                if isinstance(arg, tuple):  # a value cut off from the tape (detach) that is still waiting
                    arg[0].run()
                    arg = node.args[i] = arg[0].results[arg[1]]  # type: ignore[index]
                if entry is not None:
                    key = ("v", entry.node.number)
                    if key in known and self.leaves[known[key]] is not arg:
                        return False  # one variable seen with two values: let the stepwise pass sort it out
                else:
                    key = ("c", id(arg))
                if key not in known:
                    known[key] = len(self.leaves)
                    self.leaves.append(arg)
                    self.types.append(node.prepared.in_types[i])
                    if entry is not None:
                        self.variables[known[key]] = (entry.node, arg)  # type: ignore[assignment]
                refs.append((-1, known[key]))
            self.wiring.append(tuple(refs))
        return True


class _Step:
    """One program for a form: leaves and arriving gradients in; wanted results, new states and gradients out."""

    def __init__(self, form: _Form, heads: Sequence[tuple[int, int]], wrt: Sequence[int], kept: Sequence[tuple[int, int]]) -> None:
        self.owners = [n.prepared for n in form.nodes]  # keeps them alive: the key goes by their identity
        g = Builder("step")
        leaves = [g.input(f"x{i}", t) for i, t in enumerate(form.types)]
        values: list[list[Value]] = []
        for node, refs in zip(form.nodes, form.wiring):
            operands = [leaves[i] if k < 0 else values[k][i] for k, i in refs]
            values.append(_inlined(g, node.prepared.graph, operands))
        outputs = {f"head{i}": values[k][j] for i, (k, j) in enumerate(heads)}
        outputs |= {f"kept{i}": values[k][j] for i, (k, j) in enumerate(kept)}
        names = [f"x{i}" for i in wrt]
        graph = gradient(g.finish(outputs), names, keep_outputs=True, heads=[f"head{i}" for i in range(len(heads))])
        from dataclasses import replace

        skip = len(heads)
        graph = replace(graph, outputs=graph.outputs[skip:], output_names=graph.output_names[skip:])
        self.program = Program(graph, network=True)


def _inlined(g: Builder, graph: Any, operands: Sequence[Value]) -> list[Value]:
    """Emit a graph into another; its results."""
    env: dict[int, Value] = dict(zip(graph.inputs, operands, strict=True))
    for v, array in graph.constants.items():
        env[v] = g.constant(array, graph.types[v].dtype)
    for node in graph.nodes:
        env.update(zip(node.outputs, g.emit_all(node.op, *(env[v] for v in node.inputs), name=node.name, source=node.source), strict=True))
    return [env[v] for v in graph.outputs]


def _read_from_outside(place: dict[int, int]) -> list[tuple[CallNode, int, int, int]]:
    """Results of the form's nodes that other calls wait to read: (the call, which operand, node of the form, result)."""
    found: list[tuple[CallNode, int, int, int]] = []
    stack = [n for ref in state.waiting if (n := ref()) is not None and n.number not in place and n.wanted()]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if node.number in seen or node.results is not None or node.args is None:
            continue
        seen.add(node.number)
        for i, arg in enumerate(node.args):
            if isinstance(arg, tuple):
                k = place.get(arg[0].number)
                if k is None:
                    stack.append(arg[0])
                elif arg[0].results is None:
                    found.append((node, i, k, arg[1]))
    return found


_steps: dict[Any, int | _Step] = {}


def backward(entries: Sequence[Entry], head_grads: Sequence[NDArray | None],
             variables: Sequence[Entry | None] | None) -> list[tuple[Variable, NDArray]] | None:  # fmt: skip
    """The gradient of each variable, all at once; None when this is not a form known to come again."""
    form = _Form(entries)
    if not form.usable or (len(form.nodes) < 2 and form.nodes[0].prepared.graph.nodes.__len__() < 8):
        return None
    if not form.wire():
        return None
    place = {n.number: k for k, n in enumerate(form.nodes)}
    heads = [(place[e.node.number], e.index) for e in entries if e.node.number in place]
    if len(heads) != len(entries):
        return None
    asked = None if variables is None else {e.node.number for e in variables if e is not None}
    wrt = [i for i, (v, _) in form.variables.items()
           if (v.req != "null" and v.grad is not None if asked is None else v.number in asked)]  # fmt: skip
    if not wrt or any(form.types[i].dtype not in FLOATS for i in wrt):
        return None
    if any(form.nodes[k].prepared.out_types[j].dtype not in FLOATS for k, j in heads):
        return None
    wanted = [(k, j) for k, n in enumerate(form.nodes) if n.results is None for j in sorted(n.wanted())]
    states = [(k, i, j) for k, n in enumerate(form.nodes)
              for i, j in (*(n.prepared.updates if n.results is None else ()), *n.prepared.later)]  # fmt: skip
    if any(form.wiring[k][i][0] >= 0 for k, i, _ in states):
        return None
    read = _read_from_outside(place)
    wanted = list(dict.fromkeys([*wanted, *((k, j) for _, _, k, j in read)]))
    kept = [*wanted, *((k, j) for k, _, j in states)]
    key = (tuple((id(n.prepared), w) for n, w in zip(form.nodes, form.wiring)), tuple(heads), tuple(wrt), tuple(kept))
    step = _known(key, form, heads, wrt, kept)
    if step is None:
        return None
    arriving = []
    for (k, j), d in zip(heads, head_grads):
        t = form.nodes[k].prepared.out_types[j]
        arriving.append(np.ones(t.shape, numpy_dtype(t.dtype)) if d is None else d._data)
    places: dict[int, Array] = {}  # gradients that are wanted in arrays of their own are computed there
    if asked is None:
        for k, i in enumerate(wrt, len(kept)):
            variable = form.variables[i][0]
            if variable.req == "write" and variable.grad is not None and variable.grad._data.flags.c_contiguous:
                places[k] = variable.grad._data
        if _overlap(places.values()):
            places = {}
        settle(set(form.nodes))
    results = step.program([*form.leaves, *arriving], places)
    for n in form.nodes:
        n.give({j: results[i] for i, (k, j) in enumerate(wanted) if form.nodes[k] is n})
    number = {kj: i for i, kj in enumerate(wanted)}
    for node, position, k, j in read:
        assert node.args is not None
        node.args[position] = results[number[k, j]]
    for i, (k, operand, _) in enumerate(states, len(wanted)):
        settle()
        form.leaves[form.wiring[k][operand][1]][...] = results[i]
    for n in form.nodes:
        n.release()
    for variable, _ in form.variables.values():
        if variable.req == "null" and asked is None:
            deliver(variable, None)
    return [(form.variables[i][0], wrap(d)) for i, d in zip(wrt, results[len(kept) :])]


def _overlap(arrays: Iterable[Array]) -> bool:
    """Whether any two of these arrays share memory."""
    end = 0
    for start, size in sorted((a.ctypes.data, a.nbytes) for a in arrays):
        if start < end:
            return True
        end = max(end, start + size)
    return False


def _known(key: Any, form: _Form, heads: Sequence[tuple[int, int]], wrt: Sequence[int],
           kept: Sequence[tuple[int, int]]) -> _Step | None:  # fmt: skip
    """The program of a form, made when it has been seen often enough."""
    found = _steps.get(key, 0)
    if isinstance(found, _Step):
        return found
    if found < 0:
        return None
    if found < AFTER and not any(n.prepared.program.network for n in form.nodes):
        if len(_steps) >= _LIMIT:
            _steps.clear()
        _steps[key] = found + 1
        return None
    try:
        made = _Step(form, heads, wrt, kept)
    except DiptychError:  # an operator without a gradient: the stepwise pass says which, if it matters
        _steps[key] = -1
        return None
    _steps[key] = made
    return made
