"""Estimator: a network, a loss, a trainer and metrics, fitted and evaluated with a call each."""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from typing import Any

from diptych.mxnet.context import Context, cpu
from diptych.mxnet.gluon.contrib.estimator import event_handler as events
from diptych.mxnet.gluon.contrib.estimator.batch_processor import BatchProcessor
from diptych.mxnet.gluon.contrib.estimator.utils import (
    _check_handler_metric_ref,
    _check_metrics,
    _suggest_metric_for_loss,
)
from diptych.mxnet.gluon.data import DataLoader
from diptych.mxnet.gluon.loss import Loss
from diptych.mxnet.gluon.trainer import Trainer
from diptych.mxnet.metric import EvalMetric
from diptych.mxnet.metric import Loss as LossMetric

__all__ = ["Estimator"]

Handlers = list[Any]


class Estimator:
    """Trains a network and evaluates it; everything on the way is the work of event handlers.

    >>> from diptych.mxnet import gluon, nd
    >>> data = gluon.data.DataLoader(gluon.data.ArrayDataset(nd.ones((8, 3)), nd.zeros((8,))), batch_size=4)
    >>> net = gluon.nn.Dense(2)
    >>> net.initialize()
    >>> trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    >>> estimator = Estimator(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer=trainer)
    >>> estimator.logger.setLevel("ERROR")
    >>> estimator.fit(data, epochs=2)
    >>> [m.name for m in estimator.train_metrics]
    ['training accuracy', 'training softmaxcrossentropyloss']

    train_metrics, val_metrics: metrics or lists of them, accuracy for classification and the loss if not given.
    initializer: for parameters that are not initialized yet. trainer: SGD of rate 0.001 if not given. val_net, val_loss: if
    evaluation is by others. batch_processor: what is done with a batch. The `logger` writes to standard output.
    """

    logger: logging.Logger

    def __init__(self, net: Any, loss: Loss, train_metrics: Any = None, val_metrics: Any = None, initializer: Any = None,
                 trainer: Trainer | None = None, context: Any = None, val_net: Any = None, val_loss: Loss | None = None,
                 batch_processor: Any = None) -> None:  # fmt: skip
        self.net = net
        self.loss = _checked_loss(loss)
        self._train_metrics = _check_metrics(train_metrics)
        self._val_metrics = _check_metrics(val_metrics)
        self._name_metrics()
        self.val_loss = self.loss if val_loss is None else _checked_loss(val_loss)
        self.val_net = net if val_net is None else val_net
        self.logger = logging.Logger(name="Estimator", level=logging.INFO)
        self.logger.addHandler(logging.StreamHandler(sys.stdout))
        self.context = _checked_context(context)
        self._initialize(initializer)
        self.trainer = self._checked_trainer(trainer)
        self.batch_processor = _checked_processor(batch_processor)
        self.max_epoch: int | None = None
        self.max_batch: int | None = None
        self.batch_axis = 0

    def _name_metrics(self) -> None:
        """Metrics that were not given, and names by which handlers tell those of training from those of validation."""
        if not self._train_metrics:
            suggested = _suggest_metric_for_loss(self.loss)
            self._train_metrics = [suggested] if suggested is not None else []
            self._train_metrics.append(LossMetric(self.loss.name.rstrip("1234567890")))
        for metric in self._train_metrics:
            metric.name = f"training {metric.name}"
        if not self._val_metrics:
            self._val_metrics = [copy.deepcopy(m) for m in self._train_metrics]
        for metric in self._val_metrics:
            metric.name = metric.name.replace("training", "validation") if "training" in metric.name else f"validation {metric.name}"

    def _initialize(self, initializer: Any) -> None:
        if not self._is_initialized():
            self.net.initialize(**({"init": initializer} if initializer else {}), ctx=self.context)
        elif initializer:
            warnings.warn("Network already fully initialized, skipping initialization. You don't need to pass initializer if you already "
                          "initialized your net. You can use net.initialize(init=your_initializer, force_reinit=True)"
                          "to force re-initialize.", stacklevel=3)  # fmt: skip

    def _is_initialized(self) -> bool:
        for parameter in self.net.collect_params().values():
            try:
                parameter.list_ctx()
            except RuntimeError:
                return False
        return True

    def _checked_trainer(self, trainer: Any) -> Trainer:
        if not trainer:
            warnings.warn("No trainer specified, default SGD optimizer with learning rate 0.001 is used.", stacklevel=3)
            return Trainer(self.net.collect_params(), "sgd", {"learning_rate": 0.001})
        if not isinstance(trainer, Trainer):
            raise ValueError(f"Trainer must be a Gluon Trainer instance, refer to gluon.Trainer:{trainer}")
        return trainer

    @property
    def train_metrics(self) -> list[EvalMetric]:
        """The metrics of training."""
        return self._train_metrics

    @property
    def val_metrics(self) -> list[EvalMetric]:
        """The metrics of validation."""
        return self._val_metrics

    # -- running ------------------------------------------------------------------------------------------------
    def evaluate(self, val_data: DataLoader, batch_axis: int = 0, event_handlers: Any = None) -> None:
        """Compute the metrics of validation on all batches of a DataLoader; handlers for metrics and logs are added."""
        _checked_loader(val_data)
        for metric in self.val_metrics:
            metric.reset()
        _, epoch_begin, batch_begin, batch_end, epoch_end, _ = self._categorize_handlers(
            self._prepare_default_validation_handlers(event_handlers)
        )
        for h in epoch_begin:
            h.epoch_begin(self)
        for batch in val_data:
            for h in batch_begin:
                h.batch_begin(self, batch=batch)
            _, label, pred, loss = self.batch_processor.evaluate_batch(self, batch, batch_axis)
            for h in batch_end:
                h.batch_end(self, batch=batch, pred=pred, label=label, loss=loss)
        for h in epoch_end:
            h.epoch_end(self)

    def fit(self, train_data: DataLoader, val_data: DataLoader | None = None, epochs: int | None = None, event_handlers: Any = None,
            batches: int | None = None, batch_axis: int = 0) -> None:  # fmt: skip
        """Train for a number of epochs or of batches (give one of them).

        event_handlers: one or several, beside which handlers for the end, the optimizer's step, metrics, validation and logs
        are added where none of their kind is given. Raises ValueError for data that is no DataLoader.
        """
        _checked_loader(train_data)
        if (not epochs) == (not batches):
            raise ValueError("Fit only support exactly one type of iteration, train by number of epochs or number of batches."
                             "Please specify one and only one of: epochs or batches.")  # fmt: skip
        self.max_epoch, self.max_batch, self.batch_axis = epochs, batches, batch_axis
        train_begin, epoch_begin, batch_begin, batch_end, epoch_end, train_end = self._categorize_handlers(
            self._prepare_default_handlers(val_data, event_handlers)
        )
        for h in train_begin:
            h.train_begin(self)
        while True:
            for h in epoch_begin:
                h.epoch_begin(self)
            for batch in train_data:
                for h in batch_begin:
                    h.batch_begin(self, batch=batch)
                _, label, pred, loss = self.batch_processor.fit_batch(self, batch, batch_axis)
                stop = [h.batch_end(self, batch=batch, pred=pred, label=label, loss=loss) for h in batch_end]
                if any(stop):
                    break
            stop = [h.epoch_end(self) for h in epoch_end]
            if any(stop):
                break
        for h in train_end:
            h.train_end(self)

    # -- handlers -----------------------------------------------------------------------------------------------
    def _prepare_default_handlers(self, val_data: DataLoader | None, event_handlers: Any) -> Handlers:
        defaults: list[tuple[type, Any]] = [
            (_Never, lambda: events.StoppingHandler(self.max_epoch, self.max_batch)),
            (events.GradientUpdateHandler, events.GradientUpdateHandler),
            (events.MetricHandler, lambda: events.MetricHandler(self.train_metrics)),
            (events.LoggingHandler, lambda: events.LoggingHandler(metrics=self.train_metrics)),
        ]
        if val_data:
            defaults.insert(3, (events.ValidationHandler, lambda: events.ValidationHandler(val_data, self.evaluate)))
        return self._with_defaults(event_handlers, defaults, [*self.train_metrics, *self.val_metrics])

    def _prepare_default_validation_handlers(self, event_handlers: Any) -> Handlers:
        return self._with_defaults(event_handlers, [
            (events.MetricHandler, lambda: events.MetricHandler(self.val_metrics)),
            (events.LoggingHandler, lambda: events.LoggingHandler(metrics=self.val_metrics)),
        ], self.val_metrics)  # fmt: skip

    def _categorize_handlers(self, event_handlers: Handlers) -> tuple[Handlers, ...]:
        """The handlers by what they are called at, in the order of an epoch."""
        kinds = (events.TrainBegin, events.EpochBegin, events.BatchBegin, events.BatchEnd, events.EpochEnd, events.TrainEnd)
        return tuple([h for h in event_handlers if isinstance(h, kind)] for kind in kinds)

    def _with_defaults(self, given: Any, defaults: list[tuple[type, Any]], known: list[EvalMetric]) -> Handlers:
        """The handlers given, and the default of each kind that is not among them, by priority."""
        handlers = events._check_event_handlers(given)
        added = [make() for kind, make in defaults if not any(isinstance(h, kind) for h in handlers)]
        mixed = bool(handlers and added)
        handlers.extend(added)  # into the caller's list, as in MXNet
        if mixed:
            for h in handlers:
                _check_handler_metric_ref(h, known)
        handlers.sort(key=lambda h: getattr(h, "priority", 0))
        return handlers


class _Never:
    """A kind that no handler is of."""


def _checked_loader(data: Any) -> None:
    if not isinstance(data, DataLoader):
        raise ValueError("Estimator only support input as Gluon DataLoader. Alternatively, you can transform your DataIter or any NDArray "
                         "into Gluon DataLoader. Refer to gluon.data.DataLoader")  # fmt: skip


def _checked_loss(loss: Any) -> Loss:
    if not isinstance(loss, Loss):
        raise ValueError(f"loss must be a Loss, refer to gluon.loss.Loss:{loss}")
    return loss


def _checked_context(context: Any) -> list[Context]:
    if not context:
        return [cpu()]
    found = [context] if isinstance(context, Context) else context
    if not isinstance(found, list) or not all(isinstance(c, Context) for c in found):
        raise ValueError("context must be a Context or a list of Context, for example mx.cpu() or [mx.gpu(0), mx.gpu(1)], "
                         f"refer to mxnet.Context:{context}")  # fmt: skip
    for c in found:
        if not str(c).startswith("cpu"):
            raise AssertionError(f"{c} is not available, please make sure your context is in one of: mx.cpu()")
    return found


def _checked_processor(processor: Any) -> Any:
    if processor is None:
        return BatchProcessor()
    if not callable(getattr(processor, "fit_batch", None)) or not callable(getattr(processor, "evaluate_batch", None)):
        raise ValueError("Customized Batch Processor must contain fit_batch() and evaluate_batch() methods")
    return processor
