"""Prepared models in the cache: linked code and packed weights in one file, read back without compiler or operators.

Layout: magic, SHA-256 of the key and the head, length of the head, the head (JSON: signature, sizes, symbols, check
sums), the code, and from the next page on the weights, each chunk of them with a CRC-32 in the head.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from diptych.ir.types import TensorType
from diptych.runtime.cache import ObjectCache, touch
from diptych.runtime.executable import aligned_bytes
from diptych.runtime.link import Linked
from diptych.runtime.threads import spread

__all__ = ["Prepared", "Signature", "keep", "recall"]

Array = np.ndarray[Any, Any]
Signature = tuple[tuple[str, TensorType], ...]

_MAGIC = b"DIPTYCHM"
_PREFIX = len(_MAGIC) + 32 + 8
_CHUNK = 1 << 20
_PAGE = 4096
_MODEL = ".model"


class Prepared(NamedTuple):
    """All that running a model takes."""

    name: str
    inputs: Signature
    outputs: Signature
    arena_bytes: int
    threads: int
    code: Linked
    weights: Array
    updated: tuple[str, ...] = ()  # inputs that are written to
    shared: tuple[tuple[str, int], ...] = ()  # constants that are kept beside: names and bytes, see SharedWeights


def keep(cache: ObjectCache, key: str, made: Prepared, workers: int = 1) -> bool:
    """Put a prepared model into the cache; False when it cannot be kept."""
    import json

    path = cache.path(key, _MODEL)
    if path is None:
        return False
    weights = made.weights.data
    spans = range(0, len(weights), _CHUNK)
    checks = spread(lambda at: zlib.crc32(weights[at : at + _CHUNK]), spans, workers)
    code = made.code
    fields = {
        "name": made.name, "inputs": _listed(made.inputs), "outputs": _listed(made.outputs),
        "arena_bytes": made.arena_bytes, "threads": made.threads, "weights": len(weights), "checks": checks,
        "code": len(code.data), "machine": code.machine, "code_end": code.code_end, "ro_end": code.ro_end,
        "names": code.names, "fixups": code.fixups, "updated": made.updated, "shared": made.shared,
    }  # fmt: skip
    head = json.dumps(fields, separators=(",", ":")).encode()
    size = _PREFIX + len(head) + len(code.data)
    padding = bytes(-size % _PAGE)
    parts = (_MAGIC, _digest(key, head, code.data), len(head).to_bytes(8, "little"), head, code.data, padding, weights)
    return cache.publish(path, parts, size + len(padding) + len(weights))


def recall(cache: ObjectCache, key: str, workers: int = 1) -> Prepared | None:
    """The prepared model kept under `key`, or None; a damaged one is removed."""
    path = cache.path(key, _MODEL)
    if path is None:
        return None
    try:
        with open(path, "rb", buffering=0) as f:
            made = _read(f.fileno(), key, workers)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        made = None
    if made is None:
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None
    touch(path)
    return made


def _read(fd: int, key: str, workers: int) -> Prepared | None:
    import json

    prefix = os.pread(fd, _PREFIX, 0)
    length = int.from_bytes(prefix[-8:], "little")
    total = os.fstat(fd).st_size
    if len(prefix) < _PREFIX or prefix[: len(_MAGIC)] != _MAGIC or length > total:
        return None
    head = os.pread(fd, length, _PREFIX)
    fields = json.loads(head)
    at = _PREFIX + length
    if not 0 <= fields["code"] <= total:
        return None
    data = os.pread(fd, fields["code"], at)
    if prefix[len(_MAGIC) : -8] != _digest(key, head, data):
        return None
    # From here on the head is what was written. The weights are read, not mapped: they get huge pages that way.
    at += len(data)
    at += -at % _PAGE
    if total != at + fields["weights"]:
        return None
    weights = aligned_bytes(fields["weights"])
    view = weights.data

    def read(start: int) -> int:
        piece = view[start : start + _CHUNK]
        return zlib.crc32(piece) if os.preadv(fd, [piece], at + start) == len(piece) else -1

    spans = range(0, len(weights), _CHUNK)
    if spread(read, spans, workers) != fields["checks"]:
        return None
    fixups = tuple((a, name, addend) for a, name, addend in fields["fixups"])
    code = Linked(fields["machine"], data, fields["code_end"], fields["ro_end"], fields["names"], fixups)
    return Prepared(
        fields["name"], _types(fields["inputs"]), _types(fields["outputs"]), fields["arena_bytes"], fields["threads"],
        code, weights, tuple(fields["updated"]), tuple((name, size) for name, size in fields["shared"]),
    )  # fmt: skip


def _listed(signature: Signature) -> list[tuple[str, tuple[int, ...], str]]:
    return [(name, t.shape, t.dtype) for name, t in signature]


def _types(listed: Sequence[Any]) -> Signature:
    return tuple((name, TensorType(tuple(shape), dtype)) for name, shape, dtype in listed)


def _digest(key: str, head: bytes, data: bytes) -> bytes:
    import hashlib

    h = hashlib.sha256(key.encode() + b"\0")
    h.update(head)
    h.update(data)
    return h.digest()
