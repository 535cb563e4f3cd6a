"""Vectors of tokens: read from text files, put together, looked up."""

from __future__ import annotations

import logging
import os
import re
import warnings
from typing import Any, ClassVar

import numpy as np

from diptych.mxnet import registry
from diptych.mxnet.base import MXNetError, data_dir
from diptych.mxnet.contrib.text.vocab import Vocabulary
from diptych.mxnet.ndarray import create as arrays
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.tape import state

__all__ = ["CompositeEmbedding", "CustomEmbedding", "FastText", "GloVe", "create", "get_pretrained_file_names", "register"]


class _TokenEmbedding(Vocabulary):
    """A vocabulary with a vector for each token; the vector of number 0 is that of every unknown token."""

    pretrained_file_names: ClassVar[tuple[str, ...]] = ()
    _others: ClassVar[str] = ""  # the form of further names
    _home: ClassVar[str] = "its authors"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._vec_len = 0
        self._idx_to_vec: Any = None

    @property
    def vec_len(self) -> int:
        """The length of the vectors."""
        return self._vec_len

    @property
    def idx_to_vec(self) -> Any:
        """The vectors by the numbers of their tokens: (tokens, vec_len)."""
        return self._idx_to_vec

    def get_vecs_by_tokens(self, tokens: Any, lower_case_backup: bool = False) -> Any:
        """The vector of a token, or the vectors of a list; with `lower_case_backup`, of the lower-case form where the token is unknown."""
        wanted = tokens if isinstance(tokens, list) else [tokens]
        known = self.token_to_idx
        numbers = [known.get(t, known.get(t.lower(), 0) if lower_case_backup else 0) for t in wanted]
        found = _array(self._vectors()[numbers])
        return found if isinstance(tokens, list) else found[0]

    def update_token_vectors(self, tokens: Any, new_vectors: Any) -> None:
        """Give tokens other vectors, of shape (tokens, vec_len), or (vec_len,) for one. Raises ValueError for an unknown token."""
        wanted = tokens if isinstance(tokens, list) else [tokens]
        if not isinstance(new_vectors, NDArray) or new_vectors.ndim not in ((1, 2) if len(wanted) == 1 else (2,)):
            raise AssertionError(f"`new_vectors` must be an NDArray of {len(wanted)} vectors of length {self.vec_len}")
        values = new_vectors.asnumpy().reshape(-1, new_vectors.shape[-1])
        if values.shape != (len(wanted), self.vec_len):
            raise AssertionError(f"`new_vectors` has shape {new_vectors.shape}; {len(wanted)} tokens have vectors of length {self.vec_len}")
        for t in wanted:
            if t not in self.token_to_idx:
                raise ValueError(f"Token {t} is unknown. To update the embedding vector for an unknown token, name it as {self.unknown_token}")
        self._idx_to_vec[[self.token_to_idx[t] for t in wanted]] = _array(values)

    def _vectors(self) -> np.ndarray[Any, Any]:
        if self._idx_to_vec is None:
            raise AssertionError("the embedding has no vectors yet: `idx_to_vec` is not set")
        found: np.ndarray[Any, Any] = self._idx_to_vec.asnumpy()
        return found

    # -- filling -----------------------------------------------------------------------------------------------
    def _load_embedding(self, path: str, elem_delim: str, init_unknown_vec: Any, encoding: str = "utf8") -> None:
        """Index the tokens of a file, each the first time it comes, with their vectors."""
        path = os.path.expanduser(path)
        if not os.path.isfile(path):
            raise ValueError(f"`pretrained_file_path` must be a valid path to the pre-trained token embedding file; there is no file {path}")
        logging.info("Loading pre-trained token embedding vectors from %s", path)
        unknown: list[float] | None = None
        seen: set[Any] = set()
        vectors: list[list[float]] = []
        with open(path, encoding=encoding) as file:
            for number, line in enumerate(file, 1):
                token, *rest = line.rstrip().split(elem_delim)
                where = f"At line {number} of {path}"
                if not rest:
                    raise AssertionError(f"{where}: a token and its vector expected, with {elem_delim!r} between the numbers")
                try:
                    vector = [float(x) for x in rest]
                except ValueError as error:
                    raise ValueError(f"{where}: {error}; the numbers are to be separated by {elem_delim!r}") from None
                if token == self.unknown_token and unknown is None:
                    unknown = vector
                    seen.add(token)
                elif token in seen:
                    warnings.warn(f"{where}: there was a vector of {token} before; this one is skipped", stacklevel=3)
                elif len(vector) == 1:
                    warnings.warn(f"{where}: {token} with one number, {vector}, is likely a header and is skipped", stacklevel=3)
                else:
                    if vectors and len(vector) != len(vectors[0]):
                        raise AssertionError(f"{where}: the vector of {token} has length {len(vector)}, those before it {len(vectors[0])}")
                    vectors.append(vector)
                    seen.add(token)
                    self.idx_to_token.append(token)
                    self.token_to_idx[token] = len(self.idx_to_token) - 1
        if not vectors:
            raise ValueError(f"{path} holds no vectors")
        self._vec_len = len(vectors[0])
        whole = np.zeros((len(self.idx_to_token), self._vec_len), np.float32)  # reserved tokens keep zeros
        whole[len(whole) - len(vectors) :] = vectors
        first = init_unknown_vec(shape=self._vec_len) if unknown is None else unknown
        whole[0] = first.asnumpy() if isinstance(first, NDArray) else first
        self._idx_to_vec = _array(whole)

    def _index(self, vocabulary: Vocabulary) -> None:
        self._tokens, self._numbers = list(vocabulary.idx_to_token), dict(vocabulary.token_to_idx)
        self._unknown = vocabulary.unknown_token
        self._reserved = None if vocabulary.reserved_tokens is None else list(vocabulary.reserved_tokens)

    def _put_together(self, parts: list[_TokenEmbedding], vocabulary: Vocabulary) -> None:
        """Index the tokens of a vocabulary, with the vectors of these embeddings one behind the other."""
        if not isinstance(vocabulary, Vocabulary):
            raise AssertionError(f"`vocabulary` must be an instance of mxnet.contrib.text.vocab.Vocabulary, not {type(vocabulary)}")
        tokens = vocabulary.idx_to_token[1:]
        columns = []
        for part in parts:
            numbers = [0, *(part.token_to_idx.get(t, 0) for t in tokens)]
            columns.append(part._vectors()[numbers])
        self._index(vocabulary)
        self._vec_len = sum(p.vec_len for p in parts)
        self._idx_to_vec = _array(np.concatenate(columns, 1))

    @classmethod
    def _named_file(cls, root: str, name: str) -> str:
        """Where the file of a name is: in a folder of its own under `root`."""
        if name not in cls.pretrained_file_names and not re.fullmatch(cls._others, name):
            raise KeyError(f"Cannot find pretrained file {name} for token embedding {cls.__name__.lower()}. "
                           f"Valid pretrained files: {', '.join(cls.pretrained_file_names)}")  # fmt: skip
        path = os.path.join(os.path.expanduser(root), cls.__name__.lower(), name)
        if not os.path.isfile(path):
            raise MXNetError(f"{cls.__name__}: there is no file {path}, and it is not downloaded: MXNet's servers are gone. Get {name} from "
                             f"{cls._home} and put it there, or read it with CustomEmbedding(path)")  # fmt: skip
        return path


def _array(values: Any) -> Any:
    made = arrays.array(values, dtype=np.float32)
    return made.as_np_ndarray() if state.np_array else made


_register = registry.get_register_func(_TokenEmbedding, "token embedding")
_create = registry.get_create_func(_TokenEmbedding, "token embedding")


def register(embedding_cls: type[_TokenEmbedding]) -> type[_TokenEmbedding]:
    """Make a class known to `create` under its own name."""
    made: type[_TokenEmbedding] = _register(embedding_cls)
    return made


def create(embedding_name: str, **kwargs: Any) -> _TokenEmbedding:
    """An embedding of a registered class, such as "glove", with the arguments of that class."""
    made: _TokenEmbedding = _create(embedding_name, **kwargs)
    return made


def get_pretrained_file_names(embedding_name: str | None = None) -> Any:
    """The names of files that an embedding knows, or of all embeddings by name. Raises KeyError for an unknown one."""
    known: dict[str, Any] = registry.get_registry(_TokenEmbedding)
    if embedding_name is None:
        return {name: list(cls.pretrained_file_names) for name, cls in known.items()}
    if embedding_name not in known:
        raise KeyError(f"Cannot find `embedding_name` {embedding_name}. Known: {', '.join(sorted(known))}")
    return list(known[embedding_name].pretrained_file_names)


class CustomEmbedding(_TokenEmbedding):
    """The vectors of a text file: a line for each token, the token and its numbers with a delimiter between them.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "vectors.txt")
    >>> _ = path.write_text("sun 1 2\\nmoon 3 4\\n")
    >>> CustomEmbedding(str(path)).get_vecs_by_tokens(["moon", "star"]).asnumpy()
    array([[3., 4.],
           [0., 0.]], dtype=float32)

    pretrained_file_path: the file. elem_delim, encoding: how it is written. init_unknown_vec: called with `shape=`, the vector
    of unknown tokens where the file has none. vocabulary: index its tokens instead of those of the file.
    Raises ValueError and AssertionError for files that are not like this, with the line.
    """

    def __init__(self, pretrained_file_path: str, elem_delim: str = " ", encoding: str = "utf8", init_unknown_vec: Any = arrays.zeros,
                 vocabulary: Vocabulary | None = None, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self._load_embedding(pretrained_file_path, elem_delim, init_unknown_vec, encoding)
        if vocabulary is not None:
            self._put_together([self], vocabulary)


class CompositeEmbedding(_TokenEmbedding):
    """The tokens of a vocabulary with the vectors of several embeddings, one behind the other."""

    def __init__(self, vocabulary: Vocabulary, token_embeddings: Any) -> None:
        super().__init__()
        parts = token_embeddings if isinstance(token_embeddings, list) else [token_embeddings]
        if not all(isinstance(p, _TokenEmbedding) for p in parts):
            raise AssertionError("`token_embeddings` must be a token embedding or a list of them")
        self._put_together(parts, vocabulary)


class _Named(_TokenEmbedding):
    """Embeddings whose files are known by name."""

    def __init__(self, pretrained_file_name: str, embedding_root: str | None = None, init_unknown_vec: Any = arrays.zeros,
                 vocabulary: Vocabulary | None = None, **kwargs: Any) -> None:  # fmt: skip
        path = self._named_file(embedding_root or os.path.join(data_dir(), "embeddings"), pretrained_file_name)
        super().__init__(**kwargs)
        self._load_embedding(path, " ", init_unknown_vec)
        if vocabulary is not None:
            self._put_together([self], vocabulary)


@register
class GloVe(_Named):
    """GloVe's vectors, from `embeddings/glove/NAME` under MXNET_HOME or `embedding_root`; an error that says so where it is not there."""

    _home = "https://nlp.stanford.edu/projects/glove"
    pretrained_file_names = (
        "glove.42B.300d.txt", *(f"glove.6B.{n}d.txt" for n in (50, 100, 200, 300)), "glove.840B.300d.txt",
        *(f"glove.twitter.27B.{n}d.txt" for n in (25, 50, 100, 200)),
    )  # fmt: skip

    def __init__(self, pretrained_file_name: str = "glove.840B.300d.txt", **kwargs: Any) -> None:
        super().__init__(pretrained_file_name, **kwargs)


@register
class FastText(_Named):
    """fastText's vectors, from `embeddings/fasttext/NAME` under MXNET_HOME or `embedding_root`: `wiki.LANGUAGE.vec`, `crawl-300d-2M.vec`."""

    _home = "https://fasttext.cc"
    _others = r"wiki(\.multi)?\.[a-z_]+\.vec"  # one for each of some three hundred languages
    pretrained_file_names = ("crawl-300d-2M.vec", *(f"wiki.{n}.vec" for n in ("simple", "de", "en", "es", "fr", "it", "ja", "pt", "ru", "zh")))

    def __init__(self, pretrained_file_name: str = "wiki.simple.vec", **kwargs: Any) -> None:
        super().__init__(pretrained_file_name, **kwargs)
