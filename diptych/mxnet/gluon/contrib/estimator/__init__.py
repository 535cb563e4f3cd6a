"""`gluon.contrib.estimator`: training and evaluation as one call, with handlers for what happens on the way."""

from __future__ import annotations

from diptych.mxnet.gluon.contrib.estimator import batch_processor, estimator, event_handler, utils
from diptych.mxnet.gluon.contrib.estimator.batch_processor import BatchProcessor
from diptych.mxnet.gluon.contrib.estimator.estimator import Estimator
from diptych.mxnet.gluon.contrib.estimator.event_handler import (
    BatchBegin,
    BatchEnd,
    CheckpointHandler,
    EarlyStoppingHandler,
    EpochBegin,
    EpochEnd,
    GradientUpdateHandler,
    LoggingHandler,
    MetricHandler,
    StoppingHandler,
    TrainBegin,
    TrainEnd,
    ValidationHandler,
)

__all__ = [
    "BatchBegin", "BatchEnd", "BatchProcessor", "CheckpointHandler", "EarlyStoppingHandler", "EpochBegin", "EpochEnd", "Estimator",
    "GradientUpdateHandler", "LoggingHandler", "MetricHandler", "StoppingHandler", "TrainBegin", "TrainEnd", "ValidationHandler",
    "batch_processor", "estimator", "event_handler", "utils",
]  # fmt: skip
