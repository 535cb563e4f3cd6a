"""Reading and writing parts of arrays: what shares memory, what is copied, and how both are recorded."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import DiptychError
from diptych.ir import TensorType
from diptych.mxnet.base import MXNetError
from diptych.mxnet.imperative import call, type_of, wrap
from diptych.mxnet.ops.prepare import Prepared
from diptych.mxnet.tape import CallNode, Entry, Node, settle, state
from diptych.ops.build import Builder

if TYPE_CHECKING:
    from diptych.ir import Array
    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["get", "put", "view"]


def normal_key(key: Any, np_mode: bool) -> Any:
    """A key with arrays of ours turned into NumPy's; float indices, which MXNet allows, into integers."""
    if isinstance(key, tuple):
        return tuple(normal_key(k, np_mode) for k in key)
    data = getattr(key, "_data", None)
    if data is not None:
        key = data
        if key.dtype == np.bool_ and np_mode:
            return key
        return key.astype(np.int64)
    if isinstance(key, np.ndarray):
        return key if key.dtype == np.bool_ else key.astype(np.int64)
    if isinstance(key, list):
        if key and all(isinstance(k, bool) for k in key):
            return np.array(key)
        return np.asarray([k._data if hasattr(k, "_data") else k for k in key]).astype(np.int64)
    if isinstance(key, range):
        return np.arange(key.start, key.stop, key.step)
    if isinstance(key, slice):
        return slice(*(int(k) if k is not None else None for k in (key.start, key.stop, key.step)))
    if isinstance(key, (np.integer, np.bool_)):
        return key.item()
    if key is None or key is Ellipsis or isinstance(key, int):
        return key
    raise IndexError(f"an array cannot be indexed with {key!r} of {type(key)}")


def is_basic(key: Any) -> bool:
    """Whether a key has no index arrays."""
    return not any(isinstance(k, np.ndarray) for k in (key if isinstance(key, tuple) else (key,)))


def is_contiguous(key: Any, shape: tuple[int, ...]) -> bool:
    """Whether a basic slice of an array of this shape is one run of memory."""
    strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    whole = np.lib.stride_tricks.as_strided(np.empty(1, np.int8), shape, strides)  # never read: only its layout counts
    return bool(whole[key].flags.c_contiguous)


@lru_cache(maxsize=4096)
def _slicing(x: tuple[tuple[int, ...], str], starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...],
             shape: tuple[int, ...]) -> Prepared:  # fmt: skip
    g = Builder("getitem")
    value = g.slice(g.input("x0", TensorType(*x)), starts, stops, steps)
    return Prepared(g.finish([g.reshape(value, shape)]), 1)


@lru_cache(maxsize=4096)
def _taking(x: tuple[tuple[int, ...], str], index: tuple[int, ...]) -> Prepared:
    from diptych.ops import OPS

    g = Builder("getitem")
    data = g.input("x0", TensorType(*x))
    places = g.input("x1", TensorType(index, "i64"))
    return Prepared(g.finish([g.emit(OPS["take"](axis=0, mode="clip"), g.reshape(data, (-1,)), places)]), 1)


def prepared_get(data: Array, key: Any, shape: tuple[int, ...]) -> tuple[Prepared, tuple[Array, ...]]:
    """The graph that reads `data[key]` (in `shape`), and its operands beside `data`."""
    if is_basic(key):
        keys = key if isinstance(key, tuple) else (key,)
        keys = tuple(k for k in keys if k is not None)
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys = (*keys[:at], *[slice(None)] * (data.ndim - len(keys) + 1), *keys[at + 1 :])
        keys = (*keys, *[slice(None)] * (data.ndim - len(keys)))
        spans = [slice(k, k + 1 or None).indices(n) if isinstance(k, int) else k.indices(n) for k, n in zip(keys, data.shape)]
        if all(s > 0 for _, _, s in spans):
            stops = tuple(max(a, b) for a, b, _ in spans)
            return _slicing(type_of(data), tuple(a for a, _, _ in spans), stops, tuple(s for _, _, s in spans), shape), ()
    places = np.arange(data.size, dtype=np.int64).reshape(data.shape)[key].reshape(shape)
    return _taking(type_of(data), places.shape), (np.ascontiguousarray(places),)


def view(x: NDArray, array: Array, prepared: Prepared, extra: tuple[Array, ...] = ()) -> NDArray:
    """An NDArray on memory of x (or a copy of a part of it), recorded as what `prepared` computes from x."""
    if not state.recording or x._entry is None:
        return wrap(array)
    node = CallNode(prepared, [x._entry, *[None] * len(extra)], [x._data, *extra])
    node.results = [array]
    return wrap(array, Entry(node, 0))


def get(x: NDArray, key: Any) -> NDArray:
    """x[key]: contiguous basic slices share memory with x, everything else is a copy."""
    np_mode = state.np_array
    key = normal_key(key, np_mode)
    if state.recording and x._entry is not None and is_basic(key) and x._waits():
        found = _promised_part(x, key)
        if found is not None:
            return found
    part = x._data[key]
    if not isinstance(part, np.ndarray):
        part = np.asarray(part)
        if is_basic(key):  # every axis was given a number: a view still
            keys = key if isinstance(key, tuple) else (key,)
            part = x._data[tuple(slice(k, k + 1 or None) if isinstance(k, int) else k for k in keys)].reshape(())
    if part.ndim == 0 and not state.np_shape:
        part = part.reshape((1,))
    if 0 in part.shape and not state.np_shape and not np_mode:
        raise IndexError(f"{key} selects nothing of an array of shape {x.shape}; empty arrays need mx.util.np_shape()")
    if not is_basic(key) or not part.flags.c_contiguous:
        part = np.array(part, order="C")
    if not state.recording or x._entry is None:
        return wrap(part)
    try:
        prepared, extra = prepared_get(x._data, key, part.shape)
    except DiptychError as error:
        raise MXNetError(str(error)) from error
    return view(x, part, prepared, extra)


def _promised_part(x: NDArray, key: Any) -> NDArray | None:
    """A basic slice of a value that waits, waiting too; None where the key needs more care."""
    shape, dtype = x._promised_type()
    layout = np.broadcast_to(np.int8(0), shape)
    part = layout[key]
    dims = np.shape(part) or (() if state.np_shape else (1,))
    if 0 in dims or not dims:
        return None
    keys = key if isinstance(key, tuple) else (key,)
    keys = tuple(k for k in keys if k is not None)
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys = (*keys[:at], *[slice(None)] * (len(shape) - len(keys) + 1), *keys[at + 1 :])
    keys = (*keys, *[slice(None)] * (len(shape) - len(keys)))
    spans = [slice(k, k + 1 or None).indices(n) if isinstance(k, int) else k.indices(n) for k, n in zip(keys, shape)]
    if any(s <= 0 for _, _, s in spans):
        return None
    stops = tuple(max(a, b) for a, b, _ in spans)
    prepared = _slicing((shape, dtype), tuple(a for a, _, _ in spans), stops, tuple(s for _, _, s in spans), tuple(dims))
    return call(prepared, [x])[0]


class _Assigned(Node):
    """x[key] = value on the tape: the gradient of the value is what arrives at those places, x gets the rest."""

    __slots__ = ("key", "shape")

    def __init__(self, x: NDArray, key: Any, value: NDArray) -> None:
        super().__init__([x._entry, value._entry], 1)
        self.key, self.shape = key, value._data.shape

    def backward(self, arrived: list[NDArray | None], keep: bool) -> list[NDArray | None]:
        d = arrived[0]
        if d is None:
            return [None, None]
        if state.recording:
            raise MXNetError("a gradient of the gradient of x[...] = y is not supported; use where or concat instead")
        part = d._data[self.key]
        part = np.asarray(part)
        while part.ndim > len(self.shape):
            part = part.sum(0)
        for axis, extent in enumerate(self.shape):
            if extent == 1 and part.shape[axis] != 1:
                part = part.sum(axis, keepdims=True)
        rest = np.array(d._data)
        rest[self.key] = 0
        return [wrap(rest), wrap(np.ascontiguousarray(part).reshape(self.shape))]


def put(x: NDArray, key: Any, value: Any) -> None:
    """x[key] = value, in place: everything that shares the memory sees it."""
    from diptych.mxnet.ndarray.ndarray import NDArray

    key = normal_key(key, state.np_array)
    if state.recording and x._entry is not None:
        raise MXNetError("an array cannot be written (+=, x[:] = y) while autograd.record() is on: make a new one, or write under pause()")
    settle()
    raw = value._data if isinstance(value, NDArray) else np.asarray(value)
    if raw.dtype == object:
        raise TypeError(f"x[...] = {type(value)}: numbers and arrays can be assigned")
    try:
        with np.errstate(all="ignore"):
            x._data[key] = raw.astype(x._data.dtype, copy=False)
    except ValueError:
        where = x._data[key]
        squeezed = raw.reshape(raw.shape[raw.ndim - np.ndim(where) :]) if raw.ndim > np.ndim(where) else None
        if raw.size == np.size(where) and raw.size == 1:
            x._data[key] = raw.reshape(np.shape(where))
        elif squeezed is not None and squeezed.size == raw.size:
            x._data[key] = squeezed
        else:
            raise ValueError(
                f"could not broadcast input array from shape {raw.shape} into shape {np.shape(where)}"
            ) from None
    if state.recording and isinstance(value, NDArray) and value._entry is not None:
        x._entry = Entry(_Assigned(x, key, value), 0)
