"""Vocabularies: tokens and their numbers."""

from __future__ import annotations

import collections
from typing import Any

__all__ = ["Vocabulary"]


class Vocabulary:
    """Tokens by frequency, the unknown token first (number 0), then the reserved ones.

    >>> v = Vocabulary(collections.Counter("abbccc"), reserved_tokens=["<eos>"])
    >>> v.idx_to_token
    ['<unk>', '<eos>', 'c', 'b', 'a']

    counter: how often each token occurs. most_freq_count: so many of them at most. min_freq: those as frequent at least.
    Raises AssertionError for a min_freq below 1, and for reserved tokens that come twice or are the unknown one.
    """

    def __init__(self, counter: collections.Counter[Any] | None = None, most_freq_count: int | None = None, min_freq: int = 1,
                 unknown_token: Any = "<unk>", reserved_tokens: list[Any] | None = None) -> None:  # fmt: skip
        reserved = list(reserved_tokens or [])
        if min_freq <= 0:
            raise AssertionError("`min_freq` must be set to a positive value.")
        if unknown_token in reserved:
            raise AssertionError("`reserved_token` cannot contain `unknown_token`.")
        if len(set(reserved)) != len(reserved):
            raise AssertionError("`reserved_tokens` cannot contain duplicate reserved tokens.")
        if counter is not None and not isinstance(counter, collections.Counter):
            raise AssertionError("`counter` must be an instance of collections.Counter.")
        self._unknown, self._reserved = unknown_token, None if reserved_tokens is None else reserved
        self._tokens = [unknown_token, *reserved]
        first = len(self._tokens)
        known = set(self._tokens)
        ordered = sorted(sorted((counter or {}).items(), key=lambda x: x[0]), key=lambda x: -x[1])
        for token, frequency in ordered:
            if frequency < min_freq or (most_freq_count is not None and len(self._tokens) - first >= most_freq_count):
                break
            if token not in known:
                self._tokens.append(token)
        self._numbers = {t: i for i, t in enumerate(self._tokens)}

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def token_to_idx(self) -> dict[Any, int]:
        """The number of each token."""
        return self._numbers

    @property
    def idx_to_token(self) -> list[Any]:
        """The tokens by number."""
        return self._tokens

    @property
    def unknown_token(self) -> Any:
        """The token that stands for all others."""
        return self._unknown

    @property
    def reserved_tokens(self) -> list[Any] | None:
        """The tokens that were reserved."""
        return self._reserved

    def to_indices(self, tokens: Any) -> Any:
        """The number of a token, or those of a list; 0 for what is unknown."""
        if isinstance(tokens, list):
            return [self._numbers.get(t, 0) for t in tokens]
        return self._numbers.get(tokens, 0)

    def to_tokens(self, indices: Any) -> Any:
        """The token of a number, or those of a list; a ValueError for a number that there is not."""
        several = isinstance(indices, list)
        wanted = indices if several else [indices]
        for i in wanted:
            if not isinstance(i, int) or not 0 <= i < len(self._tokens):
                raise ValueError(f"Token index {i} in the provided `indices` is invalid.")
        found = [self._tokens[i] for i in wanted]
        return found if several else found[0]
