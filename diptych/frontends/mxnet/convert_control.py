"""Operators that hold graphs: loops are unrolled, both branches of a condition computed, fused groups taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.errors import FormatError
from diptych.frontends.mxnet.convert import CONVERTERS, Call, convert_node, converts
from diptych.frontends.mxnet.convert_slice import cut
from diptych.frontends.mxnet.symbol_schema import output_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.convert import Result
    from diptych.frontends.mxnet.symbol_graph import SymbolGraph
    from diptych.ir import Value

MAX_STEPS = 4096  # an unrolled loop past this would make a graph nobody can compile


def inline(c: Call, graph: SymbolGraph, inputs: Sequence[Value]) -> list[Value]:
    """Emit a subgraph with these values for its inputs (in the order in which it lists them); its results."""
    if len(inputs) != len(graph.arg_nodes):
        raise FormatError(
            f"{c.op} (layer {c.layer}): a subgraph takes {len(graph.arg_nodes)} inputs, {len(inputs)} given"
        )
    env = {(i, 0): value for i, value in zip(graph.arg_nodes, inputs)}
    for i, node in enumerate(graph.nodes):
        if node.op is None:
            continue
        if node.op not in CONVERTERS:
            raise c.fail(f"its subgraph uses {node.op} (layer {node.name}), which is not supported")
        operands = tuple(env[e] for e in node.inputs)
        count = output_count(node.op, node.attrs, visible=True)
        results = convert_node(c.g, node, operands, count, np_shape=c.np_shape)
        env.update({(i, k): value for k, value in enumerate(results)})
    c.g.layer = c.layer
    return [env[head] for head in graph.heads]


@converts("_foreach")
def _foreach(c: Call) -> Result:
    a = c.attrs
    body = c.subgraphs[0]
    data_at, state_at, rest_at = (a.shape(f"{n}_locs", ()) for n in ("in_data", "in_state", "remain"))
    count = a.integer("num_out_data")
    data = c.inputs[: len(data_at)]
    states = list(c.inputs[len(data_at) : len(data_at) + len(state_at)])
    rest = c.inputs[len(data_at) + len(state_at) :]
    steps = data[0].shape[0]
    if steps > MAX_STEPS:
        raise c.fail(f"a loop of {steps} steps is too long to unroll", f"at most {MAX_STEPS} are")
    collected: list[list[Value]] = [[] for _ in range(count)]
    for t in range(steps):
        bound = dict(zip(data_at, (c.reshape(cut(c, x, 0, t, t + 1), x.shape[1:]) for x in data)))
        bound |= dict(zip(state_at, states)) | dict(zip(rest_at, rest))
        results = inline(c, body, [bound[k] for k in range(len(bound))])
        for parts, value in zip(collected, results):
            parts.append(value)
        states = results[count:]
    return (*(c.g.stack(parts, 0) for parts in collected), *states)


@converts("_cond")
def _cond(c: Call) -> Result:
    def branch(k: int, which: str) -> list[Value]:
        return inline(c, c.subgraphs[k], [c.arg(i) for i in c.attrs.shape(f"{which}_input_locs", ())])

    (predicate,) = branch(0, "cond")
    chosen = c.truth(c.reshape(predicate, ()))
    return tuple(c.g.where(chosen, x, y) for x, y in zip(branch(1, "then"), branch(2, "else")))


@converts("_sg_mkldnn_conv", "_sg_mkldnn_fully_connected", "_CachedOp")
def _group(c: Call) -> Result:
    if c.attrs.boolean("quantized", False):
        raise c.fail("it computes in 8-bit integers, which is not supported", "load the float checkpoint of this model")
    return tuple(inline(c, c.subgraphs[0], c.inputs))
