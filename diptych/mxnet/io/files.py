"""Iterators over files of numbers: CSV, LibSVM, MNIST."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np

from diptych.mxnet.base import MXNetError, dtype_name
from diptych.mxnet.imperative import wrap
from diptych.mxnet.io.base import DataBatch, DataDesc, MXDataIter
from diptych.mxnet.ndarray.sparse import CSRNDArray, labelled

__all__ = ["CSVIter", "LibSVMIter", "MNISTIter", "RowsIter"]


class RowsIter(MXDataIter):
    """Batches of rows of arrays; `round_batch`: the last one is filled up from the first rows, else it may be short of some."""

    def __init__(self, data: Any, label: Any, batch_size: int, data_name: str, label_name: str, round_batch: bool,
                 discard: bool = False) -> None:  # fmt: skip
        super().__init__(int(batch_size))
        if len(data) != len(label):
            raise MXNetError(f"{len(data)} samples but {len(label)} labels")
        self._data, self._label = data, label
        self._round, self._discard = round_batch, discard
        self._at, self._first = 0, 0
        self._index: Any = None
        self.pad = 0
        self.provide_data = [DataDesc(data_name, (self.batch_size, *data.shape[1:]), data.dtype)]
        self.provide_label = [DataDesc(label_name, (self.batch_size, *label.shape[1:]), label.dtype)]

    def reset(self) -> None:
        """Begin the next epoch: after samples that filled the last batch of the epoch before."""
        self._at = self._first
        self._first = 0

    def iter_next(self) -> bool:
        """Move to the next batch; False after the last."""
        count = len(self._data)
        if self._at >= count or (self._discard and self._at + self.batch_size > count):
            return False
        end = self._at + self.batch_size
        self.pad = max(0, end - count)
        if self._round and self.pad:
            self._first = self.pad % count
        self._index = np.arange(self._at, end) % count
        self._at = end
        return True

    def next(self) -> DataBatch:
        """The next batch."""
        if not self.iter_next():
            raise StopIteration
        return DataBatch([self.getdata()], [self.getlabel()], self.getpad(), self.getindex())

    def getdata(self) -> Any:
        """The data of the batch."""
        return wrap(np.ascontiguousarray(self._data[self._index]))

    def getlabel(self) -> Any:
        """The labels of the batch."""
        return wrap(np.ascontiguousarray(self._label[self._index]))

    def getindex(self) -> Any:
        """The positions of its samples in the file."""
        return self._index.astype(np.uint64)

    def getpad(self) -> int:
        """How many samples only fill the batch up."""
        return self.pad


def _file(path: Any) -> Path:
    found = Path(path)
    if not found.is_file():
        raise MXNetError(f"there is no file {path}")
    return found


class CSVIter(RowsIter):
    """Batches of the lines of a CSV file; each line holds the elements of `data_shape` in row order."""

    def __init__(self, data_csv: str, data_shape: Any, batch_size: int, label_csv: str | None = None, label_shape: Any = (1,),
                 round_batch: bool = True, dtype: Any = "float32", data_name: str = "data", label_name: str = "softmax_label",
                 **kwargs: Any) -> None:  # fmt: skip
        kind = np.dtype(dtype_name(dtype or "float32"))
        data = self._table(data_csv, tuple(data_shape), kind)
        if label_csv is None:
            label = np.zeros((len(data), *tuple(label_shape)), kind)
        else:
            label = self._table(label_csv, tuple(label_shape), kind)
        if label.shape[1:] == (1,):
            label = label[:, 0] if label_csv is None else label
        super().__init__(data, label, batch_size, data_name, label_name, round_batch)

    @staticmethod
    def _table(path: str, shape: tuple[int, ...], kind: Any) -> Any:
        found = np.loadtxt(_file(path), kind, delimiter=",", ndmin=2)
        if found.shape[1] != int(np.prod(shape)):
            raise MXNetError(f"{path}: lines hold {found.shape[1]} numbers, the shape {shape} needs {int(np.prod(shape))}")
        return found.reshape(-1, *shape)


class LibSVMIter(RowsIter):
    """Batches of sparse rows `label index:value ...` (indices from 0), as CSR arrays."""

    def __init__(self, data_libsvm: str, data_shape: Any, batch_size: int, label_libsvm: str | None = None,
                 label_shape: Any = (1,), num_parts: int = 1, part_index: int = 0, round_batch: bool = True,
                 data_name: str = "data", label_name: str = "softmax_label", **kwargs: Any) -> None:  # fmt: skip
        width = int(np.prod(data_shape))
        data, inner = self._rows(data_libsvm, width)
        if label_libsvm is not None:
            label, _ = self._rows(label_libsvm, int(np.prod(label_shape)))
            self._sparse_label = True
        else:
            label, self._sparse_label = inner[:, 0], False
        if num_parts > 1:  # as even as can be, in the order of the file
            cut = [len(data) * k // num_parts for k in (part_index, part_index + 1)]
            data, label = data[cut[0] : cut[1]], label[cut[0] : cut[1]]
        super().__init__(data, label, batch_size, data_name, label_name, round_batch)

    @staticmethod
    def _rows(path: str, width: int) -> tuple[Any, Any]:
        rows, labels = [], []
        with _file(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                fields = line.split("#")[0].split()
                if not fields:
                    continue
                row = np.zeros(width, np.float32)
                first = 0 if ":" in fields[0] else 1
                try:
                    labels.append([float(v) for v in fields[0].split(",")] if first else [0.0])
                    for item in fields[first:]:
                        index, _, value = item.partition(":")
                        row[int(index)] = float(value)
                except (ValueError, IndexError) as error:
                    raise MXNetError(f"{path}: line {number} does not fit {width} columns: {error}") from error
                rows.append(row)
        return np.array(rows, np.float32).reshape(-1, width), np.array(labels, np.float32)

    def getdata(self) -> Any:
        """The data of the batch, a CSR array."""
        return labelled(self._data[self._index], CSRNDArray)

    def getlabel(self) -> Any:
        """The labels of the batch."""
        if self._sparse_label:
            return labelled(self._label[self._index], CSRNDArray)
        return super().getlabel()


def read_idx(path: str) -> Any:
    """The array in a file of the MNIST format, packed by gzip or not."""
    raw = _file(path).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise MXNetError(f"{path} is not an idx file of bytes (MNIST)")
    shape = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if body.size != int(np.prod(shape)):
        raise MXNetError(f"{path}: {body.size} bytes do not fill the shape {shape}")
    return body.reshape(shape)


class MNISTIter(RowsIter):
    """Batches of the MNIST files: images as float32 between 0 and 1, (1, 28, 28) or flat; samples that fill no batch are left out."""

    def __init__(self, image: str = "./train-images-idx3-ubyte", label: str = "./train-labels-idx1-ubyte", batch_size: int = 128,
                 shuffle: bool = True, flat: bool = False, seed: int = 0, silent: bool = False, num_parts: int = 1,
                 part_index: int = 0, input_shape: Any = None, data_name: str = "data", label_name: str = "softmax_label",
                 **kwargs: Any) -> None:  # fmt: skip
        images, labels = read_idx(image), read_idx(label)
        if len(images) != len(labels):
            raise MXNetError(f"{image} holds {len(images)} images, {label} {len(labels)} labels")
        order = np.random.default_rng(seed).permutation(len(images)) if shuffle else np.arange(len(images))
        size = len(images) // num_parts
        order = order[part_index * size : (part_index + 1) * size]
        data = images[order].astype(np.float32) / 256
        data = data.reshape(len(data), -1) if flat else data[:, None]
        super().__init__(data, labels[order].astype(np.float32), batch_size, data_name, label_name, False, discard=True)
