"""Monitor: statistics of the values inside a network while it trains."""

from __future__ import annotations

import logging
import re
from typing import Any

import numpy as np

from diptych.mxnet.imperative import wrap
from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["Monitor"]


def _usual(x: NDArray) -> NDArray:
    """The norm divided by the root of the number of elements."""
    return wrap(np.array([np.linalg.norm(x._data.ravel().astype(np.float64)) / np.sqrt(max(x.size, 1))], np.float32))


class Monitor:
    """Collect `stat_func` of all outputs whose names match `pattern`, every `interval` batches.

    monitor_all: of the inputs of operators too. `tic` before a batch, `toc` after it gives [(batch, name, text)].
    """

    def __init__(self, interval: int, stat_func: Any = None, pattern: str = ".*", sort: bool = False, monitor_all: bool = False) -> None:
        self.interval = interval
        self.stat_func = stat_func or _usual
        self.re_prog = re.compile(pattern)
        self.sort = sort
        self.monitor_all = monitor_all
        self.activated = False
        self.queue: list[tuple[int, str, Any]] = []
        self.step = 0
        self.exes: list[Any] = []

    def stat_helper(self, name: str, array: NDArray) -> None:
        """Take note of one value."""
        if self.activated and self.re_prog.match(name):
            self.queue.append((self.step, name, self.stat_func(array)))

    def install(self, exe: Any, monitor_all: bool | None = None) -> None:
        """Look into an executor."""
        exe.set_monitor_callback(self.stat_helper, self.monitor_all if monitor_all is None else monitor_all)
        self.exes.append(exe)

    def tic(self) -> None:
        """Begin a batch."""
        if self.step % self.interval == 0:
            self.queue = []
            self.activated = True
        self.step += 1

    def toc(self) -> list[tuple[int, str, str]]:
        """End a batch: what was collected, parameters last."""
        if not self.activated:
            return []
        for exe in self.exes:
            for names, arrays in ((exe._names, exe.arg_arrays), (exe._aux_names, exe.aux_arrays)):
                for name, array in zip(names, arrays):
                    self.stat_helper(name, array)
        self.activated = False
        found = sorted(self.queue, key=lambda x: x[1]) if self.sort else self.queue
        out = []
        for number, name, value in found:
            values = value if isinstance(value, list) else [value]
            if not all(isinstance(v, NDArray) for v in values):
                raise AssertionError("the argument must be NDArray or list of NDArray: what stat_func gives")
            text = "".join(f"{v.asscalar() if v.shape == (1,) else v.asnumpy()}\t" for v in values)
            out.append((number, name, text))
        self.queue = []
        return out

    def toc_print(self) -> None:
        """End a batch, and log what was collected."""
        for number, name, text in self.toc():
            logging.info("Batch: %7d %30s %s", number, name, text)
