"""The comparison itself: start each engine, judge its answer, then time all of them in turns."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diptych.compare.convert import to_ncnn
from diptych.compare.engines import ENGINES, Engine, engine
from diptych.compare.judge import Judgement, judge, limit_from
from diptych.compare.process import EngineError, Process
from diptych.compare.report import Report, Row, Start
from diptych.compare.stats import ratio, spread
from diptych.compare.subject import Subject
from diptych.errors import InputError
from diptych.ir import Array

__all__ = ["Settings", "available_cpus", "compare", "example_inputs", "running"]

BASES = ("diptych", "diptych-torch")
CONVERTED = {"onnx": "model.onnx", "traced": "traced.pt"}  # what a PyTorch model is written to for other engines


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure. `quick` starts each engine once instead of twice, and takes shorter turns."""

    engines: tuple[str, ...] = ()
    threads: int = field(default_factory=lambda: available_cpus())
    rounds: int = 7
    turn_s: float = 0.3
    quick: bool = False
    timeout_s: float = 900.0
    options: dict[str, Any] = field(default_factory=dict)  # for diptych: precision, accuracy


def available_cpus() -> int:
    """The CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> str:
    """The CPU in words."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {available_cpus()} CPUs, {platform.system()}"


@dataclass(slots=True)
class _Prepared:
    """What the engines need of the model, and the yardstick."""

    spec: dict[str, Any]
    reference: list[Array] | None
    on_samples: list[Array] | None
    referee: str
    errors: dict[str, str] = field(default_factory=dict)  # by form: why the model could not be converted to it


def _environment(caches: Path, foreign: bool) -> dict[str, str]:
    """Caches of this run only, and the model's code on the path (an interpreter of its own gets none of ours)."""
    paths = [str(Path(__file__).resolve().parents[2]), os.getcwd(), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": "" if foreign else os.pathsep.join(p for p in paths if p),
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "DIPTYCH_CACHE": str(caches / "diptych"),
    }


class _Run:
    """One comparison: its engines' processes and rows."""

    def __init__(self, subject: Subject, settings: Settings, say: Callable[[str], None], folder: Path) -> None:
        self.subject, self.settings, self.say, self.folder = subject, settings, say, folder
        self.processes: dict[str, Process] = {}
        self.rows: list[Row] = []

    def spawn(self, name: str, python: str, caches: str, foreign: bool = False) -> Process:
        """A fresh process of an engine; all others are stopped."""
        for other in self.processes.values():
            other.pause()
        env = _environment(self.folder / caches, foreign)
        return Process(name, [python], threads=self.settings.threads, env=env)

    def start(self, process: Process, adapter: str, spec: dict[str, Any], options: dict[str, Any]) -> tuple[
        dict[str, Any], list[Array]
    ]:  # fmt: skip
        """Import, load, first answer."""
        return process.ask(
            "start",
            self.subject.inputs,
            adapter=adapter,
            spec=spec,
            threads=self.settings.threads,
            options=options,
            timeout=self.settings.timeout_s,
        )

    def evaluate(self, process: Process) -> list[Array] | None:
        """The answers to the subject's real samples."""
        samples = self.subject.samples
        if samples is None:
            return None
        return process.ask("evaluate", samples.inputs, batch=self.subject.batch)[1]

    def prepare(self, forms: set[str]) -> _Prepared:
        """Ask the referee, and write what engines of these forms load."""
        spec = self.subject.spec()
        options: dict[str, Any] = {}
        if self.subject.torch:
            adapter, referee = "torch_prepare", "the PyTorch module in float64"
            if not self.subject.torch.endswith(".pt2"):
                options["state"] = str(self.folder / "weights.pt")
            options |= {k: str(self.folder / f) for k, f in CONVERTED.items() if k in forms}
        else:
            adapter, referee = "mxnet_referee", "the checkpoint's graph in float64 (diptych's NumPy target)"
        self.say(f"referee: {referee}")
        with self.spawn("referee", sys.executable, "referee") as process:
            try:
                _, reference = self.start(process, adapter, spec, options)
                notes = process.ask("facts")[0]["notes"]
                on_samples = self.evaluate(process)
            except EngineError as e:
                if self.subject.torch:
                    raise  # without the weights and the ONNX file there is nothing to compare
                return _Prepared(spec, None, None, f"none ({e})")
        errors = {form: notes[f"{form}_error"] for form in CONVERTED if f"{form}_error" in notes}
        spec.update({k: v for k, v in options.items() if k not in errors})
        return _Prepared(spec, reference, on_samples, notes.get("referee", referee), errors)

    def admit(self, chosen: Engine, prepared: _Prepared) -> None:
        """Start one engine (twice unless quick), judge it, keep its process for the rounds."""
        row = Row(chosen.name, chosen.title)
        self.rows.append(row)
        state = chosen.state()
        if not state.present:
            row.state, row.reason, row.remedy = "absent", state.problem, state.remedy
            return
        reason = unfit(chosen, self.subject, self.rows) or prepared.errors.get(chosen.form, "")
        if reason:
            row.state, row.reason = "unfit", reason
            return
        row.version = state.version
        options = dict(chosen.options)
        spec = dict(prepared.spec)
        if chosen.package == "diptych":
            form = "saved" if chosen.form == "saved" else chosen.form if self.subject.symbol else "torch"
            options |= {"form": form, **self.settings.options}
            spec["saved"] = str(self.folder / "model.diptych")
        if chosen.form == "traced":
            try:
                self.say(f"{chosen.title}: convert")
                spec["ncnn"] = to_ncnn(state.python, Path(spec["traced"]), self.subject.inputs)
            except EngineError as e:
                row.state, row.reason = "unfit", str(e).removeprefix(f"{chosen.name}: ")
                return
        foreign = os.path.realpath(state.python) != os.path.realpath(sys.executable)
        try:
            if not self.settings.quick:
                self.say(f"{chosen.title}: start with empty caches")
                with self.spawn(chosen.name, state.python, chosen.name, foreign) as process:
                    row.cold = _start(self.start(process, chosen.adapter, spec, options)[0])
            self.say(f"{chosen.title}: start, answers")
            process = self.spawn(chosen.name, state.python, chosen.name, foreign)
            self.processes[chosen.name] = process
            reply, outputs = self.start(process, chosen.adapter, spec, options)
            row.version = reply["version"]
            if self.settings.quick:
                row.cold = _start(reply)
            else:
                row.warm = _start(reply)
            row.judgement = self.assess(process, outputs, prepared)
            process.ask("feed", self.subject.inputs)
            row.variant = process.ask("tune", seconds=self.settings.turn_s)[0]["variant"]
            if options.get("form") in ("mxnet", "torch"):
                process.ask("save", path=spec["saved"])  # for the row that opens a saved model
            facts = process.ask("facts")[0]
            row.memory, row.installed = facts["memory"]["now"], facts["installed"]
            row.notes = facts["notes"]
            process.pause()
        except EngineError as e:
            row.state, row.reason = "failed", str(e).removeprefix(f"{chosen.name}: ")
            self.drop(chosen.name)

    def drop(self, name: str) -> None:
        """End an engine's process."""
        process = self.processes.pop(name, None)
        if process is not None:
            process.close()

    def assess(self, process: Process, outputs: list[Array], prepared: _Prepared) -> Judgement:
        """Judge the answers to the inputs, and to the real samples when there are some."""
        if prepared.reference is None:
            # No float64 referee: the first engine that answers is the yardstick, and the report says so.
            prepared.reference, prepared.on_samples = outputs, self.evaluate(process)
            prepared.referee = f"the answer of {process.name}; float64 referee: {prepared.referee}"
        on_inputs = judge(outputs, prepared.reference)
        samples, wanted = self.subject.samples, prepared.on_samples
        if samples is None or wanted is None or on_inputs.problem:
            return on_inputs
        on_samples = judge(self.evaluate(process) or [], wanted, samples.labels)
        return on_samples if on_samples.problem or on_samples.max_error >= on_inputs.max_error else Judgement(
            on_inputs.max_error, on_inputs.rms_error, on_inputs.tolerance,
            on_samples.top1, on_samples.top5, on_samples.accuracy,
        )  # fmt: skip

    def time(self) -> None:
        """Rounds: each engine takes its turn while the others are stopped; odd rounds go backwards, the first is dropped."""
        rows = [r for r in self.rows if r.state == "measured"]
        for number in range(self.settings.rounds + 1):
            self.say(f"round {number} of {self.settings.rounds}")
            for row in rows if number % 2 == 0 else list(reversed(rows)):
                if row.state != "measured":
                    continue
                try:
                    reply, _ = self.processes[row.engine].ask("turn", seconds=self.settings.turn_s)
                except EngineError as e:
                    row.state, row.reason = "failed", str(e)
                    self.drop(row.engine)
                    continue
                self.processes[row.engine].pause()
                if number:
                    row.rounds.append(spread(reply["times"]).median)


def example_inputs(torch: str, arguments: dict[str, Any] | None = None) -> dict[str, Array]:
    """The example inputs that the factory of a PyTorch model gives, asked for in a process of its own."""
    subject = Subject(torch, {}, torch=torch, arguments=arguments or {})
    with (
        running(subject, Settings(threads=1), lambda text: None) as run,
        run.spawn("inputs", sys.executable, "inputs") as process,
    ):
        _, arrays = run.start(process, "torch_inputs", subject.spec(), {})
        notes = process.ask("facts")[0]["notes"]
    if not notes["given"]:
        raise InputError(f"{torch} gives no example inputs; state them with --input NAME=SHAPE[:DTYPE]")
    return dict(zip(notes["names"], arrays, strict=True))


def _start(reply: dict[str, Any]) -> Start:
    return Start(reply["import_s"], reply["load_s"], reply["first_s"], reply["memory"]["peak"])


def unfit(chosen: Engine, subject: Subject, rows: Sequence[Row] = ()) -> str:
    """Why an engine cannot take this model ("" when it can)."""
    if chosen.form == "saved" and not any(r.state == "measured" and r.engine in BASES for r in rows):
        return "opens what the diptych row saves, and there is none"
    if chosen.package == "diptych":
        return ""
    if chosen.form == "mxnet" and not subject.symbol:
        return "the model is a PyTorch model"
    if chosen.form == "torch" and not subject.torch:
        return "the model is an MXNet checkpoint"
    if chosen.form == "traced" and not subject.torch:
        return "converts PyTorch models"
    if chosen.form == "traced" and subject.torch.endswith(".pt2"):
        return "needs torch.jit.trace, which does not take an exported program"
    if chosen.form == "onnx" and not subject.torch:
        return "needs ONNX; MXNet's exporter (mx2onnx) ended with onnx 1.8 and opset 13"
    return ""


def _chosen(subject: Subject, settings: Settings) -> list[Engine]:
    if settings.engines:
        return [engine(name) for name in settings.engines]
    both = bool(subject.symbol and subject.torch)
    return [e for e in ENGINES.values() if e.default and (both or e.name != "diptych-torch")]


@contextlib.contextmanager
def running(subject: Subject, settings: Settings, say: Callable[[str], None]) -> Iterator[_Run]:
    """A comparison's processes and scratch folder; all are gone at the end, however it comes."""
    with tempfile.TemporaryDirectory(prefix="diptych-compare-") as folder:
        run = _Run(subject, settings, say, Path(folder))
        try:
            yield run
        finally:
            for name in list(run.processes):
                run.drop(name)


def compare(
    subject: Subject, settings: Settings | None = None, say: Callable[[str], None] = lambda text: None
) -> Report:
    """Measure every engine that is here on one model; `say` is told what is going on."""
    settings = settings or Settings()
    if not subject.torch and not subject.symbol:
        raise InputError(f"{subject.name}: name a PyTorch model, or an MXNet symbol file and its parameters")
    if settings.rounds < 1 or settings.threads < 1:
        raise InputError("a comparison needs at least one round and one thread")
    chosen = _chosen(subject, settings)
    with running(subject, settings, say) as run:
        prepared = run.prepare({e.form for e in chosen if e.form in CONVERTED and e.state().present})
        # The source framework first: where there is no float64 referee, it is the yardstick.
        source = "mxnet" if subject.symbol else "torch"
        for one in sorted(chosen, key=lambda e: (e.name != source, e.form == "saved")):
            run.admit(one, prepared)
        limit, reason = _limit(run.rows, subject)
        for row in run.rows:
            row.passed = row.judgement is not None and row.judgement.passes(limit)
        run.time()
    rows = sorted(run.rows, key=lambda r: list(ENGINES).index(r.engine))
    base = _finish(rows)
    samples = subject.samples
    return Report(
        model=subject.name,
        inputs={k: f"{v.dtype}[{','.join(map(str, v.shape))}]" for k, v in subject.inputs.items()},
        batch=subject.batch,
        threads=settings.threads,
        machine=machine(),
        referee=prepared.referee,
        limit=limit,
        limit_reason=reason,
        rows=rows,
        base=base,
        samples=len(samples.labels) if samples else 0,
        samples_origin=samples.origin if samples else "",
    )


def _limit(rows: Sequence[Row], subject: Subject) -> tuple[float, str]:
    """How large an error passes: taken from the framework that the model comes from, where it was measured."""
    sources = [name for name, form in (("mxnet", subject.symbol), ("torch", subject.torch)) if form]
    judged = {r.engine: r for r in rows if r.judgement and not r.judgement.problem}
    row = next((judged[name] for name in sources if name in judged), None)
    if row is None or row.judgement is None:
        return limit_from(None), "the source framework is not here to compare with"
    limit = limit_from(row.judgement.max_error)
    return limit, f"ten times the error of {row.title} itself, {row.judgement.max_error:.1e}, within 1e-04 and 1e-02"


def _finish(rows: Sequence[Row]) -> str:
    """Fill in latencies and ratios; returns the engine that ratios are taken to."""
    for row in rows:
        if row.rounds:
            row.latency = spread(row.rounds)
    measured = {r.engine: r for r in rows if r.state == "measured" and r.rounds}
    base = next((name for name in BASES if name in measured and measured[name].passed), "")
    if not base:
        right = [(r.latency.median, r.engine) for r in measured.values() if r.passed and r.latency]
        base = min(right)[1] if right else ""
    if base:
        for row in measured.values():
            row.ratio = ratio(row.rounds, measured[base].rounds)
    return base
