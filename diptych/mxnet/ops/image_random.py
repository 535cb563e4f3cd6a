"""Random changes of images: mirrored, brighter, other colours. They run in Python on arrays, and draw from `mx.random`.

The formulas are those of MXNet's image operators, so that an old script trains on the same distribution: hues turn in the
HLS cylinder, bytes are cut off (not rounded) after each change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.base import MXNetError
from diptych.mxnet.ops.live import host
from diptych.mxnet.random_state import generator

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.frontends.mxnet.attributes import Attributes
    from diptych.ir import Array

__all__ = ["with_brightness", "with_contrast", "with_hue", "with_saturation"]

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def _image(a: Attributes, x: Array, colours: tuple[int, ...] = (1, 3)) -> Array:
    if x.ndim != 3 or x.shape[2] not in colours:
        wanted = " or ".join(map(str, colours))
        raise MXNetError(f"{a.operator}: takes an image of (height, width, {wanted}), not an array of shape {x.shape}")
    return x


def _like(x: Array, values: Array) -> Array:
    """Values in the type of the image; bytes are cut off."""
    return (np.clip(values, 0, 255) if x.dtype == np.uint8 else values).astype(x.dtype)


def with_brightness(x: Array, factor: float) -> Array:
    """All values times the factor."""
    return _like(x, x.astype(np.float32) * np.float32(factor))


def with_contrast(x: Array, factor: float) -> Array:
    """Away from the mean grey by the factor."""
    wide = x.astype(np.float32)
    grey = (wide @ _GREY).mean(dtype=np.float64) if x.shape[2] == 3 else wide.mean(dtype=np.float64)
    return _like(x, wide * np.float32(factor) + np.float32((1 - factor) * grey))


def with_saturation(x: Array, factor: float) -> Array:
    """Each pixel away from its grey by the factor; an image without colours stays.

    The grey is that of libmxnet, whose loop keeps the last term of the sum alone: 0.114 times blue.
    """
    if x.shape[2] == 1:
        return x.copy()
    wide = x.astype(np.float32)
    return _like(x, wide * np.float32(factor) + wide[..., 2:] * (_GREY[2] * np.float32(1 - factor)))


def with_hue(x: Array, turns: float) -> Array:
    """Hues turned by so many turns of the circle of colours; an image without colours stays."""
    if x.shape[2] == 1:
        return x.copy()
    rgb = x.astype(np.float32) / 255
    most, least = rgb.max(-1), rgb.min(-1)
    light, width = (most + least) / 2, most - least
    safe = np.where(width > np.finfo(np.float32).eps, width, 1)
    saturation = np.where(width > np.finfo(np.float32).eps, width / np.where(light < 0.5, most + least, 2 - most - least), 0)
    r, g, b = (rgb[..., i] for i in range(3))
    hue = np.where(most == r, (g - b) / safe, np.where(most == g, (b - r) / safe + 2, (r - g) / safe + 4)) / 6 + turns
    reach = saturation * np.minimum(light, 1 - light)

    def channel(n: int) -> Array:
        k = (n + hue * 12) % 12
        return np.asarray(light - reach * np.maximum(-1, np.minimum(np.minimum(k - 3, 9 - k), 1)))

    return _like(x, np.stack([channel(0), channel(8), channel(4)], -1) * 255)


def _between(a: Attributes) -> float:
    low, high = a.real("min_factor"), a.real("max_factor")
    if low < 0 or low > high:
        raise MXNetError(f"{a.operator}: min_factor={low} and max_factor={high} must be 0 <= min_factor <= max_factor")
    return float(generator().uniform(low, high))


def _factor(change: Callable[[Array, float], Array]) -> Callable[[Attributes, Array], Array]:
    return lambda a, x: change(_image(a, x), _between(a))


def _same(a: Attributes, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [shape]


host("_image_random_brightness", shape=_same)(_factor(with_brightness))
host("_image_random_contrast", shape=_same)(_factor(with_contrast))
host("_image_random_saturation", shape=_same)(_factor(with_saturation))
host("_image_random_hue", shape=_same)(_factor(with_hue))


@host("_image_random_color_jitter", shape=_same)
def _color_jitter(a: Attributes, x: Array) -> Array:
    _image(a, x)
    changes: list[tuple[Any, float, float]] = [(with_brightness, a.real("brightness"), 1), (with_contrast, a.real("contrast"), 1),
               (with_saturation, a.real("saturation"), 1), (with_hue, a.real("hue"), 0)]  # fmt: skip
    for i in generator().permutation(len(changes)):
        change, strength, middle = changes[i]
        if strength > 0:
            x = change(x, middle + float(generator().uniform(-strength, strength)))
    return x.copy()


@host("_image_random_lighting", shape=_same)
def _lighting(a: Attributes, x: Array) -> Array:
    from diptych.frontends.mxnet.convert_image import PRINCIPAL

    _image(a, x)
    if x.shape[2] == 1:
        return x.copy()
    alpha = generator().normal(0.0, a.real("alpha_std", 0.05), 3)
    return _like(x, x.astype(np.float32) + (PRINCIPAL @ alpha).astype(np.float32))


@host("_image_random_flip_left_right", "_image_random_flip_top_bottom", shape=_same)
def _flip(a: Attributes, x: Array) -> Array:
    if x.ndim != 3:
        raise MXNetError(f"{a.operator}: takes an image of (height, width, channels), not an array of shape {x.shape}")
    if generator().random() >= 0.5:
        return x.copy()
    return x[:, ::-1] if a.operator.endswith("right") else x[::-1]
