"""Figures: how fast a machine computes and reads, measured or assumed. Data only; `diptych.calibrate` measures them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Figures"]


@dataclass(frozen=True, slots=True)
class Figures:
    """Per second, for `threads` threads together: fp32 operations, and bytes read from L2, L3 and DRAM.

    barrier_ns: what it takes `threads` threads to meet. ticks: of the cycle counter. The defaults are those of one
    cautious server core.
    """

    threads: int = 1
    flops: float = 100e9
    l2: float = 90e9
    l3: float = 40e9
    dram: float = 25e9
    barrier_ns: float = 300.0
    ticks: float = 2.6e9
    measured: bool = False
