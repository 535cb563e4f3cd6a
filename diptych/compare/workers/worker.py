"""The process that holds one engine. Started by path: `python worker.py`; talks frames over stdin and stdout.

A frame is an 8-byte little-endian length, that many bytes of JSON, then the raw bytes of the arrays that the JSON's
`arrays` list describes. Self-contained: the standard library, and NumPy once the engine has imported it (so that its
import is counted where it belongs). Works on every Python from 3.8 on, because MXNet's own interpreter is an old one.
"""

from __future__ import annotations

import importlib
import json
import os
import struct
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Host", "main", "memory", "receive", "send", "turn"]

GROUP_BELOW = 3e-4  # calls shorter than this are timed in groups, or the clock itself would be in the figure
GROUP_SECONDS = 1e-3
WAKE_SECONDS = 0.02
MAX_HEADER = 1 << 26


def send(stream: BinaryIO, header: dict[str, Any], arrays: dict[str, Any] | None = None) -> None:
    """Write one frame."""
    described = []
    raw = []
    for name, array in (arrays or {}).items():
        if not array.flags.c_contiguous:
            array = array.copy(order="C")
        described.append({"name": name, "dtype": array.dtype.str, "shape": list(array.shape)})
        raw.append(array)
    text = json.dumps(dict(header, arrays=described)).encode()
    stream.write(struct.pack("<Q", len(text)) + text)
    for array in raw:
        stream.write(array.tobytes())
    stream.flush()


def _exactly(stream: BinaryIO, count: int) -> bytes:
    parts = []
    while count:
        part = stream.read(count)
        if not part:
            raise EOFError("the other side closed the pipe")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def receive(stream: BinaryIO) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read one frame; the arrays come as raw bytes, `decode` makes arrays of them. EOFError at the end."""
    (length,) = struct.unpack("<Q", _exactly(stream, 8))
    if length > MAX_HEADER:
        raise EOFError(f"not a frame: the header would have {length} bytes")
    header = json.loads(_exactly(stream, length))
    raw = {}
    for item in header["arrays"]:
        count = int(item["dtype"][2:])
        for extent in item["shape"]:
            count *= extent
        raw[item["name"]] = _exactly(stream, count)
    return header, raw


def decode(header: dict[str, Any], raw: dict[str, bytes]) -> dict[str, Any]:
    """The arrays of a received frame."""
    import numpy as np

    return {
        item["name"]: np.frombuffer(raw[item["name"]], np.dtype(item["dtype"])).reshape(item["shape"]).copy()
        for item in header["arrays"]
    }


def memory() -> dict[str, int]:
    """Resident bytes of this process now and at its highest (0 where the system does not say).

    `getrusage` is not used where /proc is: its maximum also counts the parent from before the exec.
    """
    try:
        with open("/proc/self/status") as f:
            fields = dict(line.split(":", 1) for line in f if ":" in line)
        return {"now": int(fields["VmRSS"].split()[0]) * 1024, "peak": int(fields["VmHWM"].split()[0]) * 1024}
    except (OSError, KeyError):
        pass
    try:
        import resource
    except ImportError:
        return {"now": 0, "peak": 0}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"now": 0, "peak": peak if sys.platform == "darwin" else peak * 1024}


def turn(call: Callable[[], Any], seconds: float) -> list[float]:
    """Seconds per call, over at least `seconds` of timed work and three samples, after untimed wake-up calls."""
    clock = time.perf_counter
    woken, calls = 0.0, 0
    while calls < 2 or (woken < WAKE_SECONDS and calls < 1000):
        start = clock()
        call()
        one = clock() - start
        woken += one
        calls += 1
    group = max(1, round(GROUP_SECONDS / max(one, 1e-8))) if one < GROUP_BELOW else 1
    samples: list[float] = []
    spent = 0.0
    while spent < seconds or len(samples) < 3:
        start = clock()
        for _ in range(group):
            call()
        took = clock() - start
        samples.append(took / group)
        spent += took
    return samples


def installed_bytes(names: list[str]) -> int:
    """Bytes on disk of these distributions with everything they require that is installed here."""
    import importlib.metadata as metadata
    import re

    seen, todo, total = set(), list(names), 0
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            total += _source_bytes(name)  # a package run from its source folder
            continue
        for file in found.files or []:
            try:
                total += os.stat(str(found.locate_file(file))).st_size
            except OSError:
                pass
        for requirement in found.requires or []:
            if "extra" not in requirement.partition(";")[2]:
                match = re.match(r"[A-Za-z0-9._-]+", requirement)
                if match:
                    todo.append(match.group())
    return total


def _source_bytes(package: str) -> int:
    import importlib.util

    found = importlib.util.find_spec(package) if package in sys.modules else None
    total = 0
    for folder in (found.submodule_search_locations or []) if found else []:
        for where, _, files in os.walk(folder):
            if not where.endswith("__pycache__"):
                total += sum(os.stat(os.path.join(where, f)).st_size for f in files)
    return total


class Host:
    """Answers the frames of the parent for one engine."""

    def __init__(self) -> None:
        self.engine: Any = None

    def start(self, header: dict[str, Any], raw: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Import the framework, load the model, answer once; each phase is timed."""
        module = importlib.import_module(header["adapter"])
        self.engine = module.Engine(header["spec"], header["threads"], header["options"])
        clock = time.perf_counter
        t0 = clock()
        version = self.engine.bring()
        t1 = clock()
        arrays = decode(header, raw)
        t2 = clock()
        self.engine.load(arrays)
        t3 = clock()
        self.engine.feed(arrays)
        t4 = clock()
        answer = self.engine.call()
        t5 = clock()
        outputs = self.engine.fetch(answer)
        reply = {
            "version": version,
            "import_s": t1 - t0,
            "load_s": t3 - t2,
            "first_s": t5 - t4,
            "memory": memory(),
            "variant": self.engine.variant,
        }
        return reply, _named(outputs)

    def evaluate(self, header: dict[str, Any], raw: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The outputs for many samples, run in batches of the model's own batch size (the last one is filled up)."""
        import numpy as np

        arrays = decode(header, raw)
        batch = header["batch"]
        count = len(next(iter(arrays.values())))
        parts: list[list[Any]] = []
        for start in range(0, count, batch):
            index = np.minimum(np.arange(start, start + batch), count - 1)
            self.engine.feed({k: v[index] for k, v in arrays.items()})
            parts.append([np.array(a) for a in self.engine.fetch(self.engine.call())])
        outputs = [np.concatenate(column)[:count] for column in zip(*parts)]
        return {}, _named(outputs)

    def feed(self, header: dict[str, Any], raw: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Set the inputs of the calls to come."""
        self.engine.feed(decode(header, raw))
        return {}, {}

    def run(self, header: dict[str, Any], raw: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Answer once with the outputs."""
        return {}, _named(self.engine.fetch(self.engine.call()))

    def tune(self, header: dict[str, Any], raw: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Try every way this engine can run the model and keep the fastest."""
        trials = {}
        for name in self.engine.variants():
            self.engine.use(name)
            samples = sorted(turn(self.engine.call, header["seconds"]))
            trials[name] = samples[len(samples) // 2]
        if trials:
            self.engine.use(min(trials, key=lambda k: trials[k]))
        return {"variant": self.engine.variant, "trials": trials}, {}

    def turn(self, header: dict[str, Any], raw: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Seconds per call of one turn."""
        return {"times": turn(self.engine.call, header["seconds"])}, {}

    def save(self, header: dict[str, Any], raw: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Write the compiled model to a file (engines that can)."""
        self.engine.save(header["path"])
        return {}, {}

    def facts(self, header: dict[str, Any], raw: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the engine says about itself, its memory and its size on disk."""
        return {
            "memory": memory(),
            "installed": installed_bytes(list(self.engine.distributions)),
            "notes": getattr(self.engine, "notes", {}),
        }, {}

    def serve(self, source: BinaryIO, sink: BinaryIO) -> None:
        """Answer until the parent closes the pipe or says stop."""
        while True:
            try:
                header, raw = receive(source)
            except EOFError:
                return
            if header["op"] == "stop":
                return
            try:
                reply, arrays = getattr(self, header["op"])(header, raw)
            except Exception as e:
                text = f"{type(e).__name__}: {e}"
                send(sink, {"error": text, "trace": traceback.format_exc()})
                continue
            send(sink, dict(reply, ok=True), arrays)


def _named(outputs: list[Any]) -> dict[str, Any]:
    import numpy as np

    return {f"output{i}": np.asarray(a) for i, a in enumerate(outputs)}


def _die_with_parent() -> None:
    """A stopped process outlives a parent that was killed, unless the system ends it too (Linux)."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)


def main() -> None:
    """Run the process: keep the pipe for frames, send whatever the engine prints to standard error."""
    _die_with_parent()
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]
    sys.path.append(here)  # last, so that nothing in this folder hides a real package
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    Host().serve(source, sink)


if __name__ == "__main__":
    main()
