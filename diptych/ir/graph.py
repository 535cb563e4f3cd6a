"""Graph: an immutable, single-assignment tensor program. Data only; `build` makes it, `verify` checks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from diptych.ir.types import TensorType

__all__ = ["Array", "Graph", "Node", "Op"]

Array = np.ndarray[Any, Any]


class Op:
    """What a Node does. Subclasses are frozen dataclasses whose fields are the attributes (see `diptych.ops`).

    Operands are declared `*: Any, **: Any` so that a subclass may name its own: `infer(self, x, w, bias=None)`.
    """

    name: ClassVar[str]
    __slots__ = ()

    if TYPE_CHECKING:  # an operator looked up by name takes whatever attributes its class has

        def __init__(self, *args: Any, **attributes: Any) -> None: ...

    def _fields(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in getattr(self, "__dataclass_fields__", ())])

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._fields()))

    def __repr__(self) -> str:
        names = getattr(self, "__dataclass_fields__", ())
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in names)})"

    def infer(self, *types: Any, **_: Any) -> TensorType | tuple[TensorType, ...]:
        """The type rule: result types from operand types; raises TypeRuleError."""
        raise NotImplementedError

    def reference(self, *arrays: Any, **_: Any) -> Array | tuple[Array, ...]:
        """The NumPy definition; works in the dtype of its operands (float32 or float64)."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Node:
    """One application of an operator: value ids in, value ids out, and the user's layer it came from."""

    op: Op
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    name: str = ""  # the layer, as the source framework calls it
    source: str = ""  # "file.py:12" or "" when unknown


@dataclass(frozen=True, slots=True)
class Graph:
    """Values are small integers; `types[v]` is the type of value v. Nodes are in topological order.

    A value is exactly one of: a graph input, a constant, an output of one node.
    """

    types: tuple[TensorType, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[int, Array] = field(default_factory=dict)
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    constant_names: Mapping[int, str] = field(default_factory=dict)
    name: str = "graph"

    def producer(self) -> dict[int, Node]:
        """The node that makes each value."""
        return {v: n for n in self.nodes for v in n.outputs}

    def uses(self) -> dict[int, list[Node]]:
        """The nodes that read each value (graph outputs are not counted)."""
        found: dict[int, list[Node]] = {}
        for node in self.nodes:
            for v in dict.fromkeys(node.inputs):
                found.setdefault(v, []).append(node)
        return found

    def input_types(self) -> dict[str, TensorType]:
        return {n: self.types[v] for n, v in zip(self.input_names, self.inputs, strict=True)}

    def output_types(self) -> dict[str, TensorType]:
        return {n: self.types[v] for n, v in zip(self.output_names, self.outputs, strict=True)}

    def renamed(self, name: str) -> Graph:
        return replace(self, name=name)

    def __str__(self) -> str:
        from diptych.ir.text import print_graph  # printing needs the whole text module, reading does not

        return print_graph(self)
