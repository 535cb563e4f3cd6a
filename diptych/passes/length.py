"""One program for many lengths: what lies past the length of a call is kept out of every result.

Along the axis that holds a sequence a program has room for more positions than a call may bring. The rest are filled
up, and wherever an operator would let them into a position that is kept, they are masked by the length of the call.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.ir import TensorType
from diptych.ops.base import Elementwise, Reduction, attributes, normalize_axis
from diptych.ops.build import Builder
from diptych.passes.decompose import decompose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diptych.ir import Graph, Node, Value

__all__ = ["LENGTH", "Padded", "Unpaddable", "pad_length", "same_program"]

LENGTH = "length"  # the added input: how many positions of this call count
_WHOLE = frozenset({"attention", "mean", "rms_norm", "var"})  # those that divide by the length, among others
_NEUTRAL = {"sum": 0.0, "max": -np.inf, "min": np.inf, "prod": 1.0, "any": False, "all": True}
_RUNNING = {"cum_sum", "cum_prod"}  # position i depends on positions up to i only
_BESIDE = {"sort", "top_k", "arg_max", "arg_min", *_RUNNING}  # what these do along another axis is no concern

Axes = frozenset[int]
_NONE: Axes = frozenset()


class Unpaddable(Exception):
    """A kept position would depend on what is past the length, or is not shown not to; says which node."""


@dataclass(frozen=True, slots=True)
class Padded:
    """A Graph with room for `extent` positions and the input `length`, and where its outputs have the length."""

    graph: Graph
    extent: int
    outputs: Mapping[str, tuple[int, ...]]


def pad_length(graph: Graph, axes: Mapping[str, Sequence[int]], extent: int | None = None, masked: bool = True) -> Padded:
    """The graph for any length up to `extent` (default: what it was made for) along these axes of its inputs.

    The new graph has one more input, `length`, an i64 of rank 0, at the end. Outputs keep their axes at `extent`; the
    first `length` positions are those of the graph made for exactly that length, whatever the inputs hold past it, as
    long as it is finite. Constants are cut to the first positions. With `masked=False` nothing is masked and there is
    no such input: then it is the graph for a length of exactly `extent`.

    Raises Unpaddable, with the node, where that cannot be shown.
    """
    return _Padding(decompose(graph, keep=_WHOLE), axes, extent, masked).run()


def same_program(a: Graph, b: Graph) -> bool:
    """Whether the outputs of two graphs are worked out from the inputs by the same operators and constants."""
    if a.input_types() != b.input_types() or a.output_types() != b.output_types():
        return False
    shared = {id(x) for x in a.constants.values()} & {id(x) for x in b.constants.values()}
    return _meaning(a, shared) == _meaning(b, shared)


def _meaning(graph: Graph, shared: set[int]) -> list[bytes]:
    """For each output a digest of what it is made of; arrays in `shared` stand for themselves."""
    known: dict[int, bytes] = {}

    def digest(*parts: object) -> bytes:
        return hashlib.sha256(repr(parts).encode()).digest()

    for name, v in zip(graph.input_names, graph.inputs, strict=True):
        known[v] = digest("input", name)
    for v, array in graph.constants.items():
        content = id(array) if id(array) in shared else hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data
                                                                       if array.ndim else array.tobytes()).digest()  # fmt: skip
        known[v] = digest("constant", graph.types[v], content)
    for node in graph.nodes:
        made = digest(node.op, *(known[v] for v in node.inputs))
        known |= {v: digest(made, i) for i, v in enumerate(node.outputs)}
    return [known[v] for v in graph.outputs]


class _Padding:
    def __init__(self, graph: Graph, axes: Mapping[str, Sequence[int]], extent: int | None, masked: bool) -> None:
        self.old, self.masked = graph, masked
        types = graph.input_types()
        found = {types[name].shape[a] for name, own in axes.items() for a in own}
        if len(found) != 1:
            raise Unpaddable(f"the declared axes have the extents {sorted(found)}: they must be one length")
        self.length = found.pop()
        self.extent = self.length if extent is None else extent
        if self.length < 2:
            raise Unpaddable(f"an example of length {self.length} does not tell the length from extents of 1; give a longer one")
        if self.extent > self.length:
            raise Unpaddable(f"a graph made for length {self.length} cannot serve {self.extent}")
        self.g = Builder(graph.name)
        self.env: dict[int, Value] = {}
        self.where: dict[int, Axes] = {}
        self.zeros: set[tuple[int, int]] = set()  # (new value, axis): zero past the length
        self.masks: dict[tuple[int, int], Value] = {}
        self.producer = graph.producer()
        self.narrowed: dict[tuple[int, Axes], Value] = {}
        for name, v in zip(graph.input_names, graph.inputs, strict=True):
            own = frozenset(axes.get(name, ()))
            self.env[v] = self.g.input(name, self.cut(graph.types[v], own))
            self.where[v] = own
        for v, array in graph.constants.items():
            self.env[v] = self.g.constant(array, graph.types[v].dtype, graph.constant_names.get(v, ""))
            self.where[v] = _NONE
        self.count = self.g.input(LENGTH, TensorType((), "i64")) if masked else None

    def cut(self, t: TensorType, axes: Axes) -> TensorType:
        return t.with_shape(tuple(self.extent if i in axes else d for i, d in enumerate(t.shape)))

    def run(self) -> Padded:
        graph, g = self.old, self.g
        for node in graph.nodes:
            g.layer, g.source = node.name, node.source
            xs = [self.env[v] for v in node.inputs]
            axes = [self.where[v] for v in node.inputs]
            if not any(axes):
                made, where = list(g.emit_all(node.op, *xs)), [_NONE] * len(node.outputs)
            else:
                try:
                    made, where = self.follow(node, xs, axes)
                except Unpaddable as e:
                    raise Unpaddable(f"{node.op.name} {node.name}: {e}") from None
            for v, new, own in zip(node.outputs, made, where, strict=True):
                expected = self.cut(graph.types[v], own)
                assert new.type == expected, f"{node.op.name}: {new.type} made, {expected} expected"
                self.env[v], self.where[v] = new, own
        outputs = {name: tuple(sorted(self.where[v])) for name, v in zip(graph.output_names, graph.outputs, strict=True)}
        done = g.finish({name: self.env[v] for name, v in zip(graph.output_names, graph.outputs, strict=True)})
        return Padded(done, self.extent, outputs)

    # -- helpers ----------------------------------------------------------------------------------------------
    def fit(self, v: int, wanted: Axes) -> Value:
        """Old value v, whose axes `wanted` meet the length: those that have all positions are cut to the first ones."""
        shape = self.old.types[v].shape
        axes = frozenset(i for i in wanted - self.where[v] if shape[i] == self.length != self.extent)
        if not axes:
            return self.env[v]
        if (v, axes) not in self.narrowed:
            self.narrowed[v, axes] = self.narrow(v, axes)
        return self.narrowed[v, axes]

    def narrow(self, v: int, axes: Axes) -> Value:
        """The first positions of v, cut off as early as can be: what made it is made anew from less."""
        shape, g = self.old.types[v].shape, self.g
        array, node = self.old.constants.get(v), self.producer.get(v)
        if array is not None:
            part = array[tuple(slice(0, self.extent) if i in axes else slice(None) for i in range(array.ndim))]
            return g.constant(np.ascontiguousarray(part), self.old.types[v].dtype)
        if node is not None and isinstance(node.op, Elementwise):
            lead = [len(shape) - self.old.types[w].rank for w in node.inputs]
            return g.emit(node.op, *(self.fit(w, frozenset(i - n for i in axes if i >= n)) for w, n in zip(node.inputs, lead, strict=True)))
        x = self.env[v]
        if node is not None and node.op.name == "broadcast_to":
            (w,) = node.inputs
            n = len(shape) - self.old.types[w].rank
            whole = tuple(self.extent if i in axes else d for i, d in enumerate(x.shape))
            return g.broadcast_to(self.fit(w, frozenset(i - n for i in axes if i >= n)), whole)
        return g.slice(x, [0] * x.rank, [self.extent if i in axes else d for i, d in enumerate(x.shape)])

    def valid(self, rank: int, axis: int) -> Value:
        """Which positions count, as a mask over `axis` of a value of this rank."""
        assert self.count is not None
        key = (rank, axis)
        if key not in self.masks:
            places = np.arange(self.extent, dtype=np.int64).reshape([-1 if i == axis else 1 for i in range(rank)])
            self.masks[key] = self.g.less(self.g.constant(places), self.g.reshape(self.count, (1,) * rank))
        return self.masks[key]

    def hide(self, x: Value, axis: int, value: float | bool) -> Value:
        """x with everything past the length along `axis` set to a value."""
        if not self.masked or (value == 0 and (x.id, axis) in self.zeros):
            return x
        if x.dtype[0] in "iu" and abs(value) == np.inf:
            info = np.iinfo(x.dtype.replace("i", "int").replace("u", "uint"))
            value = info.min if value < 0 else info.max
        return self.g.where(self.valid(x.rank, axis), x, self.g.scalar(value, x.dtype))

    # -- rules ------------------------------------------------------------------------------------------------
    def follow(self, node: Node, xs: list[Value], axes: list[Axes]) -> tuple[list[Value], list[Axes]]:
        op, a, g = node.op, attributes(node.op), self.g
        name, x, own = op.name, xs[0], axes[0]
        out = self.old.types[node.outputs[0]]
        if isinstance(op, Elementwise):
            return self.aligned(node, axes, out.rank)
        if name == "reshape":
            return self.reshape(self.old.types[node.inputs[0]].shape, x, own, out.shape)
        if name == "transpose":
            return [g.emit(op, x)], [frozenset(a["perm"].index(i) for i in own)]
        if name == "broadcast_to":
            moved = frozenset(i + out.rank - x.rank for i in own)
            return [g.broadcast_to(x, self.cut(out, moved).shape)], [moved]
        if name == "slice":
            return self.slice(node, x, own)
        if name == "concat":
            wanted = frozenset().union(*axes)
            if a["axis"] in wanted:
                raise Unpaddable("it joins something to the sequence")
            return [g.emit(op, *(self.fit(v, wanted) for v in node.inputs))], [wanted]
        if name == "pad":
            if any(a["pads"][i] != (0, 0) for i in own):
                raise Unpaddable("it pads the sequence")
            return [g.emit(op, x)], [own]
        if isinstance(op, Reduction) or name in ("mean", "var"):
            return self.reduce(node, x, own, out)
        if name == "mat_mul":
            return self.matmul(node, xs, axes, out)
        if name == "attention":
            return self.attention(node, xs, axes)
        if name in ("softmax", "log_softmax"):
            axis = normalize_axis(a["axis"], x.rank)
            if axis in own:
                x = self.hide(x, axis, -np.inf)
            made = g.emit(op, x)
            if axis in own and name == "softmax":
                self.zeros.add((made.id, axis))
            return [made], [own]
        if name in ("layer_norm", "rms_norm"):
            first = normalize_axis(a["axis"], x.rank) if name == "layer_norm" else x.rank - xs[1].rank
            if any(axes[1:]) or any(i >= first for i in own):
                raise Unpaddable("it normalises over the sequence")
            return [g.emit(op, *xs)], [own]
        if name in _BESIDE:
            axis = normalize_axis(a["axis"], x.rank)
            if axis in own and name not in _RUNNING:
                raise Unpaddable("it orders the sequence")
            several = list(g.emit_all(op, *xs))
            gone = name in ("arg_max", "arg_min") and not a["keepdims"]
            return several, [frozenset(i - (gone and i > axis) for i in own)] * len(several)
        if name == "take":
            return self.take(a, node, xs, axes)
        raise Unpaddable("what it does along a sequence is not known here")

    def aligned(self, node: Node, axes: list[Axes], rank: int) -> tuple[list[Value], list[Axes]]:
        """Elementwise operators: axes meet from the right."""
        lead = [rank - self.old.types[v].rank for v in node.inputs]
        wanted = frozenset(i + n for own, n in zip(axes, lead, strict=True) for i in own)
        ready = [self.fit(v, frozenset(i - n for i in wanted if i >= n)) for v, n in zip(node.inputs, lead, strict=True)]
        made = list(self.g.emit_all(node.op, *ready))
        return made, [wanted] * len(made)

    def reshape(self, before: tuple[int, ...], x: Value, own: Axes, shape: tuple[int, ...]) -> tuple[list[Value], list[Axes]]:
        moved = []
        for axis in own:
            ahead = prod(before[:axis])
            at = [i for i, d in enumerate(shape) if d == self.length and prod(shape[:i]) == ahead]
            if not at:
                raise Unpaddable(f"the reshape {before} -> {shape} merges or cuts the sequence")
            moved.append(at[0])
        where = frozenset(moved)
        return [self.g.reshape(x, self.cut(TensorType(shape), where).shape)], [where]

    def slice(self, node: Node, x: Value, own: Axes) -> tuple[list[Value], list[Axes]]:
        a = attributes(node.op)
        stops, left = list(a["stops"]), set(own)
        for i in own:
            cut = (a["starts"][i], stops[i], a["steps"][i])
            if cut == (0, self.length, 1):
                stops[i] = self.extent
            elif cut[:2] == (0, 1):  # the first position: there is always one
                left.discard(i)
            else:
                raise Unpaddable(f"it takes positions {cut[0]} to {cut[1]} of {self.length}")
        return [self.g.slice(x, a["starts"], stops, a["steps"])], [frozenset(left)]

    def reduce(self, node: Node, x: Value, own: Axes, out: TensorType) -> tuple[list[Value], list[Axes]]:
        a, g, name = attributes(node.op), self.g, node.op.name
        over = own & set(a["axes"])
        left = frozenset(i if a["keepdims"] else i - sum(r < i for r in a["axes"]) for i in own - over)
        if not over:
            return [g.emit(node.op, x)], [left]
        if not self.masked:
            return [g.emit(node.op, x)], [left]
        if name in ("mean", "var"):
            made = self.mean(x, a["axes"], over, name == "var" or a["keepdims"])
            if name == "var":
                off = g.sub(x, made)
                made = self.mean(g.mul(off, off), a["axes"], over, a["keepdims"], a["ddof"])
            return [made], [left]
        if name not in _NEUTRAL:
            raise Unpaddable("it folds the sequence in a way that has no neutral element")
        for axis in over:
            x = self.hide(x, axis, _NEUTRAL[name])
        return [g.emit(node.op, x)], [left]

    def mean(self, x: Value, axes: Sequence[int], over: Axes, keepdims: bool, less: int = 0) -> Value:
        """The mean of what counts, divided by `less` fewer than there are of them."""
        g = self.g
        assert self.count is not None
        count = g.cast(self.count, x.dtype)
        number = g.mul(count, float(prod(x.shape[i] for i in axes if i not in over)))
        for _ in range(len(over) - 1):
            number = g.mul(number, count)
        for axis in over:
            x = self.hide(x, axis, 0.0)
        total = g.sum(x, axes, keepdims)
        return g.div(total, g.reshape(g.sub(number, float(less)), (1,) * total.rank))

    def matmul(self, node: Node, xs: list[Value], axes: list[Axes], out: TensorType) -> tuple[list[Value], list[Axes]]:
        a, (x, y) = attributes(node.op), xs
        rows, inner = (x.rank - 1, x.rank - 2) if a["transpose_a"] else (x.rank - 2, x.rank - 1)
        depth, cols = (y.rank - 1, y.rank - 2) if a["transpose_b"] else (y.rank - 2, y.rank - 1)
        lead = (out.rank - x.rank, out.rank - y.rank)
        batch = frozenset(i + n for own, n, v in zip(axes, lead, xs, strict=True) for i in own if i < v.rank - 2)
        meet = inner in axes[0] or depth in axes[1]
        x, y = (
            self.fit(v, frozenset(i - n for i in batch if i >= n) | ({along} if meet else set()))
            for v, n, along in zip(node.inputs, lead, (inner, depth), strict=True)
        )
        if meet:
            x = self.hide(x, inner, 0.0)
            if inner not in axes[0]:  # its own positions are no junk: what they meet must be hidden
                y = self.hide(y, depth, 0.0)
        where = set(batch)
        where |= {out.rank - 2} if rows in axes[0] else set()
        where |= {out.rank - 1} if cols in axes[1] else set()
        made = self.g.matmul(x, y, a["transpose_a"], a["transpose_b"])
        return [made], [frozenset(where)]

    def attention(self, node: Node, xs: list[Value], axes: list[Axes]) -> tuple[list[Value], list[Axes]]:
        g, a = self.g, attributes(node.op)
        q, k, v, *masks = xs
        if any(own - {2} for own in axes[:3]):
            raise Unpaddable("the sequence is not on axis 2 of queries, keys and values")
        keys = axes[1] | axes[2]
        k, v = (self.fit(w, keys) for w in node.inputs[1:3])
        if masks:
            lead = 4 - masks[0].rank
            wanted = ({2} if axes[0] else set()) | ({3} if keys else set())
            if any(i + lead not in wanted for i in axes[3]):
                raise Unpaddable("its mask has the sequence where queries and keys have not")
            masks = [self.fit(node.inputs[3], frozenset(i - lead for i in wanted if i >= lead))]
        if keys and self.masked and not (a["causal"] and axes[0]):
            mask = masks[0] if masks else g.broadcast_to(g.scalar(0.0, q.dtype), (1, 1, 1, self.extent))
            if mask.rank == 0:
                mask = g.reshape(mask, (1,))
            masks = [g.where(self.valid(mask.rank, mask.rank - 1), mask, g.scalar(-np.inf, mask.dtype))]
        return [g.emit(node.op, q, k, v, *masks)], [axes[0]]

    def take(self, a: Mapping[str, Any], node: Node, xs: list[Value], axes: list[Axes]) -> tuple[list[Value], list[Axes]]:
        g, (data, at), axis = self.g, xs, normalize_axis(a["axis"], xs[0].rank)
        before = frozenset(i if i < axis else i + at.rank - 1 for i in axes[0] if i != axis)
        if axis not in axes[0]:
            return [g.emit(node.op, data, at)], [before | frozenset(i + axis for i in axes[1])]
        where = self.old.constants.get(node.inputs[1])
        if where is None or axes[1]:
            raise Unpaddable("it picks positions of the sequence that are computed")
        if where.size == self.length and np.array_equal(where.reshape(-1), np.arange(self.length)):
            shape = tuple(self.extent if d == self.length else d for d in at.shape)
            moved = axis + at.shape.index(self.length)
            return [g.reshape(data, (*data.shape[:axis], *shape, *data.shape[axis + 1 :]))], [before | {moved}]
        if not where.any():  # the first position
            return [g.emit(node.op, data, at)], [before]
        raise Unpaddable("it picks positions of the sequence other than the first or all in order")
