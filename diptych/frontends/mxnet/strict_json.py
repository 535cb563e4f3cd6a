"""JSON from an untrusted file: bounded in size, without duplicate keys, NaN or broken text."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from diptych.errors import FormatError

__all__ = ["MAX_BYTES", "decode", "parse_json"]

# The largest symbol files known (unrolled recurrent networks) have a few megabytes. Python objects take more memory than
# their text, empty lists up to thirty times as much, so their number has a limit too.
MAX_BYTES = 64 << 20
MAX_CONTAINERS = 2_000_000

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


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


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text, or one FormatError that begins with `where`."""
    if len(text) > MAX_BYTES:
        raise FormatError(f"{where}: {len(text)} characters is more than the {MAX_BYTES} a symbol file may have")
    containers = text.count("[") + text.count("{")
    if containers > MAX_CONTAINERS:
        raise FormatError(
            f"{where}: {containers} lists and objects are more than the {MAX_CONTAINERS} a symbol file may have"
        )
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, strict=False)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None
    except json.JSONDecodeError as error:
        raise FormatError(f"{where}: not valid JSON ({error}); the file is truncated or corrupt") from None
    except RecursionError:  # the parser counts its own depth, so this comes long before the stack ends
        raise FormatError(f"{where}: the JSON is nested too deeply to be a symbol") from None
    except ValueError as error:
        raise FormatError(f"{where}: not usable JSON ({error})") from None
    if _SURROGATE.search(text):  # an escape may spell half of a surrogate pair, which is no text
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise FormatError(f"{where}: a string holds half of a surrogate pair, which is not text") from None
    return value
