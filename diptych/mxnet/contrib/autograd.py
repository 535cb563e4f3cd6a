"""`mx.contrib.autograd`: the interface that autograd had before MXNet 0.11."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from diptych.mxnet import autograd
from diptych.mxnet.imperative import wrap
from diptych.mxnet.ndarray.ndarray import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TrainingStateScope", "backward", "compute_gradient", "grad", "grad_and_loss", "mark_variables", "set_is_training", "test_section",
           "train_section"]  # fmt: skip

mark_variables, backward = autograd.mark_variables, autograd.backward


def set_is_training(is_train: bool) -> bool:
    """Record, in training mode, or not; what it was before."""
    before = autograd.set_training(is_train)
    autograd.set_recording(is_train)
    return before


class TrainingStateScope:
    """A context with `set_is_training(enter_state)` inside."""

    def __init__(self, enter_state: bool) -> None:
        self._enter, self._before = enter_state, False

    def __enter__(self) -> None:
        self._before = set_is_training(self._enter)

    def __exit__(self, *exc: object) -> None:
        if self._before != self._enter:
            set_is_training(self._before)


def train_section() -> TrainingStateScope:
    """A context whose calls are recorded."""
    return TrainingStateScope(True)


def test_section() -> TrainingStateScope:
    """A context whose calls are not recorded."""
    return TrainingStateScope(False)


def compute_gradient(outputs: list[NDArray]) -> None:
    """Use `backward`."""
    backward(outputs)


def grad_and_loss(func: Callable[..., Any], argnum: int | list[int] | None = None) -> Callable[..., tuple[list[NDArray], Any]]:
    """A function that returns the gradients of the arguments (all, or those numbered) and the results of `func`."""

    @functools.wraps(func)
    def wrapped(*args: Any) -> tuple[list[NDArray], Any]:
        wanted = list(args) if argnum is None else [args[i] for i in (argnum if isinstance(argnum, list) else [argnum])]
        for x in wanted:
            if not isinstance(x, NDArray):
                raise AssertionError(f"grad_and_loss: the arguments to differentiate by are NDArrays, not {type(x)}")
        grads = [wrap(x._data * 0) for x in wanted]
        mark_variables(wanted, grads)
        with train_section():
            outputs = func(*args)
        compute_gradient([outputs] if isinstance(outputs, NDArray) else outputs)
        return grads, outputs

    return wrapped


def grad(func: Callable[..., Any], argnum: int | list[int] | None = None) -> Callable[..., list[NDArray]]:
    """A function that returns the gradients of the arguments alone.

    >>> from diptych.mxnet import nd
    >>> grad(lambda x: x * x)(nd.array([3.0]))[0].asnumpy().tolist()
    [6.0]
    """
    both = grad_and_loss(func, argnum)
    return functools.wraps(func)(lambda *args: both(*args)[0])
