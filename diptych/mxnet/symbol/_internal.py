"""The operators of `mx.sym._internal`, made from their signatures when they are first asked for."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.symbol.register import module_getattr

_lookup = module_getattr("_internal")


def __getattr__(name: str) -> Any:
    return _lookup(name)
