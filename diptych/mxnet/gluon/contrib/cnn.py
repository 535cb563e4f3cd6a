"""Deformable convolutions as layers: a convolution of the input says where the kernel reads."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon.block import HybridBlock
from diptych.mxnet.gluon.nn.activations import Activation
from diptych.mxnet.gluon.nn.conv_layers import spread

__all__ = ["DeformableConvolution", "ModulatedDeformableConvolution"]


class DeformableConvolution(HybridBlock):
    """A convolution whose kernel positions move by offsets that another convolution of the input gives (Dai et al. 2017).

    >>> from diptych.mxnet import nd
    >>> layer = DeformableConvolution(4, kernel_size=(3, 3), padding=(1, 1), in_channels=2)
    >>> layer.initialize()
    >>> layer(nd.ones((1, 2, 5, 6))).shape
    (1, 4, 5, 6)

    `num_deformable_group` groups of channels have offsets of their own. Images are (N, C, H, W).
    """

    _numbers = 2  # the offset convolution's channels for each position of the kernel
    _operator = "DeformableConvolution"
    _kind = "deformable_conv"

    def __init__(self, channels: int, kernel_size: Any = (1, 1), strides: Any = (1, 1), padding: Any = (0, 0), dilation: Any = (1, 1),
                 groups: int = 1, num_deformable_group: int = 1, layout: str = "NCHW", use_bias: bool = True, in_channels: int = 0,
                 activation: str | None = None, weight_initializer: Any = None, bias_initializer: Any = "zeros",
                 offset_weight_initializer: Any = "zeros", offset_bias_initializer: Any = "zeros", offset_use_bias: bool = True,
                 op_name: str | None = None, adj: Any = None, prefix: str | None = None, params: Any = None) -> None:  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        if layout != "NCHW":
            raise AssertionError(f"{type(self).__name__}: layout={layout!r} is not there; transpose the images to NCHW")
        if adj is not None:
            raise AssertionError(f"{type(self).__name__}: adj belongs to transposed convolutions")
        kernel = spread(kernel_size, 2)
        self._positions = kernel[0] * kernel[1] * num_deformable_group
        shared = {"kernel": kernel, "stride": spread(strides, 2), "dilate": spread(dilation, 2), "pad": spread(padding, 2),
                  "num_group": groups}  # fmt: skip
        self._offset = {**shared, "num_filter": self._numbers * self._positions, "no_bias": not offset_use_bias}
        self._kwargs = {**shared, "num_filter": channels, "no_bias": not use_bias, "num_deformable_group": num_deformable_group}
        inner = in_channels // groups
        with self.name_scope():
            for name, shape, init, there in (
                ("offset_weight", (self._offset["num_filter"], inner, *kernel), offset_weight_initializer, True),
                ("offset_bias", (self._offset["num_filter"],), offset_bias_initializer, offset_use_bias),
                ("deformable_conv_weight", (channels, inner, *kernel), weight_initializer, True),
                ("deformable_conv_bias", (channels,), bias_initializer, use_bias),
            ):
                setattr(self, name, self.params.get(name, shape=shape, init=init, allow_deferred_init=True) if there else None)
            self.act = Activation(activation, prefix=activation + "_") if activation else None

    def _alias(self) -> str:
        return self._kind

    def _where(self, F: Any, offset: Any) -> list[Any]:
        """The operands that say where the kernel reads."""
        return [offset]

    def hybrid_forward(self, F: Any, x: Any, offset_weight: Any, deformable_conv_weight: Any, offset_bias: Any = None,
                       deformable_conv_bias: Any = None) -> Any:  # fmt: skip
        """Offsets, the convolution, and the activation."""
        offset = F.Convolution(x, offset_weight, *(() if offset_bias is None else (offset_bias,)), **self._offset)
        weights = (deformable_conv_weight,) if deformable_conv_bias is None else (deformable_conv_weight, deformable_conv_bias)
        y = getattr(F.contrib, self._operator)(x, *self._where(F, offset), *weights, name="fwd", **self._kwargs)
        return y if self.act is None else self.act(y)

    def __repr__(self) -> str:
        channels, inner, *kernel = self.deformable_conv_weight.shape  # type: ignore[attr-defined]
        return f"{type(self).__name__}({inner or None} -> {channels}, kernel_size={tuple(kernel)}, stride={self._kwargs['stride']})"


class ModulatedDeformableConvolution(DeformableConvolution):
    """A deformable convolution whose samples are also weighted, by twice a sigmoid (Zhu et al. 2018, arXiv:1811.11168)."""

    _numbers = 3
    _operator = "ModulatedDeformableConvolution"
    _kind = "modulated_deformable_conv"

    def _where(self, F: Any, offset: Any) -> list[Any]:
        moves = 2 * self._positions
        weight = F.sigmoid(F.slice_axis(offset, axis=1, begin=moves, end=None)) * 2
        return [F.slice_axis(offset, axis=1, begin=0, end=moves), weight]
