"""`mx.error`: the errors of the package under MXNet's names."""

from __future__ import annotations

from diptych.mxnet.base import MXNetError

__all__ = ["InternalError", "MXNetError"]


class InternalError(MXNetError):
    """An error inside of the implementation."""
