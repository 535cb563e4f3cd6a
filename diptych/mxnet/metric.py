"""Metrics: running means over batches, `mx.metric`.

>>> import diptych.mxnet as mx
>>> acc = mx.metric.create("acc")
>>> acc.update([mx.nd.array([0, 1])], [mx.nd.array([[0.9, 0.1], [0.8, 0.2]])])
>>> acc.get()
('accuracy', 0.5)
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from diptych.mxnet import registry
from diptych.mxnet.metric_base import EvalMetric, alias, arrays, check_label_shapes, register
from diptych.mxnet.metric_binary import BinaryCounts
from diptych.mxnet.metric_numbers import MAE, MSE, PCC, RMSE, PearsonCorrelation

__all__ = [
    "F1", "MAE", "MCC", "MSE", "PCC", "RMSE", "Accuracy", "Caffe", "CompositeEvalMetric", "CrossEntropy", "CustomMetric",
    "EvalMetric", "Loss", "NegativeLogLikelihood", "PearsonCorrelation", "Perplexity", "TopKAccuracy", "Torch",
    "check_label_shapes", "create", "np", "register",
]  # fmt: skip

_create = registry.get_create_func(EvalMetric, "metric")


def create(metric: Any, *args: Any, **kwargs: Any) -> EvalMetric:
    """A metric from its name, a function (label, prediction) -> value, or a list of these."""
    if callable(metric):
        return CustomMetric(metric, *args, **kwargs)
    if isinstance(metric, list):
        made = CompositeEvalMetric()
        for one in metric:
            made.add(create(one, *args, **kwargs))
        return made
    found: EvalMetric = _create(metric, *args, **kwargs)
    return found


def _flat(found: list[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    names: list[Any] = []
    values: list[Any] = []
    for name, value in found:
        names += name if isinstance(name, list) else [name]
        values += value if isinstance(value, list) else [value]
    return names, values


@register
@alias("composite")
class CompositeEvalMetric(EvalMetric):
    """Several metrics as one."""

    def __init__(self, metrics: Any = None, name: str = "composite", output_names: Any = None, label_names: Any = None) -> None:
        self.metrics = [create(m) for m in metrics or []]
        super().__init__(name, output_names=output_names, label_names=label_names, has_global_stats=True)

    def add(self, metric: Any) -> None:
        """Add one."""
        self.metrics.append(create(metric))

    def get_metric(self, index: int) -> Any:
        """The metric at a position (a ValueError object, not raised, where there is none, as in MXNet)."""
        if not -len(self.metrics) <= index < len(self.metrics):
            return ValueError(f"Metric index {index} is out of range 0 and {len(self.metrics)}")
        return self.metrics[index]

    def update_dict(self, label: Any, pred: Any) -> None:
        """Update all from arrays by name."""
        if self.label_names is not None:
            label = {k: v for k, v in label.items() if k in self.label_names}
        if self.output_names is not None:
            pred = {k: v for k, v in pred.items() if k in self.output_names}
        for m in self.metrics:
            m.update_dict(label, pred)

    def update(self, labels: Any, preds: Any) -> None:
        """Update all."""
        for m in self.metrics:
            m.update(labels, preds)

    def reset(self) -> None:
        """Start all again."""
        for m in self.metrics:
            m.reset()

    def reset_local(self) -> None:
        """Start all local counts again."""
        for m in self.metrics:
            m.reset_local()

    def get(self) -> tuple[Any, Any]:
        """Names and values of all."""
        return _flat([m.get() for m in self.metrics])

    def get_global(self) -> tuple[Any, Any]:
        """Names and values of all since `reset`."""
        return _flat([m.get_global() for m in self.metrics])

    def get_config(self) -> dict[str, Any]:
        """What makes this metric again."""
        return {**super().get_config(), "metrics": [m.get_config() for m in self.metrics]}


@register
@alias("acc")
class Accuracy(EvalMetric):
    """The share of right classes; predictions of another shape than the labels are scores along `axis`."""

    def __init__(self, axis: int = 1, name: str = "accuracy", output_names: Any = None, label_names: Any = None) -> None:
        super().__init__(name, axis=axis, output_names=output_names, label_names=label_names, has_global_stats=True)
        self.axis = axis

    def update(self, labels: Any, preds: Any) -> None:
        """Count a batch."""
        for label, pred in arrays(labels, preds):
            found = pred.argmax(self.axis) if pred.shape != label.shape else pred
            ours, theirs = found.astype(numpy.int32).ravel(), label.astype(numpy.int32).ravel()
            check_label_shapes(theirs, ours)
            self._add((ours == theirs).sum(), len(ours))


@register
@alias("top_k_accuracy", "top_k_acc")
class TopKAccuracy(EvalMetric):
    """The share of samples whose class is among the k highest scores."""

    def __init__(self, top_k: int = 1, name: str = "top_k_accuracy", output_names: Any = None, label_names: Any = None) -> None:
        super().__init__(name, top_k=top_k, output_names=output_names, label_names=label_names, has_global_stats=True)
        if top_k <= 1:
            raise AssertionError("TopKAccuracy is for top_k of 2 or more: the best one is Accuracy")
        self.top_k = top_k
        self.name += f"_{top_k}"

    def update(self, labels: Any, preds: Any) -> None:
        """Count a batch."""
        for label, pred in arrays(labels, preds):
            if pred.ndim > 2:
                raise AssertionError(f"TopKAccuracy takes predictions (batch, classes), not {pred.shape}")
            check_label_shapes(label, pred)
            wanted = label.astype(numpy.int32)
            scores = pred.astype(numpy.float32)
            if pred.ndim == 1:
                self._add((numpy.argpartition(scores, -self.top_k) == wanted.ravel()).sum(), len(pred))
                continue
            best = numpy.argpartition(scores, -min(self.top_k, pred.shape[1]))[:, -self.top_k :]
            self._add((best == wanted.reshape(-1, 1)).sum(), len(pred))


class _Binary(EvalMetric):
    """Metrics of two classes, from counts: by batch ("macro") or over all samples ("micro")."""

    def __init__(self, name: str, output_names: Any, label_names: Any, average: str) -> None:
        self.average = average
        self.metrics = BinaryCounts(type(self).__name__)
        self.global_metrics = BinaryCounts(type(self).__name__)
        super().__init__(name=name, output_names=output_names, label_names=label_names, has_global_stats=True)

    def _value(self, counts: BinaryCounts) -> float:
        raise NotImplementedError

    def update(self, labels: Any, preds: Any) -> None:
        """Count a batch."""
        for label, pred in arrays(labels, preds):
            self.metrics.update(label, pred)
            self.global_metrics.update(label, pred)
        if self.average == "macro":
            self._add(self._value(self.metrics), 1)
            self.metrics.reset()
            self.global_metrics.reset()
            return
        self.num_inst, self.global_num_inst = self.metrics.total, self.global_metrics.total
        self.sum_metric = self._value(self.metrics) * self.num_inst
        self.global_sum_metric = self._value(self.global_metrics) * self.global_num_inst

    def reset(self) -> None:
        """Start again."""
        super().reset()
        self.metrics.reset()
        self.global_metrics.reset()

    def reset_local(self) -> None:
        """Start the local counts again."""
        super().reset_local()
        self.metrics.reset()


@register
class F1(_Binary):
    """The harmonic mean of precision and recall."""

    def __init__(self, name: str = "f1", output_names: Any = None, label_names: Any = None, average: str = "macro") -> None:
        super().__init__(name, output_names, label_names, average)

    def _value(self, counts: BinaryCounts) -> float:
        return counts.fscore


@register
class MCC(_Binary):
    """Matthews' correlation coefficient of two classes."""

    def __init__(self, name: str = "mcc", output_names: Any = None, label_names: Any = None, average: str = "macro") -> None:
        super().__init__(name, output_names, label_names, average)

    def _value(self, counts: BinaryCounts) -> float:
        return counts.matthews


@register
class Perplexity(EvalMetric):
    """exp of the mean negative logarithm of the probability of the label; `ignore_label` does not count."""

    def __init__(self, ignore_label: Any, axis: int = -1, name: str = "perplexity", output_names: Any = None,
                 label_names: Any = None) -> None:  # fmt: skip
        super().__init__(name, ignore_label=ignore_label, output_names=output_names, label_names=label_names, has_global_stats=True)
        self.ignore_label = ignore_label
        self.axis = axis

    def update(self, labels: Any, preds: Any) -> None:
        """Count a batch."""
        if len(labels) != len(preds):
            raise AssertionError(f"{len(labels)} labels for {len(preds)} predictions")
        loss, count = 0.0, 0
        for label, pred in arrays(labels, preds, wrap=False):
            if label.size != pred.size // pred.shape[-1]:
                raise AssertionError(f"shape mismatch: {label.shape} vs. {pred.shape}")
            scores = numpy.moveaxis(pred, self.axis, -1).reshape(-1, pred.shape[self.axis])
            flat = label.ravel()
            chosen = numpy.clip(flat.astype(numpy.int64), 0, scores.shape[1] - 1)
            p = scores[numpy.arange(flat.size), chosen]
            if self.ignore_label is not None:
                keep = flat != self.ignore_label
                p = p[keep]
            loss -= float(numpy.log(numpy.maximum(p, 1e-10)).sum())
            count += p.size
        self._add(loss, count)

    def get(self) -> tuple[Any, Any]:
        """Name and value."""
        return self.name, math.exp(self.sum_metric / self.num_inst) if self.num_inst else float("nan")

    def get_global(self) -> tuple[Any, Any]:
        """Name and value since `reset`."""
        return self.name, math.exp(self.global_sum_metric / self.global_num_inst) if self.global_num_inst else float("nan")


class _LogProbability(EvalMetric):
    """The mean of -log(probability of the label + eps)."""

    def __init__(self, eps: float, name: str, output_names: Any, label_names: Any) -> None:
        super().__init__(name, eps=eps, output_names=output_names, label_names=label_names, has_global_stats=True)
        self.eps = eps

    def update(self, labels: Any, preds: Any) -> None:
        """Count a batch."""
        for label, pred in arrays(labels, preds):
            flat = label.ravel()
            if len(flat) != len(pred):
                raise AssertionError(f"{len(flat)} labels for {len(pred)} predictions")
            p = pred[numpy.arange(len(flat)), flat.astype(numpy.int64)]
            self._add((-numpy.log(p + self.eps)).sum(), len(flat))


@register
@alias("ce")
class CrossEntropy(_LogProbability):
    """The mean cross entropy of probabilities."""

    def __init__(self, eps: float = 1e-12, name: str = "cross-entropy", output_names: Any = None, label_names: Any = None) -> None:
        super().__init__(eps, name, output_names, label_names)


@register
@alias("nll_loss")
class NegativeLogLikelihood(_LogProbability):
    """The mean negative log-likelihood of probabilities."""

    def __init__(self, eps: float = 1e-12, name: str = "nll-loss", output_names: Any = None, label_names: Any = None) -> None:
        super().__init__(eps, name, output_names, label_names)


@register
class Loss(EvalMetric):
    """The mean of the outputs themselves."""

    def __init__(self, name: str = "loss", output_names: Any = None, label_names: Any = None) -> None:
        super().__init__(name, output_names=output_names, label_names=label_names, has_global_stats=True)

    def update(self, labels: Any, preds: Any) -> None:
        """Count a batch; labels are not looked at."""
        for pred in preds if isinstance(preds, (list, tuple)) else [preds]:
            self._add(float(pred.asnumpy().sum()), pred.size)


@register
class Torch(Loss):
    """Another name of Loss, from old scripts."""

    def __init__(self, name: str = "torch", output_names: Any = None, label_names: Any = None) -> None:
        super().__init__(name, output_names, label_names)


@register
class Caffe(Loss):
    """Another name of Loss, from old scripts."""

    def __init__(self, name: str = "caffe", output_names: Any = None, label_names: Any = None) -> None:
        super().__init__(name, output_names, label_names)


@register
class CustomMetric(EvalMetric):
    """A function of NumPy arrays (label, prediction) that gives a value, or a sum and a count."""

    def __init__(self, feval: Any, name: str | None = None, allow_extra_outputs: bool = False, output_names: Any = None,
                 label_names: Any = None) -> None:  # fmt: skip
        if name is None:
            name = feval.__name__
            if "<" in name:
                name = f"custom({name})"
        super().__init__(name, feval=feval, allow_extra_outputs=allow_extra_outputs, output_names=output_names,
                         label_names=label_names, has_global_stats=True)  # fmt: skip
        self._feval = feval
        self._allow_extra_outputs = allow_extra_outputs

    def update(self, labels: Any, preds: Any) -> None:
        """Count a batch."""
        if not self._allow_extra_outputs:
            labels, preds = check_label_shapes(labels, preds, True)
        for pred, label in zip(preds, labels):
            value = self._feval(label.asnumpy(), pred.asnumpy())
            self._add(*(value if isinstance(value, tuple) else (value, 1)))

    def get_config(self) -> dict[str, Any]:
        """An error: a function has no configuration."""
        raise NotImplementedError("a CustomMetric holds a function, which cannot be written as a configuration")


def np(numpy_feval: Any, name: str | None = None, allow_extra_outputs: bool = False) -> CustomMetric:
    """A metric of a function of NumPy arrays."""

    def feval(label: Any, pred: Any) -> Any:
        return numpy_feval(label, pred)

    feval.__name__ = numpy_feval.__name__
    return CustomMetric(feval, name, allow_extra_outputs)
