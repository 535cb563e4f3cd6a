"""Element types and tensor types: the values of a Graph are described by these and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Literal, cast

import numpy as np

from diptych.errors import TypeRuleError

__all__ = ["DTYPES", "DType", "TensorType", "dtype_of", "itemsize", "numpy_dtype"]

DType = Literal["f32", "f64", "f16", "bf16", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "bool"]

# bf16 has no NumPy twin: its arrays are kept as the raw 16-bit patterns.
_NUMPY: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(np.uint16),
    "i8": np.dtype(np.int8),
    "u8": np.dtype(np.uint8),
    "i16": np.dtype(np.int16),
    "u16": np.dtype(np.uint16),
    "i32": np.dtype(np.int32),
    "u32": np.dtype(np.uint32),
    "i64": np.dtype(np.int64),
    "u64": np.dtype(np.uint64),
    "bool": np.dtype(np.bool_),
}
_FROM_NUMPY: dict[np.dtype[Any], str] = {v: k for k, v in _NUMPY.items() if k != "bf16"}
DTYPES: tuple[str, ...] = tuple(_NUMPY)

MAX_ELEMENTS = 1 << 48  # a shape past this is a lie of the file, not a tensor of ours


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The NumPy dtype that stores `dtype` (bf16 is stored as uint16 bit patterns)."""
    try:
        return _NUMPY[dtype]
    except KeyError:
        raise TypeRuleError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}") from None


def dtype_of(array: np.ndarray[Any, Any] | np.dtype[Any]) -> DType:
    """The IR dtype of a NumPy array or dtype."""
    dt = array if isinstance(array, np.dtype) else array.dtype
    name = _FROM_NUMPY.get(dt.newbyteorder("="))
    if name is None:
        raise TypeRuleError(f"arrays of dtype {dt} are not supported; convert to one of {', '.join(DTYPES)}")
    return cast(DType, name)


def itemsize(dtype: str) -> int:
    """Bytes of one element."""
    return numpy_dtype(dtype).itemsize


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape (all extents known, zero allowed) and dtype of a dense tensor.

    >>> TensorType((2, 3), "f32").nbytes
    24
    """

    shape: tuple[int, ...]
    dtype: str = "f32"

    def __post_init__(self) -> None:
        numpy_dtype(self.dtype)
        for d in self.shape:
            if type(d) is not int or d < 0:
                raise TypeRuleError(f"shape {self.shape!r}: every extent must be a Python int >= 0")
        if prod(self.shape) > MAX_ELEMENTS:
            raise TypeRuleError(f"shape {self.shape!r} has more than 2^48 elements")

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * itemsize(self.dtype)

    def with_shape(self, shape: tuple[int, ...]) -> TensorType:
        return TensorType(tuple(shape), self.dtype)

    def with_dtype(self, dtype: str) -> TensorType:
        return TensorType(self.shape, dtype)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"
