"""Compiled: a Graph made ready to run for its own input types, by native code or by the NumPy target."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych import compiler
from diptych.errors import InputError
from diptych.ir import dtype_of
from diptych.runtime.cache import default_cache
from diptych.runtime.executable import Executable
from diptych.targets import host
from diptych.targets.numpy import interpret

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.ir import Array, Graph
    from diptych.options import Options
    from diptych.schedule.plan import Plan

__all__ = ["Compiled"]

TINY_NS = 20_000.0  # below this a second thread costs more than it brings


class Compiled:
    """A Graph compiled for its input types: the graph, its plan, and the native callable."""

    def __init__(self, graph: Graph, options: Options, target: str | None) -> None:
        self.graph = graph
        self.plan: Plan | None = None
        self.call: Callable[..., Any]
        if target == "numpy":
            self.call = self._interpret
            return
        machine = host.find(target)
        if not machine.is_host:
            raise InputError(f"target {machine.name!r} cannot run on this machine; use `diptych.compiler.object_of`")
        plan = compiler.compile_plan(graph, options, machine)
        if plan.cost < TINY_NS and options.threads > 1:
            plan = compiler.compile_plan(graph, replace(options, threads=1), machine)
        self.plan = plan
        threads = 1 if plan.cost < TINY_NS else options.threads
        code = default_cache().get_or_make(
            compiler.cache_key(plan, machine), lambda: compiler.object_of(plan, machine)
        )
        self.executable = Executable(
            code, weights=plan.weights, arena_bytes=plan.arena_bytes, inputs=plan.inputs, outputs=plan.outputs,
            threads=threads, parallel=threads > 1,
        )  # fmt: skip
        self.call = self.executable.call

    def _interpret(self, *arrays: Array) -> Any:
        given = {}
        for (name, t), a in zip(self.graph.input_types().items(), arrays, strict=True):
            a = np.asarray(a)
            if a.shape != t.shape or dtype_of(a) != t.dtype:
                raise InputError(f"input {name!r}: {t} expected, {a.dtype}{list(a.shape)} given")
            given[name] = a
        outs = tuple(interpret(self.graph, given).values())
        return outs[0] if len(outs) == 1 else outs
