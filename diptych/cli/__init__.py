"""The command line: `diptych compare | run | generate | inspect | check | engines | cache`. Thin: arguments in, tables out."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

# Each command is a module with HELP, add(parser) and run(args); only the one in use is imported.
COMMANDS = ("compare", "run", "generate", "inspect", "check", "engines", "cache")
SUMMARY = {
    "compare": "measure a model on every engine that is here, side by side",
    "run": "run a model on inputs",
    "generate": "text or tokens from a language model of transformers",
    "inspect": "show a model's inputs, outputs, operators, parameters and work",
    "check": "say whether a model will run, and if not, what is missing and what to do",
    "cache": "list or remove what is kept of compiled models",
    "engines": "list the engines that compare knows, or install one",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 the answer is no, 2 an error."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="diptych", description="Run PyTorch and MXNet models on CPUs, and compare engines."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    named = next((a for a in arguments if a in COMMANDS), None)
    for name in COMMANDS:
        sub = commands.add_parser(
            name, help=SUMMARY[name], description=SUMMARY[name][0].upper() + SUMMARY[name][1:] + "."
        )
        if name == named:
            sub.formatter_class = argparse.RawDescriptionHelpFormatter
            importlib.import_module(f"diptych.cli.{name}_command").add(sub)
    args = parser.parse_args(arguments)
    command = importlib.import_module(f"diptych.cli.{args.command}_command")

    from diptych.errors import DiptychError

    try:
        status: int = command.run(args)
    except DiptychError as e:
        if os.environ.get("DIPTYCH_DEBUG"):
            raise
        print(f"diptych {args.command}: {e}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left, as `| head` does
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return status
