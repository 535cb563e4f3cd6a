"""The gradient of a convolution with respect to its weights, plain and on channel blocks."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Arg, Contraction, S, op
from diptych.ops.blocked import unpacked, unpacked_type
from diptych.ops.conv import Conv
from diptych.ops.rules import floats, widened

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["BlockedConvWeightGradient", "ConvWeightGradient"]

Pads = tuple[tuple[int, int], ...]


@op
class ConvWeightGradient(Contraction):
    """dw[O, C/groups, *K] of a convolution of x[N, C, *S] from dy[N, O, *T]: sums over the batch and all pixels."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: Pads
    dilations: tuple[int, ...]
    groups: int = 1

    samples = (
        S((2, 3, 6, 7), (2, 4, 6, 7), kernel=(3, 3), strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1)),
        S((2, 20, 9, 7), (2, 36, 5, 4), kernel=(3, 3), strides=(2, 2), pads=((1, 1), (1, 1)), dilations=(1, 1)),
        S((1, 6, 8, 8), (1, 4, 4, 4), kernel=(1, 1), strides=(2, 2), pads=((0, 0), (0, 0)), dilations=(1, 1)),
        S((2, 6, 7, 5), (2, 9, 7, 5), kernel=(3, 3), strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=3),
        S((1, 5, 8, 8), (1, 5, 4, 4), kernel=(3, 3), strides=(2, 2), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=5),
        S((1, 4, 8, 9), (1, 6, 4, 8), kernel=(3, 2), strides=(2, 1), pads=((0, 1), (2, 0)), dilations=(1, 3),
          low=-1.0, high=1.0),
        S((2, 3, 11), (2, 4, 3), kernel=(4,), strides=(3,), pads=((1, 2),), dilations=(2,)),
        S((1, 2, 4, 5, 6), (1, 3, 4, 3, 3), kernel=(2, 3, 3), strides=(1, 2, 1), pads=((0, 1), (1, 1), (1, 0)),
          dilations=(1, 1, 2)),
        S((0, 3, 4, 4), (0, 2, 4, 4), kernel=(1, 1), strides=(1, 1), pads=((0, 0), (0, 0)), dilations=(1, 1), grad=False),
        S(Arg((1, 2, 5, 5), "f64"), Arg((1, 3, 5, 5), "f64"), kernel=(3, 3), strides=(1, 1), pads=((1, 1), (1, 1)),
          dilations=(1, 1)),
    )  # fmt: skip

    def infer(self, x: TensorType, dy: TensorType) -> TensorType:
        floats(x, dy)
        if x.rank < 3 or dy.rank != x.rank or len(self.kernel) != x.rank - 2:
            raise TypeRuleError(f"image {x}, gradient {dy} and kernel {self.kernel} have different numbers of spatial axes")
        if self.groups < 1 or x.shape[1] % self.groups or dy.shape[1] % self.groups:
            raise TypeRuleError(f"the channels of {x} and {dy} do not divide into groups={self.groups}")
        w = x.with_shape((dy.shape[1], x.shape[1] // self.groups, *self.kernel))
        expected = Conv(self.strides, self.pads, self.dilations, self.groups).infer(x, w)
        if expected != dy:
            raise TypeRuleError(f"gradient {dy} does not fit image {x} and kernel {self.kernel}: {expected} expected")
        return w

    def reference(self, x: Array, dy: Array) -> Array:
        dtype, groups, n = x.dtype, self.groups, len(self.kernel)
        x = np.pad(widened(x), ((0, 0), (0, 0), *self.pads))
        dy = widened(dy)
        batch, out = x.shape[0], dy.shape[2:]
        dw: Array = np.empty((groups, dy.shape[1] // groups, x.shape[1] // groups, *self.kernel), x.dtype)
        left: Array = dy.reshape(batch, groups, dy.shape[1] // groups, prod(out)).transpose(1, 2, 0, 3)
        left = left.reshape(*left.shape[:2], -1)
        for at in product(*map(range, self.kernel)):
            where = zip(at, out, self.strides, self.dilations, strict=True)
            seen = x[(slice(None), slice(None), *(slice(k * d, k * d + s * (o - 1) + 1, s) for k, o, s, d in where))]
            right = seen.reshape(batch, groups, x.shape[1] // groups, prod(out)).transpose(1, 0, 3, 2)
            position: tuple[int | slice, ...] = (slice(None), slice(None), slice(None), *at)
            dw[position] = np.matmul(left, right.reshape(groups, -1, right.shape[3]))
        return dw.reshape(dw.shape[0] * dw.shape[1], *dw.shape[2 : 3 + n]).astype(dtype, copy=False)

    def decompose(self, g: Builder, x: Value, dy: Value) -> Value:
        """A convolution in which the batch plays the channels, and strides and dilations change places."""
        spatial = tuple(range(2, x.rank))
        per_group = x.shape[1] // self.groups
        if x.type.size == 0:
            return g.constant(np.zeros((dy.shape[1], per_group, *self.kernel)), x.dtype)
        data = g.reshape(x, (x.shape[0], self.groups, per_group, *x.shape[2:]))
        data = g.transpose(data, (2, 1, 0, *(a + 1 for a in spatial)))
        data = g.reshape(data, (per_group, self.groups * x.shape[0], *x.shape[2:]))
        filters = g.transpose(dy, (1, 0, *spatial))
        dw = g.emit(Conv(self.dilations, self.pads, self.strides, self.groups), data, filters)
        dw = g.slice(dw, (0,) * dw.rank, (*dw.shape[:2], *self.kernel))
        return g.transpose(dw, (1, 0, *spatial))


@op
class BlockedConvWeightGradient(Contraction):
    """The same of blocked tensors: x[N, C/16, *S, 16] (or plain [N, C, *S] when `plain_input`), dy[N, O/16, *T, 16]."""

    channels: tuple[int, int]  # of the input and of the result of the convolution
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: Pads
    dilations: tuple[int, ...]
    groups: int = 1
    plain_input: bool = False

    samples = (
        S((2, 2, 6, 7, 16), (2, 3, 6, 7, 16), channels=(20, 36), kernel=(3, 3), strides=(1, 1), pads=((1, 1), (1, 1)),
          dilations=(1, 1)),
        S((2, 3, 9, 9), (2, 1, 5, 5, 16), channels=(3, 8), kernel=(3, 3), strides=(2, 2), pads=((1, 1), (1, 1)),
          dilations=(1, 1), plain_input=True),
        S((1, 2, 6, 7, 16), (1, 2, 3, 4, 16), channels=(20, 20), kernel=(3, 3), strides=(2, 2), pads=((1, 1), (1, 1)),
          dilations=(1, 1), groups=20),
        S((1, 2, 6, 7, 16), (1, 2, 6, 7, 16), channels=(32, 32), kernel=(1, 1), strides=(1, 1), pads=((0, 0), (0, 0)),
          dilations=(1, 1), groups=2),
    )  # fmt: skip

    def plain(self) -> ConvWeightGradient:
        """The operator on the plain layout."""
        return ConvWeightGradient(self.kernel, self.strides, self.pads, self.dilations, self.groups)

    def infer(self, x: TensorType, dy: TensorType) -> TensorType:
        c, o = self.channels
        return self.plain().infer(x if self.plain_input else unpacked_type(x, c), unpacked_type(dy, o))

    def reference(self, x: Array, dy: Array) -> Array:
        c, o = self.channels
        return self.plain().reference(x if self.plain_input else unpacked(x, c), unpacked(dy, o))
