"""How far each model's output is from float64: `python -m bench.accuracy --suite conv [--model resnet18] [--json out.json]`.

Errors are relative to the root mean square of the float64 output; PyTorch's own float32 error is the yardstick.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import diptych
from bench.suites import make, names
from diptych.cli.common import positive, say
from diptych.compare.table import table

Array = np.ndarray[Any, Any]


def _leaves(answer: Any) -> list[Array]:
    if isinstance(answer, (tuple, list)):
        return [leaf for part in answer for leaf in _leaves(part)]
    return [np.asarray(answer.detach().double())]


def _errors(found: list[Array], exact: list[Array]) -> tuple[float, float]:
    """The largest and the root mean square error over all outputs, each relative to its output's root mean square."""
    largest, mean = 0.0, 0.0
    for f, e in zip(found, exact, strict=True):
        scale = float(np.sqrt(np.mean(e**2))) or 1.0
        largest = max(largest, float(np.abs(f - e).max()) / scale)
        mean = max(mean, float(np.sqrt(np.mean((f - e) ** 2))) / scale)
    return largest, mean


def measure(model: str, batch: int, threads: int) -> dict[str, tuple[float, float]]:
    """(max, rms) error of PyTorch and of diptych, fast and strict."""
    module, inputs = make(model, batch)
    found: dict[str, tuple[float, float]] = {}
    with torch.no_grad():
        wide = [x.double() if x.is_floating_point() else x for x in inputs]
        exact = _leaves(copy.deepcopy(module).double()(*wide))
        found["torch"] = _errors(_leaves(module(*inputs)), exact)
        for accuracy in ("fast", "strict"):
            compiled = diptych.compile(module, inputs, threads=threads, accuracy=accuracy)
            found[accuracy] = _errors(_leaves(compiled(*inputs)), exact)
    return found


def main() -> int:
    """Measure and print; the status is 1 when an error is over the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=["conv", "seq", "all"], default="conv")
    parser.add_argument("--model", action="append", help="only this model (repeat for more)")
    parser.add_argument("--batch", type=positive, default=1)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--fast", type=float, default=4.0, help="bound on the rms error, times PyTorch's (default 4)")
    parser.add_argument("--strict", type=float, default=1.5, help="the same with accuracy='strict' (default 1.5)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    rows, made, over = [], {}, []
    for model in args.model or names(args.suite):
        say(f"== {model}")
        found = made[model] = measure(model, args.batch, args.threads)
        ratios = {k: found[k][1] / found["torch"][1] for k in ("fast", "strict")}
        over += [f"{model} {k}" for k in ratios if ratios[k] > getattr(args, k)]
        rows.append([model, *(f"{e:.1e}" for k in ("torch", "fast", "strict") for e in found[k]),
                     *(f"{ratios[k]:.2f}" for k in ("fast", "strict"))])  # fmt: skip
    heads = ["model", "torch max", "rms", "fast max", "rms", "strict max", "rms", "fast/torch", "strict/torch"]
    print(table(heads, rows))
    if over:
        print(f"  over the bound: {', '.join(over)}")
    if args.json:
        args.json.write_text(json.dumps(made, indent=1) + "\n")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
