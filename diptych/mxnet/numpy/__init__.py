"""`mx.np`: arrays and functions in NumPy's manner. What is not written here is NumPy's own function, without a gradient."""

from __future__ import annotations

from typing import Any

import numpy as _numpy

from diptych.mxnet.numpy import _internal, linalg, random
from diptych.mxnet.numpy.call import fallback
from diptych.mxnet.numpy.creation import *  # noqa: F403
from diptych.mxnet.numpy.functions import *  # noqa: F403
from diptych.mxnet.numpy.moving import *  # noqa: F403
from diptych.mxnet.numpy.multiarray import ndarray
from diptych.mxnet.numpy.sums import *  # noqa: F403

pi, e, inf, nan, newaxis = _numpy.pi, _numpy.e, _numpy.inf, _numpy.nan, None
float16, float32, float64 = _numpy.float16, _numpy.float32, _numpy.float64
int8, uint8, int32, int64, bool_ = _numpy.int8, _numpy.uint8, _numpy.int32, _numpy.int64, _numpy.bool_
bool = _numpy.bool_
_NP = type("_np", (), {})

__all__ = ["_internal", "linalg", "ndarray", "random"]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    found = getattr(_numpy, name)
    return fallback(found, name) if callable(found) and not isinstance(found, type) else found
