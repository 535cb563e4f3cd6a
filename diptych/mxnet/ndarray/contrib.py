"""`mx.nd.contrib`: operators of the `_contrib_` prefix, and control flow on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet.ndarray.control_flow import cond, foreach, while_loop
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.ndarray.register import module_getattr, public_names_of

__all__ = ["cond", "foreach", "isfinite", "isinf", "isnan", "rand_zipfian", "while_loop"]

_lookup = module_getattr("contrib")


def __getattr__(name: str) -> Any:
    return _lookup(name)


def __dir__() -> list[str]:
    return sorted({*public_names_of("contrib"), *__all__})


def isinf(data: NDArray) -> NDArray:
    """1 where an element is infinite, else 0."""
    return data.abs() == float("inf")  # type: ignore[no-any-return]


def isfinite(data: NDArray) -> NDArray:
    """1 where an element is finite, else 0."""
    return (data == data) * (data.abs() != float("inf"))  # type: ignore[no-any-return]


def isnan(data: NDArray) -> NDArray:
    """1 where an element is not a number, else 0."""
    return data != data  # type: ignore[no-any-return]


def rand_zipfian(true_classes: NDArray, num_sampled: int, range_max: int, ctx: Any = None) -> tuple[NDArray, NDArray, NDArray]:
    """Classes below range_max drawn log-uniformly, and how often the true and the drawn ones are to be expected among them."""
    from diptych.mxnet.imperative import wrap
    from diptych.mxnet.random_state import generator

    whole = np.log(range_max + 1)
    drawn = (np.exp(generator().random(num_sampled) * whole) - 1).astype(np.int64) % range_max

    def expected(classes: Any) -> NDArray:
        c = classes.astype(np.float64)
        return wrap(np.log((c + 2) / (c + 1)) / whole * num_sampled)

    return wrap(drawn), expected(true_classes._data), expected(drawn)
