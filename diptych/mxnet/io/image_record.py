"""ImageRecordIter: batches of images from record files, with augmentation."""

from __future__ import annotations

from math import log, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.frontends.mxnet.convert_image import PRINCIPAL
from diptych.mxnet.base import MXNetError
from diptych.mxnet.image.codec import decode, resized
from diptych.mxnet.image.image import interpolation
from diptych.mxnet.io.base import DataDesc
from diptych.mxnet.io.record_stream import RecordStream
from diptych.mxnet.ops.image_random import with_brightness, with_contrast, with_saturation

if TYPE_CHECKING:
    from diptych.ir import Array

__all__ = ["ImageRecordInt8Iter", "ImageRecordIter", "ImageRecordIter_v1", "ImageRecordUInt8Iter", "ImageRecordUInt8Iter_v1", "Normal", "refuse"]

# Options of libmxnet that only say how the work is done.
_IGNORED = {"verbose", "ctx", "device_id", "dtype_policy"}
# Augmentations that are not there, and the values at which they do nothing.
_NOTHING: dict[str, tuple[Any, ...]] = {
    "max_random_scale": (1,), "min_random_scale": (1,), "max_img_size": (1e10,), "min_img_size": (0,), "fill_value": (127, 255),
    "rotate": (-1,), "max_crop_size": (-1,), "min_crop_size": (-1,), "aug_seq": ("aug_default", "det_aug_default"),
}  # fmt: skip


def refuse(name: str, options: dict[str, Any]) -> None:
    """An error for options that would change the images in ways that are not there."""
    used = sorted(k for k, v in options.items() if k not in _IGNORED and v not in _NOTHING.get(k, ()) and v not in (0, None, ""))
    used = [k for k in used if not (options[k] == -1 and k in _NOTHING)]
    if used:
        raise MXNetError(f"{name} does not support {', '.join(used)}; use mx.image.ImageIter or ImageDetIter with augmenters")


class Normal:
    """(value - mean) / std * scale for each channel, channels first; integers stay as they are."""

    def __init__(self, channels: int, kind: np.dtype[Any], options: dict[str, Any]) -> None:
        def column(name: str, usual: float) -> Array:
            values = [float(options.pop(f"{name}_{c}", usual)) for c in "rgba"]
            return np.array([v if name == "mean" or v else 1.0 for v in values][:channels], np.float32)

        self._mean, self._std, self._scale = column("mean", 0), column("std", 1), np.float32(options.pop("scale", 1.0))
        self._kind = kind

    def __call__(self, x: Array) -> Array:
        """An image in the form that networks take."""
        if self._kind.kind not in "iu":
            x = (x.astype(np.float32) - self._mean) / self._std * self._scale
        elif self._kind == np.int8:
            x = np.minimum(x, 127)
        return np.ascontiguousarray(x.transpose(2, 0, 1)).astype(self._kind, copy=False)


class ImageRecordIter(RecordStream):
    """Batches of the images of a record file: (value - mean) / std * scale, channels R, G, B first.

    Files of any size: threads read and decode ahead, a few batches are in memory at a time.

    Args:
        path_imgrec: the file. data_shape: (channels, height, width). label_width: labels for each image. path_imglist:
            a .lst file whose labels are taken instead. path_imgidx: an index, which spares looking for the records.
        resize: length of the shorter side first. pad, fill_value: a rim. rand_crop, rand_mirror, mirror,
            random_resized_crop, min_random_area, max_random_area, min_aspect_ratio, max_aspect_ratio: what part, which way.
            brightness, contrast, saturation, pca_noise: strengths of random colours. inter_method: 0 nearest, 1 linear,
            2 cubic, 3 area, 4 Lanczos, 9 by the sizes, 10 any. mean_r/g/b, std_r/g/b, scale: normalisation. dtype.
        shuffle, shuffle_chunk_size, seed, seed_aug, round_batch, num_parts, part_index, preprocess_threads,
            prefetch_buffer: see `record_stream.RecordStream`.
    Other augmentations of libmxnet (rotation, shear, random scale and crop size, HSL, mean_img) are errors.
    """

    _dtype: Any = np.float32

    def __init__(self, path_imgrec: str, data_shape: Any, batch_size: int, label_width: int = 1, resize: int = -1, pad: int = 0,
                 fill_value: int = 255, rand_crop: bool = False, rand_mirror: bool = False, mirror: bool = False,
                 random_resized_crop: bool = False, min_random_area: float = 0.08, max_random_area: float = 1.0,
                 min_aspect_ratio: float | None = None, max_aspect_ratio: float | None = None, brightness: float = 0, contrast: float = 0,
                 saturation: float = 0, pca_noise: float = 0, inter_method: int = 1, data_name: str = "data",
                 label_name: str = "softmax_label", dtype: Any = None, **kwargs: Any) -> None:  # fmt: skip
        self._shape, self._label_width = tuple(int(d) for d in data_shape), label_width
        if len(self._shape) != 3 or self._shape[0] not in (1, 3):
            raise MXNetError(f"ImageRecordIter: data_shape {self._shape} must be (1 or 3 channels, height, width)")
        self._kind = np.dtype(dtype or self._dtype)
        self._normal = Normal(self._shape[0], self._kind, kwargs)
        stream = {k: kwargs.pop(k) for k in _STREAM if k in kwargs}
        refuse("ImageRecordIter", kwargs)
        self._resize, self._pad, self._fill, self._interp = int(resize), int(pad), fill_value, int(inter_method)
        interpolation(self._interp if self._interp < 9 else 1)
        self._crop, self._flip, self._mirror, self._part = rand_crop, rand_mirror, mirror, random_resized_crop
        self._area = min_random_area, max_random_area
        self._ratio = min_aspect_ratio or 0.75, max_aspect_ratio or 4.0 / 3.0
        self._colours = [(f, s) for f, s in ((with_brightness, brightness), (with_contrast, contrast), (with_saturation, saturation)) if s > 0]
        self._noise = pca_noise
        super().__init__(path_imgrec, batch_size, **stream)
        self.provide_data = [DataDesc(data_name, (self.batch_size, *self._shape), self._kind.type)]
        labels = (self.batch_size, label_width) if label_width > 1 else (self.batch_size,)
        self.provide_label = [DataDesc(label_name, labels)]
        self.reset()

    def _sized(self, x: Array, height: int, width: int, rng: np.random.Generator) -> Array:
        if x.shape[:2] == (height, width):
            return x
        kind = int(rng.integers(5)) if self._interp == 10 else interpolation(self._interp, (*x.shape[:2], height, width))
        found: Array = resized(x, height, width, kind)
        return found

    def _cropped(self, x: Array, rng: np.random.Generator) -> Array:
        """The part that is taken, in the size of the batch."""
        _, rows, columns = self._shape
        height, width = x.shape[:2]
        if self._part:
            for _ in range(10):
                area = rng.uniform(*self._area) * height * width
                ratio = np.exp(rng.uniform(log(self._ratio[0]), log(self._ratio[1])))
                w, h = round(sqrt(area * ratio)), round(sqrt(area / ratio))
                if 0 < w <= width and 0 < h <= height:
                    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                    return self._sized(x[top : top + h, left : left + w], rows, columns, rng)
        # The largest part of the batch's proportions, where the image is smaller than that.
        shrink = min(1.0, height / rows, width / columns)
        h, w = max(1, int(rows * shrink)), max(1, int(columns * shrink))
        top, left = (height - h) // 2, (width - w) // 2
        if self._crop:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        return self._sized(x[top : top + h, left : left + w], rows, columns, rng)

    def _sample(self, header: Any, content: bytes, rng: np.random.Generator) -> tuple[Array, Array]:
        label = np.ravel(np.asarray(header.label, np.float32))
        if len(label) < self._label_width:
            raise MXNetError(f"record {header.id} has {len(label)} labels, label_width={self._label_width}")
        x: Array = decode(content, 0 if self._shape[0] == 1 else 1)
        if self._resize > 0:
            height, width = x.shape[:2]
            longer = self._resize * max(height, width) // min(height, width)
            rows, columns = (longer, self._resize) if height > width else (self._resize, longer)
            x = self._sized(x, rows, columns, rng)
        if self._pad:
            x = np.pad(x, ((self._pad, self._pad), (self._pad, self._pad), (0, 0)), constant_values=self._fill)
        x = self._cropped(x, rng)
        for i in rng.permutation(len(self._colours)) if self._colours else ():
            change, strength = self._colours[i]
            x = change(x, 1 + rng.uniform(-strength, strength))
        if self._noise > 0 and x.shape[2] == 3:
            x = np.clip(x + (PRINCIPAL @ rng.normal(0, self._noise, 3)), 0, 255).astype(np.uint8)
        if self._mirror != (self._flip and rng.random() < 0.5):
            x = x[:, ::-1]
        return self._normal(x), label[: self._label_width]

    def _labels(self, labels: list[Array]) -> Array:
        found = np.stack(labels)
        return found if self._label_width > 1 else found[:, 0]


_STREAM = ("shuffle", "seed", "round_batch", "num_parts", "part_index", "path_imgidx", "path_imglist", "shuffle_chunk_size",
           "shuffle_chunk_seed", "preprocess_threads", "prefetch_buffer", "seed_aug")  # fmt: skip


class ImageRecordUInt8Iter(ImageRecordIter):
    """Batches of images as they are, uint8."""

    _dtype = np.uint8


class ImageRecordInt8Iter(ImageRecordIter):
    """Batches of images as int8: values over 127 become 127, as in MXNet."""

    _dtype = np.int8


ImageRecordIter_v1 = ImageRecordIter
ImageRecordUInt8Iter_v1 = ImageRecordUInt8Iter
