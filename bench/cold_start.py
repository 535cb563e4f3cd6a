"""What a start costs: `python -m bench.cold_start [--model resnet50]`.

Prints the import time of diptych, the first compilation with an empty object cache, and the load with a filled one,
each in fresh processes, the median of several.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from diptych.cli.common import positive, say
from diptych.compare.measure import Settings, _running, example_inputs
from diptych.compare.subject import Subject
from diptych.compare.table import megabytes, seconds, table

IMPORT = "import time; t = time.perf_counter(); import {0}; print(time.perf_counter() - t)"


def import_seconds(module: str, times: int) -> float:
    """The median time to import a module in a fresh interpreter."""
    root = str(Path(__file__).resolve().parents[1])
    found = []
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-c", IMPORT.format(module)], capture_output=True, text=True, check=True, cwd=root
        )
        found.append(float(done.stdout))
    return statistics.median(found)


def starts(model: str, threads: int, times: int) -> list[dict[str, Any]]:
    """Phases of starts of diptych: the first with an empty cache, the others with the cache that it filled."""
    arguments = {"model": model, "batch": 1}
    inputs = example_inputs("bench.suites:make", arguments)
    subject = Subject(model, inputs, torch="bench.suites:make", arguments=arguments)
    found = []
    with _running(subject, Settings(threads=threads), say) as run:
        for number in range(times + 1):
            say(f"start {number} of {times}")
            with run.spawn("diptych", sys.executable, "cache") as process:
                reply, _ = run.start(process, "diptych_engine", subject.spec(), {"form": "torch"})
            found.append(reply)
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--times", type=positive, default=5)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    imports = {name: import_seconds(name, args.times) for name in ("numpy", "diptych", "torch")}
    first, *later = starts(args.model, args.threads, args.times)
    cached = {k: statistics.median(r[k] for r in later) for k in ("import_s", "load_s", "first_s")}
    print(table(["import", "seconds"], [[k, seconds(v)] for k, v in imports.items()]) + "\n")
    rows = [
        [f"{args.model}: {what}", seconds(r["load_s"]), seconds(r["first_s"]), megabytes(peak)]
        for what, r, peak in (
            ("empty cache", first, first["memory"]["peak"]),
            ("filled cache", cached, later[-1]["memory"]["peak"]),
        )
    ]
    print(table(["start of diptych", "load and compile", "first answer", "peak MB"], rows))
    print("  (load includes building the PyTorch module; peak memory includes PyTorch)")
    if args.json:
        made = {"imports": imports, "model": args.model, "empty": first, "filled": cached}
        Path(args.json).write_text(json.dumps(made, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
