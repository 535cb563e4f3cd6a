"""What was measured of this machine before and is kept in the cache: its figures, and the schedules tuned on it."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache as once
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.fingerprint import of_compiler
from diptych.ir.tuning import Tuning
from diptych.runtime.cache import default_cache
from diptych.targets.figures import Figures

if TYPE_CHECKING:
    from diptych.targets.base import Target

__all__ = ["keep_figures", "keep_tuning", "kept_figures", "kept_tuning"]

FIGURES, TUNED = ".figures", ".tuned"  # what cache entries are named by


def kept_figures(target: Target, threads: int) -> Figures | None:
    """What `diptych.calibrate` measured here with that many threads, or None."""
    found = default_cache().get(_key("figures", target, threads), FIGURES) if target.is_host else None
    return None if found is None else Figures(**json.loads(found))


def keep_figures(target: Target, threads: int, figures: Figures) -> None:
    """Keep measured figures for this processor."""
    default_cache().put(_key("figures", target, threads), json.dumps(asdict(figures)).encode(), FIGURES)


def kept_tuning(target: Target, threads: int) -> Tuning:
    """All that was tuned here with that many threads; empty where nothing was."""
    found = default_cache().get(_key("tuned", target, threads), TUNED) if target.is_host else None
    return Tuning() if found is None else Tuning.from_text(found.decode())


def keep_tuning(target: Target, threads: int, tuning: Tuning) -> None:
    """Keep tuned schedules for this processor, in place of those kept so far."""
    default_cache().put(_key("tuned", target, threads), tuning.to_text().encode(), TUNED)


def _key(what: str, target: Target, threads: int) -> str:
    return f"{what} {_cpu_name()} {target!r} {threads} {of_compiler()}"


@once
def _cpu_name() -> str:
    """What the machine calls its processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    import platform  # takes a while

    return platform.processor() or platform.machine()
