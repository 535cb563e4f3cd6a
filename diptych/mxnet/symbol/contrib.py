"""`mx.sym.contrib`: operators of the `_contrib_` prefix, and control flow."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.symbol.control_flow import cond, foreach, while_loop
from diptych.mxnet.symbol.register import module_getattr

__all__ = ["cond", "foreach", "while_loop"]

_lookup = module_getattr("contrib")


def __getattr__(name: str) -> Any:
    return _lookup(name)
