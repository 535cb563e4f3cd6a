"""Tuning: which of the candidate schedules of a shape were measured, and which was the fastest. Data only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Tried", "Tuning"]


@dataclass(frozen=True, slots=True)
class Tried:
    """What was measured for one key: the option taken, and microseconds by option."""

    taken: str
    microseconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Tuning:
    """Measured choices by key: what is computed, with its shape. Equal texts mean equal choices.

    >>> Tuning({"conv": Tried("direct", {"direct": 3.0, "F(4,3)": 4.0})}).option("conv")
    'direct'
    """

    entries: Mapping[str, Tried] = field(default_factory=dict)

    def option(self, key: str) -> str | None:
        """The option to take for a key; None when it was not measured."""
        found = self.entries.get(key)
        return None if found is None else found.taken

    def taking(self, choices: Mapping[str, str]) -> Tuning:
        """This with other options for some keys, for a trial: nothing is known of their times."""
        return Tuning({**self.entries, **{key: Tried(option, {}) for key, option in choices.items()}})

    def to_text(self) -> str:
        """JSON, the same for equal contents."""
        entries = {k: {"taken": t.taken, "microseconds": dict(t.microseconds)} for k, t in sorted(self.entries.items())}
        return json.dumps(entries, separators=(",", ":"))

    @staticmethod
    def from_text(text: str) -> Tuning:
        """What `to_text` wrote; raises ValueError, KeyError or TypeError for anything else."""
        return Tuning({str(k): Tried(str(v["taken"]), {str(o): float(t) for o, t in v["microseconds"].items()})
                       for k, v in json.loads(text).items()})  # fmt: skip
