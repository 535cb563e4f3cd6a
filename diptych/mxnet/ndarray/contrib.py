"""`mx.nd.contrib`: operators of the `_contrib_` prefix, and control flow on arrays."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.ndarray.control_flow import cond, foreach, while_loop
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.ndarray.register import module_getattr, public_names_of

__all__ = ["cond", "foreach", "isfinite", "isinf", "isnan", "while_loop"]

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
