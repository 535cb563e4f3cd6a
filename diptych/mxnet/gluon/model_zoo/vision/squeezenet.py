"""SqueezeNet (Iandola et al., arXiv 1602.07360)."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon import nn
from diptych.mxnet.gluon.block import HybridBlock
from diptych.mxnet.gluon.contrib.nn import HybridConcurrent
from diptych.mxnet.gluon.model_zoo.model_store import load_pretrained

__all__ = ["SqueezeNet", "get_squeezenet", "squeezenet1_0", "squeezenet1_1"]

# Channels of the squeezing convolution of each fire module; 0 is a pooling.
_FIRES = {"1.0": (16, 16, 32, 0, 32, 48, 48, 64, 0, 64), "1.1": (16, 16, 0, 32, 32, 0, 48, 48, 64, 64)}


def _conv(channels: int, kernel: int, padding: int = 0) -> Any:
    out = nn.HybridSequential(prefix="")
    out.add(nn.Conv2D(channels, kernel, padding=padding), nn.Activation("relu"))
    return out


def _fire(squeeze: int) -> Any:
    out = nn.HybridSequential(prefix="")
    paths = HybridConcurrent(axis=1, prefix="")
    out.add(_conv(squeeze, 1))
    paths.add(_conv(4 * squeeze, 1), _conv(4 * squeeze, 3, 1))
    out.add(paths)
    return out


class SqueezeNet(HybridBlock):
    """Fire modules: few channels, then 1 x 1 and 3 x 3 convolutions side by side; version "1.0" or "1.1"."""

    def __init__(self, version: str, classes: int = 1000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if version not in _FIRES:
            raise AssertionError(f"Unsupported SqueezeNet version {version}: 1.0 or 1.1 expected")
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            first = nn.Conv2D(96, 7, 2) if version == "1.0" else nn.Conv2D(64, 3, 2)
            self.features.add(first, nn.Activation("relu"), nn.MaxPool2D(3, 2, ceil_mode=True))
            for squeeze in _FIRES[version]:
                self.features.add(_fire(squeeze) if squeeze else nn.MaxPool2D(3, 2, ceil_mode=True))
            self.features.add(nn.Dropout(0.5))
            self.output = nn.HybridSequential(prefix="")
            self.output.add(nn.Conv2D(classes, kernel_size=1), nn.Activation("relu"), nn.AvgPool2D(13), nn.Flatten())

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The network."""
        return self.output(self.features(x))


def get_squeezenet(version: str, pretrained: bool = False, ctx: Any = None, root: str | None = None, **kwargs: Any) -> SqueezeNet:
    """SqueezeNet of version "1.0" or "1.1"."""
    net = SqueezeNet(version, **kwargs)
    if pretrained:
        load_pretrained(net, f"squeezenet{version}", ctx, root)
    return net


def squeezenet1_0(**kwargs: Any) -> SqueezeNet:
    """SqueezeNet 1.0."""
    return get_squeezenet("1.0", **kwargs)


def squeezenet1_1(**kwargs: Any) -> SqueezeNet:
    """SqueezeNet 1.1."""
    return get_squeezenet("1.1", **kwargs)
