"""Operators on images of height x width x channels, or on several of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import FormatError
from diptych.frontends.mxnet.convert import Call, converts

if TYPE_CHECKING:
    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value

# The principal colours of ImageNet's pixels (Krizhevsky et al. 2012): each column an axis, scaled by its eigenvalue.
PRINCIPAL = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]) * (55.46, 4.794, 1.148)


def _checked(c: Call, several: bool = True) -> Value:
    """The operand, when it has the axes of an image (or of several)."""
    if c.x.rank not in ((3, 4) if several else (3,)):
        wanted = "(height, width, channels)" + (" or (count, height, width, channels)" if several else "")
        raise FormatError(f"{c.op} (layer {c.layer}): takes {wanted}, not {c.x.type}")
    return c.x


@converts("_image_to_tensor")
def _to_tensor(c: Call) -> Result:
    x = _checked(c)
    lead = tuple(range(x.rank - 3))
    n = len(lead)
    return c.emit("div", c.transpose(c.cast(x, "f32"), (*lead, n + 2, n, n + 1)), 255.0)


@converts("_image_normalize")
def _normalize(c: Call) -> Result:
    x = c.x
    channels = x.shape[-3] if x.rank in (3, 4) else 0
    if channels not in (1, 3):
        raise FormatError(f"{c.op} (layer {c.layer}): takes 1 or 3 channels before height and width, not {x.type}; use to_tensor first")
    mean, std = (c.attrs.reals(key, default) for key, default in (("mean", (0.0,)), ("std", (1.0,))))

    def column(key: str, values: tuple[float, ...]) -> Value:
        values = values[:channels] if channels == 1 or len(values) == 4 else values  # four numbers are MXNet's default
        if len(values) not in (1, channels):
            raise FormatError(f"{c.op} (layer {c.layer}): {key}={values} for {channels} channels")
        return c.const(np.array(values).reshape(-1, 1, 1), x.dtype)

    return c.emit("div", c.emit("sub", x, column("mean", mean)), column("std", std))


@converts("_image_flip_left_right", "_image_flip_top_bottom")
def _flip(c: Call) -> Result:
    return c.emit("flip", _checked(c, several=False), axes=(1 if c.op.endswith("right") else 0,))


@converts("_image_crop")
def _crop(c: Call) -> Result:
    image = _checked(c)
    x, y, width, height = (c.attrs.integer(key) for key in ("x", "y", "width", "height"))
    rows, columns = image.shape[-3:-1]
    if x < 0 or y < 0 or width <= 0 or height <= 0 or x + width > columns or y + height > rows:
        raise FormatError(f"{c.op} (layer {c.layer}): {width} x {height} at ({x}, {y}) is not inside of an image of {columns} x {rows}")
    lead = image.shape[:-3]
    return c.emit("slice", image, starts=(*[0] * len(lead), y, x, 0), stops=(*lead, y + height, x + width, image.shape[-1]),
                  steps=(1,) * image.rank)  # fmt: skip


@converts("_image_adjust_lighting")
def _adjust_lighting(c: Call) -> Result:
    image, alpha = _checked(c, several=False), c.attrs.reals("alpha")
    if image.shape[2] != 3 or len(alpha) != 3:
        raise FormatError(f"{c.op} (layer {c.layer}): takes 3 channels and 3 numbers, not {image.type} and alpha={alpha}")
    y = c.emit("add", c.cast(image, "f32"), c.const(PRINCIPAL @ np.array(alpha), "f32"))
    return c.cast(c.emit("clip", y, low=0.0, high=255.0), "u8") if image.dtype == "u8" else c.cast(y, image.dtype)
