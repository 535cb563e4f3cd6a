"""Optimizers with a rate of its own for every element."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.optimizer.base import Optimizer, new_state, register, step

if TYPE_CHECKING:
    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["FTML", "AdaDelta", "AdaGrad", "Adam", "Adamax", "Ftrl", "Nadam", "RMSProp"]


@register
class Adam(Optimizer):
    """Moving averages of the gradient and its square (Kingma, Ba: arXiv 1412.6980)."""

    def __init__(self, learning_rate: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8,
                 lazy_update: bool = True, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.lazy_update = lazy_update

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """(mean, variance)."""
        stype = weight.stype if self.lazy_update else "default"
        return (new_state(weight, stype=stype), new_state(weight, stype=stype))

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step."""
        attrs = self._attrs(index)
        t = self._index_update_count[index]
        attrs["lr"] *= math.sqrt(1.0 - self.beta2**t) / (1.0 - self.beta1**t)
        attrs.update(beta1=self.beta1, beta2=self.beta2, epsilon=self.epsilon)
        step("adam_update", weight, grad, state, attrs, self.lazy_update)


@register
class AdaGrad(Optimizer):
    """Steps divided by the root of the sum of all squares so far (Duchi, Hazan, Singer 2011)."""

    def __init__(self, eps: float = 1e-7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.float_stable_eps = eps

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """The sum of squares."""
        return new_state(weight, np.float32)

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step."""
        attrs = self._attrs(index)
        if grad.stype == "row_sparse":
            step("_sparse_adagrad_update", weight, grad, [state], {**attrs, "epsilon": self.float_stable_eps}, True)
            return
        g = self._gradient(grad)
        state._data[...] += g * g
        move = g / np.sqrt(state._data + self.float_stable_eps) + attrs["wd"] * weight._data
        weight._data[...] -= attrs["lr"] * move


@register
class RMSProp(Optimizer):
    """Steps divided by the root of the moving average of squares; `centered` as Graves has it (arXiv 1308.0850)."""

    def __init__(self, learning_rate: float = 0.001, gamma1: float = 0.9, gamma2: float = 0.9, epsilon: float = 1e-8,
                 centered: bool = False, clip_weights: float | None = None, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.gamma1, self.gamma2, self.epsilon = gamma1, gamma2, epsilon
        self.centered = centered
        self.clip_weights = clip_weights

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """(average of squares,), or with averages of the gradient and the step when centered."""
        return tuple(new_state(weight, np.float32) for _ in range(3 if self.centered else 1))

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step."""
        attrs = {**self._attrs(index), "gamma1": self.gamma1, "epsilon": self.epsilon}
        if self.centered:
            attrs["gamma2"] = self.gamma2
        if self.clip_weights:
            attrs["clip_weights"] = self.clip_weights
        step("rmspropalex_update" if self.centered else "rmsprop_update", weight, grad, state, attrs)


@register
class AdaDelta(Optimizer):
    """Steps scaled by averages of squared steps and gradients; no learning rate (Zeiler: arXiv 1212.5701)."""

    def __init__(self, rho: float = 0.90, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rho, self.epsilon = rho, epsilon

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """(average of squared gradients, average of squared steps)."""
        return (new_state(weight, np.float32, "default"), new_state(weight, np.float32, "default"))

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step."""
        wd = self._get_wd(index)
        self._update_count(index)
        g = self._gradient(grad)
        squares, steps = (s._data for s in state)
        squares[...] = self.rho * squares + (1.0 - self.rho) * g * g
        move = np.sqrt(steps + self.epsilon) / np.sqrt(squares + self.epsilon) * g
        steps[...] = self.rho * steps + (1.0 - self.rho) * move * move
        weight._data[...] -= move + wd * weight._data


@register
class Ftrl(Optimizer):
    """Follow the regularized leader, with a penalty on absolute values (McMahan et al. 2013)."""

    def __init__(self, lamda1: float = 0.01, learning_rate: float = 0.1, beta: float = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lamda1, self.beta = lamda1, beta
        self.lr = learning_rate

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """(z, n)."""
        return (new_state(weight, np.float32), new_state(weight, np.float32))

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step; of a row-sparse gradient only the rows that it has count."""
        attrs = {**self._attrs(index), "lamda1": self.lamda1, "beta": self.beta}
        step("ftrl_update", weight, grad, state, attrs, True)


@register
class FTML(Optimizer):
    """Follow the moving leader (Zheng, Kwok 2017)."""

    def __init__(self, beta1: float = 0.6, beta2: float = 0.999, epsilon: float = 1e-8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """(d, v, z)."""
        return tuple(new_state(weight, stype="default") for _ in range(3))

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step."""
        attrs = self._attrs(index, "clip_grad")
        attrs.update(beta1=self.beta1, beta2=self.beta2, epsilon=self.epsilon, t=self._index_update_count[index])
        step("ftml_update", weight, grad, state, attrs)


@register
class Adamax(Optimizer):
    """Adam with the largest gradient instead of the mean square (arXiv 1412.6980, section 7.1)."""

    def __init__(self, learning_rate: float = 0.002, beta1: float = 0.9, beta2: float = 0.999, **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1, self.beta2 = beta1, beta2

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """(mean, largest)."""
        return (new_state(weight, stype="default"), new_state(weight, stype="default"))

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step."""
        self._update_count(index)
        wd = self._get_wd(index)
        lr = self._get_lr(index) / (1.0 - self.beta1 ** self._index_update_count[index])
        g = _decayed(self, weight, grad, wd)
        mean, largest = (s._data for s in state)
        mean[...] = self.beta1 * mean + (1.0 - self.beta1) * g
        largest[...] = np.maximum(self.beta2 * largest, np.abs(g))
        weight._data[...] -= lr * mean / largest


@register
class Nadam(Optimizer):
    """Adam with Nesterov's momentum (Dozat 2015)."""

    def __init__(self, learning_rate: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8,
                 schedule_decay: float = 0.004, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.schedule_decay = schedule_decay
        self.m_schedule = 1.0

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """(mean, variance)."""
        return (new_state(weight, stype="default"), new_state(weight, stype="default"))

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step."""
        self._update_count(index)
        lr, wd = self._get_lr(index), self._get_wd(index)
        t = self._index_update_count[index]
        g = _decayed(self, weight, grad, wd)
        now, following = (self.beta1 * (1.0 - 0.5 * 0.96 ** (n * self.schedule_decay)) for n in (t, t + 1))
        self.m_schedule *= now  # one schedule for all parameters, as MXNet has it
        mean, variance = (s._data for s in state)
        mean[...] = self.beta1 * mean + (1.0 - self.beta1) * g
        variance[...] = self.beta2 * variance + (1.0 - self.beta2) * g * g
        ahead = (1.0 - now) * (g / (1.0 - self.m_schedule)) + following * (mean / (1.0 - self.m_schedule * following))
        weight._data[...] -= lr * ahead / (np.sqrt(variance / (1.0 - self.beta2**t)) + self.epsilon)


def _decayed(optimizer: Optimizer, weight: NDArray, grad: NDArray, wd: float) -> Any:
    """The gradient rescaled, with weight decay, then clipped."""
    g = grad._data * optimizer.rescale_grad + wd * weight._data
    limit = optimizer.clip_gradient
    return np.clip(g, -limit, limit) if limit is not None else g
