"""Scopes that stack per thread: names and attributes of the symbols made inside."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

__all__ = ["Scope"]


class _ScopeType(type):
    """Gives scopes the attribute `current`: the innermost scope of this thread, which may be replaced by assignment."""

    @property
    def current(cls) -> Any:
        """The scope in force in this thread."""
        return cls.innermost()  # type: ignore[attr-defined]

    @current.setter
    def current(cls, value: Any) -> None:
        cls._current.value = value  # type: ignore[attr-defined]


class Scope(metaclass=_ScopeType):
    """A context manager whose innermost instance of a thread is `current`."""

    _current: ClassVar[threading.local]

    def __init_subclass__(cls, root: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if root:
            cls._current = threading.local()
            cls._root = cls  # type: ignore[attr-defined]

    def __enter__(self) -> Any:
        self._old_scope = type(self).innermost()
        self._entered(self._old_scope)
        self._current.value = self
        return self

    def __exit__(self, *exc: object) -> None:
        self._current.value = self._old_scope

    def _entered(self, outer: Any) -> None:
        """What the scope takes over from the one around it."""

    @classmethod
    def innermost(cls) -> Any:
        """The scope in force in this thread."""
        found = getattr(cls._current, "value", None)
        if found is None:
            found = cls._root()  # type: ignore[attr-defined]
            cls._current.value = found
        return found
