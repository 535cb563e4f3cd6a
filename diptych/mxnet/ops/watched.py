"""Calls of a Program while the profiler is active: the time of every step under the name of its operator."""

from __future__ import annotations

import time
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.profiling import recorder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.ir import Array, Graph
    from diptych.mxnet.ops.program import Program
    from diptych.profile import Stopwatch

__all__ = ["Watch", "call"]

_BACKWARD, _GRADIENT = "_backward_", "_gradient"


class Watch:
    """A native program beside which thread 0 notes the cycle counter between the steps."""

    def __init__(self, native: Any, graph: Graph) -> None:
        from diptych.profile import Stopwatch
        from diptych.runtime.cache import default_cache
        from diptych.runtime.threads import cpu_count
        from diptych.targets import host

        plan = native.plan
        assert plan is not None
        self.stopwatch: Stopwatch = Stopwatch(plan, host.find(None), default_cache(), cpu_count())
        names = operators(graph)
        self.steps = [
            (_of_step(s.name, names) or graph.name, {"layer": s.name, "kernel": plan.kernels[s.kernel].kind, "operators": "+".join(fused)})
            for s, fused in zip(plan.steps, plan.fused, strict=True)
        ]

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        begin = perf_counter()
        *results, cycles = self.stopwatch.run(*[np.ascontiguousarray(a) if a.ndim else a for a in arrays])
        took = perf_counter() - begin
        end = time.time()
        laps = np.diff(cycles)
        # The counter has its own unit; the steps take what the call took, in its proportions.
        seconds = laps * (took / max(int(laps.sum()), 1))
        at = end - took
        for (name, arguments), s in zip(self.steps, seconds, strict=True):
            recorder.operator(name, at, at + float(s), arguments=arguments)
            at += float(s)
        return list(results)


def operators(graph: Graph) -> dict[str, str]:
    """The operator that each layer of a graph is, MXNet's name for it; gradients by `_backward_` in front."""
    found: dict[str, str] = {}
    for node in graph.nodes:
        name = node.name
        of = node.source or name.removeprefix(_BACKWARD)
        found[name] = _BACKWARD + of if name.startswith(_BACKWARD) else of
    return found


def _of_step(step: str, names: dict[str, str]) -> str:
    """The operators of a step, which may stand for several layers: `FullyConnected+Activation`."""
    return "+".join(dict.fromkeys(names.get(layer, layer) for layer in step.split(" + ")))


def title(graph: Graph) -> str:
    """The name of a program that is one operator."""
    name = graph.name
    return _BACKWARD + name.removesuffix(_GRADIENT) if name.endswith(_GRADIENT) else name


def call(program: Program, arrays: Sequence[Array]) -> list[Array]:
    """Call a program, and record its steps (of a network) or itself (of one operator)."""
    network = program.network or program.graph.name.startswith("step")
    if not network:
        begin = time.time()
        results = program.unwatched(arrays)
        recorder.operator(title(program.graph), begin, time.time())
        return results
    native = program.native()
    if native is None:
        names = operators(program.graph)
        spans: list[tuple[str, float, float]] = []
        results = program.stepwise(arrays, spans)
        for layer, begin, end in spans:
            recorder.operator(names.get(layer) or layer or program.graph.name, begin, end, arguments={"layer": layer})
        return results
    if program.watch is None:
        program.watch = Watch(native, program.graph)
    return program.watch(arrays)
