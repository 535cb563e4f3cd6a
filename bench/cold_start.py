"""What a start costs: `python -m bench.cold_start [--model resnet50]`.

Prints the import time of diptych, the first compilation with an empty object cache, and the load with a filled one,
each in fresh processes, the median of several; then what the first compilation spends its time and memory on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.compile_split import PHASES
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


def split(model: str, threads: int, cache: Path, saved: str = "") -> dict[str, Any]:
    """The phases of one first compilation (see `bench.compile_split`)."""
    command = [sys.executable, "-m", "bench.compile_split", model, "--threads", str(threads), *(["--saved", saved] if saved else [])]
    environment = {**os.environ, "DIPTYCH_CACHE": str(cache)}
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=root, env=environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def starts(model: str, threads: int, times: int) -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, Any]]]:
    """Phases of starts of diptych: compiling the module and opening a saved model, with the cache empty and filled; and the
    phases within the first ones."""
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
        say("phases of a first compilation")
        phases = {form: split(model, threads, run.folder / f"split-{form}", saved if form == "saved" else "") for form in found}
    return found, phases


def phase_table(model: str, phases: dict[str, dict[str, Any]]) -> str:
    """Where the seconds and the memory of the first compilations went."""
    lines = []
    for name in PHASES:
        lines.append([name, *(seconds(p["phases"].get(name)) for p in phases.values())])
    # What is timed on its own is torch's export, the passes, and the kernels; packing goes on beside these.
    rest = [p["total"] - sum(t for n, t in p["phases"].items() if n != "pack") for p in phases.values()]
    lines.append(["all else", *map(seconds, rest)])
    lines.append(["in all", *(seconds(p["total"]) for p in phases.values())])
    lines.append(["CPU here", *(seconds(p["cpu"]) for p in phases.values())])
    lines.append(["CPU of compilers", *(seconds(p["cpu_compilers"]) for p in phases.values())])
    for what, key in (("packed weights, MB", "packed"), ("arena, MB", "arena"), ("memory before, MB", "before"),
                      ("peak, MB", "peak"), ("peak of a compiler, MB", "peak_compiler")):  # fmt: skip
        lines.append([what, *(megabytes(p[key]) for p in phases.values())])
    names = {"torch": "from the module", "saved": "from the file"}
    return table([f"{model}, first compilation, s", *(names[form] for form in phases)], lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--times", type=positive, default=5)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    imports = {name: import_seconds(name, args.times) for name in ("numpy", "diptych", "torch")}
    found, phases = starts(args.model, args.threads, args.times)
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
    print("\n" + phase_table(args.model, phases))
    if args.json:
        made = {"imports": imports, "model": args.model, "starts": found, "phases": phases}
        Path(args.json).write_text(json.dumps(made, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
