"""Evaluate what depends on constants only, drop what does nothing, and merge what is written twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.ir.types import numpy_dtype
from diptych.ops.base import attributes
from diptych.passes.rebuild import rebuild

if TYPE_CHECKING:
    from diptych.ir import Graph, Node, Value
    from diptych.ops.build import Builder

__all__ = ["cse", "fold_constants", "simplify"]

_GROWTH = 1 << 16  # a folded result may be this many bytes larger than its operands (broadcasts stay nodes)


def fold_constants(graph: Graph) -> Graph:
    """Replace nodes whose operands are all constants by their value, unless that would blow the graph up."""

    def visit(g: Builder, node: Node, xs: tuple[Value, ...]) -> list[Value] | None:
        arrays = [g.constant_array(x) for x in xs]
        if not xs or any(a is None for a in arrays):
            return None
        types = [graph.types[v] for v in node.outputs]
        if sum(t.nbytes for t in types) > sum(x.type.nbytes for x in xs) + _GROWTH:
            return None
        with np.errstate(all="ignore"):
            result = node.op.reference(*arrays)
        results = result if isinstance(result, tuple) else (result,)
        return [
            g.constant(np.ascontiguousarray(np.asarray(r), dtype=numpy_dtype(t.dtype)).reshape(t.shape), t.dtype)
            for r, t in zip(results, types, strict=True)
        ]

    return rebuild(graph, visit)


def simplify(graph: Graph) -> Graph:
    """Local algebra that changes no bit of the result: identities, reshapes of reshapes, transposes of transposes."""
    made: dict[int, tuple[Any, Value]] = {}  # new value -> (operator, operand) of the view that made it

    def visit(g: Builder, node: Node, xs: tuple[Value, ...]) -> Value | None:
        name, t = node.op.name, graph.types[node.outputs[0]] if node.outputs else None
        if not xs or t is None:
            return None
        x = xs[0]
        if name in ("reshape", "broadcast_to") and x.shape == t.shape:
            return x
        if name == "cast" and x.dtype == t.dtype:
            return x
        attrs = attributes(node.op)
        if name == "transpose" and attrs["perm"] == tuple(range(x.rank)):
            return x
        if name in ("reshape", "transpose") and x.id in made and made[x.id][0].name == name:
            inner, source = made[x.id]
            if name == "reshape":
                out = g.reshape(source, t.shape)
            else:
                first = attributes(inner)["perm"]
                out = g.transpose(source, tuple(first[p] for p in attrs["perm"]))
            if out is not source:
                made[out.id] = (type(node.op)(**({"shape": t.shape} if name == "reshape" else {
                    "perm": tuple(first[p] for p in attrs["perm"])})), source)  # fmt: skip
            return out
        if name in ("add", "mul", "sub", "div") and len(xs) == 2:
            for a, b in ((xs[0], xs[1]), (xs[1], xs[0])):
                c = g.constant_array(b)
                if c is None or c.size != 1 or a.shape != t.shape or t.dtype not in ("f32", "f64"):
                    continue
                neutral = 0.0 if name in ("add", "sub") else 1.0
                # x + 0.0 would turn -0.0 into 0.0: only -0.0 is neutral for add, +0.0 for sub.
                zero_ok = name in ("mul", "div") or (np.signbit(c.reshape(())) == (name == "add"))
                if float(c.reshape(())) == neutral and zero_ok and (name in ("add", "mul") or b is xs[1]):
                    return a
        if name in ("reshape", "transpose"):
            (out,) = g.copy(node.op, xs, [t])
            made[out.id] = (node.op, x)
            return out
        return None

    return rebuild(graph, visit)


def cse(graph: Graph) -> Graph:
    """Merge nodes with equal operator, attributes and operands, and equal small constants."""
    seen: dict[Any, tuple[Value, ...]] = {}
    alias: dict[int, int] = {}  # new constant id -> id of an equal one

    def key_of(g: Builder, x: Value) -> int:
        if x.id not in alias:
            array = g.constant_array(x)
            alias[x.id] = x.id
            if array is not None and array.nbytes <= 1 << 16:
                first = seen.setdefault(("const", x.type, array.tobytes()), (x,))
                alias[x.id] = first[0].id
        return alias[x.id]

    def visit(g: Builder, node: Node, xs: tuple[Value, ...]) -> tuple[Value, ...]:
        key = (node.op, tuple(key_of(g, x) for x in xs))
        if key not in seen:
            seen[key] = g.copy(node.op, xs, [graph.types[v] for v in node.outputs])
        return seen[key]

    return rebuild(graph, visit)
