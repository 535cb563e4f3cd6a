"""What the lowering rules share while a graph becomes steps: buffers, views of values, expressions."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import UnsupportedError
from diptych.ir.kernel import Expr, Kernel
from diptych.ir.tuning import Tuning
from diptych.ir.types import itemsize, numpy_dtype
from diptych.kernels.pointwise import make_copy, make_pointwise
from diptych.ops.base import attributes
from diptych.schedule.groups import VIEWS
from diptych.schedule.views import View, contiguous

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from diptych.ir import Array, Graph, Node
    from diptych.kernels.tiling import Tiling
    from diptych.schedule.groups import Group
    from diptych.schedule.winograd import WinogradSchedule
    from diptych.targets.base import Target

    Fill = Callable[[Array], Iterator[None] | None]

__all__ = ["PART", "Buffer", "Call", "Context", "Halo", "RowSums"]

PART = 1 << 22  # bytes of a source of constants that are read before their pages are let go


@dataclass(frozen=True, slots=True)
class Halo:
    """Extents of a halo buffer, and how wide its border is. Borders of buffers with equal ones coincide."""

    outer: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dtype: str

    @property
    def inside(self) -> float:
        """The part of the bytes that is not border."""
        return prod(1 - (lo + hi) / max(d, 1) for (lo, hi), d in zip(self.pads, self.outer[2:-1], strict=True))

_PAGE, _WAYS, _LINE = 4096, 8, 16  # bytes that the sets of L1 span, lines of a set, floats of a line
_COLUMNS = 256  # of a product that pays for a copy of its rows


@dataclass(slots=True)
class Buffer:
    """A stretch of memory: kind is "input", "output", "weights", "temp" or "halo"; `index` counts inputs and outputs."""

    kind: str
    nbytes: int
    index: int = -1
    fill: Fill | None = None  # writes the content of weights into that many zeroed bytes, once
    halo: Halo | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A kernel applied to views (inputs first); before memory is planned."""

    kernel: Kernel
    args: tuple[View, ...]
    name: str
    fused: tuple[str, ...] = ()  # operators it stands for, for reports
    notes: tuple[str, ...] = ()  # why it is done this way, for reports
    choices: tuple[str, ...] = ()  # keys of the options that were taken for it


@dataclass(frozen=True, slots=True)
class RowSums:
    """What Strassen's scheme multiplies, made of some rows: sums [batch, stretches, pairs, 7, half], inverse row scales."""

    sums: View
    scales: View


@dataclass(slots=True)
class Context:
    """The state of one lowering."""

    graph: Graph
    target: Target
    strict: bool = False  # keep to plain algorithms
    threads: int = 1
    buffers: list[Buffer] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    views: dict[int, View] = field(default_factory=dict)
    producer: dict[int, Node] = field(default_factory=dict)
    results: dict[int, View] = field(default_factory=dict)  # graph outputs -> where they must end up
    halos: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)  # values with a zero border
    winograd: dict[int, WinogradSchedule] = field(default_factory=dict)  # results of convolutions that go that way
    placed: set[tuple[int, int]] = field(default_factory=set)  # (concatenation, which operand): there already
    sums: dict[int, View] = field(default_factory=dict)  # blocked images -> [N, B, parts, 16], sums over their pixels
    strassen: dict[tuple[View, int], RowSums] = field(default_factory=dict)  # sums of rows that were made
    row_sums: dict[int, RowSums] = field(default_factory=dict)  # values that only (or also) exist as such sums
    returned: tuple[int, ...] = ()  # which of the graph's outputs are returned; the others lie in inputs
    updated: tuple[str, ...] = ()  # the inputs that are written to
    tuning: Tuning = field(default_factory=Tuning)
    offered: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by key: the options there were, the default first
    governed: dict[int, list[str]] = field(default_factory=dict)  # by value: the keys that its steps depend on
    tilings: dict[int, Tiling] = field(default_factory=dict)  # results of convolutions by direct sums -> how
    spread: dict[View, View] = field(default_factory=dict)  # matrices whose rows fight for places in L1 -> copies
    group: Group | None = None

    # -- memory -----------------------------------------------------------------------------------------------
    def buffer(self, kind: str, nbytes: int, index: int = -1, fill: Fill | None = None) -> int:
        self.buffers.append(Buffer(kind, nbytes, index, fill))
        return len(self.buffers) - 1

    def temp(self, shape: tuple[int, ...], dtype: str = "f32") -> View:
        """A fresh contiguous buffer in the arena."""
        size = itemsize(dtype)
        count = int(np.prod(shape, dtype=np.int64)) if shape else 1
        return View(self.buffer("temp", max(count, 1) * size), 0, shape, contiguous(shape), dtype)

    def weights(self, array: Array, dtype: str = "f32") -> View:
        """A constant of the compiled model."""

        def fill(out: Array) -> None:
            assert array.dtype.itemsize == out.itemsize, f"{array.dtype} announced as {dtype}"
            out[...] = array.view(out.dtype)

        return self.packed(tuple(array.shape), fill, dtype)

    def packed(self, shape: tuple[int, ...], fill: Fill, dtype: str = "f32") -> View:
        """A constant that is worked out (and its source let go) when the plan is made, several at a time.

        `fill(out)` writes it into zeros of this shape: in its place, for a copy of a large one would be felt. Where its source
        is large it is a generator that stops behind every PART bytes of it, for what was read to be let go.
        """
        kind = numpy_dtype(dtype)
        buffer = self.buffer("weights", prod(shape) * itemsize(dtype), fill=lambda raw: fill(raw.view(kind).reshape(shape)))
        return View(buffer, 0, shape, contiguous(shape), dtype)

    def result(self, value: int) -> View:
        """Where the kernel that makes `value` writes it."""
        t = self.graph.types[value]
        if value not in self.views:
            self.views[value] = self.results[value] if value in self.results else self.temp(t.shape, t.dtype)
        return self.views[value]

    @property
    def constant_bytes(self) -> int:
        """All constants of the graph: what one run of it reads."""
        return sum(array.nbytes for array in self.graph.constants.values())

    # -- reading ----------------------------------------------------------------------------------------------
    def constant(self, value: int) -> Array | None:
        return self.graph.constants.get(value)

    def view(self, value: int) -> View:
        """Where a value lies; movement operators are resolved to views, copying only where strides cannot say it."""
        found = self.views.get(value)
        if found is None:
            array = self.graph.constants.get(value)
            if array is not None:
                found = self.weights(array, self.graph.types[value].dtype)
            else:
                node = self.producer[value]
                assert node.op.name in VIEWS, f"{node.op.name} was not lowered before its use"
                found = self.moved(node)
            self.views[value] = found
        return found

    def moved(self, node: Node) -> View:
        source, shape = self.view(node.inputs[0]), self.graph.types[node.outputs[0]].shape
        again = self.move(node, source)
        if again is None:
            again = self.copy(source, node.name or "reshape").reshape(shape)
            assert again is not None
        return again

    def move(self, node: Node, source: View) -> View | None:
        """What a movement operator makes of a view; None where strides cannot say it."""
        shape, a = self.graph.types[node.outputs[0]].shape, attributes(node.op)
        if node.op.name == "transpose":
            return source.transpose(a["perm"])
        if node.op.name == "broadcast_to":
            return source.broadcast(shape)
        if node.op.name == "slice":
            return source.slice(a["starts"], a["steps"], shape)
        return source.reshape(shape)

    def copy(self, source: View, name: str) -> View:
        """A contiguous copy."""
        out = self.temp(source.shape, source.dtype)
        self.copy_to(source, out, name)
        return out

    def copy_to(self, source: View, out: View, name: str = "") -> None:
        self.call(make_copy(source.operand, out.operand, self.target), (source, out), name)

    def spread_rows(self, a: View, columns: int) -> View:
        """`a` for a product by so many columns, its rows a line further apart where they would fight for places in L1.

        The rows of a register tile are read side by side. At distances of whole pages they all fall into one set, of
        fewer lines than there are rows.
        """
        rows, depth = a.shape[-2:]
        distance = abs(a.strides[-2]) * itemsize(a.dtype)
        if distance == 0 or distance % _PAGE or rows <= _WAYS or columns < _COLUMNS or a.strides[-1] != 1:
            return a
        if a not in self.spread or self.buffers[a.buffer].kind == "input":  # an input may be written to in between
            strides = contiguous((*a.shape[:-1], depth + _LINE))
            out = View(self.temp((*a.shape[:-1], depth + _LINE)).buffer, 0, a.shape, strides, a.dtype)
            self.call(make_copy(a.operand, out.operand, self.target), (a, out), fused=("pack",))
            self.spread[a] = out
        return self.spread[a]

    def call(self, kernel: Kernel, args: Sequence[View], name: str = "", fused: Sequence[str] = ()) -> None:
        """Append a kernel call; one on nothing is dropped."""
        if any(0 in a.shape for a in args[-kernel.outputs :]):
            return
        if not name and self.group is not None:
            name = self.group.name
        if not fused and self.group is not None:
            fused = [n.op.name for n in self.group.nodes]
        nodes = self.group.nodes if self.group is not None else []
        keys = dict.fromkeys(k for n in nodes for v in n.outputs for k in self.governed.get(v, ()))
        self.calls.append(Call(kernel, tuple(args), name, tuple(fused), choices=tuple(keys)))

    # -- expressions ------------------------------------------------------------------------------------------
    def expression(self, nodes: Sequence[Node], first: Sequence[int] = (), results: Sequence[int] | None = None,
                   ) -> tuple[Expr, list[int]]:  # fmt: skip
        """The Expr of elementwise nodes, and the values that its operands after `first` stand for.

        Scalar constants are written into the code; `first` are values whose registers come first.
        """
        made = {n.outputs[0] for n in nodes}
        values = list(first)
        consts: list[tuple[float | int | bool, str]] = []
        const_of: dict[int, int] = {}
        for v in (v for n in nodes for v in n.inputs):
            if v in made or v in values or v in const_of:
                continue
            array, t = self.graph.constants.get(v), self.graph.types[v]
            if array is not None and array.size == 1 and t.dtype != "bf16":
                const_of[v] = len(consts)
                consts.append((array.reshape(()).item(), t.dtype))
            else:
                values.append(v)
        register = {v: i for i, v in enumerate(values)}
        register |= {v: len(values) + i for v, i in const_of.items()}
        steps = []
        for n in nodes:
            steps.append((n.op, tuple(register[v] for v in n.inputs)))
            register[n.outputs[0]] = len(values) + len(consts) + len(steps) - 1
        if results is None:
            results = nodes[-1].outputs if nodes else first[:1]
        expr = Expr(len(values), tuple(consts), tuple(steps), tuple(register[v] for v in results))
        return expr, values[len(first) :]

    def pointwise(self, nodes: Sequence[Node], out: View) -> None:
        """Emit elementwise nodes as one kernel."""
        expr, values = self.expression(nodes)
        views = [self.view(v).broadcast(out.shape) for v in values]
        kernel = make_pointwise(out.shape, expr, [v.operand for v in views], [out.operand], self.target)
        self.call(kernel, [*views, out])

    def refuse(self, node: Node, why: str) -> UnsupportedError:
        place = f" ({node.source})" if node.source else ""
        types = ", ".join(str(self.graph.types[v]) for v in node.inputs)
        return UnsupportedError(f"{node.op.name} {node.name}{place} on {types}: {why}")
