"""Every operator sample as native code, many in one graph, with what float64 says about the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from zlib import crc32

import numpy as np

from diptych import compiler
from diptych.errors import UnsupportedError
from diptych.ir import Graph, Op, TensorType, Value, verify
from diptych.ops import OPS, Builder
from diptych.options import Options
from diptych.runtime.executable import Executable
from diptych.schedule.plan import Plan
from diptych.targets import host
from diptych.targets.base import Target
from diptych.targets.numpy import interpret

Array = np.ndarray[Any, Any]

# dtype -> (relative, absolute), as torch.testing.assert_close has them
TOLERANCE = {"f32": (1.3e-6, 1e-5), "f64": (1e-7, 1e-7), "f16": (1e-3, 1e-5)}


@dataclass(frozen=True)
class Case:
    """One application of an operator: which sample, its operands, and which of them are constants of the graph."""

    label: str
    op: Op
    types: tuple[TensorType, ...]
    arrays: tuple[Array, ...]
    constant_from: int  # operands from this one on are constants


def cases(name: str, weights: bool = False) -> list[Case]:
    """All samples of an operator; with `weights`, all operands but the first are constants."""
    made = []
    for i, sample in enumerate(OPS[name].samples):
        rng = np.random.default_rng(crc32(f"{name}{i}".encode()))
        arrays = tuple(np.array(a.draw(rng)) for a in sample.args)
        types = tuple(TensorType(a.shape, a.dtype) for a in sample.args)
        made.append(Case(f"{name}-{i}", OPS[name](**sample.attrs), types, arrays, 1 if weights else len(arrays)))
    return made


def graph_of(some: Sequence[Case]) -> tuple[Graph, dict[str, Array]]:
    """One graph that holds all the cases side by side, and its inputs."""
    g = Builder("cases")
    given: dict[str, Array] = {}
    outs: dict[str, Value] = {}
    for c in some:
        xs = []
        for j, (t, a) in enumerate(zip(c.types, c.arrays, strict=True)):
            if j >= c.constant_from:
                xs.append(g.constant(a, t.dtype))
            else:
                given[f"{c.label}:{j}"] = a
                xs.append(g.input(f"{c.label}:{j}", t))
        for j, y in enumerate(g.emit_all(c.op, *xs)):
            outs[f"{c.label}>{j}"] = y
    return verify(g.finish(outs)), given


def refusal(case: Case, target: Target) -> str | None:
    """Why a case cannot be native code yet, else None. Takes no LLVM."""
    try:
        compiler.compile_plan(graph_of([case])[0], Options(), target)
    except UnsupportedError as e:
        return str(e)
    return None


def plan_of(graph: Graph, target: Target, threads: int = 1, accuracy: Literal["fast", "strict"] = "fast") -> Plan:
    return compiler.compile_plan(graph, Options(accuracy=accuracy, threads=threads), target)


def run(graph: Graph, given: dict[str, Array], target: Target, threads: int = 1,
        accuracy: Literal["fast", "strict"] = "fast") -> dict[str, Array]:  # fmt: skip
    """Compile for `target` (this machine's or a lesser one) and call twice."""
    plan = plan_of(graph, target, threads, accuracy)
    executable = Executable(
        compiler.object_of(plan, target), weights=plan.weights, arena_bytes=plan.arena_bytes, inputs=plan.inputs,
        outputs=plan.outputs, threads=threads, parallel=threads > 1,
    )  # fmt: skip
    result = executable.call(*given.values())
    again = executable.call(*given.values())
    outs = result if isinstance(result, tuple) else (result,)
    for a, b in zip(outs, again if isinstance(again, tuple) else (again,), strict=True):
        np.testing.assert_array_equal(a, b)  # nothing is left over from one call to the next
    return dict(zip(graph.output_names, outs, strict=True))


def mismatches(graph: Graph, given: dict[str, Array], got: dict[str, Array]) -> list[str]:
    """Outputs that differ from the float64 interpretation by more than single operators may."""
    exact = interpret(graph, given, precision="f64")
    plain = interpret(graph, given)
    types = graph.output_types()
    wrong = []
    for name, y in got.items():
        dtype, e = types[name].dtype, exact[name]
        if y.shape != types[name].shape:
            wrong.append(f"{name}: shape {y.shape}, expected {types[name]}")
        elif dtype not in TOLERANCE:
            count = int(np.sum(y != plain[name]))
            if count:
                wrong.append(f"{name}: {count} of {y.size} {dtype} values differ")
        else:
            if dtype == "f16":
                e = plain[name].astype(np.float64)
            relative, absolute = TOLERANCE[dtype]
            finite = np.isfinite(e)
            # Sums cancel: what they may be off by goes with the size of what was summed, not of what is left.
            scale = max(1.0, float(np.abs(e[finite]).max(initial=0.0)))
            with np.errstate(all="ignore"):
                off = np.abs(y.astype(np.float64) - e)
                bad = np.where(finite, ~(off <= absolute * scale + relative * np.abs(e)), ~_same(y, e))
            if bad.any():
                at = tuple(int(i) for i in np.argwhere(bad)[0])
                wrong.append(f"{name}: {int(bad.sum())} of {y.size} wrong, first at {at}: {y[at]!r}, expected {e[at]!r}")
    return wrong


def _same(y: Array, e: Array) -> Array:
    """Equal infinities and NaNs; a float64 value too large for float32 is an infinity there."""
    return (np.isnan(y) & np.isnan(e)) | (y == e)


def runnable_targets() -> list[str]:
    """The native targets this machine can run."""
    return [n for n in host.NAMES if n != "numpy" and host.find(n).is_host]
