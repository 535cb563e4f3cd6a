"""64-bit Arm with NEON: compiled and inspected in the tests; run where the host is one."""

from __future__ import annotations

import platform

from diptych.targets.base import Target

__all__ = ["make"]


def make(name: str) -> Target:
    """The NEON target: 32 registers of 16 bytes."""
    host = platform.machine().lower() in ("aarch64", "arm64")
    return Target(name, "aarch64-unknown-linux-gnu", "generic", "+neon", 16, 32, l1=64 * 1024, is_host=host)
