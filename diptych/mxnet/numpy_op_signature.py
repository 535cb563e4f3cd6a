"""Where the operators registered under NumPy's names are found as functions."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["builtin_op"]


def builtin_op(op_name: str) -> Any:
    """The function of `mx.np` or `mx.npx` for an operator named `_np_X` or `_npx_X`; None for other names.

    >>> from diptych.mxnet import np
    >>> builtin_op("_np_sum") is np.sum, builtin_op("Concat")
    (True, None)
    """
    for prefix, module in (("_npx_", "numpy_extension"), ("_np_", "numpy")):
        if op_name.startswith(prefix):
            name = op_name.removeprefix(prefix)
            found = getattr(importlib.import_module(f"diptych.mxnet.{module}"), name, None)
            if found is None:
                raise ValueError(f"mx.{module} has no operator {name}")
            return found
    return None


_get_builtin_op = builtin_op
