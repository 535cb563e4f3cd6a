"""Progress of a compilation: a callback of the user's, or one line on a terminal when it takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Progress", "TerminalLine", "default_progress"]

#: progress(stage, done, total): "passes", then "kernels" with how many are compiled, then "done"
Progress: TypeAlias = Callable[[str, int, int], None]

_QUIET_SECONDS = 2.0
_WIDTH = 24


class TerminalLine:
    """A line on standard error, rewritten in place; nothing at all during the first two seconds."""

    def __init__(self, title: str = "compiling") -> None:
        self._title, self._begin, self._shown = title, time.monotonic(), False

    def __call__(self, stage: str, done: int, total: int) -> None:
        seconds = time.monotonic() - self._begin
        if stage == "done":
            if self._shown:
                sys.stderr.write(f"\r{self._title}: done in {seconds:.1f} s\x1b[K\n")
        elif seconds >= _QUIET_SECONDS:
            bar = "#" * (_WIDTH * done // max(total, 1))
            sys.stderr.write(f"\r{self._title}: {stage} [{bar:{_WIDTH}}] {done}/{total} {seconds:.0f} s\x1b[K")
            self._shown = True
        sys.stderr.flush()


def default_progress() -> Progress | None:
    """A TerminalLine when standard error is a terminal, else None."""
    return TerminalLine() if sys.stderr is not None and sys.stderr.isatty() else None
