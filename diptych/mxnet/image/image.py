"""Functions on images: NDArrays of height x width x channels."""

from __future__ import annotations

import math
import random
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import ndarray as nd
from diptych.mxnet.base import MXNetError
from diptych.mxnet.image import codec
from diptych.mxnet.imperative import store, wrap
from diptych.mxnet.ndarray.ndarray import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["center_crop", "color_normalize", "copyMakeBorder", "fixed_crop", "imdecode", "imread", "imresize", "imrotate",
           "interpolation", "random_crop", "random_rotate", "random_size_crop", "resize_short", "scale_down"]  # fmt: skip


def _given(array: Any, out: NDArray | None) -> NDArray:
    if out is None:
        return wrap(array)
    store(out, array)
    return out


def imdecode(buf: Any, flag: int = 1, to_rgb: Any = True, out: NDArray | None = None) -> NDArray:
    """The image in bytes (or in a uint8 array of them); flag 0: grey. to_rgb: channels R, G, B rather than B, G, R."""
    if isinstance(buf, NDArray):
        buf = buf.asnumpy()
    if not isinstance(buf, (bytes, bytearray, np.ndarray)):
        raise ValueError("imdecode takes bytes, a bytearray or an array of uint8; a str is "
                         "encoded before")  # fmt: skip
    return _given(codec.decode(bytes(buf), flag, bool(to_rgb)), out)


def imread(filename: str, flag: int = 1, to_rgb: Any = True, out: NDArray | None = None) -> NDArray:
    """The image in a file."""
    try:
        raw = Path(filename).read_bytes()
    except OSError as error:
        raise MXNetError(f"imread: {filename} cannot be read: {error}") from error
    return imdecode(raw, flag, to_rgb, out)


def imresize(src: NDArray, w: int, h: int, interp: int = 1, out: NDArray | None = None) -> NDArray:
    """An image of another size; interp: 0 nearest, 1 linear, 2 cubic, 3 area, 4 Lanczos."""
    return _given(codec.resized(src._data, int(h), int(w), interpolation(interp, (src.shape[0], src.shape[1], h, w))), out)


def copyMakeBorder(src: NDArray, top: int, bot: int, left: int, right: int, type: int = 0, value: float = 0.0,
                   values: Sequence[float] = (), out: NDArray | None = None) -> NDArray:  # fmt: skip
    """A border around an image; type: 0 constant, 1 the edge repeated, 2 reflected, 3 wrapped, 4 reflected without the edge."""
    modes = {0: "constant", 1: "edge", 2: "symmetric", 3: "wrap", 4: "reflect"}
    if type not in modes:
        raise MXNetError(f"copyMakeBorder: type={type}; use 0 to 4")
    widths = ((top, bot), (left, right), (0, 0))
    if type:
        return _given(np.pad(src._data, widths, modes[type]), out)  # type: ignore[call-overload]
    made = np.empty((src.shape[0] + top + bot, src.shape[1] + left + right, src.shape[2]), src.dtype)
    made[...] = np.asarray(values if len(values) else value).astype(src.dtype)
    made[top : top + src.shape[0], left : left + src.shape[1]] = src._data
    return _given(made, out)


def interpolation(interp: int, sizes: Sequence[float] = ()) -> int:
    """9: cubic to enlarge, area to shrink, else linear; 10: any. sizes: old height and width, new height and width."""
    if interp == 9:
        if not sizes:
            return 2
        oh, ow, nh, nw = sizes
        return 2 if nh > oh and nw > ow else 3 if nh < oh and nw < ow else 1
    if interp == 10:
        return random.randint(0, 4)
    if interp not in (0, 1, 2, 3, 4):
        raise ValueError(f"Unknown interp method {interp}")
    return interp


def scale_down(src_size: tuple[int, int], size: tuple[float, float]) -> tuple[int, int]:
    """A (width, height) made smaller to fit into another, with its ratio kept.

    >>> scale_down((640, 480), (720, 120))
    (640, 106)
    """
    w, h = size
    sw, sh = src_size
    if sh < h:
        w, h = float(w * sh) / h, sh
    if sw < w:
        w, h = sw, float(h * sw) / w
    return int(w), int(h)


def resize_short(src: NDArray, size: int, interp: int = 2) -> NDArray:
    """An image whose shorter side has this length."""
    h, w = src.shape[:2]
    nh, nw = (size * h // w, size) if h > w else (size, size * w // h)
    return imresize(src, nw, nh, interpolation(interp, (h, w, nh, nw)))


def fixed_crop(src: NDArray, x0: int, y0: int, w: int, h: int, size: Any = None, interp: int = 2) -> NDArray:
    """A part of an image, resized to `size` (width, height) if given."""
    out = src[y0 : y0 + h, x0 : x0 + w]
    if size is not None and (w, h) != tuple(size):
        out = imresize(out, size[0], size[1], interpolation(interp, (h, w, size[1], size[0])))
    return out


def random_crop(src: NDArray, size: Any, interp: int = 2) -> tuple[NDArray, tuple[int, int, int, int]]:
    """A part of this (width, height) from anywhere, and where it was: (x, y, width, height)."""
    h, w = src.shape[:2]
    nw, nh = scale_down((w, h), size)
    x0, y0 = random.randint(0, w - nw), random.randint(0, h - nh)
    return fixed_crop(src, x0, y0, nw, nh, size, interp), (x0, y0, nw, nh)


def center_crop(src: NDArray, size: Any, interp: int = 2) -> tuple[NDArray, tuple[int, int, int, int]]:
    """The middle part of this (width, height), and where it was: (x, y, width, height)."""
    h, w = src.shape[:2]
    nw, nh = scale_down((w, h), size)
    x0, y0 = int((w - nw) / 2), int((h - nh) / 2)
    return fixed_crop(src, x0, y0, nw, nh, size, interp), (x0, y0, nw, nh)


def color_normalize(src: NDArray, mean: Any, std: Any = None) -> NDArray:
    """The image less `mean`, divided by `std`, in place."""
    if mean is not None:
        src -= mean
    if std is not None:
        src /= std
    return src


def random_size_crop(src: NDArray, size: Any, area: Any, ratio: tuple[float, float], interp: int = 2,
                     **kwargs: Any) -> tuple[NDArray, tuple[int, int, int, int]]:  # fmt: skip
    """A part of random share of the area and random ratio of the sides, resized; the middle one when ten tries do not fit."""
    h, w = src.shape[:2]
    if "min_area" in kwargs:
        warnings.warn("min_area is the old name of area", DeprecationWarning, stacklevel=2)
        area = kwargs.pop("min_area")
    if kwargs:
        raise AssertionError(f"random_size_crop takes no {', '.join(kwargs)}")
    low, high = (area, 1.0) if isinstance(area, (int, float)) else area
    for _ in range(10):
        wanted = random.uniform(low, high) * h * w
        r = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        nw, nh = round(math.sqrt(wanted * r)), round(math.sqrt(wanted / r))
        if nw <= w and nh <= h:
            x0, y0 = random.randint(0, w - nw), random.randint(0, h - nh)
            return fixed_crop(src, x0, y0, nw, nh, size, interp), (x0, y0, nw, nh)
    return center_crop(src, size, interp)


def imrotate(src: NDArray, rotation_degrees: Any, zoom_in: bool = False, zoom_out: bool = False) -> NDArray:
    """Images (channels x height x width, or several) rotated; zoom_in: no empty corners, zoom_out: nothing is cut off."""
    if zoom_in and zoom_out:
        raise ValueError("choose zoom_in or zoom_out")
    if src.dtype is not np.float32:
        raise TypeError("rotations take float32 images")
    single = src.ndim == 3
    scalar = isinstance(rotation_degrees, (int, float))
    if single and not scalar:
        raise TypeError("one image is turned by one number of degrees")
    if not single and src.ndim != 4:
        raise ValueError("rotations take an image (3 axes) or several (4)")
    batch = src.expand_dims(0) if single else src
    degrees = np.full(len(batch), rotation_degrees) if scalar else np.asarray(rotation_degrees.asnumpy())
    if len(batch) != len(degrees):
        raise ValueError("give as many angles as there are images")
    angle = np.deg2rad(degrees.astype(np.float64)).reshape(-1, 1, 1)
    h, w = batch.shape[2:]
    half_h, half_w = (h - 1) / 2, (w - 1) / 2
    y, x = np.mgrid[:h, :w].astype(np.float64)
    y, x = y - half_h, x - half_w
    c, s = np.cos(angle), np.sin(angle)
    grid = np.stack([(x * c - y * s) / half_w, (x * s + y * c) / half_h], 1)
    if zoom_in or zoom_out:
        reach, corner = math.hypot(h, w), math.atan2(h, w)
        turned = np.abs(angle)
        most_x = np.maximum(np.abs(np.cos(corner + turned)), np.abs(np.cos(corner - turned))) * reach
        most_y = np.maximum(np.abs(np.sin(corner + turned)), np.abs(np.sin(corner - turned))) * reach
        zoom = np.maximum(most_x / w, most_y / h) if zoom_out else np.minimum(w / most_x, h / most_y)
        grid = grid * zoom[:, None]
    out = nd.BilinearSampler(batch, wrap(np.ascontiguousarray(grid, np.float32)))
    turned_back: NDArray = out[0] if single else out
    return turned_back


def random_rotate(src: NDArray, angle_limits: tuple[float, float], zoom_in: bool = False, zoom_out: bool = False) -> NDArray:
    """Images rotated by random angles between these limits in degrees."""
    if src.ndim == 3:
        return imrotate(src, float(np.random.uniform(*angle_limits)), zoom_in, zoom_out)
    return imrotate(src, nd.array(np.random.uniform(*angle_limits, size=src.shape[0])), zoom_in, zoom_out)
