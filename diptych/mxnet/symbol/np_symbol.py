"""Symbols of the NumPy-like interface: the same functions and methods as `mx.np.ndarray`, building graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.mxnet.base import MXNetError, dtype_name
from diptych.mxnet.numpy import multiarray
from diptych.mxnet.numpy.call import operator
from diptych.mxnet.symbol.compose import compose
from diptych.mxnet.symbol.symbol import Symbol

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NumpySymbol", "NumpySymbolList", "apply"]


def apply(op: str, operands: Sequence[Any], attrs: dict[str, str]) -> Any:
    """The result of an operator on symbols, or the list of its results."""
    for x in operands:
        if not isinstance(x, Symbol):
            raise TypeError(f"{op}: a symbol and {type(x).__name__} do not mix; make the array a variable of the graph")
    heads = compose(op, tuple(operands), dict(attrs), Symbol)
    made = [NumpySymbol([h]) for h in heads]
    return made[0] if len(made) == 1 else made


class NumpySymbolList(list[Any]):
    """Several results of one call."""


class NumpySymbol(Symbol):
    """A symbol whose operators follow NumPy.

    >>> from diptych.mxnet import np, sym
    >>> x = sym.var("x").as_np_ndarray()
    >>> np.add(x, 1).list_arguments()
    ['x']
    """

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        if len(self._heads) > 1 or isinstance(key, str):
            return super().__getitem__(key)
        keys = key if isinstance(key, tuple) else (key,)
        if any(not isinstance(k, (int, slice)) for k in keys):
            raise MXNetError(f"a symbol is indexed with integers and slices, not {key!r}")
        begin = tuple(k if isinstance(k, int) else "None" if k.start is None else k.start for k in keys)
        end = tuple(("None" if k == -1 else k + 1) if isinstance(k, int) else "None" if k.stop is None else k.stop for k in keys)
        step = tuple(1 if isinstance(k, int) or k.step is None else k.step for k in keys)
        found = operator("slice", self, begin=begin, end=end, step=step)
        drop = tuple(i for i, k in enumerate(keys) if isinstance(k, int))
        return operator("_np_squeeze", found, axis=drop) if drop else found

    def __iter__(self) -> Any:
        if len(self._heads) == 1:
            raise TypeError("a symbol with one output is not iterable: its extent is not known")
        return super().__iter__()

    def __neg__(self) -> Any:
        return operator("_npi_negative", self)

    def __abs__(self) -> Any:
        return operator("_npi_absolute", self)

    def __invert__(self) -> Any:
        return operator("_npi_bitwise_not", self)

    def __matmul__(self, other: Any) -> Any:
        return operator("_npi_matmul", self, other)

    def __hash__(self) -> int:
        return id(self) // 16

    def as_np_ndarray(self) -> Symbol:
        """The symbol itself."""
        return self

    @property
    def T(self) -> Any:
        """The symbol with its axes reversed."""
        return operator("_np_transpose", self)

    def astype(self, dtype: Any, **kwargs: Any) -> Any:
        """The symbol with another element type."""
        return operator("Cast", self, dtype=dtype_name(dtype))

    def copy(self, order: str = "C") -> Any:
        """A copy."""
        return operator("_np_copy", self)

    def reshape(self, *shape: Any, order: str = "C", **kwargs: Any) -> Any:
        """The symbol in another shape; one extent may be -1."""
        chosen = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return operator("_np_reshape", self, newshape=chosen, order=order)

    def transpose(self, *axes: Any, **kwargs: Any) -> Any:
        """The symbol with its axes permuted."""
        chosen = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        return operator("_np_transpose", self, axes=tuple(chosen) if chosen and chosen[0] is not None else None)

    def clip(self, min: Any = None, max: Any = None, out: Any = None, **kwargs: Any) -> Any:
        """The elements brought into a range."""
        from diptych.mxnet.symbol import numpy

        return getattr(numpy, "clip")(self, min, max)  # noqa: B009

    def flatten(self, order: Any = "C", **kwargs: Any) -> Any:  # type: ignore[override]
        """The symbol with one axis."""
        return operator("_np_reshape", self, newshape=(-1,), order=order)

    ravel = flatten

    def expand_dims(self, axis: int, inplace: bool = False, **kwargs: Any) -> Any:
        """An axis of extent 1 put in."""
        return operator("expand_dims", self, axis=axis)

    def squeeze(self, axis: Any = None, inplace: bool = False, **kwargs: Any) -> Any:
        """The symbol without axes of extent 1."""
        return operator("_np_squeeze", self, axis=axis)


for _name in multiarray.METHODS:
    setattr(NumpySymbol, _name, multiarray.function_method(_name, "diptych.mxnet.symbol.numpy", "`mx.sym.np.{}` of this symbol."))
for _name in multiarray.OPERATORS:
    setattr(NumpySymbol, f"__{_name}__", multiarray.operator_method(_name))
    setattr(NumpySymbol, f"__r{_name}__", multiarray.operator_method(_name, reverse=True))
for _name in multiarray.COMPARISONS:
    setattr(NumpySymbol, f"__{_name}__", multiarray.operator_method(_name))
