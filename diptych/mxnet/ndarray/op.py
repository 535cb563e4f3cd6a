"""The operators of `mx.nd.op`, made from their signatures when they are first asked for."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.ndarray.register import module_getattr, public_names_of

_lookup = module_getattr("op")


def __getattr__(name: str) -> Any:
    return _lookup(name)


def __dir__() -> list[str]:
    return sorted(public_names_of("op"))
