"""Sentences as batches by length, for BucketingModule."""

from __future__ import annotations

import bisect
import logging
import random
from typing import Any

import numpy as np

from diptych.mxnet import ndarray as nd
from diptych.mxnet.io.base import DataBatch, DataDesc, DataIter

__all__ = ["BucketSentenceIter", "encode_sentences"]


def encode_sentences(sentences: Any, vocab: dict[Any, int] | None = None, invalid_label: int = -1, invalid_key: str = "\n",
                     start_label: int = 0, unknown_token: Any = None) -> tuple[list[list[int]], dict[Any, int]]:  # fmt: skip
    """Words as numbers, and the vocabulary; a new one unless it is given."""
    fresh = vocab is None
    table: dict[Any, int] = {invalid_key: invalid_label} if vocab is None else vocab
    following, out = start_label, []
    for sentence in sentences:
        coded = []
        for word in sentence:
            if word not in table:
                if not fresh and not unknown_token:
                    raise AssertionError(f"Unknown token {word}")
                if following == invalid_label:
                    following += 1
                word = unknown_token or word
                table[word] = following
                following += 1
            coded.append(table[word])
        out.append(coded)
    return out, table


class BucketSentenceIter(DataIter):
    """Batches of sentences filled up to the length of their bucket; labels are the words that follow."""

    def __init__(self, sentences: Any, batch_size: int, buckets: list[int] | None = None, invalid_label: int = -1,
                 data_name: str = "data", label_name: str = "softmax_label", dtype: str = "float32", layout: str = "NT") -> None:  # fmt: skip
        super().__init__(batch_size)
        if not buckets:
            buckets = [i for i, n in enumerate(np.bincount([len(s) for s in sentences])) if n >= batch_size]
        buckets = sorted(buckets)
        rows: list[list[Any]] = [[] for _ in buckets]
        discarded = 0
        for s in sentences:
            k = bisect.bisect_left(buckets, len(s))
            if k == len(buckets):
                discarded += 1
                continue
            row = np.full(buckets[k], invalid_label, dtype)
            row[: len(s)] = s
            rows[k].append(row)
        if discarded:
            logging.warning("discarded %d sentences longer than the largest bucket.", discarded)
        self.buckets = [b for b, r in zip(buckets, rows) if r]
        self.data = [np.asarray(r, dtype) for r in rows if r]
        if not self.buckets:
            raise ValueError("no sentence fits a bucket; give larger buckets")
        self.major_axis = layout.find("N")
        if layout not in ("NT", "TN"):
            raise ValueError(f"layout={layout!r}: there are 'NT' and 'TN'")
        self.layout, self.dtype, self.invalid_label = layout, dtype, invalid_label
        self.data_name, self.label_name = data_name, label_name
        self.default_bucket_key = max(self.buckets)
        shape = (batch_size, self.default_bucket_key)
        shape = shape if self.major_axis == 0 else shape[::-1]
        self.provide_data = [DataDesc(data_name, shape, layout=layout)]
        self.provide_label = [DataDesc(label_name, shape, layout=layout)]
        self.idx = [(i, j) for i, d in enumerate(self.data) for j in range(0, len(d) - batch_size + 1, batch_size)]
        self.reset()

    def reset(self) -> None:
        """Begin the next epoch, in another order."""
        self.curr_idx = 0
        random.shuffle(self.idx)
        self.labels = []
        for d in self.data:
            np.random.shuffle(d)
            self.labels.append(np.concatenate([d[:, 1:], np.full((len(d), 1), self.invalid_label, d.dtype)], 1))

    def next(self) -> DataBatch:
        """The next batch."""
        if self.curr_idx == len(self.idx):
            raise StopIteration
        i, j = self.idx[self.curr_idx]
        self.curr_idx += 1
        data, label = (x[i][j : j + self.batch_size] for x in (self.data, self.labels))
        if self.major_axis == 1:
            data, label = data.T, label.T
        return DataBatch([nd.array(data, dtype=self.dtype)], [nd.array(label, dtype=self.dtype)], 0, bucket_key=self.buckets[i],
                         provide_data=[DataDesc(self.data_name, data.shape, layout=self.layout)],
                         provide_label=[DataDesc(self.label_name, label.shape, layout=self.layout)])  # fmt: skip
