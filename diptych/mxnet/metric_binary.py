"""Counts of two classes and what follows from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diptych.mxnet.metric_base import check_label_shapes

__all__ = ["BinaryCounts"]


class BinaryCounts:
    """True and false positives and negatives."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.reset()

    def reset(self) -> None:
        """Start again."""
        self.tp = self.fp = self.fn = self.tn = 0

    def update(self, label: Any, pred: Any) -> None:
        """Count a batch: classes and scores of two classes."""
        wanted = label.astype(np.int32)
        check_label_shapes(wanted, pred)
        if len(np.unique(wanted)) > 2:
            raise ValueError(f"{self.owner} is for two classes, labelled 0 and 1")
        ours, theirs = pred.argmax(1) == 1, wanted.ravel() == 1
        self.tp += int((ours & theirs).sum())
        self.fp += int((ours & ~theirs).sum())
        self.fn += int((~ours & theirs).sum())
        self.tn += int((~ours & ~theirs).sum())

    @property
    def total(self) -> int:
        """All that were counted."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def fscore(self) -> float:
        """The harmonic mean of precision and recall; 0 where it is not defined."""
        below = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / below if below else 0.0

    @property
    def matthews(self) -> float:
        """Matthews' correlation coefficient, with sums of 0 left out of the denominator."""
        if not self.total:
            return 0.0
        terms = (self.tp + self.fp, self.tp + self.fn, self.tn + self.fp, self.tn + self.fn)
        return (self.tp * self.tn - self.fp * self.fn) / math.sqrt(math.prod(float(t) for t in terms if t))
