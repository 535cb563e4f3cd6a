"""Comparing arrays: tolerances by element type, and assertions that name the worst element."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import numpy.testing as npt

import diptych.mxnet as mx

__all__ = [
    "almost_equal",
    "assert_allclose",
    "assert_almost_equal",
    "assert_almost_equal_ignore_nan",
    "assert_almost_equal_with_err",
    "checkShapes",
    "default_atols",
    "default_context",
    "default_dtype",
    "default_numeric_eps",
    "default_rtols",
    "effective_dtype",
    "find_max_violation",
    "get_atol",
    "get_etol",
    "get_rtol",
    "get_tolerance",
    "get_tols",
    "same",
    "same_array",
    "set_default_context",
]

_RTOL: dict[Any, float] = {np.dtype(np.float16): 1e-2, np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-5}
_ATOL: dict[Any, float] = {np.dtype(np.float16): 1e-1, np.dtype(np.float32): 1e-3, np.dtype(np.float64): 1e-20}
_WHOLE = [np.dtype(t) for t in ("bool", "int8", "uint8", "int32", "uint32", "int64", "uint64")]


def default_context() -> Any:
    """The context tests run in."""
    return mx.context.current_context()


def set_default_context(ctx: Any) -> None:
    """Choose the context tests run in."""
    mx.Context._default_ctx.value = ctx


def default_dtype() -> Any:
    """The element type of test data."""
    return np.float32


def default_rtols() -> dict[Any, float]:
    """Relative tolerances by element type."""
    return _RTOL | dict.fromkeys(_WHOLE, 0.0)


def default_atols() -> dict[Any, float]:
    """Absolute tolerances by element type."""
    return _ATOL | dict.fromkeys(_WHOLE, 0.0)


def default_numeric_eps() -> dict[Any, float]:
    """Steps of finite differences by element type, powers of two."""
    return {np.dtype(np.float16): 2.0**-6, np.dtype(np.float32): 2.0**-9, np.dtype(np.float64): 2.0**-14}


def effective_dtype(dat: Any) -> Any:
    """The element type that decides about tolerances."""
    return np.dtype(dat.dtype)


def get_tolerance(dat: Any, tol: Any, default_tol: dict[Any, float]) -> float:
    """One tolerance for an array: a number as it is, else by the array's element type."""
    if isinstance(tol, numbers.Number):
        return float(tol)  # type: ignore[arg-type]
    dtype = effective_dtype(dat)
    return float((tol or {}).get(dtype, default_tol[dtype]))


def get_tols(x: Any, y: Any, rtol: Any, atol: Any) -> tuple[float, float]:
    """The tolerances for comparing two arrays: the looser of their defaults."""
    x = np.array(x) if isinstance(x, (numbers.Number, list, tuple)) else x
    y = np.array(y) if isinstance(y, (numbers.Number, list, tuple)) else y
    return (max(get_tolerance(v, rtol, default_rtols()) for v in (x, y)),
            max(get_tolerance(v, atol, default_atols()) for v in (x, y)))  # fmt: skip


def get_atol(atol: float | None = None, dtype: Any = None) -> float:
    """The absolute tolerance, or its default."""
    return default_atols()[np.dtype(dtype or np.float64)] if atol is None else atol


def get_rtol(rtol: float | None = None, dtype: Any = None) -> float:
    """The relative tolerance, or its default."""
    return default_rtols()[np.dtype(dtype or np.float64)] if rtol is None else rtol


def get_etol(etol: float | None = None) -> float:
    """The share of elements that may differ, or 0."""
    return 0 if etol is None else etol


def _plain(x: Any) -> Any:
    return x.asnumpy() if isinstance(x, mx.nd.NDArray) else x


def same(a: Any, b: Any) -> bool:
    """Whether two arrays are equal in shape and value."""
    return np.array_equal(_plain(a), _plain(b))


def checkShapes(a: Any, b: Any) -> None:
    """Assert that two arrays have one shape."""
    if a.shape != b.shape:
        raise AssertionError(f"a.shape = {a.shape} and b.shape = {b.shape} are not equal")


def almost_equal(a: Any, b: Any, rtol: float | None = None, atol: float | None = None, equal_nan: bool = False,
                 use_broadcast: bool = True) -> bool:  # fmt: skip
    """Whether two arrays are close."""
    if not use_broadcast:
        checkShapes(a, b)
    return np.allclose(_plain(a), _plain(b), rtol=get_rtol(rtol), atol=get_atol(atol), equal_nan=equal_nan)


def find_max_violation(a: Any, b: Any, rtol: float, atol: float) -> tuple[Any, float]:
    """Where two arrays differ most, in units of what is allowed, and how much."""
    a, b = np.asarray(a), np.asarray(b)
    with np.errstate(all="ignore"):
        error = np.where(np.equal(a, b), 0, np.abs(a - b)) / (atol + rtol * np.abs(b) + 1e-20)
    at = np.unravel_index(int(np.argmax(error)), error.shape)
    return at, float(np.max(error))


_find_max_violation = find_max_violation


def assert_almost_equal(a: Any, b: Any, rtol: Any = None, atol: Any = None, names: tuple[str, str] = ("a", "b"),
                        equal_nan: bool = False, use_broadcast: bool = True, mismatches: tuple[int, int] = (10, 10)) -> None:  # fmt: skip
    """Assert that two arrays are close; tolerances default by element type."""
    if not use_broadcast:
        checkShapes(a, b)
    rtol, atol = get_tols(a, b, rtol, atol)
    a, b = np.asarray(_plain(a)), np.asarray(_plain(b))
    if a.dtype == np.bool_ and b.dtype == np.bool_:
        npt.assert_equal(a, b)
        return
    if np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan):
        return
    wide_a, wide_b = np.broadcast_arrays(a, b)
    at, violation = find_max_violation(wide_a, wide_b, rtol, atol)
    raise AssertionError(
        f"Error {violation} exceeds tolerance rtol={rtol:e}, atol={atol:e}. Location of maximum error: {at}, "
        f"{names[0]}={wide_a[at]}, {names[1]}={wide_b[at]}\n{names[0]}: {a}\n{names[1]}: {b}"
    )


def assert_allclose(a: Any, b: Any, rtol: float = 1e-07, atol: float = 0, equal_nan: bool = True) -> None:
    """assert_almost_equal with NumPy's tolerances."""
    assert_almost_equal(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan)


def assert_almost_equal_with_err(a: Any, b: Any, rtol: Any = None, atol: Any = None, etol: float | None = None,
                                 names: tuple[str, str] = ("a", "b"), equal_nan: bool = False,
                                 mismatches: tuple[int, int] = (10, 10)) -> None:  # fmt: skip
    """Assert that two arrays are close but for a share `etol` of their elements."""
    if get_etol(etol) <= 0:
        assert_almost_equal(a, b, rtol, atol, names, equal_nan)
        return
    rtol, atol = get_tols(a, b, rtol, atol)
    share = 1 - np.isclose(_plain(a), _plain(b), rtol=rtol, atol=atol).mean()
    if share > get_etol(etol):
        raise AssertionError(f"{share:.4%} of the elements differ, {etol:.4%} may (rtol={rtol}, atol={atol})")


def assert_almost_equal_ignore_nan(a: Any, b: Any, rtol: Any = None, atol: Any = None,
                                   names: tuple[str, str] = ("a", "b")) -> None:  # fmt: skip
    """Assert that two arrays are close where both are numbers."""
    a, b = np.copy(_plain(a)), np.copy(_plain(b))
    unknown = np.isnan(a) | np.isnan(b)
    a[unknown] = b[unknown] = 0
    assert_almost_equal(a, b, rtol, atol, names)


def same_array(array1: Any, array2: Any) -> bool:
    """Whether two arrays share their memory."""
    array1[:] += 1
    if not same(array1, array2):
        array1[:] -= 1
        return False
    array1[:] -= 1
    return same(array1, array2)

