"""Convolutions, transposed convolutions and padding as layers."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon.block import HybridBlock
from diptych.mxnet.gluon.nn.activations import Activation

__all__ = ["Conv1D", "Conv1DTranspose", "Conv2D", "Conv2DTranspose", "Conv3D", "Conv3DTranspose", "ReflectionPad2D"]


def spread(value: Any, count: int) -> tuple[int, ...]:
    """An extent for each of `count` axes."""
    return (value,) * count if isinstance(value, int) else tuple(value)


class _Conv(HybridBlock):
    """What all convolutions share: parameters of the shapes that the operator infers, bias and activation."""

    def __init__(self, channels: int, kernel_size: tuple[int, ...], strides: Any, padding: Any, dilation: Any, groups: int,
                 layout: str, in_channels: int = 0, activation: str | None = None, use_bias: bool = True,
                 weight_initializer: Any = None, bias_initializer: Any = "zeros", op_name: str = "Convolution", adj: Any = None,
                 prefix: str | None = None, params: Any = None) -> None:  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        with self.name_scope():
            self._channels, self._in_channels = channels, in_channels
            n = len(kernel_size)
            self._op_name = op_name
            self._kwargs: dict[str, Any] = {
                "kernel": kernel_size, "stride": spread(strides, n), "dilate": spread(dilation, n), "pad": spread(padding, n),
                "num_filter": channels, "num_group": groups, "no_bias": not use_bias, "layout": layout,
            }  # fmt: skip
            if adj is not None:
                self._kwargs["adj"] = spread(adj, n)
            data = [0] * (n + 2)
            data[layout.find("N")], data[layout.find("C")] = 1, in_channels
            self.weight = self.params.get("weight", shape=_weight_shape(op_name, tuple(data), self._kwargs), init=weight_initializer,
                                          allow_deferred_init=True)  # fmt: skip
            self.bias = self.params.get("bias", shape=(channels,), init=bias_initializer,
                                        allow_deferred_init=True) if use_bias else None  # fmt: skip
            self.act = Activation(activation, prefix=activation + "_") if activation is not None else None

    def _alias(self) -> str:
        return "conv"

    def hybrid_forward(self, F: Any, x: Any, weight: Any, bias: Any = None) -> Any:
        """The operator, and the activation."""
        operands = (x, weight) if bias is None else (x, weight, bias)
        y = getattr(F, self._op_name)(*operands, name="fwd", **self._kwargs)
        return y if self.act is None else self.act(y)

    def __repr__(self) -> str:
        k = self._kwargs
        n = len(k["kernel"])
        text = f"kernel_size={k['kernel']}, stride={k['stride']}"
        if k["pad"] != (0,) * n:
            text += f", padding={k['pad']}"
        if k["dilate"] != (1,) * n:
            text += f", dilation={k['dilate']}"
        if k.get("adj", (0,) * n) != (0,) * n:
            text += f", output_padding={k['adj']}"
        if k["num_group"] != 1:
            text += f", groups={k['num_group']}"
        if self.bias is None:
            text += ", bias=False"
        if self.act is not None:
            text += f", {self.act}"
        shape = self.weight.shape
        return f"{type(self).__name__}({shape[1] or None} -> {shape[0]}, {text})"


def _weight_shape(op: str, data: tuple[int, ...], attrs: dict[str, Any]) -> tuple[int, ...]:
    """The shape of the weight, with 0 where it depends on an unknown number of input channels."""
    layout, kernel, groups, filters = attrs["layout"], attrs["kernel"], attrs["num_group"], attrs["num_filter"]
    channels = data[layout.find("C")]
    if op == "Convolution":
        out, inner = filters, channels // groups
    else:  # the weight of a transposed convolution leads with the input's channels
        out, inner = channels, filters // groups
    return (out, *kernel, inner) if layout[-1] == "C" else (out, inner, *kernel)


def _checked(layout: str, known: tuple[str, ...], what: str) -> str:
    if layout not in known:
        raise AssertionError(f"{what}: layout={layout!r}, there are {' and '.join(repr(x) for x in known)}")
    return layout


def _conv(name: str, n: int, layouts: tuple[str, ...], transposed: bool) -> Any:
    """The convolution of n axes."""

    if transposed:

        def init(self: Any, channels: int, kernel_size: Any, strides: Any = 1, padding: Any = 0, output_padding: Any = 0,
                 dilation: Any = 1, groups: int = 1, layout: str = layouts[0], activation: str | None = None,
                 use_bias: bool = True, weight_initializer: Any = None, bias_initializer: Any = "zeros", in_channels: int = 0,
                 **kwargs: Any) -> None:  # fmt: skip
            kernel = spread(kernel_size, n)
            if len(kernel) != n:
                raise AssertionError(f"kernel_size={kernel_size}: one number, or {n}")
            _Conv.__init__(self, channels, kernel, strides, padding, dilation, groups, _checked(layout, layouts, name), in_channels,
                           activation, use_bias, weight_initializer, bias_initializer, "Deconvolution", output_padding, **kwargs)
            self.outpad = spread(output_padding, n)
    else:

        def init(self: Any, channels: int, kernel_size: Any, strides: Any = 1, padding: Any = 0,  # type: ignore[misc]
                 dilation: Any = 1, groups: int = 1, layout: str = layouts[0], activation: str | None = None,
                 use_bias: bool = True, weight_initializer: Any = None, bias_initializer: Any = "zeros", in_channels: int = 0,
                 **kwargs: Any) -> None:  # fmt: skip
            kernel = spread(kernel_size, n)
            if len(kernel) != n:
                raise AssertionError(f"kernel_size={kernel_size}: one number, or {n}")
            _Conv.__init__(self, channels, kernel, strides, padding, dilation, groups, _checked(layout, layouts, name), in_channels,
                           activation, use_bias, weight_initializer, bias_initializer, "Convolution", None, **kwargs)

    what = "transposed convolution" if transposed else "convolution"
    return type(name, (_Conv,), {"__init__": init, "__module__": __name__,
                                 "__doc__": f"A {what} over {n} axes of x, laid out as {layouts[0]}."})  # fmt: skip


_1D, _2D, _3D = ("NCW", "NWC"), ("NCHW", "NHWC"), ("NCDHW", "NDHWC")
Conv1D, Conv2D, Conv3D = _conv("Conv1D", 1, _1D, False), _conv("Conv2D", 2, _2D, False), _conv("Conv3D", 3, _3D, False)
Conv1DTranspose = _conv("Conv1DTranspose", 1, _1D, True)
Conv2DTranspose = _conv("Conv2DTranspose", 2, _2D, True)
Conv3DTranspose = _conv("Conv3DTranspose", 3, _3D, True)


class ReflectionPad2D(HybridBlock):
    """Pad height and width with the reflection of the border."""

    def __init__(self, padding: Any = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(padding, int):
            padding = (0, 0, 0, 0, padding, padding, padding, padding)
        if len(padding) != 8:
            raise AssertionError("padding is one number, or eight: before and after each of four axes")
        self._padding = tuple(padding)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The operator Pad."""
        return F.pad(x, mode="reflect", pad_width=self._padding)
