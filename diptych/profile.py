"""Where the time of a compiled model goes, step by step, by the cycle counter."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import InputError
from diptych.ir.types import TensorType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.ir import Array
    from diptych.ir.kernel import Kernel
    from diptych.kernels.chain import ChainParams
    from diptych.kernels.contract import ContractParams
    from diptych.kernels.conv_pool import ConvPoolParams
    from diptych.kernels.expand import ExpandParams
    from diptych.kernels.narrow import NarrowParams
    from diptych.kernels.strassen import StrassenParams
    from diptych.kernels.winograd import ProductParams
    from diptych.kernels.worker import Workers
    from diptych.model import Model
    from diptych.runtime.cache import ObjectCache
    from diptych.schedule.plan import Plan
    from diptych.targets.base import Target

__all__ = ["StepTime", "Stopwatch", "flops_of", "profile", "table"]


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step: the layers it stands for, its kernel, its operators, its least cycles, its multiply-adds."""

    name: str
    kind: str
    operators: tuple[str, ...]
    cycles: int
    flops: int


def flops_of(kernel: Kernel) -> int:
    """Floating-point operations of a contraction or convolution (two per multiply-add); 0 for other kernels.

    Of Winograd's and Strassen's schemes those of the plain sums that they stand for.
    """
    if kernel.kind in ("winograd", "winograd_products", "winograd_streamed", "winograd_few"):
        w: ProductParams = kernel.params
        g = w.geometry
        return 2 * 9 * g.batch * g.rows * g.cols * g.channels * w.panels * 16
    if kernel.kind == "strassen":
        q: StrassenParams = kernel.params
        return 2 * q.batch * q.rows * q.n * q.depth
    if kernel.kind in ("chain", "conv_pool", "expand"):
        e: ChainParams | ConvPoolParams | ExpandParams = kernel.params
        return e.flops(kernel.operands[5 if kernel.kind == "expand" else -1].shape)
    if kernel.kind == "grouped":
        return 2 * prod(kernel.operands[-1].shape) * prod(kernel.operands[1].shape[1:4])
    if kernel.kind == "narrow_conv":
        narrow: NarrowParams = kernel.params
        return 2 * prod(kernel.operands[-1].shape) * narrow.channels * len(narrow.taps)
    if kernel.kind not in ("contract", "skinny", "skinny_zeros"):
        return 0
    p: ContractParams = kernel.params
    return 2 * prod(p.batch) * p.rows * p.cols * p.n * (p.k_blocks * 16 + p.k_tail) * len(p.taps)


class Stopwatch:
    """A plan compiled so that it notes the cycle counter between its steps. Its kernels are those of the model itself, as
    they are in the cache; only the function that calls them is another one."""

    def __init__(self, plan: Plan, target: Target, cache: ObjectCache, threads: int, workers: Workers | None = None) -> None:
        from diptych import compiler
        from diptych.codegen.program import ENTRY
        from diptych.runtime.elf import parse_object
        from diptych.runtime.executable import Executable
        from diptych.runtime.link import prelink

        clock = 2 + len(plan.inputs) + len(plan.outputs)
        objects = compiler.objects_of(plan, target, cache, workers, clock=clock)
        self.run = Executable(
            prelink([parse_object(o) for o in objects]), entry=ENTRY, weights=plan.weights, arena_bytes=plan.arena_bytes,
            inputs=plan.inputs, outputs=(*plan.outputs, ("cycles", TensorType((len(plan.steps) + 1,), "i64"))),
            threads=threads, parallel=threads > 1, updated=plan.updated,
        )  # fmt: skip

    def least(self, arrays: Sequence[Any], rounds: int, seconds: float = float("inf")) -> Array:
        """The least cycles of each step in `rounds` runs, or in as many (three at least) as `seconds` allow."""
        laps: list[Array] = []
        begin = time.monotonic()
        while len(laps) < rounds + 2 and (len(laps) < 5 or time.monotonic() - begin < seconds):
            laps.append(np.diff(self.run(*arrays)[-1]))
        return np.stack(laps[2:]).min(0)  # type: ignore[no-any-return]


def profile(model: Model, *arrays: Any, rounds: int = 20, threads: int | None = None) -> list[StepTime]:
    """Run the model `rounds` times and return the least time of each step, as thread 0 sees it.

    >>> from diptych.profile import profile, table
    >>> print(table(profile(model, x)))  # doctest: +SKIP
    """
    from diptych.runtime.cache import default_cache
    from diptych.targets import host

    plan = model.plan
    if plan is None:
        raise InputError("the NumPy target has no steps to profile; compile for a native target")
    watch = Stopwatch(plan, host.find(None), default_cache(), threads or model.threads)
    least = watch.least(arrays, rounds)
    return [
        StepTime(s.name, plan.kernels[s.kernel].kind, fused, int(c), flops_of(plan.kernels[s.kernel]))
        for s, fused, c in zip(plan.steps, plan.fused, least, strict=True)
    ]


def table(times: Sequence[StepTime], most: int = 0) -> str:
    """Steps with their share of the time; `most` > 0 keeps the longest ones only."""
    total = sum(t.cycles for t in times) or 1
    shown = sorted(times, key=lambda t: -t.cycles)[:most] if most else list(times)
    lines = [f"{'share':>6} {'kcycles':>9} {'flop/cycle':>10}  kernel"]
    for t in shown:
        rate = f"{t.flops / t.cycles:10.1f}" if t.flops and t.cycles else " " * 10
        lines.append(
            f"{t.cycles / total:6.1%} {t.cycles / 1e3:9.1f} {rate}  {t.kind:14} {'+'.join(t.operators)[:60]}  [{t.name[:60]}]"
        )
    lines.append(f"total {total / 1e6:.3f} Mcycles")
    return "\n".join(lines)
