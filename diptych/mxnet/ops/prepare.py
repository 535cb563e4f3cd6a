"""From an operator, its attributes and operand types to something that can be called again and again, and differentiated."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import DiptychError, InputError
from diptych.frontends.mxnet import converters  # noqa: F401  (fills the table of converters)
from diptych.frontends.mxnet.attributes import Attributes
from diptych.frontends.mxnet.convert import CONVERTERS, Effects, Noise, convert_node
from diptych.frontends.mxnet.converters import ADVICE
from diptych.frontends.mxnet.symbol_graph import SymbolNode
from diptych.frontends.mxnet.symbol_schema import output_count
from diptych.ir import TensorType
from diptych.mxnet.base import MXNetError, MXNetIndexError
from diptych.mxnet.ops import live
from diptych.mxnet.ops.program import Program
from diptych.mxnet.ops.registry import find
from diptych.mxnet.profiling import recorder
from diptych.ops.build import Builder
from diptych.passes.gradient import gradient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.frontends.mxnet.convert import Converter
    from diptych.ir import Array, Graph, Value
    from diptych.mxnet.ops.fixed import Fixed

__all__ = ["Prepared", "converter_of", "has_graph", "host_of", "prepare", "run_host"]

FLOATS = ("f32", "f64", "f16")
NUMBERS = (*FLOATS, "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "bool")


class Prepared:
    """A graph with its state: random inputs to draw, operands it updates, and the same for its gradient.

    `visible` results come first; after them the new values of `updates` (operand, result) and of `later`.
    """

    __slots__ = ("_vjps", "fixed", "graph", "in_types", "later", "noise", "out_types", "program", "updates", "visible")

    def __init__(self, graph: Graph, visible: int, noise: Sequence[Noise] = (), updates: Sequence[tuple[int, int]] = (),
                 later: Sequence[tuple[int, int]] = (), network: bool = False) -> None:  # fmt: skip
        self.graph = graph
        self.program = Program(graph, network)
        self.visible = visible
        self.noise = tuple(noise)
        self.updates = tuple(updates)
        self.later = tuple(later)
        self.in_types = tuple(graph.input_types().values())
        self.out_types = tuple(graph.output_types().values())
        self._vjps: dict[tuple[int, ...], Prepared] = {}
        self.fixed: dict[tuple[int, ...], Fixed] = {}  # by the places of parameters

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        """All results for operands (random inputs included)."""
        return self.called(self.program, arrays)

    def called(self, program: Program, arrays: Sequence[Array]) -> list[Array]:
        """The results of a program of this graph."""
        try:
            return program(arrays)
        except InputError as error:  # an index outside of its array; shapes and types have been checked before
            raise MXNetIndexError(f"{self.graph.name}: {error}") from error

    def differentiable(self) -> tuple[int, ...]:
        """The positions of visible results that a gradient can arrive at."""
        return tuple(i for i in range(self.visible) if self.out_types[i].dtype in self.kinds)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The element types that carry gradients: floats, and integers where no float comes in and goes out."""
        both = all(any(t.dtype in FLOATS for t in types) for types in (self.in_types, self.out_types))
        return FLOATS if both else NUMBERS

    def vjp(self, wrt: tuple[int, ...]) -> Prepared:
        """The vector-Jacobian product: operands, then gradients of the float results -> gradients of operands `wrt`."""
        found = self._vjps.get(wrt)
        if found is None:
            graph = self.graph
            if len(graph.outputs) > self.visible:  # state that is updated carries no gradient
                graph = replace(graph, outputs=graph.outputs[: self.visible],
                                output_names=graph.output_names[: self.visible])  # fmt: skip
            try:
                made = gradient(graph, [graph.input_names[i] for i in wrt], integers=self.kinds is NUMBERS)
            except DiptychError as error:
                raise MXNetError(f"{graph.name}: {error}") from error
            # Plain names again, so that this gradient has one too.
            made = replace(made, input_names=tuple(f"x{i}" for i in range(len(made.inputs))),
                           output_names=tuple(f"y{i}" for i in range(len(made.outputs))))  # fmt: skip
            found = self._vjps[wrt] = Prepared(made, len(wrt), network=self.program.network)
        return found


def converter_of(op: str, train: bool) -> Converter | None:
    """The converter for imperative use: the training form, one with effects, or that of inference."""
    return (live.TRAINING.get(op) if train else None) or live.LIVE.get(op) or CONVERTERS.get(op)


def has_graph(op: str, train: bool) -> bool:
    """Whether the operator becomes part of a graph (others run in Python, on arrays)."""
    return op not in live.HOSTS and converter_of(op, train) is not None


def host_of(op: str) -> Callable[..., Any] | None:
    """The function that runs an operator which is no part of a graph."""
    return live.HOSTS.get(op)


def run_host(op: str, attrs: dict[str, str], arrays: Sequence[Array]) -> list[Array]:
    """Results of an operator that runs in Python on arrays."""
    with np.errstate(all="ignore"), recorder.timed(op):
        try:
            result = live.HOSTS[op](Attributes(op, op, attrs), *arrays)
        except (DiptychError, ValueError, IndexError, TypeError, np.linalg.LinAlgError) as error:
            raise MXNetError(f"{op}: {error}") from error
    results = result if isinstance(result, (tuple, list)) else [result]
    return [np.ascontiguousarray(r) if r.ndim else r for r in map(np.asarray, results)]


_cache: dict[Any, Prepared] = {}
_LIMIT = 20000


def prepare(op: str, attrs: dict[str, str], types: tuple[tuple[tuple[int, ...], str], ...], train: bool,
            np_shape: bool = False, shape: tuple[int, ...] | None = None) -> Prepared:  # fmt: skip
    """The prepared form of one operator; `types` are (shape, IR dtype) of its operands. Raises MXNetError."""
    key = (op, tuple(attrs.items()), types, train, np_shape, shape)
    found = _cache.get(key)
    if found is None:
        if len(_cache) >= _LIMIT:
            _cache.clear()
        found = _cache[key] = _prepare(op, attrs, types, train, np_shape, shape)
    return found


def _prepare(op: str, attrs: dict[str, str], types: tuple[tuple[tuple[int, ...], str], ...], train: bool,
             np_shape: bool, shape: tuple[int, ...] | None) -> Prepared:  # fmt: skip
    checked = find(op).checked(attrs)
    converter = converter_of(op, train)
    if converter is None:
        advice = ADVICE.get(op, "")
        raise MXNetError(f"the operator {op} is not supported" + (f": {advice}" if advice else ""))
    g = Builder(op)
    try:
        xs = tuple(g.input(f"x{i}", TensorType(s, d)) for i, (s, d) in enumerate(types))
        effects = Effects(train=train)
        results = convert_node(g, SymbolNode(op, op, attrs=checked), xs, output_count(op, checked, visible=True), shape,
                               np_shape, effects, converter)  # fmt: skip
    except DiptychError as error:
        raise MXNetError(f"Error in operator {op}: {error}") from error
    if op not in live.OPEN_COUNT:
        results = results[: output_count(op, checked, visible=True)]
    return finish(g, results, effects, {x.id: i for i, x in enumerate(xs)})


def finish(g: Builder, results: Sequence[Value], effects: Effects, operands: dict[int, int], network: bool = False) -> Prepared:
    """Freeze a builder with its effects; `operands` maps value numbers to operand positions."""
    outputs = {f"y{i}": v for i, v in enumerate(results)}
    updates: list[tuple[int, int]] = []
    later: list[tuple[int, int]] = []
    for kept, noted in ((updates, effects.updates), (later, effects.later)):
        for v, value in noted.items():
            kept.append((operands[v], len(outputs)))
            outputs[f"s{len(outputs)}"] = value
    return Prepared(g.finish(outputs), len(results), effects.noise, updates, later, network)
