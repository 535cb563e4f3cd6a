"""A symbol run operator by operator, each with a tape of its own, so that a monitor sees the gradients between them too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.imperative import wrap
from diptych.mxnet.symbol.node import topological
from diptych.mxnet.symbol.run import carried_out, label_operands, open_shapes
from diptych.mxnet.tape import backward as run_backward
from diptych.mxnet.tape import settle, state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diptych.ir import Array
    from diptych.mxnet.ndarray.ndarray import NDArray
    from diptych.mxnet.symbol.node import SymNode
    from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["Watched"]

_FLOATS = "f"


class _Call:
    """One operator that ran: its operands (marked where a gradient can arrive) and results, on a tape of its own."""

    def __init__(self, node: SymNode, operands: list[NDArray], results: list[NDArray]) -> None:
        self.node, self.operands, self.results = node, operands, results


class Watched:
    """The forward pass of a symbol under the eyes of a monitor; `backward` can follow, once.

    operands: arrays by variable name. gradients: (array, request) by the name of each variable that wants its gradient.
    states: names of auxiliary states. `monitor(name, operator, array)` is called for results, with monitor_all for operands
    too, and in the backward pass for the gradients that each operator gives its operands: `NAME_backward_output0` and so on.
    """

    def __init__(self, symbol: Symbol, operands: Mapping[str, NDArray], gradients: Mapping[str, tuple[NDArray, str]],
                 states: Sequence[str], monitor: Any, monitor_all: bool) -> None:  # fmt: skip
        self._monitor, self._gradients, self._states = monitor, gradients, frozenset(states)
        self._heads = symbol._heads
        self._calls: list[_Call] = []
        order = topological(symbol._heads)
        shapes = open_shapes(symbol, order, {n.name: operands[n.name]._data.shape for n in order if n.op is None})
        env: dict[int, list[NDArray]] = {}
        active = {id(n) for n in order if n.op is None and n.name in gradients}
        before = state.recording
        try:
            for n in order:
                if n.op is None:
                    env[id(n)] = [operands[n.name].detach()]
                    continue
                xs = [env[id(m)][k] for m, k in n.inputs]
                if monitor_all:
                    label_operands(n, xs, monitor)
                state.recording = any(id(m) in active for m, _ in n.inputs)
                if state.recording:
                    active.add(id(n))
                    xs = [self._marked(x) if self._carries(n, i, x) else x for i, x in enumerate(xs)]
                ys = carried_out(n, xs, shapes)
                env[id(n)] = [wrap(y._data) for y in ys]
                if state.recording:
                    self._calls.append(_Call(n, xs, ys))
                for k, y in enumerate(env[id(n)]):
                    monitor(n.output_name(k), n.op, y)
        finally:
            state.recording = before
        self.outputs = [env[id(n)][k] for n, k in symbol._heads]

    def _carries(self, node: SymNode, index: int, x: NDArray) -> bool:
        """Whether an operand can have a gradient."""
        source = node.inputs[index][0]
        return np.dtype(x.dtype).kind == _FLOATS and not (source.op is None and source.name in self._states)

    @staticmethod
    def _marked(x: NDArray) -> NDArray:
        x = x.detach()
        x._mark(wrap(np.zeros(x.shape, x.dtype)), "write")
        return x

    def backward(self, grads: Sequence[NDArray | None]) -> None:
        """Carry gradients back, and into the arrays of the variables; None for a head: ones, as a loss layer takes them."""
        arrived: dict[tuple[int, int], Array | None] = {}
        for (n, k), d in zip(self._heads, grads):
            self._arrive(arrived, (id(n), k), None if d is None else d._data)
        for call in reversed(self._calls):
            n = call.node
            heads = [(y, arrived[id(n), k]) for k, y in enumerate(call.results) if (id(n), k) in arrived and y._entry is not None]
            if not heads:
                continue
            run_backward([y for y, _ in heads], [None if d is None else wrap(d) for _, d in heads], retain=False)
            own = [(i, x) for i, x in enumerate(call.operands) if self._carries(n, i, x)]
            for place, (i, x) in enumerate(own):
                assert x.grad is not None
                self._monitor(f"{n.name}_backward_output{place if len(own) > 1 else ''}", f"_backward_{n.op}", wrap(x.grad._data))
                self._arrive(arrived, (id(n.inputs[i][0]), n.inputs[i][1]), x.grad._data)
        settle()
        variables = {n.name: id(n) for n in topological(self._heads) if n.op is None}
        for name, (grad, req) in self._gradients.items():
            found = arrived.get((variables[name], 0)) if name in variables else None
            if req == "add":
                grad._data[...] += 0 if found is None else found
            else:
                grad._data[...] = 0 if found is None else found

    @staticmethod
    def _arrive(arrived: dict[tuple[int, int], Array | None], place: tuple[int, int], d: Array | None) -> None:
        if place in arrived:
            before = arrived[place]
            ones = before if before is not None else d
            assert ones is not None, "one output twice among the heads needs gradients"
            d = (np.ones_like(ones) if before is None else before) + (np.ones_like(ones) if d is None else d)
        arrived[place] = d
