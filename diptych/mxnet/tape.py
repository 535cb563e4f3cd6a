"""What autograd remembers: which values came from which calls, and how a gradient goes back through each."""

from __future__ import annotations

import heapq
import itertools
import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np

from diptych.ir.types import numpy_dtype
from diptych.mxnet.base import MXNetError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from diptych.ir import Array
    from diptych.mxnet.ndarray.ndarray import NDArray
    from diptych.mxnet.ops.prepare import Prepared
    from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["USED", "CallNode", "Entry", "Node", "State", "Variable", "backward", "settle", "state"]

FLOATS = ("f32", "f64", "f16")


class State(threading.local):
    """The modes of this thread, and the calls that wait for someone to need their values."""

    recording = False
    training = False
    np_shape = False
    np_array = False

    def __init__(self) -> None:
        self.waiting: list[weakref.ref[CallNode]] = []


state = State()
_numbers = itertools.count()


class Node:
    """A call on the tape. `inputs` are the entries of its operands (None: a constant)."""

    __slots__ = ("__weakref__", "inputs", "number", "outputs", "used")
    used: bool

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

    __slots__ = ("grad", "owner", "req")

    def __init__(self, array: NDArray, grad: NDArray | None, req: str) -> None:
        super().__init__((), 1)
        # Weak, for the array holds this node: a cycle would keep its memory until Python's collector comes by.
        self.owner, self.grad, self.req = weakref.ref(array), grad, req

    def release(self) -> None:
        """A variable outlives every graph it is in."""


class Entry:
    """One result of a node."""

    __slots__ = ("index", "node")

    def __init__(self, node: Node, index: int) -> None:
        self.node, self.index = node, index


class CallNode(Node):
    """A call of a prepared graph on arrays. It waits, without results, until a value or a gradient is needed.

    `args` are its operands: arrays, or (node, result) where that is waiting too.
    """

    __slots__ = ("args", "error", "prepared", "results", "source", "watchers")

    def __init__(self, prepared: Prepared, entries: Sequence[Entry | None], args: Sequence[Array | tuple[CallNode, int]]) -> None:
        super().__init__(entries, prepared.visible)
        self.prepared = prepared
        # What was called: an operator by its name, with attributes; or a symbol, shown by `get_symbol` as its operators or as one.
        self.source: tuple[str, dict[str, str]] | tuple[Symbol, bool] | None = None
        self.args: list[Array | tuple[CallNode, int]] | None = list(args)
        self.results: list[Array] | None = None
        self.error: MXNetError | None = None  # what computing the results ended in
        self.watchers: list[tuple[int, weakref.ref[NDArray]]] = []  # arrays that will show a result

    def watch(self, index: int, array: NDArray) -> None:
        """Note that an array is to show a result."""
        self.watchers.append((index, weakref.ref(array)))

    def give(self, results: dict[int, Array]) -> None:
        """Hand results to the arrays that show them."""
        for index, ref in self.watchers:
            array = ref()
            if array is not None and array._array is None and index in results:
                array._array, array._pending = results[index], None
        self.watchers = []

    def wanted(self) -> set[int]:
        """The results that an array somewhere is to show."""
        return {i for i, ref in self.watchers if (a := ref()) is not None and a._array is None}

    def run(self) -> None:
        """Compute the results, and those of the calls it waits for."""
        stack = [self]
        while stack:
            node = stack[-1]
            if node.results is not None:
                stack.pop()
                continue
            assert node.args is not None
            open_ = [a[0] for a in node.args if isinstance(a, tuple) and a[0].results is None]
            if open_:
                stack.extend(open_)
                continue
            stack.pop()
            arrays = [a if not isinstance(a, tuple) else a[0].results[a[1]] for a in node.args]  # type: ignore[index]
            node.args = list(arrays)
            if node.error is None:
                try:
                    node.results = node.prepared(arrays)
                except MXNetError as error:
                    node.error = error
            if node.error is not None:
                raise node.error
            assert node.results is not None
            for i, k in node.prepared.updates:
                arrays[i][...] = node.results[k]
            node.give(dict(enumerate(node.results)))

    def backward(self, arrived: list[NDArray | None], keep: bool) -> list[NDArray | None]:
        from diptych.mxnet.imperative import call, wrap

        p = self.prepared
        if self.args is None:
            raise MXNetError(USED)
        self.run()
        saved: list[Array] = self.args  # type: ignore[assignment]
        results = self.results or []
        wrt = tuple(i for i, e in enumerate(self.inputs) if e is not None and p.in_types[i].dtype in p.kinds)
        for i, k in p.later:  # moving averages move with the backward pass, as in MXNet
            settle()
            saved[i][...] = results[k]
        if not wrt:
            return [None] * len(self.inputs)
        vjp = p.vjp(wrt)
        heads = [(i, arrived[i]) for i in p.differentiable()]
        for at, (i, d) in enumerate(heads):  # a caller's gradient may be of another type than the result
            if d is not None and d.dtype != numpy_dtype(p.out_types[i].dtype):
                heads[at] = (i, d.astype(numpy_dtype(p.out_types[i].dtype)))
        if state.recording:  # on the tape again: a gradient of the gradient
            xs = [wrap(a, e) for a, e in zip(saved, (*self.inputs, *[None] * (len(saved) - len(self.inputs))))]
            xs += [d if d is not None else wrap(zeros_of(p, i)) for i, d in heads]
            found: list[NDArray] = call(vjp, xs)
        else:
            arrays = [*saved, *(d._data if d is not None else zeros_of(p, i) for i, d in heads)]
            found = [wrap(a) for a in vjp(arrays)]
        out: list[NDArray | None] = [None] * len(self.inputs)
        for i, d in zip(wrt, found):
            out[i] = d
        return out

    def release(self) -> None:
        self.used = True
        if self.results is not None or not self.wanted():
            self.args = self.results = None


def settle(but: Collection[CallNode] = (), strict: bool = False) -> None:
    """Compute what waits (except `but`, which go on waiting): memory that it reads is about to be written to.

    Errors surface where a value is asked for; with `strict` they surface here.
    """
    if state.waiting:
        waiting, state.waiting = state.waiting, []
        for ref in waiting:
            node = ref()
            if node in but:
                state.waiting.append(ref)
            elif node is not None and node.results is None and node.args is not None and node.wanted():
                try:
                    node.run()
                except MXNetError:
                    if strict:
                        raise


def zeros_of(p: Prepared, i: int) -> Array:
    """Zeros in the type of a result."""
    return np.zeros(p.out_types[i].shape, numpy_dtype(p.out_types[i].dtype))


USED = ("the graph of this value has been used by a backward pass and let go; call backward(retain_graph=True) the first "
        "time, or record the forward pass again")  # fmt: skip


def _checked(heads: Sequence[NDArray]) -> list[Entry]:
    entries = []
    for i, head in enumerate(heads):
        if head._entry is None:
            raise MXNetError(
                f"head {i} was not computed under autograd.record(): nothing is known of how it came about")
        if head._entry.node.used:
            raise MXNetError(USED)
        entries.append(head._entry)
    return entries


def backward(heads: Sequence[NDArray], head_grads: Sequence[NDArray | None], retain: bool,
             variables: Sequence[NDArray] | None = None, create_graph: bool = False) -> list[NDArray | None]:  # fmt: skip
    """Carry gradients back from `heads`; into the variables' own arrays, or returned for `variables`."""
    from diptych.mxnet import fused

    entries = _checked(heads)
    if not retain and not create_graph:
        found = fused.backward(entries, head_grads, None if variables is None else [x._entry for x in variables])
        if found is not None:
            if variables is None:
                for variable, d in found:
                    deliver(variable, d)
                return []
            by_number = {v.number: d for v, d in found}
            return [by_number.get(x._entry.node.number) if x._entry is not None else None for x in variables]
    return _stepwise(heads, entries, head_grads, retain, variables, create_graph)


def _stepwise(heads: Sequence[NDArray], entries: Sequence[Entry], head_grads: Sequence[NDArray | None], retain: bool,
              variables: Sequence[NDArray] | None, create_graph: bool) -> list[NDArray | None]:  # fmt: skip
    """Node by node, from the latest to the earliest."""
    from diptych.mxnet.imperative import invoke, ones_like

    arrived: dict[tuple[int, int], NDArray] = {}
    nodes: dict[int, Node] = {}
    queue: list[int] = []

    def add(entry: Entry, d: NDArray) -> None:
        key = (entry.node.number, entry.index)
        if key in arrived:  # truth values have no sum
            d = invoke("broadcast_logical_or" if d.dtype == np.bool_ else "elemwise_add", [arrived[key], d], {})
        arrived[key] = d
        if entry.node.number not in nodes:
            nodes[entry.node.number] = entry.node
            heapq.heappush(queue, -entry.node.number)

    before = state.recording
    state.recording = create_graph
    try:
        for entry, head, d in zip(entries, heads, head_grads):
            add(entry, ones_like(head) if d is None else d)
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
                raise MXNetError(USED)
            grads = node.backward([arrived.get((number, k)) for k in range(node.outputs)], retain or create_graph)
            for entry_, grad in zip(node.inputs, grads):
                if entry_ is not None and grad is not None:
                    add(entry_, grad)
        if not retain and not create_graph:
            settle()  # what waits may read results of the nodes that are let go
            for node in order:
                node.release()
    finally:
        state.recording = before
    if variables is not None:
        return [arrived.get((e.node.number, e.index)) if e is not None else None for e in wanted]
    if not targets and not any(_reaches(e) for e in entries):
        raise MXNetError("nothing that these values were computed from wants a gradient: x.attach_grad() before autograd.record()")
    for number, variable in targets.items():
        deliver(variable, arrived[number, 0])
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


def deliver(variable: Variable, d: NDArray | None) -> None:
    """Put a gradient where the variable wants it."""
    array = variable.owner()
    if variable.req == "null":  # as in MXNet, its array is there until a backward pass has come by
        if array is not None:
            array._grad = None
        return
    if variable.grad is None or d is None:
        return
    settle()
    if array is not None:
        array._fresh_grad = True
    if variable.grad._data is d._data:  # computed there
        return
    if variable.req == "add":
        variable.grad._data[...] += d._data
    else:
        variable.grad._data[...] = d._data
        if d._entry is not None:
            variable.grad._entry = d._entry
