"""`mx.np._internal`: the operators of the NumPy-like interface by their own names, without the prefix `_npi_`."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.ndarray.register import function
from diptych.mxnet.numpy.call import as_ndarray
from diptych.mxnet.ops.registry import names
from diptych.mxnet.tape import state

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    if f"_npi_{name}" not in names():
        raise AttributeError(f"module 'diptych.mxnet.numpy._internal' has no attribute {name!r}")
    classic = function(f"_npi_{name}")

    def call(*args: Any, **kwargs: Any) -> Any:
        before, state.np_shape = state.np_shape, True
        try:
            found = classic(*args, **kwargs)
        finally:
            state.np_shape = before
        return [as_ndarray(x) for x in found] if isinstance(found, list) else as_ndarray(found)

    call.__name__ = name
    call.__doc__ = classic.__doc__
    return call
