"""The operators +, -, *, ... of symbols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.base import NotImplementedForSymbol

if TYPE_CHECKING:
    from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["Arithmetic", "binary"]

# MXNet's older names, which also give the nodes their automatic names.
_TABLE: dict[str, tuple[str, str, str]] = {
    "add": ("_Plus", "_PlusScalar", "_PlusScalar"), "sub": ("_Minus", "_MinusScalar", "_RMinusScalar"),
    "mul": ("_Mul", "_MulScalar", "_MulScalar"), "truediv": ("_Div", "_DivScalar", "_RDivScalar"),
    "mod": ("_Mod", "_ModScalar", "_RModScalar"), "pow": ("_Power", "_PowerScalar", "_RPowerScalar"),
    "eq": ("_equal", "_equal_scalar", "_equal_scalar"), "ne": ("_not_equal", "_not_equal_scalar", "_not_equal_scalar"),
    "gt": ("_greater", "_greater_scalar", "_lesser_scalar"),
    "ge": ("_greater_equal", "_greater_equal_scalar", "_lesser_equal_scalar"),
    "lt": ("_lesser", "_lesser_scalar", "_greater_scalar"),
    "le": ("_lesser_equal", "_lesser_equal_scalar", "_greater_equal_scalar"),
    "maximum": ("_Maximum", "_MaximumScalar", "_MaximumScalar"),
    "minimum": ("_Minimum", "_MinimumScalar", "_MinimumScalar"),
    "hypot": ("_Hypot", "_HypotScalar", "_HypotScalar"),
    "logical_and": ("_logical_and", "_logical_and_scalar", "_logical_and_scalar"),
    "logical_or": ("_logical_or", "_logical_or_scalar", "_logical_or_scalar"),
    "logical_xor": ("_logical_xor", "_logical_xor_scalar", "_logical_xor_scalar"),
}  # fmt: skip
_NUMBERS = (int, float, np.generic, bool)


def binary(name: str, a: Any, b: Any) -> Any:
    """Apply a binary operator to symbols and numbers, in any combination."""
    from diptych.mxnet.symbol.register import function

    both, right, left = _TABLE[name]
    if isinstance(a, Arithmetic) and isinstance(b, Arithmetic):
        return function(both)(a, b)
    if isinstance(a, Arithmetic) and isinstance(b, _NUMBERS):
        return function(right)(a, scalar=b)
    if isinstance(b, Arithmetic) and isinstance(a, _NUMBERS):
        return function(left)(b, scalar=a)
    if isinstance(a, _NUMBERS) and isinstance(b, _NUMBERS):
        from diptych.mxnet.ndarray.arithmetic import binary as plain

        return plain(name, a, b)
    raise TypeError(f"type {type(b if isinstance(a, Arithmetic) else a)} not supported")


def _method(name: str, reverse: bool = False) -> Any:
    def method(self: Any, other: Any) -> Any:
        return binary(name, other, self) if reverse else binary(name, self, other)

    method.__name__ = f"__{'r' if reverse else ''}{name}__"
    method.__doc__ = f"Elementwise {name} of symbols of one shape, or of a symbol and a number."
    return method


def _refused(name: str) -> Any:
    def method(self: Any, other: Any) -> Any:
        raise NotImplementedForSymbol(method, name, other)

    method.__name__ = name
    method.__doc__ = "An error: symbols cannot be changed in place."
    return method


class Arithmetic:
    """The operator methods."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __add__(self, other: Any) -> Symbol: ...
        def __radd__(self, other: Any) -> Symbol: ...
        def __sub__(self, other: Any) -> Symbol: ...
        def __rsub__(self, other: Any) -> Symbol: ...
        def __mul__(self, other: Any) -> Symbol: ...
        def __rmul__(self, other: Any) -> Symbol: ...
        def __truediv__(self, other: Any) -> Symbol: ...
        def __rtruediv__(self, other: Any) -> Symbol: ...
        def __mod__(self, other: Any) -> Symbol: ...
        def __pow__(self, other: Any) -> Symbol: ...

    def __neg__(self) -> Symbol:
        return self * -1.0

    def __abs__(self) -> Symbol:
        from diptych.mxnet.symbol.register import function

        return function("abs")(self)  # type: ignore[no-any-return]

    def __hash__(self) -> int:
        return id(self) // 16

    def __bool__(self) -> bool:
        raise NotImplementedForSymbol(self.__bool__, "bool")


for _name in ("add", "sub", "mul", "truediv", "mod", "pow"):
    setattr(Arithmetic, f"__{_name}__", _method(_name))
    setattr(Arithmetic, f"__r{_name}__", _method(_name, reverse=True))
    setattr(Arithmetic, f"__i{_name}__", _refused(f"__i{_name}__"))
for _name in ("eq", "ne", "gt", "ge", "lt", "le"):
    setattr(Arithmetic, f"__{_name}__", _method(_name))
