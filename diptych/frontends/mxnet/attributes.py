"""The text values of MXNet operator attributes, read into Python values by a small strict parser.

Every attribute in a symbol file is a string in one of the spellings that MXNet's Python front end and its C++ parameter
parser have used over the years: ``"(3, 3)"``, ``"[3,3]"``, ``"3"``, ``"3L"``, ``"True"``, ``"1e-05"``, ``"None"``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias, overload

from diptych.errors import FormatError

__all__ = ["REQUIRED", "AttributeValue", "Attributes", "parse_bool", "parse_shape", "parse_value"]

AttributeValue: TypeAlias = "int | float | bool | str | tuple[AttributeValue, ...] | None"

MAX_LENGTH = 1 << 20
MAX_DEPTH = 8

_INTEGER = re.compile(r"[+-]?\d{1,40}(?=L?$)")  # more digits are no integer MXNet can hold
_REAL = re.compile(r"[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|infinity|nan)$", re.IGNORECASE)
_TOKEN = re.compile(r"\s*(?:(?P<punct>[()\[\],])|(?P<quote>'[^'\\]*'|\"[^\"\\]*\")|(?P<word>[^\s()\[\],'\"]+))")
_TRUE = frozenset({"true", "1"})
_FALSE = frozenset({"false", "0"})


class _Required:
    """The type of REQUIRED, the default of an attribute that has none."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()


def _scalar(word: str) -> AttributeValue:
    if word == "None":
        return None
    if word in ("True", "true"):
        return True
    if word in ("False", "false"):
        return False
    if match := _INTEGER.match(word):
        return int(match.group())
    return float(word) if _REAL.match(word) else word


def parse_value(text: str) -> AttributeValue:
    """The value an attribute string spells; what is no number, bool, None or tuple stays a string.

    >>> parse_value("(3, 3)"), parse_value("[2L,]"), parse_value("1e-05"), parse_value("float32")
    ((3, 3), (2,), 1e-05, 'float32')
    >>> parse_value("(None, 0)"), parse_value("True"), parse_value("((1, 2), (3, 4))")
    ((None, 0), True, ((1, 2), (3, 4)))
    """
    stripped = text.strip()
    if not stripped.startswith(("(", "[")):
        return _scalar(stripped)
    if len(stripped) > MAX_LENGTH:
        raise FormatError(
            f"a tuple of {len(stripped)} characters is longer than any real attribute ({MAX_LENGTH} at most)"
        )
    return _parse_sequence(stripped)


def _parse_sequence(text: str) -> AttributeValue:
    """One bracketed list, iteratively: the stack holds (items so far, the bracket that closes them)."""
    stack: list[tuple[list[AttributeValue], str]] = []
    position = 0
    want_value = True  # false right after a value, where only a comma or the closing bracket may stand
    while True:
        match = _TOKEN.match(text, position)
        if match is None:
            raise FormatError(f"{_short(text)} is not a well-formed tuple")
        position = match.end()
        punct = match.group("punct")
        if punct in ("(", "["):
            if not want_value or len(stack) >= MAX_DEPTH:
                raise FormatError(f"{_short(text)} is not a well-formed tuple (or nests deeper than {MAX_DEPTH})")
            stack.append(([], ")" if punct == "(" else "]"))
        elif punct in (")", "]"):
            items, closing = stack.pop()
            if punct != closing:
                raise FormatError(f"{_short(text)} closes a bracket it did not open")
            done = tuple(items)
            if not stack:
                if text[position:].strip():
                    raise FormatError(f"{_short(text)} goes on after its closing bracket")
                return done
            stack[-1][0].append(done)
            want_value = False
        elif punct == ",":
            if want_value:
                raise FormatError(f"{_short(text)} has a comma where a value is expected")
            want_value = True
        else:
            if not want_value:
                raise FormatError(f"{_short(text)} lacks a comma between two values")
            quoted = match.group("quote")
            stack[-1][0].append(quoted[1:-1] if quoted else _scalar(match.group("word")))
            want_value = False


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def parse_bool(text: str) -> bool:
    """A bool as MXNet reads it: true, false, 1 or 0 in any case.

    >>> parse_bool("True"), parse_bool("0")
    (True, False)
    """
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise FormatError(f"{_short(text)} is not a bool (True, False, 1 or 0)")


def parse_shape(text: str) -> tuple[int, ...]:
    """A tuple of integers; a bare integer is a tuple of one.

    >>> parse_shape("(1, 2)"), parse_shape("7"), parse_shape("()")
    ((1, 2), (7,), ())
    """
    value = parse_value(text)
    items = value if isinstance(value, tuple) else (value,)
    if any(isinstance(i, bool) or not isinstance(i, int) for i in items):
        raise FormatError(f"{_short(text)} is not a tuple of integers")
    return tuple(i for i in items if isinstance(i, int))


class Attributes:
    """The attributes of one node, read by name and type; errors say which attribute of which layer is wrong.

    >>> a = Attributes("Convolution", "conv0", {"kernel": "(3,3)", "no_bias": "True"})
    >>> a.shape("kernel"), a.boolean("no_bias", False), a.integer("num_group", 1)
    ((3, 3), True, 1)
    """

    def __init__(self, operator: str, layer: str, values: Mapping[str, str]) -> None:
        self.operator = operator
        self.layer = layer
        self.values = values
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def _raw(self, name: str, default: object) -> str | None:
        self._used.add(name)
        text = self.values.get(name)
        if text is None and isinstance(default, _Required):
            raise FormatError(f"{self._place(name)} is missing and has no default; the symbol file is incomplete")
        return text

    def _place(self, name: str) -> str:
        return f"attribute {name!r} of {self.operator} (layer {self.layer or '?'})"

    def _wrong(self, name: str, text: str, wanted: str) -> FormatError:
        return FormatError(f"{self._place(name)} is {_short(text)}, but must be {wanted}")

    def value(self, name: str) -> AttributeValue:
        """Whatever the attribute spells; None when it is absent."""
        text = self._raw(name, None)
        if text is None:
            return None
        try:
            return parse_value(text)
        except FormatError as error:
            raise FormatError(f"{self._place(name)}: {error}") from None

    def integer(self, name: str, default: int | _Required = REQUIRED) -> int:
        """An integer."""
        result = self.optional_integer(name, default)
        if result is None:
            raise self._wrong(name, "None", "an integer")
        return result

    def optional_integer(self, name: str, default: int | _Required | None = None) -> int | None:
        """An integer or None."""
        text = self._raw(name, default)
        if text is None:
            assert not isinstance(default, _Required)
            return default
        value = self.value(name)
        if isinstance(value, bool):  # libmxnet prints bools both as True and as 1; an integer field takes only digits
            raise self._wrong(name, text, "an integer")
        if value is None or isinstance(value, int):
            return value
        raise self._wrong(name, text, "an integer")

    def real(self, name: str, default: float | _Required = REQUIRED) -> float:
        """A floating-point number (integers count)."""
        result = self.optional_real(name, default)
        if result is None:
            raise self._wrong(name, "None", "a number")
        return result

    def optional_real(self, name: str, default: float | _Required | None = None) -> float | None:
        """A floating-point number or None."""
        text = self._raw(name, default)
        if text is None:
            assert not isinstance(default, _Required)
            return default
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, text, "a number")
        return float(value)

    def boolean(self, name: str, default: bool | _Required = REQUIRED) -> bool:
        """A bool; MXNet spells it True, true or 1."""
        text = self._raw(name, default)
        if text is None:
            assert not isinstance(default, _Required)
            return default
        if text.strip() == "None" and not isinstance(default, _Required):
            return default  # "boolean or None": None asks for the operator's default
        try:
            return parse_bool(text)
        except FormatError:
            raise self._wrong(name, text, "True or False") from None

    @overload
    def shape(self, name: str, default: tuple[int, ...] | _Required = REQUIRED) -> tuple[int, ...]: ...
    @overload
    def shape(self, name: str, default: None) -> tuple[int, ...] | None: ...
    def shape(self, name: str, default: tuple[int, ...] | _Required | None = REQUIRED) -> tuple[int, ...] | None:
        """A tuple of integers; a bare integer is a tuple of one, None gives the default."""
        text = self._raw(name, default)
        if text is None or (text.strip() == "None" and not isinstance(default, _Required)):
            assert not isinstance(default, _Required)
            return default
        try:
            return parse_shape(text)
        except FormatError:
            raise self._wrong(name, text, "a tuple of integers") from None

    def optional_integers(self, name: str, default: tuple[int | None, ...] = ()) -> tuple[int | None, ...]:
        """A tuple whose items are integers or None, such as the begin and end of a slice."""
        text = self._raw(name, default)
        if text is None:
            return default
        value = self.value(name)
        items = value if isinstance(value, tuple) else (value,)
        out: list[int | None] = []
        for item in items:
            if isinstance(item, bool) or not (item is None or isinstance(item, int)):
                raise self._wrong(name, text, "a tuple of integers or None")
            out.append(item)
        return tuple(out)

    def reals(self, name: str, default: tuple[float, ...] | _Required = REQUIRED) -> tuple[float, ...]:
        """A tuple of numbers; a bare number is a tuple of one."""
        text = self._raw(name, default)
        if text is None:
            assert not isinstance(default, _Required)
            return default
        value = self.value(name)
        items = value if isinstance(value, tuple) else (value,)
        out: list[float] = []
        for item in items:
            if isinstance(item, bool) or not isinstance(item, int | float):
                raise self._wrong(name, text, "a tuple of numbers")
            out.append(float(item))
        return tuple(out)

    def text(self, name: str, default: str | _Required = REQUIRED, choices: Sequence[str] = ()) -> str:
        """A word, one of `choices` when they are given."""
        text = self._raw(name, default)
        if text is None:
            assert not isinstance(default, _Required)
            return default
        if choices and text not in choices:
            raise self._wrong(name, text, "one of " + ", ".join(choices))
        return text

    def unknown(self) -> tuple[str, ...]:
        """The attributes nobody has asked for yet, sorted."""
        return tuple(sorted(set(self.values) - self._used))
