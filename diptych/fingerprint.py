"""What a compiled model depends on, hashed: the content of a Graph or of a saved file, and the compiler itself."""

from __future__ import annotations

import hashlib
import os
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.runtime.threads import cpu_count, spread

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import FileIO

    from diptych.ir import Graph
    from diptych.runtime.cache import ObjectCache

__all__ = ["of_arrays", "of_compiler", "of_file", "of_graph"]

_CHUNK = 4 << 20
_SETTLED_NS = 2_000_000_000


def of_graph(graph: Graph) -> str:
    """Everything about a Graph that its results depend on, and its name; names of layers do not count."""
    nodes = [(repr(n.op), n.inputs, n.outputs) for n in graph.nodes]
    whole = repr((graph.name, graph.types, graph.inputs, graph.outputs, graph.input_names, graph.output_names, nodes))
    order = sorted(graph.constants)

    def one(v: int) -> bytes:
        array = np.ascontiguousarray(graph.constants[v])
        found = hashlib.sha256(f"{v} {array.dtype.str} {array.shape} ".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
        return found.digest()

    found = hashlib.sha256(whole.encode())
    for part in spread(one, order, cpu_count()):
        found.update(part)
    return "graph " + found.hexdigest()


def of_file(f: FileIO, cache: ObjectCache) -> str:
    """The content of an open file. It is read once: after that the cache knows it by its inode, size and times of change.

    As long as the file was changed less than two seconds ago it is read each time, since clocks of file systems are
    coarse.
    """
    info = os.fstat(f.fileno())
    identity = f"file {info.st_dev} {info.st_ino} {info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}"
    known = cache.get(identity)
    if known is not None:
        return known.decode()

    def chunk(at: int) -> bytes:
        return hashlib.sha256(os.pread(f.fileno(), _CHUNK, at)).digest()

    before = time.time_ns()
    parts = spread(chunk, range(0, info.st_size, _CHUNK), cpu_count())
    again = os.fstat(f.fileno())
    made = "file " + hashlib.sha256(b"".join(parts) + str(info.st_size).encode()).hexdigest()
    unchanged = (again.st_size, again.st_mtime_ns, again.st_ctime_ns) == (info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    if unchanged and before - max(info.st_ctime_ns, info.st_mtime_ns) > _SETTLED_NS:
        cache.put(identity, made.encode())
    return made


@cache
def of_compiler() -> str:
    """The version and the compiler's own sources, so that a changed kernel never meets an old object."""
    from diptych._version import __version__

    root = Path(__file__).parent
    found = _stamps("codegen", "ir", "kernels", "ops", "passes", "runtime", "schedule", "targets")
    found += [f"{n}:{(root / n).stat().st_mtime_ns}" for n in ("compiler.py", "compiled.py")]
    return f"{__version__} {hashlib.sha256(';'.join(found).encode()).hexdigest()}"


def of_arrays(arrays: Mapping[str, np.ndarray[Any, Any]], *more: object) -> str:
    """Named arrays and whatever else says what is made of them by a frontend, whose sources count as well."""

    def one(name: str) -> bytes:
        array = np.ascontiguousarray(arrays[name])
        found = hashlib.sha256(f"{name} {array.dtype.str} {array.shape} ".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
        return found.digest()

    found = hashlib.sha256(repr((more, _stamps("frontends"))).encode())
    for part in spread(one, sorted(arrays), cpu_count()):
        found.update(part)
    return "arrays " + found.hexdigest()


def _stamps(*parts: str) -> list[str]:
    """Sizes and times of change of the sources of these parts of the package."""
    root = Path(__file__).parent
    found = []
    for part in parts:
        for folder, below, names in os.walk(root / part):
            below.sort()
            for name in sorted(names):
                if name.endswith(".py"):
                    info = os.stat(os.path.join(folder, name))
                    found.append(f"{part}/{name}:{info.st_mtime_ns}:{info.st_size}")
    return found
