"""The graph a symbol file holds, as frozen data, with the lists MXNet derives from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from diptych.errors import FormatError
from diptych.frontends.mxnet.symbol_schema import mutated_inputs, output_count, output_name

__all__ = ["SymbolGraph", "SymbolNode"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SymbolNode:
    """One node: a variable (`op` is None) or an operator applied to outputs of earlier nodes.

    `attrs` holds the operator's own attributes, `hidden` the ``__key__`` ones (with their underscores), both as text.
    """

    op: str | None
    name: str
    inputs: tuple[tuple[int, int], ...] = ()
    attrs: dict[str, str] = field(default_factory=dict)
    hidden: dict[str, str] = field(default_factory=dict)
    subgraphs: tuple[SymbolGraph, ...] = ()
    control_deps: tuple[int, ...] = ()

    @property
    def is_variable(self) -> bool:
        """Whether the node is an input of the graph: data, a parameter or an auxiliary state."""
        return self.op is None

    @property
    def is_fused(self) -> bool:
        """Whether the node stands for the subgraph it carries, with the same inputs in the same order."""
        return self.op is not None and bool(self.subgraphs) and self.op.startswith(("_sg_", "_CachedOp"))

    def output_name(self, index: int) -> str:
        """The name of one output: ``NAME_output`` for most operators, a variable's own name for a variable."""
        return self.name if self.op is None else self._ask(output_name, self.op, self.name, self.attrs, index)

    def output_count(self) -> int:
        """How many outputs the node has, those included that MXNet keeps to itself."""
        return 1 if self.op is None else self._ask(output_count, self.op, self.attrs)

    def _ask(self, rule: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        try:
            return rule(*args, **options)
        except FormatError as error:
            raise FormatError(f"{self.op} (layer {self.name or '?'}): {error}") from None

    def written_inputs(self) -> tuple[int, ...]:
        """The positions of the inputs that are auxiliary states, which the operator writes to when it trains."""
        if self.is_fused:
            inner = self.subgraphs[0]
            states = inner._mutated()
            return tuple(p for p, index in enumerate(inner.arg_nodes[: len(self.inputs)]) if index in states)
        return tuple(p for p in mutated_inputs(self.op or "") if p < len(self.inputs))


@dataclass(frozen=True, slots=True)
class SymbolGraph:
    """A graph in the form of MXNet 1.9.1: every node comes after its inputs and leads to a head.

    `version` is that of the file's writer (903 is 0.9.3, 10901 is 1.9.1); the graph itself is always upgraded.
    """

    nodes: tuple[SymbolNode, ...]
    arg_nodes: tuple[int, ...]
    heads: tuple[tuple[int, int], ...]
    version: int = 10901
    is_np_shape: bool = False

    def _mutated(self) -> set[int]:
        found = {node.inputs[p][0] for node in self.nodes for p in node.written_inputs()}
        return {index for index in found if self.nodes[index].is_variable}

    def list_inputs(self) -> tuple[str, ...]:
        """The names of all variables, in the order in which a walk from the heads meets them."""
        return tuple(self.nodes[i].name for i in self.arg_nodes)

    def list_arguments(self) -> tuple[str, ...]:
        """The names of the variables that are not auxiliary states, in MXNet's order."""
        states = self._mutated()
        return tuple(self.nodes[i].name for i in self.arg_nodes if i not in states)

    def list_auxiliary_states(self) -> tuple[str, ...]:
        """The names of the variables an operator writes to, such as the running mean of BatchNorm."""
        states = self._mutated()
        return tuple(self.nodes[i].name for i in self.arg_nodes if i in states)

    def list_outputs(self) -> tuple[str, ...]:
        """The names of the heads: ``NAME_output`` for most, a variable's own name for a variable."""
        return tuple(self.nodes[index].output_name(position) for index, position in self.heads)
