"""A Graph made ready to be called many times: step by step in NumPy at first, as native code when that pays."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import replace
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import DiptychError
from diptych.ir.types import numpy_dtype
from diptych.mxnet.profiling import recorder
from diptych.runtime.threads import cpu_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diptych.ir import Array, Graph
    from diptych.mxnet.ops.watched import Watch

__all__ = ["Program"]

HOT_SECONDS = float(os.environ.get("DIPTYCH_HOT_SECONDS", "0.5"))  # time spent in NumPy before compiling pays
# Networks (hybridized blocks, executors, recorded steps) come again: the third call is native, and the first one where
# NumPy would take longer than compiling (NumPy's products of matrices are BLAS, some hundred times as fast as the
# reference of a convolution, and count so much less). Large graphs of small operators (unrolled cells) take the compiler
# far longer than NumPy takes for a call: they are compiled when NumPy has taken nearly as long as the compiler would.
_CALLS, _MULTIPLICATIONS, _BLAS = 2, 2e8, 100.0
_PATIENCE = 2.5  # seconds of compiling that every network is worth
_NODE, _KIND, _RATE = 1e-3, 2e-2, 1e9  # compiling: seconds a node, and a kind of node; multiplications a second in NumPy


class Program:
    """Call a graph with arrays in the order of its inputs; results in the order of its outputs, never shared memory.

    `network`: not one operator but a network, which is compiled soon. A graph that has no native form (an operator
    without a kernel) is carried out in NumPy; a RuntimeWarning says so, and which operator it is.
    """

    __slots__ = ("_calls", "_constants", "_into", "_made", "_native", "_outputs", "_price", "_slots", "_spent", "_steps", "_tried",
                 "graph", "network", "seconds", "watch")  # fmt: skip

    def __init__(self, graph: Graph, network: bool = False) -> None:
        self.graph = graph
        self.network = network
        self._native: Any = None
        self._made: Any = None  # the Compiled that `_native` calls
        self.watch: Watch | None = None  # the same with a clock, for the profiler
        self._into: Any = None
        self._tried = False
        self.seconds: float | None = None  # what making native code took, once there is some
        self._spent = 0.0
        self._calls = 0
        self._price = -1.0  # seconds that compiling would take, when they have been estimated
        place: dict[int, int] = {v: i for i, v in enumerate(graph.inputs)}
        self._constants: list[tuple[int, Array]] = []
        for v, array in graph.constants.items():
            place[v] = len(place)
            self._constants.append((place[v], array))
        last: dict[int, int] = {}
        for i, node in enumerate(graph.nodes):
            for v in (*node.inputs, *node.outputs):
                place.setdefault(v, len(place))
                last[v] = i
        pinned = set(graph.outputs) | set(graph.inputs) | set(graph.constants)
        self._steps = [
            (node.op.reference, tuple(place[v] for v in node.inputs), tuple(place[v] for v in node.outputs),
             tuple(numpy_dtype(graph.types[v].dtype) for v in node.outputs),
             tuple(place[v] for v in dict.fromkeys(node.inputs) if last[v] == i and v not in pinned))
            for i, node in enumerate(graph.nodes)
        ]  # fmt: skip
        self._outputs = tuple(place[v] for v in graph.outputs)
        self._slots = len(place)

    def __call__(self, arrays: Sequence[Array], places: Mapping[int, Array] | None = None) -> list[Array]:
        """`places`: where native code is to write results, by their number, if it can (they are checked by identity)."""
        if recorder.active:
            from diptych.mxnet.ops import watched

            return watched.call(self, arrays)
        return self.unwatched(arrays, places)

    def unwatched(self, arrays: Sequence[Array], places: Mapping[int, Array] | None = None) -> list[Array]:
        """The call itself."""
        if self._native is not None:
            if places:
                types = list(self.graph.output_types().values())
                out = [places[i] if i in places else np.empty(t.shape, numpy_dtype(t.dtype)) for i, t in enumerate(types)]
                self._into([np.ascontiguousarray(a) if a.ndim else a for a in arrays], out)
                return out
            result = self._native(*[np.ascontiguousarray(a) if a.ndim else a for a in arrays])
            return list(result) if isinstance(result, (tuple, list)) else [result]
        if not self._tried and self._hot():
            self._compile()
        elif not self._tried and self.network and self._calls == _CALLS:
            self._compile(only_kept=True)
        if self._native is not None:
            return self.unwatched(arrays, places)
        start = perf_counter()
        out = self._interpret(arrays)
        self._spent += perf_counter() - start
        self._calls += 1
        return out

    def native(self) -> Any:
        """The Compiled of native code, made when the program is hot; None while it runs in NumPy."""
        if self._native is None and not self._tried and self._hot():
            self._compile()
        return self._made

    def compile(self) -> bool:
        """Make native code now, and let go of the constants, which it has packed for itself; False where there is none."""
        self._compile()
        self._steps, self._constants = [], []
        self.graph = replace(self.graph, nodes=(), constants={}, constant_names={})
        if self._made is not None:
            self._made.__dict__.pop("graph", None)
        return self._native is not None

    def stepwise(self, arrays: Sequence[Array], spans: list[tuple[str, float, float]]) -> list[Array]:
        """A call in NumPy that notes (layer, begin, end) of its steps, those of a layer that follow each other together."""
        out = self._interpret(arrays, spans)
        self._calls += 1
        return out

    def _hot(self) -> bool:
        if not self._steps:
            return False
        if not self.network:
            return self._spent > HOT_SECONDS
        if self._price < 0:
            self._price = _price(self.graph)
        if self._calls == 0:
            found = _multiplications(self.graph)
            return found > _MULTIPLICATIONS and found / _RATE + _PATIENCE > self._price
        return (self._calls >= _CALLS or self._spent > HOT_SECONDS) and self._spent + _PATIENCE > self._price

    def _interpret(self, arrays: Sequence[Array], spans: list[tuple[str, float, float]] | None = None) -> list[Array]:
        env: list[Any] = [None] * self._slots
        env[: len(arrays)] = arrays
        for i, array in self._constants:
            env[i] = array
        with np.errstate(all="ignore"):
            for number, (reference, takes, gives, dtypes, done) in enumerate(self._steps):
                begin = 0.0 if spans is None else time.time()
                result = reference(*[env[i] for i in takes])
                if len(gives) == 1 and not isinstance(result, tuple):
                    result = (result,)
                for i, array, dtype in zip(gives, result, dtypes):
                    array = np.asarray(array)
                    env[i] = array if array.dtype == dtype else array.astype(dtype)
                for i in done:
                    env[i] = None
                if spans is not None:
                    layer = self.graph.nodes[number].name
                    if spans and spans[-1][0] == layer:
                        begin = spans.pop()[1]
                    spans.append((layer, begin, time.time()))
        out: list[Array] = []
        taken = {id(a) for a in arrays} | {id(a) for _, a in self._constants}
        for i in self._outputs:
            array = env[i]
            if id(array) in taken or not array.flags.owndata or not array.flags.c_contiguous:
                array = np.array(array, order="C")  # results share no memory with operands, constants or one another
            taken.add(id(array))
            out.append(array)
        return out

    def _compile(self, only_kept: bool = False) -> None:
        """Make native code, or take what another process made and kept, which costs nothing."""
        self._tried = not only_kept
        from diptych.compiled import Compiled, NotKept
        from diptych.fingerprint import of_graph
        from diptych.options import Options
        from diptych.progress import default_progress

        begin = perf_counter()
        try:
            made = Compiled(lambda: self.graph, lambda g: None if g is None else of_graph(g), Options(threads=cpu_count()), None,
                            default_progress(), build=not only_kept)  # fmt: skip
            assert made.executable is not None
            self._made = made
            self._native, self._into = made.call, made.executable.run_into
            self.seconds = perf_counter() - begin
        except NotKept:
            pass
        except DiptychError as error:
            warnings.warn(f"the graph {self.graph.name!r} of {len(self.graph.nodes)} operators runs in NumPy, which is slow: {error}",
                          RuntimeWarning, stacklevel=2)  # fmt: skip


def _multiplications(graph: Graph) -> float:
    """Of the convolutions and products in a graph, roughly, weighted by how slow NumPy is at them."""
    total = 0.0
    for node in graph.nodes:
        types = [graph.types[v] for v in (*node.inputs, *node.outputs)]
        shapes = [t.shape for t in types]
        if node.op.name == "mat_mul":
            inner = shapes[0][-2] if getattr(node.op, "transpose_a", False) else shapes[0][-1]
            total += prod(shapes[-1]) * inner / (_BLAS if types[0].dtype[0] == "f" else 1.0)
        elif node.op.name in ("conv", "conv_transpose"):
            total += prod(shapes[-1] if node.op.name == "conv" else shapes[0]) * prod(shapes[1][1:])
    return total


def _price(graph: Graph) -> float:
    """The seconds that compiling a graph takes, roughly."""
    kinds = {(n.op.name, *(graph.types[v].shape for v in (*n.inputs, *n.outputs))) for n in graph.nodes}
    return _NODE * len(graph.nodes) + _KIND * len(kinds)
