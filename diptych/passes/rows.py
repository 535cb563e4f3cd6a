"""Rows that are put in another order: one gather where there were copies, and none where the order does not matter.

A windowed transformer cuts its image into windows before each attention, and puts it together again behind it, by slices,
concatenations, reshapes and transposes of whole rows (all channels of a pixel). Residual additions, normalisations over
the channels and products by weights give the same whatever order the rows are in. So values stay in the order that an
attention left them in until the next one wants another: then the rows are gathered once, before the normalisation, and
both the attention and the residual addition behind it read the gathered ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.ops.base import OPS, Elementwise, attributes
from diptych.passes.rebuild import rebuild

if TYPE_CHECKING:
    from diptych.ir import Graph, Node, Value
    from diptych.ops.build import Builder

    Indices = np.ndarray[Any, np.dtype[np.int32]]

__all__ = ["order_rows"]

_ROW = 32  # floats of the shortest row that is followed: a gather of shorter ones is no faster than the copies
_ROWS = 1 << 20  # and of the most rows
_MOVES = frozenset({"reshape", "transpose", "slice", "concat"})
_NORMS = frozenset({"layer_norm", "rms_norm"})


@dataclass(frozen=True, slots=True)
class _Rows:
    """A value that consists of whole rows of `root`: row i of it is row index[i]; `index` has the value's leading axes."""

    root: Value
    index: Indices
    moved: bool = False  # operators were exchanged with the order: there is no cheap view of the root to fall back on

    @property
    def is_plain(self) -> bool:
        return bool(np.array_equal(self.index.reshape(-1), np.arange(_count(self.root))))

    @property
    def is_order(self) -> bool:
        """Whether every row of the root is there once."""
        count = _count(self.root)
        return self.index.size == count and bool((np.bincount(self.index.reshape(-1), minlength=count) == 1).all())

    @property
    def is_view(self) -> bool:
        """Whether strides can say it, so that no copy was needed."""
        if self.index.size == 0:
            return True
        first = self.index[(0,) * self.index.ndim]
        steps = [int(self.index[tuple(int(i == axis) for i in range(self.index.ndim))] - first) if d > 1 else 0
                 for axis, d in enumerate(self.index.shape)]  # fmt: skip
        where = np.full(self.index.shape, first, np.int64)
        for axis, step in enumerate(steps):
            ends = [1] * self.index.ndim
            ends[axis] = -1
            where = where + (np.arange(self.index.shape[axis]) * step).reshape(ends)
        return bool(np.array_equal(where, self.index))


def _count(value: Value) -> int:
    return prod(value.shape[:-1])


def order_rows(graph: Graph) -> Graph:
    """Follow orders of rows through the graph (see the module's docstring)."""
    if not any(n.op.name in ("transpose", "concat") for n in graph.nodes):
        return graph
    return rebuild(graph, _Orders(graph, graph.uses(), graph.producer()).visit)


@dataclass(slots=True)
class _Orders:
    graph: Graph
    uses: dict[int, list[Node]]
    producer: dict[int, Node]
    rows: dict[int, _Rows] = field(default_factory=dict)  # new value -> what it consists of
    norms: dict[int, tuple[Node, tuple[Value, ...]]] = field(default_factory=dict)  # result of a normalisation -> it
    taken: dict[tuple[int, bytes], Value] = field(default_factory=dict)  # gathers that are used: [rows, channels]

    def visit(self, g: Builder, node: Node, xs: tuple[Value, ...]) -> Value | tuple[Value, ...]:
        if node.op.name in _MOVES:
            index = self.move(node, xs)
            if index is not None:
                (out,) = g.emit_all(node.op, *xs)
                self.rows[out.id] = index
                return out
        elif len(node.outputs) == 1:
            pushed = self.push(g, node, xs)
            if pushed is not None:
                return pushed
        results = g.emit_all(node.op, *(self.best(g, x) for x in xs))
        if self.is_norm(node):
            self.norms[results[0].id] = (node, xs)
        return results

    # -- what a value consists of ---------------------------------------------------------------------------------
    def of(self, x: Value) -> _Rows | None:
        found = self.rows.get(x.id)
        if found is None and x.dtype == "f32" and x.rank >= 2 and x.shape[-1] >= _ROW and 0 < _count(x) <= _ROWS:
            found = _Rows(x, np.arange(_count(x), dtype=np.int32).reshape(x.shape[:-1]))
        return found

    def move(self, node: Node, xs: tuple[Value, ...]) -> _Rows | None:
        """The rows of a movement operator's result, None where it does not move whole rows of one value."""
        parts = [self.of(x) for x in xs]
        first = parts[0]
        shape = self.graph.types[node.outputs[0]].shape
        if first is None or any(p is None or p.root.id != first.root.id for p in parts) or shape[-1:] != first.root.shape[-1:]:
            return None
        a, last = attributes(node.op), len(shape) - 1
        if node.op.name == "reshape":
            index = first.index.reshape(shape[:-1])
        elif node.op.name == "transpose":
            if a["perm"][-1] != last:
                return None
            index = first.index.transpose(a["perm"][:-1])
        elif node.op.name == "slice":
            # A step back reaches the first element with stop -1, which NumPy would count from the end.
            cut = [slice(s, None if t < 0 else t, d) for s, t, d in zip(a["starts"], a["stops"], a["steps"], strict=True)]
            if a["steps"][-1] != 1:
                return None
            index = first.index[tuple(cut[:-1])]
        else:
            if a["axis"] % len(shape) == last:
                return None
            index = np.concatenate([p.index for p in parts if p is not None], a["axis"] % len(shape))
        return _Rows(first.root, np.ascontiguousarray(index), any(p.moved for p in parts if p is not None))

    # -- making it ------------------------------------------------------------------------------------------------
    def best(self, g: Builder, x: Value) -> Value:
        """The value as it is cheapest to make."""
        rows = self.rows.get(x.id)
        if rows is None or (rows.is_view and not rows.moved):
            return x
        return self.gathered(g, rows)

    def gathered(self, g: Builder, rows: _Rows) -> Value:
        """The rows in their order; of a normalisation, the normalised gathered rows."""
        shape = (*rows.index.shape, rows.root.shape[-1])
        if rows.is_plain:
            return g.reshape(rows.root, shape)
        norm = self.norms.get(rows.root.id)
        if norm is not None:
            node, (x, *affine) = norm
            below = self.of(x)
            assert below is not None
            own = self.gathered(g, _Rows(below.root, below.index.reshape(-1)[rows.index], below.moved))
            return g.emit(self.normalising(node, own.rank), own, *affine, name=node.name, source=node.source)
        key = (rows.root.id, rows.index.tobytes())
        if key not in self.taken:
            self.taken[key] = self.take(g, rows)
        return g.reshape(self.taken[key], shape)

    def take(self, g: Builder, rows: _Rows) -> Value:
        flat = g.reshape(rows.root, (_count(rows.root), rows.root.shape[-1]))
        return g.emit(OPS["take"](axis=0, mode="clip"), flat, g.constant(rows.index.reshape(-1), "i32"))

    @staticmethod
    def normalising(node: Node, rank: int) -> Any:
        a = attributes(node.op)
        return type(node.op)(**({**a, "axis": rank - 1} if "axis" in a else a))

    # -- exchanging operators with the order ----------------------------------------------------------------------
    def push(self, g: Builder, node: Node, xs: tuple[Value, ...]) -> Value | None:
        """The operator applied to rows as they lie, where that is as good; its result is known to need the order."""
        order = self.order(node, xs)
        if order is None:
            return None
        root, shape = order.root, order.root.shape
        if isinstance(node.op, Elementwise):
            operands = [self.aligned(g, node, x, order) for x in xs]
            if any(v is None for v in operands):
                return None
            made = g.emit(node.op, *(v for v in operands if v is not None))
        elif node.op.name == "mat_mul":
            made = g.emit(node.op, root, xs[1])
        else:
            made = g.emit(self.normalising(node, len(shape)), root, *xs[1:])
            self.norms[made.id] = (node, (root, *xs[1:]))
        rows = _Rows(made, order.index, True)
        out = g.reshape(self.take(g, rows), (*order.index.shape, made.shape[-1]))  # dropped if no one reads it
        self.rows[out.id] = rows
        return out

    def order(self, node: Node, xs: tuple[Value, ...]) -> _Rows | None:
        """The order that the result of a row by row operator should be left in, None for the order it has."""
        if not self.by_rows(node) or (node.op.name == "mat_mul" and not self.goes_on(node)):
            return None
        out = self.graph.types[node.outputs[0]]
        if isinstance(node.op, Elementwise):
            whole = [x for x in xs if x.shape == out.shape]
        else:
            whole = [xs[0]]
        for x in whole:
            rows = self.rows.get(x.id)
            if rows is None or rows.is_plain or (rows.is_view and not rows.moved) or not rows.is_order:
                continue
            if all(self.reachable(y, rows) for y in whole):
                return rows
        return None

    def reachable(self, x: Value, order: _Rows) -> bool:
        """Whether x in the order of another's root costs nothing."""
        rows = self.of(x)
        if rows is None:
            return False
        turned = self.turned(rows, order)
        return turned.is_plain or (turned.root.id, turned.index.tobytes()) in self.taken

    @staticmethod
    def turned(rows: _Rows, order: _Rows) -> _Rows:
        """The rows in the order of another's root."""
        index = np.empty(order.index.size, np.int32)
        index[order.index.reshape(-1)] = rows.index.reshape(-1)
        return _Rows(rows.root, index.reshape(order.root.shape[:-1]), rows.moved)

    def aligned(self, g: Builder, node: Node, x: Value, order: _Rows) -> Value | None:
        """An operand of an elementwise operator for rows in the order of a root; None if that makes no sense of it."""
        if x.shape == self.graph.types[node.outputs[0]].shape:
            rows = self.of(x)
            assert rows is not None
            return self.gathered(g, self.turned(rows, order))
        if x.type.size == 1:
            return g.reshape(x, ())
        return g.reshape(x, (x.type.size,))

    # -- which operators work row by row --------------------------------------------------------------------------
    def is_norm(self, node: Node) -> bool:
        """Whether a node normalises each row by itself."""
        if node.op.name not in _NORMS:
            return False
        rank, a = len(self.graph.types[node.inputs[0]].shape), attributes(node.op)
        own = all(len(self.graph.types[v].shape) == 1 for v in node.inputs[1:])
        return own and (a["axis"] % rank == rank - 1 if "axis" in a else True)

    def by_rows(self, node: Node) -> bool:
        types = self.graph.types
        out = types[node.outputs[0]]
        if out.dtype != "f32" or len(out.shape) < 2:
            return False
        if isinstance(node.op, Elementwise):
            return all(
                types[v].dtype == "f32"
                and (types[v].shape == out.shape or types[v].size == 1 or types[v].shape[-1:] == (types[v].size,) == out.shape[-1:])
                for v in node.inputs
            )
        if node.op.name == "mat_mul":
            w = types[node.inputs[1]].shape
            return len(w) == 2 and node.inputs[1] in self.graph.constants and not attributes(node.op)["transpose_a"]
        return self.is_norm(node)

    def goes_on(self, node: Node) -> bool:
        """Whether what is made of a product goes on row by row as far as the next product or addition: else its rows will
        be wanted in order, and are wider than those that it reads."""
        fresh, seen = list(node.outputs), set()
        while fresh:
            v = fresh.pop()
            if v in self.graph.outputs:
                return False
            for n in self.uses.get(v, []):
                if id(n) in seen:
                    continue
                seen.add(id(n))
                if n.op.name == "reshape" and self.graph.types[n.outputs[0]].shape[-1:] == self.graph.types[v].shape[-1:]:
                    fresh += n.outputs
                elif not self.by_rows(n):
                    return False
                elif isinstance(n.op, Elementwise):
                    others = [u for u in n.inputs if u != v and self.graph.types[u].size > self.graph.types[v].shape[-1]]
                    if all(self.made_of(u, node) for u in others):
                        fresh += n.outputs
        return True

    def made_of(self, value: int, node: Node) -> bool:
        """Whether a value is made from a node's result by few elementwise operators."""
        made = self.producer.get(value)
        for _ in range(8):
            if made is None or made is node:
                break
            made = self.producer.get(made.inputs[0]) if isinstance(made.op, Elementwise) else None
        return made is node
