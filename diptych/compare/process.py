"""The parent's side of an engine's process: start it, ask it, stop it in its tracks while another one runs."""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from diptych.compare.workers import worker
from diptych.errors import DiptychError
from diptych.ir import Array

__all__ = ["EngineError", "Process"]

WORKER = Path(worker.__file__)
CAN_STOP = hasattr(signal, "SIGSTOP")


class EngineError(DiptychError, RuntimeError):
    """An engine could not do what it was asked; the message is the engine's own, shortened."""


class _Patient(io.RawIOBase):
    """Reads a pipe with a deadline, so that an engine that hangs is an error and not a wait without end."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.descriptor, self.name, self.deadline = descriptor, name, float("inf")
        self.selector = selectors.DefaultSelector()
        self.selector.register(descriptor, selectors.EVENT_READ)

    def read(self, size: int = -1) -> bytes:
        left = self.deadline - time.monotonic()
        if left <= 0 or not self.selector.select(None if left == float("inf") else left):
            raise TimeoutError
        return os.read(self.descriptor, size)


class Process:
    """One engine's process.

    >>> with Process("echo", [sys.executable], threads=1) as p:  # doctest: +SKIP
    ...     reply, outputs = p.ask("run")
    """

    def __init__(
        self, name: str, command: Sequence[str], *, threads: int, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        counts = {
            k: str(threads)
            for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
        }
        self.child = subprocess.Popen(
            [*command, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, **counts, **(env or {})},
            start_new_session=True,  # its own group: the engine's helpers are stopped and ended with it
        )
        assert self.child.stdin is not None and self.child.stdout is not None
        self.sink = self.child.stdin
        self.source = _Patient(self.child.stdout.fileno(), name)
        self.paused = False

    def ask(
        self, op: str, arrays: Mapping[str, Array] | None = None, *, timeout: float = 900.0, **fields: Any
    ) -> tuple[dict[str, Any], list[Array]]:
        """Send one request and wait for its answer: the reply's fields and its arrays in order."""
        self.resume()
        self.source.deadline = time.monotonic() + timeout
        try:
            worker.send(cast(Any, self.sink), {"op": op, **fields}, dict(arrays or {}))
            header, raw = worker.receive(cast(Any, self.source))
        except TimeoutError:
            self.close()
            raise EngineError(f"{self.name}: no answer to {op!r} within {timeout:.0f} s; process ended") from None
        except (EOFError, OSError):
            words = self._last_words()
            self.close()
            raise EngineError(f"{self.name}: the process ended during {op!r}{words}") from None
        if "error" in header:
            if os.environ.get("DIPTYCH_DEBUG"):
                raise EngineError(f"{self.name}: {header['trace']}")
            lines = [line.strip() for line in header["error"].strip().splitlines() if line.strip()]
            raise EngineError(f"{self.name}: {_telling(lines)}")
        return header, list(worker.decode(header, raw).values())

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(2)
        self.log.seek(0)
        lines = [s for s in self.log.read()[-4000:].decode(errors="replace").splitlines() if s.strip()]
        return f" (exit status {self.child.poll()}): {lines[-1]}" if lines else f" (exit status {self.child.poll()})"

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, number)

    def pause(self) -> None:
        """Stop every thread of the engine: idle engines spin, and would be in the others' figures."""
        if CAN_STOP and not self.paused:
            self._signal(signal.SIGSTOP)
            self.paused = True

    def resume(self) -> None:
        """Let it run on."""
        if self.paused:
            self._signal(signal.SIGCONT)
            self.paused = False

    def close(self) -> None:
        """End the process and whatever it started."""
        self.resume()
        with contextlib.suppress(OSError, ValueError):
            worker.send(cast(Any, self.sink), {"op": "stop"})
        with contextlib.suppress(OSError, ValueError):
            self.sink.close()
        try:
            self.child.wait(0.5)
        except subprocess.TimeoutExpired:
            pass
        self._signal(signal.SIGKILL if CAN_STOP else signal.SIGTERM)
        self.child.wait()
        if self.child.stdout is not None:
            with contextlib.suppress(KeyError, ValueError):
                self.source.selector.unregister(self.source.descriptor)
            self.source.selector.close()
            self.child.stdout.close()
        self.log.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _telling(lines: list[str]) -> str:
    """The line of an error that says most: MXNet's messages open with a traceback of C++ frames."""
    if not lines:
        return "failed without a message"
    if "Traceback" in lines[0]:
        for line in lines[1:]:
            if "Error" in line and not line.startswith(("File", "[bt]")):
                return line[:400]
    return " ".join(lines[:6])[:400]
