"""ImageIter: batches of images from record files, list files or a list."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import DiptychError
from diptych.frontends.mxnet.recordio import read_list
from diptych.mxnet import recordio
from diptych.mxnet.base import MXNetError
from diptych.mxnet.image.augment import CreateAugmenter
from diptych.mxnet.image.image import imdecode
from diptych.mxnet.imperative import wrap
from diptych.mxnet.io.base import DataBatch, DataDesc, DataIter
from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["ImageIter"]


class ImageIter(DataIter):
    """Batches of decoded and augmented images, (batch, channels, height, width).

    Args:
        path_imgrec, path_imgidx: a record file and its index (needed to shuffle). path_imglist: a .lst file, or
            imglist: a list of [label..., path]; with path_root, the folder of the images.
        aug_list: augmenters; CreateAugmenter(data_shape, **kwargs) if None.
        last_batch_handle: "pad", "discard" or "roll_over", as in NDArrayIter.
    """

    def __init__(self, batch_size: int, data_shape: tuple[int, int, int], label_width: int = 1, path_imgrec: str | None = None,
                 path_imglist: str | None = None, path_root: str | None = None, path_imgidx: str | None = None,
                 shuffle: bool = False, part_index: int = 0, num_parts: int = 1, aug_list: Any = None,
                 imglist: list[Any] | None = None, data_name: str = "data", label_name: str = "softmax_label",
                 dtype: str = "float32", last_batch_handle: str = "pad", **kwargs: Any) -> None:  # fmt: skip
        super().__init__(batch_size)
        if not (path_imgrec or path_imglist or isinstance(imglist, list)):
            raise AssertionError("give path_imgrec, path_imglist or imglist")
        if dtype not in ("int32", "float32", "int64", "float64"):
            raise AssertionError(f"{dtype} label not supported")
        self.imgrec: Any = None
        self.imglist: dict[Any, tuple[Any, str]] | None = None
        self.seq: list[Any] | None = None
        if path_imgrec:
            if not Path(path_imgrec).is_file():
                raise MXNetError(f"there is no file {path_imgrec}")
            self.imgrec = recordio.MXIndexedRecordIO(path_imgidx, path_imgrec, "r") if path_imgidx else recordio.MXRecordIO(path_imgrec, "r")
        if path_imglist:
            try:
                entries = read_list(path_imglist)
            except (OSError, DiptychError) as error:
                raise MXNetError(str(error)) from error
            self.imglist = {e.number: (np.array(e.labels, dtype), e.path) for e in entries}
        elif isinstance(imglist, list):
            self.imglist = {str(i): (np.array(x[:-1] if len(x) > 2 else np.ravel(x[0]), dtype), x[-1]) for i, x in enumerate(imglist, 1)}
        self.path_root = path_root or ""
        self.check_data_shape(data_shape)
        self.provide_data = [DataDesc(data_name, (batch_size, *data_shape))]
        self.provide_label = [DataDesc(label_name, (batch_size, label_width) if label_width > 1 else (batch_size,))]
        self.data_shape, self.label_width, self.shuffle = tuple(data_shape), label_width, shuffle
        if self.imgrec is None:
            assert self.imglist is not None
            self.seq = list(self.imglist)
        elif shuffle or num_parts > 1 or path_imgidx:
            if not path_imgidx:
                raise AssertionError("shuffle and num_parts need path_imgidx, the index of the record file")
            self.seq = list(self.imgrec.keys)
        if num_parts > 1:
            if part_index >= num_parts:
                raise AssertionError(f"part_index={part_index} of num_parts={num_parts}")
            assert self.seq is not None
            size = len(self.seq) // num_parts
            self.seq = self.seq[part_index * size : (part_index + 1) * size]
        c, rows, cols = self.data_shape
        self.auglist: Any = CreateAugmenter((c, rows, cols), **kwargs) if aug_list is None else aug_list
        if last_batch_handle not in ("pad", "discard", "roll_over"):
            raise ValueError(f"last_batch_handle={last_batch_handle!r}; use pad, discard or roll_over")
        self.last_batch_handle = last_batch_handle
        self.num_image = len(self.seq) if self.seq is not None else None
        self.cur = 0
        self._ended = False
        self._kept: list[tuple[Any, Any]] = []
        self.reset()

    def _start(self) -> None:
        if self.imgrec is not None:
            self.imgrec.reset()
        self.cur = 0
        self._ended = False

    def reset(self) -> None:
        """Begin the next epoch."""
        if self.seq is not None and self.shuffle:
            random.shuffle(self.seq)
        self._start()

    def hard_reset(self) -> None:
        """Begin again; nothing rolls over."""
        self._kept = []
        self.reset()

    def next_sample(self) -> tuple[Any, bytes]:
        """Label and encoded image of the next sample; StopIteration after the last."""
        if self.seq is None:
            record = self.imgrec.read()
            if record is None:
                raise StopIteration
            header, raw = recordio.unpack(record)
            return header.label, raw
        if self.cur >= len(self.seq):
            raise StopIteration
        key = self.seq[self.cur]
        self.cur += 1
        if self.imgrec is not None:
            header, raw = recordio.unpack(self.imgrec.read_idx(key))
            return (header.label if self.imglist is None else self.imglist[key][0]), raw
        assert self.imglist is not None
        label, name = self.imglist[key]
        return label, self.read_image(name)

    def _sample(self) -> tuple[Any, Any]:
        while True:
            label, raw = self.next_sample()
            data = self.imdecode(raw)
            try:
                self.check_valid_image(data)
            except RuntimeError as error:
                logging.debug("an image that cannot be read is left out: %s", error)
                continue
            return self.postprocess_data(self.augmentation_transform(data))._data, label

    def _more(self, samples: list[tuple[Any, Any]]) -> None:
        while len(samples) < self.batch_size:
            samples.append(self._sample())

    def next(self) -> DataBatch:
        """The next batch."""
        if self._ended:
            raise StopIteration
        samples, self._kept = self._kept, []
        pad = 0
        try:
            self._more(samples)
        except StopIteration:
            if not samples:
                raise
            self._ended = True
            if self.last_batch_handle != "pad":
                self._kept = samples if self.last_batch_handle == "roll_over" else []
                raise
            pad = self.batch_size - len(samples)
            while len(samples) < self.batch_size:  # from the first ones again
                self._start()
                try:
                    self._more(samples)
                except StopIteration:
                    continue
            self._ended = True
        return self._batch(samples, pad)

    def _batch(self, samples: list[tuple[Any, Any]], pad: int) -> DataBatch:
        data = np.stack([d for d, _ in samples]).astype(np.float32, copy=False)
        label = np.stack([np.asarray(y, np.float32).reshape(self.provide_label[0].shape[1:]) for _, y in samples])
        return DataBatch([wrap(data)], [wrap(label)], pad)

    # -- parts that subclasses may change -------------------------------------------------------------------------
    def check_data_shape(self, data_shape: Any) -> None:
        """An error unless it is (3, height, width)."""
        if len(data_shape) != 3:
            raise ValueError(f"data_shape={data_shape}: three numbers, channels, height and width")
        if data_shape[0] != 3:
            raise ValueError(f"data_shape={data_shape}: images have 3 channels here")

    def check_valid_image(self, data: NDArray) -> None:
        """A RuntimeError for what is no image."""
        if data.ndim < 2:
            raise RuntimeError(f"an image came out as {data.shape}, data_shape is {self.data_shape}")

    def imdecode(self, s: bytes) -> NDArray:
        """The image in the bytes of a sample."""
        try:
            return imdecode(s)
        except MXNetError as error:
            where = self.seq[self.cur - 1] if self.seq is not None else "in order"
            name = self.imglist[where][1] if self.imglist is not None and where in self.imglist else f"record {where}"
            raise RuntimeError(f"Broken image {name}: {error}") from error

    def read_image(self, fname: str) -> bytes:
        """The bytes of an image file."""
        return Path(os.path.join(self.path_root, fname)).read_bytes()

    def augmentation_transform(self, data: NDArray) -> NDArray:
        """The image augmented."""
        for aug in self.auglist:
            data = aug(data)
        return data

    def postprocess_data(self, datum: NDArray) -> NDArray:
        """Channels first."""
        return wrap(np.ascontiguousarray(datum._data.transpose(2, 0, 1)))
