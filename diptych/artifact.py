"""Saved models: one safetensors file with the Graph's text as metadata, the constants, and a test vector.

The layout is the safetensors format (u64 header length, JSON header, data), so its weights can be read by any tool
that knows that format. No code is stored: machine code is a cache, made again where the file is opened.
"""

from __future__ import annotations

import json
import mmap
import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import FormatError
from diptych.fingerprint import of_file
from diptych.ir.types import TensorType, numpy_dtype
from diptych.runtime.cache import default_cache
from diptych.runtime.mapped import MappedFile, let_go, mapped_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import FileIO

    from diptych.ir import Array, Graph

__all__ = ["SavedSource", "read", "read_test_vector", "write"]

_NAMES = {
    "f32": "F32", "f64": "F64", "f16": "F16", "bf16": "BF16", "bool": "BOOL", "i8": "I8", "u8": "U8", "i16": "I16",
    "u16": "U16", "i32": "I32", "u32": "U32", "i64": "I64", "u64": "U64",
}  # fmt: skip
_DTYPES = {v: k for k, v in _NAMES.items()}
_HEADER_LIMIT = 100 << 20  # the format's own
_FORMAT = "diptych 1"


def write(path: str | os.PathLike[str], graph: Graph, test_in: Mapping[str, Array] | None = None,
          test_out: Mapping[str, Array] | None = None, dynamic: Mapping[str, Any] | None = None) -> None:  # fmt: skip
    """Write a Graph; `test_in` and `test_out` are inputs and the outputs they gave, kept for checking later.

    `dynamic`: {input: {axis: name}}, what the model was declared to take any extent of, up to the Graph's own.
    """
    from diptych.ir.text import print_graph

    tensors: dict[str, tuple[Array, str]] = {}
    for v, array in graph.constants.items():
        tensors[f"const:{v}"] = (array, graph.types[v].dtype)
    for prefix, types, arrays in (("in:", graph.input_types(), test_in), ("out:", graph.output_types(), test_out)):
        for name, array in (arrays or {}).items():
            tensors[prefix + name] = (array, types[name].dtype)
    # Larger elements first: then every tensor is aligned to its element without holes, which the format forbids.
    order = sorted(tensors, key=lambda n: -tensors[n][0].dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": _FORMAT, "graph": print_graph(graph)}}
    if dynamic:
        header["__metadata__"]["dynamic"] = json.dumps({n: {str(i): a for i, a in own.items()} for n, own in dynamic.items()})
    at = 0
    for name in order:
        array, dtype = tensors[name]
        header[name] = {"dtype": _NAMES[dtype], "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    temporary = Path(f"{os.fspath(path)}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as f:
            f.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                f.write(np.ascontiguousarray(tensors[name][0]).data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> Graph:
    """The Graph of a saved model; its constants are views of the mapped file. Raises FormatError."""
    with open(path, "rb", buffering=0) as f:
        return _graph(path, f)


def _graph(path: str | os.PathLike[str], f: FileIO) -> Graph:
    from diptych.ir.text import parse_graph
    from diptych.ops import OPS  # all operators: a start from the cache does without

    header, tensors = _load(path, f)
    constants = {}
    for name, array in tensors.items():
        if name.startswith("const:"):
            if not name[6:].isdecimal():
                raise FormatError(f"{path}: tensor {name!r} has no value number")
            constants[int(name[6:])] = array
    graph = parse_graph(header["graph"], constants, ops=OPS)
    let_go(mapped_files(constants.values()))  # each was read, to be checked
    return graph


class SavedSource:
    """A saved model as a Source. The file stays open: what is read later is what was opened, whatever became of its name."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._file = open(self._path, "rb", buffering=0)  # noqa: SIM115
        self._seen: tuple[str, dict[str, TensorType]] | None = None

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def _known(self) -> tuple[str, dict[str, TensorType]]:
        if self._seen is None:
            graph = self.graph({})
            self._seen = graph.name, graph.input_types()
        return self._seen

    @property
    def name(self) -> str:
        """The name of the Graph."""
        return self._known()[0]

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs, in order."""
        return tuple(self._known()[1])

    def default_types(self) -> dict[str, TensorType]:
        """The types it was saved with, the only ones it has."""
        return dict(self._known()[1])

    def dynamic(self) -> dict[str, dict[int, str]] | None:
        """{input: {axis: name}} of what the model takes any extent of, up to the saved one; None when all is fixed."""
        text = _load(self._path, self._file)[0].get("dynamic")
        if text is None:
            return None
        try:
            found = {n: {int(i): a for i, a in own.items()} for n, own in json.loads(text).items()}
        except (ValueError, AttributeError, RecursionError) as e:
            raise FormatError(f"{self._path}: its dynamic axes are damaged ({e})") from None
        if not all(isinstance(a, str) for own in found.values() for a in own.values()):
            raise FormatError(f"{self._path}: its dynamic axes are damaged: a name is missing")
        return found

    def fingerprint(self) -> str:
        """What stands for the content of the file, test vector and all."""
        return of_file(self._file, default_cache())

    def graph(self, types: Mapping[str, TensorType]) -> Graph:
        """The Graph, whose constants are views of the mapped file."""
        from diptych.frontends.graph import GraphSource

        return GraphSource(_graph(self._path, self._file)).graph(types)


def read_test_vector(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Array]]:
    """The inputs and outputs kept in a saved model."""
    with open(path, "rb", buffering=0) as f:
        _, tensors = _load(path, f)
    return tuple(  # type: ignore[return-value]
        {n.removeprefix(p): a for n, a in tensors.items() if n.startswith(p)} for p in ("in:", "out:")
    )


def _load(path: str | os.PathLike[str], f: FileIO) -> tuple[dict[str, str], dict[str, Array]]:
    size = os.fstat(f.fileno()).st_size
    if size < 8:
        raise FormatError(f"{path}: {size} bytes are no saved model")
    length = int.from_bytes(os.pread(f.fileno(), 8, 0), "little")
    if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
        raise FormatError(f"{path}: a header of {length} bytes does not fit a file of {size}: not a saved model")
    text = os.pread(f.fileno(), length, 8)
    mapped = MappedFile(f.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        header = json.loads(text, object_pairs_hook=_no_duplicates)
        meta = header.pop("__metadata__")
        if not isinstance(meta, dict) or meta.get("format") != _FORMAT or not isinstance(meta.get("graph"), str):
            raise FormatError("no graph in it: a safetensors file, but not one that Model.save wrote")
        data = size - 8 - length
        spans = []
        tensors = {}
        for name, entry in header.items():
            dtype, (begin, end) = _DTYPES[entry["dtype"]], entry["data_offsets"]
            t = TensorType(tuple(entry["shape"]), dtype)
            if not (type(begin) is type(end) is int and 0 <= begin <= end <= data) or end - begin != t.nbytes:
                raise FormatError(f"tensor {name!r}: bytes {begin} to {end} do not hold {t}")
            spans.append((begin, end))
            count = t.size
            array = np.frombuffer(mapped, numpy_dtype(dtype), count, 8 + length + begin) if count else np.empty(
                t.shape, numpy_dtype(dtype))  # fmt: skip
            tensors[name] = array.reshape(t.shape)
        spans.sort()
        if any(a[1] > b[0] for a, b in pairwise(spans)):
            raise FormatError("tensors overlap")
    except FormatError as e:
        raise FormatError(f"{path}: {e}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise FormatError(f"{path}: the header is damaged ({type(e).__name__}: {e})") from None
    return meta, tensors


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise FormatError("a key appears twice in the header")
    return out
