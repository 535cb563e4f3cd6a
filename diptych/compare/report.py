"""What a comparison found: plain data, as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Literal

from diptych.compare.judge import Judgement
from diptych.compare.stats import Ratio, Spread
from diptych.compare.table import megabytes, milliseconds, seconds, share, table
from diptych.compare.verdict import Candidate, verdicts

__all__ = ["Report", "Row", "Start", "plain"]


@dataclass(frozen=True, slots=True)
class Start:
    """The phases of a start in a fresh process, in seconds, and the memory it took at its highest."""

    import_s: float
    load_s: float
    first_s: float
    peak: int

    @property
    def total(self) -> float:
        return self.import_s + self.load_s + self.first_s


@dataclass(slots=True)
class Row:
    """One engine. `state` is "absent" (not installed), "unfit" (cannot take this model), "failed" or "measured"."""

    engine: str
    title: str
    state: Literal["absent", "unfit", "failed", "measured"] = "measured"
    reason: str = ""
    remedy: str = ""
    version: str = ""
    variant: str = ""
    judgement: Judgement | None = None
    passed: bool = False
    cold: Start | None = None  # caches empty
    warm: Start | None = None  # caches filled by the start before
    memory: int = 0
    installed: int = 0
    rounds: list[float] = field(default_factory=list)  # the median call of each round, in seconds
    latency: Spread | None = None
    ratio: Ratio | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def start(self) -> Start | None:
        """The start a user meets from the second time on, when it was measured."""
        return self.warm or self.cold

    @property
    def counts(self) -> bool:
        """Whether its time counts: it was measured and its answer is right."""
        return self.state == "measured" and self.passed and self.latency is not None


@dataclass(slots=True)
class Report:
    """A finished comparison."""

    model: str
    inputs: dict[str, str]
    batch: int
    threads: int
    machine: str
    referee: str
    limit: float
    limit_reason: str
    rows: list[Row]
    base: str = ""  # the engine that ratios are taken to
    samples: int = 0
    samples_origin: str = ""

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        made: dict[str, Any] = plain(asdict(self))
        made["verdicts"] = self.verdicts()
        return made

    def verdicts(self) -> list[str]:
        """Which engine fits which use, from the figures of the engines whose answers are right."""
        return verdicts(
            [
                Candidate(
                    r.title, r.rounds, r.start.total, r.start.import_s + r.start.load_s, r.start.peak, r.installed
                )
                for r in self.rows
                if r.counts and r.start is not None
            ],
            self.batch,
        )

    def as_text(self) -> str:
        """The report for a terminal."""
        parts = [self._head()]
        measured = [r for r in self.rows if r.state == "measured"]
        if measured:
            parts += [self._answers(measured), self._speed(measured), self._starts(measured)]
        others = [r for r in self.rows if r.state != "measured"]
        if others:
            rows = [[r.title, r.state, r.reason + (f" -> {r.remedy}" if r.remedy else "")] for r in others]
            parts.append("not measured\n" + table(["engine", "state", "why"], rows, left=3))
        lines = self.verdicts()
        if lines:
            parts.append("which engine fits which use\n" + "\n".join(f"  {line}" for line in lines))
        return "\n\n".join(parts)

    def _head(self) -> str:
        inputs = ", ".join(f"{k} {v}" for k, v in self.inputs.items())
        return (
            f"{self.model}: {inputs}; {self.threads} thread{'s' if self.threads != 1 else ''}\n"
            f"{self.machine}\n"
            f"referee: {self.referee}"
        )

    def _answers(self, rows: list[Row]) -> str:
        classes = any(r.judgement and r.judgement.top1 is not None for r in rows)
        fives = any(r.judgement and r.judgement.top5 is not None for r in rows)
        labels = any(r.judgement and r.judgement.accuracy is not None for r in rows)
        heads = ["engine", "version", "answer", "max error", "RMS error", "passes at"]
        heads += ["top-1 same"] * classes + ["top-5 has it"] * fives + ["accuracy"] * labels
        cells = []
        for r in rows:
            j = r.judgement
            if j is None:
                continue
            line = [r.title, r.version, "right" if r.passed else "WRONG"]
            line += [_error(j.max_error), _error(j.rms_error), _error(j.tolerance)]
            line += [share(j.top1)] * classes + [share(j.top5)] * fives + [share(j.accuracy)] * labels
            cells.append(line)
        text = "answers (errors relative to the RMS of the output)\n" + table(heads, cells, left=3)
        text += f"\n  right: max error <= {self.limit:.1e} ({self.limit_reason})"
        if self.samples:
            text += f"\n  judged on {self.samples} samples: {self.samples_origin}"
        for r in rows:
            if r.judgement and r.judgement.problem:
                text += f"\n  {r.title}: {r.judgement.problem}"
        return text

    def _speed(self, rows: list[Row]) -> str:
        base = next((r.title for r in self.rows if r.engine == self.base), "")
        heads = ["engine", "as", "ms", "spread", "per second"] + [f"times {base}", "95 % interval"] * bool(base)
        cells = []
        for r in sorted(rows, key=lambda r: r.latency.median if r.latency else math.inf):
            if r.latency is None:
                continue
            ms = milliseconds(r.latency.median)
            line = [r.title, r.variant, ms if r.passed else f"({ms}) struck", f"{r.latency.relative:.0%}"]
            line.append(_rate(self.batch / r.latency.median))
            if base:
                line += [f"{r.ratio.value:.2f}", f"{r.ratio.low:.2f}-{r.ratio.high:.2f}"] if r.ratio else ["-", "-"]
            cells.append(line)
        return "speed (median of the rounds, all engines in turns)\n" + table(heads, cells, left=2)

    def _starts(self, rows: list[Row]) -> str:
        heads = ["engine", "import", "load", "first", "sum", "sum, caches empty", "peak MB", "installed MB"]
        cells = []
        for r in rows:
            s = r.start
            if s is None:
                continue
            cold = seconds(r.cold.total) if r.cold else "-"
            phases = [seconds(s.import_s), seconds(s.load_s), seconds(s.first_s), seconds(s.total)]
            cells.append([r.title, *phases, cold, megabytes(s.peak), megabytes(r.installed)])
        text = "start of a fresh process (seconds)\n" + table(heads, cells)
        return text + "\n  load: building and compiling the model; a PyTorch module's own imports are part of it"


def _error(value: float) -> str:
    return "-" if not math.isfinite(value) else "0" if value == 0 else f"{value:.1e}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def plain(value: Any) -> Any:
    """JSON values only: NaN and infinity become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    return value
