"""`mx.npx.image`: the operators of `mx.nd.image` on mx.np arrays and symbols."""

from __future__ import annotations

from typing import Any

from diptych.mxnet import numpy_extension

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    return numpy_extension.function_of(f"_image_{name}", f"npx.image.{name}")
