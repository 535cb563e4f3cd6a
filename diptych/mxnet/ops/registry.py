"""The signatures of MXNet's operators: argument names, typed attributes with defaults, and how a call binds to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import FormatError
from diptych.frontends.mxnet.attributes import parse_bool, parse_shape, parse_value
from diptych.frontends.mxnet.symbol_aliases import ALIASES
from diptych.mxnet.base import MXNetError, Null, dtype_name

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Attribute", "Operator", "find", "names", "operators", "register_operator", "spell"]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of an operator: its kind ("int", "real", "shape", "{a|b}", ...) and default text (None: required)."""

    name: str
    kind: str
    optional: bool  # None is a value of it
    default: str | None

    def check(self, text: str) -> str:
        """The text itself when it spells a value of this kind; a FormatError otherwise."""
        if text == "None" and (self.optional or self.kind in ("text", "shape")):
            return text
        if self.kind == "bool":
            parse_bool(text)
        elif self.kind == "int":
            value = parse_value(text)
            if isinstance(value, float) and value.is_integer():
                return str(int(value))
            if isinstance(value, bool):
                return str(int(value))
            if not isinstance(value, int):
                raise FormatError(f"{text!r} is not an integer")
        elif self.kind == "real":
            value = parse_value(text)
            if isinstance(value, bool):
                return str(int(value))
            if not isinstance(value, int | float):
                raise FormatError(f"{text!r} is not a number")
        elif self.kind == "shape" and self.name not in ("begin", "end", "step"):
            parse_shape(text)
        elif self.kind.startswith("{"):
            choices = self.kind[1:-1].split("|")
            if text not in choices and "float32" in choices and text.isdigit():
                return text
            if text not in choices and not (text == "None" and self.optional):
                raise FormatError(f"{text!r} is not one of {', '.join(choices)}")
        return text


@dataclass(frozen=True, slots=True)
class Operator:
    """The signature of one operator."""

    name: str
    inputs: tuple[str, ...]
    variadic: bool  # the last input takes any number of arrays
    count_key: str  # the attribute that holds how many there are
    subgraphs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    order: tuple[str, ...] = field(default=())

    def checked(self, attrs: Mapping[str, str]) -> dict[str, str]:
        """The attributes as given, checked: unknown names, wrong kinds and missing ones are an MXNetError."""
        out = {}
        for key, text in attrs.items():
            known = self.attributes.get(key)
            if known is None:
                if key.startswith("__") and key.endswith("__"):
                    continue
                # MXNet checks nothing where an operator has no attributes. The dump of the NumPy-like operators describes some
                # with the arguments of others.
                if not self.attributes or self.name == "Custom" or key == self.count_key or self.name.startswith("_np"):
                    out[key] = text
                    continue
                raise MXNetError(f"{self.name} takes no argument {key!r}, but\n" + "\n".join(
                    f"  {a.name}: {a.kind}" for a in self.attributes.values()))  # fmt: skip
            try:
                out[key] = known.check(text)
            except FormatError as error:
                raise MXNetError(f"{self.name}: {key}={text!r} is not {known.kind}: {error}") from None  # fmt: skip
        for key, attribute in self.attributes.items():
            if attribute.default is None and key not in out and key != self.count_key and not self.name.startswith("_np"):
                raise MXNetError(f"{self.name} needs the argument {key} ({attribute.kind})")
        return out


def _line(text: str) -> Operator:
    name, inputs, count_key, attributes = text.rstrip("\n").split("\t")
    found: dict[str, Attribute] = {}
    for part in attributes.split():
        head, has_default, default = part.partition("=")
        key, _, kind = head.partition(":")
        found[key] = Attribute(key, kind.rstrip("?"), kind.endswith("?"), default if has_default else None)
    plain = [i for i in inputs.split() if not i.endswith("!")]
    return Operator(
        name, tuple(i.rstrip("*") for i in plain), bool(plain) and plain[-1].endswith("*"), count_key,
        tuple(i[:-1] for i in inputs.split() if i.endswith("!")), found, tuple(found),
    )  # fmt: skip


@cache
def operators() -> dict[str, Operator]:
    """All operators by name (aliases resolve through `find`)."""
    text = (files("diptych.mxnet.ops") / "table.tsv").read_text(encoding="utf-8")
    return {op.name: op for op in map(_line, text.splitlines())}


def register_operator(line: str) -> Operator:
    """Add a signature in the form of a line of table.tsv (for operators that MXNet's registry does not have)."""
    op = _line(line)
    operators()[op.name] = op
    return op


def find(name: str) -> Operator:
    """The operator of that name or alias; an MXNetError when MXNet 1.9.1 has none."""
    found = operators().get(name) or operators().get(ALIASES.get(name, name))
    if found is None:
        raise MXNetError(f"MXNet has no operator {name!r}")
    return found


@cache
def names() -> dict[str, str]:
    """Every name an operator can be called by -> its own name."""
    return {name: name for name in operators()} | {a: n for a, n in ALIASES.items() if n in operators()}


def spell(value: Any) -> str:
    """An attribute as the text that MXNet stores.

    >>> spell((2, 3)), spell(True), spell(np.float32), spell(1e-5)
    ('(2, 3)', 'True', 'float32', '1e-05')
    """
    if type(value) is str:
        return value
    if isinstance(value, (type, np.dtype)):
        return dtype_name(value)
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, np.ndarray):
        value = tuple(value.tolist()) if value.ndim else value.item()
    if isinstance(value, (tuple, list)):
        items = [spell(v) for v in value]
        if isinstance(value, tuple):
            return "(" + ", ".join(items) + ("," if len(items) == 1 else "") + ")"
        return "[" + ", ".join(items) + "]"
    return str(value)


def bind(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any],
         tensor: type | tuple[type, ...]) -> tuple[list[Any], dict[str, str], dict[str, Any]]:  # fmt: skip
    """Sort the arguments of a call into operands, attributes (as text) and named operands.

    Positional arguments are the inputs in order, then the attributes in order, as in MXNet's generated functions.
    """
    operands: list[Any] = []
    attrs: dict[str, str] = {}
    named: dict[str, Any] = {}
    if op.variadic:
        for a in args:
            if isinstance(a, (list, tuple)):
                operands.extend(a)
            else:
                operands.append(a)
    else:
        count = len(op.inputs)
        operands.extend(args[:count])
        for key, value in zip(op.order, args[count:]):
            if value is not Null and value is not None:
                attrs[key] = dtype_name(value) if key == "dtype" else spell(value)
        if len(args) > count + len(op.order):
            raise MXNetError(f"{op.name} takes {count + len(op.order)} arguments, {len(args)} were given")
    for key, value in kwargs.items():
        if value is Null:
            continue
        if isinstance(value, tensor):
            named[key] = value
        elif key in op.inputs:
            if value is None:
                continue
            if op.variadic and isinstance(value, (list, tuple)):
                operands.extend(value)
            else:
                named[key] = value
        elif value is None:
            known = op.attributes.get(key)
            if known is None or (known.default != "None" and (known.optional or known.kind in ("text", "shape"))):
                attrs[key] = "None"
        elif key == "dtype":
            attrs[key] = dtype_name(value)
        else:
            attrs[key] = spell(value)
    return operands, attrs, named
