"""Registries of classes by name: how initializers, metrics and the like are made from their names."""

from __future__ import annotations

import json
import warnings
from typing import Any

__all__ = ["get_alias_func", "get_create_func", "get_register_func", "get_registry"]

_TABLES: dict[type, dict[str, type]] = {}


def get_registry(base_class: type) -> dict[str, type]:
    """The registered subclasses of a class by name (a copy)."""
    return dict(_TABLES.get(base_class, {}))


def get_register_func(base_class: type, nickname: str) -> Any:
    """A decorator that registers subclasses of `base_class` under their own (lower-case) names."""
    table = _TABLES.setdefault(base_class, {})

    def register(klass: type, name: str | None = None) -> type:
        if not issubclass(klass, base_class):
            raise AssertionError(f"{klass.__name__} is no {base_class.__name__} and cannot be registered as one")
        key = (name or klass.__name__).lower()
        if key in table and table[key] is not klass:
            warnings.warn(f"New {nickname} {klass.__module__}.{klass.__name__} registered with name {key} is overriding "
                          f"existing {nickname} {table[key].__module__}.{table[key].__name__}", UserWarning, stacklevel=2)  # fmt: skip
        table[key] = klass
        return klass

    register.__doc__ = f"Register a class as {nickname}."
    return register


def get_alias_func(base_class: type, nickname: str) -> Any:
    """A decorator that registers a class under further names."""
    register = get_register_func(base_class, nickname)

    def alias(*aliases: str) -> Any:
        def decorate(klass: type) -> type:
            for name in aliases:
                register(klass, name)
            return klass

        return decorate

    return alias


def get_create_func(base_class: type, nickname: str) -> Any:
    """A function that makes an instance from a name, a JSON text `[name, {arguments}]`, or an instance (itself)."""
    table = _TABLES.setdefault(base_class, {})

    def create(*args: Any, **kwargs: Any) -> Any:
        if args:
            name, args = args[0], args[1:]
        else:
            name = kwargs.pop(nickname, None)
        if isinstance(name, base_class):
            if args or kwargs:
                raise AssertionError(f"{nickname} is already an instance; no further arguments are taken")
            return name
        if isinstance(name, dict):
            return create(**name)
        if not isinstance(name, str):
            raise AssertionError(f"{nickname} is given by its name, a string, not by a {type(name).__name__}")
        if name.startswith("["):
            key, inner = json.loads(name)
            return create(key, **inner)
        if name.startswith("{"):
            return create(**json.loads(name))
        if name.lower() not in table:
            raise AssertionError(f"no {nickname} is registered as {name} (@{nickname}.register does so); "
                                 f"known: {', '.join(sorted(table))}")  # fmt: skip
        return table[name.lower()](*args, **kwargs)

    create.__doc__ = f"Make a {nickname} from its name and arguments."
    return create
