"""Transforms of images for data sets: blocks on arrays of height x width x channels (or several of them)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import image
from diptych.mxnet.base import MXNetError, dtype_name
from diptych.mxnet.gluon.block import Block
from diptych.mxnet.gluon.hybrid import HybridBlock
from diptych.mxnet.gluon.nn import Sequential
from diptych.mxnet.util import is_np_array

if TYPE_CHECKING:
    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = [
    "Cast", "CenterCrop", "Compose", "CropResize", "Normalize", "RandomApply", "RandomBrightness", "RandomColorJitter",
    "RandomContrast", "RandomFlipLeftRight", "RandomFlipTopBottom", "RandomHue", "RandomLighting", "RandomResizedCrop",
    "RandomRotation", "RandomSaturation", "Resize", "Rotate", "ToTensor",
]  # fmt: skip

class Compose(Sequential):
    """Transforms one after another.

    >>> from diptych.mxnet import nd
    >>> Compose([ToTensor(), Normalize(0.5, 0.5)])(nd.zeros((2, 2, 3), dtype="uint8")).shape
    (3, 2, 2)
    """

    def __init__(self, transforms: list[Any]) -> None:
        super().__init__()
        self.add(*transforms)


class _Operator(HybridBlock):
    """A transform that is one operator of `mx.nd.image`; it can be hybridized and exported."""

    _operator = ""

    def __init__(self, *args: Any) -> None:
        super().__init__()
        self._args = args

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The image transformed."""
        return _images(F, self._operator)(x, *self._args)


def _images(F: Any, name: str) -> Any:
    return getattr((F.npx if is_np_array() else F).image, name)


class Cast(HybridBlock):
    """Another element type."""

    def __init__(self, dtype: Any = "float32") -> None:
        super().__init__()
        self._dtype = dtype_name(dtype)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The image cast."""
        return (F.npx if is_np_array() else F).cast(x, dtype=self._dtype)


class ToTensor(_Operator):
    """Bytes (height, width, channels) to float32 (channels, height, width) between 0 and 1."""

    _operator = "to_tensor"

    def __init__(self) -> None:
        super().__init__()


class Normalize(_Operator):
    """(x - mean) / std for each channel of (channels, height, width)."""

    _operator = "normalize"

    def __init__(self, mean: Any = 0.0, std: Any = 1.0) -> None:
        super().__init__(mean, std)


class Resize(_Operator):
    """Another size: (width, height), or one number for both (with keep_ratio for the shorter side)."""

    _operator = "resize"

    def __init__(self, size: Any, keep_ratio: bool = False, interpolation: int = 1) -> None:
        super().__init__(size, keep_ratio, interpolation)


class CropResize(HybridBlock):
    """The part at (x, y) of this width and height, resized to `size` if given."""

    def __init__(self, x: int, y: int, width: int, height: int, size: Any = None, interpolation: int | None = None) -> None:
        super().__init__()
        self._at = x, y, width, height
        self._size, self._interpolation = size, 1 if interpolation is None else interpolation

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The part."""
        part = _images(F, "crop")(x, *self._at)
        return _images(F, "resize")(part, self._size, False, self._interpolation) if self._size else part


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


class RandomFlipLeftRight(_Operator):
    """Mirrored with probability one half."""

    _operator = "random_flip_left_right"

    def __init__(self) -> None:
        super().__init__()


class RandomFlipTopBottom(_Operator):
    """Upside down with probability one half."""

    _operator = "random_flip_top_bottom"

    def __init__(self) -> None:
        super().__init__()


class _Factor(_Operator):
    """A change by a random factor within 1 - strength (0 at least) and 1 + strength."""

    def __init__(self, strength: float) -> None:
        if strength < 0:
            raise MXNetError(f"{type(self).__name__}: {strength} must not be negative")
        super().__init__(max(0.0, 1.0 - strength), 1.0 + strength)


class RandomBrightness(_Factor):
    """Brighter or darker by a factor within 1 - brightness and 1 + brightness."""

    _operator = "random_brightness"

    def __init__(self, brightness: float) -> None:
        super().__init__(brightness)


class RandomContrast(_Factor):
    """More or less contrast."""

    _operator = "random_contrast"

    def __init__(self, contrast: float) -> None:
        super().__init__(contrast)


class RandomSaturation(_Factor):
    """More or less colour."""

    _operator = "random_saturation"

    def __init__(self, saturation: float) -> None:
        super().__init__(saturation)


class RandomHue(_Factor):
    """Colours turned, by such a part of their circle."""

    _operator = "random_hue"

    def __init__(self, hue: float) -> None:
        super().__init__(hue)


class RandomLighting(_Operator):
    """Noise along the main colours of ImageNet's pixels."""

    _operator = "random_lighting"

    def __init__(self, alpha: float) -> None:
        super().__init__(alpha)


class RandomColorJitter(_Operator):
    """Brightness, contrast, saturation and hue in random order."""

    _operator = "random_color_jitter"

    def __init__(self, brightness: float = 0, contrast: float = 0, saturation: float = 0, hue: float = 0) -> None:
        super().__init__(brightness, contrast, saturation, hue)


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
