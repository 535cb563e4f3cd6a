"""Files of arrays: `mx.nd.save` and `mx.nd.load` in MXNet's own format."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from diptych.errors import DiptychError
from diptych.frontends.mxnet.arrays import BFloat16, Csr, RowSparse
from diptych.frontends.mxnet.params import load_params, load_record
from diptych.frontends.mxnet.params_writer import save_params
from diptych.mxnet.base import MXNetError
from diptych.mxnet.imperative import wrap
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.tape import state

__all__ = ["load", "load_frombuffer", "record_value", "save"]


def _value(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, BFloat16):
        return wrap(value.float32())
    if isinstance(value, (RowSparse, Csr)):
        from diptych.mxnet.ndarray import sparse

        return sparse.from_value(value)
    return wrap(np.array(value, order="C"))


def record_value(raw: bytes) -> Any:
    """The array in one record, as it stands in a pickled NDArray."""
    value = load_record(raw)
    return value if isinstance(value, np.ndarray) else _value(value)._data


def _shown(found: Any) -> Any:
    if isinstance(found, dict):
        return {k: _value(v) for k, v in found.items()}
    return [_value(v) for v in found]


def load(fname: str | os.PathLike[str]) -> Any:
    """The arrays of a file: a dict when they have names, else a list."""
    if not isinstance(fname, (str, os.PathLike)):
        raise TypeError("the file is given by its name, a string")
    try:
        return _shown(load_params(fname))
    except DiptychError as error:
        raise MXNetError(str(error)) from error


def load_frombuffer(buf: bytes) -> Any:
    """The arrays of a file's bytes."""
    if not isinstance(buf, (bytes, bytearray, memoryview)):
        raise TypeError("load_frombuffer takes bytes")
    try:
        return _shown(load_params(bytes(buf)))
    except DiptychError as error:
        raise MXNetError(str(error)) from error


def save(fname: str | os.PathLike[str], data: Any) -> None:
    """Write an array, a list of arrays or a dict of named arrays."""
    if isinstance(data, NDArray):
        data = [data]

    def plain(x: Any) -> Any:
        if not isinstance(x, NDArray):
            raise TypeError(f"save only accepts NDArrays, a list or a dict of them, not {type(x)}")
        return getattr(x, "_value", x._data)

    content: Any
    if isinstance(data, dict):
        if not all(isinstance(k, str) for k in data):
            raise TypeError("save: the values are NDArrays")
        content = {k: plain(v) for k, v in data.items()}
    elif isinstance(data, (list, tuple)):
        content = [plain(v) for v in data]
    else:
        raise ValueError("save: an NDArray, a list of them, or a dict of them by name")
    try:
        save_params(fname, content, np_shape=True if state.np_shape else None)
    except DiptychError as error:
        raise MXNetError(str(error)) from error
