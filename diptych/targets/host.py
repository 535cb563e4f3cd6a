"""Choosing a target: the best one of this machine, or one by name."""

from __future__ import annotations

import platform

from diptych.errors import UnsupportedError
from diptych.targets.base import Target
from diptych.targets.x86 import features as x86

__all__ = ["NAMES", "find", "host"]

NAMES = ("x86-64-v4", "x86-64-v3", "aarch64", "numpy")


def host() -> Target:
    """The best target this machine can run."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        for name in x86.LEVELS:
            target = x86.make(name)
            if target.is_host:
                return target
        raise UnsupportedError("this x86 CPU has no AVX2 and FMA, which native code needs; use target='numpy'")
    if platform.machine().lower() in ("aarch64", "arm64"):
        from diptych.targets import arm

        return arm.make("aarch64")
    raise UnsupportedError(f"no native target for {platform.machine()}; use target='numpy'")


def find(name: str | None) -> Target:
    """The target of that name (None: this machine's)."""
    if name is None:
        return host()
    if name in x86.LEVELS:
        return x86.make(name)
    if name == "aarch64":
        from diptych.targets import arm

        return arm.make(name)
    raise UnsupportedError(f"unknown target {name!r}; known: {', '.join(NAMES)}")
