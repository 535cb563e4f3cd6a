"""The pipeline: one function, read top to bottom. Graph -> Graph -> kernel calls -> Plan -> object code."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from diptych.fingerprint import of_compiler
from diptych.kernels.worker import Workers, kernel_object, processes, program_object, symbol
from diptych.passes.affine import fold_affine
from diptych.passes.attention import find_attention
from diptych.passes.commute import pool_before_pointwise
from diptych.passes.decompose import decompose
from diptych.passes.fold import cse, fold_constants, simplify
from diptych.passes.layout import block_channels
from diptych.passes.products import keep_rows
from diptych.passes.recognize import recognize
from diptych.passes.rows import order_rows
from diptych.runtime import native
from diptych.runtime.executable import aligned_bytes
from diptych.schedule.lower import lower
from diptych.schedule.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.ir import Graph
    from diptych.ir.tuning import Tuning
    from diptych.kernels.worker import Task
    from diptych.options import Options
    from diptych.runtime.cache import ObjectCache
    from diptych.schedule.plan import Plan
    from diptych.targets.base import Target

__all__ = ["cache_key", "compile_plan", "object_of", "objects_of", "optimize", "plan_of"]

# Plans of few kernels that take no time: one module, in which LLVM sees everything. In longer ones each kernel is better
# off alone: inlined into the function that calls it, its registers spill.
_FEW, _SHORT_NS = 6, 50_000.0

# Composites with kernels of their own, or that a later pass wants to see whole.
_WHOLE = frozenset({"batch_norm", "rms_norm"})
_F32 = frozenset({"attention"})  # the same, for f32 operands only
_ALSO = frozenset({"conv_transpose", "conv_weight_gradient"})  # outside of blocked regions they have no kernels of their own


def optimize(graph: Graph, options: Options, on_stage: Callable[[str, Graph], None] | None = None) -> Graph:
    """All Graph -> Graph passes, in the one order they run in."""
    stages: list[tuple[str, Callable[[Graph], Graph]]] = [
        ("recognize", recognize),
        ("fold constants", fold_constants),
        ("find attention", find_attention),
        ("decompose", lambda g: decompose(g, keep=_WHOLE, f32=_F32)),
        ("fold constants", fold_constants),
        ("fold affine", fold_affine),
        ("decompose", lambda g: decompose(g, keep=_WHOLE - {"batch_norm"}, f32=_F32)),
        ("fold constants", fold_constants),
        ("simplify", simplify),
        ("keep rows", keep_rows),
        ("fold affine", fold_affine),
        ("pool before pointwise", pool_before_pointwise),
        ("cse", cse),
    ]
    if options.layout:
        stages += [("channel blocks", block_channels)]
    stages += [
        ("decompose", lambda g: decompose(g, keep=_WHOLE, also=_ALSO, f32=_F32)),
        ("fold constants", fold_constants),
        ("simplify", simplify),
        ("order rows", order_rows),
        ("simplify", simplify),
        ("cse", cse),
    ]
    for name, stage in stages:
        graph = stage(graph)
        if on_stage is not None:
            on_stage(name, graph)
    return graph


def compile_plan(graph: Graph, options: Options, target: Target, tuning: Tuning | None = None, share: bool = False) -> Plan:
    """Everything up to the Plan; no LLVM yet. What `tuning` does not know goes by estimate. `share`: as for `make_plan`."""
    return plan_of(optimize(graph, options), options, target, tuning, share)


def plan_of(optimized: Graph, options: Options, target: Target, tuning: Tuning | None = None, share: bool = False) -> Plan:
    """The Plan of a graph that has been through `optimize`."""
    ctx = lower(optimized, target, options.fuse, options.accuracy == "strict", options.threads, options.in_place, tuning)
    return make_plan(ctx, options.threads, aligned_bytes, share)


def cache_key(plan: Plan, target: Target) -> str:
    """What the object code depends on, hashed: kernels, steps, places, target, versions."""
    text = repr((plan.kernels, plan.steps, plan.scratch_offset, plan.scratch_bytes, target, of_compiler()))
    return hashlib.sha256(text.encode()).hexdigest()


def object_of(plan: Plan, target: Target, clock: int | None = None) -> bytes:
    """Native code of a plan as one object, compiled here and now; `clock` as for `emit_program`."""
    from diptych.codegen.object import object_code
    from diptych.codegen.program import emit_program
    from diptych.kernels.base import emit_kernel

    places = (plan.scratch_offset, plan.scratch_bytes)
    module = emit_program(plan.kernels, plan.steps, *places, target, emit_kernel, clock)
    return object_code(module, target)


def objects_of(plan: Plan, target: Target, cache: ObjectCache, workers: Workers | None = None,
               on_done: Callable[[int, int], None] = lambda done, total: None,
               clock: int | None = None) -> list[bytes]:  # fmt: skip
    """Native code of a plan as objects to be linked: one for a small plan, else one for each kernel.

    Kernels that the cache has are not compiled again, the others are by `workers` or by processes started here.
    `clock` as for `emit_program`.
    """
    if len(plan.kernels) <= _FEW and plan.cost < _SHORT_NS:
        return [cache.get_or_make(f"{cache_key(plan, target)} {clock}", lambda: object_of(plan, target, clock))]
    keys = [f"kernel {symbol(k)} {target!r} {of_compiler()}" for k in plan.kernels]
    found = [cache.get(key) for key in keys]
    missing = [i for i, code in enumerate(found) if code is None]
    steps = (plan.kernels, plan.steps, plan.scratch_offset, plan.scratch_bytes, target, clock)
    tasks: list[Task] = [(program_object, steps), *((kernel_object, (plan.kernels[i], target)) for i in missing)]
    support = native.missing() if workers is not None else None
    if support is not None:  # compiled beside: otherwise it would be what brings LLVM into this process
        tasks.append((native.compile_support, support))
    started = workers or Workers(min(processes(), len(tasks)) if len(tasks) > _FEW else 0, [__name__])
    try:
        program, *made = started.run(tasks, lambda done: on_done(done, len(tasks)))
        if support is not None:
            native.support(made.pop())
    except BaseException:
        started.close(kill=True)
        raise
    if workers is None:
        started.close()
    for i, code in zip(missing, made, strict=True):
        found[i] = code
        cache.put(keys[i], code)
    return [program, *(code for code in found if code is not None)]
