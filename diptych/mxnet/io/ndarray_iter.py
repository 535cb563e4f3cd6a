"""NDArrayIter: batches of arrays that are in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet.imperative import wrap
from diptych.mxnet.io.base import DataBatch, DataDesc, DataIter
from diptych.mxnet.ndarray import array
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.ndarray.sparse import CSRNDArray, labelled

__all__ = ["NDArrayIter"]


def _on_disk(x: Any) -> bool:
    """Whether it is a data set of h5py, which is read batch by batch."""
    return type(x).__module__.startswith("h5py")


def sources(data: Any, allow_empty: bool, default_name: str) -> list[tuple[str, Any]]:
    """Arrays by name, sorted, of what callers give: an array, a list of them or a dict."""
    if data is None:
        if not allow_empty:
            raise AssertionError("data is None; give an array, a list of arrays or a dict of them")
        data = []
    if isinstance(data, (np.ndarray, NDArray)) or _on_disk(data):
        data = [data]
    if isinstance(data, list):
        if not data and not allow_empty:
            raise AssertionError("data is an empty list")
        data = {default_name: data[0]} if len(data) == 1 else {f"_{i}_{default_name}": d for i, d in enumerate(data)}
    if not isinstance(data, dict):
        raise TypeError("NDArrayIter takes an array (NDArray, NumPy, h5py), a list of them, or a dict of them by name")
    out = {}
    for name, value in data.items():
        if isinstance(value, NDArray) or _on_disk(value):
            out[name] = value
            continue
        try:
            out[name] = array(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"NDArrayIter: {name} is {type(value)}, not an array (NDArray, NumPy, h5py)") from error
    return sorted(out.items())


class NDArrayIter(DataIter):
    """Batches of arrays.

    Args:
        data, label: an array, a list of arrays or a dict by name.
        shuffle: a new order of the samples for every epoch, by NumPy's global generator.
        last_batch_handle: what becomes of samples that do not fill the last batch: "pad" (filled from the first ones),
            "discard", "roll_over" (they begin the next epoch).
        layout: its N says which axis counts samples.
    """

    def __init__(self, data: Any, label: Any = None, batch_size: int = 1, shuffle: bool = False, last_batch_handle: str = "pad",
                 data_name: str = "data", label_name: str = "softmax_label", layout: str = "NCHW") -> None:  # fmt: skip
        super().__init__(batch_size)
        if last_batch_handle not in ("pad", "discard", "roll_over"):
            raise ValueError(f"last_batch_handle={last_batch_handle!r}; use pad, discard or roll_over")
        self.data = sources(data, False, data_name)
        self.label = sources(label, True, label_name)
        if last_batch_handle != "discard" and any(isinstance(x, CSRNDArray) for _, x in self.data + self.label):
            raise NotImplementedError("sparse arrays need last_batch_handle='discard'")
        self.layout = layout
        self.num_data = int(self.data[0][1].shape[0])
        self.idx = np.arange(self.num_data)
        self.shuffle = shuffle
        self.last_batch_handle = last_batch_handle
        self.num_source = len(self.data) + len(self.label)
        self._kept: tuple[list[Any], list[Any]] | None = None  # what rolls over into the next epoch
        self.cursor = -batch_size
        self.reset()

    def _described(self, given: list[tuple[str, Any]]) -> list[DataDesc]:
        axis = self.layout.find("N")
        return [DataDesc(n, (*x.shape[:axis], self.batch_size, *x.shape[axis + 1 :]), x.dtype, self.layout) for n, x in given]

    @property
    def provide_data(self) -> list[DataDesc]:
        """Names and shapes of the data of a batch."""
        return self._described(self.data)

    @property
    def provide_label(self) -> list[DataDesc]:
        """Names and shapes of the labels of a batch."""
        return self._described(self.label)

    def _shuffle(self) -> None:
        np.random.shuffle(self.idx)
        self.data = [(n, self._reordered(x)) for n, x in self.data]
        self.label = [(n, self._reordered(x)) for n, x in self.label]

    def _reordered(self, x: Any) -> Any:
        return x if _on_disk(x) else labelled(np.take(x._data, self.idx, 0), type(x), x)

    def hard_reset(self) -> None:
        """Go back to the first sample; nothing rolls over."""
        if self.shuffle:
            self._shuffle()
        self.cursor = -self.batch_size
        self._kept = None

    def reset(self) -> None:
        """Begin the next epoch."""
        if self.shuffle:
            self._shuffle()
        rolls = self.last_batch_handle == "roll_over" and self.num_data - self.batch_size < self.cursor < self.num_data
        self.cursor = self.cursor - self.num_data - self.batch_size if rolls else -self.batch_size

    def iter_next(self) -> bool:
        """Move to the next batch; False after the last."""
        self.cursor += self.batch_size
        return self.cursor < self.num_data

    def next(self) -> DataBatch:
        """The next batch."""
        if not self.iter_next():
            raise StopIteration
        data, label = self.getdata(), self.getlabel()
        if data[0].shape[self.layout.find("N")] != self.batch_size:
            self._kept = (data, label)
            raise StopIteration
        if self.cursor < 0:
            self._kept = None
        return DataBatch(data, label, self.getpad(), None)

    def _part(self, x: Any, start: int, stop: int) -> Any:
        if _on_disk(x):
            order = np.argsort(self.idx[start:stop])  # h5py reads positions in rising order only
            rows = x[self.idx[start:stop][order]]
            return array(rows[np.argsort(order)])
        axis = self.layout.find("N")
        cut = x._data[(slice(None),) * axis + (slice(start, stop),)]
        return labelled(np.array(cut, order="C"), type(x), x)

    def _batch(self, given: list[tuple[str, Any]], kept: list[Any] | None) -> list[Any]:
        if self.cursor >= self.num_data:
            raise AssertionError("DataIter needs reset.")
        axis, end = self.layout.find("N"), self.cursor + self.batch_size
        if self.cursor < 0:
            if kept is None:
                raise AssertionError("roll_over: what was left of the last epoch is gone")
            return [self._joined([k, self._part(x, 0, end)], axis) for k, (_, x) in zip(kept, given)]
        if end <= self.num_data or self.last_batch_handle != "pad":
            return [self._part(x, self.cursor, min(end, self.num_data)) for _, x in given]
        out = []
        for _, x in given:
            parts, missing = [self._part(x, self.cursor, self.num_data)], end - self.num_data
            while missing > 0:
                parts.append(self._part(x, 0, min(missing, self.num_data)))
                missing -= self.num_data
            out.append(self._joined(parts, axis))
        return out

    @staticmethod
    def _joined(parts: list[NDArray], axis: int) -> NDArray:
        made = wrap(np.concatenate([p._data for p in parts], axis))
        made._ctx = parts[0]._ctx
        return made

    def getdata(self) -> list[NDArray]:
        """The data of the batch."""
        return self._batch(self.data, self._kept[0] if self._kept else None)

    def getlabel(self) -> list[NDArray]:
        """The labels of the batch."""
        return self._batch(self.label, self._kept[1] if self._kept else None)

    def getpad(self) -> int:
        """How many samples only fill the batch up (or have come over from the epoch before)."""
        if self.last_batch_handle == "pad":
            return max(0, self.cursor + self.batch_size - self.num_data)
        return -self.cursor if self.last_batch_handle == "roll_over" and -self.batch_size < self.cursor < 0 else 0
