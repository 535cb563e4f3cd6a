"""Carry out calls on arrays, and note them on the tape while recording."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.frontends.mxnet.attributes import Attributes
from diptych.ir.types import numpy_dtype
from diptych.mxnet.base import MXNetError
from diptych.mxnet.ops import live
from diptych.mxnet.ops.fixed import fixed
from diptych.mxnet.ops.prepare import Prepared, prepare, run_host
from diptych.mxnet.profiling import recorder
from diptych.mxnet.random_state import draw
from diptych.mxnet.tape import CallNode, Entry, Node, settle, state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.ir import Array
    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["call", "infer", "invoke", "ones_like", "store", "wrap"]

_IR = {numpy_dtype(d): d for d in ("f32", "f64", "f16", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "bool")}


def wrap(array: Array, entry: Entry | None = None) -> NDArray:
    """An NDArray around an array (no copy)."""
    from diptych.mxnet.ndarray.ndarray import NDArray

    made: NDArray = NDArray.__new__(_array_class() if state.np_array else NDArray)
    made._array = array
    made._pending = None
    made._entry = entry
    made._grad = None
    made._ctx = None
    return made


def _array_class() -> Any:
    from diptych.mxnet.numpy.multiarray import ndarray

    return ndarray


def ones_like(x: NDArray) -> NDArray:
    """Ones in the shape of x."""
    return wrap(np.ones(x.shape, x.dtype))


def type_of(array: Array) -> tuple[tuple[int, ...], str]:
    """Shape and IR dtype."""
    try:
        return array.shape, _IR[array.dtype]
    except KeyError:
        raise MXNetError(f"arrays of {array.dtype} are not supported") from None


def store(out: NDArray, array: Array) -> None:
    """Write a result into an existing array."""
    if out._data.shape != array.shape:
        raise MXNetError(f"the result has shape {array.shape}, out has {out._data.shape}")
    settle()
    out._data[...] = array


def call(prepared: Prepared, operands: Sequence[NDArray], out: Sequence[NDArray] | None = None) -> list[NDArray]:
    """Call a prepared graph on arrays: results (or `out`), with its updates carried out and the call recorded.

    A recorded call waits until one of its values is needed.
    """
    if state.recording and any(x._entry is not None for x in operands):
        args: list[Any] = [x._pending if x._array is None and x._waits() else x._data for x in operands]
        for noise in prepared.noise:
            args.append(draw(noise))
        node = CallNode(prepared, [x._entry for x in operands], args)
        if out is not None:
            node.run()
            assert node.results is not None
            return deliver(node.results[: prepared.visible], out, node)
        state.waiting.append(weakref.ref(node))
        if len(state.waiting) > 4096:
            state.waiting = [r for r in state.waiting if (n := r()) is not None and n.results is None and n.args is not None]
        return [promised(node, i) for i in range(prepared.visible)]
    arrays = [x._data for x in operands]
    for noise in prepared.noise:
        arrays.append(draw(noise))
    results = prepared(arrays)
    if prepared.updates:
        settle()
        for i, k in prepared.updates:
            operands[i]._data[...] = results[k]
    visible = results[: prepared.visible]
    return [wrap(a) for a in visible] if out is None else deliver(visible, out)


def infer(prepared: Prepared, operands: Sequence[NDArray], params: tuple[int, ...]) -> list[NDArray]:
    """The same for inference, of a network whose operands at these places are parameters, which seldom change."""
    form = None if state.recording or recorder.active else fixed(prepared, params)
    if form is None:
        return call(prepared, operands)
    return [wrap(a) for a in form(operands)[: prepared.visible]]


def promised(node: CallNode, index: int) -> NDArray:
    """An array that will show a result of a waiting call."""
    made = wrap(None, Entry(node, index))  # type: ignore[arg-type]
    made._pending = (node, index)
    node.watch(index, made)
    return made


class HostNode(Node):
    """A call of an operator that runs in Python on arrays."""

    __slots__ = ("arrays", "attrs", "op", "results")

    def __init__(self, op: str, attrs: dict[str, str], entries: Sequence[Entry | None], arrays: Sequence[Array],
                 results: Sequence[Array]) -> None:  # fmt: skip
        super().__init__(entries, len(results))
        self.op, self.attrs, self.arrays, self.results = op, attrs, list(arrays), list(results)

    def backward(self, arrived: list[NDArray | None], keep: bool) -> list[NDArray | None]:
        rule = live.HOST_GRADIENTS.get(self.op)
        if rule is None:
            raise MXNetError(f"{self.op} has no gradient; call it on x.detach() or outside of autograd.record()")
        if state.recording:
            raise MXNetError(f"{self.op} has a gradient but no second one")
        heads = [d._data if d is not None else np.zeros(r.shape, r.dtype) for d, r in zip(arrived, self.results)]
        with np.errstate(all="ignore"):
            found = rule(Attributes(self.op, self.op, self.attrs), self.arrays, self.results, heads)
        return [None if d is None else wrap(np.ascontiguousarray(d, x.dtype).reshape(x.shape)) for d, x in zip(found, self.arrays)]


def deliver(results: Sequence[Array], out: Sequence[NDArray], node: Any = None) -> list[NDArray]:
    """Put results into the arrays of `out=`."""
    for i, (target, array) in enumerate(zip(out, results)):
        if state.recording and target._entry is not None:
            raise MXNetError("an array cannot be written (+=, x[:] = y) while autograd.record() is on: make a new one, or write under pause()")
        store(target, array)
        if node is not None:
            target._entry = Entry(node, i)
    return list(out)


def invoke_all(op: str, operands: Sequence[NDArray], attrs: dict[str, str], out: Any = None,
               shape: tuple[int, ...] | None = None) -> list[NDArray]:  # fmt: skip
    """All visible results of an operator (by its own name, not an alias)."""
    outs = None if out is None else list(out) if isinstance(out, (list, tuple)) else [out]
    if op in live.HOSTS:
        arrays = [x._data for x in operands]
        settle()  # optimizer steps write to their operands
        results = run_host(op, attrs, arrays)
        host_node: HostNode | None = None
        if state.recording and any(x._entry is not None for x in operands):
            host_node = HostNode(op, attrs, [x._entry for x in operands], arrays, results)
        if outs is not None:
            return deliver(results, outs, host_node)
        return [wrap(a, None if host_node is None else Entry(host_node, i)) for i, a in enumerate(results)]
    if op == "Custom":
        from diptych.mxnet.operator import invoke_custom

        made = invoke_custom(operands, attrs)
        return made if outs is None else deliver([m._data for m in made], outs, made[0]._entry and made[0]._entry.node)
    if op in live.HOST_GRADIENTS and state.recording and any(x._entry is not None for x in operands):
        return _with_host_gradient(op, operands, attrs, outs)
    types = tuple([type_of(x._array) if x._array is not None else x._promised_type() for x in operands])
    prepared = prepare(op, attrs, types, state.training, state.np_shape, shape)
    found = call(prepared, operands, outs)
    if state.recording and found and found[0]._entry is not None:
        node = found[0]._entry.node
        if isinstance(node, CallNode) and node.source is None:
            node.source = (op, attrs)
    return found


def _with_host_gradient(op: str, operands: Sequence[NDArray], attrs: dict[str, str], outs: list[NDArray] | None) -> list[NDArray]:
    """A recorded call of an operator that is a graph, but whose gradient is computed in Python."""
    arrays = [x._data for x in operands]
    prepared = prepare(op, attrs, tuple(type_of(a) for a in arrays), state.training, state.np_shape)
    results = prepared(arrays)[: prepared.visible]
    node = HostNode(op, attrs, [x._entry for x in operands], arrays, results)
    if outs is not None:
        return deliver(results, outs, node)
    return [wrap(a, Entry(node, i)) for i, a in enumerate(results)]


def invoke(op: str, operands: Sequence[NDArray], attrs: dict[str, str], out: Any = None) -> Any:
    """The result of an operator, or the list of its results when there are several."""
    results = invoke_all(op, operands, attrs, out)
    return results[0] if len(results) == 1 else results
