"""Densely connected networks (Huang et al., arXiv 1608.06993)."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon import nn
from diptych.mxnet.gluon.block import HybridBlock
from diptych.mxnet.gluon.contrib.nn import HybridConcurrent, Identity
from diptych.mxnet.gluon.model_zoo.model_store import load_pretrained

__all__ = ["DenseNet", "densenet121", "densenet161", "densenet169", "densenet201", "get_densenet"]


def _layer(growth: int, bn_size: int, dropout: float) -> Any:
    new = nn.HybridSequential(prefix="")
    new.add(nn.BatchNorm(), nn.Activation("relu"), nn.Conv2D(bn_size * growth, kernel_size=1, use_bias=False), nn.BatchNorm(),
            nn.Activation("relu"), nn.Conv2D(growth, kernel_size=3, padding=1, use_bias=False))  # fmt: skip
    if dropout:
        new.add(nn.Dropout(dropout))
    out = HybridConcurrent(axis=1, prefix="")
    out.add(Identity(), new)
    return out


class DenseNet(HybridBlock):
    """Blocks whose layers each add `growth_rate` channels to what they got."""

    def __init__(self, num_init_features: int, growth_rate: int, block_config: list[int], bn_size: int = 4, dropout: float = 0,
                 classes: int = 1000, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(**kwargs)
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            self.features.add(nn.Conv2D(num_init_features, kernel_size=7, strides=2, padding=3, use_bias=False), nn.BatchNorm(),
                              nn.Activation("relu"), nn.MaxPool2D(pool_size=3, strides=2, padding=1))  # fmt: skip
            channels = num_init_features
            for i, count in enumerate(block_config):
                stage = nn.HybridSequential(prefix=f"stage{i + 1}_")
                with stage.name_scope():
                    for _ in range(count):
                        stage.add(_layer(growth_rate, bn_size, dropout))
                self.features.add(stage)
                channels += count * growth_rate
                if i != len(block_config) - 1:
                    channels //= 2
                    transition = nn.HybridSequential(prefix="")
                    transition.add(nn.BatchNorm(), nn.Activation("relu"), nn.Conv2D(channels, kernel_size=1, use_bias=False),
                                   nn.AvgPool2D(pool_size=2, strides=2))  # fmt: skip
                    self.features.add(transition)
            self.features.add(nn.BatchNorm(), nn.Activation("relu"), nn.AvgPool2D(pool_size=7), nn.Flatten())
            self.output = nn.Dense(classes)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The network."""
        return self.output(self.features(x))


densenet_spec: dict[int, tuple[int, int, list[int]]] = {
    121: (64, 32, [6, 12, 24, 16]), 161: (96, 48, [6, 12, 36, 24]), 169: (64, 32, [6, 12, 32, 32]), 201: (64, 32, [6, 12, 48, 32]),
}  # fmt: skip


def get_densenet(num_layers: int, pretrained: bool = False, ctx: Any = None, root: str | None = None, **kwargs: Any) -> DenseNet:
    """The network of 121, 161, 169 or 201 layers."""
    net = DenseNet(*densenet_spec[num_layers], **kwargs)
    if pretrained:
        load_pretrained(net, f"densenet{num_layers}", ctx, root)
    return net


def _named(layers: int) -> Any:
    def make(**kwargs: Any) -> DenseNet:
        return get_densenet(layers, **kwargs)

    make.__name__, make.__doc__ = f"densenet{layers}", f"The densely connected network of {layers} layers."
    return make


densenet121, densenet161, densenet169, densenet201 = _named(121), _named(161), _named(169), _named(201)
