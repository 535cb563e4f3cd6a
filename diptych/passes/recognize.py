"""Operators that models write out in smaller ones, found again: RMS normalisation and rotary embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.ops.base import OPS, attributes, normalize_axis
from diptych.passes.rebuild import rebuild

if TYPE_CHECKING:
    from diptych.ir import Graph, Node, Value
    from diptych.ops.build import Builder

__all__ = ["recognize"]


def recognize(graph: Graph) -> Graph:
    """gamma * (x * rsqrt(mean(x * x) + eps)) as rms_norm; x * cos + rotate_half(x) * sin without moving halves."""
    found = _Finder(graph)

    def visit(g: Builder, node: Node, xs: tuple[Value, ...]) -> Value | None:
        for old, new in zip(node.inputs, xs, strict=True):
            found.made[old] = new
        if node.op.name == "mul":
            return found.rms_norm(g, node)
        if node.op.name == "add":
            return found.rotary(g, node)
        return None

    return rebuild(graph, visit)


class _Finder:
    """Looks at what made a value in the old graph; `made` leads to its like in the new one."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.producer = graph, graph.producer()
        self.made: dict[int, Value] = {}

    def node(self, value: int, name: str) -> Node | None:
        found = self.producer.get(value)
        return found if found is not None and found.op.name == name else None

    def pairs(self, node: Node) -> list[tuple[int, int]]:
        """The operands of a commutative node, in both orders."""
        a, b = node.inputs
        return [(a, b), (b, a)]

    def scalar(self, value: int) -> float | None:
        array = self.graph.constants.get(value)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def rms_norm(self, g: Builder, node: Node) -> Value | None:
        for gamma, inner in self.pairs(node):
            scale = self.graph.types[gamma]
            product = self.node(inner, "mul")
            if product is None or scale.rank != 1 or gamma not in self.graph.constants:
                continue
            for x, inverse in self.pairs(product):
                eps = self.inverse_root(inverse, x)
                t = self.graph.types[x]
                if eps is not None and t.dtype == scale.dtype == "f32" and t.shape[-1:] == scale.shape and x in self.made:
                    return g.emit(OPS["rms_norm"](eps=eps), self.made[x], self.made[gamma])
        return None

    def inverse_root(self, value: int, x: int) -> float | None:
        """eps, if the value is 1 / sqrt(mean over the last axis of x * x, plus eps)."""
        root = self.node(value, "rsqrt")
        total = self.node(root.inputs[0], "add") if root else None
        for mean, eps in self.pairs(total) if total else []:
            number, folded = self.scalar(eps), self.node(mean, "mean")
            if number is None or folded is None:
                continue
            a, rank = attributes(folded.op), self.graph.types[x].rank
            square = self.producer.get(folded.inputs[0])
            if square is None or not a["keepdims"] or [normalize_axis(i, rank) for i in a["axes"]] != [rank - 1]:
                continue
            if (square.op.name == "mul" and square.inputs == (x, x)) or (square.op.name == "square" and square.inputs == (x,)):
                return number
        return None

    def rotary(self, g: Builder, node: Node) -> Value | None:
        """x * c + concat(-x2, x1) * s on halves x1, x2 of the last axis: both halves as an axis that is read backwards.

        The sign goes to s, which is worked out once for all layers. No bit of the result changes.
        """
        shape = self.graph.types[node.outputs[0]].shape
        for straight, turned in self.pairs(node):
            one, two = self.node(straight, "mul"), self.node(turned, "mul")
            for x, cos in self.pairs(one) if one else []:
                for halves, sin in self.pairs(two) if two else []:
                    if self.graph.types[x].shape == shape and self.swaps(halves, x) and {x, cos, sin} <= {*self.made}:
                        return self.turned(g, self.made[x], self.made[cos], self.made[sin])
        return None

    def swaps(self, value: int, x: int) -> bool:
        """Whether a value is concat(-x[.., half:], x[.., :half])."""
        joined = self.node(value, "concat")
        t = self.graph.types[x]
        if joined is None or len(joined.inputs) != 2 or t.dtype != "f32" or t.shape[-1] % 2:
            return False
        if normalize_axis(attributes(joined.op)["axis"], t.rank) != t.rank - 1:
            return False
        negative = self.node(joined.inputs[0], "neg")
        parts = [self.node(v, "slice") for v in (negative.inputs[0], joined.inputs[1])] if negative else []
        half, zeros = t.shape[-1] // 2, (0,) * (t.rank - 1)
        wanted = [((*zeros, half), t.shape), ((*zeros, 0), (*t.shape[:-1], half))]
        return len(parts) == 2 and all(
            p is not None and p.inputs == (x,) and (attributes(p.op)["starts"], attributes(p.op)["stops"]) == w
            and set(attributes(p.op)["steps"]) == {1}
            for p, w in zip(parts, wanted, strict=True)
        )  # fmt: skip

    @staticmethod
    def turned(g: Builder, x: Value, cos: Value, sin: Value) -> Value | None:
        if any(v.rank and v.shape[-1] not in (1, x.shape[-1]) for v in (cos, sin)) or sin.rank == 0 or sin.shape[-1] == 1:
            return None
        half = x.shape[-1] // 2

        def split(v: Value) -> Value:
            if v.rank == 0:
                return v
            return g.reshape(v, (*v.shape[:-1], 2, half) if v.shape[-1] != 1 else (*v.shape, 1))

        apart = split(x)
        last = apart.rank - 2
        starts, stops = [0] * apart.rank, list(apart.shape)
        starts[last], stops[last] = 1, -1
        backwards = g.slice(apart, starts, stops, [-1 if i == last else 1 for i in range(apart.rank)])
        sign = g.constant(np.array([[-1.0], [1.0]], np.float32))
        out = g.add(g.mul(apart, split(cos)), g.mul(backwards, g.mul(split(sin), sign)))
        return g.reshape(out, x.shape)
