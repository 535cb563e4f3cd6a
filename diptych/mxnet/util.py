"""The switches of MXNet's NumPy-like modes, per thread, and small helpers of `mx.util`."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from diptych.mxnet.base import getenv, setenv
from diptych.mxnet.tape import state

__all__ = [
    "getenv", "is_np_array", "is_np_shape", "np_array", "np_shape", "reset_np", "set_module", "set_np", "set_np_shape",
    "setenv", "use_np", "use_np_array", "use_np_shape",
]  # fmt: skip


def is_np_shape() -> bool:
    """Whether shapes follow NumPy: () is a scalar, 0 an empty extent."""
    return state.np_shape


def is_np_array() -> bool:
    """Whether calls make `mx.np.ndarray`s."""
    return state.np_array


def set_np_shape(active: bool) -> bool:
    """Switch NumPy's shape rules on or off; the former setting."""
    before, state.np_shape = state.np_shape, bool(active)
    return before


def _set_np_array(active: bool) -> bool:
    before, state.np_array = state.np_array, bool(active)
    return before


def set_np(shape: bool = True, array: bool = True, dtype: bool = False) -> None:
    """Switch the NumPy-like interface on."""
    if not shape and array:
        raise ValueError("NumPy arrays need NumPy shapes: set_np(shape=True, array=True)")
    set_np_shape(shape)
    _set_np_array(array)


def reset_np() -> None:
    """Switch the NumPy-like interface off."""
    set_np(shape=False, array=False)


class _Scope:
    def __init__(self, setter: Any, active: bool) -> None:
        self._setter, self._active = setter, active
        self._before: list[bool] = []

    def __enter__(self) -> _Scope:
        self._before.append(self._setter(self._active))
        return self

    def __exit__(self, *exc: object) -> None:
        self._setter(self._before.pop())


class _NumpyShapeScope(_Scope):
    def __init__(self, is_np_shape: bool) -> None:
        super().__init__(set_np_shape, is_np_shape)
        self._is_np_shape = is_np_shape


class _NumpyArrayScope(_Scope):
    def __init__(self, is_np_array: bool) -> None:
        super().__init__(_set_np_array, is_np_array)
        self._is_np_array = is_np_array


def np_shape(active: bool = True) -> _NumpyShapeScope:
    """A context in which shapes follow NumPy."""
    return _NumpyShapeScope(active)


def np_array(active: bool = True) -> _NumpyArrayScope:
    """A context in which calls make `mx.np.ndarray`s."""
    return _NumpyArrayScope(active)


def _wrapped(func: Any, scope: Any) -> Any:
    if isinstance(func, type):
        # As in MXNet, what is inherited runs in the scope too: `initialize` of a decorated block makes arrays of its kind.
        for name, method in inspect.getmembers(func, lambda m: inspect.isfunction(m) or isinstance(m, property)):
            if isinstance(method, property):
                get, put, delete = (None if f is None else _wrapped(f, scope) for f in (method.fget, method.fset, method.fdel))
                setattr(func, name, property(get, put, delete, method.__doc__))
            elif isinstance(inspect.getattr_static(func, name), staticmethod):
                setattr(func, name, staticmethod(_wrapped(method, scope)))
            elif name not in ("__getattribute__", "__getattr__", "__setattr__", "__del__"):
                setattr(func, name, _wrapped(method, scope))
        return func

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        with scope():
            return func(*args, **kwargs)

    return run


def use_np_shape(func: Any) -> Any:
    """Decorate a function or class to run with NumPy's shape rules."""
    return _wrapped(func, np_shape)


def use_np_array(func: Any) -> Any:
    """Decorate a function or class to make `mx.np.ndarray`s."""
    return _wrapped(func, np_array)


def use_np(func: Any) -> Any:
    """Decorate a function or class to run in the NumPy-like interface."""
    return use_np_shape(use_np_array(func))


def set_module(module: str) -> Any:
    """A decorator that sets `__module__`."""

    def decorate(func: Any) -> Any:
        if module is not None:
            func.__module__ = module
        return func

    return decorate


def get_gpu_count() -> int:
    """How many GPUs there are to use: none."""
    return 0


def makedirs(d: str) -> None:
    """Make a folder and those above it."""
    import os

    os.makedirs(os.path.expanduser(d), exist_ok=True)
