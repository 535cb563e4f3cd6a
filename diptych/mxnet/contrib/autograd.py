"""`mx.contrib.autograd`: the interface of automatic differentiation before `mx.autograd` (deprecated since 0.11)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.mxnet import autograd
from diptych.mxnet.autograd import mark_variables
from diptych.mxnet.ndarray.ndarray import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["backward", "compute_gradient", "grad", "grad_and_loss", "mark_variables", "set_is_training", "test_section", "train_section"]


def set_is_training(is_train: bool) -> bool:
    """Switch recording and training mode on or off together; the former setting.

    >>> set_is_training(False)
    False
    """
    autograd.set_recording(is_train)
    return autograd.set_training(is_train)


def train_section() -> Any:
    """A context in which calls are recorded in training mode."""
    return autograd.record()


def test_section() -> Any:
    """A context of inference mode in which calls are not recorded."""
    return autograd.pause()


def backward(outputs: list[NDArray], out_grads: list[NDArray] | None = None, retain_graph: bool = False) -> None:
    """Carry gradients from `outputs` back to all variables they depend on."""
    if not isinstance(outputs, (list, tuple)):
        raise AssertionError("outputs must be a list or tuple of NDArrays")
    autograd.backward(outputs, out_grads, retain_graph)


def compute_gradient(outputs: list[NDArray]) -> None:
    """`backward` with gradients of one."""
    backward(outputs)


def grad_and_loss(func: Callable[..., Any], argnum: int | list[int] | None = None) -> Callable[..., Any]:
    """A function that gives the gradients of `func` with respect to its arguments (or those numbered), and its results.

    >>> from diptych.mxnet import nd
    >>> grads, y = grad_and_loss(lambda x: x * x)(nd.array([3.0]))
    >>> grads[0].asscalar().item(), y.asscalar().item()
    (6.0, 9.0)
    """

    def wrapped(*args: Any) -> tuple[list[NDArray], Any]:
        chosen = list(args) if argnum is None else [args[i] for i in ([argnum] if isinstance(argnum, int) else argnum)]
        for x in chosen:
            if not isinstance(x, NDArray):
                raise AssertionError("type of autograd input should NDArray.")
        from diptych.mxnet.ndarray import zeros_like

        grads = [zeros_like(x) for x in chosen]
        mark_variables(chosen, grads)
        with train_section():
            outputs = func(*args)
        backward([outputs] if isinstance(outputs, NDArray) else outputs)
        return grads, outputs

    return wrapped


def grad(func: Callable[..., Any], argnum: int | list[int] | None = None) -> Callable[..., Any]:
    """A function that gives the gradients of `func` alone."""
    both = grad_and_loss(func, argnum)

    def wrapped(*args: Any) -> list[NDArray]:
        found: list[NDArray] = both(*args)[0]
        return found

    return wrapped
