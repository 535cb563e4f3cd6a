"""What an Estimator does with one batch. Subclass it for batches or losses of another form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.mxnet import autograd
from diptych.mxnet.gluon.utils import split_and_load

if TYPE_CHECKING:
    from diptych.mxnet.gluon.contrib.estimator.estimator import Estimator

__all__ = ["BatchProcessor"]

Parts = tuple[list[Any], list[Any], list[Any], list[Any]]


class BatchProcessor:
    """The usual: a batch is (data, label), the loss is that of the prediction and the label.

    >>> class Autoencoder(BatchProcessor):
    ...     def fit_batch(self, estimator, train_batch, batch_axis=0):
    ...         return super().fit_batch(estimator, (train_batch[0], train_batch[0]), batch_axis)
    """

    def _get_data_and_label(self, batch: Any, ctx: list[Any], batch_axis: int = 0) -> tuple[list[Any], list[Any]]:
        data, label = (split_and_load(part, ctx_list=ctx, batch_axis=batch_axis) for part in batch[:2])
        return data, label

    def evaluate_batch(self, estimator: Estimator, val_batch: Any, batch_axis: int = 0) -> Parts:
        """Data, labels, predictions and losses of a batch, each a list with one part for every context."""
        data, label = self._get_data_and_label(val_batch, estimator.context, batch_axis)
        pred = [estimator.val_net(x) for x in data]
        return data, label, pred, [estimator.val_loss(p, y) for p, y in zip(pred, label)]

    def fit_batch(self, estimator: Estimator, train_batch: Any, batch_axis: int = 0) -> Parts:
        """The same with gradients; the step of the optimizer is the GradientUpdateHandler's."""
        data, label = self._get_data_and_label(train_batch, estimator.context, batch_axis)
        with autograd.record():
            pred = [estimator.net(x) for x in data]
            loss = [estimator.loss(p, y) for p, y in zip(pred, label)]
        for part in loss:
            part.backward()
        return data, label, pred, loss
