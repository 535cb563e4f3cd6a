"""Augmenters for object detection: they change image and boxes together.

A label is an array (objects, 5 or more): class, left, top, right, bottom as parts of width and height, and more.
"""

from __future__ import annotations

import json
import random
import warnings
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.image.augment import (
    Augmenter,
    CastAug,
    ColorJitterAug,
    ColorNormalizeAug,
    ForceResizeAug,
    HueJitterAug,
    LightingAug,
    RandomGrayAug,
    ResizeAug,
    plain,
    statistic,
)
from diptych.mxnet.image.image import copyMakeBorder, fixed_crop
from diptych.mxnet.imperative import wrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diptych.ir import Array
    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = [
    "CreateDetAugmenter", "CreateMultiRandCropAugmenter", "DetAugmenter", "DetBorrowAug", "DetHorizontalFlipAug", "DetRandomCropAug",
    "DetRandomPadAug", "DetRandomSelectAug",
]  # fmt: skip




class DetAugmenter:
    """The base class; subclasses give `__call__(src, label) -> (src, label)`."""

    def __init__(self, **kwargs: Any) -> None:
        self._kwargs = {k: plain(v) for k, v in kwargs.items()}

    def dumps(self) -> Any:
        """Name and arguments as JSON text."""
        return json.dumps([type(self).__name__.lower(), self._kwargs])

    def __call__(self, src: NDArray, label: Array) -> tuple[NDArray, Array]:
        """Image and label augmented."""
        raise NotImplementedError("Must override implementation.")


class DetBorrowAug(DetAugmenter):
    """An augmenter of images that leaves the boxes where they are."""

    def __init__(self, augmenter: Augmenter) -> None:
        if not isinstance(augmenter, Augmenter):
            raise TypeError("Borrowing from invalid Augmenter")
        super().__init__(augmenter=augmenter.dumps())
        self.augmenter = augmenter

    def dumps(self) -> Any:
        """Name and the augmenter's own."""
        return [type(self).__name__.lower(), self.augmenter.dumps()]

    def __call__(self, src: NDArray, label: Array) -> tuple[NDArray, Array]:
        """The image augmented, the label as it is."""
        return self.augmenter(src), label


class DetRandomSelectAug(DetAugmenter):
    """One of several augmenters by chance, or none with probability `skip_prob`."""

    def __init__(self, aug_list: Any, skip_prob: float = 0) -> None:
        super().__init__(skip_prob=skip_prob)
        self.aug_list: list[DetAugmenter] = list(aug_list) if isinstance(aug_list, (list, tuple)) else [aug_list]
        if not all(isinstance(a, DetAugmenter) for a in self.aug_list):
            raise ValueError("Allow DetAugmenter in list only")
        self.skip_prob = skip_prob if self.aug_list else 1

    def dumps(self) -> Any:
        """Name and all augmenters."""
        return [type(self).__name__.lower(), [a.dumps() for a in self.aug_list]]

    def __call__(self, src: NDArray, label: Array) -> tuple[NDArray, Array]:
        """Augmented by one of them, or as it is."""
        if random.random() < self.skip_prob:
            return src, label
        random.shuffle(self.aug_list)
        return self.aug_list[0](src, label)


class DetHorizontalFlipAug(DetAugmenter):
    """Mirrored with probability p."""

    def __init__(self, p: float) -> None:
        super().__init__(p=p)
        self.p = p

    def __call__(self, src: NDArray, label: Array) -> tuple[NDArray, Array]:
        """Mirrored or not."""
        if random.random() < self.p:
            src = wrap(np.ascontiguousarray(src._data[:, ::-1]))
            label[:, [1, 3]] = 1.0 - label[:, [3, 1]]
        return src, label


def _pair(value: Any, name: str) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)):
        if not isinstance(value, (int, float, np.number)):
            raise AssertionError(f"{name} must be a number or two, not {value!r}")
        return float(value), float(value)
    return value[0], value[1]


def _areas(boxes: Array) -> Array:
    found: Array = np.maximum(0, boxes[:, 3] - boxes[:, 1]) * np.maximum(0, boxes[:, 2] - boxes[:, 0])
    return found


class DetRandomCropAug(DetAugmenter):
    """A part of random area and ratio that covers every box it meets by more than `min_object_covered`.

    aspect_ratio_range: of width to height. area_range: as a part of the image. min_eject_coverage: boxes of which no more
    than this is left are dropped. After `max_attempts` the image stays as it is.
    """

    def __init__(self, min_object_covered: float = 0.1, aspect_ratio_range: Any = (0.75, 1.33), area_range: Any = (0.05, 1.0),
                 min_eject_coverage: float = 0.3, max_attempts: int = 50) -> None:  # fmt: skip
        self.aspect_ratio_range, self.area_range = _pair(aspect_ratio_range, "aspect_ratio_range"), _pair(area_range, "area_range")
        super().__init__(min_object_covered=min_object_covered, aspect_ratio_range=self.aspect_ratio_range, area_range=self.area_range,
                         min_eject_coverage=min_eject_coverage, max_attempts=max_attempts)  # fmt: skip
        self.min_object_covered, self.min_eject_coverage, self.max_attempts = min_object_covered, min_eject_coverage, max_attempts
        low, high = self.area_range
        self.enabled = _valid("DetRandomCropAug", high > 0 and low <= high, self.area_range, self.aspect_ratio_range)

    def __call__(self, src: NDArray, label: Array) -> tuple[NDArray, Array]:
        """The part, and the boxes in it."""
        found = self._propose(label, src.shape[0], src.shape[1])
        if found is None:
            return src, label
        x, y, w, h, boxes = found
        return fixed_crop(src, x, y, w, h, None), boxes

    def _propose(self, label: Array, height: int, width: int) -> tuple[int, int, int, int, Array] | None:
        if not self.enabled or height <= 0 or width <= 0:
            return None
        least, most = (part * height * width for part in self.area_range)
        for ratio, h, highest in _sizes(self.max_attempts, self.aspect_ratio_range, least, most):
            if round(highest * ratio) > width:
                highest = int((width + 0.4999999) / ratio)
            highest = min(highest, height)
            h = random.randint(h, highest) if h < highest else highest
            w = round(h * ratio)
            if w * h < least:
                h += 1
            elif w * h > most:
                h -= 1
            w = round(h * ratio)
            if not (least <= w * h <= most and 0 <= w <= width and 0 <= h <= height):
                continue
            y, x = random.randint(0, max(0, height - h)), random.randint(0, max(0, width - w))
            if self._covers(label, (x / width, y / height, (x + w) / width, (y + h) / height), width, height, w * h):
                boxes = self._boxes_in(label, (x, y, w, h), height, width)
                if boxes is not None:
                    return x, y, w, h, boxes
        return None

    def _covers(self, label: Array, part: tuple[float, float, float, float], width: int, height: int, size: int) -> bool:
        """Whether the part covers enough of each box that it meets, and meets one."""
        if size < 2:
            return False
        boxes = label[:, 1:5]
        areas = _areas(boxes)
        large = areas * width * height > 2
        if not large.any():
            return False
        met = np.concatenate([np.maximum(boxes[large, :2], part[:2]), np.minimum(boxes[large, 2:], part[2:])], 1)
        covered = _areas(met) / areas[large]
        covered = covered[covered > 0]
        return bool(covered.size and covered.min() > self.min_object_covered)

    def _boxes_in(self, label: Array, part: tuple[int, int, int, int], height: int, width: int) -> Array | None:
        """The boxes in the part's own coordinates, without those of which little is left; None when none is left."""
        x, y, w, h = part[0] / width, part[1] / height, part[2] / width, part[3] / height
        out = label.copy()
        out[:, [1, 3]] = (out[:, [1, 3]] - x) / w
        out[:, [2, 4]] = (out[:, [2, 4]] - y) / h
        out[:, 1:5] = np.clip(out[:, 1:5], 0, 1)
        with np.errstate(all="ignore"):
            left = _areas(out[:, 1:]) * w * h / _areas(label[:, 1:])
        kept = (out[:, 3] > out[:, 1]) & (out[:, 4] > out[:, 2]) & (left > self.min_eject_coverage)
        return out[kept] if kept.any() else None


def _sizes(attempts: int, ratios: tuple[float, float], least: float, most: float) -> Iterator[tuple[float, int, int]]:
    """(ratio of width to height, heights of the least and of the largest area), drawn anew for each attempt."""
    for _ in range(attempts):
        ratio = random.uniform(*ratios)
        if ratio > 0:
            yield ratio, round(sqrt(least / ratio)), round(sqrt(most / ratio))


def _valid(name: str, area: bool, area_range: Any, ratio_range: Any) -> bool:
    """Whether the ranges make sense; a warning, and no augmentation, when they do not."""
    if not area:
        warnings.warn(f"Skip {name} due to invalid area_range: {area_range}", stacklevel=3)
        return False
    if ratio_range[0] > ratio_range[1] or ratio_range[0] <= 0:
        warnings.warn(f"Skip {name} due to invalid aspect_ratio_range: {ratio_range}", stacklevel=3)
        return False
    return True


class DetRandomPadAug(DetAugmenter):
    """The image somewhere on a larger area of one colour.

    aspect_ratio_range: of width to height. area_range: as multiples of the image's area. pad_val: the colour.
    """

    def __init__(self, aspect_ratio_range: Any = (0.75, 1.33), area_range: Any = (1.0, 3.0), max_attempts: int = 50,
                 pad_val: Any = (128, 128, 128)) -> None:  # fmt: skip
        self.pad_val: Sequence[float] = pad_val if isinstance(pad_val, (list, tuple)) else (pad_val,)
        self.aspect_ratio_range, self.area_range = _pair(aspect_ratio_range, "aspect_ratio_range"), _pair(area_range, "area_range")
        super().__init__(aspect_ratio_range=self.aspect_ratio_range, area_range=self.area_range, max_attempts=max_attempts, pad_val=pad_val)
        self.max_attempts = max_attempts
        low, high = self.area_range
        self.enabled = _valid("DetRandomPadAug", high > 1.0 and low <= high, self.area_range, self.aspect_ratio_range)

    def __call__(self, src: NDArray, label: Array) -> tuple[NDArray, Array]:
        """The larger image, and the boxes in it."""
        height, width = src.shape[:2]
        found = self._propose(height, width)
        if found is None:
            return src, label
        x, y, w, h = found
        boxes = label.copy()
        boxes[:, [1, 3]] = (boxes[:, [1, 3]] * width + x) / w
        boxes[:, [2, 4]] = (boxes[:, [2, 4]] * height + y) / h
        return copyMakeBorder(src, y, h - y - height, x, w - x - width, 0, values=self.pad_val), boxes

    def _propose(self, height: int, width: int) -> tuple[int, int, int, int] | None:
        if not self.enabled or height <= 0 or width <= 0:
            return None
        least, most = (part * height * width for part in self.area_range)
        for ratio, h, highest in _sizes(self.max_attempts, self.aspect_ratio_range, least, most):
            if round(h * ratio) < width:
                h = int((width + 0.499999) / ratio)
            h = max(h, height)
            h = random.randint(h, highest) if h < highest else highest
            w = round(h * ratio)
            if h - height < 2 or w - width < 2:
                continue  # a rim this narrow is no help
            y, x = random.randint(0, max(0, h - height)), random.randint(0, max(0, w - width))
            return x, y, w, h
        return None


def CreateMultiRandCropAugmenter(min_object_covered: Any = 0.1, aspect_ratio_range: Any = (0.75, 1.33), area_range: Any = (0.05, 1.0),
                                 min_eject_coverage: Any = 0.3, max_attempts: Any = 50, skip_prob: float = 0) -> DetRandomSelectAug:  # fmt: skip
    """One of several DetRandomCropAug by chance; each argument is a value for all, or a list with one for each.

    >>> len(CreateMultiRandCropAugmenter([0.1, 0.5, 0.9]).aug_list)
    3
    """
    given = [v if isinstance(v, list) else [v] for v in (min_object_covered, aspect_ratio_range, area_range, min_eject_coverage, max_attempts)]
    count = max(map(len, given))
    if any(len(v) not in (1, count) for v in given):
        raise AssertionError(f"lists of {', '.join(str(len(v)) for v in given)} values; each needs 1 or {count}")
    return DetRandomSelectAug([DetRandomCropAug(*values) for values in zip(*(v * count if len(v) == 1 else v for v in given))], skip_prob)


def CreateDetAugmenter(data_shape: tuple[int, int, int], resize: int = 0, rand_crop: float = 0, rand_pad: float = 0, rand_gray: float = 0,
                       rand_mirror: bool = False, mean: Any = None, std: Any = None, brightness: float = 0, contrast: float = 0,
                       saturation: float = 0, pca_noise: float = 0, hue: float = 0, inter_method: int = 2, min_object_covered: Any = 0.1,
                       aspect_ratio_range: Any = (0.75, 1.33), area_range: Any = (0.05, 3.0), min_eject_coverage: Any = 0.3,
                       max_attempts: Any = 50, pad_val: Any = (127, 127, 127)) -> list[DetAugmenter]:  # fmt: skip
    """The usual augmenters for detection on images of this shape (channels, height, width).

    >>> [type(a).__name__ for a in CreateDetAugmenter((3, 30, 30), rand_mirror=True)]
    ['DetHorizontalFlipAug', 'DetBorrowAug', 'DetBorrowAug']

    rand_crop, rand_pad, rand_gray: probabilities. The other arguments are those of the augmenters and of CreateAugmenter.
    """
    made: list[DetAugmenter] = []

    def borrow(augmenter: Augmenter) -> None:
        made.append(DetBorrowAug(augmenter))

    if resize > 0:
        borrow(ResizeAug(resize, inter_method))
    if rand_crop > 0:
        made.append(CreateMultiRandCropAugmenter(min_object_covered, aspect_ratio_range, area_range, min_eject_coverage, max_attempts,
                                                 skip_prob=1 - rand_crop))  # fmt: skip
    if rand_mirror > 0:
        made.append(DetHorizontalFlipAug(0.5))
    if rand_pad > 0:
        most = max(a[1] for a in area_range) if isinstance(area_range, list) else _pair(area_range, "area_range")[1]
        made.append(DetRandomSelectAug([DetRandomPadAug(aspect_ratio_range, (1.0, most), max_attempts, pad_val)], 1 - rand_pad))
    borrow(ForceResizeAug((data_shape[2], data_shape[1]), inter_method))
    borrow(CastAug())
    if brightness or contrast or saturation:
        borrow(ColorJitterAug(brightness, contrast, saturation))
    if hue:
        borrow(HueJitterAug(hue))
    if pca_noise > 0:
        borrow(LightingAug(pca_noise, np.array([55.46, 4.794, 1.148]), np.array(
            [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])))  # fmt: skip
    if rand_gray > 0:
        borrow(RandomGrayAug(rand_gray))
    mean = statistic(mean, [123.68, 116.28, 103.53], "mean")
    std = statistic(std, [58.395, 57.12, 57.375], "std")
    if mean is not None or std is not None:
        borrow(ColorNormalizeAug(mean, std))
    return made
