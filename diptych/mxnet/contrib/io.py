"""`mx.contrib.io`: a gluon DataLoader as an iterator for Module."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet.imperative import wrap
from diptych.mxnet.io.base import DataBatch, DataDesc, DataIter

__all__ = ["DataLoaderIter"]


class DataLoaderIter(DataIter):
    """The batches (data, label) of a DataLoader; a short last batch is filled up with its first sample."""

    def __init__(self, loader: Any, data_name: str = "data", label_name: str = "softmax_label", dtype: str = "float32") -> None:
        self._loader = loader
        self._dtype = dtype
        self._batches = iter(loader)
        self._first = next(self._batches)
        data, label = self._first
        super().__init__(int(data.shape[0]))
        self.provide_data = [DataDesc(data_name, data.shape, dtype)]
        self.provide_label = [DataDesc(label_name, label.shape, dtype)]

    def reset(self) -> None:
        """Begin the next epoch."""
        self._batches = iter(self._loader)
        self._first = None

    def next(self) -> DataBatch:
        """The next batch."""
        pair = self._first if self._first is not None else next(self._batches, None)
        self._first = None
        if pair is None:
            raise StopIteration
        arrays = [x.asnumpy().astype(self._dtype) for x in pair]
        pad = self.batch_size - len(arrays[0])
        if pad:
            arrays = [np.concatenate([x, np.repeat(x[:1], pad, 0)]) for x in arrays]
        return DataBatch([wrap(arrays[0])], [wrap(arrays[1])], pad)
