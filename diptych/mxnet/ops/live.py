"""Forms of operators beside those of inference: training, operators with state or randomness, operators in Python.

`TRAINING` replaces the converter of `diptych.frontends.mxnet` under `autograd.train_mode` and for is_train=True;
`LIVE` holds operators that only a running program has (optimizer steps, random numbers); `HOSTS` those that are no part
of a graph because the shape of their result depends on the data, or their parameters are drawn from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from diptych.frontends.mxnet.convert import Converter

__all__ = ["HOSTS", "HOST_GRADIENTS", "HOST_SHAPES", "LIVE", "OPEN_COUNT", "TRAINING", "host", "host_gradient", "live", "training"]

TRAINING: dict[str, Converter] = {}
LIVE: dict[str, Converter] = {}
HOSTS: dict[str, Callable[..., Any]] = {}
HOST_SHAPES: dict[str, Callable[..., Any]] = {}
HOST_GRADIENTS: dict[str, Callable[..., Any]] = {}
OPEN_COUNT: frozenset[str] = frozenset({
    "multi_sgd_update", "multi_sgd_mom_update", "multi_mp_sgd_update", "multi_mp_sgd_mom_update",
    "preloaded_multi_sgd_update", "preloaded_multi_sgd_mom_update", "_multi_lamb_update", "_multi_adamw_update",
    "amp_multicast", "multi_sum_sq", "_contrib_box_encode", "_sample_multinomial", "Custom",
})  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


def training(*names: str) -> Callable[[F], F]:
    """Register the training form of operators."""

    def register(f: F) -> F:
        for name in names:
            TRAINING[name] = f
        return f

    return register


def live(*names: str) -> Callable[[F], F]:
    """Register operators that exist in running programs only."""

    def register(f: F) -> F:
        for name in names:
            LIVE[name] = f
        return f

    return register


def host(*names: str, shape: Callable[..., Any] | None = None) -> Callable[[F], F]:
    """Register operators computed by a Python function `f(attributes, *arrays) -> arrays`.

    `shape` gives the list of result shapes from `(attributes, *shapes)` where running it on ones would not tell them.
    """

    def register(f: F) -> F:
        for name in names:
            HOSTS[name] = f
            if shape is not None:
                HOST_SHAPES[name] = shape
        return f

    return register


def host_gradient(*names: str) -> Callable[[F], F]:
    """Register the gradient of a host operator: `f(attributes, arrays, results, gradients) -> gradients of arrays`."""

    def register(f: F) -> F:
        for name in names:
            HOST_GRADIENTS[name] = f
        return f

    return register
