"""Measured search over the schedules of a model: every shape's candidates are timed inside the model itself.

Each round gives every shape its next candidate, compiles what is new, runs the whole model and reads the cycle counter
between steps: so many candidates are timed at once, with their weights as cold and their threads as uneven as they will
be. Fusions are tried apart from that, one kind a round. What was found is kept for the processor; see
`diptych.knowledge`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from diptych import compiler
from diptych.calibrate import figures
from diptych.ir.tuning import Tried, Tuning
from diptych.ir.types import numpy_dtype
from diptych.kernels.worker import Workers, processes
from diptych.profile import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from diptych.ir import Array, Graph
    from diptych.options import Options
    from diptych.progress import Progress
    from diptych.runtime.cache import ObjectCache
    from diptych.schedule.plan import Plan
    from diptych.targets.base import Target

__all__ = ["tune"]

_RUNS, _RUN_SECONDS = 30, 0.7  # of one round; the least time of each step counts
_PASSES = 2
_AGAIN = 2  # rounds that time the best so far and the default once more
_BETTER = 0.97  # times the default's time: what is closer may be noise
_FUSIONS = ("expand", "staged", "stem", "chain", "scheme of")  # by how their keys begin


def tune(graph: Graph, options: Options, target: Target, known: Tuning, cache: ObjectCache, seconds: float,
         progress: Progress | None = None) -> Tuning:  # fmt: skip
    """`known`, and the fastest options found within about `seconds` for what the graph has that is not known yet.

    `target` is this machine's. A round that was begun is finished, so that the bound can be passed by one round.
    The search ends with both plans run in turns: where the tuned one is not faster, the defaults are what is found.
    """
    search = _Search(graph, options, target, known, cache, seconds, progress)
    try:
        return search.run()
    finally:
        search.workers.close()


class _Search:
    def __init__(self, graph: Graph, options: Options, target: Target, known: Tuning, cache: ObjectCache, seconds: float,
                 progress: Progress | None) -> None:  # fmt: skip
        self.options, self.target, self.known, self.cache = options, target, known, cache
        self.report = progress or (lambda what, done, total: None)
        self.begin, self.seconds, self.longest = time.monotonic(), seconds, 0.0
        self.ticks = figures(options.threads).ticks
        self.graph = compiler.optimize(graph, options)
        self.workers = Workers(processes(), [compiler.__name__])
        self.times: dict[str, dict[str, float]] = {}  # by key, by option: microseconds of all its steps

    def run(self) -> Tuning:
        for _ in range(_PASSES):  # what is taken apart has options of its own
            found = self.once()
            if found is self.known:
                break
            self.known = found
            if self.late():
                break
        return self.known

    def once(self) -> Tuning:
        default = self.plan(self.known)
        open_keys = {k: o for k, o in default.offered.items() if len(o) > 1 and not self.settled(k, o)}
        if not open_keys:
            return self.known
        fusions = [{k: o for k, o in open_keys.items() if k.startswith(kind)} for kind in _FUSIONS]
        ways = {k: o for k, o in open_keys.items() if not k.startswith(_FUSIONS)}
        # What an earlier search had no time for comes first.
        untried = {k: [x for x in o[1:] if x not in self.times.get(k, {})] for k, o in ways.items()}
        most = max(map(len, untried.values()), default=0)
        rounds, done = 1 + most + sum(map(bool, fusions)) + 2 * _AGAIN, 1
        self.measure(default, {k: o[0] for k, o in open_keys.items()}, 0, rounds)
        for i in range(most):
            if self.late():
                break
            trial = {k: o[i] for k, o in untried.items() if i < len(o)}
            self.measure(self.plan(self.known.taking(trial)), trial, done, rounds)
            done += 1
        defaults = {k: o[0] for k, o in ways.items()}
        for _ in range(_AGAIN):  # a round that something else on the machine disturbed must not decide
            first = self.best(ways, 1.0)
            self.measure(self.plan(self.known.taking(first)), first, done, rounds)
            self.measure(default, defaults, done + 1, rounds)
            done += 2
        best = self.best(ways)
        for keys in fusions:
            if keys and not self.late():
                trial = {k: o[1] for k, o in keys.items()}
                # Beside the best ways so far: what is not fused must not look worse for a poor way of its own.
                self.measure(self.plan(self.known.taking({**best, **trial})), trial, done, rounds)
                done += 1
        best |= self.best({k: o for keys in fusions for k, o in keys.items()})
        made = self.confirmed(default, open_keys, best)
        self.report("tuned", rounds, rounds)
        return made

    def settled(self, key: str, options: tuple[str, ...]) -> bool:
        """Whether every option was measured; if only some were, their times count on."""
        tried = self.known.entries.get(key)
        if tried is not None:
            self.times.setdefault(key, dict(tried.microseconds))
        return tried is not None and set(options) <= set(tried.microseconds)

    def plan(self, tuning: Tuning) -> Plan:
        return compiler.plan_of(self.graph, self.options, self.target, tuning)

    def late(self) -> bool:
        """Whether another round would pass the bound."""
        return time.monotonic() - self.begin + self.longest > self.seconds

    def measure(self, plan: Plan, trial: Mapping[str, str], done: int, rounds: int) -> None:
        """One round: note for every key of `trial` how long its steps take."""
        self.report("tuning", done, rounds)
        begin = time.monotonic()
        watch = Stopwatch(plan, self.target, self.cache, self.options.threads, self.workers)
        cycles = watch.least(_inputs(plan), _RUNS, _RUN_SECONDS)
        total: dict[str, float] = {}
        for keys, spent in zip(plan.choices, cycles, strict=True):
            for key in keys:
                total[key] = total.get(key, 0.0) + float(spent) / self.ticks * 1e6
        for key, option in trial.items():
            if key in total:
                own = self.times.setdefault(key, {})
                own[option] = min(total[key], own.get(option, total[key]))
        self.longest = max(self.longest, time.monotonic() - begin)

    def best(self, keys: Mapping[str, tuple[str, ...]], better: float = _BETTER) -> dict[str, str]:
        """For each key the fastest option, if its time is below `better` times the default's."""
        found = {}
        for key, options in keys.items():
            times = self.times.get(key, {})
            if options[0] in times:
                fastest = min(times, key=lambda option: times[option])
                found[key] = fastest if times[fastest] < better * times[options[0]] else options[0]
        return found

    def confirmed(self, default: Plan, keys: Mapping[str, tuple[str, ...]], best: Mapping[str, str]) -> Tuning:
        """The best options, or the defaults where the whole model is not faster with them."""
        tuned = self.plan(self.known.taking(best))
        taken = dict(best)
        if (tuned.kernels, tuned.steps) != (default.kernels, default.steps):
            both = [Stopwatch(p, self.target, self.cache, self.options.threads, self.workers) for p in (default, tuned)]
            arrays = _inputs(default)
            before, after = _in_turns([lambda w=w: w.run(*arrays) for w in both])  # type: ignore[misc]
            if after >= before:
                taken = {k: keys[k][0] for k in best}
        return Tuning({**self.known.entries, **{k: Tried(o, self.times[k]) for k, o in taken.items()}})


def _in_turns(works: list[Callable[[], object]], rounds: int = 15) -> list[float]:
    """Median seconds of each, run one after the other again and again."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, own in zip(works, times, strict=True):
            work()  # its weights are in no cache after the other one
            begin = time.perf_counter()
            work()
            own.append(time.perf_counter() - begin)
    return [float(np.median(t)) for t in times]


def _inputs(plan: Plan) -> list[Array]:
    """Inputs of the right types: normal numbers; zeros where integers are asked for, which are valid indices."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(t.shape).astype(numpy_dtype(t.dtype)) if t.dtype[0] == "f" else np.zeros(t.shape, numpy_dtype(t.dtype))
            for _, t in plan.inputs]  # fmt: skip
