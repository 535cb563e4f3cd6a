"""`diptych engines`: which engines are here; `diptych engines install NAME`: get one."""

from __future__ import annotations

import argparse

from diptych.cli.common import add_json, emit, say
from diptych.compare.engines import ENGINES
from diptych.compare.install import INSTALLABLE, install
from diptych.compare.table import table
from diptych.errors import InputError

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("action", nargs="?", choices=["list", "install"], default="list")
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"what to install: {', '.join(INSTALLABLE)}")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """List or install."""
    if args.action == "install":
        if not args.name:
            raise InputError(f"install which engine? One of {', '.join(INSTALLABLE)}")
        folder = install(args.name, say)
        emit(args, {"installed": args.name, "folder": str(folder or "")}, f"{args.name}: installed")
        return 0
    made, rows = [], []
    for e in ENGINES.values():
        state = e.state()
        word = "here" if state.present else "absent"
        made.append(
            {
                "name": e.name, "title": e.title, "state": word, "version": state.version, "python": state.python,
                "problem": state.problem, "remedy": state.remedy, "takes": e.form,
            }
        )  # fmt: skip
        where = state.python if state.present else f"{state.problem} -> {state.remedy}"
        rows.append([e.name, word, state.version or "-", where])
    emit(args, {"engines": made}, table(["engine", "state", "version", "where"], rows, left=4))
    return 0
