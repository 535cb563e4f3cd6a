"""The pipeline: one function, read top to bottom. Graph -> Graph -> kernel calls -> Plan -> object code."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from diptych.fingerprint import of_compiler
from diptych.kernels.worker import Workers, processes, symbol
from diptych.passes.affine import fold_affine
from diptych.passes.commute import pool_before_pointwise
from diptych.passes.decompose import decompose
from diptych.passes.fold import cse, fold_constants, simplify
from diptych.passes.layout import block_channels
from diptych.runtime.executable import aligned_bytes
from diptych.schedule.lower import lower
from diptych.schedule.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.ir import Graph
    from diptych.kernels.worker import Task
    from diptych.options import Options
    from diptych.runtime.cache import ObjectCache
    from diptych.schedule.plan import Plan
    from diptych.targets.base import Target

__all__ = ["cache_key", "compile_plan", "object_of", "objects_of", "optimize"]

_ONE_OBJECT = 6  # plans of so few kernels: one module, in which LLVM sees everything

# Composites with kernels of their own, or that a later pass wants to see whole.
_WHOLE = frozenset({"batch_norm", "rms_norm"})
_ALSO = frozenset({"conv_transpose"})  # outside of blocked regions it has no kernel of its own


def optimize(graph: Graph, options: Options, on_stage: Callable[[str, Graph], None] | None = None) -> Graph:
    """All Graph -> Graph passes, in the one order they run in."""
    stages: list[tuple[str, Callable[[Graph], Graph]]] = [
        ("fold constants", fold_constants),
        ("decompose", lambda g: decompose(g, keep=_WHOLE)),
        ("fold constants", fold_constants),
        ("fold affine", fold_affine),
        ("decompose", lambda g: decompose(g, keep=_WHOLE - {"batch_norm"})),
        ("fold constants", fold_constants),
        ("simplify", simplify),
        ("fold affine", fold_affine),
        ("pool before pointwise", pool_before_pointwise),
        ("cse", cse),
    ]
    if options.layout:
        stages += [("channel blocks", block_channels)]
    stages += [
        ("decompose", lambda g: decompose(g, keep=_WHOLE, also=_ALSO)),
        ("fold constants", fold_constants),
        ("simplify", simplify),
        ("cse", cse),
    ]
    for name, stage in stages:
        graph = stage(graph)
        if on_stage is not None:
            on_stage(name, graph)
    return graph


def compile_plan(graph: Graph, options: Options, target: Target) -> Plan:
    """Everything up to the Plan; no LLVM yet."""
    graph = optimize(graph, options)
    return make_plan(lower(graph, target, options.fuse, options.accuracy == "strict", options.threads), options.threads, aligned_bytes)


def cache_key(plan: Plan, target: Target) -> str:
    """What the object code depends on, hashed: kernels, steps, places, target, versions."""
    text = repr((plan.kernels, plan.steps, plan.scratch_offset, plan.scratch_bytes, target, of_compiler()))
    return hashlib.sha256(text.encode()).hexdigest()


def object_of(plan: Plan, target: Target) -> bytes:
    """Native code of a plan as one object, compiled here and now."""
    from diptych.codegen.object import object_code
    from diptych.codegen.program import emit_program
    from diptych.kernels.base import emit_kernel

    module = emit_program(plan.kernels, plan.steps, plan.scratch_offset, plan.scratch_bytes, target, emit_kernel)
    return object_code(module, target)


def objects_of(plan: Plan, target: Target, cache: ObjectCache, workers: Workers | None = None,
               on_done: Callable[[int, int], None] = lambda done, total: None) -> list[bytes]:  # fmt: skip
    """Native code of a plan as objects to be linked: one for a small plan, else one for each kernel.

    Kernels that the cache has are not compiled again, the others are by `workers` or by processes started here.
    """
    if len(plan.kernels) <= _ONE_OBJECT:
        return [cache.get_or_make(cache_key(plan, target), lambda: object_of(plan, target))]
    keys = [f"kernel {symbol(k)} {target!r} {of_compiler()}" for k in plan.kernels]
    found = [cache.get(key) for key in keys]
    missing = [i for i, code in enumerate(found) if code is None]
    steps = (plan.kernels, plan.steps, plan.scratch_offset, plan.scratch_bytes, target)
    tasks: list[Task] = [("program_object", steps), *(("kernel_object", (plan.kernels[i], target)) for i in missing)]
    started = workers or Workers(min(processes(), len(tasks)) if len(tasks) > _ONE_OBJECT else 0, [__name__])
    try:
        program, *made = started.run(tasks, lambda done: on_done(done, len(tasks)))
    except BaseException:
        started.close(kill=True)
        raise
    if workers is None:
        started.close()
    for i, code in zip(missing, made, strict=True):
        found[i] = code
        cache.put(keys[i], code)
    return [program, *(code for code in found if code is not None)]
