"""MXNet's operators as the imperative and symbolic interfaces call them: signatures and prepared callables."""

from __future__ import annotations

__all__ = ["load_all"]


def load_all() -> None:
    """Fill the tables of `diptych.mxnet.ops.live`."""
    from diptych.mxnet.ops import (  # noqa: F401
        contrib_ops,
        ctc,
        densities,
        image_ops,
        image_random,
        linalg,
        numpy_linalg,
        random_ops,
        training,
        update,
        vision_ops,
    )
