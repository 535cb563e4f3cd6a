"""`diptych run`: a model on inputs."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from diptych.cli.common import (
    add_json,
    add_model,
    add_tune,
    arrays_for,
    build_torch,
    emit,
    load_arrays,
    named,
    open_source,
    positive,
    specs_of,
    types_for,
)
from diptych.compare.subject import InputSpec, random_inputs
from diptych.compare.table import milliseconds, seconds, table
from diptych.compare.workers.diptych_engine import leaves
from diptych.errors import InputError
from diptych.ir import Array

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add_model(parser)
    parser.add_argument("--data", action="append", default=[], metavar="FILE", help=".npz, FILE.npy or NAME=FILE.npy")
    parser.add_argument("--random", action="store_true", help="seeded random inputs of the stated types")
    parser.add_argument("--output", metavar="FILE.npz", help="write the outputs")
    parser.add_argument("--top-k", type=positive, metavar="K", help="show the K largest entries of each row")
    parser.add_argument("--threads", type=positive, help="threads (default: what diptych chooses)")
    parser.add_argument("--dynamic", choices=["batch", "length"], help="compile for any batch or any length, as compile(dynamic=...) does")
    parser.add_argument("--precision", default="f32", help="f32 (default) or a lower one")
    parser.add_argument("--accuracy", default="fast", choices=["fast", "strict"])
    add_tune(parser)
    add_json(parser)


def _compiled(args: argparse.Namespace) -> tuple[Any, dict[str, Array]]:
    """The model and its inputs."""
    import diptych

    model = named(args)
    assert model is not None  # add_model requires one
    keywords = {"threads": args.threads, "precision": args.precision, "accuracy": args.accuracy, "dynamic": args.dynamic,
                "tune": args.tune}  # fmt: skip
    specs = specs_of(args)
    by_name, in_order = load_arrays(args.data)
    if args.data and args.random:
        raise InputError("--data and --random exclude each other")
    if model.saved:
        opened = diptych.open(model.saved, threads=args.threads, tune=args.tune)
        if args.random:
            types = opened.graph.input_types()
            return opened, random_inputs([InputSpec(n, t) for n, t in types.items()])
        return opened, arrays_for(opened.input_names, by_name, in_order)
    if model.symbol:
        source = open_source(model, specs)
        if args.random or not args.data:
            types = types_for(source, {s.name: s.type for s in specs}, symbolic=True)
            bounds = {s.name: s.bound for s in specs}
            arrays = random_inputs([InputSpec(n, t, bounds.get(n, 10)) for n, t in types.items()])
            _random_was_meant(args)
        else:
            arrays = arrays_for(source.input_names, by_name, in_order)
        return diptych.compile(source, arrays, **keywords), arrays
    if model.torch.endswith(".pt2"):
        compiled = diptych.compile(open_source(model, specs), **keywords)
        if args.data:
            return compiled, arrays_for(compiled.input_names, by_name, in_order)
        _random_was_meant(args)
        types = compiled.graph.input_types()
        return compiled, random_inputs([InputSpec(n, t) for n, t in types.items()])
    import torch

    module, examples = build_torch(model.torch)
    if args.data:
        given = [*by_name.values(), *in_order]
    elif specs:
        given = list(random_inputs(specs).values())
        _random_was_meant(args)
    elif examples is not None:
        given = [t.numpy() for t in examples]
    else:
        raise InputError(f"{model.title}: it gives no example inputs; use --data, or --input NAME=SHAPE with --random")
    compiled = diptych.compile(module, tuple(torch.from_numpy(a) for a in given), **keywords)
    return compiled, dict(zip(compiled.input_names, given, strict=True))


def _random_was_meant(args: argparse.Namespace) -> None:
    if not args.random:
        raise InputError("no inputs: give --data FILE, or --random for made-up ones")


def _summary(name: str, array: Array, top: int | None) -> dict[str, Any]:
    numbers = np.asarray(array, np.float64)
    made: dict[str, Any] = {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
    if numbers.size:
        made |= {"min": float(numbers.min()), "mean": float(numbers.mean()), "max": float(numbers.max())}
    if top and array.ndim:
        rows = numbers.reshape(-1, array.shape[-1])
        best = np.argsort(-rows, axis=1, kind="stable")[:, :top]
        made["top"] = [[{"index": int(i), "value": float(r[i])} for i in b] for r, b in zip(rows, best)]
    return made


def run(args: argparse.Namespace) -> int:
    """Run once and show or write the outputs."""
    start = time.perf_counter()
    model, arrays = _compiled(args)
    ready = time.perf_counter()
    answer = model(*(arrays[n] for n in model.input_names))
    done = time.perf_counter()
    outputs = {n: np.asarray(v) for n, v in zip(model.output_names, leaves(answer), strict=True)}
    if args.output:
        np.savez(Path(args.output), **outputs)  # type: ignore[arg-type]  # names become keywords
    made = [_summary(n, a, args.top_k) for n, a in outputs.items()]
    cells = [
        [m["name"], m["dtype"], "x".join(map(str, m["shape"])) or "scalar"]
        + [f"{m[k]:.6g}" if k in m else "-" for k in ("min", "mean", "max")]
        for m in made
    ]
    text = table(["output", "dtype", "shape", "min", "mean", "max"], cells, left=3)
    for m in made:
        for number, row in enumerate(m.get("top", [])):
            best = ", ".join(f"{e['index']} ({e['value']:.4g})" for e in row)
            text += f"\n  {m['name']} row {number}: {best}"
    text += f"\n  ready in {seconds(ready - start)} s, answered in {milliseconds(done - ready)} ms"
    if args.output:
        text += f"; outputs in {args.output}"
    emit(args, {"outputs": made, "ready_s": ready - start, "answer_s": done - ready}, text)
    return 0
