"""`mx.contrib.text`: vocabularies, counts of tokens, and vectors of tokens from local files."""

from diptych.mxnet.contrib.text import embedding, utils, vocab

__all__ = ["embedding", "utils", "vocab"]
