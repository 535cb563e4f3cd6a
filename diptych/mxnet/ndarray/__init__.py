"""`mx.nd`: arrays and the operators on them, carried out at once."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.ndarray import _internal, contrib, image, linalg, op, random, sparse
from diptych.mxnet.ndarray.create import *  # noqa: F403
from diptych.mxnet.ndarray.ndarray import NDArray, waitall
from diptych.mxnet.ndarray.register import function, public_names_of
from diptych.mxnet.ndarray.serialize import load, load_frombuffer, save
from diptych.mxnet.ndarray.sparse import CSRNDArray, RowSparseNDArray

__all__ = [
    "CSRNDArray", "NDArray", "RowSparseNDArray", "_internal", "contrib", "image", "linalg", "load", "load_frombuffer",
    "op", "random", "save", "sparse", "waitall",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "CachedOp":
        from diptych.mxnet.cached_op import CachedOp

        return CachedOp
    if name in ("np", "npx"):
        import importlib

        made = importlib.import_module("diptych.mxnet.numpy" if name == "np" else "diptych.mxnet.numpy_extension")
        globals()[name] = made
        return made
    found = public_names_of("op").get(name) or public_names_of("_internal").get(name)
    if found is None:
        raise AttributeError(f"module 'diptych.mxnet.ndarray' has no attribute {name!r}")
    return function(found)


def __dir__() -> list[str]:
    return sorted({*globals(), *public_names_of("op")})
