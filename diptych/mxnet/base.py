"""What every part of the MXNet API shares: its exception, its names for types, small helpers."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "DTYPE_CODES", "MXNetError", "NotImplementedForSymbol", "NotSupportedForSparseNDArray", "data_dir", "dtype_name",
    "getenv", "integer_types", "mx_int", "mx_real_t", "mx_uint", "numeric_types", "py_str", "setenv", "string_types",
]  # fmt: skip


class MXNetError(RuntimeError):
    """Every error of the MXNet API: a bad argument, shapes that do not fit, something that is not supported."""


class MXNetIndexError(MXNetError, IndexError):
    """An index outside of its array."""


class _MissingMethod(MXNetError):
    """A function that some kind of operand lacks, and what it was called with."""

    def __init__(self, function: Any, alias: str | None = None, *args: Any) -> None:
        super().__init__()
        self.function = getattr(function, "__name__", str(function))
        self.alias = alias
        self.args = tuple(str(type(a)) for a in args)


class NotImplementedForSymbol(_MissingMethod):
    """A method of NDArray that a Symbol cannot have."""

    def __str__(self) -> str:
        message = f"Function {self.function}"
        if self.alias:
            message += f' (namely operator "{self.alias}")'
        if self.args:
            message += f" with arguments ({', '.join(self.args)})"
        return message + " is not implemented for Symbol and only available in NDArray."


class NotSupportedForSparseNDArray(_MissingMethod):
    """A method of NDArray that sparse arrays lack."""

    def __str__(self) -> str:
        return f"Function {self.function} is not supported for SparseNDArray"


class _Null:
    """The type of `_NullType` placeholders: an attribute that was not given."""

    def __repr__(self) -> str:
        return "_Null"


_NullType = _Null
Null = _Null()

mx_real_t = np.float32
mx_uint = int
mx_int = int
numeric_types = (float, int, np.generic)
integer_types = (int, np.int32, np.int64)
string_types = (str,)

# MXNet's codes of element types, as attributes and files spell them.
DTYPE_CODES: dict[str, int] = {
    "float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6, "bool": 7, "int16": 8,
    "uint16": 9, "uint32": 10, "uint64": 11, "bfloat16": 12,
}  # fmt: skip
CODE_DTYPES: dict[int, str] = {v: k for k, v in DTYPE_CODES.items()}


def dtype_name(dtype: Any) -> str:
    """The name of an element type given as a NumPy type, a name or MXNet's code.

    >>> dtype_name(np.float32), dtype_name("int32"), dtype_name(float)
    ('float32', 'int32', 'float64')
    """
    if isinstance(dtype, str):
        if dtype in DTYPE_CODES:
            return dtype
        if dtype.isdigit() and int(dtype) in CODE_DTYPES:
            return CODE_DTYPES[int(dtype)]
    elif isinstance(dtype, int) and not isinstance(dtype, bool):
        return CODE_DTYPES[dtype]
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        raise MXNetError(f"{dtype!r} is not an element type; known: {', '.join(DTYPE_CODES)}") from None


def py_str(x: bytes | str) -> str:
    """Text from what may be bytes."""
    return x.decode() if isinstance(x, bytes) else x


def _as_list(obj: Any) -> list[Any]:
    """A list or tuple as it is (as a list), anything else in a list of one."""
    return list(obj) if isinstance(obj, (list, tuple)) else [obj]


def data_dir_default() -> str:
    """Where data sets and pretrained parameters are looked for when MXNET_HOME is not set."""
    from pathlib import Path

    return str(Path.home() / ".mxnet")


def data_dir() -> str:
    """Where data sets and pretrained parameters are looked for: MXNET_HOME or ~/.mxnet."""
    import os

    return os.environ.get("MXNET_HOME", data_dir_default())


def getenv(name: str) -> str | None:
    """An environment variable as the engine sees it."""
    import os

    return os.environ.get(name)


def setenv(name: str, value: str | None) -> None:
    """Set an environment variable, or unset it with None."""
    import os

    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def with_metaclass(meta: type, *bases: type) -> type:
    """A base class with this metaclass (what scripts of the Python 2 days call)."""
    made: type = meta("temporary_class", bases, {})
    return made
