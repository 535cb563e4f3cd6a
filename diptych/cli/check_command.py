"""`diptych check`: will the model run?"""

from __future__ import annotations

import argparse
from typing import Any

from diptych.cli.common import add_json, add_model, emit, named, open_source, specs_of, types_for
from diptych.errors import FormatError, InputError, TypeRuleError, UnsupportedError
from diptych.ir import verify

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add_model(parser)
    parser.add_argument("--compile", action="store_true", help="compile it too, not only read it")
    add_json(parser)
    parser.epilog = f"{parser.epilog}\n\nexit status: 0 it runs, 1 it does not, 2 the question is wrong"


def run(args: argparse.Namespace) -> int:
    """Read (and compile) the model; status 1 when something is missing."""
    model = named(args)
    assert model is not None  # add_model requires one
    made: dict[str, Any] = {"model": model.title, "runs": False, "problems": []}
    try:
        specs = specs_of(args)
        source = open_source(model, specs)
        graph = source.graph(types_for(source, {s.name: s.type for s in specs}, symbolic=bool(model.symbol)))
        verify(graph)
        if args.compile:
            import diptych

            diptych.compile(graph)
    except (UnsupportedError, TypeRuleError, FormatError) as e:
        if isinstance(e, InputError):
            raise
        lines = [line.strip().removeprefix("- ") for line in str(e).splitlines()]
        made["problems"] = lines[1:] or lines
        emit(args, made, f"{model.title}: will not run\n  " + "\n  ".join(lines))
        return 1
    made |= {"runs": True, "nodes": len(graph.nodes), "compiled": bool(args.compile)}
    what = "reads and compiles" if args.compile else "reads; every operator is supported"
    emit(args, made, f"{model.title}: will run ({len(graph.nodes)} operators; it {what})")
    return 0
