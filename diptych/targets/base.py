"""Target: what the schedule and the code generator know of a machine. Data only; one folder per architecture makes them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diptych.targets.figures import Figures

__all__ = ["Rates", "Target"]

# What kernels get of the bandwidth that a loop reaches which does nothing but read.
_OF_L2, _OF_L3, _OF_DRAM = 0.8, 0.42, 0.85


@dataclass(frozen=True, slots=True)
class Rates:
    """What cost estimates go by: bytes a cycle from L2 and L3 for each core, from DRAM for all threads together.

    fma: vectors multiplied and added a cycle (0: as is usual for the width). The defaults are cautious figures of a
    server core; measured ones come from `Target.measured`.
    """

    l2: float = 28.0
    l3: float = 12.0
    dram: float = 9.0
    fma: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """A machine: LLVM's names for it and the figures that kernels are shaped by.

    vector_bytes: width of the widest vector register; registers: how many of them; l1/l2: bytes per core;
    l3: bytes of the last level, which cores share.
    """

    name: str  # "x86-64-v4", "x86-64-v3", "aarch64"
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    l1: int = 32 * 1024
    l2: int = 512 * 1024
    l3: int = 16 * 1024 * 1024
    is_host: bool = True
    rates: Rates = field(default=Rates(), repr=False)  # not in the text: code does not depend on it, only its choice does

    def lanes(self, itemsize: int = 4) -> int:
        """Elements of that size in one vector register."""
        return max(1, self.vector_bytes // itemsize)

    @property
    def fma_per_cycle(self) -> float:
        """Vectors multiplied and added a cycle."""
        return self.rates.fma or (1.0 if self.vector_bytes >= 64 else 2.0)

    def measured(self, f: Figures | None) -> Target:
        """This target with the rates of measured figures; None leaves it as it is.

        The cycles meant are those of the core, whose clock is not that of the counter: it follows from the peak.
        """
        if f is None or not f.measured:
            return self
        per_thread = f.flops / f.threads / (2 * self.lanes(4))  # vectors a second
        fma = 2.0 if per_thread > 1.6 * f.ticks else 1.0
        clock = per_thread / fma
        l2, l3 = (x / f.threads / clock for x in (f.l2, f.l3))
        made = (_OF_L2 * l2, _OF_L3 * l3, _OF_DRAM * f.dram / clock)
        return replace(self, rates=Rates(*(float(f"{x:.3g}") for x in (*made, fma))))
