"""`mx.np`: arrays and functions in NumPy's manner. What is not written here is NumPy's own function, without a gradient."""

from __future__ import annotations

from typing import Any

import numpy as _numpy

from diptych.mxnet.numpy import random
from diptych.mxnet.numpy.call import fallback
from diptych.mxnet.numpy.functions import *  # noqa: F403
from diptych.mxnet.numpy.multiarray import ndarray

pi, e, inf, nan, newaxis = _numpy.pi, _numpy.e, _numpy.inf, _numpy.nan, None
float16, float32, float64 = _numpy.float16, _numpy.float32, _numpy.float64
int8, uint8, int32, int64, bool_ = _numpy.int8, _numpy.uint8, _numpy.int32, _numpy.int64, _numpy.bool_
bool = _numpy.bool_
_NP = type("_np", (), {})

__all__ = ["ndarray", "random"]


class _Linalg:
    """`mx.np.linalg`: NumPy's functions, without gradients but for `norm`."""

    def norm(self, x: Any, ord: Any = None, axis: Any = None, keepdims: Any = False) -> Any:
        """The 2-norm (others have no gradient)."""
        if ord in (None, 2, "fro") and (ord != 2 or axis is not None or x.ndim == 1):
            from diptych.mxnet.numpy import functions

            return getattr(functions, "sqrt")(getattr(functions, "sum")(x * x, axis=axis, keepdims=keepdims))  # noqa: B009
        return fallback(_numpy.linalg.norm, "norm")(x, ord=ord, axis=axis, keepdims=keepdims)

    def __getattr__(self, name: str) -> Any:
        return fallback(getattr(_numpy.linalg, name), name)


linalg = _Linalg()


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    found = getattr(_numpy, name)
    return fallback(found, name) if callable(found) and not isinstance(found, type) else found
