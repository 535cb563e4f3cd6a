"""Metrics of numbers against numbers: distances and correlations."""

from __future__ import annotations

from typing import Any

import numpy

from diptych.mxnet.metric_base import EvalMetric, alias, arrays, check_label_shapes, register

__all__ = ["MAE", "MSE", "PCC", "RMSE", "PearsonCorrelation"]


class _Regression(EvalMetric):
    """A mean over batches of a distance between labels and predictions."""

    def __init__(self, name: str, output_names: Any, label_names: Any) -> None:
        super().__init__(name, output_names=output_names, label_names=label_names, has_global_stats=True)

    def _distance(self, difference: Any) -> Any:
        raise NotImplementedError

    def update(self, labels: Any, preds: Any) -> None:
        """Count a batch."""
        for label, pred in arrays(labels, preds):
            a, b = (x.reshape(-1, 1) if x.ndim == 1 else x for x in (label, pred))
            self._add(self._distance(a - b), 1)


@register
class MAE(_Regression):
    """The mean absolute error."""

    def __init__(self, name: str = "mae", output_names: Any = None, label_names: Any = None) -> None:
        super().__init__(name, output_names, label_names)

    def _distance(self, difference: Any) -> Any:
        return numpy.abs(difference).mean()


@register
class MSE(_Regression):
    """The mean squared error."""

    def __init__(self, name: str = "mse", output_names: Any = None, label_names: Any = None) -> None:
        super().__init__(name, output_names, label_names)

    def _distance(self, difference: Any) -> Any:
        return (difference**2.0).mean()


@register
class RMSE(_Regression):
    """The root of the mean squared error."""

    def __init__(self, name: str = "rmse", output_names: Any = None, label_names: Any = None) -> None:
        super().__init__(name, output_names, label_names)

    def _distance(self, difference: Any) -> Any:
        return numpy.sqrt((difference**2.0).mean())


@register
@alias("pearsonr")
class PearsonCorrelation(EvalMetric):
    """Pearson's correlation: the mean over batches ("macro") or over all samples ("micro")."""

    def __init__(self, name: str = "pearsonr", output_names: Any = None, label_names: Any = None, average: str = "macro") -> None:
        self.average = average
        super().__init__(name, output_names=output_names, label_names=label_names, has_global_stats=True)

    def reset(self) -> None:
        """Start again."""
        super().reset()
        self._sums = numpy.zeros(6)  # count, means of label and prediction, their squared deviations, co-deviation

    def update(self, labels: Any, preds: Any) -> None:
        """Count a batch."""
        for label, pred in arrays(labels, preds):
            check_label_shapes(label, pred, False, True)
            x, y = label.ravel().astype(numpy.float64), pred.ravel().astype(numpy.float64)
            if self.average == "macro":
                self._add(numpy.corrcoef(y, x)[0, 1], 1)
                continue
            # two sets of samples joined (Chan, Golub, LeVeque 1979)
            n, mx, my, sx, sy, sxy = self._sums
            m, bx, by = len(x), x.mean(), y.mean()
            share, dx, dy = n * m / (n + m), bx - mx, by - my
            self._sums = numpy.array([
                n + m, mx + dx * m / (n + m), my + dy * m / (n + m), sx + ((x - bx) ** 2).sum() + dx * dx * share,
                sy + ((y - by) ** 2).sum() + dy * dy * share, sxy + ((x - bx) * (y - by)).sum() + dx * dy * share,
            ])  # fmt: skip
            self.num_inst += 1
            self.global_num_inst += 1

    def get(self) -> tuple[Any, Any]:
        """Name and value."""
        if self.average == "macro" or not self.num_inst:
            return super().get()
        return self.name, self._sums[5] / numpy.sqrt(self._sums[3] * self._sums[4])


@register
class PCC(EvalMetric):
    """Matthews' correlation coefficient of any number of classes (Gorodkin 2004)."""

    def __init__(self, name: str = "pcc", output_names: Any = None, label_names: Any = None, has_global_stats: bool = True) -> None:
        self.k = 2
        self.lcm: Any = None
        self.gcm: Any = None
        super().__init__(name, output_names=output_names, label_names=label_names, has_global_stats=has_global_stats)

    @staticmethod
    def _correlation(counts: Any) -> float:
        n, x, y = counts.sum(), counts.sum(1), counts.sum(0)
        xx, yy = (x * (n - x)).sum(), (y * (n - y)).sum()
        if xx == 0 or yy == 0:
            return float("nan")
        return float((counts.diagonal() * n - x * y).sum() / (xx * yy) ** 0.5)

    def update(self, labels: Any, preds: Any) -> None:
        """Count a batch."""
        for label, pred in arrays(labels, preds):
            wanted = label.astype(numpy.int32).ravel()
            found = (pred.argmax(1) if pred.shape != label.shape else pred.astype(numpy.int32)).ravel()
            more = int(max(found.max(), wanted.max())) + 1 - self.k
            if more > 0:
                self.k += more
                self.lcm, self.gcm = (numpy.pad(c, ((0, more), (0, more))) for c in (self.lcm, self.gcm))
            batch = numpy.zeros((self.k, self.k))
            numpy.add.at(batch, (found, wanted), 1)
            self.lcm += batch
            self.gcm += batch
        self.num_inst += 1
        self.global_num_inst += 1

    def reset(self) -> None:
        """Start again."""
        super().reset()
        self.gcm = numpy.zeros((self.k, self.k))
        self.lcm = numpy.zeros((self.k, self.k))

    def reset_local(self) -> None:
        """Start the local counts again."""
        super().reset_local()
        self.lcm = numpy.zeros((self.k, self.k))

    def get(self) -> tuple[Any, Any]:
        """Name and value."""
        return self.name, self._correlation(self.lcm) if self.num_inst else float("nan")

    def get_global(self) -> tuple[Any, Any]:
        """Name and value since `reset`."""
        return self.name, self._correlation(self.gcm) if self.global_num_inst else float("nan")
