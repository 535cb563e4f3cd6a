"""Target: what the schedule and the code generator know of a machine. Data only; one folder per architecture makes them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Target"]


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

    def lanes(self, itemsize: int = 4) -> int:
        """Elements of that size in one vector register."""
        return max(1, self.vector_bytes // itemsize)
