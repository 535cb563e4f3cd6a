"""Stochastic gradient descent and its close relatives."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import random
from diptych.mxnet.optimizer.base import Optimizer, new_state, register, step

if TYPE_CHECKING:
    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["DCASGD", "NAG", "SGD", "SGLD", "Signum", "Test", "ccSGD"]


def each(method: Any, index: Any, weight: Any, grad: Any, state: Any) -> None:
    """Call a step for one weight or for each of several."""
    if isinstance(index, (list, tuple)):
        for one in zip(index, weight, grad, state):
            method(*one)
    else:
        method(index, weight, grad, state)


class Momentum(Optimizer):
    """Optimizers of one momentum array that have operators of their own for mixed precision."""

    momentum: float
    lazy_update: bool = False

    def create_state_multi_precision(self, index: Any, weight: NDArray) -> Any:
        """(momentum or None, float32 copy) of a float16 weight, else as `create_state`."""
        if self._wants_copy(weight):
            copy = weight.astype(np.float32)
            return (self.create_state(index, copy), copy)
        return self.create_state(index, weight)

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """The momentum; None when there is none."""
        if self.momentum == 0.0:
            return None
        return new_state(weight, stype=weight.stype if self.lazy_update else "default")

    def _momentum(self) -> dict[str, Any]:
        return {"momentum": self.momentum} if self.momentum else {}


@register
class SGD(Momentum):
    """Steps against the gradient, with momentum.

    `state = momentum * state - lr * (rescale_grad * grad + wd * weight); weight += state`. lazy_update: of a row-sparse
    gradient only the rows that it has are updated.
    """

    def __init__(self, momentum: float = 0.0, lazy_update: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.lazy_update = lazy_update
        self.aggregate_num = int(os.getenv("MXNET_OPTIMIZER_AGGREGATION_SIZE", "4"))

    def _step(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        attrs = {**self._attrs(index), **self._momentum()}
        if isinstance(state, (list, tuple)):
            momentum, copy = state
            states = [copy] if momentum is None else [momentum, copy]
            step("mp_sgd_update" if momentum is None else "mp_sgd_mom_update", weight, grad, states, attrs)
        elif state is None:
            step("sgd_update", weight, grad, [], attrs, self.lazy_update)
        else:
            step("sgd_mom_update", weight, grad, [state], attrs, self.lazy_update)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """One step on a weight or on each of a list."""
        each(self._step, index, weight, grad, state)

    update_multi_precision = update


@register
class ccSGD(SGD):
    """Another name of SGD, from old scripts."""


@register
class NAG(Momentum):
    """SGD with Nesterov's momentum."""

    def __init__(self, momentum: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step."""
        attrs = {**self._attrs(index), **self._momentum()}
        if isinstance(state, (list, tuple)):
            momentum, copy = state
            if momentum is None:
                step("mp_sgd_update", weight, grad, [copy], attrs)
            else:
                step("mp_nag_mom_update", weight, grad, [momentum, copy], attrs)
        elif state is None:
            step("sgd_update", weight, grad, [], attrs)
        else:
            step("nag_mom_update", weight, grad, [state], attrs)

    update_multi_precision = update


@register
class Signum(Optimizer):
    """Steps of the sign of the gradient or of its moving average (Bernstein et al.: arXiv 1802.04434)."""

    def __init__(self, learning_rate: float = 0.01, momentum: float = 0.9, wd_lh: float = 0.0, **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.momentum = momentum
        self.wd_lh = wd_lh

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """The momentum; None when there is none."""
        return new_state(weight) if self.momentum != 0.0 else None

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step."""
        attrs = self._attrs(index)
        if state is None:
            step("signsgd_update", weight, grad, [], attrs)
            return
        attrs["momentum"] = self.momentum
        if self.wd_lh:
            attrs["wd_lh"] = self.wd_lh
        step("signum_update", weight, grad, [state], attrs)


@register
class DCASGD(Optimizer):
    """SGD that makes up for the delay of asynchronous gradients (Zheng et al.: arXiv 1609.08326)."""

    def __init__(self, momentum: float = 0.0, lamda: float = 0.04, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.weight_previous: dict[Any, Any] = {}
        self.lamda = lamda

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """(momentum or None, the weight of the step before)."""
        return (None if self.momentum == 0.0 else new_state(weight), weight.copy())

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step."""
        self._update_count(index)
        lr, wd = self._get_lr(index), self._get_wd(index)
        g, w = self._gradient(grad), weight._data
        momentum, previous = state
        move = -lr * (g + wd * w + self.lamda * g * g * (w - previous._data))
        if momentum is not None:
            momentum._data[...] = self.momentum * momentum._data + move
            move = momentum._data
        previous._data[...] = w
        weight._data[...] = w + move


@register
class SGLD(Optimizer):
    """Stochastic gradient Langevin dynamics: half a step of SGD and normal noise of variance lr."""

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """None: there is no state."""

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step."""
        self._update_count(index)
        lr, wd = self._get_lr(index), self._get_wd(index)
        weight._data[...] -= lr / 2 * (self._gradient(grad) + wd * weight._data)
        weight._data[...] += random.normal(0, math.sqrt(lr), shape=weight.shape, dtype=weight.dtype)._data


@register
class Test(Optimizer):
    """Adds the gradient to the weight and keeps a copy: for tests of what calls optimizers."""

    __test__ = False  # not a test class of pytest

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """Zeros."""
        return new_state(weight, np.float32, "default")

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step."""
        weight._data[...] += grad._data * self.rescale_grad
        state._data[...] = weight._data
