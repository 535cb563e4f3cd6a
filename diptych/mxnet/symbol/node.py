"""Nodes under construction, and the frozen graph of symbol files that they become."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.frontends.mxnet.attributes import parse_shape
from diptych.frontends.mxnet.symbol_graph import SymbolGraph, SymbolNode
from diptych.frontends.mxnet.symbol_schema import mutated_inputs, output_count, output_name
from diptych.mxnet.tape import state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["HIDDEN", "Entry", "SymNode", "freeze", "shapeless_draw", "thaw", "topological"]

# User attributes that libmxnet keeps as `__key__` and shows under both names.
HIDDEN = ("ctx_group", "lr_mult", "wd_mult", "force_mirroring", "mirror_stage")


class SymNode:
    """A variable (`op` is None) or an operator. `attrs` are the operator's own, `user` all others (`__key__`)."""

    __slots__ = ("attrs", "inputs", "name", "op", "subgraphs", "user")

    def __init__(self, op: str | None, name: str, inputs: Sequence[Entry] = (), attrs: dict[str, str] | None = None,
                 user: dict[str, str] | None = None, subgraphs: Sequence[SymbolGraph] = ()) -> None:  # fmt: skip
        self.op, self.name = op, name
        self.inputs: list[Entry] = list(inputs)
        self.attrs = dict(attrs or {})
        self.user = dict(user or {})
        self.subgraphs = tuple(subgraphs)

    def set_user(self, key: str, value: str) -> None:
        """Set a user attribute; the well-known ones are kept as `__key__`."""
        self.user[f"__{key}__" if key in HIDDEN else key] = value

    def get(self, key: str) -> str | None:
        """An attribute by either of its names."""
        for where in (self.user, self.attrs):
            if key in where:
                return where[key]
        return self.user.get(f"__{key}__") if key in HIDDEN else None

    def shown(self) -> dict[str, str]:
        """All attributes as `list_attr` shows them."""
        out = {**self.attrs, **self.user}
        for key in HIDDEN:
            if f"__{key}__" in out:
                out[key] = out[f"__{key}__"]
        return out

    def outputs(self) -> int:
        """How many results can be seen."""
        if self.op is None:
            return 1
        if self.op == "_np_call":
            return int(self.attrs["outputs"])
        if self.op == "Custom":
            from diptych.mxnet.operator import property_of

            return len(property_of(self.attrs).list_outputs())
        if self.op == "_CachedOp":
            return len(self.subgraphs[0].heads)
        return output_count(self.op, self.attrs, visible=True)

    def output_name(self, index: int) -> str:
        """The name of a result."""
        if self.op is None:
            return self.name
        if self.op == "Custom":
            from diptych.mxnet.operator import property_of

            return f"{self.name}_{property_of(self.attrs).list_outputs()[index]}"
        return output_name(self.op, self.name, self.attrs, index)

    def written(self) -> tuple[int, ...]:
        """The positions of the inputs that are auxiliary states."""
        if self.op == "Custom":
            from diptych.mxnet.operator import property_of

            prop = property_of(self.attrs)
            first = len(prop.list_arguments())
            return tuple(range(first, first + len(prop.list_auxiliary_states())))
        return tuple(p for p in mutated_inputs(self.op or "") if p < len(self.inputs))


Entry = tuple[SymNode, int]


def topological(heads: Sequence[Entry]) -> list[SymNode]:
    """The nodes below the heads, inputs first, in the order of libmxnet's walk."""
    order: list[SymNode] = []
    seen: set[int] = set()
    for head, _ in heads:
        if id(head) in seen:
            continue
        seen.add(id(head))
        stack = [(head, iter(head.inputs))]
        while stack:
            node, rest = stack[-1]
            for child, _ in rest:
                if id(child) not in seen:
                    seen.add(id(child))
                    stack.append((child, iter(child.inputs)))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


def freeze(heads: Sequence[Entry]) -> SymbolGraph:
    """The graph below the heads, as symbol files hold it."""
    order = topological(heads)
    place = {id(n): i for i, n in enumerate(order)}
    nodes = tuple(
        SymbolNode(n.op, n.name, tuple((place[id(m)], k) for m, k in n.inputs), n.attrs, n.user, n.subgraphs)
        for n in order
    )
    return SymbolGraph(nodes, tuple(i for i, n in enumerate(nodes) if n.op is None),
                       tuple((place[id(n)], k) for n, k in heads), is_np_shape=state.np_shape)  # fmt: skip


def thaw(graph: SymbolGraph) -> list[Entry]:
    """Nodes of our own from a graph that was read."""
    made: list[SymNode] = []
    for n in graph.nodes:
        user = dict(n.hidden) if n.op is not None else {**n.attrs, **n.hidden}
        if state.np_shape and not graph.is_np_shape and "__shape__" in user:  # 0 was the mark of an unknown extent
            user["__shape__"] = str(tuple(-1 if d == 0 else d for d in parse_shape(user["__shape__"])))
        made.append(SymNode(n.op, n.name, [(made[i], k) for i, k in n.inputs], n.attrs if n.op is not None else {}, user,
                            n.subgraphs))  # fmt: skip
    return [(made[i], k) for i, k in graph.heads]


def shapeless_draw(op: str, attrs: Mapping[str, str]) -> bool:
    """Whether an operator draws numbers and was told no shape: what uses them tells it (`sym.random.randn()`)."""
    return op.startswith("_random_") and attrs.get("shape") == "()"
