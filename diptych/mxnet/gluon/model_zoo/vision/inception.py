"""Inception version 3 (Szegedy et al., arXiv 1512.00567)."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon import nn
from diptych.mxnet.gluon.block import HybridBlock
from diptych.mxnet.gluon.contrib.nn import HybridConcurrent
from diptych.mxnet.gluon.model_zoo.model_store import load_pretrained

__all__ = ["Inception3", "inception_v3"]

Setting = tuple[Any, ...]  # channels, kernel, stride, padding


def _conv(channels: int, kernel: Any, stride: Any = 1, padding: Any = 0) -> Any:
    out = nn.HybridSequential(prefix="")
    out.add(nn.Conv2D(channels, kernel, stride, padding, use_bias=False), nn.BatchNorm(epsilon=0.001), nn.Activation("relu"))
    return out


def _branch(pool: str, *settings: Setting) -> Any:
    out = nn.HybridSequential(prefix="")
    if pool == "avg":
        out.add(nn.AvgPool2D(pool_size=3, strides=1, padding=1))
    elif pool == "max":
        out.add(nn.MaxPool2D(pool_size=3, strides=2))
    for s in settings:
        out.add(_conv(*s))
    return out


def _across(n: int) -> Setting:
    return n, (1, 7), 1, (0, 3)


def _down(n: int) -> Setting:
    return n, (7, 1), 1, (3, 0)


def _join(prefix: str, *branches: Any) -> Any:
    out = HybridConcurrent(axis=1, prefix=prefix)
    with out.name_scope():
        for make in branches:
            out.add(make())
    return out


def _a(pooled: int, prefix: str) -> Any:
    return _join(prefix, lambda: _branch("", (64, 1)), lambda: _branch("", (48, 1), (64, 5, 1, 2)),
                 lambda: _branch("", (64, 1), (96, 3, 1, 1), (96, 3, 1, 1)), lambda: _branch("avg", (pooled, 1)))  # fmt: skip


def _b(prefix: str) -> Any:
    return _join(prefix, lambda: _branch("", (384, 3, 2)), lambda: _branch("", (64, 1), (96, 3, 1, 1), (96, 3, 2)),
                 lambda: _branch("max"))  # fmt: skip


def _c(n: int, prefix: str) -> Any:
    return _join(prefix, lambda: _branch("", (192, 1)), lambda: _branch("", (n, 1), _across(n), _down(192)),
                 lambda: _branch("", (n, 1), _down(n), _across(n), _down(n), _across(192)), lambda: _branch("avg", (192, 1)))  # fmt: skip


def _d(prefix: str) -> Any:
    return _join(prefix, lambda: _branch("", (192, 1), (320, 3, 2)), lambda: _branch("", (192, 1), _across(192), _down(192), (192, 3, 2)),
                 lambda: _branch("max"))  # fmt: skip


def _e(prefix: str) -> Any:
    def split(*settings: Setting) -> Any:
        out = nn.HybridSequential(prefix="")
        out.add(_branch("", *settings))
        fork = HybridConcurrent(axis=1, prefix="")
        fork.add(_branch("", (384, (1, 3), 1, (0, 1))), _branch("", (384, (3, 1), 1, (1, 0))))
        out.add(fork)
        return out

    return _join(prefix, lambda: _branch("", (320, 1)), lambda: split((384, 1)), lambda: split((448, 1), (384, 3, 1, 1)),
                 lambda: _branch("avg", (192, 1)))  # fmt: skip


class Inception3(HybridBlock):
    """The network for images of 299 x 299."""

    def __init__(self, classes: int = 1000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            self.features.add(
                _conv(32, 3, 2), _conv(32, 3), _conv(64, 3, 1, 1), nn.MaxPool2D(pool_size=3, strides=2), _conv(80, 1), _conv(192, 3),
                nn.MaxPool2D(pool_size=3, strides=2), _a(32, "A1_"), _a(64, "A2_"), _a(64, "A3_"), _b("B_"), _c(128, "C1_"),
                _c(160, "C2_"), _c(160, "C3_"), _c(192, "C4_"), _d("D_"), _e("E1_"), _e("E2_"), nn.AvgPool2D(pool_size=8),
                nn.Dropout(0.5),
            )  # fmt: skip
            self.output = nn.Dense(classes)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The network."""
        return self.output(self.features(x))


def inception_v3(pretrained: bool = False, ctx: Any = None, root: str | None = None, **kwargs: Any) -> Inception3:
    """Inception version 3."""
    net = Inception3(**kwargs)
    if pretrained:
        load_pretrained(net, "inceptionv3", ctx, root)
    return net
