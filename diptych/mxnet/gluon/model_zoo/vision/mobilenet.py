"""MobileNet, versions 1 and 2 (Howard et al., arXiv 1704.04861; Sandler et al., arXiv 1801.04381)."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon import nn
from diptych.mxnet.gluon.block import HybridBlock
from diptych.mxnet.gluon.model_zoo.model_store import load_pretrained

__all__ = [
    "MobileNet", "MobileNetV2", "get_mobilenet", "get_mobilenet_v2", "mobilenet0_5", "mobilenet0_25", "mobilenet0_75", "mobilenet1_0",
    "mobilenet_v2_0_5", "mobilenet_v2_0_25", "mobilenet_v2_0_75", "mobilenet_v2_1_0",
]  # fmt: skip


class RELU6(HybridBlock):
    """x between 0 and 6."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The operator clip."""
        return F.clip(x, 0, 6, name="relu6")


def _add_conv(out: Any, channels: int = 1, kernel: int = 1, stride: int = 1, pad: int = 0, num_group: int = 1, active: bool = True,
              relu6: bool = False) -> None:  # fmt: skip
    out.add(nn.Conv2D(channels, kernel, stride, pad, groups=num_group, use_bias=False), nn.BatchNorm(scale=True))
    if active:
        out.add(RELU6() if relu6 else nn.Activation("relu"))


class LinearBottleneck(HybridBlock):
    """Widen t times, filter each channel, narrow again; the input is added where the shape stays."""

    def __init__(self, in_channels: int, channels: int, t: int, stride: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.use_shortcut = stride == 1 and in_channels == channels
        with self.name_scope():
            self.out = nn.HybridSequential()
            _add_conv(self.out, in_channels * t, relu6=True)
            _add_conv(self.out, in_channels * t, kernel=3, stride=stride, pad=1, num_group=in_channels * t, relu6=True)
            _add_conv(self.out, channels, active=False, relu6=True)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The block."""
        out = self.out(x)
        return F.elemwise_add(out, x) if self.use_shortcut else out


class MobileNet(HybridBlock):
    """Convolutions of each channel alone and of 1 x 1; `multiplier` scales the numbers of channels."""

    def __init__(self, multiplier: float = 1.0, classes: int = 1000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        wide = [int(c * multiplier) for c in (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)]
        first = int(32 * multiplier)
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            with self.features.name_scope():
                _add_conv(self.features, first, kernel=3, pad=1, stride=2)
                for before, channels, stride in zip([first, *wide], wide, (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)):
                    _add_conv(self.features, before, kernel=3, stride=stride, pad=1, num_group=before)
                    _add_conv(self.features, channels)
                self.features.add(nn.GlobalAvgPool2D(), nn.Flatten())
            self.output = nn.Dense(classes)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The network."""
        return self.output(self.features(x))


class MobileNetV2(HybridBlock):
    """Linear bottlenecks; `multiplier` scales the numbers of channels."""

    def __init__(self, multiplier: float = 1.0, classes: int = 1000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        plan = [(16, 1, 1), *[(24, 6, 2), (24, 6, 1)], *[(32, 6, 2), (32, 6, 1), (32, 6, 1)], *[(64, 6, 2), *[(64, 6, 1)] * 3],
                *[(96, 6, 1)] * 3, *[(160, 6, 2), (160, 6, 1), (160, 6, 1)], (320, 6, 1)]  # fmt: skip
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="features_")
            with self.features.name_scope():
                before = int(32 * multiplier)
                _add_conv(self.features, before, kernel=3, stride=2, pad=1, relu6=True)
                for channels, t, stride in plan:
                    channels = int(channels * multiplier)
                    self.features.add(LinearBottleneck(before, channels, t, stride))
                    before = channels
                _add_conv(self.features, int(1280 * multiplier) if multiplier > 1.0 else 1280, relu6=True)
                self.features.add(nn.GlobalAvgPool2D())
            self.output = nn.HybridSequential(prefix="output_")
            with self.output.name_scope():
                self.output.add(nn.Conv2D(classes, 1, use_bias=False, prefix="pred_"), nn.Flatten())

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The network."""
        return self.output(self.features(x))


def _suffix(multiplier: float) -> str:
    text = f"{multiplier:.2f}"
    return text[:-1] if text in ("1.00", "0.50") else text


def get_mobilenet(multiplier: float, pretrained: bool = False, ctx: Any = None, root: str | None = None, **kwargs: Any) -> MobileNet:
    """MobileNet, version 1."""
    net = MobileNet(multiplier, **kwargs)
    if pretrained:
        load_pretrained(net, f"mobilenet{_suffix(multiplier)}", ctx, root)
    return net


def get_mobilenet_v2(multiplier: float, pretrained: bool = False, ctx: Any = None, root: str | None = None,
                     **kwargs: Any) -> MobileNetV2:  # fmt: skip
    """MobileNet, version 2."""
    net = MobileNetV2(multiplier, **kwargs)
    if pretrained:
        load_pretrained(net, f"mobilenetv2_{_suffix(multiplier)}", ctx, root)
    return net


def _named(get: Any, name: str, multiplier: float) -> Any:
    def make(**kwargs: Any) -> Any:
        return get(multiplier, **kwargs)

    make.__name__, make.__doc__ = name, f"MobileNet with {multiplier} times the channels."
    return make


mobilenet1_0, mobilenet0_75 = _named(get_mobilenet, "mobilenet1_0", 1.0), _named(get_mobilenet, "mobilenet0_75", 0.75)
mobilenet0_5, mobilenet0_25 = _named(get_mobilenet, "mobilenet0_5", 0.5), _named(get_mobilenet, "mobilenet0_25", 0.25)
mobilenet_v2_1_0 = _named(get_mobilenet_v2, "mobilenet_v2_1_0", 1.0)
mobilenet_v2_0_75 = _named(get_mobilenet_v2, "mobilenet_v2_0_75", 0.75)
mobilenet_v2_0_5 = _named(get_mobilenet_v2, "mobilenet_v2_0_5", 0.5)
mobilenet_v2_0_25 = _named(get_mobilenet_v2, "mobilenet_v2_0_25", 0.25)
