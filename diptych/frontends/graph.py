"""A Graph as a Source: its input types are what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diptych.errors import InputError
from diptych.ir import Graph, TensorType

__all__ = ["GraphSource"]


@dataclass(frozen=True, slots=True)
class GraphSource:
    """Serves one Graph for its own input types only."""

    fixed: Graph

    @property
    def name(self) -> str:
        return self.fixed.name

    @property
    def input_names(self) -> tuple[str, ...]:
        return self.fixed.input_names

    def default_types(self) -> dict[str, TensorType]:
        return self.fixed.input_types()

    def graph(self, types: Mapping[str, TensorType]) -> Graph:
        own = self.fixed.input_types()
        wrong = [f"{n}: {types[n]} given, {own[n]} expected" for n in own if n in types and types[n] != own[n]]
        if wrong:
            raise InputError("this Graph was made for other input types: " + "; ".join(wrong))
        return self.fixed
