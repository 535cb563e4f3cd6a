"""Carry out calls on arrays, and note them on the tape while recording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.ir.types import numpy_dtype
from diptych.mxnet.base import MXNetError
from diptych.mxnet.ops import live
from diptych.mxnet.ops.prepare import Prepared, prepare, run_host
from diptych.mxnet.random_state import draw
from diptych.mxnet.tape import CallNode, Entry, state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.ir import Array
    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["call", "invoke", "ones_like", "store", "wrap"]

_IR = {numpy_dtype(d): d for d in ("f32", "f64", "f16", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "bool")}


def wrap(array: Array, entry: Entry | None = None) -> NDArray:
    """An NDArray around an array (no copy)."""
    from diptych.mxnet.ndarray.ndarray import NDArray

    made: NDArray = NDArray.__new__(_array_class() if state.np_array else NDArray)
    made._data = array
    made._entry = entry
    made._grad = None
    made._ctx = None
    return made


def _array_class() -> Any:
    from diptych.mxnet.numpy.multiarray import ndarray

    return ndarray


def ones_like(x: NDArray) -> NDArray:
    """Ones in the shape of x."""
    return wrap(np.ones(x._data.shape, x._data.dtype))


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
    out._data[...] = array


def call(prepared: Prepared, operands: Sequence[NDArray], out: Sequence[NDArray] | None = None) -> list[NDArray]:
    """Run a prepared graph on arrays: results (or `out`), with its updates carried out and the call recorded."""
    arrays = [x._data for x in operands]
    for noise in prepared.noise[len(arrays) - len(prepared.in_types) :] if prepared.noise else ():
        arrays.append(draw(noise))
    results = prepared(arrays)
    for i, k in prepared.updates:
        operands[i]._data[...] = results[k]
    record = state.recording and any(x._entry is not None for x in operands)
    visible = results[: prepared.visible]
    node = CallNode(prepared, operands, arrays, results) if record else None
    if out is None:
        return [wrap(a, Entry(node, i) if node is not None else None) for i, a in enumerate(visible)]
    return deliver(visible, out, node)


def deliver(results: Sequence[Array], out: Sequence[NDArray], node: Any = None) -> list[NDArray]:
    """Put results into the arrays of `out=`."""
    for i, (target, array) in enumerate(zip(out, results)):
        if state.recording and target._entry is not None:
            raise MXNetError("Inplace operations (+=, -=, x[:]=, etc) are not supported when recording with autograd.")
        store(target, array)
        if node is not None:
            target._entry = Entry(node, i)
    return list(out)


def invoke_all(op: str, operands: Sequence[NDArray], attrs: dict[str, str], out: Any = None,
               shape: tuple[int, ...] | None = None) -> list[NDArray]:  # fmt: skip
    """All visible results of an operator (by its own name, not an alias)."""
    outs = None if out is None else list(out) if isinstance(out, (list, tuple)) else [out]
    if op in live.HOSTS:
        results = run_host(op, attrs, [x._data for x in operands])
        return [wrap(a) for a in results] if outs is None else deliver(results, outs)
    if op == "Custom":
        from diptych.mxnet.operator import invoke_custom

        made = invoke_custom(operands, attrs)
        return made if outs is None else deliver([m._data for m in made], outs, made[0]._entry and made[0]._entry.node)
    types = tuple([type_of(x._data) for x in operands])
    prepared = prepare(op, attrs, types, state.training, state.np_shape, shape)
    results = call(prepared, operands, outs)
    if state.recording and results and results[0]._entry is not None:
        node = results[0]._entry.node
        if isinstance(node, CallNode) and node.source is None:
            node.source = (op, attrs)
    return results


def invoke(op: str, operands: Sequence[NDArray], attrs: dict[str, str], out: Any = None) -> Any:
    """The result of an operator, or the list of its results when there are several."""
    results = invoke_all(op, operands, attrs, out)
    return results[0] if len(results) == 1 else results
