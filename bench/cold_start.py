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
from diptych.compare.measure import Settings, example_inputs, running
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


def starts(model: str, threads: int, times: int) -> dict[str, list[dict[str, Any]]]:
    """Phases of starts of diptych: compiling the module and opening a saved model, with the cache empty and filled."""
    arguments = {"model": model, "batch": 1}
    inputs = example_inputs("bench.suites:make", arguments)
    subject = Subject(model, inputs, torch="bench.suites:make", arguments=arguments)
    found: dict[str, list[dict[str, Any]]] = {}
    with running(subject, Settings(threads=threads), say) as run:
        saved = str(run.folder / "model.diptych")
        for form in ("torch", "saved"):
            for number in range(times + 1):
                say(f"{form}: start {number} of {times}")
                with run.spawn("diptych", sys.executable, f"cache-{form}") as process:
                    reply, _ = run.start(process, "diptych_engine", subject.spec(saved=saved), {"form": form})
                    if form == "torch" and number == 0:
                        process.ask("save", path=saved)
                found.setdefault(form, []).append(reply)
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
    found = starts(args.model, args.threads, args.times)
    print(table(["import", "seconds"], [[k, seconds(v)] for k, v in imports.items()]) + "\n")
    rows = []
    for form, what in (("torch", "compile the PyTorch module"), ("saved", "open the saved model")):
        first, *later = found[form]
        for cache, replies in (("empty", [first]), ("filled", later)):
            middle = [statistics.median(r[k] for r in replies) for k in ("import_s", "load_s", "first_s")]
            peak = max(r["memory"]["peak"] for r in replies)
            rows.append([what, cache, *map(seconds, middle), seconds(sum(middle)), megabytes(peak)])
    heads = [args.model, "cache", "import", "load", "first answer", "sum", "peak MB"]
    print(table(heads, rows, left=2))
    print("  (the PyTorch rows include importing PyTorch and building the module)")
    if args.json:
        made = {"imports": imports, "model": args.model, "starts": found}
        Path(args.json).write_text(json.dumps(made, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
