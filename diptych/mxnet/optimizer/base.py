"""The base class of optimizers: learning rates, weight decay, counts of updates, mixed precision."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.imperative import invoke, wrap
from diptych.mxnet.ops.native_update import in_place
from diptych.mxnet.ops.registry import spell
from diptych.mxnet.tape import settle, state
from diptych.mxnet.util import is_np_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["Optimizer", "create", "new_state", "register", "rows_of", "step"]


class Optimizer:
    """What all optimizers share; subclasses give `create_state` and `update`.

    Args:
        rescale_grad: what gradients are multiplied by first (1 / batch size).
        param_idx2name: names of parameters by index, for `lr_mult`, `wd_mult` and the rule that biases do not decay.
        wd: weight decay. clip_gradient: limit of the elements of gradients.
        learning_rate: 0.01 if neither it nor a scheduler is given. lr_scheduler: learning rate by number of updates.
        sym: a symbol whose variables' attributes `__lr_mult__` and `__wd_mult__` count.
        begin_num_update: where the count of updates starts.
        multi_precision: keep float32 copies of float16 weights.
        param_dict: gluon parameters by index, whose `lr_mult` and `wd_mult` count.
    """

    opt_registry: dict[str, type[Optimizer]] = {}

    def __init__(self, rescale_grad: float = 1.0, param_idx2name: dict[int, str] | None = None, wd: float = 0.0,
                 clip_gradient: float | None = None, learning_rate: float | None = None, lr_scheduler: Any = None,
                 sym: Any = None, begin_num_update: int = 0, multi_precision: bool = False,
                 param_dict: dict[int, Any] | None = None) -> None:  # fmt: skip
        self.rescale_grad = rescale_grad
        self.lr_scheduler = lr_scheduler
        if lr_scheduler is None and learning_rate is None:
            learning_rate = 0.01
        self.lr = learning_rate
        if lr_scheduler is not None and learning_rate is not None and lr_scheduler.base_lr != learning_rate:
            logging.warning("the learning rate %s replaces base_lr of the lr_scheduler (%s)", learning_rate, lr_scheduler.base_lr)
            lr_scheduler.base_lr = learning_rate
        self.wd = wd
        self.lr_mult: dict[Any, float] = {}
        self.wd_mult: dict[Any, float] = {}
        self.begin_num_update = begin_num_update
        self.num_update = begin_num_update
        self._all_index_update_counts: dict[int, dict[Any, int]] = {0: {}}
        self._index_update_count = self._all_index_update_counts[0]
        self.clip_gradient = clip_gradient
        self.multi_precision = multi_precision
        self.aggregate_num = 0
        if param_idx2name is not None and not isinstance(param_idx2name, dict):
            raise AssertionError("param_idx2name: a dict from the numbers of parameters to their names")
        self.idx2name = dict(param_idx2name or {})
        self.sym_info = (sym.attr_dict(), sym.list_arguments()) if sym is not None else ()
        self.param_dict = param_dict or {}
        self.allow_np_array = is_np_array()
        self.set_lr_mult({})
        self.set_wd_mult({})

    # -- registry ---------------------------------------------------------------------------------------------
    @staticmethod
    def register(klass: type[Optimizer]) -> type[Optimizer]:
        """Register a subclass under its lower-case name."""
        if not isinstance(klass, type):
            raise AssertionError(f"register takes a class, not {klass!r}")
        name = klass.__name__.lower()
        old = Optimizer.opt_registry.get(name)
        if old is not None and old is not klass:
            warnings.warn(f"New optimizer {klass.__module__}.{klass.__name__} is overriding existing optimizer "
                          f"{old.__module__}.{old.__name__}", stacklevel=2)  # fmt: skip
        Optimizer.opt_registry[name] = klass
        return klass

    @staticmethod
    def create_optimizer(name: str, **kwargs: Any) -> Optimizer:
        """An optimizer by its name in any case; ValueError for a name that nobody registered."""
        klass = Optimizer.opt_registry.get(name.lower())
        if klass is None:
            raise ValueError(f"Cannot find optimizer {name}; known: {', '.join(sorted(Optimizer.opt_registry))}")
        return klass(**kwargs)

    # -- what subclasses give -----------------------------------------------------------------------------------
    def create_state(self, index: Any, weight: NDArray) -> Any:
        """What is kept for one weight between updates: an array, a tuple of arrays or None."""

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """Carry out one step on a weight, in place."""
        raise NotImplementedError(f"{type(self).__name__} must override update")

    # -- mixed precision ----------------------------------------------------------------------------------------
    def _wants_copy(self, weight: NDArray) -> bool:
        """Whether a float32 copy of this weight is kept; a warning if it would be better to."""
        if weight.dtype != np.float16:
            return False
        if not self.multi_precision:
            warnings.warn("updates in float16 lose small steps: "
                          f"{type(self).__name__}(multi_precision=True) keeps float32 weights beside", stacklevel=4)  # fmt: skip
        return self.multi_precision

    def create_state_multi_precision(self, index: Any, weight: NDArray) -> Any:
        """The state of a weight; with a float32 copy first where `multi_precision` asks for it."""
        if self._wants_copy(weight):
            copy = weight.astype(np.float32)
            return (copy, self.create_state(index, copy))
        return self.create_state(index, weight)

    def update_multi_precision(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step, on the float32 copy where there is one."""
        if self.multi_precision and weight.dtype == np.float16:
            copy, inner = state
            self.update(index, copy, grad.astype(np.float32), inner)
            weight._data[...] = copy._data
        else:
            self.update(index, weight, grad, state)

    # -- rates --------------------------------------------------------------------------------------------------
    @property
    def learning_rate(self) -> Any:
        """The learning rate of the moment."""
        return self.lr_scheduler(self.num_update) if self.lr_scheduler is not None else self.lr

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate; a UserWarning is raised when a scheduler decides it."""
        if self.lr_scheduler is not None:
            raise UserWarning("the learning rate comes from the optimizer's lr_scheduler: "
                              "set_learning_rate is for optimizers "
                              "without one")  # fmt: skip
        self.lr = lr

    def set_lr_scale(self, args_lrscale: Any) -> None:
        """Gone since MXNet 1.0; `set_lr_mult` does this."""
        raise DeprecationWarning("set_lr_scale is gone; use set_lr_mult")

    def _from_symbol(self, key: str) -> dict[str, float]:
        if not self.sym_info:
            return {}
        attrs, names = self.sym_info
        return {n: float(attrs[n][key]) for n in names if key in attrs.get(n, {})}

    def set_lr_mult(self, args_lr_mult: dict[Any, float]) -> None:
        """Factors of the learning rate by parameter name or index."""
        self.lr_mult = {**self._from_symbol("__lr_mult__"), **args_lr_mult}

    def set_wd_mult(self, args_wd_mult: dict[Any, float]) -> None:
        """Factors of the weight decay by parameter name or index; of what is not a weight or gamma it is 0 otherwise."""
        still = {n: 0.0 for n in self.idx2name.values() if not n.endswith(("_weight", "_gamma"))}
        self.wd_mult = {**still, **self._from_symbol("__wd_mult__"), **args_wd_mult}

    def _set_current_context(self, device_id: int) -> None:
        counts = self._all_index_update_counts.setdefault(device_id, {})
        self._index_update_count = counts

    def _update_count(self, index: Any) -> None:
        for i in index if isinstance(index, (list, tuple)) else [index]:
            count = self._index_update_count.get(i, self.begin_num_update) + 1
            self._index_update_count[i] = count
            self.num_update = max(count, self.num_update)

    def _factor(self, index: Any, table: dict[Any, float], attribute: str) -> float:
        if index in self.param_dict:
            return float(getattr(self.param_dict[index], attribute))
        if index in table:
            return table[index]
        return table.get(self.idx2name[index], 1.0) if index in self.idx2name else 1.0

    def _get_lrs(self, indices: Sequence[Any]) -> list[float]:
        lr = self.learning_rate
        return [lr * self._factor(i, self.lr_mult, "lr_mult") for i in indices]

    def _get_lr(self, index: Any) -> float:
        return self._get_lrs([index])[0]

    def _get_wds(self, indices: Sequence[Any]) -> list[float]:
        return [self.wd * self._factor(i, self.wd_mult, "wd_mult") for i in indices]

    def _get_wd(self, index: Any) -> float:
        return self._get_wds([index])[0]

    # -- helpers of the steps -------------------------------------------------------------------------------------
    def _attrs(self, index: Any, limit: str = "clip_gradient") -> dict[str, Any]:
        """Count an update; the attributes every operator of a step takes."""
        self._update_count(index)
        attrs: dict[str, Any] = {"lr": self._get_lr(index), "wd": self._get_wd(index), "rescale_grad": self.rescale_grad}
        if self.clip_gradient:
            attrs[limit] = self.clip_gradient
        return attrs

    def _gradient(self, grad: NDArray) -> Any:
        """The values of a gradient, rescaled and clipped."""
        g = grad._data * self.rescale_grad
        return np.clip(g, -self.clip_gradient, self.clip_gradient) if self.clip_gradient is not None else g

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("param_dict", None)  # it is given again by the trainer
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.param_dict = {}
        if "_all_index_update_counts" not in state:  # files of MXNet before 1.5 hold the counts of one device
            self._all_index_update_counts = {0: state.get("_index_update_count", {})}
        self.set_lr_mult(self.lr_mult)
        self.set_wd_mult(self.wd_mult)


register = Optimizer.register
create = Optimizer.create_optimizer


def new_state(weight: NDArray, dtype: Any = None, stype: str | None = None) -> NDArray:
    """Zeros like a weight, in its storage type or another one."""
    from diptych.mxnet.ndarray.sparse import zeros

    return zeros(stype or weight.stype, weight.shape, weight.context, dtype or weight.dtype)


def rows_of(grad: NDArray) -> Any:
    """The rows that a row-sparse gradient has."""
    return np.flatnonzero(grad._data.reshape(grad.shape[0], -1).any(1))


def step(op: str, weight: NDArray, grad: NDArray, states: Sequence[NDArray], attrs: dict[str, Any], lazy: bool = False) -> None:
    """One operator of a step on a weight and its states, in place; `lazy`: only on the rows that the gradient has."""
    text = {k: spell(v) for k, v in attrs.items()}
    if not (lazy and grad.stype == "row_sparse"):
        if not state.recording:
            settle()
            if in_place(op, [x._data for x in (weight, grad, *states)], attrs):
                return
        invoke(op, [weight, grad, *states], text, out=weight)
        return
    rows = rows_of(grad)
    if not len(rows):
        return
    held = [weight, *states]
    parts = [wrap(np.ascontiguousarray(x._data[rows])) for x in held]
    invoke(op, [parts[0], wrap(np.ascontiguousarray(grad._data[rows])), *parts[1:]], text, out=parts[0])
    for x, part in zip(held, parts):
        x._data[rows] = part._data
