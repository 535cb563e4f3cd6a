"""JSON from an untrusted file: bounded in size and depth, without duplicate keys, NaN or broken text."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from diptych.errors import FormatError

__all__ = ["MAX_BYTES", "decode", "parse_json"]

# The largest symbol files known (unrolled recurrent networks) have a few megabytes. Python objects take up to thirty times
# the size of their text, so this also bounds memory.
MAX_BYTES = 64 << 20
MAX_DEPTH = 100


def decode(data: bytes, where: str) -> str:
    """UTF-8 text (a byte-order mark is dropped)."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"{where}: {len(data)} bytes is more than the {MAX_BYTES} a symbol file may have")
    if b"\0" in data[:64]:
        raise FormatError(f"{where}: this is a binary file, not JSON text (is it a .params file?)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{where}: not UTF-8 text (byte {error.start}): the file is corrupt or of another kind"
        ) from None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise FormatError(f"the key {key[:60]!r} comes twice in one JSON object")
            seen.add(key)
    return out


def _constant(word: str) -> NoReturn:
    raise FormatError(f"{word} is not JSON")


def _check_depth(text: str, where: str) -> None:
    """Refuse deep nesting before the recursive parser sees it; brackets within strings do not count."""
    depth = 0
    pieces = text.replace("\\\\", "").replace('\\"', "").split('"')
    for piece in pieces[::2]:  # the odd pieces are the strings
        if "{" not in piece and "[" not in piece and "]" not in piece and "}" not in piece:
            continue
        for char in piece:
            if char in "[{":
                depth += 1
                if depth > MAX_DEPTH:
                    raise FormatError(f"{where}: JSON nested deeper than {MAX_DEPTH} levels")
            elif char in "]}":
                depth -= 1


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text, or one FormatError that begins with `where`."""
    if len(text) > MAX_BYTES:
        raise FormatError(f"{where}: {len(text)} characters is more than the {MAX_BYTES} a symbol file may have")
    _check_depth(text, where)
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, strict=False)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None
    except json.JSONDecodeError as error:
        raise FormatError(f"{where}: not valid JSON ({error}); the file is truncated or corrupt") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not usable JSON ({error})") from None
    if "\\u" in text or "\\U" in text:  # an escape may spell half of a surrogate pair, which is no text
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise FormatError(f"{where}: a string holds half of a surrogate pair, which is not text") from None
    return value
