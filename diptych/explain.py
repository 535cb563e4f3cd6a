"""Why a compiled model is as fast as it is: for every step its kernel, the choice behind it, and how near the roof it runs.

The roof (Williams, Waterman, Patterson 2009): no step can be faster than its multiply-adds at the peak rate, its
weights at the bandwidth of DRAM (L3 when all weights fit there) or its other operands at the bandwidth of L3. Winograd
steps count the operations of direct sums, so they may pass the roof.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from diptych.errors import InputError
from diptych.ir.types import itemsize
from diptych.profile import flops_of, profile

if TYPE_CHECKING:
    from diptych.ir.kernel import Kernel, Operand
    from diptych.model import Model
    from diptych.targets.figures import Figures

__all__ = ["StepReport", "as_json", "explain", "step_bytes"]

_L3_BYTES = 16 << 20  # weights beyond this are evicted between two calls
_WEIGHTS = 1  # the buffer number of weights in a plan


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step of a plan. `limit` is what its roof is made of: "arithmetic", "weights" or "memory"."""

    name: str
    kernel: str
    how: str
    operators: tuple[str, ...]
    notes: tuple[str, ...]
    parallel: bool
    microseconds: float
    share: float
    flops: int
    nbytes: int
    limit: str
    of_roof: float


def _touched(operand: Operand) -> int:
    """Bytes of the elements an operand has; what is broadcast counts once."""
    return prod(d for d, s in zip(operand.shape, operand.strides, strict=True) if s != 0) * itemsize(operand.dtype)


def step_bytes(kernel: Kernel, buffers: tuple[int, ...]) -> tuple[int, int]:
    """Bytes of weights, and of all other operands, that one run of a kernel has to touch."""
    if kernel.kind == "border":  # its operand is the whole tensor, of which it touches the rim
        return 0, 0
    weights = sum(_touched(o) for o, b in zip(kernel.operands, buffers, strict=True) if b == _WEIGHTS)
    return weights, sum(map(_touched, kernel.operands)) - weights


def explain(model: Model, *arrays: Any, figures: Figures | None = None, rounds: int = 10) -> list[StepReport]:
    """Run the model step by step, and say of each step what it is, why, and how long it took.

    >>> from diptych.explain import explain
    >>> max(explain(model, x), key=lambda step: step.share).kernel  # doctest: +SKIP
    'winograd'

    figures: what the machine can do; measured (and kept) when left out. Raises InputError for the NumPy target.
    """
    from diptych.calibrate import figures as measured

    plan = model.plan
    if plan is None:
        raise InputError("the NumPy target has no plan to explain; compile for a native target")
    f = figures or measured(model.threads)
    times = profile(model, *arrays, rounds=rounds)
    total = sum(t.cycles for t in times) or 1
    weights_rate = f.dram if plan.constants.nbytes > _L3_BYTES else f.l3
    found = []
    notes = plan.notes or ((),) * len(plan.steps)
    for step, t, why in zip(plan.steps, times, notes, strict=True):
        kernel = plan.kernels[step.kernel]
        flops = flops_of(kernel)
        weights, other = step_bytes(kernel, tuple(b for b, _ in step.args))
        rate = f.flops / f.threads if step.serial else f.flops
        roofs = {"arithmetic": flops / rate, "weights": weights / weights_rate, "memory": other / f.l3}
        limit = max(roofs, key=lambda k: roofs[k])
        seconds = t.cycles / f.ticks
        found.append(
            StepReport(
                step.name, kernel.kind, str(kernel.params), t.operators, why, not step.serial, seconds * 1e6,
                t.cycles / total, flops, weights + other, limit, roofs[limit] / seconds if seconds else 0.0,
            )
        )  # fmt: skip
    return found


def as_json(reports: list[StepReport], f: Figures) -> dict[str, Any]:
    """The same for programs."""
    return {"figures": asdict(f), "steps": [asdict(r) for r in reports]}
