"""GraphBuilder: the only way to make nodes. It runs the type rule of each operator as the node is added."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import DiptychError, GraphError, TypeRuleError
from diptych.ir.graph import Array, Graph, Node, Op
from diptych.ir.types import TensorType, dtype_of, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["GraphBuilder", "Value"]


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A handle on a value under construction. Belongs to one builder."""

    id: int
    type: TensorType
    builder: GraphBuilder

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> str:
        return self.type.dtype

    @property
    def rank(self) -> int:
        return len(self.type.shape)

    def __repr__(self) -> str:
        return f"%{self.id}: {self.type}"


class GraphBuilder:
    """Collects inputs, constants and nodes; `finish` freezes them into a Graph.

    >>> from diptych.ops import Relu
    >>> g = GraphBuilder("tiny")
    >>> x = g.input("x", TensorType((2, 3)))
    >>> graph = g.finish({"y": g.emit(Relu(), x)})
    """

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        self._types: list[TensorType] = []
        self._nodes: list[Node] = []
        self._inputs: list[int] = []
        self._input_names: list[str] = []
        self._constants: dict[int, Array] = {}
        self._constant_names: dict[int, str] = {}
        self.layer = ""  # name and source given to nodes that state none of their own
        self.source = ""

    def _new(self, type: TensorType) -> Value:
        self._types.append(type)
        return Value(len(self._types) - 1, type, self)

    def input(self, name: str, type: TensorType) -> Value:
        """A graph input."""
        if name in self._input_names:
            raise GraphError(f"two graph inputs are named {name!r}")
        value = self._new(type)
        self._inputs.append(value.id)
        self._input_names.append(name)
        return value

    def constant(self, array: Array | float | int | bool, dtype: str | None = None, name: str = "") -> Value:
        """A constant; `dtype` says how to store it (needed for bf16, whose array is uint16 bit patterns)."""
        if dtype is None:
            array = np.asarray(array)
            dtype = dtype_of(array)
        else:
            array = np.asarray(array, numpy_dtype(dtype))
        value = self._new(TensorType(tuple(int(d) for d in array.shape), dtype))
        self._constants[value.id] = array
        if name:
            self._constant_names[value.id] = name
        return value

    def constant_array(self, value: Value) -> Array | None:
        """The array of a value if it is a constant."""
        return self._constants.get(value.id)

    def emit_all(self, op: Op, *inputs: Value, name: str = "", source: str = "") -> tuple[Value, ...]:
        """Add a node; returns all its results."""
        for v in inputs:
            if v.builder is not self:
                raise GraphError(f"{op.name}: operand {v!r} belongs to another builder")
        try:
            result = op.infer(*(v.type for v in inputs))
        except DiptychError as e:
            where = name or self.layer
            raise type(e)(
                f"{op.name}({', '.join(str(v.type) for v in inputs)}): {e}" + (f" [layer {where}]" if where else "")
            ) from None
        except TypeError as e:
            raise TypeRuleError(f"{op.name}: {len(inputs)} operands do not fit: {e}") from None
        return self._add(op, inputs, result if isinstance(result, tuple) else (result,), name, source)

    def copy(self, op: Op, inputs: Sequence[Value], types: Sequence[TensorType]) -> tuple[Value, ...]:
        """Add a node of a graph whose result types are known: no type rule is asked again. The operands' types are as there."""
        return self._add(op, inputs, types)

    def _add(self, op: Op, inputs: Sequence[Value], types: Sequence[TensorType], name: str = "", source: str = "",
             ) -> tuple[Value, ...]:  # fmt: skip
        outs = tuple([self._new(t) for t in types])
        op = _counted_from_the_front(op, inputs[0].rank if inputs else 0)
        ids = tuple([v.id for v in inputs]), tuple([v.id for v in outs])
        self._nodes.append(Node(op, *ids, name or self.layer, source or self.source))
        return outs

    def emit(self, op: Op, *inputs: Value, name: str = "", source: str = "") -> Value:
        """Add a node with a single result and return it."""
        outs = self.emit_all(op, *inputs, name=name, source=source)
        if len(outs) != 1:
            raise GraphError(f"{op.name} has {len(outs)} results; use emit_all")
        return outs[0]

    def finish(self, outputs: dict[str, Value] | Sequence[Value]) -> Graph:
        """Freeze into a Graph with these outputs (a dict gives their names). Unused nodes are dropped."""
        if not isinstance(outputs, dict):
            outputs = {f"output{i}": v for i, v in enumerate(outputs)}
        live = {v.id for v in outputs.values()}
        nodes: list[Node] = []
        for node in reversed(self._nodes):
            if any(o in live for o in node.outputs):
                live.update(node.inputs)
                nodes.append(node)
        return Graph(
            types=tuple(self._types),
            inputs=tuple(self._inputs),
            outputs=tuple(v.id for v in outputs.values()),
            nodes=tuple(reversed(nodes)),
            constants={k: v for k, v in self._constants.items() if k in live},
            input_names=tuple(self._input_names),
            output_names=tuple(outputs),
            constant_names={k: v for k, v in self._constant_names.items() if k in live},
            name=self.name,
        )


def _counted_from_the_front(op: Op, rank: int) -> Op:
    """The operator with negative axes of its first operand made non-negative: passes and kernels see no others."""
    axis, axes = getattr(op, "axis", None), getattr(op, "axes", None)
    if isinstance(axis, int) and axis < 0:
        op = replace(op, axis=axis + rank)  # type: ignore[type-var]
    if isinstance(axes, tuple) and any(a < 0 for a in axes):
        op = replace(op, axes=tuple(sorted(a % rank for a in axes)))  # type: ignore[type-var]
    return op
