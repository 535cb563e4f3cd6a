"""`mx.sym.npx`: the functions of `mx.npx` on symbols."""

from __future__ import annotations

from functools import partial
from typing import Any

from diptych.mxnet.symbol.np_deferred import deferred

__all__ = ["random"]


class _Random:
    """`mx.sym.npx.random`: nodes that draw when the graph runs."""

    def __getattr__(self, name: str) -> Any:
        from diptych.mxnet import numpy_random_extension

        getattr(numpy_random_extension, name)  # an AttributeError where it is not there
        return partial(deferred, f"npx.random.{name}")


random = _Random()
_DEFERRED = frozenset({"constraint_check", "nonzero", "index_update", "index_add"})


def __getattr__(name: str) -> Any:
    from diptych.mxnet import numpy_extension

    found = getattr(numpy_extension, name)
    return partial(deferred, f"npx.{name}") if name in _DEFERRED else found
