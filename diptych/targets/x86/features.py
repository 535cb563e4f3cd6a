"""What an x86-64 machine can do, from /proc/cpuinfo and sysfs (no LLVM needed)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from diptych.errors import UnsupportedError
from diptych.targets.base import Target

__all__ = ["LEVELS", "cpu_flags", "make"]

TRIPLE = "x86_64-unknown-linux-gnu"

# level -> (LLVM cpu, extra features, cpuinfo flags it needs, vector bytes, registers)
LEVELS: dict[str, tuple[str, str, tuple[str, ...], int, int]] = {
    "x86-64-v4": ("x86-64-v4", "-prefer-256-bit,+prfchw", ("avx512f", "avx512bw", "avx512dq", "avx512vl"), 64, 32),
    "x86-64-v3": ("x86-64-v3", "+prfchw", ("avx2", "fma", "f16c"), 32, 16),
}


@cache
def cpu_flags() -> frozenset[str]:
    """The flags line of /proc/cpuinfo."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def _cache_bytes(level: int, default: int) -> int:
    base = Path("/sys/devices/system/cpu/cpu0/cache")
    for index in range(8):
        folder = base / f"index{index}"
        try:
            if int((folder / "level").read_text()) == level and "Instr" not in (folder / "type").read_text():
                return int((folder / "size").read_text().strip().rstrip("K")) * 1024
        except (OSError, ValueError):
            continue
    return default


@cache
def make(name: str) -> Target:
    """The Target of a level; `is_host` says whether this machine can run it."""
    if name not in LEVELS:
        raise UnsupportedError(f"unknown x86 target {name!r}; known: {', '.join(LEVELS)}")
    cpu, features, needs, width, registers = LEVELS[name]
    flags = cpu_flags()
    return Target(
        name, TRIPLE, cpu, features, width, registers,
        l1=_cache_bytes(1, 32 * 1024), l2=_cache_bytes(2, 512 * 1024),
        l3=_cache_bytes(3, 16 * 1024 * 1024), is_host=all(f in flags for f in needs),
    )  # fmt: skip
