"""`mx.npx`: operators of neural networks for the NumPy-like interface, and its switches."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet import random_state
from diptych.mxnet.context import cpu, current_context, gpu, num_gpus
from diptych.mxnet.imperative import wrap
from diptych.mxnet.ndarray.ndarray import waitall
from diptych.mxnet.ndarray.register import operands_in_order
from diptych.mxnet.ndarray.serialize import load as _load
from diptych.mxnet.ndarray.serialize import save
from diptych.mxnet.numpy.call import as_ndarray, operator, tensors
from diptych.mxnet.ops.registry import bind, find, names
from diptych.mxnet.util import is_np_array, is_np_shape, reset_np, set_np, use_np, use_np_array, use_np_shape

__all__ = [
    "cpu", "current_context", "gpu", "is_np_array", "is_np_shape", "load", "num_gpus", "reset_np", "save", "seed", "set_np",
    "use_np", "use_np_array", "use_np_shape", "waitall",
]  # fmt: skip


def seed(seed: int, ctx: Any = "all") -> None:
    """Start the random numbers again."""
    random_state.seed(int(seed))


def load(fname: Any) -> Any:
    """The arrays of a file, as `mx.np.ndarray`s."""
    found = _load(fname)
    if isinstance(found, dict):
        return {k: as_ndarray(v) for k, v in found.items()}
    return [as_ndarray(v) for v in found]


def constraint_check(data: Any, msg: str = "Constraint violated.") -> Any:
    """A bool that is true; a ValueError with this message where an element of the array is false."""
    if not bool(data._data.all()):
        raise ValueError(msg)
    return as_ndarray(wrap(np.asarray(True)))


def nonzero(data: Any) -> Any:
    """The indices of the elements that are not zero, one per row."""
    values = np.atleast_1d(data._data)
    found = np.stack(np.nonzero(values), -1).astype(np.int64)
    return as_ndarray(wrap(np.ascontiguousarray(found if data.ndim else found[:, :0])))


# The extension's own spelling -> MXNet's operator, beside those that are registered as _npx_NAME.
_MORE = {"masked_softmax": "softmax", "batch_norm": "BatchNorm", "sequence_last": "SequenceLast",
         "sequence_reverse": "SequenceReverse", "instance_norm": "InstanceNorm", "group_norm": "GroupNorm",
         "l2_normalization": "L2Normalization", "ctc_loss": "CTCLoss", "softmin": "softmin", "broadcast_like": "broadcast_like",
         "stop_gradient": "BlockGrad", "index_update": "_scatter_set_nd"}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "random":
        from diptych.mxnet import numpy_random_extension

        return numpy_random_extension
    if name == "image":
        from diptych.mxnet import numpy_image_extension

        return numpy_image_extension
    full = f"_npx_{name}"
    return function_of(names().get(full) or _MORE.get(name) or names().get(f"_contrib_{name}"), f"npx.{name}")


def function_of(op_name: str | None, shown: str) -> Any:
    """The function of an operator on mx.np arrays and symbols; AttributeError where there is none of this name."""
    if op_name not in names():
        raise AttributeError(f"module 'diptych.mxnet' has no attribute '{shown}'")
    op = find(op_name)

    def call(*args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        kwargs.pop("name", None)
        given, attrs, named = bind(op, args, kwargs, tensors())
        operands = operands_in_order(op, given, named)
        if op.count_key and op.count_key not in attrs:
            attrs[op.count_key] = str(len(operands))
        return operator(op.name, *operands, out=out, **attrs)

    call.__name__ = shown.rpartition(".")[2]
    call.__doc__ = f"The operator {op.name} on mx.np arrays."
    return call
