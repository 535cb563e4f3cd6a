"""The base class of metrics: sums and counts since the last `reset_local` and since the last `reset`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import registry
from diptych.mxnet.ndarray.ndarray import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EvalMetric", "alias", "arrays", "check_label_shapes", "register"]


def check_label_shapes(labels: Any, preds: Any, wrap: bool = False, shape: bool = False) -> tuple[Any, Any]:
    """Labels and predictions, in lists if `wrap`; a ValueError when their numbers (or shapes) differ."""
    ours, theirs = (labels.shape, preds.shape) if shape else (len(labels), len(preds))
    if ours != theirs:
        raise ValueError(f"labels are {ours}, predictions {theirs}: they must agree")
    if wrap:
        labels = [labels] if isinstance(labels, NDArray) else labels
        preds = [preds] if isinstance(preds, NDArray) else preds
    return labels, preds


def arrays(labels: Any, preds: Any, wrap: bool = True) -> Iterator[tuple[Any, Any]]:
    """Pairs of label and prediction as NumPy arrays."""
    labels, preds = check_label_shapes(labels, preds, wrap)
    for label, pred in zip(labels, preds):
        yield label.asnumpy(), pred.asnumpy()


class EvalMetric:
    """The base class; subclasses give `update`."""

    sum_metric: Any
    num_inst: Any
    global_sum_metric: Any
    global_num_inst: Any

    def __init__(self, name: str, output_names: Any = None, label_names: Any = None, **kwargs: Any) -> None:
        self.name = str(name)
        self.output_names = output_names
        self.label_names = label_names
        self._has_global_stats = kwargs.pop("has_global_stats", False)
        self._kwargs = kwargs
        self.reset()

    def __str__(self) -> str:
        return f"EvalMetric: {dict(self.get_name_value())}"

    def get_config(self) -> dict[str, Any]:
        """What makes this metric again."""
        return {**self._kwargs, "metric": type(self).__name__, "name": self.name, "output_names": self.output_names,
                "label_names": self.label_names}  # fmt: skip

    def update_dict(self, label: dict[str, Any], pred: dict[str, Any]) -> None:
        """Update from arrays by name; `label_names` and `output_names` choose among them."""
        preds = list(pred.values()) if self.output_names is None else [pred[n] for n in self.output_names]
        labels = list(label.values()) if self.label_names is None else [label[n] for n in self.label_names]
        self.update(labels, preds)

    def update(self, labels: Any, preds: Any) -> None:
        """Count a batch: lists of labels and of predictions."""
        raise NotImplementedError(f"{type(self).__name__} must override update")

    def _add(self, value: Any, count: Any) -> None:
        value = value.item() if isinstance(value, np.generic) else value
        self.sum_metric += value
        self.num_inst += count
        self.global_sum_metric += value
        self.global_num_inst += count

    def reset(self) -> None:
        """Start again."""
        self.num_inst = 0
        self.sum_metric = 0.0
        self.global_num_inst = 0
        self.global_sum_metric = 0.0

    def reset_local(self) -> None:
        """Start the local counts again."""
        self.num_inst = 0
        self.sum_metric = 0.0

    def get(self) -> tuple[Any, Any]:
        """Name and value; not a number when nothing was counted."""
        return self.name, self.sum_metric / self.num_inst if self.num_inst else float("nan")

    def get_global(self) -> tuple[Any, Any]:
        """Name and value since `reset`."""
        if not self._has_global_stats:
            return self.get()
        return self.name, self.global_sum_metric / self.global_num_inst if self.global_num_inst else float("nan")

    def get_name_value(self) -> list[tuple[str, Any]]:
        """Pairs of name and value."""
        return _pairs(*self.get())

    def get_global_name_value(self) -> list[tuple[str, Any]]:
        """Pairs of name and value since `reset`."""
        return _pairs(*self.get_global())


def _pairs(name: Any, value: Any) -> list[tuple[str, Any]]:
    return list(zip(name if isinstance(name, list) else [name], value if isinstance(value, list) else [value]))


register = registry.get_register_func(EvalMetric, "metric")
alias = registry.get_alias_func(EvalMetric, "metric")
