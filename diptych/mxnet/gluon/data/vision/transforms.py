"""Transforms of images for data sets: blocks on arrays of height x width x channels (or several of them)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import image
from diptych.mxnet.base import MXNetError, dtype_name
from diptych.mxnet.gluon.block import Block
from diptych.mxnet.gluon.nn import Sequential
from diptych.mxnet.imperative import wrap

if TYPE_CHECKING:
    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = [
    "Cast", "CenterCrop", "Compose", "CropResize", "Normalize", "RandomApply", "RandomBrightness", "RandomColorJitter",
    "RandomContrast", "RandomFlipLeftRight", "RandomFlipTopBottom", "RandomHue", "RandomLighting", "RandomResizedCrop",
    "RandomRotation", "RandomSaturation", "Resize", "Rotate", "ToTensor",
]  # fmt: skip

_EIGENVALUES = np.array([55.46, 4.794, 1.148])
_EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


class Compose(Sequential):
    """Transforms one after another.

    >>> from diptych.mxnet import nd
    >>> Compose([ToTensor(), Normalize(0.5, 0.5)])(nd.zeros((2, 2, 3), dtype="uint8")).shape
    (3, 2, 2)
    """

    def __init__(self, transforms: list[Any]) -> None:
        super().__init__()
        self.add(*transforms)


class _Transform(Block):
    """A transform of the values of one image, or of each of several."""

    def forward(self, x: NDArray) -> NDArray:
        """The image transformed."""
        array = x._data
        if array.ndim not in (3, 4):
            raise MXNetError(f"{type(self).__name__} takes an image (3 axes) or several (4), not an array of shape {x.shape}")
        if array.ndim == 4 and not self._whole:
            return wrap(np.stack([self._apply(a) for a in array]))
        return wrap(np.ascontiguousarray(self._apply(array)))

    _whole = False  # whether several images are transformed at once

    def _apply(self, x: Any) -> Any:
        raise NotImplementedError


class Cast(Block):
    """Another element type."""

    def __init__(self, dtype: Any = "float32") -> None:
        super().__init__()
        self._dtype = dtype_name(dtype)

    def forward(self, x: NDArray) -> NDArray:
        """The image cast."""
        return x.astype(self._dtype)


class ToTensor(_Transform):
    """Bytes (height, width, channels) to float32 (channels, height, width) between 0 and 1."""

    _whole = True

    def _apply(self, x: Any) -> Any:
        x = x.astype(np.float32) / np.float32(255)
        return np.moveaxis(x, -1, -3)


class Normalize(_Transform):
    """(x - mean) / std for each channel of (channels, height, width)."""

    _whole = True

    def __init__(self, mean: Any = 0.0, std: Any = 1.0) -> None:
        super().__init__()
        self._mean, self._std = mean, std

    def _apply(self, x: Any) -> Any:
        channels = x.shape[-3]
        if channels not in (1, 3):
            raise MXNetError(f"Normalize takes images of 1 or 3 channels in front, not an array of shape {x.shape}")
        mean, std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (self._mean, self._std))
        for v in (mean, std):
            if v.shape[0] not in (1, channels):
                raise MXNetError(f"Normalize: {v.shape[0]} numbers given for {channels} channels")
        return (x - mean) / std


class Resize(_Transform):
    """Another size: (width, height), or one number for both (with keep_ratio for the shorter side)."""

    def __init__(self, size: Any, keep_ratio: bool = False, interpolation: int = 1) -> None:
        super().__init__()
        self._size, self._keep, self._interpolation = size, keep_ratio, interpolation

    def _apply(self, x: Any) -> Any:
        size = (self._size,) if isinstance(self._size, int) else tuple(self._size)
        if len(size) > 2 or any(s <= 0 for s in size):
            raise MXNetError(f"Resize: size {self._size} must be one or two positive numbers")
        if len(size) == 2:
            w, h = size
        elif self._keep:
            old_h, old_w = x.shape[:2]
            w, h = (size[0], size[0] * old_h // old_w) if old_w < old_h else (size[0] * old_w // old_h, size[0])
        else:
            w = h = size[0]
        return image.imresize(wrap(np.ascontiguousarray(x)), w, h, self._interpolation)._data


class CropResize(_Transform):
    """The part at (x, y) of this width and height, resized to `size` if given."""

    def __init__(self, x: int, y: int, width: int, height: int, size: Any = None, interpolation: int | None = None) -> None:
        super().__init__()
        self._at = x, y, width, height
        self._resize = None if size is None else Resize(size, False, 1 if interpolation is None else interpolation)

    def _apply(self, a: Any) -> Any:
        x, y, w, h = self._at
        if w <= 0 or h <= 0 or x < 0 or y < 0 or x + w > a.shape[1] or y + h > a.shape[0]:
            raise MXNetError(f"CropResize: {w} x {h} at ({x}, {y}) is not inside of an image of {a.shape[1]} x {a.shape[0]}")
        part = a[y : y + h, x : x + w]
        return part if self._resize is None else self._resize._apply(part)


class CenterCrop(Block):
    """The middle part of this (width, height), enlarged where the image is smaller."""

    def __init__(self, size: Any, interpolation: int = 1) -> None:
        super().__init__()
        self._args = ((size, size) if isinstance(size, int) else tuple(size)), interpolation

    def forward(self, x: NDArray) -> NDArray:
        """The part."""
        return image.center_crop(x, *self._args)[0]


class RandomResizedCrop(Block):
    """A part of random area and ratio, resized to (width, height)."""

    def __init__(self, size: Any, scale: Any = (0.08, 1.0), ratio: Any = (3.0 / 4.0, 4.0 / 3.0), interpolation: int = 1) -> None:
        super().__init__()
        self._args = ((size, size) if isinstance(size, int) else tuple(size)), scale, ratio, interpolation

    def forward(self, x: NDArray) -> NDArray:
        """The part."""
        return image.random_size_crop(x, *self._args)[0]


class RandomFlipLeftRight(_Transform):
    """Mirrored with probability one half."""

    def _apply(self, x: Any) -> Any:
        return x[:, ::-1] if random.random() < 0.5 else x


class RandomFlipTopBottom(_Transform):
    """Upside down with probability one half."""

    def _apply(self, x: Any) -> Any:
        return x[::-1] if random.random() < 0.5 else x


class _Colour(_Transform):
    """A change of colours: computed in float32, rounded and clipped back for bytes."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        if strength < 0:
            raise MXNetError(f"{type(self).__name__}: {strength} must not be negative")
        self._strength = strength

    def _augment(self) -> Any:
        raise NotImplementedError

    def _apply(self, x: Any) -> Any:
        changed = self._augment()(wrap(x.astype(np.float32)))._data
        return np.clip(np.rint(changed), 0, 255).astype(np.uint8) if x.dtype == np.uint8 else changed.astype(x.dtype)


class RandomBrightness(_Colour):
    """Brighter or darker by a factor within 1 - b and 1 + b."""

    def _augment(self) -> Any:
        return image.BrightnessJitterAug(self._strength)


class RandomContrast(_Colour):
    """More or less contrast."""

    def _augment(self) -> Any:
        return image.ContrastJitterAug(self._strength)


class RandomSaturation(_Colour):
    """More or less colour."""

    def _augment(self) -> Any:
        return image.SaturationJitterAug(self._strength)


class RandomHue(_Colour):
    """Colours turned."""

    def _augment(self) -> Any:
        return image.HueJitterAug(self._strength)


class RandomLighting(_Colour):
    """Noise along the main colours of ImageNet."""

    def _augment(self) -> Any:
        return image.LightingAug(self._strength, _EIGENVALUES, _EIGENVECTORS)


class RandomColorJitter(_Transform):
    """Brightness, contrast, saturation and hue in random order."""

    def __init__(self, brightness: float = 0, contrast: float = 0, saturation: float = 0, hue: float = 0) -> None:
        super().__init__()
        kinds = ((RandomBrightness, brightness), (RandomContrast, contrast), (RandomSaturation, saturation), (RandomHue, hue))
        self._parts = [kind(strength) for kind, strength in kinds if strength > 0]

    def _apply(self, x: Any) -> Any:
        for part in random.sample(self._parts, len(self._parts)):
            x = part._apply(x)
        return x


class RandomApply(Sequential):
    """Transforms that are applied with probability p, all or none."""

    def __init__(self, transforms: Any, p: float = 0.5) -> None:
        super().__init__()
        self.transforms, self.p = transforms, p

    def forward(self, x: NDArray) -> NDArray:
        """The image, transformed or not."""
        return self.transforms(x) if random.random() < self.p else x


class Rotate(Block):
    """Turned by degrees, images being (channels, height, width) in float32."""

    def __init__(self, rotation_degrees: float, zoom_in: bool = False, zoom_out: bool = False) -> None:
        super().__init__()
        self._args = rotation_degrees, zoom_in, zoom_out

    def forward(self, x: NDArray) -> NDArray:
        """The image turned."""
        if x.dtype is not np.float32:
            raise TypeError("rotations take float32 images: put ToTensor before")
        return image.imrotate(x, *self._args)


class RandomRotation(Block):
    """Turned by random degrees within limits, with a probability."""

    def __init__(self, angle_limits: Any, zoom_in: bool = False, zoom_out: bool = False, rotate_with_proba: float = 1.0) -> None:
        super().__init__()
        if rotate_with_proba < 0 or rotate_with_proba > 1:
            raise ValueError("rotate_with_proba lies between 0 and 1")
        self._args, self._probability = (tuple(angle_limits), zoom_in, zoom_out), rotate_with_proba

    def forward(self, x: NDArray) -> NDArray:
        """The image, turned or not."""
        if np.random.random() > self._probability:
            return x
        if x.dtype is not np.float32:
            raise TypeError("rotations take float32 images: put ToTensor before")
        return image.random_rotate(x, *self._args)
