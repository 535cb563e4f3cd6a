"""ImageRecordIter: batches of images from record files, with augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.mxnet.base import MXNetError
from diptych.mxnet.image.augment import (
    Augmenter,
    CenterCropAug,
    ForceResizeAug,
    HorizontalFlipAug,
    RandomCropAug,
    RandomSizedCropAug,
    ResizeAug,
)
from diptych.mxnet.image.image import imdecode
from diptych.mxnet.imperative import wrap
from diptych.mxnet.io.base import DataBatch, DataDesc, MXDataIter
from diptych.mxnet.recordio import MXRecordIO, unpack

__all__ = ["ImageRecordIter", "ImageRecordIter_v1", "ImageRecordUInt8Iter"]

# Options of libmxnet that only say how the work is done.
_IGNORED = {"preprocess_threads", "prefetch_buffer", "verbose", "ctx", "device_id", "dtype_policy", "path_imgidx",
            "shuffle_chunk_size", "shuffle_chunk_seed"}  # fmt: skip
_BILINEAR = 1  # the one `inter_method`


class ImageRecordIter(MXDataIter):
    """Batches of the images of a record file: (value - mean) / std * scale, channels R, G, B first.

    Args:
        path_imgrec: the file. data_shape: (channels, height, width). label_width: labels for each image.
        resize: length of the shorter side first. rand_crop, rand_mirror, random_resized_crop, min_random_area,
            max_random_area, min_aspect_ratio, max_aspect_ratio: augmentation. mean_r/g/b, std_r/g/b, scale: normalisation.
        shuffle, seed: order; round_batch: the last batch is filled up from the first images; num_parts, part_index: a share.
    Other augmentations of libmxnet (rotation, shear, HSL, PCA noise), its image lists, its seed of augmentation and
    resizing by another method than the bilinear are errors.
    """

    _dtype: Any = np.float32

    def __init__(self, path_imgrec: str, data_shape: Any, batch_size: int, label_width: int = 1, shuffle: bool = False,
                 seed: int = 0, round_batch: bool = True, num_parts: int = 1, part_index: int = 0, resize: int = -1,
                 rand_crop: bool = False, rand_mirror: bool = False, mirror: bool = False, random_resized_crop: bool = False,
                 min_random_area: float = 0.08, max_random_area: float = 1.0, min_aspect_ratio: float = 0.75,
                 max_aspect_ratio: float = 4.0 / 3.0, mean_r: float = 0, mean_g: float = 0, mean_b: float = 0, std_r: float = 1,
                 std_g: float = 1, std_b: float = 1, scale: float = 1.0, data_name: str = "data",
                 label_name: str = "softmax_label", dtype: Any = None, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(int(batch_size))
        used = {k: v for k, v in kwargs.items() if k not in _IGNORED and v not in (0, False, None, -1, "")}
        used.pop("inter_method", None)
        if kwargs.get("inter_method", _BILINEAR) != _BILINEAR:
            used["inter_method"] = kwargs["inter_method"]
        if kwargs.get("seed_aug") is not None:
            used["seed_aug"] = kwargs["seed_aug"]
        if used:
            raise MXNetError(f"ImageRecordIter does not support {', '.join(sorted(used))}; use mx.image.ImageIter with augmenters")
        reader = MXRecordIO(path_imgrec, "r")
        self._records: list[bytes] = []
        while (record := reader.read()) is not None:
            self._records.append(record)
        reader.close()
        size = len(self._records) // num_parts
        if num_parts > 1:
            self._records = self._records[part_index * size : (part_index + 1) * size]
        if not self._records:
            raise MXNetError(f"{path_imgrec} holds no records")
        self._shape, self._label_width, self._round = tuple(int(d) for d in data_shape), label_width, round_batch
        self._rng = np.random.default_rng(seed)
        self._shuffle, self._mirror = shuffle, mirror
        wh = (self._shape[2], self._shape[1])
        self._augmenters: list[Augmenter] = [ResizeAug(resize, 1)] if resize > 0 else []
        if random_resized_crop:
            self._augmenters.append(RandomSizedCropAug(wh, (min_random_area, max_random_area), (min_aspect_ratio, max_aspect_ratio), 1))
        elif rand_crop:
            self._augmenters.append(RandomCropAug(wh, 1))
        else:
            self._augmenters.append(CenterCropAug(wh, 1))
        if rand_mirror:
            self._augmenters.append(HorizontalFlipAug(0.5))
        self._fit = ForceResizeAug(wh, 1)
        self._mean = np.array([mean_r, mean_g, mean_b][: self._shape[0]], np.float32)
        self._std = np.array([std_r, std_g, std_b][: self._shape[0]], np.float32)
        self._scale = np.float32(scale)
        self._kind = np.dtype(dtype or self._dtype)
        self.provide_data = [DataDesc(data_name, (self.batch_size, *self._shape), self._kind.type)]
        labels = (self.batch_size, label_width) if label_width > 1 else (self.batch_size,)
        self.provide_label = [DataDesc(label_name, labels)]
        self._first = 0
        self.reset()

    def reset(self) -> None:
        """Begin the next epoch."""
        self._at, self._first = self._first, 0
        self._order = self._rng.permutation(len(self._records)) if self._shuffle else np.arange(len(self._records))

    def _image(self, raw: bytes) -> Any:
        img = imdecode(raw, 0 if self._shape[0] == 1 else 1)
        for a in self._augmenters:
            img = a(img)
        if img.shape[:2] != self._shape[1:]:
            img = self._fit(img)
        x = img._data[:, ::-1] if self._mirror else img._data
        if self._kind.kind in "iu":
            return x.transpose(2, 0, 1)
        return ((x.astype(np.float32) - self._mean) / self._std * self._scale).transpose(2, 0, 1)

    def next(self) -> DataBatch:
        """The next batch."""
        count = len(self._records)
        if self._at >= count or (not self._round and self._at + self.batch_size > count):
            raise StopIteration
        end = self._at + self.batch_size
        pad = max(0, end - count)
        chosen = self._order[np.arange(self._at, end) % count]
        self._at = end
        self._first = pad % count if pad else 0
        data, labels = [], []
        for i in chosen:
            header, raw = unpack(self._records[i])
            label = np.ravel(np.asarray(header.label, np.float32))
            if len(label) < self._label_width:
                raise MXNetError(f"record {header.id} has {len(label)} labels, label_width={self._label_width}")
            data.append(self._image(raw))
            labels.append(label[: self._label_width] if self._label_width > 1 else label[0])
        return DataBatch([wrap(np.stack(data).astype(self._kind, copy=False))], [wrap(np.array(labels, np.float32))], pad,
                         chosen.astype(np.uint64))  # fmt: skip


class ImageRecordUInt8Iter(ImageRecordIter):
    """Batches of images as they are, uint8."""

    _dtype = np.uint8


ImageRecordIter_v1 = ImageRecordIter
