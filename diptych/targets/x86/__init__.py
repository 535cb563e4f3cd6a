"""x86-64: AVX-512 (x86-64-v4) and AVX2 (x86-64-v3)."""

from diptych.targets.x86.features import make

__all__ = ["make"]
