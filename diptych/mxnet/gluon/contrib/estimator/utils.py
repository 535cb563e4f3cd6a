"""Checks of the metrics that an Estimator and its handlers share."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon.loss import SoftmaxCrossEntropyLoss
from diptych.mxnet.metric import Accuracy, CompositeEvalMetric, EvalMetric

__all__: list[str] = []


def _check_metrics(metrics: Any) -> list[EvalMetric]:
    """A list of metrics from one, several or none."""
    if isinstance(metrics, CompositeEvalMetric):
        return [m for part in metrics.metrics for m in _check_metrics(part)]
    if isinstance(metrics, EvalMetric):
        return [metrics]
    found = metrics or []
    if not all(isinstance(m, EvalMetric) for m in found):
        raise ValueError(f"metrics must be a Metric or a list of Metric, refer to mxnet.metric.EvalMetric: {metrics}")
    kept: list[EvalMetric] = found  # the caller's own list, as in MXNet
    return kept


def _check_handler_metric_ref(handler: Any, known: list[EvalMetric]) -> None:
    """A ValueError when a handler watches a metric that the estimator does not update."""
    for name in dir(handler):
        if "metric" not in name:
            continue
        held = getattr(handler, name)
        for metric in held if isinstance(held, list) else [held] if held else []:
            if not any(metric is k for k in known):
                raise ValueError(f"Event handler {type(handler).__name__} refers to a metric instance {metric} outside of the known training "
                                 "and validation metrics. Please use the metrics from estimator.train_metrics and estimator.val_metrics "
                                 "instead.")  # fmt: skip


def _suggest_metric_for_loss(loss: Any) -> EvalMetric | None:
    """Accuracy for classification."""
    return Accuracy() if isinstance(loss, SoftmaxCrossEntropyLoss) else None
