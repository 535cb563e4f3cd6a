"""The calls of automatic mixed precision."""

from __future__ import annotations

from typing import Any, NoReturn

from diptych.mxnet.base import MXNetError

__all__ = ["convert_hybrid_block", "convert_model", "init", "init_trainer", "scale_loss", "unscale"]


def _refuse(call: str) -> NoReturn:
    raise MXNetError(f"amp.{call}: automatic mixed precision speeds up GPUs; here programs run in float32. Leave the call out; "
                     "float16 weights with float32 updates are had by multi_precision=True of the optimizers.")  # fmt: skip


def init(*args: Any, **kwargs: Any) -> None:
    """An error: see the module."""
    _refuse("init")


def init_trainer(*args: Any, **kwargs: Any) -> None:
    """An error: see the module."""
    _refuse("init_trainer")


def scale_loss(*args: Any, **kwargs: Any) -> Any:
    """An error: see the module."""
    _refuse("scale_loss")


def unscale(*args: Any, **kwargs: Any) -> None:
    """An error: see the module."""
    _refuse("unscale")


def convert_model(*args: Any, **kwargs: Any) -> Any:
    """An error: see the module."""
    _refuse("convert_model")


def convert_hybrid_block(*args: Any, **kwargs: Any) -> Any:
    """An error: see the module."""
    _refuse("convert_hybrid_block")
