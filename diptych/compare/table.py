"""Plain-text tables: aligned columns, no colour, no box drawing."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["duration", "megabytes", "milliseconds", "seconds", "share", "table"]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, indent: str = "  ") -> str:
    """Rows under heads; the first `left` columns are flush left, the others flush right.

    >>> print(table(["engine", "ms"], [["a", "1.5"], ["long", "12"]]))
      engine   ms
      ------  ---
      a       1.5
      long     12
    """
    width = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(width[i]) if i < left else c.rjust(width[i]) for i, c in enumerate(cells)]
        return (indent + "  ".join(padded)).rstrip()

    return "\n".join([line(heads), line(["-" * w for w in width]), *(line(row) for row in rows)])


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def milliseconds(value: float | None) -> str:
    """Seconds shown as milliseconds with three digits."""
    return "-" if value is None else _digits(value * 1e3)


def seconds(value: float | None) -> str:
    """Seconds with two decimals, or three when there are few."""
    return "-" if value is None else f"{value:.2f}" if value >= 0.095 else f"{value:.3f}"


def duration(value: float) -> str:
    """Seconds in the unit that suits.

    >>> duration(7200)
    '2.0 h'
    """
    if value < 120:
        return f"{seconds(value)} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def megabytes(value: int | None) -> str:
    """Bytes shown as whole megabytes."""
    return "-" if not value else f"{value / 1e6:.0f}"


def share(value: float | None) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{value:.1%}"
