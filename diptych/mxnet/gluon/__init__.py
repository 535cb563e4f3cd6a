"""`mx.gluon`: networks as objects that run at once, or as compiled graphs after `hybridize()`."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon import loss, nn, rnn, utils
from diptych.mxnet.gluon.block import Block, HybridBlock, SymbolBlock
from diptych.mxnet.gluon.parameter import Constant, DeferredInitializationError, Parameter, tensor_types
from diptych.mxnet.gluon.parameter_dict import ParameterDict
from diptych.mxnet.gluon.trainer import Trainer

__all__ = [
    "Block", "Constant", "DeferredInitializationError", "HybridBlock", "Parameter", "ParameterDict", "SymbolBlock", "Trainer",
    "contrib", "data", "loss", "model_zoo", "nn", "rnn", "tensor_types", "utils",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ("data", "model_zoo", "contrib"):  # imported when they are first asked for
        import importlib

        return importlib.import_module(f"diptych.mxnet.gluon.{name}")
    raise AttributeError(f"module 'diptych.mxnet.gluon' has no attribute {name!r}")
