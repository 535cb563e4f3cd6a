"""The operators +, -, *, ... of arrays, and the functions of the same meaning (`nd.add`, `nd.maximum`, ...)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.imperative import invoke
from diptych.mxnet.tape import state

if TYPE_CHECKING:
    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["FUNCTIONS", "Arithmetic", "binary"]

# Python's name -> operator on two arrays, array with a number, number with an array.
_TABLE: dict[str, tuple[str, str, str]] = {
    "add": ("broadcast_add", "_plus_scalar", "_plus_scalar"),
    "sub": ("broadcast_sub", "_minus_scalar", "_rminus_scalar"),
    "mul": ("broadcast_mul", "_mul_scalar", "_mul_scalar"),
    "truediv": ("broadcast_div", "_div_scalar", "_rdiv_scalar"),
    "mod": ("broadcast_mod", "_mod_scalar", "_rmod_scalar"),
    "pow": ("broadcast_power", "_power_scalar", "_rpower_scalar"),
    "eq": ("broadcast_equal", "_equal_scalar", "_equal_scalar"),
    "ne": ("broadcast_not_equal", "_not_equal_scalar", "_not_equal_scalar"),
    "gt": ("broadcast_greater", "_greater_scalar", "_lesser_scalar"),
    "ge": ("broadcast_greater_equal", "_greater_equal_scalar", "_lesser_equal_scalar"),
    "lt": ("broadcast_lesser", "_lesser_scalar", "_greater_scalar"),
    "le": ("broadcast_lesser_equal", "_lesser_equal_scalar", "_greater_equal_scalar"),
    "maximum": ("broadcast_maximum", "_maximum_scalar", "_maximum_scalar"),
    "minimum": ("broadcast_minimum", "_minimum_scalar", "_minimum_scalar"),
    "hypot": ("broadcast_hypot", "_hypot_scalar", "_hypot_scalar"),
    "logical_and": ("broadcast_logical_and", "_logical_and_scalar", "_logical_and_scalar"),
    "logical_or": ("broadcast_logical_or", "_logical_or_scalar", "_logical_or_scalar"),
    "logical_xor": ("broadcast_logical_xor", "_logical_xor_scalar", "_logical_xor_scalar"),
}

FUNCTIONS: dict[str, str] = {
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "truediv", "true_divide": "truediv", "modulo": "mod",
    "power": "pow", "maximum": "maximum", "minimum": "minimum", "equal": "eq", "not_equal": "ne", "greater": "gt",
    "greater_equal": "ge", "lesser": "lt", "lesser_equal": "le", "logical_and": "logical_and",
    "logical_or": "logical_or", "logical_xor": "logical_xor",
}  # fmt: skip

_PLAIN: dict[str, Any] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "truediv": lambda a, b: a / b,
    "mod": lambda a, b: a % b, "pow": lambda a, b: a**b, "maximum": max, "minimum": min,
    "eq": lambda a, b: float(a == b), "ne": lambda a, b: float(a != b), "gt": lambda a, b: float(a > b),
    "ge": lambda a, b: float(a >= b), "lt": lambda a, b: float(a < b), "le": lambda a, b: float(a <= b),
    "logical_and": lambda a, b: float(bool(a) and bool(b)), "logical_or": lambda a, b: float(bool(a) or bool(b)),
    "logical_xor": lambda a, b: float(bool(a) != bool(b)),
}  # fmt: skip

_NUMBERS = (int, float, np.generic, bool)


def _text(number: Any) -> str:
    return repr(number.item() if isinstance(number, np.generic) else number)


def binary(name: str, a: Any, b: Any, out: Any = None) -> Any:
    """Apply a binary operator to arrays and numbers, in any combination.

    As in MXNet, classic arrays give a classic one also while `mx.np.ndarray`s are made.
    """
    found = _binary(name, a, b, out)
    if state.np_array and out is None and isinstance(found, Arithmetic) and not any(getattr(x, "numpy_like", False) for x in (a, b)):
        return found.as_nd_ndarray()  # type: ignore[attr-defined]
    return found


def _binary(name: str, a: Any, b: Any, out: Any) -> Any:
    both, right, left = _TABLE[name]
    if isinstance(a, Arithmetic):
        if isinstance(b, Arithmetic):
            return invoke(both, [a, b], {}, out)  # type: ignore[list-item]
        if isinstance(b, _NUMBERS):
            return invoke(right, [a], {"scalar": _text(b)}, out)  # type: ignore[list-item]
        if isinstance(b, np.ndarray):
            from diptych.mxnet.ndarray.create import array

            return invoke(both, [a, array(b, dtype=a._data.dtype)], {}, out)  # type: ignore[attr-defined,list-item]
        return NotImplemented
    if isinstance(b, Arithmetic) and isinstance(a, _NUMBERS):
        return invoke(left, [b], {"scalar": _text(a)}, out)  # type: ignore[list-item]
    if isinstance(a, _NUMBERS) and isinstance(b, _NUMBERS):
        return _PLAIN[name](a, b)
    raise TypeError(f"{name} of {type(a)} and {type(b)} is not supported")


class Arithmetic:
    """The operator methods."""

    __slots__ = ()
    numpy_like = False  # whether the array is one of the NumPy-like interface

    def __add__(self, other: Any) -> NDArray:
        return binary("add", self, other)  # type: ignore[no-any-return]

    def __sub__(self, other: Any) -> NDArray:
        return binary("sub", self, other)  # type: ignore[no-any-return]

    def __mul__(self, other: Any) -> NDArray:
        return binary("mul", self, other)  # type: ignore[no-any-return]

    def __truediv__(self, other: Any) -> NDArray:
        return binary("truediv", self, other)  # type: ignore[no-any-return]

    def __mod__(self, other: Any) -> NDArray:
        return binary("mod", self, other)  # type: ignore[no-any-return]

    def __pow__(self, other: Any) -> NDArray:
        return binary("pow", self, other)  # type: ignore[no-any-return]

    def __radd__(self, other: Any) -> NDArray:
        return binary("add", other, self)  # type: ignore[no-any-return]

    def __rsub__(self, other: Any) -> NDArray:
        return binary("sub", other, self)  # type: ignore[no-any-return]

    def __rmul__(self, other: Any) -> NDArray:
        return binary("mul", other, self)  # type: ignore[no-any-return]

    def __rtruediv__(self, other: Any) -> NDArray:
        return binary("truediv", other, self)  # type: ignore[no-any-return]

    def __rmod__(self, other: Any) -> NDArray:
        return binary("mod", other, self)  # type: ignore[no-any-return]

    def __rpow__(self, other: Any) -> NDArray:
        return binary("pow", other, self)  # type: ignore[no-any-return]

    def __neg__(self) -> NDArray:
        return self * -1.0

    def __abs__(self) -> NDArray:
        return invoke("abs", [self], {})  # type: ignore[no-any-return,list-item]

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, (Arithmetic, np.ndarray, *_NUMBERS)):
            return False
        return binary("eq", self, other)

    def __ne__(self, other: object) -> Any:
        if not isinstance(other, (Arithmetic, np.ndarray, *_NUMBERS)):
            return True
        return binary("ne", self, other)

    def __gt__(self, other: Any) -> NDArray:
        return binary("gt", self, other)  # type: ignore[no-any-return]

    def __ge__(self, other: Any) -> NDArray:
        return binary("ge", self, other)  # type: ignore[no-any-return]

    def __lt__(self, other: Any) -> NDArray:
        return binary("lt", self, other)  # type: ignore[no-any-return]

    def __le__(self, other: Any) -> NDArray:
        return binary("le", self, other)  # type: ignore[no-any-return]

    def __hash__(self) -> int:
        return id(self) // 16

    def _in_place(self, name: str, other: Any) -> NDArray:
        result = binary(name, self, other, self)
        if result is NotImplemented:
            raise TypeError(f"{name} in place with {type(other)} is not supported")
        return self  # type: ignore[return-value]

    def __iadd__(self, other: Any) -> NDArray:
        return self._in_place("add", other)

    def __isub__(self, other: Any) -> NDArray:
        return self._in_place("sub", other)

    def __imul__(self, other: Any) -> NDArray:
        return self._in_place("mul", other)

    def __itruediv__(self, other: Any) -> NDArray:
        return self._in_place("truediv", other)

    def __imod__(self, other: Any) -> NDArray:
        return self._in_place("mod", other)
