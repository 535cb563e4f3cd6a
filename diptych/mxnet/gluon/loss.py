"""Losses: each gives one number for every sample, weighted."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet import ndarray
from diptych.mxnet.base import numeric_types
from diptych.mxnet.gluon.block import HybridBlock

__all__ = [
    "CTCLoss", "CosineEmbeddingLoss", "HingeLoss", "HuberLoss", "KLDivLoss", "L1Loss", "L2Loss", "LogisticLoss", "Loss",
    "PoissonNLLLoss", "SDMLLoss", "SigmoidBCELoss", "SigmoidBinaryCrossEntropyLoss", "SoftmaxCELoss",
    "SoftmaxCrossEntropyLoss", "SquaredHingeLoss", "TripletLoss",
]  # fmt: skip


def _weighted(F: Any, loss: Any, weight: Any = None, sample_weight: Any = None) -> Any:
    """The loss times a number and an array that broadcasts."""
    if sample_weight is not None:
        loss = F.broadcast_mul(loss, sample_weight)
    if weight is not None:
        if not isinstance(weight, numeric_types):
            raise AssertionError("the weight of a loss is one number (sample_weight weighs samples)")
        loss = loss * weight
    return loss


def _like(F: Any, x: Any, y: Any) -> Any:
    """x in the shape of y."""
    return x.reshape(y.shape) if F is ndarray else F.reshape_like(x, y)



class Loss(HybridBlock):
    """A loss; subclasses define `hybrid_forward`. `weight` scales it, `batch_axis` is the axis of samples."""

    def __init__(self, weight: float | None, batch_axis: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._weight, self._batch_axis = weight, batch_axis

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_axis={self._batch_axis}, w={self._weight})"

    def _mean(self, F: Any, loss: Any) -> Any:
        return F.mean(loss, axis=self._batch_axis, exclude=True)


class L2Loss(Loss):
    """Half the squared difference, its mean over each sample.

    >>> from diptych.mxnet import nd
    >>> L2Loss()(nd.array([[1, 2]]), nd.array([[1, 4]])).asnumpy()
    array([1.], dtype=float32)
    """

    def __init__(self, weight: float | None = 1.0, batch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(weight, batch_axis, **kwargs)

    def hybrid_forward(self, F: Any, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """The loss."""
        loss = F.square(_like(F, label, pred) - pred)
        return self._mean(F, _weighted(F, loss, self._weight / 2 if self._weight is not None else 0.5, sample_weight))


class L1Loss(Loss):
    """The absolute difference, its mean over each sample."""

    def __init__(self, weight: float | None = None, batch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(weight, batch_axis, **kwargs)

    def hybrid_forward(self, F: Any, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """The loss."""
        loss = F.abs(_like(F, label, pred) - pred)
        return self._mean(F, _weighted(F, loss, self._weight, sample_weight))


class SigmoidBinaryCrossEntropyLoss(Loss):
    """Cross entropy of labels 0 and 1 (or between) with sigmoid(pred), or with pred itself when from_sigmoid."""

    def __init__(self, from_sigmoid: bool = False, weight: float | None = None, batch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._from_sigmoid = from_sigmoid

    def hybrid_forward(self, F: Any, pred: Any, label: Any, sample_weight: Any = None, pos_weight: Any = None) -> Any:
        """The loss, in the form that does not overflow."""
        label = _like(F, label, pred)
        if not self._from_sigmoid:
            if pos_weight is None:
                loss = F.relu(pred) - pred * label + F.Activation(-F.abs(pred), act_type="softrelu")
            else:
                log_weight = 1 + F.broadcast_mul(pos_weight - 1, label)
                loss = pred - pred * label + log_weight * (F.Activation(-F.abs(pred), act_type="softrelu") + F.relu(-pred))
        else:
            eps = 1e-12
            if pos_weight is None:
                loss = -(F.log(pred + eps) * label + F.log(1.0 - pred + eps) * (1.0 - label))
            else:
                loss = -(F.broadcast_mul(F.log(pred + eps) * label, pos_weight) + F.log(1.0 - pred + eps) * (1.0 - label))
        return self._mean(F, _weighted(F, loss, self._weight, sample_weight))


SigmoidBCELoss = SigmoidBinaryCrossEntropyLoss


class SoftmaxCrossEntropyLoss(Loss):
    """Cross entropy of the softmax over `axis` with classes (sparse_label) or distributions.

    >>> from diptych.mxnet import nd
    >>> round(float(SoftmaxCrossEntropyLoss()(nd.zeros((1, 4)), nd.array([2])).asscalar()), 4)
    1.3863
    """

    def __init__(self, axis: int = -1, sparse_label: bool = True, from_logits: bool = False, weight: float | None = None,
                 batch_axis: int = 0, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(weight, batch_axis, **kwargs)
        self._axis, self._sparse_label, self._from_logits = axis, sparse_label, from_logits

    def hybrid_forward(self, F: Any, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """The loss."""
        if not self._from_logits:
            pred = F.log_softmax(pred, axis=self._axis)
        if self._sparse_label:
            loss = -F.pick(pred, label, axis=self._axis, keepdims=True)
        else:
            loss = -F.sum(pred * _like(F, label, pred), axis=self._axis, keepdims=True)
        return self._mean(F, _weighted(F, loss, self._weight, sample_weight))


SoftmaxCELoss = SoftmaxCrossEntropyLoss


class KLDivLoss(Loss):
    """The Kullback-Leibler divergence of pred (log probabilities when from_logits) from label."""

    def __init__(self, from_logits: bool = True, axis: int = -1, weight: float | None = None, batch_axis: int = 0,
                 **kwargs: Any) -> None:  # fmt: skip
        super().__init__(weight, batch_axis, **kwargs)
        self._from_logits, self._axis = from_logits, axis

    def hybrid_forward(self, F: Any, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """The loss."""
        if not self._from_logits:
            pred = F.log_softmax(pred, self._axis)
        loss = label * (F.log(label + 1e-12) - pred)
        return self._mean(F, _weighted(F, loss, self._weight, sample_weight))


class CTCLoss(Loss):
    """Connectionist temporal classification; pred in `layout` (time, batch, classes), labels padded with -1."""

    def __init__(self, layout: str = "NTC", label_layout: str = "NT", weight: float | None = None, **kwargs: Any) -> None:
        if layout not in ("NTC", "TNC"):
            raise AssertionError(f"CTCLoss: layout='{layout}', there are 'NTC' and 'TNC'")
        if label_layout not in ("NT", "TN"):
            raise AssertionError(f"CTCLoss: label_layout='{label_layout}', there are 'NT' and 'TN'")
        self._layout, self._label_layout = layout, label_layout
        super().__init__(weight, label_layout.find("N"), **kwargs)

    def hybrid_forward(self, F: Any, pred: Any, label: Any, pred_lengths: Any = None, label_lengths: Any = None,
                       sample_weight: Any = None) -> Any:  # fmt: skip
        """The operator CTCLoss."""
        if self._layout == "NTC":
            pred = F.swapaxes(pred, 0, 1)
        if self._batch_axis == 1:
            label = F.swapaxes(label, 0, 1)
        lengths = [x for x in (pred_lengths, label_lengths) if x is not None]
        loss = F.CTCLoss(pred, label, *lengths, use_data_lengths=pred_lengths is not None,
                         use_label_lengths=label_lengths is not None, blank_label="last") if len(lengths) != 1 or pred_lengths is not None \
            else F.CTCLoss(pred, label, label_lengths=label_lengths, use_label_lengths=True, blank_label="last")  # fmt: skip
        return _weighted(F, loss, self._weight, sample_weight)


class HuberLoss(Loss):
    """Squared difference below `rho`, absolute above."""

    def __init__(self, rho: float = 1, weight: float | None = None, batch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._rho = rho

    def hybrid_forward(self, F: Any, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """The loss."""
        loss = F.abs(_like(F, label, pred) - pred)
        loss = F.where(loss > self._rho, loss - 0.5 * self._rho, (0.5 / self._rho) * F.square(loss))
        return self._mean(F, _weighted(F, loss, self._weight, sample_weight))


class HingeLoss(Loss):
    """max(0, margin - pred label), labels being -1 and 1."""

    def __init__(self, margin: float = 1, weight: float | None = None, batch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._margin = margin

    def hybrid_forward(self, F: Any, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """The loss."""
        loss = F.relu(self._margin - pred * _like(F, label, pred))
        return self._mean(F, _weighted(F, loss, self._weight, sample_weight))


class SquaredHingeLoss(Loss):
    """max(0, margin - pred label) squared."""

    def __init__(self, margin: float = 1, weight: float | None = None, batch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._margin = margin

    def hybrid_forward(self, F: Any, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """The loss."""
        loss = F.square(F.relu(self._margin - pred * _like(F, label, pred)))
        return self._mean(F, _weighted(F, loss, self._weight, sample_weight))


class LogisticLoss(Loss):
    """log(1 + exp(-pred label)); `label_format` says whether labels are -1 and 1 (signed) or 0 and 1 (binary)."""

    def __init__(self, weight: float | None = None, batch_axis: int = 0, label_format: str = "signed", **kwargs: Any) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        if label_format not in ("signed", "binary"):
            raise ValueError(f"label_format is 'signed' or 'binary', not {label_format}.")
        self._label_format = label_format

    def hybrid_forward(self, F: Any, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """The loss, in the form that does not overflow."""
        label = _like(F, label, pred)
        if self._label_format == "signed":
            label = (label + 1.0) / 2.0
        loss = F.relu(pred) - pred * label + F.Activation(-F.abs(pred), act_type="softrelu")
        return self._mean(F, _weighted(F, loss, self._weight, sample_weight))


class TripletLoss(Loss):
    """max(0, |pred - positive|^2 - |pred - negative|^2 + margin)."""

    def __init__(self, margin: float = 1, weight: float | None = None, batch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._margin = margin

    def hybrid_forward(self, F: Any, pred: Any, positive: Any, negative: Any, sample_weight: Any = None) -> Any:
        """The loss."""
        positive, negative = _like(F, positive, pred), _like(F, negative, pred)
        loss = F.sum(F.square(positive - pred) - F.square(negative - pred), axis=self._batch_axis, exclude=True)
        return _weighted(F, F.relu(loss + self._margin), self._weight, sample_weight)


class PoissonNLLLoss(Loss):
    """The negative log likelihood of counts under a Poisson distribution of mean exp(pred), or pred."""

    def __init__(self, weight: float | None = None, from_logits: bool = True, batch_axis: int = 0, compute_full: bool = False,
                 **kwargs: Any) -> None:  # fmt: skip
        super().__init__(weight, batch_axis, **kwargs)
        self._from_logits, self._compute_full = from_logits, compute_full

    def hybrid_forward(self, F: Any, pred: Any, target: Any, sample_weight: Any = None, epsilon: float = 1e-08) -> Any:
        """The loss: one number, the mean over all samples."""
        target = _like(F, target, pred)
        loss = F.exp(pred) - target * pred if self._from_logits else pred - target * F.log(pred + epsilon)
        if self._compute_full:  # Stirling's approximation of log(target!)
            stirling = target * F.log(target) - target + 0.5 * F.log(2 * target * np.pi)
            loss = loss + stirling * (target > 1)
        return F.mean(_weighted(F, loss, self._weight, sample_weight))


class CosineEmbeddingLoss(Loss):
    """1 - cos of the angle of alike pairs (label 1), max(0, cos - margin) of unlike ones (label -1)."""

    def __init__(self, weight: float | None = None, batch_axis: int = 0, margin: float = 0, **kwargs: Any) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._margin = margin

    def hybrid_forward(self, F: Any, input1: Any, input2: Any, label: Any, sample_weight: Any = None) -> Any:
        """The loss."""
        input1 = _like(F, input1, input2)
        cosine = self._cosine(F, input1, input2)
        label = F.reshape(label, (-1, 1))
        loss = F.where(label == 1, 1 - cosine, F.broadcast_maximum(F.zeros_like(cosine), cosine - self._margin))
        return _weighted(F, loss, self._weight, sample_weight)

    def _cosine(self, F: Any, x: Any, y: Any, axis: int = -1) -> Any:
        x_norm, y_norm = F.norm(x, axis=axis).reshape((-1, 1)), F.norm(y, axis=axis).reshape((-1, 1))
        dot = F.sum(x * y, axis=axis).reshape((-1, 1))
        return dot / F.broadcast_maximum(x_norm * y_norm, F.ones_like(x_norm) * 1e-12)


class SDMLLoss(Loss):
    """Smoothed deep metric learning: rows of x1 and x2 with the same number are pairs, all others are not."""

    def __init__(self, smoothing_parameter: float = 0.3, weight: float | None = 1.0, batch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self.kl_loss = KLDivLoss(from_logits=True)
        self.smoothing_parameter = smoothing_parameter

    def _distances(self, F: Any, x1: Any, x2: Any) -> Any:
        batch = x1.shape[0]
        a = F.broadcast_to(x1.expand_dims(1), (batch, batch, x1.shape[1]))
        b = F.broadcast_to(x2.expand_dims(0), (batch, batch, x1.shape[1]))
        return F.sum(F.square(a - b), axis=2)

    def _labels(self, F: Any, batch: int) -> Any:
        gold = F.one_hot(F.arange(batch), batch)
        return gold * (1 - self.smoothing_parameter) + (1 - gold) * self.smoothing_parameter / (batch - 1)

    def _loss(self, F: Any, x1: Any, x2: Any) -> Any:
        batch = x1.shape[0]
        log_probabilities = F.log_softmax(-self._distances(F, x1, x2), axis=1)
        # KLDivLoss takes the mean over the row, the loss is the sum.
        return self.kl_loss(log_probabilities, self._labels(F, batch)) * batch

    def hybrid_forward(self, F: Any, x1: Any, x2: Any) -> Any:
        """The loss."""
        return self._loss(F, x1, x2)
