"""Handlers that watch a metric: checkpoints on the way, and an end when nothing improves."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.gluon.contrib.estimator.event_handler import BatchEnd, EpochEnd, TrainBegin, TrainEnd
from diptych.mxnet.metric import CompositeEvalMetric, EvalMetric

if TYPE_CHECKING:
    from diptych.mxnet.gluon.contrib.estimator.estimator import Estimator

__all__ = ["CheckpointHandler", "EarlyStoppingHandler"]


def _comparison(mode: str, monitor: EvalMetric, who: str) -> Any:
    """Whether more or less is better. MXNet means to go by the metric's name in mode 'auto', and always takes more."""
    if mode not in ("auto", "min", "max"):
        warnings.warn(f"{who} mode {mode} is unknown, fallback to auto mode.", RuntimeWarning, stacklevel=4)
        mode = "auto"
    if mode == "auto":
        warnings.warn(f"`greater` operator will be used to determine if {monitor.get()[0]} has improved. Please specify `mode='min'` to use "
                      "the `less` operator. Specify `mode='max' to disable this warning.`", stacklevel=4)  # fmt: skip
    return np.less if mode == "min" else np.greater


def _worst(comparison: Any) -> float:
    return float("inf") if comparison is np.less else float("-inf")


class CheckpointHandler(TrainBegin, BatchEnd, EpochEnd):
    """Saves parameters and the trainer's states in `model_dir`, and after the first batch the symbol of a hybridized network.

    Files: PREFIX-symbol.json, PREFIX-epochEbatchB.params and .states, PREFIX-best.params and .states.
    monitor, save_best, mode: also keep what has the best value of a metric ("max", "min"; "auto" is "max").
    epoch_period, batch_period: how often. max_checkpoints: how many are kept beside the best.
    resume_from_checkpoint: go on from the newest one in the folder.
    """

    def __init__(self, model_dir: str, model_prefix: str = "model", monitor: EvalMetric | None = None, verbose: int = 0, save_best: bool = False,
                 mode: str = "auto", epoch_period: int | None = 1, batch_period: int | None = None, max_checkpoints: int = 5,
                 resume_from_checkpoint: bool = False) -> None:  # fmt: skip
        Path(model_dir).mkdir(parents=True, exist_ok=True)
        self.model_dir, self.model_prefix, self.monitor, self.verbose = model_dir, model_prefix, monitor, verbose
        self.save_best = save_best
        self.epoch_period, self.batch_period = epoch_period, batch_period
        self.current_batch = self.current_epoch = 0
        self.max_checkpoints, self.resume_from_checkpoint = max_checkpoints, resume_from_checkpoint
        self.saved_checkpoints: list[str] = []
        self.trained_epoch = self.trained_batch = -1
        if save_best:
            if not isinstance(monitor, EvalMetric):
                raise ValueError("To save best model only, please provide one of the metric objects from estimator.train_metrics and "
                                 "estimator.val_metrics as monitor.")  # fmt: skip
            self.monitor_op = _comparison(mode, monitor, "ModelCheckpoint")
            self.best = _worst(self.monitor_op)

    def train_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Count from zero, or go on from a checkpoint."""
        self.current_epoch = self.current_batch = 0
        if self.save_best:
            self.best = _worst(self.monitor_op)
        if not self.resume_from_checkpoint:
            return
        by_batch = (bool(self.batch_period), bool(self.epoch_period))
        if (estimator.max_batch and by_batch != (True, False)) or (estimator.max_epoch and by_batch != (False, True)):
            raise AssertionError("To use resume from checkpoint, you must only specify the same type of period you used for training."
                                 "For example, if you are training based on number of epochs,you must save only based on epochs, and set "
                                 "batch_period to None.")  # fmt: skip
        self._resume(estimator)

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Save, when it is time."""
        if self.current_batch == 0:
            self._save_symbol(estimator)
        if self.batch_period and (self.current_batch + 1) % self.batch_period == 0:
            self._save_checkpoint(estimator)
        self.current_batch += 1

    def epoch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Save, when it is time."""
        if self.epoch_period and (self.current_epoch + 1) % self.epoch_period == 0:
            self._save_checkpoint(estimator)
        self.current_epoch += 1

    def _save_checkpoint(self, estimator: Estimator) -> None:
        epoch, batch = self.current_epoch, self.current_batch
        if self.resume_from_checkpoint:
            epoch += self.trained_epoch + 1
            batch += self.trained_batch + (0 if estimator.max_epoch else 1)  # the number of the batch has risen before an epoch ends
        prefix = f"{self.model_prefix}-epoch{epoch}batch{batch}"
        self._save(estimator, prefix)
        log = estimator.logger.info if self.verbose > 0 else lambda *_: None
        log("[Epoch %d] CheckpointHandler: trained total %d batches, saving model at %s with prefix: %s", self.current_epoch,
            self.current_batch + 1, self.model_dir, prefix)  # fmt: skip
        if not self.save_best:
            return
        assert self.monitor is not None
        name, value = self.monitor.get()
        if np.isnan(value):
            warnings.warn(f"Skipping save best because {name} is not updated, make sure you pass one of the metric objects "
                          "estimator.train_metrics and estimator.val_metrics as monitor", RuntimeWarning, stacklevel=2)  # fmt: skip
        elif self.monitor_op(value, self.best):
            prefix = f"{self.model_prefix}-best"
            self._save(estimator, prefix)
            log("[Epoch %d] CheckpointHandler: %s improved from %0.5f to %0.5f, updating best model at %s with prefix: %s",
                self.current_epoch, name, self.best, value, self.model_dir, prefix)  # fmt: skip
            self.best = value
        else:
            log("[Epoch %d] CheckpointHandler: %s did not improve from %0.5f, skipping updating best model", self.current_batch, name, self.best)

    def _save_symbol(self, estimator: Estimator) -> None:
        path = str(Path(self.model_dir, f"{self.model_prefix}-symbol.json"))
        graph = getattr(estimator.net, "_cached_graph", None)
        if graph:
            graph[1].save(path)
        else:
            estimator.logger.info("Model architecture(symbol file) is not saved, please use HybridBlock to construct your model, and call "
                                  "net.hybridize() before passing to Estimator in order to save model architecture as %s.", path)  # fmt: skip

    def _save(self, estimator: Estimator, prefix: str) -> None:
        estimator.net.save_parameters(str(Path(self.model_dir, f"{prefix}.params")))
        estimator.trainer.save_states(str(Path(self.model_dir, f"{prefix}.states")))
        if not prefix.endswith("-best"):
            self.saved_checkpoints.append(prefix)
        if len(self.saved_checkpoints) > self.max_checkpoints:
            oldest = self.saved_checkpoints.pop(0)
            for ending in (".params", ".states"):
                Path(self.model_dir, oldest + ending).unlink(missing_ok=True)

    def _resume(self, estimator: Estimator) -> None:
        """Load the newest checkpoint, and take what it has trained off what is to be trained."""
        form = re.compile(re.escape(self.model_prefix) + r"-epoch(\d+)batch(\d+)\.params")
        found = sorted((int(m[1]), int(m[2]), m[0].removesuffix(".params")) for p in Path(self.model_dir).iterdir() if (m := form.fullmatch(p.name)))
        if not found:
            self.trained_epoch = self.trained_batch = -1
            length = f"{estimator.max_batch} batches" if estimator.max_batch else f"{estimator.max_epoch} epochs"
            estimator.logger.info(f"CheckpointHandler: No checkpoint found, training from scratch for {length}")
            return
        self.saved_checkpoints.extend(name for _, _, name in found if name not in self.saved_checkpoints)
        self.trained_epoch, self.trained_batch, name = found[-1]
        text = f"CheckpointHandler: Checkpoint resumed from epoch {self.trained_epoch} batch {self.trained_batch}, continue to train for "
        for kind, trained, wanted in (("epoch", self.trained_epoch, estimator.max_epoch), ("batch", self.trained_batch, estimator.max_batch)):
            if not wanted:
                continue
            if trained >= wanted - 1:
                raise ValueError(f"Found checkpoint with maximum number of {kind} {wanted} reached, please specify "
                                 "resume_from_checkpoint=False (default value) if you wan to train from scratch.")  # fmt: skip
            setattr(estimator, f"max_{kind}", wanted - trained - 1)
            text += f"{wanted - trained - 1} {kind}{'s' if kind == 'epoch' else 'es'} "
        parameters, states = (Path(self.model_dir, name + ending) for ending in (".params", ".states"))
        if not states.exists():
            raise AssertionError(f"Failed to load checkpoint, {states} does not exist")
        estimator.net.load_parameters(str(parameters), ctx=estimator.context)
        estimator.trainer.load_states(str(states))
        estimator.logger.warning(text)


class EarlyStoppingHandler(TrainBegin, EpochEnd, TrainEnd):
    """Stops when a metric has not improved by `min_delta` for `patience` epochs.

    mode: "max", "min", or "auto", which is "max". baseline: what the first value has to be better than.
    """

    def __init__(self, monitor: EvalMetric, min_delta: float = 0, patience: int = 0, mode: str = "auto", baseline: float | None = None) -> None:
        if not isinstance(monitor, EvalMetric):
            raise ValueError("Please provide one of the metric objects from estimator.train_metrics and estimator.val_metrics as monitor.")
        if isinstance(monitor, CompositeEvalMetric):
            raise ValueError("CompositeEvalMetric is not supported for EarlyStoppingHandler, please specify a simple metric instead.")
        self.monitor, self.baseline, self.patience = monitor, baseline, patience
        self.monitor_op = _comparison(mode, monitor, "EarlyStopping")
        self.min_delta = min_delta if self.monitor_op is np.greater else -min_delta
        self.wait = self.stopped_epoch = self.current_epoch = 0
        self.stop_training = False
        self.best = _worst(self.monitor_op)

    def train_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Begin anew."""
        self.wait = self.stopped_epoch = self.current_epoch = 0
        self.stop_training = False
        self.best = _worst(self.monitor_op) if self.baseline is None else self.baseline

    def epoch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> bool:
        """True when the metric has stopped improving."""
        name, value = self.monitor.get()
        if np.isnan(value):
            warnings.warn(f"{name} is not updated, make sure you pass one of the metric objects from estimator.train_metrics and "
                          "estimator.val_metrics as monitor.", RuntimeWarning, stacklevel=2)  # fmt: skip
        elif self.monitor_op(value - self.min_delta, self.best):
            self.best, self.wait = value, 0
        else:
            self.wait += 1
            if self.wait >= self.patience:
                self.stopped_epoch, self.stop_training = self.current_epoch, True
        self.current_epoch += 1
        return self.stop_training

    def train_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Log that it stopped early."""
        if self.stopped_epoch > 0:
            estimator.logger.info("[Epoch %d] EarlyStoppingHanlder: early stopping due to %s not improving", self.stopped_epoch,
                                  self.monitor.get()[0])  # fmt: skip
