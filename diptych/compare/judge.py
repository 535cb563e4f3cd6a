"""Is an engine's answer right? Judged against float64, before its time counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diptych.ir import Array

__all__ = ["Judgement", "judge", "limit_from"]

FLOOR = 1e-4  # an error below this share of the output's RMS never fails a model
CEILING = 1e-2  # an error above it always does, even if the source framework's is as large
MULTIPLE = 10.0  # how many times the source framework's own error an engine may have
CLASSES = 2  # a rank-2 floating output with at least so many columns is taken for class scores


@dataclass(frozen=True, slots=True)
class Judgement:
    """How far an answer is from float64.

    Errors are relative to the RMS of the reference output (the largest over all outputs); `tolerance` is the smallest
    t for which `|answer - reference| <= t + t * |reference|` holds everywhere.
    """

    max_error: float
    rms_error: float
    tolerance: float
    top1: float | None = None
    top5: float | None = None
    accuracy: float | None = None
    problem: str = ""

    def passes(self, limit: float) -> bool:
        """Whether the largest error is within `limit`."""
        return not self.problem and self.max_error <= limit


def limit_from(source_error: float | None) -> float:
    """The largest max error that passes: a multiple of what the source framework itself has, within bounds.

    >>> round(limit_from(3e-5), 9)
    0.0003
    >>> limit_from(None)
    0.001
    """
    if source_error is None:
        return 1e-3
    return float(min(max(MULTIPLE * source_error, FLOOR), CEILING))


def _broken(problem: str) -> Judgement:
    return Judgement(float("inf"), float("inf"), float("inf"), problem=problem)


def _top(scores: Array, k: int) -> Array:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def judge(answer: Sequence[Array], reference: Sequence[Array], labels: Array | None = None) -> Judgement:
    """Compare all outputs; top-k agreement and accuracy are those of the first output when it looks like class scores.

    >>> judge([np.float32([[1, 2]])], [np.float64([[1, 2]])]).max_error
    0.0
    """
    if len(answer) != len(reference):
        return _broken(f"{len(answer)} outputs instead of {len(reference)}")
    worst = rms = tolerance = 0.0
    for i, (got, want) in enumerate(zip(answer, reference)):
        if got.shape != want.shape:
            return _broken(f"output {i} has shape {list(got.shape)} instead of {list(want.shape)}")
        a, b = np.asarray(got, np.float64), np.asarray(want, np.float64)
        finite = np.isfinite(b)
        if not np.array_equal(np.isfinite(a), finite) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return _broken(f"output {i} has NaN or infinity where float64 has none, or the other way round")
        a, b = a[finite], b[finite]
        if not b.size:
            continue
        difference = np.abs(a - b)
        scale = float(np.sqrt(np.mean(b * b))) or 1.0
        worst = max(worst, float(difference.max()) / scale)
        rms = max(rms, float(np.sqrt(np.mean(difference * difference))) / scale)
        tolerance = max(tolerance, float((difference / (1.0 + np.abs(b))).max()))
    top1 = top5 = accuracy = None
    first, wanted = answer[0], reference[0]
    if wanted.ndim == 2 and wanted.shape[1] >= CLASSES and np.issubdtype(wanted.dtype, np.floating):
        best = _top(wanted, 1)[:, 0]
        top1 = float(np.mean(_top(first, 1)[:, 0] == best))
        if wanted.shape[1] > 5:
            top5 = float(np.mean((_top(first, 5) == best[:, None]).any(axis=1)))
        if labels is not None:
            accuracy = float(np.mean(_top(first, 1)[:, 0] == labels))
    return Judgement(worst, rms, tolerance, top1, top5, accuracy)
