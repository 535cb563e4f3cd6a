"""Stochastic variance reduced gradient (Johnson and Zhang, 2013) around Module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.mxnet.module.module import Module
from diptych.mxnet.ndarray.create import zeros

if TYPE_CHECKING:
    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["SVRGModule"]


class SVRGModule(Module):
    """A Module that corrects each batch's gradient by what the same batch gave at an earlier point, and by the mean there.

    >>> from diptych.mxnet import sym
    >>> net = sym.LinearRegressionOutput(sym.FullyConnected(sym.Variable("data"), num_hidden=1), name="lro")
    >>> module = SVRGModule(net, label_names=("lro_label",), update_freq=2)

    Every `update_freq` epochs `fit` keeps the parameters as they are, and takes the mean of the gradients of all batches
    at them. From then on a batch moves the parameters by its gradient, less its gradient at the kept parameters, plus that
    mean. The other arguments are those of Module. Raises ValueError for an update_freq below 1, TypeError for no integer.
    In MXNet the mean that was before is added to the sum that the next one is made of; here it begins at zero.
    """

    def __init__(self, symbol: Any, data_names: Any = ("data",), label_names: Any = ("softmax_label",), *args: Any,
                 update_freq: Any = None, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(symbol, data_names, label_names, *args, **kwargs)
        if not isinstance(update_freq, int):
            raise TypeError(f"SVRGModule: update_freq is the number of epochs between full gradients, an integer, not {update_freq!r}")
        if update_freq <= 0:
            raise ValueError(f"SVRGModule: update_freq must be a positive integer, not {update_freq}")
        self.update_freq = update_freq
        self._mod_aux = Module(symbol, data_names, label_names, *args, **kwargs)
        self._param_dict: list[dict[str, NDArray]] = []  # for each context the mean of all gradients, by parameter

    def bind(self, data_shapes: Any, label_shapes: Any = None, for_training: bool = True, *args: Any, **kwargs: Any) -> None:
        """As Module.bind, for both sets of parameters."""
        super().bind(data_shapes, label_shapes, for_training, *args, **kwargs)
        if for_training:
            self._mod_aux.bind(data_shapes, label_shapes, for_training, *args, **kwargs)

    def reshape(self, data_shapes: Any, label_shapes: Any = None) -> None:
        """As Module.reshape, for both."""
        super().reshape(data_shapes, label_shapes)
        if self._mod_aux.binded:
            self._mod_aux.reshape(data_shapes, label_shapes)

    def init_optimizer(self, *args: Any, **kwargs: Any) -> None:
        """As Module.init_optimizer. The mean of gradients is zero until `update_full_grads`."""
        shapes = {name: value.shape for name, value in self.get_params()[0].items()}
        self._param_dict = [{name: zeros(shape, ctx) for name, shape in shapes.items()} for ctx in self._context]
        super().init_optimizer(*args, **kwargs)

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """As Module.forward; in training also at the kept parameters."""
        super().forward(data_batch, is_train)
        if is_train:
            self._mod_aux.forward(data_batch, is_train)

    def backward(self, out_grads: Any = None) -> None:
        """As Module.backward, at both."""
        super().backward(out_grads)
        if self._mod_aux.binded:
            self._mod_aux.backward(out_grads)

    def update(self) -> None:
        """Correct the gradients, and take the optimizer's step with them."""
        for grads, kept, name in zip(self._exec_group.grad_arrays, self._mod_aux._exec_group.grad_arrays, self._exec_group.param_names):
            for context, (grad, at_kept) in enumerate(zip(grads, kept)):
                if grad is not None:
                    grad += self._param_dict[context][name] - at_kept
        super().update()

    def update_full_grads(self, train_data: Any) -> None:
        """Keep the parameters as they are now, and take the mean gradient of all batches of an iterator at them."""
        self._mod_aux.set_params(*self.get_params())
        group = self._mod_aux._exec_group
        totals = [{name: zeros(value.shape, value.context) for name, value in means.items()} for means in self._param_dict]
        train_data.reset()
        batches, padding = 0, 0
        for batch in train_data:
            self._mod_aux.forward(batch, is_train=True)
            self._mod_aux.backward()
            batches, padding = batches + 1, batch.pad or 0
            for name, grads in zip(group.param_names, group.grad_arrays):
                for total, grad in zip(totals, grads):
                    if grad is not None:
                        total[name] += grad
        whole = batches - padding / train_data.batch_size  # the last batch is not a whole one where it was filled up
        self._param_dict = [{name: value / whole for name, value in total.items()} for total in totals]
        train_data.reset()

    def _begin_epoch(self, epoch: int, train_data: Any) -> None:
        if epoch % self.update_freq == 0:
            self.update_full_grads(train_data)

    def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        """As Module.prepare, for both."""
        super().prepare(data_batch, sparse_row_id_fn)
        self._mod_aux.prepare(data_batch, sparse_row_id_fn)
