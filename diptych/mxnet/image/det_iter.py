"""ImageDetIter: batches of images with the boxes of their objects."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.image.det_augment import CreateDetAugmenter
from diptych.mxnet.image.image_iter import ImageIter
from diptych.mxnet.imperative import wrap
from diptych.mxnet.io.base import DataBatch
from diptych.mxnet.ndarray.ndarray import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diptych.ir import Array

__all__ = ["ImageDetIter", "parse_label"]


def parse_label(label: Any) -> Array:
    """The objects in a label of detection: (objects, width), those of an empty box left out.

    >>> parse_label(np.array([2, 5, 1, 0.1, 0.1, 0.4, 0.5], "f")).shape
    (1, 5)

    The label is: width of the header (2 or more), width of an object (5 or more), the rest of the header, the objects.
    Raises RuntimeError for another form, and where no box is left.
    """
    raw = np.ravel(label.asnumpy() if isinstance(label, NDArray) else np.asarray(label))
    if raw.size < 7:
        raise RuntimeError(f"Label shape is invalid: {raw.shape}")
    header, width = int(raw[0]), int(raw[1])
    if header < 2 or width < 5 or (raw.size - header) % width:
        raise RuntimeError(f"Label shape {raw.shape} inconsistent with annotation width {width}.")
    objects = raw[header:].reshape(-1, width)
    valid = (objects[:, 3] > objects[:, 1]) & (objects[:, 4] > objects[:, 2])
    if not valid.any():
        raise RuntimeError("Encounter sample with no valid label.")
    found: Array = objects[valid]
    return found


class ImageDetIter(ImageIter):
    """Batches of images (batch, channels, height, width) and objects (batch, most objects, width of one), filled up with -1.

    aug_list: DetAugmenters; CreateDetAugmenter(data_shape, **kwargs) if None. The other arguments are those of ImageIter.
    All labels are read once at the beginning, to find the shape; samples without a valid box are passed over.
    """

    def __init__(self, batch_size: int, data_shape: tuple[int, int, int], path_imgrec: str | None = None, path_imglist: str | None = None,
                 path_root: str | None = None, path_imgidx: str | None = None, shuffle: bool = False, part_index: int = 0,
                 num_parts: int = 1, aug_list: Any = None, imglist: list[Any] | None = None, data_name: str = "data",
                 label_name: str = "label", last_batch_handle: str = "pad", **kwargs: Any) -> None:  # fmt: skip
        super().__init__(batch_size, data_shape, path_imgrec=path_imgrec, path_imglist=path_imglist, path_root=path_root,
                         path_imgidx=path_imgidx, shuffle=shuffle, part_index=part_index, num_parts=num_parts, aug_list=[],
                         imglist=imglist, data_name=data_name, label_name=label_name, last_batch_handle=last_batch_handle)  # fmt: skip
        self.auglist: Any = CreateDetAugmenter(data_shape, **kwargs) if aug_list is None else aug_list
        self.label_shape = self._estimate_label_shape()
        self.provide_label: list[Any] = [(label_name, (batch_size, *self.label_shape))]

    def _parse_label(self, label: Any) -> Array:
        return parse_label(label)

    def _estimate_label_shape(self) -> tuple[int, int]:
        """The most objects of a sample, and the width of one."""
        most, width = 0, 0
        self.reset()
        while True:
            try:
                found = self._parse_label(self.next_sample()[0])
            except StopIteration:
                break
            except RuntimeError as error:
                logging.debug("Invalid label, skipping:  %s", error)
                continue
            most, width = max(most, len(found)), found.shape[1]
        if not most:
            raise RuntimeError("no sample has a valid label: header width, object width, ..., objects of class, left, top, right, bottom")
        self.reset()
        return most, width

    def _check_valid_label(self, label: Array) -> None:
        if label.ndim != 2 or label.shape[1] < 5:
            raise RuntimeError(f"Label with shape (1+, 5+) required, {label} received.")
        if not ((label[:, 0] >= 0) & (label[:, 3] > label[:, 1]) & (label[:, 4] > label[:, 2])).any():
            raise RuntimeError("Invalid label occurs.")

    def _augmented(self) -> tuple[NDArray, Array]:
        """The next valid sample: image and objects."""
        while True:
            label, raw = self.next_sample()
            data = self.imdecode(raw)
            try:
                self.check_valid_image(data)
                data, objects = self.augmentation_transform(data, self._parse_label(label))
                self._check_valid_label(objects)
            except RuntimeError as error:
                logging.debug("Invalid image, skipping:  %s", error)
                continue
            return data, objects

    def _sample(self) -> tuple[Any, Any]:
        data, objects = self._augmented()
        return self.postprocess_data(data)._data, objects

    def _batch(self, samples: list[tuple[Any, Any]], pad: int) -> DataBatch:
        label = np.full(self.provide_label[0][1], -1, np.float32)
        for i, (_, objects) in enumerate(samples):
            label[i, : len(objects)] = objects
        data = np.stack([d for d, _ in samples]).astype(np.float32, copy=False)
        return DataBatch([wrap(data)], [wrap(label)], pad)

    def augmentation_transform(self, data: NDArray, label: Any = None) -> Any:
        """Image and objects augmented."""
        for aug in self.auglist:
            data, label = aug(data, label)
        return data, label

    # -- shapes -------------------------------------------------------------------------------------------------
    def check_label_shape(self, label_shape: Any) -> None:
        """A ValueError for fewer objects than there are, or another width."""
        if len(label_shape) != 2:
            raise ValueError("label_shape should have length 2")
        if label_shape[0] < self.label_shape[0]:
            raise ValueError(f"Attempts to reduce label count from {self.label_shape[0]} to {label_shape[0]}, not allowed.")
        if label_shape[1] != self.label_shape[1]:
            raise ValueError(f"label_shape object width inconsistent: {self.label_shape[1]} vs {label_shape[1]}.")

    def reshape(self, data_shape: Any = None, label_shape: Any = None) -> None:
        """Another size of images (where the augmenters give it), or room for more objects."""
        if data_shape is not None:
            self.check_data_shape(data_shape)
            self.provide_data: list[Any] = [(self.provide_data[0][0], (self.batch_size, *data_shape))]
            self.data_shape = tuple(data_shape)
        if label_shape is not None:
            self.check_label_shape(label_shape)
            self.provide_label = [(self.provide_label[0][0], (self.batch_size, *label_shape))]
            self.label_shape = tuple(label_shape)

    def sync_label_shape(self, it: ImageDetIter, verbose: bool = False) -> ImageDetIter:
        """Give both iterators room for as many objects as either needs."""
        if not isinstance(it, ImageDetIter):
            raise AssertionError("Synchronize with invalid iterator.")
        if self.label_shape[1] != it.label_shape[1]:
            raise AssertionError(f"object width mismatch: {self.label_shape[1]} and {it.label_shape[1]}")
        most = max(self.label_shape[0], it.label_shape[0])
        for one in (self, it):
            if most > one.label_shape[0]:
                one.reshape(None, (most, one.label_shape[1]))
                if verbose:
                    logging.info("Resized label_shape to (%d, %d).", most, one.label_shape[1])
        return it

    def draw_next(self, color: Any = None, thickness: int = 2, mean: Any = None, std: Any = None, clip: bool = True, waitKey: Any = None,
                  window_name: str = "draw_next", id2labels: Any = None) -> Iterator[Array]:  # fmt: skip
        """Images (height, width; B, G, R) with their boxes drawn, one after another, until the epoch ends.

        color: R, G, B, by chance if None. mean, std: what the augmenters took off, True for the usual. id2labels: names of
        classes. There are no windows here: a `waitKey` is an error, show the arrays with what you have.
        """
        if waitKey is not None:
            raise NotImplementedError("draw_next(waitKey=...) would open a window by OpenCV; leave it out, and show the arrays yourself")
        from diptych.mxnet.image.codec import pillow

        pillow()
        from PIL import Image, ImageDraw

        means, stds = ([123.68, 116.28, 103.53], [58.395, 57.12, 57.375])
        while True:
            try:
                data, objects = self._augmented()
            except StopIteration:
                return
            x = data._data.astype(np.float64)
            if std is not None:
                x = x * np.asarray(stds if std is True else std)
            if mean is not None:
                x = x + np.asarray(means if mean is True else mean)
            shown = Image.fromarray((np.clip(x, 0, 255) if clip else x).astype(np.uint8))
            pen = ImageDraw.Draw(shown)
            height, width = x.shape[:2]
            for box in objects:
                left, top, right, bottom = (int(v * n) for v, n in zip(box[1:5], (width, height, width, height)))
                ink = tuple(int(v) for v in (color if color else np.random.rand(3) * 255))
                pen.rectangle((left, top, right, bottom), outline=ink, width=thickness)
                if id2labels and int(box[0]) in id2labels:
                    pen.text((left + 5, top + 5), str(id2labels[int(box[0])]), fill=(255 - ink[0], 255 - ink[1], 255 - ink[2]))
            yield np.asarray(shown)[:, :, ::-1]
