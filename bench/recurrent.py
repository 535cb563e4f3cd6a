"""Recurrent networks of every kind on every engine: `python -m bench.recurrent --threads 2 [--case lstm_b8]`.

Each case is a module of PyTorch over sequences of 100 steps with weights from a fixed seed; every engine runs in a
process of its own, in turn, and is judged against float64 before its time counts, as by `python -m bench.peers`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diptych.cli.common import positive, say
from diptych.compare import ENGINES, Settings, Subject, compare
from diptych.compare.measure import available_cpus, example_inputs
from diptych.compare.report import plain
from diptych.errors import DiptychError

DEFAULT = ("diptych", "torch", "onnxruntime", "openvino")


@dataclass(frozen=True, slots=True)
class Case:
    """A stack of recurrent layers and the batch it is given."""

    kind: str
    batch: int = 1
    inputs: int = 512
    hidden: int = 512
    layers: int = 2
    bidirectional: bool = False
    proj_size: int = 0
    steps: int = 100


CASES: dict[str, Case] = {
    "lstm": Case("LSTM"),
    "lstm_b2": Case("LSTM", 2),
    "lstm_b8": Case("LSTM", 8),
    "lstm_b32": Case("LSTM", 32),
    "lstm_both_ways": Case("LSTM", hidden=256, bidirectional=True),
    "lstm_both_ways_b8": Case("LSTM", 8, hidden=256, bidirectional=True),
    "lstm_projected": Case("LSTM", hidden=1024, proj_size=256),
    "lstm_projected_b8": Case("LSTM", 8, hidden=1024, proj_size=256),
    "lstm_small": Case("LSTM", inputs=32, hidden=64, layers=1),
    "gru": Case("GRU"),
    "gru_b8": Case("GRU", 8),
    "gru_b32": Case("GRU", 32),
    "gru_both_ways": Case("GRU", hidden=256, bidirectional=True),
    "rnn_tanh": Case("RNN"),
    "rnn_tanh_b8": Case("RNN", 8),
}


def make(name: str) -> tuple[Any, tuple[Any, ...]]:
    """The module of a case, giving the states of every step, and its example input."""
    import torch

    from bench.suites import SEED

    case = CASES[name]

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            options = {"proj_size": case.proj_size} if case.proj_size else {}
            self.layers = getattr(torch.nn, case.kind)(
                case.inputs, case.hidden, case.layers, batch_first=True, bidirectional=case.bidirectional, **options
            )

        def forward(self, x: Any) -> Any:
            return self.layers(x)[0]

    torch.manual_seed(SEED)
    return States().eval(), (torch.randn(case.batch, case.steps, case.inputs),)


def main() -> int:
    """Measure the chosen cases one after the other."""
    from bench.peers import summary  # the same table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this case (repeat for more)")
    parser.add_argument("--threads", type=positive, default=available_cpus())
    parser.add_argument("--engines", default=",".join(DEFAULT), metavar="A,B", help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a turn")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    engines = [e.strip() for e in args.engines.split(",") if e.strip()]
    settings = Settings(tuple(engines), args.threads, args.rounds, args.seconds, quick=True)
    reports, failed = [], 0
    for name in args.case or CASES:
        say(f"== {name}: {asdict(CASES[name])}")
        arguments = {"name": name}
        try:
            inputs = example_inputs("bench.recurrent:make", arguments)
            subject = Subject(name, inputs, torch="bench.recurrent:make", arguments=arguments)
            reports.append(compare(subject, settings, say))
        except DiptychError as e:
            say(f"{name}: {e}")
            failed += 1
            continue
        if args.json:
            args.json.write_text(json.dumps(plain([r.as_json() for r in reports]), indent=1) + "\n")
    if reports:
        print(summary(reports, engines))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
