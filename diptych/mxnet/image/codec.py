"""Images to and from bytes, by Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from diptych.mxnet.base import MXNetError

__all__ = ["decode", "encode", "resized"]

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP"}


def pillow() -> Any:
    """The module PIL.Image, or an error that says how to get it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MXNetError("images are decoded by Pillow, which is not installed: pip install pillow") from error
    return Image


def decode(raw: bytes, flag: int = 1, to_rgb: bool = True) -> Any:
    """Height x width x channels, uint8; flag: 0 grey, 1 colour, -1 as it is (grey images without an axis of channels)."""
    image_module = pillow()
    if not raw:
        raise MXNetError("imdecode: the buffer is empty")
    try:
        image = image_module.open(io.BytesIO(raw))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise MXNetError(f"imdecode: the {len(raw)} bytes are not an image that Pillow can read: {error}") from error
    if flag == -1:
        image = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")
        out = np.array(image)
    else:
        out = np.array(image.convert("RGB" if flag else "L"))
        out = out if flag else out[:, :, None]
    if not to_rgb and out.ndim == 3 and out.shape[2] >= 3:
        out = out[:, :, [2, 1, 0, *range(3, out.shape[2])]]
    return np.ascontiguousarray(out)


def encode(img: Any, quality: int = 95, img_fmt: str = ".jpg") -> bytes:
    """The bytes of an image file; channels in the order B, G, R. quality: 1-100 of JPEG, 0-9 the compression of PNG."""
    kind = _FORMATS.get(img_fmt.lower())
    if kind is None:
        raise MXNetError(f"img_fmt={img_fmt!r}; use {', '.join(_FORMATS)}")
    array = np.asarray(img, np.uint8)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 3:
        array = array[:, :, [2, 1, 0, *range(3, array.shape[2])]]
    options: dict[str, Any] = {"quality": int(quality)} if kind in ("JPEG", "WEBP") else {}
    if kind == "PNG":
        options["compress_level"] = min(int(quality), 9)
    file = io.BytesIO()
    pillow().fromarray(np.ascontiguousarray(array)).save(file, kind, **options)
    return file.getvalue()


def _weights(old: int, new: int, kind: int) -> tuple[Any, Any]:
    """(positions, weights) of the samples of each new pixel, as OpenCV has them: no widening of filters when shrinking."""
    scale = old / new
    if kind == 0:
        at = np.minimum(np.floor(np.arange(new) * scale).astype(np.int64), old - 1)
        return at[:, None], np.ones((new, 1))
    if kind == 3 and scale > 1:  # the mean over the area that a new pixel covers
        starts, ends = np.arange(new) * scale, np.minimum((np.arange(new) + 1) * scale, old)
        width = int(np.ceil(scale)) + 1
        at = np.floor(starts).astype(np.int64)[:, None] + np.arange(width)
        part = np.clip(np.minimum(at + 1, ends[:, None]) - np.maximum(at, starts[:, None]), 0, None)
        return np.minimum(at, old - 1), part / part.sum(1, keepdims=True)
    centre = (np.arange(new) + 0.5) * scale - 0.5
    first = np.floor(centre).astype(np.int64)
    t = centre - first
    if kind in (1, 3):
        offsets, weights = np.arange(2), np.stack([1 - t, t], 1)
    elif kind == 2:
        offsets, a = np.arange(-1, 3), -0.75
        d = np.abs(t[:, None] - offsets)
        weights = np.where(d <= 1, (a + 2) * d**3 - (a + 3) * d**2 + 1, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a)
    else:  # Lanczos over 8 pixels
        offsets = np.arange(-3, 5)
        d = t[:, None] - offsets
        weights = np.sinc(d) * np.sinc(d / 4)
        weights /= weights.sum(1, keepdims=True)
    return np.clip(first[:, None] + offsets, 0, old - 1), weights


def resized(x: Any, height: int, width: int, interp: int = 1) -> Any:
    """An image of another size; interp: 0 nearest, 1 linear, 2 cubic, 3 area, 4 Lanczos, in the conventions of OpenCV."""
    if interp not in range(5):
        raise MXNetError(f"interp={interp}; use 0 nearest, 1 linear, 2 cubic, 3 area, 4 Lanczos")
    if (height, width) == x.shape[:2]:
        return np.array(x)
    rows, columns = _weights(x.shape[0], height, interp), _weights(x.shape[1], width, interp)
    out: Any = x.astype(np.float64)
    out = np.einsum("nkwc,nk->nwc", out[rows[0]], rows[1])
    out = np.einsum("hnkc,nk->hnc", out[:, columns[0]], columns[1])
    if x.dtype == np.uint8:
        return np.clip(np.rint(out), 0, 255).astype(np.uint8)
    return out.astype(x.dtype)
