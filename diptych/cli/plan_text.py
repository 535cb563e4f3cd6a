"""The table of `diptych inspect --plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.compare.table import table

if TYPE_CHECKING:
    from diptych.explain import StepReport
    from diptych.targets.figures import Figures

__all__ = ["plan_text"]


def plan_text(reports: list[StepReport], f: Figures) -> str:
    """A table, and under it what was noted, longest steps first."""
    rows = []
    for i, r in enumerate(reports):
        rate = f"{r.flops / r.microseconds / 1e3:.1f}" if r.flops and r.microseconds else "-"
        rows.append(
            [f"{i}", r.kernel, "+".join(r.operators)[:40], r.name[:40], f"{r.microseconds:.1f}", f"{r.share:.1%}", rate,
             f"{r.of_roof:.0%} of {r.limit}" if r.of_roof else "-"]
        )  # fmt: skip
    lines = [table(["step", "kernel", "operators", "layer", "us", "share", "GFLOP/s", "roof"], rows, left=4)]
    lines.append(
        f"  {f.threads} threads: {f.flops / 1e9:.0f} GFLOP/s, L2 {f.l2 / 1e9:.0f}, L3 {f.l3 / 1e9:.0f}, DRAM "
        f"{f.dram / 1e9:.0f} GB/s, a meeting {f.barrier_ns:.0f} ns"
    )
    lines.append("\nwhy, and what else there was:")
    for i in sorted(range(len(reports)), key=lambda i: -reports[i].microseconds):
        r = reports[i]
        lines += [f"  {i:>4} {r.kernel} {r.how[:100]}", *(f"         {note}" for note in r.notes)]
    return "\n".join(lines)
