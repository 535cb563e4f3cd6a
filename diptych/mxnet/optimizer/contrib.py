"""`mx.optimizer.contrib`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.optimizer.base import Optimizer, register, step

if TYPE_CHECKING:
    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["GroupAdaGrad"]


@register
class GroupAdaGrad(Optimizer):
    """AdaGrad with one rate for every row; weight decay is not supported."""

    def __init__(self, eps: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.float_stable_eps = eps

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """The mean of squares by row."""
        if weight.ndim != 2:
            raise AssertionError(f"GroupAdaGrad takes matrices, not a weight of shape {weight.shape}")
        from diptych.mxnet.ndarray.sparse import zeros

        return zeros(weight.stype, (weight.shape[0], 1), weight.context, np.float32)

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step; of a row-sparse gradient only the rows that it has count."""
        attrs = self._attrs(index)
        if attrs.pop("wd") != 0:
            raise AssertionError("GroupAdaGrad has no weight decay: wd=0")
        step("_contrib_group_adagrad_update", weight, grad, [state], {**attrs, "epsilon": self.float_stable_eps}, True)
