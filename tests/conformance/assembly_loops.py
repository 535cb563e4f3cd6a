"""Innermost loops of assembly text, and what is in them."""

from __future__ import annotations

import re

_LABEL = re.compile(r"^(\.L\w+):")
_JUMP = re.compile(r"^\s+(?:j\w+|b(?:\.\w+)?|cbn?z|tbn?z)\s.*?(\.L\w+)\s*$")
_STACK = re.compile(r"\(%rsp|\[sp")
_FMA = re.compile(r"^\s+(vfn?madd\w+ps|fmla)\s+(.*)$")


class Loop:
    """The lines of one innermost loop."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    @property
    def fmas(self) -> list[str]:
        """Operands of the fused multiply-adds on vectors."""
        return [m.group(2) for line in self.lines if (m := _FMA.match(line))]

    @property
    def stack(self) -> list[str]:
        """Instructions that touch the stack with a vector: spilled accumulators."""
        return [x.strip() for x in self.lines if _STACK.search(x) and re.search(r"[xyz]mm\d|\bq\d", x)]

    @property
    def reloads(self) -> list[str]:
        """Instructions that fetch an address from the stack."""
        return [x.strip() for x in self.lines if _STACK.search(x) and x.strip() not in self.stack]


def innermost_loops(text: str) -> list[Loop]:
    """Loops without loops inside, in order."""
    lines = text.splitlines()
    where = {m.group(1): i for i, line in enumerate(lines) if (m := _LABEL.match(line))}
    spans = sorted((where[m.group(1)], i) for i, line in enumerate(lines)
                   if (m := _JUMP.match(line)) and where.get(m.group(1), i) < i)  # fmt: skip
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [Loop(lines[a : b + 1]) for a, b in inner]
