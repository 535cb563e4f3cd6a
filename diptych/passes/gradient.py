"""Reverse-mode differentiation: the backward Graph of a Graph, made of the operators' own gradient rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.errors import GraphError, InputError, UnsupportedError
from diptych.ops.base import OPS, Movement
from diptych.ops.build import Builder
from diptych.passes.decompose import decompose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.ir import Graph, Node, Value

__all__ = ["gradient"]

_FLOATS = ("f32", "f64", "f16")
_NUMBERS = (*_FLOATS, "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "bool")


def gradient(graph: Graph, wrt: Sequence[str] | None = None, keep_outputs: bool = False,
             heads: Sequence[str] | None = None, integers: bool = False) -> Graph:  # fmt: skip
    """The Graph that computes vector-Jacobian products.

    Its inputs are those of `graph`, then `d_<output>` for every float output (of those named in `heads`, when given):
    the gradient that arrives there.
    Its outputs are `d_<input>` for every input named in `wrt` (default: all of float type), and with `keep_outputs`
    those of `graph` as well, first. Composite operators without a gradient rule of their own get it from their
    decomposition; an operator that has none stops here with an UnsupportedError that names the layer.
    With `integers`, values of integer type carry gradients too (in their own arithmetic), as they do in MXNet; an operator
    that gives integers and has no rule is then constant. Those of type bool do through operators that only move elements.

    >>> from diptych.ir import TensorType
    >>> g = Builder("square")
    >>> x = g.input("x", TensorType((3,)))
    >>> print(*gradient(g.finish({"y": g.mul(x, x)})).input_names)
    x d_y
    """
    kinds = _NUMBERS if integers else _FLOATS
    if wrt is None:
        wrt = [n for n, t in graph.input_types().items() if t.dtype in kinds]
    if unknown := sorted(set(wrt) - set(graph.input_names)):
        raise InputError(f"no inputs named {', '.join(unknown)}; the graph has {', '.join(graph.input_names)}")
    if whole := [n for n in wrt if graph.input_types()[n].dtype not in kinds]:
        raise InputError(f"inputs {', '.join(whole)} are not of float type and have no gradient")
    graph = _with_rules(graph)
    g = Builder(f"{graph.name}_gradient")
    values = {v: g.input(n, graph.types[v]) for n, v in zip(graph.input_names, graph.inputs, strict=True)}
    for v, array in graph.constants.items():
        values[v] = g.constant(array, graph.types[v].dtype, graph.constant_names.get(v, ""))
    for node in graph.nodes:
        results = g.emit_all(node.op, *(values[v] for v in node.inputs), name=node.name, source=node.source)
        values.update(zip(node.outputs, results, strict=True))

    arrived: dict[int, Value] = {}

    def add(v: int, d: Value) -> None:
        if v in arrived:
            d = g.ew("logical_or", arrived[v], d) if d.dtype == "bool" else g.add(arrived[v], d)
        arrived[v] = d

    for name, v in zip(graph.output_names, graph.outputs, strict=True):
        if graph.types[v].dtype in kinds and (heads is None or name in heads):
            add(v, g.input(f"d_{name}", graph.types[v]))
    sources = [graph.inputs[graph.input_names.index(n)] for n in wrt]
    active = _depending(graph, sources, kinds)
    for node in reversed(graph.nodes):
        if any(v in arrived for v in node.outputs) and any(v in active for v in node.inputs):
            _backward(g, node, values, arrived, active, add)
    outputs = dict(zip(graph.output_names, (values[v] for v in graph.outputs), strict=True)) if keep_outputs else {}
    for name, v in zip(wrt, sources, strict=True):
        outputs[f"d_{name}"] = arrived[v] if v in arrived else _zeros(g, values[v])
    return g.finish(outputs)


def _with_rules(graph: Graph) -> Graph:
    """The graph with everything decomposed that has a decomposition but no gradient rule."""
    keep = [name for name, op in OPS.items() if hasattr(op, "gradient")]
    also = [name for name, op in OPS.items() if hasattr(op, "decompose") and not hasattr(op, "gradient")]
    return decompose(graph, keep=keep, also=also)


def _depending(graph: Graph, sources: Sequence[int], kinds: Sequence[str]) -> set[int]:
    """The values of these element types that depend on `sources`."""
    found = set(sources)
    for node in graph.nodes:
        if found.intersection(node.inputs):
            found.update(v for v in node.outputs if graph.types[v].dtype in kinds)
    return found


def _zeros(g: Builder, like: Value) -> Value:
    return g.broadcast_to(g.scalar(0, like.dtype), like.shape)


def _backward(g: Builder, node: Node, values: dict[int, Value], arrived: dict[int, Value], active: set[int],
              add: Callable[[int, Value], None]) -> None:  # fmt: skip
    """Pass what arrived at the results of a node on to its operands."""
    rule = getattr(node.op, "gradient", None)
    where = f" [layer {node.name}]" if node.name else ""
    if rule is None and all(values[v].dtype not in _FLOATS for v in node.outputs):
        return  # only reached where integers carry gradients
    if not isinstance(node.op, Movement) and all(values[v].dtype == "bool" for v in node.outputs):
        return  # truth values have no arithmetic
    if rule is None:
        raise UnsupportedError(
            f"{node.op.name}{where} has no gradient; take it with respect to inputs that do not pass through it"
        )
    g.layer, g.source = f"_backward_{node.name}" if node.name else "", node.source
    xs = tuple(values[v] for v in node.inputs)
    ys = tuple(values[v] for v in node.outputs)
    dys = tuple(arrived[v] if v in arrived else _zeros(g, values[v]) for v in node.outputs)
    for v, d in zip(node.inputs, rule(g, xs, ys, dys), strict=True):
        if d is None or v not in active:
            continue
        if d.type != values[v].type:
            raise GraphError(f"{node.op.name}{where}: the gradient of {values[v]!r} came out as {d!r}")
        add(v, d)
