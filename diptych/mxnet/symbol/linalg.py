"""The operators of `mx.sym.linalg`, made from their signatures when they are first asked for."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.symbol.register import module_getattr

_lookup = module_getattr("linalg")


def __getattr__(name: str) -> Any:
    return _lookup(name)
