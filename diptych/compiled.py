"""Compiled: a model made ready to run for its own input types, by native code or by the NumPy target.

What was compiled before is read back from the cache, whole: then neither operators, passes and kernels nor LLVM are
imported, and the Graph and the Plan are made only when somebody asks for them.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import DiptychError, InputError
from diptych.fingerprint import of_compiler
from diptych.ir.types import dtype_of
from diptych.knowledge import keep_tuning, kept_figures, kept_tuning
from diptych.runtime.cache import default_cache
from diptych.runtime.executable import Executable
from diptych.runtime.mapped import let_go, mapped_files
from diptych.runtime.prepared import Prepared, Signature, keep, recall
from diptych.targets import host

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.ir import Array, Graph
    from diptych.options import Options
    from diptych.progress import Progress
    from diptych.runtime.cache import ObjectCache
    from diptych.runtime.shared import SharedWeights
    from diptych.schedule.plan import Plan

__all__ = ["Compiled", "NotKept"]

TINY_NS = 20_000.0  # below this a second thread costs more than it brings
_LARGE = 40  # nodes: from here on compiling takes longer than starting processes for it
_HEAVY = 32 << 20  # bytes of constants: packing them takes as long as starting those, and LLVM's memory would come on top of theirs


class NotKept(DiptychError):
    """What was not to be compiled anew is not in the cache."""


class Compiled:
    """A model compiled for its input types: signature, native callable, and on demand its Graph and Plan."""

    def __init__(self, make_graph: Callable[[], Graph], content: Callable[[Graph | None], str | None], options: Options,
                 target: str | None, progress: Progress | None = None, shared: SharedWeights | None = None,
                 tune: float = 0.0, build: bool = True) -> None:  # fmt: skip
        """`content(None)` names what is compiled without its Graph, or is None; then `content(graph)` does.

        `shared`: where constants are kept that other programs may have as well.
        `tune`: seconds to search for faster schedules of what has not been tuned yet.
        `build`: False raises NotKept where the cache does not have the code.
        """
        self._make_graph, self._options = make_graph, options
        self.call: Callable[..., Any]
        self.inputs: Signature
        self.outputs: Signature
        self.executable: Executable | None = None
        if target == "numpy":
            self.call = self._interpret
            graph = self.graph
            self.name = graph.name
            kept = {out for out, _ in options.in_place}
            self.inputs = tuple(graph.input_types().items())
            self.outputs = tuple((n, t) for n, t in graph.output_types().items() if n not in kept)
            return
        machine = host.find(target)
        if not machine.is_host:
            raise InputError(f"target {machine.name!r} cannot run on this machine; use `diptych.compiler.object_of`")
        self._machine, self._tuning = machine, kept_tuning(machine, options.threads)
        cache = default_cache()
        if tune > 0:
            self._tune(tune, cache, progress)
        machine = self._machine = machine.measured(kept_figures(machine, options.threads))
        name = content(None)
        if name is None and cache.folder is not None:
            name = content(self.graph)
        known = (machine, machine.rates, self._tuning.to_text())
        key = hashlib.sha256(repr((name, options, known, of_compiler(), shared is not None)).encode()).hexdigest()
        made = recall(cache, key, options.threads) if name is not None else None
        if made is not None and shared is not None and not shared.read(cache, made.shared, options.threads):
            made = None
        if made is None and not build:
            raise NotKept("the cache has no such program")
        if made is None:
            made = self._build(progress, shared)
            if content(None) is not None:
                self.__dict__.pop("graph", None)  # with its weights: it can be made again, from a file
            if name is not None and (shared is None or shared.write(cache, [n for n, _ in made.shared])):
                keep(cache, key, made, options.threads)
        self.name, self.inputs, self.outputs = made.name, made.inputs, made.outputs
        self.executable = Executable(
            made.code, weights=made.weights, arena_bytes=made.arena_bytes, inputs=made.inputs, outputs=made.outputs,
            threads=made.threads, parallel=made.threads > 1, updated=made.updated,
            shared=[shared.get(n) for n, _ in made.shared] if shared is not None else (),
        )  # fmt: skip
        self.call = self.executable.call

    @cached_property
    def graph(self) -> Graph:
        """The Graph as the frontend made it."""
        return self._make_graph()

    @cached_property
    def plan(self) -> Plan | None:
        """The Plan that the native code was made from; None for the NumPy target."""
        return None if self.executable is None else self._planned(self.graph)

    def _planned(self, graph: Graph, share: bool = False) -> Plan:
        from diptych import compiler

        options = self._options
        plan = compiler.compile_plan(graph, options, self._machine, self._tuning, share)
        if plan.cost < TINY_NS and options.threads > 1:
            plan = compiler.compile_plan(graph, replace(options, threads=1), self._machine, self._tuning, share)
        return plan

    def _tune(self, seconds: float, cache: ObjectCache, progress: Progress | None) -> None:
        """Search for faster schedules, and keep what was found for this processor."""
        from diptych.calibrate import figures
        from diptych.tune import tune

        threads = self._options.threads
        machine = self._machine.measured(figures(threads))
        found = tune(self.graph, self._options, machine, self._tuning, cache, seconds, progress)
        if found is not self._tuning:
            keep_tuning(self._machine, threads, found)
            self._tuning = found

    def _build(self, progress: Progress | None, shared: SharedWeights | None = None) -> Prepared:
        from diptych import compiler
        from diptych.kernels.worker import Workers, processes
        from diptych.runtime.elf import parse_object
        from diptych.runtime.link import prelink

        report = progress or (lambda what, done, total: None)
        graph, machine = self.graph, self._machine
        # Started before they are needed: they import LLVM while the passes run here.
        beside = len(graph.nodes) >= _LARGE or sum(a.nbytes for a in graph.constants.values()) >= _HEAVY
        workers = Workers(processes(), [compiler.__name__]) if beside else None
        try:
            report("passes", 0, 1)
            plan = self._planned(graph, shared is not None)
            pack = _Aside(lambda: _pack(plan, graph, shared, self._options.threads))
            objects = compiler.objects_of(
                plan, machine, default_cache(), workers, lambda done, total: report("kernels", done, total)
            )
            weights, names = pack.result()
        except BaseException:
            if workers is not None:
                workers.close(kill=True)
            raise
        if workers is not None:
            workers.close()
        code = prelink([parse_object(code) for code in objects])
        threads = 1 if plan.cost < TINY_NS else self._options.threads
        report("done", 1, 1)
        return Prepared(graph.name, plan.inputs, plan.outputs, plan.arena_bytes, threads, code, weights, plan.updated,
                        tuple((n, b.nbytes) for n, b in zip(names, plan.shared, strict=True)))  # fmt: skip

    def _interpret(self, *arrays: Array) -> Any:
        from diptych.targets.numpy import interpret

        given = {}
        for (name, t), a in zip(self.inputs, arrays, strict=True):
            a = np.asarray(a)
            if a.shape != t.shape or dtype_of(a) != t.dtype:
                raise InputError(f"input {name!r}: {t} expected, {a.dtype}{list(a.shape)} given")
            given[name] = a
        found = interpret(self.graph, given)
        for out, source in self._options.in_place:
            given[source][...] = found.pop(out)
        outs = tuple(found.values())
        return outs[0] if len(outs) == 1 else outs


def _pack(plan: Plan, graph: Graph, shared: SharedWeights | None, threads: int) -> tuple[Array, list[str]]:
    """The packed constants of a plan, and the names of those that are shared.

    Pages of a file that the graph's constants lie in are let go on the way, or all of them would be in memory twice.
    """
    files = mapped_files(graph.constants.values())
    weights = plan.constants.pack(lambda: let_go(files))
    fills = [(b.nbytes, b.fill) for b in plan.shared if b.fill is not None]
    return weights, [] if shared is None else shared.pack(fills, threads, lambda: let_go(files))


class _Aside:
    """A computation on a thread of its own; `result` waits for it and raises what it raised."""

    def __init__(self, work: Callable[[], tuple[Array, list[str]]]) -> None:
        self._value: tuple[Array, list[str]] | None = None
        self._problem: BaseException | None = None

        def run() -> None:
            try:
                self._value = work()
            except BaseException as e:
                self._problem = e

        self._thread = Thread(target=run)
        self._thread.start()

    def result(self) -> tuple[Array, list[str]]:
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        assert self._value is not None
        return self._value
