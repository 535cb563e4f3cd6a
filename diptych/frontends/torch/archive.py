"""Reading .pt2 files: everything in them is checked and copied to a clean archive before torch sees it."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from math import prod
from typing import Any

from diptych.errors import DiptychError, FormatError
from diptych.frontends.torch.archive_graph import check_graph
from diptych.frontends.torch.export import quiet

__all__ = ["load_archive"]

_MAX_MEMBERS = 100_000
_MAX_GRAPH = 512 << 20  # the graph of a large model is a few MB of JSON
_SPOOL = 256 << 20  # archives beyond this are copied to a temporary file, not to memory
_LEGACY = "is in the format of torch 2.7 and before; load it there and save it again with torch.export.save"


def load_archive(path: str) -> Any:
    """The ExportedProgram of a .pt2 file; FormatError if it is broken, or if reading it could run code.

    A .pt2 file can hold pickles: sample inputs, weights of unusual tensor classes, custom objects. torch.export.load
    runs those. They are dropped (sample inputs) or refused (all others), so that only raw tensors and JSON remain.
    """
    import torch.export

    try:
        if os.path.getsize(path) < 22:
            raise FormatError(f"{path}: {os.path.getsize(path)} bytes is too short for a .pt2 file")
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL) as clean:
            _copy_checked(path, clean)
            clean.seek(0)
            with quiet():
                return torch.export.load(clean._file)  # torch wants a plain file object
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file") from None
    except DiptychError:
        raise
    except MemoryError:
        raise
    except Exception as e:
        first = (str(e).strip() or type(e).__name__).splitlines()[0][:300]
        raise FormatError(
            f"{path}: torch.export.load cannot read it ({type(e).__name__}: {first}); was it saved by torch.export.save"
            " of a torch version close to the one installed?"
        ) from e


def _copy_checked(path: str, clean: Any) -> None:
    size = os.path.getsize(path)
    try:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as target:
            members = source.infolist()
            _check_members(path, members, size)
            names = {m.filename.split("/", 1)[-1]: m for m in members if not m.is_dir()}
            _check_contents(path, source, names)
            for inner, member in names.items():
                if inner.startswith("data/sample_inputs/"):
                    target.writestr(member.filename, b"")
                    continue
                with source.open(member) as read, target.open(member.filename, "w", force_zip64=True) as write:
                    while block := read.read(1 << 22):
                        write.write(block)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, OSError, ValueError,
            UnicodeError, RuntimeError) as e:  # fmt: skip
        if isinstance(e, (DiptychError, FileNotFoundError)):
            raise
        raise FormatError(f"{path}: not a readable .pt2 file (it must be a zip archive): {e}") from e


def _check_members(path: str, members: list[zipfile.ZipInfo], size: int) -> None:
    if not members or len(members) > _MAX_MEMBERS:
        raise FormatError(
            f"{path}: {len(members)} members in the archive; a .pt2 file has between 1 and {_MAX_MEMBERS}"
        )
    names = [m.filename for m in members]
    if len(set(names)) != len(names):
        raise FormatError(f"{path}: two members have one name")
    if len({n.split("/", 1)[0] for n in names}) != 1:
        if "serialized_exported_program.json" in names:
            raise FormatError(f"{path}: {_LEGACY}")
        raise FormatError(f"{path}: the members do not share one top folder, as those of a .pt2 file do")
    for m in members:
        parts = m.filename.split("/")
        if m.filename.startswith("/") or ".." in parts or "\\" in m.filename or "\0" in m.filename:
            raise FormatError(f"{path}: member name {m.filename!r} leaves the archive")
        if m.flag_bits & 1:
            raise FormatError(f"{path}: member {m.filename!r} is encrypted")
        if m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size:
            raise FormatError(f"{path}: member {m.filename!r} is compressed; .pt2 files store their members plainly")
    if sum(m.file_size for m in members) > size:
        raise FormatError(f"{path}: the members are larger than the file (overlapping members)")


def _check_contents(path: str, source: zipfile.ZipFile, names: dict[str, zipfile.ZipInfo]) -> None:
    if "models/model.json" not in names:
        if "serialized_exported_program.json" in names:
            raise FormatError(f"{path}: {_LEGACY}")
        raise FormatError(f"{path}: there is no models/model.json in it; it is not an exported program")
    for inner, member in names.items():
        folder = inner.rsplit("/", 1)[0]
        if inner.startswith("models/") or inner.endswith(".json"):
            if member.file_size > _MAX_GRAPH:
                raise FormatError(f"{path}: {inner} has {member.file_size} bytes")
        if inner.startswith("models/"):
            check_graph(path, source.read(member))
        if folder in ("data/weights", "data/constants"):
            base = inner.rsplit("/", 1)[1]
            if base.endswith("_config.json"):
                _check_config(path, inner, source.read(member), names)
            elif not base.startswith(("weight_", "tensor_")):
                raise FormatError(
                    f"{path}: {inner} is a pickled object, which could run code when loaded; export a model without"
                    " custom objects, or build it from its source"
                )
        elif inner.startswith("data/aotinductor/"):
            raise FormatError(f"{path}: it holds machine code ({inner}); save the exported program instead")


def _check_config(path: str, inner: str, text: bytes, names: dict[str, zipfile.ZipInfo]) -> None:
    """The table of weights: none may be pickled, and every one must lie inside its member."""
    try:
        config = json.loads(text)["config"]
        entries = list(config.items())
        pickled = [name for name, entry in entries if entry["use_pickle"] is not False]
        folder = inner.rsplit("/", 1)[0]
        hollow = [n for n, e in entries if not names[f"{folder}/{e['path_name']}"].file_size and _elements(e)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise FormatError(f"{path}: {inner} is not a table of weights: {e}") from e
    if pickled:
        raise FormatError(
            f"{path}: {', '.join(map(str, pickled[:3]))} are stored as pickles, which could run code when loaded;"
            " convert them to plain tensors before saving"
        )
    if hollow:
        raise FormatError(f"{path}: {', '.join(map(str, hollow[:3]))} have a shape but no data")


def _elements(entry: Any) -> int:
    return prod(int(size["as_int"]) for size in entry["tensor_meta"]["sizes"])
