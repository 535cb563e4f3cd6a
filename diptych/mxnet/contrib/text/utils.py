"""Counting tokens."""

from __future__ import annotations

import collections
import re

__all__ = ["count_tokens_from_str"]


def count_tokens_from_str(source_str: str, token_delim: str = " ", seq_delim: str = "\n", to_lower: bool = False,
                          counter_to_update: collections.Counter[str] | None = None) -> collections.Counter[str]:  # fmt: skip
    """How often each token occurs in a text; the delimiters are regular expressions.

    >>> count_tokens_from_str("a b\\na")["a"]
    2
    """
    tokens = [t.lower() if to_lower else t for t in re.split(f"{token_delim}|{seq_delim}", source_str) if t]
    found: collections.Counter[str] = collections.Counter() if counter_to_update is None else counter_to_update
    found.update(tokens)
    return found
