"""NDArray: MXNet's array. Its memory is a C-contiguous NumPy array; slices and reshapes share it."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import DiptychError
from diptych.frontends.mxnet.convert_shape import reshaped
from diptych.ir import TensorType
from diptych.ir.types import numpy_dtype
from diptych.mxnet.base import MXNetError, dtype_name
from diptych.mxnet.context import Context, cpu, current_context, usable
from diptych.mxnet.imperative import call, invoke, type_of, wrap
from diptych.mxnet.ndarray import indexing
from diptych.mxnet.ndarray.arithmetic import Arithmetic
from diptych.mxnet.ndarray.fluent import Fluent
from diptych.mxnet.ndarray.taped import Taped
from diptych.mxnet.ops.fixed import Seal
from diptych.mxnet.ops.prepare import Prepared
from diptych.mxnet.tape import CallNode, settle, state
from diptych.ops.build import Builder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diptych.ir import Array
    from diptych.mxnet.tape import Entry

__all__ = ["NDArray", "py_slice", "waitall"]

# MXNet's numbers of storage types, as variables of symbols carry them.
_STORAGE_TYPE_STR_TO_ID = {"undefined": -1, "default": 0, "row_sparse": 1, "csr": 2}

py_slice = slice  # what scripts call the builtin where `slice` is the operator


class NDArray(Arithmetic, Fluent, Taped):
    """An n-dimensional array with MXNet's semantics.

    >>> from diptych.mxnet import nd
    >>> x = nd.array([[1, 2], [3, 4]])
    >>> (x + 1).sum().asscalar().item(), x[1].shape, x.dtype.__name__
    (14.0, (2,), 'float32')
    """

    __slots__ = ("__weakref__", "_array", "_ctx", "_entry", "_fresh", "_grad", "_pending")
    __array_priority__ = 1000.0
    _array: Array | None  # None while the value is still to be computed
    _pending: tuple[CallNode | Seal, int] | None
    _entry: Entry | None
    _grad: NDArray | None
    _ctx: Context | None

    def __init__(self, handle: Any = None, writable: bool = True) -> None:
        self._data = np.zeros(()) if handle is None else np.ascontiguousarray(getattr(handle, "_data", handle))
        self._entry = None
        self._grad = None
        self._ctx = None

    @property
    def _data(self) -> Array:
        """The memory; a value that waits is computed now."""
        array = self._array
        if array is None:
            assert self._pending is not None
            node, index = self._pending
            node.run()
            array = self._array
            if array is None and isinstance(node, CallNode):  # the call was carried out before this array came to show its result
                assert node.results is not None
                array = self._array = node.results[index]
                self._pending = None
            assert array is not None
        return array

    @_data.setter
    def _data(self, array: Array) -> None:
        self._array, self._pending = array, None

    def _waits(self) -> bool:
        """Whether the value is still to be computed; one that is only sealed (see `ops.fixed`) is at hand from here on."""
        if self._array is None and isinstance(self._pending[0], Seal):  # type: ignore[index]
            self._pending[0].run()  # type: ignore[index]
        return self._array is None

    def _promised_type(self) -> tuple[tuple[int, ...], str]:
        """Shape and IR dtype of a value that waits."""
        assert self._pending is not None
        node, index = self._pending
        found = node.prepared.out_types[index]
        return found.shape, found.dtype

    # -- what it is -------------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        """The extents."""
        return tuple(self._array.shape) if self._array is not None else self._promised_type()[0]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def dtype(self) -> Any:
        """The element type, as NumPy's scalar class."""
        return self._array.dtype.type if self._array is not None else numpy_dtype(self._promised_type()[1]).type

    @property
    def stype(self) -> str:
        """The storage type: "default", arrays are dense."""
        return "default"

    @property
    def context(self) -> Context:
        """Where the array lives."""
        return self._ctx or cpu(0)

    ctx = context

    @property
    def handle(self) -> NDArray:
        """The array itself: there is no library behind it that would hold one."""
        return self

    @property
    def writable(self) -> bool:
        """Whether the array can be written to."""
        return True

    @property
    def T(self) -> NDArray:
        """The array with its axes reversed."""
        return self if self.ndim < 2 else invoke("transpose", [self], {})

    def __len__(self) -> int:
        if not self._data.ndim:
            raise TypeError("len() of an array without axes")
        return int(self._data.shape[0])

    def __iter__(self) -> Iterator[NDArray]:
        for i in range(len(self)):
            yield self[i]

    def __bool__(self) -> bool:
        if self.size == 0:
            return False
        if self.size == 1:
            return bool(self._data.reshape(-1)[0])
        raise ValueError(f"whether {self.shape} elements are true is not one answer: sum() or asnumpy() and any() or all()")

    def __float__(self) -> float:
        return float(self.asscalar())

    def __int__(self) -> int:
        return int(self.asscalar())

    def __index__(self) -> int:
        if self._data.dtype.kind not in "iu" or self.size != 1:
            raise TypeError("only integer arrays of one element can be used as an index")
        return int(self.asscalar())

    def __repr__(self) -> str:
        extents = "x".join(map(str, self.shape))
        return f"\n{self.asnumpy()}\n<{type(self).__name__} {extents} @{self.context}>"

    # -- parts ------------------------------------------------------------------------------------------------
    def __getitem__(self, key: Any) -> NDArray:
        return indexing.get(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        indexing.put(self, key, value)

    def _at(self, idx: int) -> NDArray:
        return self[idx]

    def _slice(self, start: int, stop: int) -> NDArray:
        return self[start:stop]

    def slice_assign(self, rhs: NDArray, begin: Any, end: Any, step: Any) -> NDArray:
        """Write `rhs` into a slice of the array, in place."""
        self[tuple(slice(b, e, s) for b, e, s in zip(begin, end, step or [None] * len(begin)))] = rhs
        return self

    def slice_assign_scalar(self, value: float, begin: Any, end: Any, step: Any) -> NDArray:
        """Write a number into a slice of the array, in place."""
        self[tuple(slice(b, e, s) for b, e, s in zip(begin, end, step or [None] * len(begin)))] = value
        return self

    def _viewed(self, shape: tuple[int, ...]) -> NDArray:
        """The same memory in another shape, recorded as a reshape."""
        if not state.recording or self._entry is None:
            return wrap(self._data.reshape(shape))
        if self._waits():
            return call(_reshaping(self._promised_type(), shape), [self])[0]
        return indexing.view(self, self._data.reshape(shape), _reshaping(type_of(self._data), shape))

    def reshape(self, *shape: Any, **kwargs: Any) -> NDArray:
        """The same memory in another shape; the codes 0, -1, -2, -3, -4 are those of the operator Reshape."""
        if len(shape) == 1 and isinstance(shape[0], (list, tuple)):
            shape = tuple(shape[0])
        elif not shape:
            shape = kwargs.get("shape", ())
            if not shape and "shape" not in kwargs:
                raise MXNetError("reshape: give a shape")
        if unknown := set(kwargs) - {"shape", "reverse"}:
            raise TypeError(f"reshape takes no {', '.join(sorted(unknown))}, but "
                            "shape and reverse")  # fmt: skip
        codes = tuple(int(d) for d in ((shape,) if isinstance(shape, int) else shape))
        if not codes and self.size == 1:
            return self._viewed(())
        try:
            return self._viewed(reshaped(codes, self.shape, bool(kwargs.get("reverse", False))))
        except DiptychError as error:
            raise ValueError(str(error)) from error

    def expand_dims(self, axis: int, inplace: bool = False) -> NDArray:
        """An axis of extent 1 put in at `axis`."""
        if not inplace:
            return invoke("expand_dims", [self], {"axis": str(axis)})  # type: ignore[no-any-return]
        axis = axis + self.ndim + 1 if axis < 0 else axis
        return self._viewed((*self.shape[:axis], 1, *self.shape[axis:]))

    def flatten(self, inplace: bool = False, **kwargs: Any) -> NDArray:
        """The array as a matrix: the first axis and all others."""
        return self._viewed((self.shape[0], -1)) if inplace else invoke("Flatten", [self], {})

    def squeeze(self, axis: Any = None, inplace: bool = False) -> NDArray:
        """The array without axes of extent 1."""
        if not inplace:
            return invoke("squeeze", [self], {} if axis is None else {"axis": str(axis)})  # type: ignore[no-any-return]
        shape = np.squeeze(self._data, axis if not isinstance(axis, list) else tuple(axis)).shape
        return self._viewed(shape or (1,))

    # -- values -----------------------------------------------------------------------------------------------
    def asnumpy(self) -> Array:
        """A copy of the values as a NumPy array."""
        return np.array(self._data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self._data, dtype=dtype)

    def asscalar(self) -> Any:
        """The value of an array of one element."""
        if self.size != 1:
            raise ValueError(f"asscalar is for one element, not for {self.shape}")
        return self._data.reshape(-1)[0]

    item = asscalar

    def tolist(self) -> Any:
        """The values as nested lists."""
        return self._data.tolist()

    def wait_to_read(self) -> None:
        """Wait until the value is there; values are there when a call returns."""

    wait_to_write = wait_to_read

    def astype(self, dtype: Any, copy: bool = True) -> NDArray:
        """The array with another element type; itself when that is right already and copy=False."""
        name = dtype_name(dtype)
        if not copy and name == self._data.dtype.name:
            return self
        return invoke("Cast", [self], {"dtype": name})  # type: ignore[no-any-return]

    def copy(self) -> NDArray:
        """A copy in memory of its own."""
        return invoke("_copy", [self], {})  # type: ignore[no-any-return]

    def copyto(self, other: NDArray | Context) -> NDArray:
        """Copy the values into another array, or to a context."""
        if isinstance(other, Context):
            made = wrap(np.array(self._data))
            made._ctx = usable(other)
            return made
        if not isinstance(other, NDArray):
            raise TypeError(f"copyto takes an NDArray or a Context, not {type(other)}")
        if other is self:
            return other
        settle()
        if other._data.shape != self._data.shape:
            raise MXNetError(f"copyto: an array of shape {self.shape} cannot be copied into one of {other.shape}")
        other._data[...] = self._data
        return other

    def as_in_context(self, context: Context) -> NDArray:
        """The array itself when it is there already, a copy otherwise."""
        return self if context == self.context else self.copyto(context)

    as_in_ctx = as_in_context

    def tostype(self, stype: str) -> NDArray:
        """The array in another storage type."""
        if stype == "default":
            return self
        from diptych.mxnet.ndarray.sparse import cast_storage

        return cast_storage(self, stype)

    def as_nd_ndarray(self) -> NDArray:
        """The same memory and tape entry as a plain NDArray."""
        return self._as(NDArray)

    def as_np_ndarray(self) -> NDArray:
        """The same memory and tape entry as an `mx.np.ndarray`."""
        from diptych.mxnet.numpy.multiarray import ndarray

        return self._as(ndarray)

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.__getstate__())

    def __getstate__(self) -> dict[str, Any]:
        from diptych.frontends.mxnet.params_writer import save_record

        return {"handle": bytearray(save_record(self._data))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from diptych.mxnet.ndarray.serialize import record_value

        raw = state["handle"]
        self.__init__(None if raw is None else record_value(bytes(raw)))  # type: ignore[misc]

    def __copy__(self) -> NDArray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> NDArray:
        made = type(self).__new__(type(self))
        made._data, made._entry, made._grad, made._ctx = np.array(self._data), None, None, self._ctx
        return made

    def to_dlpack_for_read(self) -> Any:
        """The array as a DLPack capsule, on the same memory."""
        return self._data.__dlpack__()

    to_dlpack_for_write = to_dlpack_for_read

    @staticmethod
    def _basic_indexing_slice_is_contiguous(key: Any, shape: tuple[int, ...]) -> bool:
        return indexing.is_contiguous(key, shape)

    def _sync_copyfrom(self, source: Any) -> None:
        array = np.asarray(source, self._data.dtype)
        if array.shape != self.shape:
            raise ValueError(f"Shape inconsistent: expected {array.shape} vs got {self.shape}")
        settle()
        self._data[...] = array

    def _full(self, value: float) -> NDArray:
        settle()
        self._data[...] = value
        return self

    def _to_shared_mem(self) -> Any:
        raise MXNetError("arrays are not kept in shared memory; pickle the array instead")


@lru_cache(maxsize=4096)
def _reshaping(x: tuple[tuple[int, ...], str], shape: tuple[int, ...]) -> Prepared:
    g = Builder("reshape")
    return Prepared(g.finish([g.reshape(g.input("x0", TensorType(*x)), shape)]), 1)


def _rebuild(cls: type[NDArray], content: dict[str, Any]) -> NDArray:
    made = cls.__new__(cls)
    made.__setstate__(content)
    return made


def waitall() -> None:
    """Do all work that still waits; its errors surface here."""
    from diptych.mxnet.tape import settle

    settle(strict=True)


def context_for_new(ctx: Context | str | None) -> Context | None:
    """The context to note on a new array: None for the usual cpu(0)."""
    chosen = usable(current_context() if ctx is None else ctx if isinstance(ctx, Context) else Context(ctx))
    return None if chosen == cpu(0) else chosen


