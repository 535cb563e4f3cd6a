"""Single layers of every kind of convolution, resizing and pooling on several engines: `python -m bench.conv_table`.

A layer stands alone, its inputs and outputs laid out as the framework has them: a layout that an engine uses inside is
paid for on both sides. Engines take turns in processes of their own, and their outputs are judged against float64 before
a time counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.peers import summary
from diptych.cli.common import positive, say
from diptych.compare import ENGINES, Report, Settings, Subject, compare
from diptych.compare.measure import available_cpus, example_inputs
from diptych.compare.report import plain
from diptych.errors import DiptychError

__all__ = ["LAYERS", "make"]

Layer = Callable[[], nn.Module]

# name -> (the layer, its input)
LAYERS: dict[str, tuple[Layer, tuple[int, ...]]] = {
    "3x3": (lambda: nn.Conv2d(64, 64, 3, padding=1), (1, 64, 56, 56)),
    "3x3 stride 2": (lambda: nn.Conv2d(64, 128, 3, stride=2, padding=1), (1, 64, 56, 56)),
    "3x3 dilated 2": (lambda: nn.Conv2d(64, 64, 3, padding=2, dilation=2), (1, 64, 56, 56)),
    "3x3 dilated 6": (lambda: nn.Conv2d(256, 256, 3, padding=6, dilation=6), (1, 256, 28, 28)),
    "3x3 in 32 groups": (lambda: nn.Conv2d(128, 128, 3, padding=1, groups=32), (1, 128, 56, 56)),
    "3x3 in 4 groups": (lambda: nn.Conv2d(128, 128, 3, padding=1, groups=4), (1, 128, 28, 28)),
    "3x3 depthwise": (lambda: nn.Conv2d(144, 144, 3, padding=1, groups=144), (1, 144, 56, 56)),
    "5x5 depthwise": (lambda: nn.Conv2d(240, 240, 5, padding=2, groups=240), (1, 240, 28, 28)),
    "7x7 depthwise": (lambda: nn.Conv2d(96, 96, 7, padding=3, groups=96), (1, 96, 56, 56)),
    "3x3 depthwise stride 2": (lambda: nn.Conv2d(144, 144, 3, stride=2, padding=1, groups=144), (1, 144, 56, 56)),
    "1x1 to one channel": (lambda: nn.Conv2d(32, 1, 1), (1, 32, 256, 256)),
    "7x7 of an image": (lambda: nn.Conv2d(3, 64, 7, stride=2, padding=3), (1, 3, 224, 224)),
    "1-D, 3": (lambda: nn.Conv1d(256, 256, 3, padding=1), (1, 256, 1024)),
    "1-D, 9 dilated 4": (lambda: nn.Conv1d(64, 64, 9, padding=16, dilation=4), (1, 64, 4096)),
    "1-D of a waveform": (lambda: nn.Conv1d(1, 64, 80, stride=4), (1, 1, 16000)),
    "1-D depthwise 31": (lambda: nn.Conv1d(256, 256, 31, padding=15, groups=256), (1, 256, 512)),
    "3-D, 3x3x3": (lambda: nn.Conv3d(32, 32, 3, padding=1), (1, 32, 16, 28, 28)),
    "3-D, 3x3x3 of video": (lambda: nn.Conv3d(3, 64, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3)), (1, 3, 8, 112, 112)),
    "3-D, 1x1x1": (lambda: nn.Conv3d(64, 128, 1), (1, 64, 8, 28, 28)),
    "transposed 2x2 stride 2": (lambda: nn.ConvTranspose2d(128, 64, 2, stride=2), (1, 128, 56, 56)),
    "transposed 4x4 stride 2": (lambda: nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1), (1, 128, 28, 28)),
    "transposed 1-D 4 stride 2": (lambda: nn.ConvTranspose1d(128, 64, 4, stride=2, padding=1), (1, 128, 1024)),
    "transposed 3-D 2x2x2": (lambda: nn.ConvTranspose3d(64, 32, 2, stride=2), (1, 64, 8, 14, 14)),
    "bilinear twice": (lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), (1, 64, 56, 56)),
    "nearest twice": (lambda: nn.Upsample(scale_factor=2, mode="nearest"), (1, 64, 56, 56)),
    "maximum of 3x3 stride 2": (lambda: nn.MaxPool2d(3, 2, 1), (1, 64, 112, 112)),
    "mean of 3x3": (lambda: nn.AvgPool2d(3, 1, 1), (1, 128, 28, 28)),
    "mean of all": (lambda: nn.AdaptiveAvgPool2d(1), (1, 1280, 7, 7)),
}


def make(layer: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """The layer and its input, the same in every process."""
    build, shape = LAYERS[layer]
    torch.manual_seed(0)
    return build().eval(), (torch.randn(shape, generator=torch.Generator().manual_seed(1)),)


def measure(layer: str, settings: Settings) -> Report:
    """One layer on every engine."""
    arguments = {"layer": layer}
    inputs = example_inputs("bench.conv_table:make", arguments)
    return compare(Subject(layer, inputs, torch="bench.conv_table:make", arguments=arguments), settings, say)


def main() -> int:
    """Measure the chosen layers one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", action="append", help="only layers whose name has this in it (repeat for more)")
    parser.add_argument("--threads", type=positive, default=available_cpus())
    parser.add_argument("--engines", metavar="A,B", default="diptych,torch,onnxruntime", help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--seconds", type=float, default=0.15, help="length of a turn")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    layers = [n for n in LAYERS if not args.layer or any(part in n for part in args.layer)]
    if not layers:
        parser.error(f"no layer is named {', '.join(args.layer)}; there are: {'; '.join(LAYERS)}")
    engines = [e.strip() for e in args.engines.split(",") if e.strip()]
    settings = Settings(tuple(engines), args.threads, args.rounds, args.seconds, quick=True)
    reports: list[Report] = []
    failures: dict[str, str] = {}
    for layer in layers:
        say(f"== {layer}, {args.threads} threads")
        try:
            reports.append(measure(layer, settings))
        except DiptychError as e:
            failures[layer] = str(e)
    if args.json:
        made = {"when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "failures": failures,
                "reports": [r.as_json() for r in reports]}  # fmt: skip
        args.json.write_text(json.dumps(plain(made), indent=1) + "\n")
    if reports:
        print(summary(reports, engines))
    for name, why in failures.items():
        print(f"  {name}: {why}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
