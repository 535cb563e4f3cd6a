"""Batches from a record file that is read and decoded ahead by threads, a few batches of it in memory at a time."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import DiptychError
from diptych.frontends.mxnet.recordio import RecordReader, read_index, read_list
from diptych.mxnet.base import MXNetError
from diptych.mxnet.imperative import wrap
from diptych.mxnet.io.base import DataBatch, MXDataIter
from diptych.mxnet.recordio import unpack

if TYPE_CHECKING:
    from diptych.ir import Array

__all__ = ["RecordStream"]



class RecordStream(MXDataIter):
    """The base of iterators over record files: subclasses give `_sample(header, content, rng)` and `_labels(labels)`.

    Each sample has a random generator of its own (from seed, epoch and number), so that what is drawn does not depend on
    which thread is when at work.

    shuffle: all records of the share in any order; with shuffle_chunk_size (megabytes) pieces of that size in any order and
    the records of each in any order, which reads a disk in long runs. num_parts, part_index: a share of the records.
    preprocess_threads, prefetch_buffer: threads, and batches that they make ahead. round_batch: the last batch is filled up
    with the first samples, which the next epoch then leaves out.
    """

    def __init__(self, path_imgrec: str, batch_size: int, shuffle: bool = False, seed: int = 0, round_batch: bool = True, num_parts: int = 1,
                 part_index: int = 0, path_imgidx: str = "", path_imglist: str = "", shuffle_chunk_size: int = 0, shuffle_chunk_seed: int = 0,
                 preprocess_threads: int = 4, prefetch_buffer: int = 4, seed_aug: int | None = None) -> None:  # fmt: skip
        super().__init__(int(batch_size))
        if not 0 <= part_index < num_parts:
            raise MXNetError(f"part_index={part_index} of num_parts={num_parts}")
        try:
            self._reader = RecordReader(path_imgrec)
            offsets = list(read_index(path_imgidx).values()) if path_imgidx else self._reader.offsets()
            self._listed = {e.number: np.array(e.labels, np.float32) for e in read_list(path_imglist)} if path_imglist else None
        except (OSError, DiptychError) as error:
            raise MXNetError(f"{type(self).__name__}: {error}") from error
        if num_parts > 1:
            size = len(offsets) // num_parts
            offsets = offsets[part_index * size : (part_index + 1) * size]
        if not offsets:
            raise MXNetError(f"{path_imgrec} holds no records" + (f" for part {part_index} of {num_parts}" if num_parts > 1 else ""))
        self._offsets = offsets
        self._round, self._shuffle, self._seed = round_batch, shuffle, seed if seed_aug is None else seed_aug
        self._chunk = int(shuffle_chunk_size) << 20
        self._rng = np.random.default_rng([seed, shuffle_chunk_seed] if self._chunk else seed)
        threads = max(1, min(int(preprocess_threads), os.cpu_count() or 1))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="records")
        self._share = -(-self.batch_size // threads)  # samples of a batch that one thread makes
        self._ahead = max(1, int(prefetch_buffer))
        self._waiting: deque[tuple[list[Future[Any]], int, Array]] = deque()
        self._epoch = -1
        self._at = self._first = 0
        self._order: Array = np.arange(len(offsets))

    # -- order --------------------------------------------------------------------------------------------------
    def reset(self) -> None:
        """Begin the next epoch."""
        self._drop()
        self._epoch += 1
        self._at, self._first = self._first, 0
        count = len(self._offsets)
        self._order = self._shuffled() if self._shuffle else np.arange(count)
        for _ in range(self._ahead):
            self._send()

    def _shuffled(self) -> Array:
        if not self._chunk:
            return self._rng.permutation(len(self._offsets))
        chunk = np.array(self._offsets) // self._chunk
        pieces = np.split(np.arange(len(chunk)), np.flatnonzero(np.diff(chunk)) + 1)
        return np.concatenate([self._rng.permutation(pieces[i]) for i in self._rng.permutation(len(pieces))])

    def _drop(self) -> None:
        """Give up the batches that are being made."""
        for futures, _, _ in self._waiting:
            for f in futures:
                f.cancel()
        self._waiting.clear()

    # -- making batches -----------------------------------------------------------------------------------------
    def _send(self) -> None:
        count = len(self._offsets)
        if self._at >= count:
            return
        end = self._at + self.batch_size
        pad = max(0, end - count)
        chosen = self._order[np.arange(self._at, end) % count]
        if pad and self._round:
            self._first = pad % count
        self._at = end
        shares = [chosen[i : i + self._share] for i in range(0, len(chosen), self._share)]
        self._waiting.append(([self._pool.submit(self._make, share, self._epoch) for share in shares], pad, chosen))

    def _make(self, numbers: Array, epoch: int) -> list[tuple[Array, Array]]:
        made = []
        for number in numbers.tolist():
            header, content = unpack(self._reader.read_at(self._offsets[number]))
            if self._listed is not None:
                if header.id not in self._listed:
                    raise MXNetError(f"record {header.id} is not in the list of path_imglist")
                header = header._replace(label=self._listed[header.id])
            made.append(self._sample(header, content, np.random.default_rng([self._seed & 0xFFFFFFFF, epoch, number])))
        return made

    def _sample(self, header: Any, content: bytes, rng: np.random.Generator) -> tuple[Array, Array]:
        raise NotImplementedError

    def _labels(self, labels: list[Array]) -> Array:
        raise NotImplementedError

    def next(self) -> DataBatch:
        """The next batch."""
        if not self._waiting:
            raise StopIteration
        futures, pad, chosen = self._waiting.popleft()
        self._send()
        try:
            samples = [s for f in futures for s in f.result()]
        except DiptychError as error:
            raise MXNetError(f"{type(self).__name__}: {error}") from error
        return DataBatch([wrap(np.stack([d for d, _ in samples]))], [wrap(self._labels([y for _, y in samples]))], pad,
                         chosen.astype(np.uint64))  # fmt: skip

    def __del__(self) -> None:
        pool, reader = getattr(self, "_pool", None), getattr(self, "_reader", None)
        if pool is not None:  # what is under way holds this object, so nothing is when it goes
            pool.shutdown(wait=False, cancel_futures=True)
        if reader is not None:
            reader.close()
