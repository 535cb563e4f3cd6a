"""Data sets, samplers and the DataLoader."""

from __future__ import annotations

from diptych.mxnet.gluon.data import vision
from diptych.mxnet.gluon.data.dataloader import DataLoader, default_batchify_fn, default_mp_batchify_fn
from diptych.mxnet.gluon.data.dataset import ArrayDataset, Dataset, RecordFileDataset, SimpleDataset
from diptych.mxnet.gluon.data.sampler import BatchSampler, FilterSampler, RandomSampler, Sampler, SequentialSampler

__all__ = [
    "ArrayDataset", "BatchSampler", "DataLoader", "Dataset", "FilterSampler", "RandomSampler", "RecordFileDataset", "Sampler",
    "SequentialSampler", "SimpleDataset", "default_batchify_fn", "default_mp_batchify_fn", "vision",
]  # fmt: skip
