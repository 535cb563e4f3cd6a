"""States of optimizers in MXNet's pickle format, written so that MXNet reads them, read without running foreign code."""

from __future__ import annotations

import copyreg
import importlib
import io
import pickle
import pickletools
from typing import Any

from diptych.mxnet.base import MXNetError

__all__ = ["dumps", "loads"]

_OURS = "diptych.mxnet"


class _Pickler(pickle.Pickler):
    """Arrays as MXNet has them: a new object of the class, whose state is one record of a file of arrays."""

    def reducer_override(self, obj: Any) -> Any:
        from diptych.mxnet.ndarray.ndarray import NDArray

        if isinstance(obj, NDArray):
            return copyreg.__newobj__, (type(obj),), obj.__getstate__()  # type: ignore[attr-defined]
        return NotImplemented


def _their_name(module: str, name: str) -> tuple[str, str]:
    """Where MXNet has a class of ours."""
    module = "mxnet" + module.removeprefix(_OURS)
    if module.startswith("mxnet.optimizer.") and module != "mxnet.optimizer.contrib":
        module = "mxnet.optimizer.optimizer"
    return module, name


def dumps(value: Any) -> bytes:
    """The pickle of states (with or without the optimizer), with classes named as in MXNet."""
    file = io.BytesIO()
    _Pickler(file, 2).dump(value)
    raw = file.getvalue()
    out, at = [], 0
    for opcode, arg, position in pickletools.genops(raw):
        if opcode.name == "GLOBAL" and isinstance(arg, str) and arg.startswith(_OURS):
            module, name = arg.split(" ")
            old = f"c{module}\n{name}\n".encode()
            assert position is not None and raw[position : position + len(old)] == old
            out += [raw[at:position], "c{}\n{}\n".format(*_their_name(module, name)).encode()]
            at = position + len(old)
    return b"".join([*out, raw[at:]])


_NUMPY = {"_reconstruct", "scalar", "ndarray", "dtype", "_frombuffer"}


def _arrays() -> dict[tuple[str, str], Any]:
    from diptych.mxnet.ndarray.ndarray import NDArray
    from diptych.mxnet.ndarray.sparse import CSRNDArray, RowSparseNDArray

    return {("ndarray.ndarray", "NDArray"): NDArray, ("ndarray.sparse", "CSRNDArray"): CSRNDArray,
            ("ndarray.sparse", "RowSparseNDArray"): RowSparseNDArray, ("numpy.multiarray", "ndarray"): NDArray}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    """Knows arrays, optimizers, schedulers and NumPy's values; anything else is an error."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "mxnet" or module.startswith(_OURS + "."):
            return self._of_mxnet(module.removeprefix(_OURS).removeprefix("mxnet").lstrip("."), name)
        if module.split(".")[0] == "numpy" and name in _NUMPY:
            return super().find_class(module, name)
        if (module, name) in {("collections", "OrderedDict"), ("builtins", "bytearray"), ("__builtin__", "bytearray"),
                              ("_codecs", "encode"), ("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor"),
                              ("builtins", "object"), ("__builtin__", "object")}:  # fmt: skip
            return super().find_class(module, name)
        from diptych.mxnet.optimizer.base import Optimizer

        for klass in Optimizer.opt_registry.values():
            if (klass.__module__, klass.__qualname__) == (module, name):
                return klass
        raise MXNetError(f"the states hold a {module}.{name}, which is not an array or a registered optimizer. Register the "
                         "class (mx.optimizer.register), or pass trusted=True if the file is from someone you trust: "
                         "loading it can run any code.")  # fmt: skip

    def _of_mxnet(self, where: str, name: str) -> Any:
        found = _arrays().get((where, name))
        if found is not None:
            return found
        part = where.split(".")[0]
        if part in ("optimizer", "lr_scheduler"):
            module = importlib.import_module(f"{_OURS}.{part}")
            found = getattr(module, name, None) or getattr(getattr(module, "contrib", None), name, None)
            if isinstance(found, type):
                return found
        raise MXNetError(f"the states hold a mxnet.{where}.{name}, which diptych.mxnet does not have")


class _Trusting(_Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "mxnet" or module.startswith(_OURS + "."):
            return super().find_class(module, name)
        return pickle.Unpickler.find_class(self, module, name)


def loads(raw: bytes, trusted: bool = False) -> Any:
    """The states in a pickle; `trusted` lets it name any class at all."""
    try:
        return (_Trusting if trusted else _Unpickler)(io.BytesIO(raw), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, UnicodeDecodeError, IndexError, KeyError, AttributeError) as error:
        raise MXNetError(f"this is not a file of optimizer states: {error}") from error
