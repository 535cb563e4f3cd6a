"""WikiText for language models, from local files."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import nd
from diptych.mxnet.base import MXNetError, data_dir
from diptych.mxnet.contrib.text.utils import count_tokens_from_str
from diptych.mxnet.contrib.text.vocab import Vocabulary
from diptych.mxnet.gluon.data.dataset import Dataset

if TYPE_CHECKING:
    import collections

    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["WikiText2", "WikiText103"]

_FILES = {"train": "wiki.train.tokens", "validation": "wiki.valid.tokens", "test": "wiki.test.tokens"}


class _WikiText(Dataset):
    """Sequences of token numbers, and the same moved on by one; each line of the text ends with `<eos>`."""

    _name = ""

    def __init__(self, root: str | None = None, segment: str = "train", vocab: Vocabulary | None = None, seq_len: int = 35) -> None:
        if segment not in _FILES:
            raise MXNetError(f"{type(self).__name__}: segment={segment!r} must be one of {', '.join(_FILES)}")
        folder = Path(os.path.expanduser(root or os.path.join(data_dir(), "datasets", self._name)))
        content = self._content(folder, _FILES[segment])
        self._counter = count_tokens_from_str(content)
        self._vocab = Vocabulary(self._counter, reserved_tokens=["<eos>"]) if vocab is None else vocab
        tokens = [t for line in content.splitlines() if (words := line.split()) for t in (*words, "<eos>")]
        numbers = np.array(self._vocab.to_indices(tokens), np.int32)
        whole = (len(numbers) - 1) // seq_len * seq_len
        self._data, self._label = (nd.array(part[:whole].reshape(-1, seq_len), dtype=np.int32) for part in (numbers[:-1], numbers[1:]))

    def _content(self, folder: Path, name: str) -> str:
        archive = folder / f"{self._name}-v1.zip"
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf8")
        if archive.is_file():
            with zipfile.ZipFile(archive) as packed:
                inside = next((m for m in packed.namelist() if m.endswith(name)), None)
                if inside is not None:
                    return packed.read(inside).decode("utf8")
        raise MXNetError(f"{type(self).__name__}: {folder} has neither {name} nor {archive.name}; it is not downloaded, put one of them there")

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary in use."""
        return self._vocab

    @property
    def frequencies(self) -> collections.Counter[Any]:
        """How often each token occurs in this segment."""
        return self._counter

    def __getitem__(self, idx: int) -> tuple[NDArray, NDArray]:
        return self._data[idx], self._label[idx]

    def __len__(self) -> int:
        return len(self._label)


class WikiText2(_WikiText):
    """WikiText-2 from wiki.{train,valid,test}.tokens (or wikitext-2-v1.zip) in `root`, $MXNET_HOME/datasets/wikitext-2 if not given.

    segment: "train", "validation" or "test". vocab: a Vocabulary; one of all tokens if not given. seq_len: tokens of a sample.
    """

    _name = "wikitext-2"


class WikiText103(_WikiText):
    """WikiText-103, likewise, from $MXNET_HOME/datasets/wikitext-103."""

    _name = "wikitext-103"
