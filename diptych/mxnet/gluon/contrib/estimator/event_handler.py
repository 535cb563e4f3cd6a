"""Event handlers of an Estimator: what is called when training, epochs and batches begin and end.

A handler whose `batch_end` or `epoch_end` returns True stops the training. Those of lower `priority` are called first.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from diptych.mxnet.gluon.contrib.estimator.utils import _check_metrics
from diptych.mxnet.metric import Loss as LossMetric

if TYPE_CHECKING:
    from diptych.mxnet.gluon.contrib.estimator.estimator import Estimator

__all__ = [
    "BatchBegin", "BatchEnd", "CheckpointHandler", "EarlyStoppingHandler", "EpochBegin", "EpochEnd", "GradientUpdateHandler",
    "LoggingHandler", "MetricHandler", "StoppingHandler", "TrainBegin", "TrainEnd", "ValidationHandler",
]  # fmt: skip


class EventHandler:
    """What all handlers are."""


def _check_event_handlers(handlers: Any) -> list[Any]:
    """A list of handlers from one, several or none."""
    if isinstance(handlers, EventHandler):
        return [handlers]
    found = handlers or []
    if not all(isinstance(h, EventHandler) for h in found):
        raise ValueError(f"handlers must be an EventHandler or a list of EventHandler, got: {handlers}")
    return found


class TrainBegin(EventHandler):
    """Called when training begins."""

    def train_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Training begins."""


class TrainEnd(EventHandler):
    """Called when training ends."""

    def train_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Training ends."""


class EpochBegin(EventHandler):
    """Called when an epoch begins."""

    def epoch_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """An epoch begins."""


class EpochEnd(EventHandler):
    """Called when an epoch ends."""

    def epoch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> bool | None:
        """An epoch ends; True stops the training."""
        return False


class BatchBegin(EventHandler):
    """Called when a batch begins."""

    def batch_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """A batch begins: `batch` is what the loader gave."""


class BatchEnd(EventHandler):
    """Called when a batch ends."""

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> bool | None:
        """A batch ends: `batch`, `pred`, `label` and `loss` are given; True stops the training."""
        return False


class StoppingHandler(TrainBegin, BatchEnd, EpochEnd):
    """Stops after the estimator's number of epochs or batches."""

    def __init__(self, max_epoch: int | None = None, max_batch: int | None = None) -> None:
        self.max_epoch, self.max_batch = max_epoch, max_batch
        self.current_batch = self.current_epoch = 0
        self.stop_training = False

    def train_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Count from zero."""
        self.max_epoch, self.max_batch = estimator.max_epoch, estimator.max_batch
        self.current_batch = self.current_epoch = 0

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> bool:
        """True after the last batch."""
        self.current_batch += 1
        self.stop_training = self.stop_training or self.current_batch == self.max_batch
        return self.stop_training

    def epoch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> bool:
        """True after the last epoch."""
        self.current_epoch += 1
        self.stop_training = self.stop_training or self.current_epoch == self.max_epoch
        return self.stop_training


class MetricHandler(EpochBegin, BatchEnd):
    """Updates metrics after each batch, those of losses by the loss; early, so that other handlers see them."""

    def __init__(self, metrics: Any, priority: float = -1000) -> None:
        self.metrics, self.priority = _check_metrics(metrics), priority

    def epoch_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Begin the metrics anew."""
        for metric in self.metrics:
            metric.reset()

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Update the metrics."""
        for metric in self.metrics:
            if isinstance(metric, LossMetric):
                metric.update(0, kwargs["loss"])
            else:
                metric.update(kwargs["label"], kwargs["pred"])


class ValidationHandler(TrainBegin, BatchEnd, EpochEnd):
    """Evaluates every `epoch_period` epochs, and every `batch_period` batches if that is given.

    eval_fn: called with val_data, batch_axis and event_handlers; mostly `estimator.evaluate`.
    """

    def __init__(self, val_data: Any, eval_fn: Any, epoch_period: int | None = 1, batch_period: int | None = None, priority: float = -1000,
                 event_handlers: Any = None) -> None:  # fmt: skip
        self.val_data, self.eval_fn, self.event_handlers = val_data, eval_fn, event_handlers
        self.epoch_period, self.batch_period, self.priority = epoch_period, batch_period, priority
        self.current_batch = self.current_epoch = 0

    def train_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Count from zero."""
        self.current_batch = self.current_epoch = 0

    def _evaluate(self, estimator: Estimator) -> None:
        self.eval_fn(val_data=self.val_data, batch_axis=estimator.batch_axis, event_handlers=self.event_handlers)

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Evaluate, when it is time."""
        self.current_batch += 1
        if self.batch_period and self.current_batch % self.batch_period == 0:
            self._evaluate(estimator)

    def epoch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Evaluate, when it is time."""
        self.current_epoch += 1
        if self.epoch_period and self.current_epoch % self.epoch_period == 0:
            self._evaluate(estimator)


def _shown(metrics: list[Any]) -> str:
    return ", ".join("{}: {:.4f}".format(*m.get()) for m in metrics)


class LoggingHandler(TrainBegin, TrainEnd, EpochBegin, EpochEnd, BatchBegin, BatchEnd):
    """Logs metrics and times every epoch, or every `log_interval` batches; last of all handlers."""

    def __init__(self, log_interval: int | str = "epoch", metrics: Any = None, priority: float = float("inf")) -> None:
        if not isinstance(log_interval, int) and log_interval != "epoch":
            raise ValueError("log_interval must be either an integer or string 'epoch'")
        self.metrics, self.priority, self.log_interval = _check_metrics(metrics), priority, log_interval
        self.batch_index = self.current_epoch = self.processed_samples = 0
        self.log_interval_time = self.train_start = self.epoch_start = self.batch_start = 0.0

    def train_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Log optimizer and rate."""
        self.train_start = time.time()
        trainer, log = estimator.trainer, estimator.logger
        log.info("Training begin: using optimizer %s with current learning rate %.4f ", type(trainer.optimizer).__name__, trainer.learning_rate)
        if estimator.max_epoch:
            log.info("Train for %d epochs.", estimator.max_epoch)
        else:
            log.info("Train for %d batches.", estimator.max_batch)
        self.batch_index = self.current_epoch = self.processed_samples = 0
        self.log_interval_time = 0.0

    def train_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Log the time of the training and the metrics."""
        took = time.time() - self.train_start
        text = f"Train finished using total {int(took)}s with {self.current_epoch} epochs. {_shown(self.metrics)}"
        estimator.logger.info(text.rstrip(", "))

    def batch_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.batch_start = time.time()

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Log an interval of batches."""
        if isinstance(self.log_interval, int):
            self.processed_samples += kwargs["batch"][0].shape[0]
            self.log_interval_time += time.time() - self.batch_start
            if self.batch_index % self.log_interval == 0:
                text = (f"[Epoch {self.current_epoch}][Batch {self.batch_index}][Samples {self.processed_samples}] "
                        f"time/interval: {self.log_interval_time:.3f}s {_shown(self.metrics)}")  # fmt: skip
                estimator.logger.info(text.rstrip(", "))
                self.log_interval_time = 0.0
        self.batch_index += 1

    def epoch_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Log that an epoch or a validation begins."""
        self.epoch_start = time.time()
        if any("training" in m.name for m in self.metrics):
            rate = estimator.trainer.learning_rate
            estimator.logger.info("[Epoch %d] Begin, current learning rate: %.4f", self.current_epoch, rate)
        else:
            estimator.logger.info("Validation Begin")

    def epoch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Log time and metrics of the epoch."""
        text = f"[Epoch {self.current_epoch}] Finished in {time.time() - self.epoch_start:.3f}s, {_shown(self.metrics)}"
        estimator.logger.info(text.rstrip(", "))
        self.current_epoch += 1
        self.batch_index = 0


class GradientUpdateHandler(BatchEnd):
    """The optimizer's step after each batch, before all other handlers."""

    def __init__(self, priority: float = -2000) -> None:
        self.priority = priority

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """One step, for as many samples as there are losses."""
        loss = kwargs["loss"]
        estimator.trainer.step(sum(part.shape[0] for part in (loss if isinstance(loss, list) else [loss])))


from diptych.mxnet.gluon.contrib.estimator.checkpoints import (  # noqa: E402 (they are handlers themselves)
    CheckpointHandler,
    EarlyStoppingHandler,
)
