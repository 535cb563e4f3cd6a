"""Iterators around iterators: epochs of another length, batches read ahead."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from diptych.mxnet.io.base import DataBatch, DataDesc, DataIter

__all__ = ["PrefetchingIter", "ResizeIter"]


class _Current(DataIter):
    """An iterator that keeps the batch it stands on."""

    current_batch: Any

    def getdata(self) -> Any:
        """The data of the batch."""
        return self.current_batch.data

    def getlabel(self) -> Any:
        """The labels of the batch."""
        return self.current_batch.label

    def getindex(self) -> Any:
        """The positions of its samples."""
        return self.current_batch.index

    def getpad(self) -> Any:
        """How many samples only fill the batch up."""
        return self.current_batch.pad


class ResizeIter(_Current):
    """Epochs of `size` batches; reset_internal: `reset` starts the inner iterator again too."""

    def __init__(self, data_iter: DataIter, size: int, reset_internal: bool = True) -> None:
        super().__init__(data_iter.batch_size)
        self.data_iter = data_iter
        self.size = size
        self.reset_internal = reset_internal
        self.cur = 0
        self.current_batch: Any = None
        self.provide_data = data_iter.provide_data
        self.provide_label = data_iter.provide_label
        if hasattr(data_iter, "default_bucket_key"):
            self.default_bucket_key = data_iter.default_bucket_key

    def reset(self) -> None:
        """Begin the next epoch."""
        self.cur = 0
        if self.reset_internal:
            self.data_iter.reset()

    def iter_next(self) -> bool:
        """Move to the next batch; False after `size` of them."""
        if self.cur == self.size:
            return False
        try:
            self.current_batch = self.data_iter.next()
        except StopIteration:
            self.data_iter.reset()
            self.current_batch = self.data_iter.next()
        self.cur += 1
        return True


def _read(iterator: Any) -> DataBatch | None:
    try:
        found: DataBatch = iterator.next()
    except StopIteration:
        return None
    return found


class PrefetchingIter(_Current):
    """One or several iterators side by side, each one batch ahead in a thread of its own."""

    def __init__(self, iters: Any, rename_data: list[dict[str, str]] | None = None,
                 rename_label: list[dict[str, str]] | None = None) -> None:  # fmt: skip
        self.iters = list(iters) if isinstance(iters, (list, tuple)) else [iters]
        if not self.iters:
            raise AssertionError("PrefetchingIter needs at least one iterator")
        self.n_iter = len(self.iters)
        self.rename_data = rename_data
        self.rename_label = rename_label
        super().__init__(self.provide_data[0][1][0])
        self.current_batch: Any = None
        self._pools = [ThreadPoolExecutor(1, "prefetch") for _ in self.iters]
        self._ahead: list[Future[DataBatch | None]] = self._start()

    def _start(self) -> list[Future[DataBatch | None]]:
        return [p.submit(_read, i) for p, i in zip(self._pools, self.iters)]

    def _renamed(self, what: str, renames: list[dict[str, str]] | None) -> list[Any]:
        out = []
        for k, it in enumerate(self.iters):
            for d in getattr(it, what):
                desc = d if isinstance(d, DataDesc) else DataDesc(*d)
                out.append(d if renames is None else DataDesc(renames[k][desc.name], desc.shape, desc.dtype, desc.layout))
        return out

    @property
    def provide_data(self) -> list[Any]:
        """Names and shapes of the data of a batch."""
        return self._renamed("provide_data", self.rename_data)

    @property
    def provide_label(self) -> list[Any]:
        """Names and shapes of the labels of a batch."""
        return self._renamed("provide_label", self.rename_label)

    def reset(self) -> None:
        """Begin the next epoch; a batch read ahead is dropped."""
        for f in self._ahead:
            f.result()
        for i in self.iters:
            i.reset()
        self._ahead = self._start()

    def iter_next(self) -> bool:
        """Move to the next batch; False after the last."""
        found = [f.result() for f in self._ahead]
        if any(b is None for b in found):
            if any(b is not None for b in found):
                raise AssertionError("the iterators do not end at once, or give batches padded differently")
            return False
        batches = [b for b in found if b is not None]
        if any(b.pad != batches[0].pad for b in batches):
            raise AssertionError("the iterators do not end at once, or give batches padded differently")
        self._ahead = self._start()
        self.current_batch = DataBatch([x for b in batches for x in b.data or ()], [x for b in batches for x in b.label or ()],
                                       batches[0].pad, batches[0].index, provide_data=self.provide_data,
                                       provide_label=self.provide_label)  # fmt: skip
        return True

    def next(self) -> DataBatch:
        """The next batch."""
        if not self.iter_next():
            raise StopIteration
        batch: DataBatch = self.current_batch
        return batch
