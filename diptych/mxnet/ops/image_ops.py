"""Resizing of images, which runs in Python on arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.mxnet.base import MXNetError
from diptych.mxnet.ops.live import host

if TYPE_CHECKING:
    from diptych.frontends.mxnet.attributes import Attributes
    from diptych.ir import Array


def _size(a: Attributes, shape: tuple[int, ...]) -> tuple[int, int]:
    """The new height and width of images of this shape."""
    size = a.shape("size", ())
    if len(shape) not in (3, 4) or len(size) not in (1, 2) or any(s <= 0 for s in size):
        raise MXNetError(f"image.resize: size={size} of an array of shape {shape}; give one or two positive numbers (width, height), and "
                         "images as (height, width, channels) or several of them")  # fmt: skip
    if len(size) == 2:
        return size[1], size[0]
    (n,), (height, width) = size, shape[-3:-1]
    if not a.boolean("keep_ratio", False):
        return n, n
    return (n * height // width, n) if width < height else (n, n * width // height)


def _resized_shape(a: Attributes, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(*shape[:-3], *_size(a, shape), shape[-1])]


@host("_image_resize", shape=_resized_shape)
def resize(a: Attributes, x: Array) -> Array:
    from diptych.mxnet.image.codec import resized

    height, width = _size(a, x.shape)
    interp = a.integer("interp", 1)
    if x.ndim == 3:
        return np.asarray(resized(x, height, width, interp))
    return np.stack([resized(one, height, width, interp) for one in x])
