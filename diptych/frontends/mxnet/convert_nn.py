"""Layers with weights, and pooling: Convolution, Deconvolution, FullyConnected, Embedding, Pooling, UpSampling, resizing."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from diptych.errors import FormatError
from diptych.frontends.mxnet.convert import Call, converts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value


class Windows(TypedDict):
    """The attributes all pooling operators of the IR share."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    rounding: str


def spatial(c: Call, key: str, rank: int, default: int) -> tuple[int, ...]:
    """A per-axis attribute such as stride: absent or () means the default for every axis."""
    values = c.attrs.shape(key, ()) or (default,) * rank
    if len(values) != rank:
        raise FormatError(f"{c.op} (layer {c.layer}): {key}={values} does not fit {rank} spatial axes")
    return values


def both(pad: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The same padding below and above."""
    return tuple((p, p) for p in pad)


def channels_last(c: Call) -> bool:
    """Whether `layout` asks for channels last (NWC, NHWC, NDHWC)."""
    layout = c.attrs.text("layout", "None")
    if layout not in ("None", "NCW", "NCHW", "NCDHW", "NWC", "NHWC", "NDHWC"):
        raise c.fail(f"layout={layout!r} is unknown", "use NCHW or NHWC")
    return layout.endswith("C")


def to_first(c: Call, x: Value) -> Value:
    """[N, *S, C] -> [N, C, *S] (for weights [O, *K, I] -> [O, I, *K])."""
    return c.transpose(x, (0, x.rank - 1, *range(1, x.rank - 1)))


def to_last(c: Call, x: Value) -> Value:
    """[N, C, *S] -> [N, *S, C]."""
    return c.transpose(x, (0, *range(2, x.rank), 1))


def _bias(c: Call, default: bool, index: int = 2) -> tuple[Value, ...]:
    return () if c.attrs.boolean("no_bias", default) else (c.arg(index),)


def _expect(c: Call, w: Value, shape: tuple[int | None, ...]) -> None:
    """A weight must have the shape that the layer's attributes state (None: any extent)."""
    if len(w.shape) != len(shape) or any(b is not None and a != b for a, b in zip(w.shape, shape)):
        wanted = ", ".join("?" if d is None else str(d) for d in shape)
        raise FormatError(f"{c.op} (layer {c.layer}): the weight is {w.type}, the symbol asks for ({wanted}); "
                          "check that the params belong to this symbol")  # fmt: skip


@converts("Convolution", "Convolution_v1")
def _convolution(c: Call) -> Result:
    x, w = c.x, c.arg(1)
    kernel = c.attrs.shape("kernel")
    n = len(kernel)
    last = channels_last(c)
    if last:
        x, w = to_first(c, x), to_first(c, w)
    _expect(c, w, (c.attrs.integer("num_filter"), None, *kernel))
    groups, strides, pads = c.attrs.integer("num_group", 1), spatial(c, "stride", n, 1), spatial(c, "pad", n, 0)
    dilations = spatial(c, "dilate", n, 1)
    if n == 2 and groups == 1 and pads[1] == 0 and _as_wide_as(x, kernel):
        y = _over_rows(c, x, w, strides[0], pads[0], dilations[0])
    else:
        y = c.emit("conv", x, w, *_bias(c, False), strides=strides, pads=both(pads), dilations=dilations, groups=groups)
    return to_last(c, y) if last else y


_FEW_CHANNELS, _WIDE = 16, 16


def _as_wide_as(x: Value, kernel: tuple[int, ...]) -> bool:
    """Whether a kernel covers whole rows of an image of few channels: rows of a matrix of word vectors, most often."""
    return kernel[1] == x.shape[3] >= _WIDE and x.shape[1] < _FEW_CHANNELS and kernel[0] < x.shape[2]


def _over_rows(c: Call, x: Value, w: Value, stride: int, pad: int, dilation: int) -> Value:
    """A convolution that moves along one axis only: what a row holds are its channels, of which there are many then."""
    n, channels, height, width = x.shape
    rows = c.reshape(c.transpose(x, (0, 1, 3, 2)), (n, channels * width, 1, height))
    taps = c.reshape(c.transpose(w, (0, 1, 3, 2)), (w.shape[0], channels * width, 1, w.shape[2]))
    y = c.emit("conv", rows, taps, *_bias(c, False), strides=(1, stride), pads=both((0, pad)), dilations=(1, dilation), groups=1)
    return c.reshape(y, (n, y.shape[1], y.shape[3], 1))


@converts("Deconvolution")
def _deconvolution(c: Call) -> Result:
    x, w = c.x, c.arg(1)
    kernel = c.attrs.shape("kernel")
    n = len(kernel)
    last = channels_last(c)
    if last:
        x, w = to_first(c, x), to_first(c, w)
    _expect(c, w, (x.shape[1], c.attrs.integer("num_filter") // c.attrs.integer("num_group", 1), *kernel))
    strides, dilations = spatial(c, "stride", n, 1), spatial(c, "dilate", n, 1)
    pads, extra = both(spatial(c, "pad", n, 0)), spatial(c, "adj", n, 0)
    target = c.attrs.shape("target_shape", ())
    if any(target):  # the padding follows from the wanted extents
        full = [s * (e - 1) + d * (k - 1) + 1 for e, k, s, d in zip(x.shape[2:], kernel, strides, dilations)]
        if len(target) != n or any(t > f for t, f in zip(target, full)):
            raise FormatError(f"{c.op} (layer {c.layer}): target_shape={target} is larger than {tuple(full)}")
        crop = [f - t for f, t in zip(full, target)]
        pads, extra = both([(k + 1) // 2 for k in crop]), tuple(k % 2 for k in crop)
    y = c.emit("conv_transpose", x, w, *_bias(c, True), strides=strides, pads=pads, dilations=dilations,
               groups=c.attrs.integer("num_group", 1), output_padding=extra)  # fmt: skip
    return to_last(c, y) if last else y


@converts("FullyConnected")
def _fully_connected(c: Call) -> Result:
    x = c.x
    if c.attrs.boolean("flatten", True):
        x = c.reshape(x, (x.shape[0], prod(x.shape[1:])))
    _expect(c, c.arg(1), (c.attrs.integer("num_hidden"), x.shape[-1]))
    y = c.emit("mat_mul", x, c.arg(1), transpose_b=True)
    for bias in _bias(c, False):
        y = c.emit("add", y, bias)
    return y


@converts("Embedding", "_contrib_SparseEmbedding")
def _embedding(c: Call) -> Result:
    _expect(c, c.arg(1), (c.attrs.integer("input_dim"), c.attrs.integer("output_dim")))
    return c.emit("take", c.arg(1), c.indices(c.x), axis=0, mode="clip")


@converts("Pooling", "Pooling_v1")
def _pooling(c: Call) -> Result:
    last = channels_last(c)
    x = to_first(c, c.x) if last else c.x
    n = x.rank - 2
    kind = c.attrs.text("pool_type", "max")
    whole = c.attrs.boolean("global_pool", False)
    convention = c.attrs.text("pooling_convention", "valid")
    kernel = x.shape[2:] if whole else spatial(c, "kernel", n, 1)
    strides = (1,) * n if whole else spatial(c, "stride", n, 1)
    pads = both((0,) * n if whole or convention == "same" else spatial(c, "pad", n, 0))
    inside = False
    if convention == "same" and not whole:
        pads, inside = _same(c, x, kernel, strides), True
    elif convention not in ("valid", "full", "same"):
        raise c.fail(f"pooling_convention={convention!r} is unknown", "use 'valid', 'full' or 'same'")
    where: Windows = {"kernel": kernel, "strides": strides, "pads": pads,
                      "rounding": "ceil_mxnet" if convention == "full" and not whole else "floor"}  # fmt: skip
    axes = tuple(range(2, x.rank))
    if kind in ("max", "avg", "sum") and whole:
        y = c.g.reduce({"max": "max", "avg": "mean", "sum": "sum"}[kind], x, axes, keepdims=True)
    elif kind == "max":
        y = c.emit("max_pool", x, **where)
    elif kind == "avg":
        y = c.emit("avg_pool", x, **where, count_include_pad=not inside and c.attrs.boolean("count_include_pad", True))
    elif kind == "lp":
        y = _lp_pool(c, x, where)
    elif kind == "sum":
        y = _sum_pool(c, x, where)
    else:
        raise c.fail(f"pool_type={kind!r} is unknown", "use max, avg, sum or lp")
    return to_last(c, y) if last else y


def _same(c: Call, x: Value, kernel: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """As many windows as steps fit into the axis; the last ones see less. MXNet has this for one axis only, and asks for pad=(0, 0, 0)."""
    if x.rank != 3:
        raise c.fail(f"pooling_convention='same' with {x.rank - 2} spatial axes, MXNet has it for one", "pad, then use 'valid'")
    if any(c.attrs.shape("pad", ())):
        raise c.fail("pooling_convention='same' takes no pad", "leave it out")
    return tuple((0, max(0, (-(-d // s) - 1) * s + k - d)) for d, k, s in zip(x.shape[2:], kernel, strides))


def _sum_pool(c: Call, x: Value, where: Windows) -> Value:
    """A depthwise convolution with ones; "full" pads above until the last window fits."""
    kernel, strides, pads = where["kernel"], where["strides"], where["pads"]
    if where["rounding"] == "ceil_mxnet":
        rooms = [e + lo + hi - k for e, k, (lo, hi) in zip(x.shape[2:], kernel, pads)]
        pads = tuple((lo, hi + -room % s) for (lo, hi), room, s in zip(pads, rooms, strides))
    ones = c.const(np.ones((x.shape[1], 1, *kernel)), x.dtype)
    return c.emit("conv", x, ones, strides=strides, pads=pads, dilations=(1,) * len(kernel), groups=x.shape[1])


def _lp_pool(c: Call, x: Value, where: Windows) -> Value:
    """The p-norm of each window. MXNet takes no absolute values, so odd p sum signed powers and take the signed root."""
    p = c.attrs.integer("p_value", 2)
    if p == 1:
        return _sum_pool(c, x, where)
    if p == 2:
        return c.emit("lp_pool", x, **where, p=2.0)
    if p != 3:
        raise c.fail(f"p_value={p} is unknown to MXNet", "use 1, 2 or 3")
    total = _sum_pool(c, c.emit("mul", c.emit("mul", x, x), x), where)
    return c.emit("mul", c.emit("sign", total), c.emit("pow", c.emit("abs", total), 1.0 / 3.0))


@converts("_contrib_AdaptiveAvgPooling2D")
def _adaptive_avg(c: Call) -> Result:
    size = c.attrs.shape("output_size", ()) or (1,)
    if len(size) == 1:
        size = size * 2
    if size == (1, 1):
        return c.g.mean(c.x, (2, 3), keepdims=True)
    return c.emit("adaptive_avg_pool", c.x, output_size=size)


# -- resizing -----------------------------------------------------------------------------------------------------
@converts("UpSampling")
def _upsampling(c: Call) -> Result:
    scale = c.attrs.integer("scale")
    kind = c.attrs.text("sample_type")
    if kind == "bilinear":  # a transposed convolution whose weight is in the model
        return c.emit("conv_transpose", c.x, c.arg(1), strides=(scale, scale), pads=both([-(-(scale - 1) // 2)] * 2),
                      dilations=(1, 1), groups=c.attrs.integer("num_filter", 0) or c.x.shape[1],
                      output_padding=(0, 0))  # fmt: skip
    if kind != "nearest":
        raise c.fail(f"sample_type={kind!r} is unknown", "use nearest or bilinear")
    height, width = c.x.shape[2] * scale, c.x.shape[3] * scale
    parts = []
    for x in c.inputs:
        times = height // x.shape[2]  # every input is brought to the size of the first one's result
        if (x.shape[2] * times, x.shape[3] * times) != (height, width):
            raise c.fail(f"input {x.type} cannot be repeated to {height}x{width}", "its size must divide that")
        parts.append(c.emit("resize", x, size=(height, width), mode="nearest", coordinates="asymmetric"))
    if c.attrs.text("multi_input_mode", "concat") == "sum":
        total = parts[0]
        for p in parts[1:]:
            total = c.emit("add", total, p)
        return total
    return c.g.concat(parts, 1)


def _resized(c: Call) -> tuple[int, int]:
    """The result's height and width for every `mode` of BilinearResize2D."""
    height, width = c.x.shape[2:]
    mode = c.attrs.text("mode", "size")
    sh, sw = c.attrs.optional_real("scale_height"), c.attrs.optional_real("scale_width")

    def odd(extent: int, scale: float) -> int:
        return int(extent * scale) if extent % 2 == 0 else int((extent - 1) * scale) + 1

    if mode == "like":
        return c.arg(1).shape[2], c.arg(1).shape[3]
    if mode == "size":
        h = int(sh * height) if sh is not None else c.attrs.integer("height", 1)
        return h, int(sw * width) if sw is not None else c.attrs.integer("width", 1)
    if mode == "odd_scale":
        return odd(height, sh or 1.0), odd(width, sw or 1.0)
    step = {"to_even_down": (0, -1), "to_even_up": (0, 1), "to_odd_down": (1, -1), "to_odd_up": (1, 1)}.get(mode)
    if step is None:
        raise c.fail(f"mode={mode!r} is unknown", "use size, scale or like")
    parity, move = step
    return tuple(e if e % 2 == parity else e + move for e in (height, width))  # type: ignore[return-value]


@converts("_contrib_BilinearResize2D")
def _bilinear_resize(c: Call) -> Result:
    size = _resized(c)
    if size == c.x.shape[2:]:
        return c.x
    corners = c.attrs.boolean("align_corners", True)
    return c.emit("resize", c.x, size=size, mode="linear", coordinates="align_corners" if corners else "half_pixel")
