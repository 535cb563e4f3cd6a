"""Functions of `mx.np` that move elements: NumPy's own function, applied to the indices, says where each one comes from."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet.imperative import wrap
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.numpy.call import as_ndarray, operator

__all__ = [
    "append", "atleast_1d", "atleast_2d", "atleast_3d", "column_stack", "delete", "diag", "diagflat", "diagonal", "dsplit",
    "fliplr", "flipud", "hsplit", "insert", "resize", "rot90", "tril", "triu", "vsplit",
]  # fmt: skip


def taken(a: Any, index: Any) -> Any:
    """a.reshape(-1)[index] for an integer array, with a gradient."""
    index = np.asarray(index, np.int64)
    if not index.size:
        return as_ndarray(a).reshape(-1)[0:0].reshape(index.shape)
    if not a.size:
        return as_ndarray(wrap(np.zeros(index.shape, a.dtype)))
    return operator("take", as_ndarray(a).reshape(-1), wrap(np.array(index, order="C")), axis=0, mode="clip")


def _places(a: Any) -> Any:
    return np.arange(a.size).reshape(a.shape)


def _moved(name: str, doc: str) -> Any:
    function = getattr(np, name)

    def call(m: Any, *args: Any, **kwargs: Any) -> Any:
        return taken(m, function(_places(m), *args, **kwargs))

    call.__name__ = name
    call.__doc__ = doc
    return call


def _filled(name: str, doc: str) -> Any:
    """As `_moved`, for functions that also put in zeros."""
    function = getattr(np, name)

    def call(v: Any, *args: Any, **kwargs: Any) -> Any:
        index = function(_places(v) + 1, *args, **kwargs)
        zero = as_ndarray(wrap(np.zeros(1, v.dtype)))
        return taken(operator("_npi_concatenate", zero, as_ndarray(v).reshape(-1), num_args=2, axis=0), index)

    call.__name__ = name
    call.__doc__ = doc
    return call


flipud = _moved("flipud", "The array with its first axis reversed.")
fliplr = _moved("fliplr", "The array with its second axis reversed.")
rot90 = _moved("rot90", "The array turned by 90 degrees in the plane of two axes.")
diagonal = _moved("diagonal", "The elements whose two indices differ by `offset`.")
resize = _moved("resize", "The elements repeated until they fill a shape.")
diagflat = _filled("diagflat", "A matrix with the elements on a diagonal.")
tril = _filled("tril", "The lower triangles, zeros above.")
triu = _filled("triu", "The upper triangles, zeros below.")
_matrix, _vector = _filled("diag", ""), _moved("diag", "")


def diag(v: Any, k: int = 0) -> Any:
    """The k-th diagonal of a matrix, or the matrix with a vector on that diagonal."""
    return _matrix(v, k) if v.ndim == 1 else _vector(v, k)


def delete(arr: Any, obj: Any, axis: int | None = None) -> Any:
    """The array without some places along an axis."""
    if isinstance(obj, NDArray):
        obj = obj._data
    if isinstance(obj, (np.ndarray, list, tuple)) and np.ndim(obj):  # as in MXNet, places outside of the array are passed over
        obj = np.asarray(obj).astype(np.int64)
        obj = obj[(obj >= 0) & (obj < (arr.size if axis is None else arr.shape[axis]))]
    return taken(arr, np.delete(_places(arr), obj, axis))


def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Any:
    """The array with values put in before some places along an axis."""
    if isinstance(obj, NDArray):
        obj = obj._data.astype(np.int64)
    values = values if isinstance(values, NDArray) else as_ndarray(wrap(np.asarray(values, arr.dtype)))
    if values.dtype != arr.dtype:
        values = values.astype(arr.dtype)
    index = np.insert(_places(arr), obj, _places(values) + arr.size, axis)
    parts = [as_ndarray(x).reshape(-1) for x in (arr, values)]
    return taken(operator("_npi_concatenate", *parts, num_args=2, axis=0), index)


def append(arr: Any, values: Any, axis: int | None = None) -> Any:
    """Arrays joined at the end of an axis."""
    return operator("_npi_concatenate", arr, values, num_args=2, axis="None" if axis is None else axis)


def column_stack(tup: Any) -> Any:
    """Vectors as columns, joined with matrices."""
    parts = list(tup)
    return operator("_npi_column_stack", *parts, num_args=len(parts))


def _at_least(rank: int) -> Any:
    def call(*arys: Any) -> Any:
        made = [as_ndarray(x).reshape(getattr(np, f"atleast_{rank}d")(np.broadcast_to(np.int8(0), x.shape)).shape) for x in arys]
        return made[0] if len(made) == 1 else made

    call.__name__ = f"atleast_{rank}d"
    call.__doc__ = f"The arrays with {rank} axes at least."
    return call


atleast_1d, atleast_2d, atleast_3d = (_at_least(i) for i in (1, 2, 3))


def _split(name: str) -> Any:
    function = getattr(np, name)

    def call(ary: Any, indices_or_sections: Any) -> Any:
        if isinstance(indices_or_sections, NDArray):
            indices_or_sections = indices_or_sections._data.tolist()
        return [taken(ary, part) for part in function(_places(ary), indices_or_sections)]

    call.__name__ = name
    call.__doc__ = f"numpy.{name}: the array in parts, as a list."
    return call


hsplit, vsplit, dsplit = _split("hsplit"), _split("vsplit"), _split("dsplit")
