"""BaseModule: the training loop and what follows from the parts that subclasses give."""

from __future__ import annotations

import logging
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import metric
from diptych.mxnet import ndarray as nd
from diptych.mxnet.base import _as_list
from diptych.mxnet.initializer import Uniform
from diptych.mxnet.io import DataBatch
from diptych.mxnet.model import BatchEndParam, joined_params, split_params
from diptych.mxnet.ndarray.ndarray import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BaseModule"]


class BaseModule:
    """The interface of modules: bind, init_params, init_optimizer, then forward, backward, update; or fit for all of it."""

    data_names: Any
    output_names: Any
    data_shapes: Any
    label_shapes: Any
    output_shapes: Any

    def __init__(self, logger: Any = logging) -> None:
        self.logger = logger
        self.binded = False
        self.for_training = False
        self.inputs_need_grad = False
        self.params_initialized = False
        self.optimizer_initialized = False
        self._symbol: Any = None
        self._total_exec_bytes = 0

    @property
    def symbol(self) -> Any:
        """The symbol."""
        return self._symbol

    def _ready(self, optimizer: bool = False) -> None:
        if not self.binded:
            raise AssertionError("the module is not bound; call bind first")
        if not self.params_initialized:
            raise AssertionError("the module has no parameters; call init_params or set_params first")
        if optimizer and not self.optimizer_initialized:
            raise AssertionError("the module has no optimizer; call init_optimizer first")

    # -- all at once ------------------------------------------------------------------------------------------
    def forward_backward(self, data_batch: Any) -> None:
        """Forward in training mode, then backward."""
        self.forward(data_batch, is_train=True)
        self.backward()

    def _count(self, eval_metric: Any, batch: Any) -> None:
        if isinstance(batch, list):
            self.update_metric(eval_metric, [b.label for b in batch], pre_sliced=True)
        else:
            self.update_metric(eval_metric, batch.label)

    def score(self, eval_data: Any, eval_metric: Any, num_batch: int | None = None, batch_end_callback: Any = None,
              score_end_callback: Any = None, reset: bool = True, epoch: int = 0, sparse_row_id_fn: Any = None) -> Any:  # fmt: skip
        """Pairs of metric name and value over (at most `num_batch` batches of) an iterator."""
        self._ready()
        if reset:
            eval_data.reset()
        if not isinstance(eval_metric, metric.EvalMetric):
            eval_metric = metric.create(eval_metric)
        eval_metric.reset()
        done = 0
        for nbatch, eval_batch in enumerate(eval_data):
            if nbatch == num_batch:
                break
            self.prepare(eval_batch, sparse_row_id_fn)
            self.forward(eval_batch, is_train=False)
            self._count(eval_metric, eval_batch)
            for callback in _as_list(batch_end_callback) if batch_end_callback is not None else ():
                callback(BatchEndParam(epoch, nbatch, eval_metric, locals()))
            done += 1
        for callback in _as_list(score_end_callback) if score_end_callback else ():
            callback(BatchEndParam(epoch, done, eval_metric, locals()))
        return eval_metric.get_name_value()

    def iter_predict(self, eval_data: Any, num_batch: int | None = None, reset: bool = True,
                     sparse_row_id_fn: Any = None) -> Iterator[tuple[list[NDArray], int, Any]]:  # fmt: skip
        """(outputs without padding, number of the batch, batch) for each batch."""
        self._ready()
        if reset:
            eval_data.reset()
        for nbatch, eval_batch in enumerate(eval_data):
            if nbatch == num_batch:
                break
            self.prepare(eval_batch, sparse_row_id_fn)
            self.forward(eval_batch, is_train=False)
            yield [o[0 : o.shape[0] - (eval_batch.pad or 0)] for o in self.get_outputs()], nbatch, eval_batch

    def predict(self, eval_data: Any, num_batch: int | None = None, merge_batches: bool = True, reset: bool = True,
                always_output_list: bool = False, sparse_row_id_fn: Any = None) -> Any:  # fmt: skip
        """The outputs for an iterator (or for an array): joined over batches, or a list of lists by batch."""
        self._ready()
        if isinstance(eval_data, (NDArray, np.ndarray)):
            x = nd.array(eval_data) if isinstance(eval_data, np.ndarray) else eval_data
            self.forward(DataBatch([x]))
            return self.get_outputs()[0]
        if not hasattr(eval_data, "reset"):
            raise ValueError("eval_data is an array or a DataIter")
        found = [[o.copy() for o in outs] for outs, _, _ in self.iter_predict(eval_data, num_batch, reset, sparse_row_id_fn)]
        if not found or not merge_batches:
            return found
        if any(len(outs) != len(found[0]) for outs in found):
            raise AssertionError("batches have different numbers of outputs (buckets?): ask for merge_batches=False")
        whole = [nd.concatenate([outs[i] for outs in found]) for i in range(len(found[0]))]
        return whole[0] if len(whole) == 1 and not always_output_list else whole

    def fit(self, train_data: Any, eval_data: Any = None, eval_metric: Any = "acc", epoch_end_callback: Any = None,
            batch_end_callback: Any = None, kvstore: Any = "local", optimizer: Any = "sgd",
            optimizer_params: Any = (("learning_rate", 0.01),), eval_end_callback: Any = None, eval_batch_end_callback: Any = None,
            initializer: Any = None, arg_params: Any = None, aux_params: Any = None, allow_missing: bool = False,
            force_rebind: bool = False, force_init: bool = False, begin_epoch: int = 0, num_epoch: int | None = None,
            validation_metric: Any = None, monitor: Any = None, sparse_row_id_fn: Any = None) -> None:  # fmt: skip
        """Bind, initialize, and train from `begin_epoch` to `num_epoch`.

        Args:
            train_data, eval_data: iterators. eval_metric: what is logged ("acc", a metric, a list).
            epoch_end_callback: called with (epoch, symbol, arguments, auxiliary states); batch_end_callback with BatchEndParam.
            optimizer: a name or an Optimizer. optimizer_params: pairs or a dict for it.
            initializer: Uniform(0.01) if None. arg_params, aux_params: parameters to start from.
        """
        if num_epoch is None:
            raise AssertionError("fit: give num_epoch")
        initializer = initializer if initializer is not None else Uniform(0.01)
        self.bind(train_data.provide_data, train_data.provide_label, for_training=True, force_rebind=force_rebind)
        if monitor is not None:
            self.install_monitor(monitor)
        self.init_params(initializer, arg_params, aux_params, allow_missing=allow_missing, force_init=force_init)
        self.init_optimizer(kvstore, optimizer, optimizer_params)
        if validation_metric is None:
            validation_metric = eval_metric
        if not isinstance(eval_metric, metric.EvalMetric):
            eval_metric = metric.create(eval_metric)
        for epoch in range(begin_epoch, num_epoch):
            tic = time.time()
            eval_metric.reset()
            nbatch = 0
            values: Any = []
            self._begin_epoch(epoch, train_data)
            batches = iter(train_data)
            following = next(batches)
            while following is not None:
                data_batch = following
                if monitor is not None:
                    monitor.tic()
                self.forward_backward(data_batch)
                self.update()
                self._count(eval_metric, data_batch)
                following = next(batches, None)  # read only now: an iterator may give the same arrays again
                if following is not None:
                    self.prepare(following, sparse_row_id_fn)
                if monitor is not None:
                    monitor.toc_print()
                if following is None:
                    values = eval_metric.get_global_name_value()  # before a callback resets it
                for callback in _as_list(batch_end_callback) if batch_end_callback is not None else ():
                    callback(BatchEndParam(epoch, nbatch, eval_metric, locals()))
                nbatch += 1
            for name, value in values:
                self.logger.info("Epoch[%d] Train-%s=%f", epoch, name, value)
            self.logger.info("Epoch[%d] Time cost=%.3f", epoch, time.time() - tic)
            args, aux = self.get_params()
            self.set_params(args, aux)
            for callback in _as_list(epoch_end_callback) if epoch_end_callback is not None else ():
                callback(epoch, self.symbol, args, aux)
            if eval_data is not None:
                found = self.score(eval_data, validation_metric, score_end_callback=eval_end_callback,
                                   batch_end_callback=eval_batch_end_callback, epoch=epoch)  # fmt: skip
                for name, value in found:
                    self.logger.info("Epoch[%d] Validation-%s=%f", epoch, name, value)
            train_data.reset()

    def _begin_epoch(self, epoch: int, train_data: Any) -> None:
        """What comes before the first batch of an epoch: nothing here."""

    # -- parameters -------------------------------------------------------------------------------------------
    def get_params(self) -> Any:
        """(arguments, auxiliary states)."""
        raise NotImplementedError

    def init_params(self, initializer: Any = None, arg_params: Any = None, aux_params: Any = None, allow_missing: bool = False,
                    force_init: bool = False, allow_extra: bool = False) -> None:  # fmt: skip
        """Give parameters their first values."""
        raise NotImplementedError

    def set_params(self, arg_params: Any, aux_params: Any, allow_missing: bool = False, force_init: bool = True,
                   allow_extra: bool = False) -> None:  # fmt: skip
        """Take over parameters."""
        self.init_params(None, arg_params, aux_params, allow_missing, force_init, allow_extra)

    def save_params(self, fname: str) -> None:
        """Write the parameters."""
        nd.save(fname, joined_params(*self.get_params()))

    def load_params(self, fname: str) -> None:
        """Read parameters."""
        self.set_params(*split_params(nd.load(fname), fname))

    def get_states(self, merge_multi_context: bool = True) -> Any:
        """The states: none here."""
        self._ready()
        if merge_multi_context:
            raise AssertionError("get_states gives the states of each context: merge_multi_context=False")
        return []

    def set_states(self, states: Any = None, value: Any = None) -> None:
        """Set the states: there are none here."""
        self._ready()
        if states or value:
            raise AssertionError(f"{type(self).__name__} has no states")

    # -- parts that subclasses give ---------------------------------------------------------------------------
    def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        """Get ready for a batch."""
        if sparse_row_id_fn is not None:
            warnings.warn(UserWarning("this module has no sparse parameters: sparse_row_id_fn is not called"), stacklevel=2)

    def bind(self, data_shapes: Any, label_shapes: Any = None, for_training: bool = True, inputs_need_grad: bool = False,
             force_rebind: bool = False, shared_module: Any = None, grad_req: Any = "write") -> None:  # fmt: skip
        """Make what is needed to run on batches of these shapes."""
        raise NotImplementedError

    def init_optimizer(self, kvstore: Any = "local", optimizer: Any = "sgd", optimizer_params: Any = (("learning_rate", 0.01),),
                       force_init: bool = False) -> None:  # fmt: skip
        """Choose the optimizer."""
        raise NotImplementedError

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Compute the outputs."""
        raise NotImplementedError

    def backward(self, out_grads: Any = None) -> None:
        """Compute the gradients."""
        raise NotImplementedError

    def get_outputs(self, merge_multi_context: bool = True) -> Any:
        """The outputs of the last forward."""
        raise NotImplementedError

    def get_input_grads(self, merge_multi_context: bool = True) -> Any:
        """The gradients of the data."""
        raise NotImplementedError

    def update(self) -> None:
        """Update the parameters by their gradients."""
        raise NotImplementedError

    def update_metric(self, eval_metric: Any, labels: Any, pre_sliced: bool = False) -> None:
        """Count the outputs of the last batch."""
        raise NotImplementedError

    def install_monitor(self, mon: Any) -> None:
        """Let a Monitor look at the values."""
        raise NotImplementedError
