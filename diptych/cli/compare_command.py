"""`diptych compare`: one model on every engine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from diptych.cli.common import Named, add_json, add_model, emit, load_arrays, named, positive, say, specs_of
from diptych.compare import ENGINES, Settings, Subject, compare, demo, random_inputs
from diptych.compare.measure import available_cpus, example_inputs
from diptych.compare.subject import InputSpec
from diptych.errors import InputError
from diptych.ir import Array, TensorType

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add_model(parser, required=False)
    parser.description = (
        "Run one model on every engine that is here, each in its own process: are the answers right (judged against\n"
        "float64), how fast is it, what does a start cost, how much memory, how large is the installation.\n"
        "Without MODEL: a network trained on real handwritten digits in real MXNet, and its PyTorch twin."
    )
    parser.add_argument("--torch", metavar="MODEL", help="the same model in PyTorch, beside an MXNet checkpoint")
    parser.add_argument(
        "--data", action="append", default=[], metavar="FILE", help="real inputs: .npz, or NAME=FILE.npy"
    )
    parser.add_argument("--engines", metavar="A,B", help=f"which engines: {', '.join(ENGINES)}")
    parser.add_argument("--threads", type=positive, help="threads for every engine (default: all CPUs)")
    parser.add_argument("--batch", type=positive, help="the extent of axis 0 of every input")
    parser.add_argument("--rounds", type=positive, help="timed rounds (default 7; 3 with --quick)")
    parser.add_argument("--precision", default=None, help="precision asked of diptych (default f32)")
    parser.add_argument("--accuracy", default=None, choices=["fast", "strict"], help="accuracy asked of diptych")
    parser.add_argument("--quick", action="store_true", help="one start for each engine, short turns")
    add_json(parser)


def _with_batch(specs: Sequence[InputSpec], batch: int | None) -> list[InputSpec]:
    if batch is None:
        return list(specs)
    return [InputSpec(s.name, TensorType((batch, *s.type.shape[1:]), s.type.dtype), s.bound) for s in specs]


def _rebatched(arrays: dict[str, Array], batch: int | None) -> dict[str, Array]:
    if batch is None:
        return arrays
    return {k: np.ascontiguousarray(a[np.arange(batch) % len(a)]) if a.ndim else a for k, a in arrays.items()}


def subject(args: argparse.Namespace) -> Subject:
    """The model under comparison and its inputs."""
    model = named(args)
    if model is None:
        if args.input or args.data or args.torch:
            raise InputError("inputs are stated for a model: name one")
        return demo(args.batch or 1)
    if model.saved:
        raise InputError(f"{model.title}: a file that diptych saved has no other form to compare with; name its origin")
    twin = args.torch or model.torch
    if args.torch and model.torch:
        raise InputError("--torch goes with an MXNet checkpoint; the model named is a PyTorch model already")
    by_name, in_order = load_arrays(args.data)
    if in_order:
        raise InputError("write --data NAME=FILE.npy, so that every engine gets the array under its name")
    inputs = by_name or random_inputs(_with_batch(specs_of(args), args.batch))
    if not inputs:
        inputs = _rebatched(_stated(model, args, twin), args.batch)
    if any(a.ndim and not a.size for a in inputs.values()):
        raise InputError("an input is empty")
    return Subject(model.title, inputs, torch=twin or "", symbol=model.symbol, params=model.params)


def _stated(model: Named, args: argparse.Namespace, twin: str) -> dict[str, Array]:
    """Inputs that the model itself states: example inputs of a factory, or shapes in a checkpoint."""
    if twin:
        return example_inputs(twin)
    from diptych.frontends.mxnet import load_source

    source = load_source(model.symbol, model.params)
    types = source.default_types()
    if types is None:
        wanted = " ".join(f"--input {n}=SHAPE" for n in source.input_names)
        raise InputError(f"{model.title} does not state the shapes of its inputs; add {wanted}")
    return random_inputs([InputSpec(n, t) for n, t in types.items()])


def run(args: argparse.Namespace) -> int:
    """Compare and report; status 1 when an engine gives a wrong answer or fails."""
    options = {k: v for k, v in (("precision", args.precision), ("accuracy", args.accuracy)) if v}
    settings = Settings(
        engines=tuple(e.strip() for e in args.engines.split(",") if e.strip()) if args.engines else (),
        threads=args.threads or available_cpus(),
        rounds=args.rounds or (3 if args.quick else 7),
        turn_s=0.1 if args.quick else 0.3,
        quick=args.quick,
        options=options,
    )
    report = compare(subject(args), settings, say if sys.stderr.isatty() or not args.quick else lambda text: None)
    emit(args, report.as_json(), report.as_text())
    return 1 if any(r.state == "failed" or (r.state == "measured" and not r.passed) for r in report.rows) else 0
