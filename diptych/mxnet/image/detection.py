"""`mx.image.det`: augmenters and iterator for object detection."""

from __future__ import annotations

from diptych.mxnet.image.det_augment import (
    CreateDetAugmenter,
    CreateMultiRandCropAugmenter,
    DetAugmenter,
    DetBorrowAug,
    DetHorizontalFlipAug,
    DetRandomCropAug,
    DetRandomPadAug,
    DetRandomSelectAug,
)
from diptych.mxnet.image.det_iter import ImageDetIter

__all__ = [
    "CreateDetAugmenter", "CreateMultiRandCropAugmenter", "DetAugmenter", "DetBorrowAug", "DetHorizontalFlipAug", "DetRandomCropAug",
    "DetRandomPadAug", "DetRandomSelectAug", "ImageDetIter",
]  # fmt: skip
