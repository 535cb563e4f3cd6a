"""The slow path of a call: any array-like into the exact array a model takes, or an error that says what to do."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.errors import InputError
from diptych.ir.types import TensorType, numpy_dtype

__all__ = ["check_output", "check_updated", "overlapping", "to_input"]

Array = np.ndarray[Any, Any]


def to_input(name: str, wanted: TensorType, value: Any) -> Array:
    """`value` as a native, aligned, C-contiguous array of exactly the type `wanted`; copies only when it must."""
    if not isinstance(value, np.ndarray):
        if isinstance(value, np.generic) or hasattr(value, "__array__"):
            value = np.asarray(value)
        else:
            raise InputError(
                f"input {name!r}: expected an array {wanted}, got {type(value).__name__}; "
                f"convert it: numpy.asarray(value, dtype={numpy_dtype(wanted.dtype).name!r})"
            )
    array: Array = np.asarray(value)
    if array.shape != wanted.shape:
        raise InputError(
            f"input {name!r}: expected shape {list(wanted.shape)} ({wanted}), got {list(array.shape)}; "
            "reshape it, or compile the model for this shape"
        )
    dtype = numpy_dtype(wanted.dtype)
    native = array.dtype.newbyteorder("=")
    if native != dtype:
        array = _exact_cast(name, wanted, array, native)
    if array.dtype.num != dtype.num:
        array = array.astype(dtype, copy=False).view(dtype)  # int64 and long long: one layout, two type numbers
    return np.require(array, dtype, ["C", "A"]).view(np.ndarray).reshape(wanted.shape)


def _exact_cast(name: str, wanted: TensorType, array: Array, native: np.dtype[Any]) -> Array:
    dtype = numpy_dtype(wanted.dtype)
    if wanted.dtype == "bf16" and native.name == "bfloat16":
        return np.ascontiguousarray(array).view(dtype)
    integers = native.kind in "iu" and dtype.kind in "iu"
    if wanted.dtype != "bf16" and (integers or native.kind == dtype.kind) and np.can_cast(native, dtype, "safe"):
        return array.astype(dtype)
    hint = f"cast it yourself if that is meant: x.astype({dtype.name!r})"
    if wanted.dtype == "bf16":
        hint = "give bfloat16 values, or their bit patterns as uint16"
    raise InputError(f"input {name!r}: expected {wanted}, got dtype {native.name} of the same shape; {hint}")


def check_output(name: str, wanted: TensorType, array: Any) -> None:
    """InputError unless results of type `wanted` can be written straight into `array`."""
    dtype = numpy_dtype(wanted.dtype)
    if type(array) is not np.ndarray:
        raise InputError(f"output {name!r}: expected a numpy.ndarray {wanted}, got {type(array).__name__}")
    if array.shape != wanted.shape or array.dtype.num != dtype.num or not array.dtype.isnative:
        raise InputError(f"output {name!r}: expected {wanted}, got {array.dtype} {list(array.shape)}")
    if not (array.flags.c_contiguous and array.flags.aligned and array.flags.writeable):
        raise InputError(f"output {name!r}: the array must be C-contiguous, aligned and writeable; make it by numpy.empty")


def check_updated(name: str, wanted: TensorType, array: Any) -> None:
    """InputError unless `array` can be read and written as it is: an input that the model changes is never converted."""
    try:
        check_output(name, wanted, array)
    except InputError as e:
        raise InputError(f"{e} (input {name!r} is updated in place)".replace(f"output {name!r}", f"input {name!r}")) from None


def overlapping(a: Array, b: Array) -> bool:
    """Whether two contiguous arrays share bytes."""
    x, y = a.ctypes.data, b.ctypes.data
    return x < y + b.nbytes and y < x + a.nbytes and a.nbytes > 0 and b.nbytes > 0
