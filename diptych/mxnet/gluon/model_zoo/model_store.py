"""Where files of pretrained parameters are looked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.mxnet.base import MXNetError, data_dir

if TYPE_CHECKING:
    from diptych.mxnet.gluon.block import Block

__all__ = ["get_model_file", "load_pretrained", "purge"]


def _root(root: str | None) -> Path:
    return Path(root or os.path.join(data_dir(), "models")).expanduser()


def get_model_file(name: str, root: str | None = None) -> str:
    """The file `name-HASH.params` or `name.params` below `root` (MXNET_HOME/models); nothing is downloaded."""
    folder = _root(root)
    found = sorted(folder.glob(f"{name}-*.params")) + sorted(folder.glob(f"{name}.params"))
    if not found:
        raise MXNetError(f"there are no parameters of {name} in {folder}. MXNet's own address for them no longer answers; put "
                         f"{name}-HASH.params there, pass root=, or use pretrained=False")  # fmt: skip
    return str(found[0])


def load_pretrained(net: Block, name: str, ctx: Any, root: str | None) -> None:
    """Load the parameters of a model from the local store."""
    net.load_parameters(get_model_file(name, root), ctx=ctx)


def purge(root: str | None = None) -> None:
    """Delete all files of parameters below `root`."""
    for path in _root(root).glob("*.params"):
        path.unlink()
