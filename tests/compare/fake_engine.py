"""An engine for tests: `options["act"]` says how it behaves. Runs in the worker's process."""

from __future__ import annotations

import os
import sys
import time
from typing import Any


class Engine:
    """y = 2 x + offset, after some sleep."""

    distributions = ("numpy",)

    def __init__(self, spec: dict[str, Any], threads: int, options: dict[str, Any]) -> None:
        self.spec, self.act, self.variant = spec, options.get("act", ""), "plain"
        self.threads, self.calls = threads, 0
        self.notes = {"threads": threads, "omp": os.environ["OMP_NUM_THREADS"]}

    def bring(self) -> str:
        import numpy

        print("this goes to standard error, not into the frames")
        return str(numpy.__version__)

    def load(self, arrays: dict[str, Any]) -> None:
        if self.act == "refuse":
            raise ValueError("this model\nis not for me")
        if self.act == "crash":
            sys.stderr.write("last words\n")
            sys.stderr.flush()
            os._exit(3)
        if self.act == "hang":
            time.sleep(60)

    def feed(self, arrays: dict[str, Any]) -> None:
        self.arrays = arrays

    def call(self) -> Any:
        self.calls += 1
        time.sleep({"slow": 0.004, "plain": 0.002, "fast": 0.001}.get(self.variant, 0))
        return [2 * a + (1 if self.act == "wrong" else 0) for a in self.arrays.values()]

    def fetch(self, answer: Any) -> list[Any]:
        return list(answer)

    def variants(self) -> list[str]:
        return ["slow", "fast"]

    def use(self, name: str) -> None:
        self.variant = name
