"""What the profiler has recorded: spans of time, counters, marks; their sums by name; the trace file.

The parts that run things ask `active` first, so that a program that is not profiled pays for one comparison.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.mxnet.base import MXNetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["CUSTOM", "MEMORY", "OPERATOR", "Recorder", "Statistic", "recorder"]

OPERATOR, CUSTOM, MEMORY = "operator", "Custom Operator", "Device Storage"
_FLAGS = ("profile_all", "profile_symbolic", "profile_imperative", "profile_memory", "profile_api")
_PROCESS = 0  # the one process of the trace: cpu/0


class Statistic:
    """Sums over the spans, or the values of a counter, of one name."""

    __slots__ = ("count", "counter", "last", "least", "most", "total")

    def __init__(self, counter: bool) -> None:
        self.counter = counter
        self.count, self.total, self.last = 0, 0.0, 0.0
        self.least, self.most = float("inf"), float("-inf")

    def add(self, value: float) -> None:
        """One more span (milliseconds), or value of a counter."""
        self.count += 1
        self.total += value
        self.last = value
        self.least, self.most = min(self.least, value), max(self.most, value)

    def row(self) -> dict[str, float]:
        """Count, Total, Min, Max, Avg as MXNet has them: of a counter the last value, and half of its range for the average."""
        if self.counter:
            return {"Count": self.count, "Total": self.last, "Min": self.least, "Max": self.most, "Avg": (self.most - self.least) / 2}
        return {"Count": self.count, "Total": self.total, "Min": self.least, "Max": self.most, "Avg": self.total / self.count}


class _Local(threading.local):
    custom: tuple[str, ...] = ()  # the custom operators that are running, the innermost last
    scope = ""

    def __init__(self) -> None:
        self.inside = [0.0]  # seconds that operators inside of the running custom operator took


class Recorder:
    """The state of the profiler, its events and sums. One exists per process: `recorder`."""

    def __init__(self) -> None:
        self.active = False  # running and not paused
        self.running = self.paused = False
        self.filename = "profile.json"
        self.flags: dict[str, bool] = dict.fromkeys(_FLAGS, False)
        self.aggregate = self.continuous = False
        self.period = 1.0
        self.events: list[dict[str, Any]] = []
        self.statistics: dict[str, dict[str, Statistic]] = {}
        self.local = _Local()
        self._lock = threading.RLock()
        self._ran = False
        self._end = 0  # bytes of the file up to the last event in it; 0: it is not begun
        self._dumped = 0.0

    # -- settings -----------------------------------------------------------------------------------------------
    def configure(self, options: Mapping[str, Any]) -> None:
        """Take the options of `profiler.set_config`; the others become what they are by default."""
        known = {*_FLAGS, "filename", "aggregate_stats", "continuous_dump", "dump_period", "profile_process"}
        if wrong := sorted(set(options) - known):
            raise MXNetError(f"profiler.set_config: no option {', '.join(wrong)}; there are {', '.join(sorted(known))}")
        if options.get("profile_process", "worker") != "worker":
            raise MXNetError("profiler.set_config: profile_process='server' needs a distributed kvstore; there is one process here")
        self.flags = {f: bool(options.get(f, False)) for f in _FLAGS}
        if (filename := str(options.get("filename", "profile.json"))) != self.filename:
            self.filename, self._end = filename, 0
        self.aggregate = bool(options.get("aggregate_stats", False))
        self.continuous = bool(options.get("continuous_dump", False))
        self.period = float(options.get("dump_period", 1.0))

    def run(self, running: bool) -> None:
        """Start or stop."""
        self.running = running
        self.paused = self.paused and not running  # running anew is not paused
        self._ran = self._ran or running
        self.active = running and not self.paused

    def pause(self, paused: bool) -> None:
        """Pause, or go on."""
        self.paused = paused
        self.active = self.running and not paused

    # -- recording ----------------------------------------------------------------------------------------------
    def span(self, name: str, category: str, begin: float, end: float, kind: str = "BE", arguments: Mapping[str, Any] | None = None) -> None:
        """A span of time, in seconds of `time.time()`; `kind`: the two letters that begin and end it in the trace."""
        with self._lock:
            thread = threading.get_ident() & 0xFFFFFF
            at: dict[str, Any] = {"name": name, "cat": category, "pid": _PROCESS, "tid": thread}
            if kind == "be":
                at["id"] = thread
            self.events.append({**at, "ph": kind[0], "ts": int(begin * 1e6), **({"args": dict(arguments)} if arguments else {})})
            self.events.append({**at, "ph": kind[1], "ts": int(end * 1e6)})
            self._add(category, name, (end - begin) * 1e3, counter=False)
            self._again()

    def value(self, name: str, category: str, value: int) -> None:
        """The value of a counter from now on."""
        with self._lock:
            self.events.append({"name": name, "cat": category, "ph": "C", "ts": int(time.time() * 1e6), "args": {name: value},
                                "pid": _PROCESS, "tid": threading.get_ident() & 0xFFFFFF})  # fmt: skip
            self._add(category, name, value / 1000.0, counter=True)
            self._again()

    def mark(self, name: str, domain: str, scope: str) -> None:
        """An instant."""
        with self._lock:
            self.events.append({"name": name, "cat": f"{domain},instant_marker", "ph": "i", "ts": int(time.time() * 1e6), "s": scope,
                                "pid": _PROCESS, "tid": threading.get_ident() & 0xFFFFFF})  # fmt: skip
            self._again()

    def _add(self, category: str, name: str, value: float, counter: bool) -> None:
        if self.aggregate:
            kept = self.statistics.setdefault(category, {})
            kept.setdefault(name, Statistic(counter)).add(value)

    def operator(self, name: str, begin: float, end: float, arguments: Mapping[str, Any] | None = None) -> None:
        """An operator that ran."""
        name = self.local.scope + name
        if self.local.custom:
            self.local.inside[-1] += end - begin
            self.span(f"{self.local.custom[-1]}::{name}", CUSTOM, begin, end, arguments=arguments)
        else:
            self.span(name, OPERATOR, begin, end, arguments=arguments)
        self.memory()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Record what runs inside as one operator, when the profiler is active."""
        if not self.active:
            yield
            return
        begin = time.time()
        yield
        self.operator(name, begin, time.time())

    @contextmanager
    def custom(self, name: str) -> Iterator[None]:
        """A custom operator: its operators are recorded under its name, and its Python apart from them."""
        if not self.active:
            yield
            return
        local = self.local
        before = local.custom
        local.custom = (*before, name)
        local.inside.append(0.0)
        begin = time.time()
        try:
            yield
        finally:
            end = time.time()
            local.custom = before
            inside = local.inside.pop()
            local.inside[-1] += end - begin
            self.span(f"{name}::pure_python", CUSTOM, begin, max(begin, end - inside))

    def memory(self) -> None:
        """Note the memory of the process, when that is asked for."""
        if self.flags["profile_all"] or self.flags["profile_memory"]:
            self.value("Memory: cpu/0", MEMORY, resident())

    # -- results ------------------------------------------------------------------------------------------------
    def table(self) -> dict[str, dict[str, Statistic]]:
        """The sums by category and name."""
        with self._lock:
            return {category: dict(found) for category, found in sorted(self.statistics.items()) if found}

    def forget(self) -> None:
        """Begin the sums anew."""
        with self._lock:
            self.statistics = {}

    def dump(self, finished: bool) -> None:
        """Write the trace; `finished`: stop, and begin a new trace next time."""
        if not self._ran:
            raise MXNetError("Profiler hasn't been run. Config and start profiler first")
        self._write()
        if finished:
            self.run(False)
            self._ran = False
            self._end = 0

    def _write(self) -> None:
        """Put the events that are not in the file yet behind those that are."""
        with self._lock:
            events, self.events = self.events, []
            self._dumped = time.time()
            if not self._end:
                head = json.dumps({"ph": "M", "args": {"name": "cpu/0"}, "pid": _PROCESS, "name": "process_name"})
                Path(self.filename).write_text('{\n"traceEvents": [\n' + head, encoding="utf-8")
                self._end = Path(self.filename).stat().st_size
            with open(self.filename, "r+b") as f:
                f.seek(self._end)
                f.write("".join(",\n" + json.dumps(e) for e in events).encode())
                self._end = f.tell()
                f.write(b'\n],\n"displayTimeUnit": "ms"\n}\n')
                f.truncate()

    def _again(self) -> None:
        if self.continuous and time.time() - self._dumped > self.period:
            self._write()

    def finish(self) -> None:
        """At the end of the process: write what has not been written."""
        if self._ran and self.events:
            self._write()


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def resident() -> int:
    """Bytes of memory that this process holds now (where only its maximum is known, that)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * _PAGE
    except OSError:
        try:
            import resource
        except ImportError:
            return 0
        most: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if os.uname().sysname == "Darwin" else most * 1024


recorder = Recorder()
atexit.register(recorder.finish)
