"""The pipeline: one function, read top to bottom. Graph -> Graph -> kernel calls -> Plan -> object code."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

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
    from diptych.options import Options
    from diptych.schedule.plan import Plan
    from diptych.targets.base import Target

__all__ = ["cache_key", "compile_plan", "object_of", "optimize"]

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
    from diptych._version import __version__

    text = repr((plan.kernels, plan.steps, plan.scratch_offset, plan.scratch_bytes, target, __version__, _sources()))
    return hashlib.sha256(text.encode()).hexdigest()


def _sources() -> str:
    """A fingerprint of the compiler itself, so that a changed kernel never meets an old object."""
    from pathlib import Path

    root = Path(__file__).parent
    files = sorted(p for part in ("codegen", "kernels", "ops") for p in (root / part).glob("*.py"))
    return hashlib.sha256("".join(f"{p.name}:{p.stat().st_mtime_ns}:{p.stat().st_size};" for p in files).encode()).hexdigest()


def object_of(plan: Plan, target: Target) -> bytes:
    """Native code of a plan (compiles; the caller caches)."""
    from diptych.codegen.object import object_code
    from diptych.codegen.program import emit_program
    from diptych.kernels.base import emit_kernel

    module = emit_program(plan.kernels, plan.steps, plan.scratch_offset, plan.scratch_bytes, target, emit_kernel)
    return object_code(module, target)
