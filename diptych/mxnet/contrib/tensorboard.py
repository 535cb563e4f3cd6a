"""`mx.contrib.tensorboard`: metrics as scalars of TensorBoard; needs mxboard or tensorboardX."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.base import MXNetError

__all__ = ["LogMetricsCallback"]


class LogMetricsCallback:
    """A callback that writes the metrics of a batch into `logging_dir`."""

    def __init__(self, logging_dir: str, prefix: str | None = None) -> None:
        import importlib

        self.prefix = prefix
        self.step = 0
        for name in ("mxboard", "tensorboardX", "torch.utils.tensorboard"):
            try:
                self.summary_writer: Any = importlib.import_module(name).SummaryWriter(logging_dir)
                return
            except ImportError:
                continue
        raise MXNetError("LogMetricsCallback needs a writer of TensorBoard files: pip install tensorboardX")

    def __call__(self, param: Any) -> None:
        """After a batch or an epoch."""
        if param.eval_metric is None:
            return
        self.step += 1
        for name, value in param.eval_metric.get_name_value():
            self.summary_writer.add_scalar(name if self.prefix is None else f"{self.prefix}-{name}", value, self.step)
