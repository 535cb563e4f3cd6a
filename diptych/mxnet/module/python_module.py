"""Modules whose computation is written in Python."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from diptych.mxnet import ndarray as nd
from diptych.mxnet.module.base_module import BaseModule
from diptych.mxnet.module.executor_group import described

__all__ = ["PythonLossModule", "PythonModule"]


class PythonModule(BaseModule):
    """A module without parameters; subclasses give forward, get_outputs, backward, get_input_grads and `_compute_output_shapes`."""

    def __init__(self, data_names: Any, label_names: Any, output_names: Any, logger: Any = logging) -> None:
        super().__init__(logger)
        self._data_names = list(data_names)
        self._label_names = list(label_names) if label_names is not None else None
        self._output_names = output_names
        self._data_shapes: Any = None
        self._label_shapes: Any = None
        self._output_shapes: Any = None

    @property
    def data_names(self) -> Any:
        """Names of the data."""
        return self._data_names

    @property
    def output_names(self) -> Any:
        """Names of the outputs."""
        return self._output_names

    @property
    def data_shapes(self) -> Any:
        """Descriptions of the data."""
        return self._data_shapes

    @property
    def label_shapes(self) -> Any:
        """Descriptions of the labels."""
        return self._label_shapes

    @property
    def output_shapes(self) -> Any:
        """Names and shapes of the outputs."""
        return self._output_shapes

    def get_params(self) -> Any:
        """No parameters."""
        return {}, {}

    def init_params(self, initializer: Any = None, arg_params: Any = None, aux_params: Any = None, allow_missing: bool = False,
                    force_init: bool = False, allow_extra: bool = False) -> None:  # fmt: skip
        """Nothing to do: there are no parameters."""
        self.params_initialized = True

    def update(self) -> None:
        """Nothing to do: there are no parameters."""

    def update_metric(self, eval_metric: Any, labels: Any, pre_sliced: bool = False) -> None:
        """Count the outputs, where the module takes labels."""
        if self._label_shapes is None:
            return
        if pre_sliced:
            raise RuntimeError("labels come whole to a PythonModule")
        eval_metric.update(labels, self.get_outputs())

    def bind(self, data_shapes: Any, label_shapes: Any = None, for_training: bool = True, inputs_need_grad: bool = False,
             force_rebind: bool = False, shared_module: Any = None, grad_req: Any = "write") -> None:  # fmt: skip
        """Take the shapes, and compute those of the outputs."""
        if self.binded and not force_rebind:
            self.logger.warning("bound already, this bind() does nothing (force_rebind=True binds again)")
            return
        if grad_req != "write":
            raise AssertionError("a PythonModule writes gradients: grad_req='write'")
        self.for_training, self.inputs_need_grad = for_training, inputs_need_grad
        data = described(data_shapes)
        if [d.name for d in data] != self._data_names:
            raise AssertionError(f"the data are {[d.name for d in data]}, the module takes {self._data_names}")
        if label_shapes is not None and self._label_names is not None and len(label_shapes) != len(self._label_names):
            raise AssertionError(f"{len(label_shapes)} labels, the module takes {self._label_names}")
        self._data_shapes, self._label_shapes = data_shapes, label_shapes
        self._output_shapes = self._compute_output_shapes()
        self.binded = True

    def _compute_output_shapes(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must override _compute_output_shapes")

    def init_optimizer(self, kvstore: Any = "local", optimizer: Any = "sgd", optimizer_params: Any = (("learning_rate", 0.01),),
                       force_init: bool = False) -> None:  # fmt: skip
        """Nothing to do: there are no parameters."""
        self.optimizer_initialized = True


class PythonLossModule(PythonModule):
    """A loss in Python: the output is the data, `grad_func(scores, labels)` gives its gradient."""

    def __init__(self, name: str = "pyloss", data_names: Any = ("data",), label_names: Any = ("softmax_label",), logger: Any = logging,
                 grad_func: Any = None) -> None:  # fmt: skip
        super().__init__(data_names, label_names, [f"{name}_output"], logger)
        self._name = name
        if len(self._data_names) != 1 or self._label_names is None or len(self._label_names) != 1:
            raise AssertionError("PythonLossModule takes one array and one label")
        if grad_func is not None and not callable(grad_func):
            raise AssertionError("grad_func must be callable")
        self._grad_func = grad_func
        self._scores: Any = None
        self._labels: Any = None
        self._scores_grad: Any = None

    def _compute_output_shapes(self) -> Any:
        return [(f"{self._name}_output", self._data_shapes[0][1])]

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Keep scores, and labels in training."""
        self._scores = data_batch.data[0]
        if self.for_training if is_train is None else is_train:
            self._labels = data_batch.label[0]

    def get_outputs(self, merge_multi_context: bool = True) -> Any:
        """The scores."""
        if not merge_multi_context:
            raise AssertionError("PythonLossModule runs on one device")
        return [self._scores]

    def backward(self, out_grads: Any = None) -> None:
        """The gradient of the scores."""
        if out_grads is not None:
            raise AssertionError("a loss begins the gradients: no out_grads")
        if not self.for_training:
            raise AssertionError("backward needs bind(for_training=True)")
        if self._grad_func is None:
            raise NotImplementedError("give grad_func, or override backward")
        grad = self._grad_func(self._scores, self._labels)
        self._scores_grad = grad if isinstance(grad, nd.NDArray) else nd.array(np.asarray(grad))

    def get_input_grads(self, merge_multi_context: bool = True) -> Any:
        """The gradient of the scores."""
        if not merge_multi_context:
            raise AssertionError("PythonLossModule runs on one device")
        return [self._scores_grad]

    def install_monitor(self, mon: Any) -> None:
        """An error: there is no executor to look into."""
        raise NotImplementedError("PythonLossModule has no executor that a Monitor could look into")
