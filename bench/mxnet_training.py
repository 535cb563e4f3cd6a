"""Training on `diptych.mxnet` and on real MXNet 1.9.1, from the same parameters: `python -m bench.mxnet_training`.

Each runs in a process of its own, hybridized with static_alloc; they take turns, a few steps at a time. Printed are both
loss curves, their largest difference, and the ratios of the times of a step and of inference (below 1: diptych is faster).
$DIPTYCH_MXNET_PYTHON names the interpreter that has MXNet, unless `diptych engines install mxnet` made one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import mxnet_trainees
from diptych.compare.engines import own_python
from diptych.runtime.threads import cpu_count

# How far the losses may be apart, relative to MXNet's own: rounding differs in every sum, and training amplifies it (a relu
# whose input is within rounding of 0 passes its gradient on or does not). `--yardstick` shows how much.
TOLERANCE = {"lenet": 2e-3, "resnet18": 2e-2, "lstm": 1e-3}
STEPS = {"lenet": 120, "resnet18": 30, "lstm": 60}


class Process:
    """A worker: answers to what it is told."""

    def __init__(self, python: str, module: str, threads: int) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
            "OMP_NUM_THREADS": str(threads), "DIPTYCH_NUM_THREADS": str(threads), "MXNET_SUBGRAPH_VERBOSE": "0",
        }  # fmt: skip
        if module.startswith("diptych"):
            environment["PYTHONPATH"] = str(mxnet_trainees.ROOT)
        self.name = module
        command = [python, mxnet_trainees.__file__, module]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, do: str, **options: Any) -> dict[str, Any]:
        """One order and its answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps({"do": do, **options}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended while it was to {do} ({self.process.wait()})")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SystemExit(f"{self.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the worker."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def turns(pair: list[Process], do: str, key: str, count: int, rounds: int) -> tuple[list[float], str]:
    """Let both work in turn; the ratio ours / theirs of the median times of each round, and the least of these times."""
    ratios: list[float] = []
    least: dict[str, float] = {}
    for i in range(rounds):
        order = pair if i % 2 == 0 else pair[::-1]
        found = {p.name: statistics.median(p.ask(do, **{key: count})["seconds"]) for p in order}
        ratios.append(found["diptych.mxnet"] / found["mxnet"])
        least = {name: min(t, least.get(name, t)) for name, t in found.items()}
    ours, theirs = (1e3 * least[p.name] for p in pair)
    return ratios, f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}), at best {ours:.2f} ms, MXNet {theirs:.2f} ms"


def curves(case: str, pair: list[Process], steps: int, folder: Path) -> tuple[list[list[float]], dict[str, Any]]:
    """The losses of both from the same parameters."""
    ours, theirs = pair
    start = str(folder / f"{case}.params")
    facts = theirs.ask("make", case=case, save=start)
    ours.ask("make", case=case, load=start)
    found = [p.ask("train", steps=steps) for p in (ours, theirs)]
    facts["first"] = [f["seconds"][0] for f in found]
    facts["slowest"] = [max(f["seconds"]) for f in found]
    return [f["losses"] for f in found], facts


def yardstick(case: str, python: str, threads: int, steps: int, losses: list[float], folder: Path) -> float:
    """How far MXNet is from its own `losses` when it starts from parameters one rounding away."""
    other = Process(python, "mxnet", threads)
    other.ask("make", case=case, load=str(folder / f"{case}.params"), nudge=True)
    found = other.ask("train", steps=steps)["losses"]
    other.close()
    return max(abs(a - b) / abs(b) for a, b in zip(found, losses, strict=True))


def main() -> int:
    """Train, compare, time; 1 when a curve is off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(TOLERANCE), metavar="CASE", help=f"of {', '.join(TOLERANCE)}")
    parser.add_argument("--steps", type=int, help="steps of the curves")
    parser.add_argument("--rounds", type=int, default=6, help="turns of the timing")
    parser.add_argument("--turn", type=int, default=5, help="steps of a turn")
    parser.add_argument("--yardstick", action="store_true", help="also train MXNet from parameters one rounding away")
    parser.add_argument("--threads", type=int, default=cpu_count())
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    if unknown := sorted(set(args.cases) - set(TOLERANCE)):
        parser.error(f"no case is named {', '.join(unknown)}; there are {', '.join(TOLERANCE)}")
    python = os.environ.get("DIPTYCH_MXNET_PYTHON") or own_python("mxnet")
    if not python:
        parser.error("no interpreter with MXNet 1.9.1: set DIPTYCH_MXNET_PYTHON or run `diptych engines install mxnet`")
    bad, figures = 0, {}
    with tempfile.TemporaryDirectory(prefix="diptych-training-") as folder:
        for case in args.cases:
            pair = [Process(sys.executable, "diptych.mxnet", args.threads), Process(str(python), "mxnet", args.threads)]
            losses, facts = curves(case, pair, args.steps or STEPS[case], Path(folder))
            off = max(abs(a - b) / abs(b) for a, b in zip(*losses, strict=True))
            good = off <= TOLERANCE[case] and (len(losses[0]) < 10 or losses[0][-1] < losses[0][0])
            bad += not good
            print(f"{case}: {facts['parameters']:,} parameters, {len(losses[0])} steps, {args.threads} threads")
            for name, curve in zip(("diptych", "MXNet"), losses, strict=True):
                every = max(1, len(curve) // 10)
                print(f"  {name:8}", " ".join(f"{x:.5f}" for x in (*curve[:-1:every], curve[-1])))
            print(f"  losses differ by {off:.1e} of their size at most, {TOLERANCE[case]:g} allowed: {'good' if good else 'BAD'}")
            if args.yardstick:
                far = yardstick(case, str(python), args.threads, len(losses[1]), losses[1], Path(folder))
                print(f"  MXNet from parameters one rounding away: {far:.1e}")
            print("  first step {:.2f} s, MXNet {:.2f} s; slowest {:.2f} s, MXNet {:.2f} s".format(*facts["first"], *facts["slowest"]))
            for p in pair:
                p.ask("infer", calls=6)
            step, step_text = turns(pair, "train", "steps", args.turn, args.rounds)
            infer, infer_text = turns(pair, "infer", "calls", 2 * args.turn, args.rounds)
            print(f"  time of a step, in MXNet's: {step_text}\n  of inference: {infer_text}", flush=True)
            figures[case] = {"losses": losses, "off": off, "step": step, "infer": infer, **facts}
            for p in pair:
                p.close()
    if args.json:
        args.json.write_text(json.dumps({"threads": args.threads, "cases": figures}), encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
