"""What every frontend gives: a Source, a loaded model whose Graph is made once its input types are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from diptych.errors import UnsupportedError
from diptych.ir import Graph, TensorType

__all__ = ["Missing", "Source", "unsupported"]


class Source(Protocol):
    """A foreign model, read but not yet fixed to input shapes."""

    @property
    def name(self) -> str: ...

    @property
    def input_names(self) -> tuple[str, ...]: ...

    def default_types(self) -> dict[str, TensorType] | None:
        """Input types when the model itself (or its example inputs) states them."""
        ...

    def graph(self, types: Mapping[str, TensorType]) -> Graph:
        """The Graph for exactly these input types (by input name)."""
        ...


@dataclass(frozen=True, slots=True)
class Missing:
    """One operator the frontend cannot convert, with where it stands and what the user can do."""

    operator: str
    layer: str
    source: str = ""
    advice: str = ""

    def __str__(self) -> str:
        place = f" at {self.source}" if self.source else ""
        return f"{self.operator} (layer {self.layer or '?'}{place})" + (f": {self.advice}" if self.advice else "")


def unsupported(model: str, missing: list[Missing]) -> UnsupportedError:
    """One error that lists everything that is missing, each operator once with its first place and its count."""
    first: dict[str, Missing] = {}
    count: dict[str, int] = {}
    for m in missing:
        first.setdefault(m.operator, m)
        count[m.operator] = count.get(m.operator, 0) + 1
    lines = [f"  - {m}" + (f" [{count[op]} uses]" if count[op] > 1 else "") for op, m in first.items()]
    return UnsupportedError(f"{model}: {len(first)} operators are not supported:\n" + "\n".join(lines))
