"""Functions of `mx.nd` beside the generated ones: creation, joining, splitting, arithmetic by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet.base import MXNetError, dtype_name, mx_real_t
from diptych.mxnet.context import Context
from diptych.mxnet.imperative import invoke, wrap
from diptych.mxnet.ndarray.arithmetic import FUNCTIONS, binary
from diptych.mxnet.ndarray.ndarray import NDArray, context_for_new
from diptych.mxnet.profiling import recorder
from diptych.mxnet.tape import state

__all__ = [
    "arange", "array", "concatenate", "empty", "eye", "from_numpy", "full", "histogram", "imdecode", "linspace",
    "from_dlpack", "moveaxis", "onehot_encode", "ones", "split_v2", "to_dlpack_for_read", "to_dlpack_for_write", "zeros",
    *FUNCTIONS,
]  # fmt: skip


def _dtype(dtype: Any) -> np.dtype[Any]:
    name = dtype_name(mx_real_t if dtype is None else dtype)
    if name == "bfloat16":
        raise MXNetError("arrays of bfloat16 are not supported; use float32")
    return np.dtype(name)


def _new(data: np.ndarray[Any, Any], ctx: Context | str | None) -> NDArray:
    made = wrap(data)
    made._ctx = context_for_new(ctx)
    return made


def _shape(shape: Any) -> tuple[int, ...]:
    dims = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(d) for d in shape)
    if not state.np_shape and not state.np_array and 0 in dims:
        raise MXNetError(f"shape {dims} has an unknown extent (0); empty arrays need mx.util.np_shape()")
    if any(d < 0 for d in dims):
        raise MXNetError(f"shape {dims} has a negative extent")
    return dims


def array(source_array: Any, ctx: Context | None = None, dtype: Any = None) -> NDArray:
    """An array with these values: of the source's type if that is an NDArray, of float32 for everything else."""
    if isinstance(source_array, NDArray):
        dtype = source_array.dtype if dtype is None else dtype
        return _new(np.array(source_array._data, _dtype(dtype), order="C"), ctx)
    if type(source_array).__module__.startswith("scipy.sparse"):
        from diptych.mxnet.ndarray import sparse

        return sparse.array(source_array, ctx, dtype)
    dtype = mx_real_t if dtype is None else dtype
    if not isinstance(source_array, np.ndarray):
        try:
            if isinstance(source_array, (list, tuple)) and any(isinstance(s, NDArray) for s in source_array):
                source_array = [s.asnumpy() if isinstance(s, NDArray) else s for s in source_array]
            source_array = np.array(source_array, dtype=_dtype(dtype))
        except (ValueError, TypeError) as error:
            raise TypeError("array: NumPy can make no array of this") from error
    made = np.array(source_array, _dtype(dtype), order="C")
    return _new(made, ctx)


class _Memory:
    """The memory of an array as a writable one, whatever its flags say."""

    def __init__(self, of: np.ndarray[Any, Any]) -> None:
        described = dict(of.__array_interface__)
        described["data"] = (described["data"][0], False)
        self.of, self.__array_interface__ = of, described


def from_numpy(ndarray: Any, zero_copy: bool = True, array_cls: type[NDArray] = NDArray) -> NDArray:
    """An NDArray of a NumPy array; with zero_copy on its very memory, which must be C-contiguous."""
    if zero_copy:
        if not ndarray.flags.c_contiguous:
            raise ValueError("from_numpy(zero_copy=True) needs a C-contiguous array: np.ascontiguousarray")
        view = np.asarray(_Memory(ndarray))  # stays writable: the memory is the NDArray's from here on
        ndarray.flags["WRITEABLE"] = False
        return wrap(view)
    return array(ndarray, dtype=ndarray.dtype)


class _Capsule:
    """What NumPy asks for, around a bare DLPack capsule."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def to_dlpack_for_read(data: NDArray) -> Any:
    """The array as a DLPack capsule, on the same memory."""
    return data._data.__dlpack__()


def to_dlpack_for_write(data: NDArray) -> Any:
    """The array as a DLPack capsule to be written to, on the same memory."""
    return data._data.__dlpack__()


def from_dlpack(dlpack: Any) -> NDArray:
    """The array of a DLPack capsule, on the same memory."""
    found = np.from_dlpack(dlpack if hasattr(dlpack, "__dlpack__") else _Capsule(dlpack))
    if not found.flags.writeable:
        found = np.array(found)
    return wrap(np.ascontiguousarray(found))


def _known(shape: Any) -> None:
    """Refuse what means an unknown shape outside of NumPy's shape rules."""
    if not state.np_shape and isinstance(shape, (tuple, list)) and not shape:
        raise MXNetError("the shape () is an unknown one; a scalar needs `with mx.np_shape():` (an array of one element is (1,))")


def zeros(shape: Any, ctx: Context | None = None, dtype: Any = None, stype: str | None = None, **kwargs: Any) -> NDArray:
    """Zeros."""
    if stype not in (None, "default"):
        from diptych.mxnet.ndarray import sparse

        return sparse.zeros(stype, shape, ctx, dtype)
    out = kwargs.get("out")
    if out is not None:
        return out._full(0)  # type: ignore[no-any-return]
    _known(shape)
    with recorder.timed("_zeros"):
        return _new(np.zeros(_shape(shape), _dtype(dtype)), ctx)


def ones(shape: Any, ctx: Context | None = None, dtype: Any = None, **kwargs: Any) -> NDArray:
    """Ones."""
    out = kwargs.get("out")
    if out is not None:
        return out._full(1)  # type: ignore[no-any-return]
    _known(shape)
    with recorder.timed("_ones"):
        return _new(np.ones(_shape(shape), _dtype(dtype)), ctx)


def empty(shape: Any, ctx: Context | None = None, dtype: Any = None, stype: str | None = None) -> NDArray:
    """An array whose values are not told (zeros, in fact)."""
    return zeros(shape, ctx, dtype, stype)


def full(shape: Any, val: Any, ctx: Context | None = None, dtype: Any = mx_real_t, out: NDArray | None = None) -> NDArray:
    """One value everywhere."""
    made = empty(shape, ctx, dtype) if out is None else out
    with recorder.timed("_full"):
        made[:] = val
    return made


def arange(start: float, stop: float | None = None, step: float = 1.0, repeat: int = 1, infer_range: bool | None = None,
           ctx: Context | None = None, dtype: Any = mx_real_t) -> NDArray:  # fmt: skip
    """Evenly spaced values in [start, stop), each `repeat` times."""
    if stop is None:
        start, stop = 0, start
    values: Any = np.arange(start, stop, step, dtype=np.float64)
    kind = np.dtype(_dtype(dtype))
    if kind.kind in "iu":  # as in MXNet, start and step are integers then; the count is that of the real ones
        values = int(start) + int(step) * np.arange(len(values))
    return _new(np.repeat(values, repeat).astype(kind), ctx)


def linspace(start: float, stop: float, num: int, endpoint: bool = True, ctx: Context | None = None,
             dtype: Any = mx_real_t) -> NDArray:  # fmt: skip
    """`num` evenly spaced values from start to stop."""
    return _new(np.linspace(start, stop, int(num), endpoint).astype(_dtype(dtype)), ctx)


def eye(N: int, M: int = 0, k: int = 0, ctx: Context | None = None, dtype: Any = None, **kwargs: Any) -> NDArray:
    """Ones on the k-th diagonal."""
    return _new(np.eye(N, M or None, k, dtype=_dtype(dtype)), ctx)


def moveaxis(tensor: NDArray, source: Any, destination: Any) -> NDArray:
    """The array with some axes moved to other places."""
    try:
        order = np.moveaxis(np.empty((1,) * tensor.ndim).reshape((1,) * tensor.ndim), source, destination)
        del order
        axes = list(range(tensor.ndim))
        src = [source] if isinstance(source, int) else list(source)
        dst = [destination] if isinstance(destination, int) else list(destination)
        src = [s % tensor.ndim for s in src]
        dst = [d % tensor.ndim for d in dst]
    except np.exceptions.AxisError as error:
        raise ValueError(str(error)) from error
    rest = [a for a in axes if a not in src]
    for d, s in sorted(zip(dst, src)):
        rest.insert(d, s)
    return invoke("transpose", [tensor], {"axes": str(tuple(rest))})  # type: ignore[no-any-return]


def concatenate(arrays: list[NDArray], axis: int = 0, always_copy: bool = True) -> NDArray:
    """The arrays joined along an axis."""
    if not isinstance(arrays, list) or not arrays or not all(isinstance(a, NDArray) for a in arrays):
        raise TypeError("concatenate takes a list of NDArrays")
    if len(arrays) == 1 and not always_copy:
        return arrays[0]
    return invoke("Concat", arrays, {"num_args": str(len(arrays)), "dim": str(axis)})  # type: ignore[no-any-return]


def split_v2(ary: Any, indices_or_sections: Any, axis: int = 0, squeeze_axis: bool = False) -> Any:
    """The array in parts along an axis: equal ones, or cut at the given places."""
    attrs = {"axis": str(axis), "squeeze_axis": str(squeeze_axis)}
    if isinstance(indices_or_sections, int):
        sections = indices_or_sections
        if ary.shape[axis] % sections:
            raise ValueError(f"split_v2: {ary.shape} has no {indices_or_sections} equal parts along axis {axis}")
        size = ary.shape[axis] // sections
        attrs |= {"indices": str(tuple(i * size for i in range(sections))), "sections": str(sections)}
    elif isinstance(indices_or_sections, (tuple, list)):
        attrs["indices"] = str((0, *indices_or_sections))
    else:
        raise ValueError("indices_or_sections: a number of parts, or a tuple of where they begin")
    return invoke("_split_v2", [ary], attrs)


def onehot_encode(indices: NDArray, out: NDArray) -> NDArray:
    """One-hot rows of `indices`, written into `out`."""
    out._data[...] = np.eye(out.shape[1], dtype=out._data.dtype)[indices._data.astype(np.int64)]
    return out


def histogram(a: NDArray, bins: Any = 10, range: Any = None) -> Any:
    """Counts per bin and the bin edges."""
    if isinstance(bins, NDArray):
        counts, edges = np.histogram(a._data, bins._data)
    else:
        counts, edges = np.histogram(a._data, bins, range if range is not None else (a._data.min(), a._data.max()))
    return [wrap(counts.astype(np.int64)), wrap(edges.astype(a._data.dtype))]


def imdecode(str_img: bytes, clip_rect: Any = (0, 0, 0, 0), out: NDArray | None = None, index: int = 0, channels: int = 3,
             mean: Any = None) -> NDArray:  # fmt: skip
    """An error: the function was replaced by mx.image.imdecode long ago."""
    raise MXNetError("nd.imdecode is not supported; use mx.image.imdecode")


def _arithmetic(name: str, op: str) -> Any:
    def function(lhs: Any, rhs: Any) -> Any:
        return binary(op, lhs, rhs)

    function.__name__ = name
    function.__doc__ = f"Elementwise {name} of arrays and numbers, broadcast."
    return function


for _name, _op in FUNCTIONS.items():
    globals()[_name] = _arithmetic(_name, _op)
