"""Residual networks, versions 1 and 2 (He et al., arXiv 1512.03385 and 1603.05027)."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon import nn
from diptych.mxnet.gluon.block import HybridBlock
from diptych.mxnet.gluon.model_zoo.model_store import load_pretrained

__all__ = [
    "BasicBlockV1", "BasicBlockV2", "BottleneckV1", "BottleneckV2", "ResNetV1", "ResNetV2", "get_resnet", "resnet18_v1",
    "resnet18_v2", "resnet34_v1", "resnet34_v2", "resnet50_v1", "resnet50_v2", "resnet101_v1", "resnet101_v2", "resnet152_v1",
    "resnet152_v2",
]  # fmt: skip


def _conv3x3(channels: int, stride: int, in_channels: int) -> Any:
    return nn.Conv2D(channels, kernel_size=3, strides=stride, padding=1, use_bias=False, in_channels=in_channels)


class _BlockV1(HybridBlock):
    """relu(body(x) + x), x through a 1 x 1 convolution where the shape changes."""

    _residual_first = True  # the order of the operands decides that of the nodes in symbol files

    def __init__(self, channels: int, stride: int, downsample: bool = False, in_channels: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.body = nn.HybridSequential(prefix="")
        self.body.add(*self._layers(channels, stride, in_channels))
        if downsample:
            self.downsample: Any = nn.HybridSequential(prefix="")
            self.downsample.add(nn.Conv2D(channels, kernel_size=1, strides=stride, use_bias=False, in_channels=in_channels),
                                nn.BatchNorm())  # fmt: skip
        else:
            self.downsample = None

    def _layers(self, channels: int, stride: int, in_channels: int) -> list[Any]:
        raise NotImplementedError

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The block."""
        y = self.body(x)
        residual = x if self.downsample is None else self.downsample(x)
        return F.Activation(residual + y if self._residual_first else y + residual, act_type="relu")


class BasicBlockV1(_BlockV1):
    """Two 3 x 3 convolutions."""

    def _layers(self, channels: int, stride: int, in_channels: int) -> list[Any]:
        return [_conv3x3(channels, stride, in_channels), nn.BatchNorm(), nn.Activation("relu"), _conv3x3(channels, 1, channels),
                nn.BatchNorm()]  # fmt: skip


class BottleneckV1(_BlockV1):
    """1 x 1, 3 x 3 and 1 x 1 convolutions."""

    _residual_first = False

    def _layers(self, channels: int, stride: int, in_channels: int) -> list[Any]:
        narrow = channels // 4
        return [nn.Conv2D(narrow, kernel_size=1, strides=stride), nn.BatchNorm(), nn.Activation("relu"), _conv3x3(narrow, 1, narrow),
                nn.BatchNorm(), nn.Activation("relu"), nn.Conv2D(channels, kernel_size=1, strides=1), nn.BatchNorm()]  # fmt: skip


class _BlockV2(HybridBlock):
    """Normalisation and relu before each convolution."""

    def _project(self, channels: int, stride: int, downsample: bool, in_channels: int) -> None:
        self.downsample = nn.Conv2D(channels, 1, stride, use_bias=False, in_channels=in_channels) if downsample else None

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The block."""
        residual = x
        for i, (bn, conv) in enumerate(self._pairs()):
            x = F.Activation(bn(x), act_type="relu")
            if i == 0 and self.downsample is not None:
                residual = self.downsample(x)
            x = conv(x)
        return x + residual

    def _pairs(self) -> list[tuple[Any, Any]]:
        raise NotImplementedError


class BasicBlockV2(_BlockV2):
    """Two 3 x 3 convolutions."""

    def __init__(self, channels: int, stride: int, downsample: bool = False, in_channels: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bn1 = nn.BatchNorm()
        self.conv1 = _conv3x3(channels, stride, in_channels)
        self.bn2 = nn.BatchNorm()
        self.conv2 = _conv3x3(channels, 1, channels)
        self._project(channels, stride, downsample, in_channels)

    def _pairs(self) -> list[tuple[Any, Any]]:
        return [(self.bn1, self.conv1), (self.bn2, self.conv2)]


class BottleneckV2(_BlockV2):
    """1 x 1, 3 x 3 and 1 x 1 convolutions."""

    def __init__(self, channels: int, stride: int, downsample: bool = False, in_channels: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        narrow = channels // 4
        self.bn1 = nn.BatchNorm()
        self.conv1 = nn.Conv2D(narrow, kernel_size=1, strides=1, use_bias=False)
        self.bn2 = nn.BatchNorm()
        self.conv2 = _conv3x3(narrow, stride, narrow)
        self.bn3 = nn.BatchNorm()
        self.conv3 = nn.Conv2D(channels, kernel_size=1, strides=1, use_bias=False)
        self._project(channels, stride, downsample, in_channels)

    def _pairs(self) -> list[tuple[Any, Any]]:
        return [(self.bn1, self.conv1), (self.bn2, self.conv2), (self.bn3, self.conv3)]


class _ResNet(HybridBlock):
    """`features` and `output`; `thumbnail` has no stride at the beginning, for small images."""

    features: Any
    output: Any

    def __init__(self, block: Any, layers: list[int], channels: list[int], classes: int = 1000, thumbnail: bool = False,
                 **kwargs: Any) -> None:  # fmt: skip
        super().__init__(**kwargs)
        if len(layers) != len(channels) - 1:
            raise AssertionError("one extent of channels more than layers")
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            self._begin(channels[0], thumbnail)
            self._stages(block, layers, channels)
            self._end()
            self.output = nn.Dense(classes, in_units=channels[-1])

    def _end(self) -> None:
        raise NotImplementedError

    def _begin(self, channels: int, thumbnail: bool) -> None:
        if thumbnail:
            self.features.add(_conv3x3(channels, 1, 0))
        else:
            self.features.add(nn.Conv2D(channels, 7, 2, 3, use_bias=False), nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(3, 2, 1))

    def _stages(self, block: Any, layers: list[int], channels: list[int]) -> None:
        for i, count in enumerate(layers):
            stage = nn.HybridSequential(prefix=f"stage{i + 1}_")
            wide, before = channels[i + 1], channels[i]
            with stage.name_scope():
                stage.add(block(wide, 1 if i == 0 else 2, wide != before, in_channels=before, prefix=""))
                for _ in range(count - 1):
                    stage.add(block(wide, 1, False, in_channels=wide, prefix=""))
            self.features.add(stage)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The network."""
        return self.output(self.features(x))


class ResNetV1(_ResNet):
    """A residual network of version 1."""

    def _end(self) -> None:
        self.features.add(nn.GlobalAvgPool2D())


class ResNetV2(_ResNet):
    """A residual network of version 2."""

    def _begin(self, channels: int, thumbnail: bool) -> None:
        self.features.add(nn.BatchNorm(scale=False, center=False))
        super()._begin(channels, thumbnail)

    def _end(self) -> None:
        self.features.add(nn.BatchNorm(), nn.Activation("relu"), nn.GlobalAvgPool2D(), nn.Flatten())


_BASIC, _WIDE = [64, 64, 128, 256, 512], [64, 256, 512, 1024, 2048]
resnet_spec: dict[int, tuple[str, list[int], list[int]]] = {
    18: ("basic_block", [2, 2, 2, 2], _BASIC), 34: ("basic_block", [3, 4, 6, 3], _BASIC),
    50: ("bottle_neck", [3, 4, 6, 3], _WIDE), 101: ("bottle_neck", [3, 4, 23, 3], _WIDE), 152: ("bottle_neck", [3, 8, 36, 3], _WIDE),
}  # fmt: skip
_VERSIONS: list[tuple[Any, dict[str, Any]]] = [
    (ResNetV1, {"basic_block": BasicBlockV1, "bottle_neck": BottleneckV1}),
    (ResNetV2, {"basic_block": BasicBlockV2, "bottle_neck": BottleneckV2}),
]


def get_resnet(version: int, num_layers: int, pretrained: bool = False, ctx: Any = None, root: str | None = None, **kwargs: Any) -> Any:
    """A residual network of 18, 34, 50, 101 or 152 layers."""
    if num_layers not in resnet_spec:
        raise AssertionError(f"Invalid number of layers: {num_layers}. Options are {list(resnet_spec)}")
    if version not in (1, 2):
        raise AssertionError(f"Invalid resnet version: {version}. Options are 1 and 2.")
    kind, layers, channels = resnet_spec[num_layers]
    network, blocks = _VERSIONS[version - 1]
    net = network(blocks[kind], layers, channels, **kwargs)
    if pretrained:
        load_pretrained(net, f"resnet{num_layers}_v{version}", ctx, root)
    return net


def _named(layers: int, version: int) -> Any:
    def make(**kwargs: Any) -> Any:
        return get_resnet(version, layers, **kwargs)

    make.__name__ = f"resnet{layers}_v{version}"
    make.__doc__ = f"The residual network of {layers} layers, version {version}."
    return make


resnet18_v1, resnet18_v2 = _named(18, 1), _named(18, 2)
resnet34_v1, resnet34_v2 = _named(34, 1), _named(34, 2)
resnet50_v1, resnet50_v2 = _named(50, 1), _named(50, 2)
resnet101_v1, resnet101_v2 = _named(101, 1), _named(101, 2)
resnet152_v1, resnet152_v2 = _named(152, 1), _named(152, 2)
