"""The suites on every engine: `python -m bench.peers --suite conv --threads 2 --json out.json`.

The figures in a row come from one interleaved run; only their ratios mean something across machines and days.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import mxnet_zoo
from diptych.cli.common import positive, say
from diptych.compare import ENGINES, InputSpec, Report, Settings, Subject, compare, random_inputs
from diptych.compare.engines import own_python
from diptych.compare.measure import available_cpus, example_inputs
from diptych.compare.report import Row, plain
from diptych.compare.table import milliseconds, table
from diptych.errors import DiptychError, UnsupportedError
from diptych.ir import TensorType

DEFAULT = ("diptych", "torch", "inductor", "onnxruntime", "openvino", "ncnn")
DEFAULT_MXNET = ("diptych", "mxnet")
SUITES = ("smoke", "conv", "seq", "all", "mxnet")


def measure_mxnet(model: str, batch: int, settings: Settings) -> Report:
    """One network of MXNet's zoo, as real MXNet exports it."""
    python = own_python("mxnet")
    if python is None:
        raise UnsupportedError("the mxnet suite needs real MXNet: diptych engines install mxnet")
    with tempfile.TemporaryDirectory(prefix="diptych-zoo-") as folder:
        command = [python, str(Path(mxnet_zoo.__file__)), model, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DiptychError(f"MXNet cannot export {model}: {done.stderr.strip().splitlines()[-1]}")
        inputs = random_inputs([InputSpec("data", TensorType((batch, 3, 224, 224)))])
        stem = str(Path(folder) / model)
        subject = Subject(f"{model} x{batch}", inputs, symbol=f"{stem}-symbol.json", params=f"{stem}-0000.params")
        return compare(subject, settings, say)


def measure(model: str, batch: int, settings: Settings) -> Report:
    """One model of the suites."""
    arguments = {"model": model, "batch": batch}
    inputs = example_inputs("bench.suites:make", arguments)
    return compare(Subject(f"{model} x{batch}", inputs, torch="bench.suites:make", arguments=arguments), settings, say)


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    if row.state != "measured" or row.latency is None:
        return row.state
    text = milliseconds(row.latency.median)
    return text if row.passed else f"({text})"


def best_rival(report: Report) -> Row | None:
    """The fastest engine but diptych whose answer is right."""
    rivals = [r for r in report.rows if r.counts and not r.engine.startswith("diptych")]
    return min(rivals, key=lambda r: r.latency.median if r.latency else math.inf, default=None)


def summary(reports: list[Report], engines: list[str]) -> str:
    """One line a model: milliseconds of every engine, and the best rival's time over diptych's."""
    heads = ["model", *(ENGINES[e].title for e in engines), "best rival", "times diptych", "95 % interval"]
    rows, ratios = [], []
    for report in reports:
        by_name = {r.engine: r for r in report.rows}
        rival = best_rival(report)
        ours = by_name.get("diptych")
        line = [report.model, *(_cell(by_name.get(e)) for e in engines), rival.title if rival else "-"]
        if rival and rival.ratio and ours and ours.counts:
            ratios.append(rival.ratio.value)
            line += [f"{rival.ratio.value:.2f}", f"{rival.ratio.low:.2f}-{rival.ratio.high:.2f}"]
        else:
            line += ["-", "-"]
        rows.append(line)
    text = table(heads, rows)
    if ratios:
        mean = math.exp(sum(math.log(r) for r in ratios) / len(ratios))
        text += f"\n\n  geometric mean of {len(ratios)}: the best rival takes {mean:.2f} times as long as diptych"
    return text + "\n  (in brackets: the answer is wrong, the time does not count)"


def main() -> int:
    """Measure the chosen models one after the other; what is done is on disk after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, default="smoke")
    parser.add_argument("--model", action="append", help="only this model (repeat for more)")
    parser.add_argument("--batch", type=positive, action="append", help="batch size (repeat for more; default 1)")
    parser.add_argument("--threads", type=positive, default=available_cpus())
    parser.add_argument("--engines", metavar="A,B", help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a turn")
    parser.add_argument("--starts", action="store_true", help="also start every engine with empty caches")
    parser.add_argument("--verbose", action="store_true", help="the full report of every model")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()

    from bench.suites import names  # imports PyTorch, which --help need not wait for

    known = names("all")
    from_mxnet = args.suite == "mxnet"
    if from_mxnet:
        known = list(mxnet_zoo.NAMES)
    models = args.model or (known if from_mxnet else names(args.suite))
    unknown = [m for m in models if m not in known]
    if unknown:
        parser.error(f"no model is named {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = args.engines or ",".join(DEFAULT_MXNET if from_mxnet else DEFAULT)
    engines = [e.strip() for e in chosen.split(",") if e.strip()]
    one = measure_mxnet if from_mxnet else measure
    settings = Settings(tuple(engines), args.threads, args.rounds, args.seconds, quick=not args.starts)
    reports: list[Report] = []
    failures: dict[str, str] = {}
    stopped = False
    for batch in args.batch or [1]:
        for model in models:
            if stopped:
                failures[f"{model} x{batch}"] = "interrupted"
                continue
            say(f"== {model}, batch {batch}, {args.threads} threads")
            try:
                reports.append(one(model, batch, settings))
            except KeyboardInterrupt:  # what was measured before still counts
                stopped, failures[f"{model} x{batch}"] = True, "interrupted"
                continue
            except DiptychError as e:
                failures[f"{model} x{batch}"] = str(e)
                say(f"{model}: {e}")
                continue
            if args.verbose:
                print(reports[-1].as_text() + "\n", flush=True)
            else:
                say(summary(reports[-1:], engines).split("\n")[2])
            if args.json:
                made: dict[str, Any] = {
                    "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "failures": failures,
                }
                made["reports"] = [r.as_json() for r in reports]
                args.json.write_text(json.dumps(plain(made), indent=1) + "\n")
    if reports:
        print(summary(reports, engines))
        for report in reports:
            for row in report.rows:
                if row.state in ("failed", "absent") or (row.judgement and not row.passed):
                    why = row.reason or (
                        row.judgement and (row.judgement.problem or f"max error {row.judgement.max_error:.1e}")
                    )
                    print(f"  {report.model}, {row.title}: {row.state if row.reason else 'wrong'}: {why}")
    for name, why in failures.items():
        print(f"  {name}: {why}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
