"""What a first compilation spends its time on, in a fresh process: `python -m bench.compile_split MODEL [--saved FILE]`.

Prints JSON: seconds by phase (`pack` runs beside `kernels`), CPU seconds of this process and of the compiler processes, the
memory of this process when the compilation began and at its highest (one call included), and that of the largest compiler
process. The cache of the environment is used, so it should be an empty one. `bench.cold_start` prints it as a table.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.compare.workers.worker import memory
from diptych.ir.types import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PHASES", "main"]

#: By phase: the function that is timed, and whose time counts as its own.
PHASES = {
    "torch.export": "torch.export:export",
    "decompositions": "diptych.frontends.torch.export:decompose",
    "passes, schedule": "diptych.compiler:compile_plan",
    "kernels": "diptych.compiler:objects_of",
    "pack": "diptych.compiled:_pack",
    "write cache": "diptych.compiled:keep",
}


def _timed(name: str, found: dict[str, float]) -> None:
    """Replace the function of a phase by one that adds up its seconds."""
    import importlib

    where, attribute = PHASES[name].split(":")
    module = importlib.import_module(where)
    inner: Callable[..., Any] = getattr(module, attribute)

    def outer(*args: Any, **keywords: Any) -> Any:
        begin = time.perf_counter()
        try:
            return inner(*args, **keywords)
        finally:
            found[name] = found.get(name, 0.0) + time.perf_counter() - begin

    setattr(module, attribute, outer)


def main() -> int:
    """Compile once and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name of bench.suites")
    parser.add_argument("--saved", metavar="FILE", help="open this saved model instead of building the module")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    found: dict[str, float] = {}
    if not args.saved:
        from bench.suites import make

        module, inputs = make(args.model, 1)
    import diptych

    for name in PHASES:
        if not args.saved or "torch" not in PHASES[name]:
            _timed(name, found)
    before, begin, cpu = memory()["now"], time.perf_counter(), time.process_time()
    if args.saved:
        model = diptych.open(args.saved, threads=args.threads)
    else:
        model = diptych.compile(module, inputs, threads=args.threads)
    total, cpu, phases = time.perf_counter() - begin, time.process_time() - cpu, dict(found)
    compilers = resource.getrusage(resource.RUSAGE_CHILDREN)
    model(*(np.zeros(t.shape, numpy_dtype(t.dtype)) for t in model.input_types.values()))
    peak, plan = memory()["peak"], model.plan
    assert plan is not None
    print(json.dumps({
        "total": total, "phases": phases, "cpu": cpu, "cpu_compilers": compilers.ru_utime + compilers.ru_stime,
        "before": before, "peak": peak, "peak_compiler": compilers.ru_maxrss * 1024 if args.saved else 0,  # else it is that of this process, from before its exec
        "packed": plan.constants.nbytes, "arena": plan.arena_bytes,
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
