"""Attributes for all symbols made within a scope (`mx.AttrScope`)."""

from __future__ import annotations

from collections import defaultdict
from typing import ClassVar

from diptych.mxnet.scope import Scope

__all__ = ["AttrScope", "current"]


class AttrScope(Scope, root=True):
    """Attributes, as texts, that every symbol made inside gets.

    >>> with AttrScope(ctx_group="dev1"):
    ...     current().get(None)
    {'ctx_group': 'dev1'}
    """

    _subgraph_names: ClassVar[dict[str, int]] = defaultdict(int)  # how often each name of a subgraph has been given out

    def __init__(self, **kwargs: str) -> None:
        if not all(isinstance(v, str) for v in kwargs.values()):
            raise ValueError("AttrScope: the values of attributes are strings")
        self._attr = dict(kwargs)

    def get(self, attr: dict[str, str] | None) -> dict[str, str]:
        """The attributes of the scope, and those given, which win."""
        return {**self._attr, **(attr or {})}

    def _entered(self, outer: AttrScope) -> None:
        self._attr = {**outer._attr, **self._attr}


def current() -> AttrScope:
    """The scope in force."""
    found: AttrScope = AttrScope.innermost()
    return found
