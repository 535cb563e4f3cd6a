"""The networks of the Visual Geometry Group (Simonyan and Zisserman, arXiv 1409.1556)."""

from __future__ import annotations

from typing import Any

from diptych.mxnet import initializer
from diptych.mxnet.gluon import nn
from diptych.mxnet.gluon.block import HybridBlock
from diptych.mxnet.gluon.model_zoo.model_store import load_pretrained

__all__ = ["VGG", "get_vgg", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]


class VGG(HybridBlock):
    """`layers[i]` convolutions of `filters[i]` channels, five times, and three dense layers."""

    def __init__(self, layers: list[int], filters: list[int], classes: int = 1000, batch_norm: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            for count, channels in zip(layers, filters, strict=True):
                for _ in range(count):
                    self.features.add(nn.Conv2D(channels, kernel_size=3, padding=1, bias_initializer="zeros", weight_initializer=initializer
                                                .Xavier(rnd_type="gaussian", factor_type="out", magnitude=2)))  # fmt: skip
                    if batch_norm:
                        self.features.add(nn.BatchNorm())
                    self.features.add(nn.Activation("relu"))
                self.features.add(nn.MaxPool2D(strides=2))
            for _ in range(2):
                self.features.add(nn.Dense(4096, activation="relu", weight_initializer="normal", bias_initializer="zeros"),
                                  nn.Dropout(rate=0.5))  # fmt: skip
            self.output = nn.Dense(classes, weight_initializer="normal", bias_initializer="zeros")

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The network."""
        return self.output(self.features(x))


vgg_spec = {n: (layers, [64, 128, 256, 512, 512]) for n, layers in
            ((11, [1, 1, 2, 2, 2]), (13, [2, 2, 2, 2, 2]), (16, [2, 2, 3, 3, 3]), (19, [2, 2, 4, 4, 4]))}  # fmt: skip


def get_vgg(num_layers: int, pretrained: bool = False, ctx: Any = None, root: str | None = None, **kwargs: Any) -> VGG:
    """The network of 11, 13, 16 or 19 layers; batch_norm=True normalises after every convolution."""
    net = VGG(*vgg_spec[num_layers], **kwargs)
    if pretrained:
        load_pretrained(net, f"vgg{num_layers}{'_bn' if kwargs.get('batch_norm') else ''}", ctx, root)
    return net


def _named(layers: int, batch_norm: bool) -> Any:
    def make(**kwargs: Any) -> VGG:
        return get_vgg(layers, **{**kwargs, "batch_norm": True} if batch_norm else kwargs)

    make.__name__ = f"vgg{layers}{'_bn' if batch_norm else ''}"
    make.__doc__ = f"The network of {layers} layers{', with batch normalisation' if batch_norm else ''}."
    return make


vgg11, vgg11_bn = _named(11, False), _named(11, True)
vgg13, vgg13_bn = _named(13, False), _named(13, True)
vgg16, vgg16_bn = _named(16, False), _named(16, True)
vgg19, vgg19_bn = _named(19, False), _named(19, True)
