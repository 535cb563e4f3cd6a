"""Optimizers for large batches: a rate for every layer, by the norms of its weight and gradient."""

from __future__ import annotations

import logging
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.imperative import invoke
from diptych.mxnet.ops.registry import spell
from diptych.mxnet.optimizer.base import Optimizer, new_state, register, step
from diptych.mxnet.optimizer.sgd import Momentum, each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["LAMB", "LARS", "LBSGD"]


def _norm(x: Any) -> float:
    return float(np.sqrt(np.sum(np.square(x, dtype=np.float32))))


@register
class LARS(Momentum):
    """SGD whose rate for a layer is scaled by norm(weight) / norm(gradient) (You et al.: arXiv 1708.03888).

    momentum_correction: scale the momentum when a scheduler changes the rate (Goyal et al.: arXiv 1706.02677).
    """

    def __init__(self, momentum: float = 0.0, lazy_update: bool = True, eta: float = 0.001, eps: float = 0,
                 momentum_correction: bool = True, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.momentum, self.momentum_correction = momentum, momentum_correction
        self.lazy_update = lazy_update
        self.aggregate_num = int(os.getenv("MXNET_OPTIMIZER_AGGREGATION_SIZE", "4"))
        self.eta, self.eps = eta, eps
        self.skip = 0
        self.last_lr: float | None = None
        self.cur_lr: float | None = None

    def _get_lrs(self, indices: Sequence[Any]) -> list[float]:
        lr = self.learning_rate
        self.last_lr = self.cur_lr if self.cur_lr is not None else lr
        self.cur_lr = lr
        return super()._get_lrs(indices)

    def set_wd_mult(self, args_wd_mult: dict[Any, float]) -> None:
        """Factors of the weight decay by name or index; only what ends in _weight decays otherwise."""
        still = {n: 0.0 for n in self.idx2name.values() if not n.endswith("_weight")}
        self.wd_mult = {**still, **self._from_symbol("__wd_mult__"), **args_wd_mult}

    def _scaled(self, index: Any, weight: NDArray, grad: NDArray, lr: float, wd: float) -> float:
        if str(self.idx2name.get(index, index)).endswith(("gamma", "beta", "bias")):
            return lr
        w, g = _norm(weight._data), _norm(grad._data) * self.rescale_grad
        return lr * (self.eta * w / (g + wd * w + self.eps)) if w > 0 and g > 0 else lr

    def _run(self, indices: Sequence[Any], weights: Any, grads: Any, states: Any) -> None:
        self._update_count(indices)
        lrs, wds = self._get_lrs(indices), self._get_wds(indices)
        attrs: dict[str, Any] = {"rescale_grad": self.rescale_grad}
        if self.momentum > 0:
            assert self.cur_lr is not None and self.last_lr is not None
            correct = self.momentum_correction and self.last_lr != 0
            attrs["momentum"] = self.momentum * (self.cur_lr / self.last_lr) if correct else self.momentum
        if self.clip_gradient:
            attrs["clip_gradient"] = self.clip_gradient
        for index, weight, grad, state, lr, wd in zip(indices, weights, grads, states, lrs, wds):
            every = {**attrs, "lr": self._scaled(index, weight, grad, lr, wd), "wd": wd}
            if isinstance(state, (list, tuple)):
                momentum, copy = state
                held = [copy] if momentum is None else [momentum, copy]
                step("mp_sgd_update" if momentum is None else "mp_sgd_mom_update", weight, grad, held, every)
            elif state is None:
                step("sgd_update", weight, grad, [], every, self.lazy_update)
            else:
                step("sgd_mom_update", weight, grad, [state], every, self.lazy_update)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """One step on a weight or on each of a list."""
        if isinstance(index, (list, tuple)):
            self._run(index, weight, grad, state)
        else:
            self._run([index], [weight], [grad], [state])

    update_multi_precision = update


@register
class LBSGD(Momentum):
    """SGD that gathers `batch_scale` gradients and warms its rate up (linear, power2, sqrt, or by layer: lars)."""

    def __init__(self, momentum: float = 0.0, multi_precision: bool = False, warmup_strategy: str = "linear",
                 warmup_epochs: int = 5, batch_scale: int = 1, updates_per_epoch: int = 32, begin_epoch: int = 0,
                 num_epochs: int = 60, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(multi_precision=multi_precision, **kwargs)
        logging.info("LBSGD: SGD for large batches")
        logging.info("batch_scale %f, %d epochs of warm-up by %s, %d updates an epoch",
                     batch_scale, warmup_epochs, warmup_strategy, updates_per_epoch)  # fmt: skip
        self.momentum = momentum
        self.warmup_strategy, self.warmup_epochs = warmup_strategy, warmup_epochs
        self.batch_scale, self.updates_per_epoch = batch_scale, updates_per_epoch
        self.init_updates = begin_epoch * updates_per_epoch
        self.num_epochs = num_epochs
        self.lbmult = 1
        self.cumgrads: dict[Any, dict[str, Any]] = {}
        self.adaptive = False
        self.admult = 1

    def _warmup(self, count: int) -> float:
        end, most = self.warmup_epochs * self.updates_per_epoch, float(self.batch_scale)
        if count >= end:
            return most
        if end <= 1:
            return 1.0
        share = {"linear": count / end, "power2": (count / end) ** 2, "sqrt": math.sqrt(count / end)}
        return 1.0 + (most - 1) * share.get(self.warmup_strategy, 0.0)

    def _by_layer(self, weight: NDArray, grad: Any, wd: float) -> float:
        w, g = float(np.sum(np.square(weight._data))), float(np.sum(np.square(grad)))
        return min(max(math.sqrt(w / (g + wd * w + 1e-18)), 0.01), 100)

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """Gather the gradient; a step with every `batch_scale`-th."""
        lr, wd = self._get_lr(index), self._get_wd(index)
        self._update_count(index)
        held = self.cumgrads.get(index)
        if held and held["num_cums"] > 0:
            held = {"cum_grad": held["cum_grad"] + grad, "num_cums": held["num_cums"] + 1}
        else:
            held = {"cum_grad": grad.copy(), "num_cums": self.init_updates + 1}
        self.cumgrads[index] = held
        if held["num_cums"] % self.batch_scale:
            return
        mean = held["cum_grad"] / self.batch_scale
        lars = self.warmup_strategy == "lars"
        factor = self._by_layer(weight, mean._data, wd) if lars else self._warmup(held["num_cums"])
        attrs: dict[str, Any] = {"lr": lr * factor, "wd": wd, "rescale_grad": self.rescale_grad, **self._momentum()}
        if self.clip_gradient:
            attrs["clip_gradient"] = self.clip_gradient
        if isinstance(state, (list, tuple)):
            momentum, copy = state
            states = [copy] if momentum is None else [momentum, copy]
            step("mp_sgd_update" if momentum is None else "mp_sgd_mom_update", weight, mean, states, attrs)
        else:
            states = [] if state is None else [state]
            step("sgd_update" if state is None else "sgd_mom_update", weight, mean, states, attrs)
        held["cum_grad"] = 0

    update_multi_precision = update


@register
class LAMB(Optimizer):
    """Adam whose steps are scaled by layer to the norm of the weight (You et al.: arXiv 1904.00962)."""

    def __init__(self, learning_rate: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-6,
                 lower_bound: float | None = None, upper_bound: float | None = None, bias_correction: bool = True,
                 **kwargs: Any) -> None:  # fmt: skip
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.lower_bound, self.upper_bound = lower_bound, upper_bound
        self.bias_correction = bias_correction
        self.aggregate_num = max(1, min(45, int(os.getenv("MXNET_OPTIMIZER_AGGREGATION_SIZE", "45"))))

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """(mean, variance)."""
        return (new_state(weight), new_state(weight))

    def _step(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        attrs = self._attrs(index)
        lr = attrs.pop("lr")
        attrs.update(beta1=self.beta1, beta2=self.beta2, epsilon=self.epsilon, bias_correction=self.bias_correction,
                     t=self._index_update_count[index])  # fmt: skip
        text = {k: spell(v) for k, v in attrs.items()}
        mixed = self.multi_precision and weight.dtype == np.float16
        copy, (mean, variance) = state if mixed else (weight, state)
        last = {"lr": spell(lr)}
        if self.lower_bound:
            last["lower_bound"] = spell(self.lower_bound)
        if self.upper_bound:
            last["upper_bound"] = spell(self.upper_bound)
        prefix, extra = ("mp_", [copy]) if mixed else ("", [])
        direction = invoke(f"{prefix}lamb_update_phase1", [weight, grad, mean, variance, *extra], text)
        norms = [copy.norm(), direction.norm()]
        invoke(f"{prefix}lamb_update_phase2", [weight, direction, *norms, *extra], last, out=weight)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """One step on a weight or on each of a list."""
        each(self._step, index, weight, grad, state)

    update_multi_precision = update
