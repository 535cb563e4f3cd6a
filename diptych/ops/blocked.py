"""Operators on the channel-blocked layout [N, ceil(C/16), *S, 16]. The layout pass makes them; frontends never do.

Lanes past the last real channel hold garbage: every operator here reads real channels only.
"""

from __future__ import annotations

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ir import Array, TensorType
from diptych.ops.base import Contraction, Loops, Movement, S, op
from diptych.ops.conv import Conv, ConvTranspose
from diptych.ops.pool import AvgPool, MaxPool
from diptych.ops.resize import Resize

__all__ = [
    "BLOCK", "BlockedAvgPool", "BlockedConv", "BlockedConvTranspose", "BlockedMaxPool", "BlockedResize", "NarrowConv",
    "PackChannels", "UnpackChannels", "in_block", "unpacked", "unpacked_type",
]  # fmt: skip

BLOCK = 16
Pads = tuple[tuple[int, int], ...]


def _pack(x: Array) -> Array:
    n, c, *spatial = x.shape
    blocks = -(-c // BLOCK)
    x = np.pad(x, ((0, 0), (0, blocks * BLOCK - c), *((0, 0) for _ in spatial)))
    return np.ascontiguousarray(np.moveaxis(x.reshape(n, blocks, BLOCK, *spatial), 2, -1))


def unpacked(x: Array, channels: int) -> Array:
    """The plain form of a blocked array."""
    n, blocks, *spatial, lanes = x.shape
    return np.moveaxis(x, -1, 2).reshape(n, blocks * lanes, *spatial)[:, :channels]


def _packed(t: TensorType) -> TensorType:
    return t.with_shape((t.shape[0], -(-t.shape[1] // BLOCK), *t.shape[2:], BLOCK))


def unpacked_type(t: TensorType, channels: int) -> TensorType:
    """The type of the plain form of a blocked tensor; TypeRuleError when it is not one of so many channels."""
    if t.rank < 3 or t.shape[-1] != BLOCK or not 0 <= t.shape[1] * BLOCK - channels < BLOCK:
        raise TypeRuleError(f"{t} is not a blocked tensor of {channels} channels")
    return t.with_shape((t.shape[0], channels, *t.shape[2:-1]))


def in_block(w: tuple[int, ...], groups: int) -> bool:
    """Whether a convolution with weights of this shape has small groups, as many outputs as inputs each, that lie inside
    one block, and keeps them: their lanes meet by shuffles, where a dense product would multiply zeros.

    >>> in_block((128, 4, 3, 3), 32)
    True
    """
    return groups > 1 and w[1] in (2, 4, 8) and w[0] == groups * w[1] and len(w) <= 4


@op
class PackChannels(Movement):
    """[N, C, *S] -> [N, ceil(C/16), *S, 16], missing channels zero."""

    samples = (S((2, 20, 3, 5)), S((1, 3, 4)), S((1, 32, 2, 2)))

    def infer(self, x: TensorType) -> TensorType:
        if x.rank < 2:
            raise TypeRuleError(f"{x} has no channel axis")
        return _packed(x)

    def reference(self, x: Array) -> Array:
        return _pack(x)


@op
class UnpackChannels(Movement):
    """[N, ceil(C/16), *S, 16] -> [N, C, *S]."""

    channels: int

    samples = (S((2, 2, 3, 5, 16), channels=20), S((1, 1, 4, 16), channels=16))

    def infer(self, x: TensorType) -> TensorType:
        return unpacked_type(x, self.channels)

    def reference(self, x: Array) -> Array:
        return unpacked(x, self.channels)


@op
class BlockedConv(Contraction):
    """Convolution with weights w[O, C/groups, *K]; x is blocked, or plain [N, C, H, W] when `plain_input`."""

    strides: tuple[int, ...]
    pads: Pads
    dilations: tuple[int, ...]
    groups: int = 1
    plain_input: bool = False

    samples = (
        S((1, 2, 6, 7, 16), (20, 32, 3, 3), (20,), strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1)),
        S((1, 3, 9, 9), (8, 3, 3, 3), strides=(2, 2), pads=((1, 1), (1, 1)), dilations=(1, 1), plain_input=True),
        S((1, 2, 6, 7, 16), (20, 1, 3, 3), strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=20),
        S((2, 2, 6, 7, 16), (32, 16, 3, 3), strides=(1, 2), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=2),
    )

    def _conv(self) -> Conv:
        return Conv(self.strides, self.pads, self.dilations, self.groups)

    def infer(self, x: TensorType, w: TensorType, bias: TensorType | None = None) -> TensorType:
        plain = x if self.plain_input else unpacked_type(x, w.shape[1] * self.groups)
        return _packed(self._conv().infer(plain, w, *(() if bias is None else (bias,))))

    def reference(self, x: Array, w: Array, bias: Array | None = None) -> Array:
        plain = x if self.plain_input else unpacked(x, w.shape[1] * self.groups)
        return _pack(np.asarray(self._conv().reference(plain, w, *(() if bias is None else (bias,)))))


@op
class NarrowConv(Contraction):
    """Convolution to a few channels, w[O, C, *K]: a plain result of blocked x, or of plain x when `plain_input`."""

    strides: tuple[int, ...]
    pads: Pads
    dilations: tuple[int, ...]
    plain_input: bool = False

    samples = (
        S((1, 2, 6, 7, 16), (1, 20, 1, 1), (1,), strides=(1, 1), pads=((0, 0), (0, 0)), dilations=(1, 1)),
        S((2, 2, 6, 37, 16), (3, 32, 3, 3), strides=(1, 2), pads=((1, 1), (1, 1)), dilations=(2, 1)),
        S((1, 8, 9, 19), (2, 8, 3, 3), (2,), strides=(2, 1), pads=((1, 1), (1, 0)), dilations=(1, 1), plain_input=True),
        S((1, 3, 70), (1, 3, 5), strides=(1,), pads=((2, 2),), dilations=(1,), plain_input=True),
    )

    def _conv(self) -> Conv:
        return Conv(self.strides, self.pads, self.dilations, 1)

    def infer(self, x: TensorType, w: TensorType, bias: TensorType | None = None) -> TensorType:
        plain = x if self.plain_input else unpacked_type(x, w.shape[1])
        return self._conv().infer(plain, w, *(() if bias is None else (bias,)))

    def reference(self, x: Array, w: Array, bias: Array | None = None) -> Array:
        plain = x if self.plain_input else unpacked(x, w.shape[1])
        return np.asarray(self._conv().reference(plain, w, *(() if bias is None else (bias,))))


@op
class BlockedConvTranspose(Contraction):
    """Transposed convolution of a blocked tensor with weights laid out as a convolution's: w[O, C/groups, *K]."""

    strides: tuple[int, ...]
    pads: Pads
    dilations: tuple[int, ...]
    groups: int = 1
    output_padding: tuple[int, ...] = ()

    samples = (
        S((1, 2, 4, 5, 16), (20, 32, 2, 2), (20,), strides=(2, 2), pads=((0, 0), (0, 0)), dilations=(1, 1)),
        S((1, 2, 4, 5, 16), (16, 32, 3, 3), strides=(2, 2), pads=((1, 1), (1, 1)), dilations=(1, 1), output_padding=(1, 1)),
    )

    def plain(self) -> ConvTranspose:
        """The operator on the plain layout."""
        return ConvTranspose(self.strides, self.pads, self.dilations, self.groups, self.output_padding)

    def _weight(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        o, c, *kernel = shape
        return (c * self.groups, o // self.groups, *kernel)

    def infer(self, x: TensorType, w: TensorType, bias: TensorType | None = None) -> TensorType:
        plain = unpacked_type(x, w.shape[1] * self.groups)
        rest = () if bias is None else (bias,)
        return _packed(self.plain().infer(plain, w.with_shape(self._weight(w.shape)), *rest))

    def reference(self, x: Array, w: Array, bias: Array | None = None) -> Array:
        per_group = w.reshape(self.groups, w.shape[0] // self.groups, *w.shape[1:])
        weight = np.swapaxes(per_group, 1, 2).reshape(self._weight(w.shape))
        rest = () if bias is None else (bias,)
        return _pack(np.asarray(self.plain().reference(unpacked(x, w.shape[1] * self.groups), weight, *rest)))


@op
class BlockedMaxPool(Loops):
    """Max pooling of a blocked tensor."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: Pads
    dilations: tuple[int, ...]
    rounding: str = "floor"

    samples = (S((1, 2, 6, 7, 16), kernel=(3, 3), strides=(2, 2), pads=((1, 1), (1, 1)), dilations=(1, 1)),)

    def plain(self) -> MaxPool:
        """The operator on the plain layout."""
        return MaxPool(self.kernel, self.strides, self.pads, self.dilations, self.rounding)

    def infer(self, x: TensorType) -> TensorType:
        return _packed(self.plain().infer(unpacked_type(x, x.shape[1] * BLOCK)))

    def reference(self, x: Array) -> Array:
        return _pack(np.asarray(self.plain().reference(unpacked(x, x.shape[1] * BLOCK))))


@op
class BlockedAvgPool(Loops):
    """Average pooling of a blocked tensor."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: Pads
    rounding: str = "floor"
    count_include_pad: bool = True

    samples = (S((1, 2, 6, 7, 16), kernel=(2, 2), strides=(2, 2), pads=((0, 0), (0, 0))),)

    def plain(self) -> AvgPool:
        """The operator on the plain layout."""
        return AvgPool(self.kernel, self.strides, self.pads, self.rounding, self.count_include_pad)

    def infer(self, x: TensorType) -> TensorType:
        return _packed(self.plain().infer(unpacked_type(x, x.shape[1] * BLOCK)))

    def reference(self, x: Array) -> Array:
        return _pack(np.asarray(self.plain().reference(unpacked(x, x.shape[1] * BLOCK))))


@op
class BlockedResize(Loops):
    """Resampling of a blocked tensor."""

    size: tuple[int, ...]
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    scales: tuple[float, ...] | None = None

    samples = (
        S((1, 2, 4, 5, 16), size=(8, 10)),
        S((2, 1, 5, 6, 16), size=(9, 11), mode="linear", coordinates="align_corners"),
        S((1, 1, 7, 16), size=(14,), mode="linear"),
    )

    def plain(self) -> Resize:
        """The operator on the plain layout."""
        return Resize(self.size, self.mode, self.coordinates, self.scales)

    def infer(self, x: TensorType) -> TensorType:
        return _packed(self.plain().infer(unpacked_type(x, x.shape[1] * BLOCK)))

    def reference(self, x: Array) -> Array:
        return _pack(np.asarray(self.plain().reference(unpacked(x, x.shape[1] * BLOCK))))
