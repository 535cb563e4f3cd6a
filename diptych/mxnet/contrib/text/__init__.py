"""`mx.contrib.text`: vocabularies and counts of tokens. Pretrained embeddings are not there, their servers are gone."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.contrib.text import utils, vocab

__all__ = ["utils", "vocab"]


def __getattr__(name: str) -> Any:
    if name == "embedding":
        raise AttributeError("mx.contrib.text.embedding is not part of diptych.mxnet: load the vectors, and set_data them into an Embedding")
    raise AttributeError(f"module 'diptych.mxnet.contrib.text' has no attribute {name!r}")
