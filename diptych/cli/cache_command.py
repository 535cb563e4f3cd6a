"""`diptych cache`: what the cache of compiled code, packed models and measurements holds, and emptying it."""

from __future__ import annotations

import argparse
import time

from diptych.cli.common import add_json, emit
from diptych.compare.table import table
from diptych.runtime.cache import default_cache, parse_size

__all__ = ["add", "run"]

_SHOWN = 20


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("action", nargs="?", choices=("list", "clear", "trim"), default="list", help="default: list")
    parser.add_argument(
        "--to", metavar="SIZE", default=None, help="with trim: how much may stay, as in 500M (default: the limit)"
    )
    parser.add_argument("--all", action="store_true", help=f"list every entry, not only the {_SHOWN} used last")
    add_json(parser)
    parser.epilog = "DIPTYCH_CACHE sets the folder (off: no cache), DIPTYCH_CACHE_LIMIT its size, as in 500M or 10G."


def run(args: argparse.Namespace) -> int:
    """List or remove entries."""
    cache = default_cache()
    if cache.folder is None:
        emit(args, {"folder": None}, "there is no cache (DIPTYCH_CACHE=off, or its folder cannot be made)")
        return 0
    removed = 0
    if args.action == "clear":
        removed = cache.clear()
    elif args.action == "trim":
        removed = cache.trim(None if args.to is None else parse_size(args.to))
    entries = cache.entries()
    used = sum(e.nbytes for e in entries)
    made = {
        "folder": cache.folder, "limit_bytes": cache.limit_bytes, "bytes": used, "removed": removed,
        "entries": [e._asdict() for e in entries],
    }  # fmt: skip
    lines = [f"{cache.folder}: {len(entries)} entries, {used / 1e6:.1f} of {cache.limit_bytes / 1e6:.0f} MB"]
    if args.action != "list":
        lines.append(f"{removed} entries removed")
    elif entries:
        now = time.time()
        shown = entries if args.all else entries[:_SHOWN]
        rows = [[e.name, e.kind, f"{e.nbytes / 1e6:.2f}", f"{max(0.0, now - e.used) / 3600:.1f}"] for e in shown]
        lines += ["", table(["entry", "kind", "MB", "used, hours ago"], rows, left=2)]
        if len(shown) < len(entries):
            lines.append(f"... and {len(entries) - len(shown)} used earlier (--all shows them)")
    emit(args, made, "\n".join(lines))
    return 0
