"""`mx.profiler`: where the time of a script goes, as a table and as a trace for chrome://tracing.

Of networks that run as native code every step is timed by the cycle counter (see `diptych.profile`) and carries the name
of the operator that it computes; an operator called by itself is one span. MXNet's C interface does not exist here, so
`profile_api` records nothing.
"""

from __future__ import annotations

import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diptych.mxnet.base import MXNetError, getenv
from diptych.mxnet.profiling import MEMORY, recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diptych.mxnet.profiling import Statistic

__all__ = [
    "Counter", "Domain", "Event", "Frame", "Marker", "Task", "dump", "dump_profile", "dumps", "pause", "profiler_set_config",
    "profiler_set_state", "resume", "scope", "set_config", "set_kvstore_handle", "set_state", "start", "stop",
]  # fmt: skip

_SORTS = {"total": "Total", "avg": "Avg", "min": "Min", "max": "Max", "count": "Count"}
_SCOPES = {"global": "g", "process": "p", "thread": "t", "task": "t", "marker": "t"}


def set_config(**kwargs: Any) -> None:
    """Say what to record and where to write it.

    >>> set_config(profile_all=True, aggregate_stats=True, filename="trace.json")

    Operators are recorded in any case, those of networks step by step: profile_symbolic, profile_imperative and profile_api
    change nothing (in MXNet the first two do not either). profile_memory, or profile_all: the memory of the process too. aggregate_stats: keep the sums that `dumps` shows. filename: of the trace,
    "profile.json" if not given. continuous_dump, dump_period: write the trace while running, when so many seconds have
    passed. Raises MXNetError for other options.
    """
    recorder.configure(kwargs)


def profiler_set_config(mode: str = "symbolic", filename: str = "profile.json") -> None:
    """Use `set_config`: this is the form of MXNet 0.9."""
    warnings.warn("profiler.profiler_set_config() is deprecated. Please use profiler.set_config() instead", stacklevel=2)
    set_config(**{f"profile_{mode}": True, "filename": filename})


def _worker(profile_process: str) -> None:
    if profile_process != "worker":
        raise MXNetError(f"profile_process={profile_process!r}: there is one process here, the 'worker'")


def set_state(state: str = "stop", profile_process: str = "worker") -> None:
    """'run' or 'stop'."""
    _worker(profile_process)
    if state not in ("run", "stop"):
        raise KeyError(state)
    if state == "stop":
        _settle()
    recorder.run(state == "run")


def _settle() -> None:
    """Compute what waits, so that it is in the account."""
    if recorder.active:
        from diptych.mxnet.tape import settle

        settle()


def profiler_set_state(state: str = "stop") -> None:
    """Use `set_state`: this is the form of MXNet 0.9."""
    warnings.warn("profiler.profiler_set_state() is deprecated. Please use profiler.set_state() instead", stacklevel=2)
    set_state(state)


def start(profile_process: str = "worker") -> None:
    """The same as `set_state("run")`."""
    set_state("run", profile_process)


def stop(profile_process: str = "worker") -> None:
    """The same as `set_state("stop")`."""
    set_state("stop", profile_process)


def pause(profile_process: str = "worker") -> None:
    """Record nothing until `resume`."""
    _worker(profile_process)
    _settle()
    recorder.pause(True)


def resume(profile_process: str = "worker") -> None:
    """Go on recording."""
    _worker(profile_process)
    recorder.pause(False)


def dump(finished: bool = True, profile_process: str = "worker") -> None:
    """Write the trace to the file of `set_config`; `finished`: the profiler stops. MXNetError when it has never run."""
    _worker(profile_process)
    _settle()
    recorder.dump(finished)


def dump_profile() -> None:
    """Use `dump`: this is the form of MXNet 0.9."""
    warnings.warn("profiler.dump_profile() is deprecated. Please use profiler.dump() instead", stacklevel=2)
    dump(True)


def dumps(reset: bool = False, format: str = "table", sort_by: str = "total", ascending: bool = False) -> str:
    """The sums by name, needing `aggregate_stats=True`: as a table, or as JSON.

    reset: begin them anew. sort_by: total, avg, min, max or count. Times are milliseconds, memory is in kB (1000 bytes).
    Counters stand among the times, as in MXNet: a thousandth of their value, with half of their range for an average.
    """
    if format not in ("table", "json"):
        raise AssertionError(f"Invalid value provided for format: {format}. Support: 'table', 'json'")
    if sort_by not in _SORTS:
        raise AssertionError(f"Invalid value provided for sort_by: {sort_by}. Support: {', '.join(map(repr, _SORTS))}")
    for name, value in (("ascending", ascending), ("reset", reset)):
        if value not in (False, True):
            raise AssertionError(f"Invalid value provided for {name}: {value}. Support: False, True")
    _settle()
    found = recorder.table()
    if reset:
        recorder.forget()
    rows = {category: _sorted(kept, _SORTS[sort_by], ascending) for category, kept in found.items()}
    return _as_json(rows) if format == "json" else _as_table(rows)


Rows = list[tuple[str, dict[str, float]]]


def _sorted(kept: dict[str, Statistic], by: str, ascending: bool) -> Rows:
    return sorted(((n, s.row()) for n, s in kept.items()), key=lambda r: r[1][by], reverse=not ascending)


def _as_json(rows: dict[str, Rows]) -> str:
    import json

    def shown(name: str, row: dict[str, float]) -> dict[str, float]:
        return {k: v if k == "Count" else float(f"{v:.4g}") for k, v in row.items() if k != "Total" or name != MEMORY}

    parts: dict[str, dict[str, Any]] = {"Time": {}, "Memory": {}}
    for category, found in rows.items():
        parts["Memory" if category == MEMORY else "Time"][category] = {n: shown(category, r) for n, r in found}
    return json.dumps({**parts, "Unit": {"Time": "ms", "Memory": "kB"}}, indent=4)


def _as_table(rows: dict[str, Rows]) -> str:
    lines = ["", "Profile Statistics:", "\tNote the difference in units for different entries."]
    for category in sorted(rows, key=lambda c: (c != MEMORY, c)):
        memory = category == MEMORY
        heads = ["Min Use  (kB)", "Max Use  (kB)", "Avg Use  (kB)"] if memory else ["Time (ms)", "Min Time (ms)", "Max Time (ms)", "Avg Time (ms)"]
        columns = ["Min", "Max", "Avg"] if memory else ["Total", "Min", "Max", "Avg"]
        lines += [category, "================="]
        lines.append(f"{'Name':<25}{'Total Count':>16}" + "".join(f" {h:>16}" for h in heads))
        lines.append(f"{'----':<25}{'-----------':>16}" + "".join(f" {'-' * len(h):>16}" for h in heads))
        lines += [f"{n:<25}{int(r['Count']):>16}" + "".join(f" {r[c]:>16.4f}" for c in columns) for n, r in rows[category]]
        lines.append("")
    return "\n".join(lines) + "\n"


@contextmanager
def scope(name: str = "<unk>:", append_mode: bool = True) -> Iterator[str]:
    """Operators inside are recorded with this in front of their names; append_mode: behind that of the scope outside.

    >>> with scope("encoder:"):
    ...     pass
    """
    name = name if name.endswith(":") else f"{name}:"
    _settle()
    before = recorder.local.scope
    recorder.local.scope = before + name if append_mode else name
    try:
        yield recorder.local.scope
        _settle()
    finally:
        recorder.local.scope = before


def set_kvstore_handle(handle: Any) -> None:
    """For profiling the servers of a distributed kvstore, which there is not: an error."""
    raise MXNetError("profiling of kvstore servers needs a distributed kvstore, which there is not")


class Domain:
    """A group of tasks, frames, counters and markers: their category in the trace.

    >>> task = Domain("reading").new_task("decode")
    >>> task.start(); task.stop()
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name

    def new_task(self, name: str) -> Task:
        """A Task of this domain."""
        return Task(self, name)

    def new_frame(self, name: str) -> Frame:
        """A Frame of this domain."""
        return Frame(self, name)

    def new_counter(self, name: str, value: int | None = None) -> Counter:
        """A Counter of this domain."""
        return Counter(self, name, value)

    def new_marker(self, name: str) -> Marker:
        """A Marker of this domain."""
        return Marker(self, name)


class _Span:
    """Something with a beginning and an end."""

    _kind = "BE"
    _category = ""
    name: str

    def __init__(self) -> None:
        self._begin: float | None = None

    def start(self) -> None:
        """The beginning."""
        self._begin = time.time()

    def stop(self) -> None:
        """The end; nothing is recorded while the profiler is stopped or paused."""
        if self._begin is not None and recorder.active:
            recorder.span(self.name, self._category, self._begin, time.time(), self._kind)
        self._begin = None

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def __str__(self) -> str:
        return self.name


class Task(_Span):
    """A piece of work of a domain; every pass through it counts in the same sums."""

    _kind = "be"

    def __init__(self, domain: Domain, name: str) -> None:
        super().__init__()
        self.name, self._category = name, domain.name


class Frame(_Span):
    """One pass of something periodic, as the frames of a video."""

    _kind = "()"

    def __init__(self, domain: Domain, name: str) -> None:
        super().__init__()
        self.name, self._category = name, f"{domain.name},frame"


class Event(_Span):
    """A piece of work of no domain."""

    _category = "event"

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Counter:
    """A whole number that changes with time."""

    def __init__(self, domain: Domain, name: str, value: int | None = None) -> None:
        self.name, self._domain = name, domain
        self._value = 0
        if value is not None:
            self.set_value(value)

    def set_value(self, value: int) -> None:
        """Another value."""
        self._value = int(value)
        if recorder.active:
            recorder.value(self.name, self._domain.name, self._value)

    def increment(self, delta: int = 1) -> None:
        """So much more."""
        self.set_value(self._value + int(delta))

    def decrement(self, delta: int = 1) -> None:
        """So much less."""
        self.set_value(self._value - int(delta))

    def __iadd__(self, delta: int) -> Counter:
        self.increment(delta)
        return self

    def __isub__(self, delta: int) -> Counter:
        self.decrement(delta)
        return self

    def __str__(self) -> str:
        return self.name


class Marker:
    """An instant with a name."""

    def __init__(self, domain: Domain, name: str) -> None:
        self.name, self.domain = name, domain

    def mark(self, scope: str = "process") -> None:
        """Record it now; scope: global, process, thread, task or marker, how far its line reaches in the viewer."""
        if scope not in _SCOPES:
            raise MXNetError(f"Marker.mark: scope {scope!r} is none of {', '.join(_SCOPES)}")
        if recorder.active:
            recorder.mark(self.name, self.domain.name, _SCOPES[scope])


if getenv("MXNET_PROFILER_AUTOSTART") == "1":
    set_config(profile_all=True, aggregate_stats=True)
    set_state("run")
