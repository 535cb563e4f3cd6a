"""`mx.contrib`: the operators under `mx.contrib.nd` and `mx.contrib.sym`, and what else old scripts take from here."""

from __future__ import annotations

import importlib
from typing import Any

_PARTS = {"nd": "diptych.mxnet.ndarray.contrib", "ndarray": "diptych.mxnet.ndarray.contrib", "sym": "diptych.mxnet.symbol.contrib",
          "symbol": "diptych.mxnet.symbol.contrib", "amp": "diptych.mxnet.contrib.amp", "autograd": "diptych.mxnet.contrib.autograd", "io": "diptych.mxnet.contrib.io", "text": "diptych.mxnet.contrib.text",
          "svrg_optimization": "diptych.mxnet.contrib.svrg_optimization", "tensorboard": "diptych.mxnet.contrib.tensorboard"}  # fmt: skip
_ABSENT = {"onnx": "export a checkpoint with diptych's own tools", "quantization": "int8 models are not made here",
           "tensorrt": "it needs a GPU"}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(_PARTS[name])
    if name in _ABSENT:
        raise AttributeError(f"mx.contrib.{name} is not part of diptych.mxnet: {_ABSENT[name]}")
    raise AttributeError(f"module 'diptych.mxnet.contrib' has no attribute {name!r}")
