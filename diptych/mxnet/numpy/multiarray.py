"""`mx.np.ndarray`: the array of the NumPy-like interface."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from diptych.mxnet.base import dtype_name
from diptych.mxnet.imperative import wrap
from diptych.mxnet.ndarray import indexing
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.numpy.call import as_ndarray, is_tensor, operator
from diptych.mxnet.tape import state

__all__ = ["COMPARISONS", "METHODS", "OPERATORS", "binary", "function_method", "ndarray", "operator_method"]

# Python's name -> operator on two arrays, array with a number, number with an array.
_TABLE: dict[str, tuple[str, str, str]] = {
    "add": ("_npi_add", "_npi_add_scalar", "_npi_add_scalar"),
    "sub": ("_npi_subtract", "_npi_subtract_scalar", "_npi_rsubtract_scalar"),
    "mul": ("_npi_multiply", "_npi_multiply_scalar", "_npi_multiply_scalar"),
    "truediv": ("_npi_true_divide", "_npi_true_divide_scalar", "_npi_rtrue_divide_scalar"),
    "mod": ("_npi_mod", "_npi_mod_scalar", "_npi_rmod_scalar"),
    "pow": ("_npi_power", "_npi_power_scalar", "_npi_rpower_scalar"),
    "eq": ("_npi_equal", "_npi_equal_scalar", "_npi_equal_scalar"),
    "ne": ("_npi_not_equal", "_npi_not_equal_scalar", "_npi_not_equal_scalar"),
    "gt": ("_npi_greater", "_npi_greater_scalar", "_npi_less_scalar"),
    "ge": ("_npi_greater_equal", "_npi_greater_equal_scalar", "_npi_less_equal_scalar"),
    "lt": ("_npi_less", "_npi_less_scalar", "_npi_greater_scalar"),
    "le": ("_npi_less_equal", "_npi_less_equal_scalar", "_npi_greater_equal_scalar"),
    "maximum": ("broadcast_maximum", "_maximum_scalar", "_maximum_scalar"),
    "minimum": ("broadcast_minimum", "_minimum_scalar", "_minimum_scalar"),
    "and": ("_npi_bitwise_and", "_npi_bitwise_and_scalar", "_npi_bitwise_and_scalar"),
    "or": ("_npi_bitwise_or", "_npi_bitwise_or_scalar", "_npi_bitwise_or_scalar"),
    "xor": ("_npi_bitwise_xor", "_npi_bitwise_xor_scalar", "_npi_bitwise_xor_scalar"),
    "logical_and": ("_npi_logical_and", "_npi_logical_and_scalar", "_npi_logical_and_scalar"),
    "logical_or": ("_npi_logical_or", "_npi_logical_or_scalar", "_npi_logical_or_scalar"),
    "logical_xor": ("_npi_logical_xor", "_npi_logical_xor_scalar", "_npi_logical_xor_scalar"),
    "hypot": ("_npi_hypot", "_hypot_scalar", "_hypot_scalar"),
}
_NUMBERS = (int, float, bool, np.generic)


def binary(name: str, a: Any, b: Any, out: Any = None) -> Any:
    """Apply a binary operator to arrays and numbers, in any combination."""
    both, right, left = _TABLE[name]
    if is_tensor(a) and isinstance(b, _NUMBERS):
        return operator(right, a, out=out, scalar=b.item() if isinstance(b, np.generic) else b)
    if is_tensor(b) and isinstance(a, _NUMBERS):
        return operator(left, b, out=out, scalar=a.item() if isinstance(a, np.generic) else a)
    if name == "truediv" and all(isinstance(x, NDArray) and x._data.dtype.kind in "iub" for x in (a, b)):
        a, b = operator("Cast", a, dtype="float32"), operator("Cast", b, dtype="float32")
    return operator(both, a, b, out=out)


def operator_method(name: str, reverse: bool = False) -> Any:
    """The method of a binary operator, as `__add__` and `__radd__`."""

    def method(self: Any, other: Any) -> Any:
        if not is_tensor(other) and not isinstance(other, (np.ndarray, list, tuple, *_NUMBERS)):
            return NotImplemented
        return binary(name, other, self) if reverse else binary(name, self, other)

    method.__name__ = f"__{'r' if reverse else ''}{name}__"
    return method


def _in_place(name: str) -> Any:
    def method(self: Any, other: Any) -> Any:
        self._store(binary(name, self, other))
        return self

    method.__name__ = f"__i{name}__"
    return method


class ndarray(NDArray):
    """An array with NumPy's semantics: shapes may be () or hold 0, comparisons give bool, types are promoted.

    >>> from diptych.mxnet import np
    >>> x = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> (x > 1.5).sum().item(), x.mean(axis=0).shape
    (3, (2,))
    """

    __slots__ = ()
    numpy_like = True

    def _store(self, value: NDArray) -> None:
        from diptych.mxnet.imperative import deliver

        node = value._entry.node if value._entry is not None else None
        deliver([np.broadcast_to(value._data, self._data.shape)], [self], node)

    def __getitem__(self, key: Any) -> Any:
        before = state.np_shape, state.np_array
        state.np_shape = state.np_array = True
        try:
            return indexing.get(self, key)
        finally:
            state.np_shape, state.np_array = before

    def __setitem__(self, key: Any, value: Any) -> None:
        before = state.np_shape, state.np_array
        state.np_shape = state.np_array = True
        try:
            indexing.put(self, key, value)
        finally:
            state.np_shape, state.np_array = before

    @property
    def dtype(self) -> Any:
        """The element type."""
        return self._data.dtype

    @property
    def T(self) -> ndarray:
        """The array with its axes reversed."""
        found: ndarray = self.transpose()
        return found

    def __repr__(self) -> str:
        text = np.array_repr(self._data)
        return text.replace(", dtype=float32", "") + (f" @{self.context}" if self._ctx is not None else "")

    def __str__(self) -> str:
        return str(self._data)

    def __format__(self, spec: str) -> str:
        if spec and self._data.ndim:
            raise TypeError("unsupported format string passed to mxnet.numpy.ndarray.__format__")
        return format(self._data.item(), spec) if spec else str(self)

    def __bool__(self) -> bool:
        return bool(self._data)

    def __hash__(self) -> int:
        return id(self) // 16

    def __matmul__(self, other: Any) -> Any:
        return operator("_npi_matmul" if self.ndim > 1 and other.ndim > 1 else "_np_dot", self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return as_ndarray(wrap(np.asarray(other))) @ self

    def __neg__(self) -> Any:
        return operator("_npi_negative", self)

    def __abs__(self) -> Any:
        return operator("_npi_absolute", self)

    def __invert__(self) -> Any:
        return operator("_npi_bitwise_not", self)

    def __pos__(self) -> Any:
        return self

    def item(self, *args: Any) -> Any:
        """An element as a Python number."""
        return self._data.item(*args)

    asscalar = item

    def tolist(self) -> Any:
        """The values as nested lists."""
        return self._data.tolist()

    def astype(self, dtype: Any, order: Any = "K", casting: str = "unsafe", subok: bool = True,  # type: ignore[override]
               copy: bool = True) -> Any:  # fmt: skip
        """The array with another element type."""
        name = dtype_name(dtype)
        return self if not copy and name == self._data.dtype.name else operator("Cast", self, dtype=name)

    def copy(self, order: str = "C") -> Any:
        """A copy in memory of its own."""
        if order != "C":
            raise NotImplementedError(f"order {order!r} is not supported, only 'C' is")
        return operator("_np_copy", self)

    def reshape(self, *shape: Any, order: str = "C", **kwargs: Any) -> Any:
        """The same memory in another shape; one extent may be -1."""
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
            shape = tuple(shape[0])
        dims = tuple(int(d) for d in shape)
        return as_ndarray(self._viewed(np.broadcast_to(np.int8(0), self.shape).reshape(dims).shape))

    def flatten(self, order: Any = "C", **kwargs: Any) -> Any:  # type: ignore[override]
        """A copy with one axis."""
        return self.reshape(-1).copy()

    ravel = flatten

    def transpose(self, *axes: Any, **kwargs: Any) -> Any:
        """The array with its axes permuted."""
        chosen = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        if len(set(chosen)) != len(chosen):
            raise ValueError(f"repeated axis in transpose: {tuple(chosen)}")
        return operator("_np_transpose", self, axes=tuple(chosen) if chosen and chosen[0] is not None else None)

    def expand_dims(self, axis: int, inplace: bool = False) -> Any:
        """An axis of extent 1 put in."""
        return operator("expand_dims", self, axis=axis)

    def squeeze(self, axis: Any = None, inplace: bool = False) -> Any:
        """The array without axes of extent 1."""
        return operator("_np_squeeze", self, axis=axis)

    def clip(self, min: Any = None, max: Any = None, out: Any = None, **kwargs: Any) -> Any:
        """The elements brought into a range."""
        from diptych.mxnet import numpy

        return getattr(numpy, "clip")(self, min, max, out)  # noqa: B009

    def as_np_ndarray(self) -> Any:
        """The array itself."""
        return self

    def _full(self, value: float) -> Any:
        self._data[...] = value
        return self


def function_method(name: str, package: str = "diptych.mxnet.numpy", of: str = "`mx.np.{}` of this array.") -> Any:
    """The method that calls a function of `mx.np`, or of its twin for symbols."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(package), name)(self, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = of.format(name)
    return method


OPERATORS = ("add", "sub", "mul", "truediv", "mod", "pow", "and", "or", "xor")
COMPARISONS = ("eq", "ne", "gt", "ge", "lt", "le")
METHODS = ["sum", "mean", "max", "min", "prod", "std", "var", "argmax", "argmin", "cumsum", "dot", "repeat", "take", "swapaxes", "any", "all", "round", "abs", "exp", "log", "sqrt", "square", "tile", "sort", "argsort", "nonzero", "split", "sin", "cos", "tanh", "broadcast_to", "broadcast_like", "floor", "ceil", "sign", "diag", "diagonal", "trace"]
for _name in OPERATORS:
    setattr(ndarray, f"__{_name}__", operator_method(_name))
    setattr(ndarray, f"__r{_name}__", operator_method(_name, reverse=True))
    setattr(ndarray, f"__i{_name}__", _in_place(_name))
for _name in COMPARISONS:
    setattr(ndarray, f"__{_name}__", operator_method(_name))
for _name in METHODS:
    setattr(ndarray, _name, function_method(_name))
