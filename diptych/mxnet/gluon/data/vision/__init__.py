"""Image data sets from local files, and transforms of images."""

from __future__ import annotations

from diptych.mxnet.gluon.data.vision import transforms
from diptych.mxnet.gluon.data.vision.datasets import (
    CIFAR10,
    CIFAR100,
    MNIST,
    FashionMNIST,
    ImageFolderDataset,
    ImageRecordDataset,
)  # fmt: skip

__all__ = ["CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "ImageFolderDataset", "ImageRecordDataset", "transforms"]
