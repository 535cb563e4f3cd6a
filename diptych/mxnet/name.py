"""Names of symbols that were given none (`mx.name`)."""

from __future__ import annotations

from diptych.mxnet.scope import Scope

__all__ = ["NameManager", "Prefix", "current"]


class NameManager(Scope, root=True):
    """Counts up per kind of operator.

    >>> with NameManager():
    ...     current().get(None, "fc"), current().get(None, "fc"), current().get("mine", "fc")
    ('fc0', 'fc1', 'mine')
    """

    def __init__(self) -> None:
        self._counter: dict[str, int] = {}

    def get(self, name: str | None, hint: str) -> str:
        """The name itself when there is one, else the hint with a number."""
        if name:
            return name
        count = self._counter.get(hint, 0)
        self._counter[hint] = count + 1
        return f"{hint}{count}"


class Prefix(NameManager):
    """Puts a prefix before every name.

    >>> with Prefix("net_"):
    ...     current().get(None, "fc")
    'net_fc0'
    """

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def get(self, name: str | None, hint: str) -> str:
        """The name with the prefix before it."""
        return self._prefix + super().get(name, hint)


def current() -> NameManager:
    """The manager in force."""
    found: NameManager = NameManager.innermost()
    return found
