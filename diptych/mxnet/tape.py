"""What autograd remembers: which values came from which calls, and how a gradient goes back through each."""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import TYPE_CHECKING

import numpy as np

from diptych.mxnet.base import MXNetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.ir import Array
    from diptych.mxnet.ndarray.ndarray import NDArray
    from diptych.mxnet.ops.prepare import Prepared

__all__ = ["CallNode", "Entry", "Node", "State", "Variable", "backward", "state"]


class State(threading.local):
    """The modes of this thread."""

    recording = False
    training = False
    np_shape = False
    np_array = False
    np_default_dtype = False


state = State()
_numbers = itertools.count()


class Node:
    """A call on the tape. `inputs` are the entries of its operands (None: a constant)."""

    __slots__ = ("inputs", "number", "outputs", "used")

    def __init__(self, inputs: Sequence[Entry | None], outputs: int) -> None:
        self.number = next(_numbers)  # rises with time, so it is a topological order
        # What a finished backward pass has let go of is a constant from then on, as in MXNet.
        self.inputs = tuple([None if e is None or e.node.used else e for e in inputs])
        self.outputs = outputs
        self.used = False

    def backward(self, arrived: list[NDArray | None], keep: bool) -> list[NDArray | None]:
        """Gradients of the operands from those of the results; `keep`: for use again or on the tape itself."""
        raise NotImplementedError

    def release(self) -> None:
        """Let go of saved values: the graph has been used."""
        self.used = True


class Variable(Node):
    """An array whose gradient is wanted (`attach_grad`, `mark_variables`)."""

    __slots__ = ("array", "grad", "req")

    def __init__(self, array: NDArray, grad: NDArray | None, req: str) -> None:
        super().__init__((), 1)
        self.array, self.grad, self.req = array, grad, req

    def release(self) -> None:
        """A variable outlives every graph it is in."""


class Entry:
    """One result of a node."""

    __slots__ = ("index", "node")

    def __init__(self, node: Node, index: int) -> None:
        self.node, self.index = node, index


class CallNode(Node):
    """A call of a prepared graph on arrays."""

    __slots__ = ("operands", "prepared", "saved", "source")

    def __init__(self, prepared: Prepared, operands: Sequence[NDArray], saved: Sequence[Array], results: Sequence[Array]) -> None:
        super().__init__([x._entry for x in operands], prepared.visible)
        self.prepared = prepared
        self.source: tuple[str, dict[str, str]] | None = None  # operator and attributes, where it was called by name
        self.saved: tuple[Array, ...] | None = tuple(saved)
        self.operands: tuple[NDArray, ...] = tuple(operands) if prepared.later else ()
        if prepared.later:
            self.saved += tuple(results[k] for _, k in prepared.later)

    def backward(self, arrived: list[NDArray | None], keep: bool) -> list[NDArray | None]:
        from diptych.mxnet.imperative import call, wrap

        p = self.prepared
        if self.saved is None:
            raise MXNetError(_USED)
        count = len(p.in_types)
        wrt = tuple(i for i, e in enumerate(self.inputs) if e is not None and p.in_types[i].dtype in ("f32", "f64", "f16"))
        for i, (operand, _) in enumerate(p.later):  # moving averages move with the backward pass, as in MXNet
            self.operands[operand]._data[...] = self.saved[count + i]
        if not wrt:
            return [None] * len(self.inputs)
        vjp = p.vjp(wrt)
        heads = [(i, arrived[i]) for i in p.differentiable()]
        if state.recording:  # on the tape again: a gradient of the gradient
            xs = [wrap(a, e) for a, e in zip(self.saved[:count], (*self.inputs, *[None] * (count - len(self.inputs))))]
            xs += [d if d is not None else wrap(_zeros(p, i)) for i, d in heads]
            found: list[NDArray] = call(vjp, xs)
        else:
            arrays = [*self.saved[:count], *(d._data if d is not None else _zeros(p, i) for i, d in heads)]
            found = [wrap(a) for a in vjp(arrays)]
        out: list[NDArray | None] = [None] * len(self.inputs)
        for i, d in zip(wrt, found):
            out[i] = d
        return out

    def release(self) -> None:
        self.used = True
        self.saved = None


def _zeros(p: Prepared, i: int) -> Array:
    from diptych.ir.types import numpy_dtype

    return np.zeros(p.out_types[i].shape, numpy_dtype(p.out_types[i].dtype))


_USED = ("the graph of this value has been used by a backward pass and let go; call backward(retain_graph=True) the first "
         "time, or record the forward pass again")  # fmt: skip


def backward(heads: Sequence[NDArray], head_grads: Sequence[NDArray | None], retain: bool,
             variables: Sequence[NDArray] | None = None, create_graph: bool = False) -> list[NDArray | None]:  # fmt: skip
    """Carry gradients back from `heads`; into the variables' own arrays, or returned for `variables`."""
    from diptych.mxnet.imperative import invoke, ones_like

    arrived: dict[tuple[int, int], NDArray] = {}
    nodes: dict[int, Node] = {}
    queue: list[int] = []

    def add(entry: Entry, d: NDArray) -> None:
        key = (entry.node.number, entry.index)
        arrived[key] = invoke("elemwise_add", [arrived[key], d], {}) if key in arrived else d
        if entry.node.number not in nodes:
            nodes[entry.node.number] = entry.node
            heapq.heappush(queue, -entry.node.number)

    saved = state.recording
    state.recording = create_graph
    try:
        for i, (head, d) in enumerate(zip(heads, head_grads)):
            if head._entry is None:
                raise MXNetError(
                    f"Cannot differentiate node because it is not in a computational graph. You need to set is_recording "
                    f"to true or use autograd.record() to save computational graphs for backward. (head {i})")  # fmt: skip
            if head._entry.node.used:
                raise MXNetError(_USED)
            add(head._entry, ones_like(head) if d is None else d)
        wanted = [x._entry for x in variables or ()]
        targets: dict[int, Variable] = {}
        order: list[Node] = []
        while queue:
            number = -heapq.heappop(queue)
            node = nodes[number]
            if isinstance(node, Variable):
                targets[number] = node
                continue
            order.append(node)
            if node.used:
                raise MXNetError(_USED)
            grads = node.backward([arrived.get((number, k)) for k in range(node.outputs)], retain or create_graph)
            for entry, grad in zip(node.inputs, grads):
                if entry is not None and grad is not None:
                    add(entry, grad)
        if not retain and not create_graph:
            for node in order:
                node.release()
    finally:
        state.recording = saved
    if variables is not None:
        return [arrived.get((e.node.number, e.index)) if e is not None else None for e in wanted]
    if not targets and not any(_reaches(h._entry) for h in heads if h._entry is not None):
        raise MXNetError("There are no inputs in computation graph that require gradients.")
    for number, variable in targets.items():
        _deliver(variable, arrived[number, 0])
    return []


def _reaches(entry: Entry) -> bool:
    """Whether a value depends on a variable at all."""
    stack, seen = [entry.node], set()
    while stack:
        node = stack.pop()
        if isinstance(node, Variable):
            return True
        if node.number not in seen:
            seen.add(node.number)
            stack.extend(e.node for e in node.inputs if e is not None)
    return False


def _deliver(variable: Variable, d: NDArray) -> None:
    if variable.grad is None or variable.req == "null":
        return
    variable.array._fresh_grad = True
    if variable.req == "add":
        variable.grad._data[...] += d._data
    else:
        variable.grad._data[...] = d._data
        if state.recording or d._entry is not None:
            variable.grad._entry = d._entry
