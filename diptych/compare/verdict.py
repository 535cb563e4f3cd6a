"""Which engine fits which use: read off the measured figures, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diptych.compare.stats import ratio, spread
from diptych.compare.table import duration, milliseconds

__all__ = ["Candidate", "verdicts"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """The figures of one engine whose answer is right."""

    title: str
    rounds: Sequence[float]
    start: float  # seconds from import to the first answer
    ready: float  # seconds of import and load
    peak: int
    installed: int

    @property
    def call(self) -> float:
        return spread(self.rounds).median

    def total(self, calls: int) -> float:
        """Seconds that a fresh process needs for so many answers."""
        return self.start + (calls - 1) * self.call


def _best(candidates: Sequence[Candidate], key: Callable[[Candidate], float]) -> tuple[Candidate, Candidate | None]:
    ordered = sorted(candidates, key=key)
    return ordered[0], ordered[1] if len(ordered) > 1 else None


def verdicts(candidates: Sequence[Candidate], batch: int = 1) -> list[str]:
    """One line for each use; engines that cannot be told apart are named together."""
    if not candidates:
        return []
    lines = []
    best, second = _best(candidates, lambda c: c.call)
    level = [c.title for c in candidates if c is not best and ratio(c.rounds, best.rounds).level]
    rate = f"{batch / best.call:,.0f}" if batch / best.call >= 10 else f"{batch / best.call:.2g}"
    line = f"a service that stays up: {best.title}, {milliseconds(best.call)} ms a call, {rate} answers a second"
    if level:
        line += f"; level with {', '.join(level)}"
    elif second:
        line += f"; {second.title} takes {second.call / best.call:.2f} times as long"
    lines.append(line)
    best, second = _best(candidates, lambda c: c.start)
    line = f"a command that starts for one answer: {best.title}, {duration(best.start)} from import to answer"
    lines.append(line + (f"; {second.title} {duration(second.start)}" if second else ""))
    for calls in (1_000, 100_000):
        best, second = _best(candidates, lambda c, calls=calls: c.total(calls))  # type: ignore[misc]
        line = f"a job of {calls:,} calls in a fresh process: {best.title}, {duration(best.total(calls))}"
        lines.append(line + (f"; {second.title} {duration(second.total(calls))}" if second else ""))
    sized = [c for c in candidates if c.peak]
    if sized:
        best, second = _best(sized, lambda c: c.peak)
        line = f"little memory: {best.title}, {best.peak / 1e6:.0f} MB at its highest"
        lines.append(line + (f"; {second.title} {second.peak / 1e6:.0f} MB" if second else ""))
    sized = [c for c in candidates if c.installed]
    if sized:
        best, second = _best(sized, lambda c: c.installed)
        line = f"a small image: {best.title}, {best.installed / 1e6:.0f} MB installed with what it requires"
        lines.append(line + (f"; {second.title} {second.installed / 1e6:.0f} MB" if second else ""))
    return lines
