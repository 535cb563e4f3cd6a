"""The API of Apache MXNet 1.x without libmxnet: `import diptych.mxnet as mx`."""

from __future__ import annotations

import importlib
from typing import Any

from diptych.mxnet import autograd, base, context, ndarray, random, util
from diptych.mxnet import ndarray as nd
from diptych.mxnet.base import MXNetError
from diptych.mxnet.context import Context, cpu, cpu_pinned, current_context, device, gpu, gpu_memory_info, num_gpus
from diptych.mxnet.ndarray.ndarray import NDArray, waitall
from diptych.mxnet.ops import load_all
from diptych.mxnet.util import (
    is_np_array,
    is_np_shape,
    np_array,
    np_shape,
    set_np_shape,
    use_np,
    use_np_array,
    use_np_shape,
)

__all__ = [
    "Context", "MXNetError", "NDArray", "autograd", "base", "context", "cpu", "cpu_pinned", "current_context", "device",
    "gpu", "gpu_memory_info", "is_np_array", "is_np_shape", "nd", "ndarray", "np_array", "np_shape", "num_gpus", "random",
    "set_np_shape", "use_np", "use_np_array", "use_np_shape", "util", "waitall",
]  # fmt: skip

__version__ = "1.9.1"  # of the API; `diptych.__version__` is that of the implementation

load_all()

# Parts of the API that are imported when they are first asked for, by the names they have there.
_LAZY = {
    "attribute": "attribute", "name": "name", "symbol": "symbol", "sym": "symbol", "executor": "executor",
    "gluon": "gluon", "optimizer": "optimizer", "opt": "optimizer", "lr_scheduler": "lr_scheduler", "metric": "metric",
    "initializer": "initializer", "init": "initializer", "io": "io", "recordio": "recordio", "image": "image",
    "img": "image", "module": "module", "mod": "module", "model": "model", "callback": "callback", "monitor": "monitor",
    "mon": "monitor", "visualization": "visualization", "viz": "visualization", "profiler": "profiler",
    "kvstore": "kvstore", "kv": "kvstore", "test_utils": "test_utils", "rnn": "rnn", "operator": "operator",
    "np": "numpy", "numpy": "numpy", "npx": "numpy_extension", "numpy_extension": "numpy_extension", "contrib": "contrib",
    "runtime": "runtime", "engine": "engine", "log": "log", "executor_manager": "executor_manager", "rnd": "random", "error": "error", "registry": "registry", "libinfo": "libinfo",
}  # fmt: skip
_FROM = {
    "AttrScope": "attribute", "Executor": "executor", "Symbol": "symbol.symbol", "NameManager": "name",
    "FeedForward": "model", "Monitor": "monitor",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        found = importlib.import_module(f"diptych.mxnet.{_LAZY[name]}")
    elif name in _FROM:
        found = getattr(importlib.import_module(f"diptych.mxnet.{_FROM[name]}"), name)
    else:
        raise AttributeError(f"module 'diptych.mxnet' has no attribute {name!r}")
    globals()[name] = found
    return found
