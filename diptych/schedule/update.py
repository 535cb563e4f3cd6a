"""Writing at a computed place, into a copy or into an input itself: what lets a cache stay where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.errors import InputError
from diptych.kernels.pointwise import make_copy
from diptych.kernels.update import make_update_at
from diptych.ops.base import attributes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.ir import Graph
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["lower_update_at", "updated_inputs"]


def updated_inputs(graph: Graph, in_place: Sequence[tuple[str, str]]) -> dict[int, int]:
    """Output value -> the graph input in whose place it lies. InputError where that would change what another node reads."""
    inputs = dict(zip(graph.input_names, graph.inputs, strict=True))
    outputs = dict(zip(graph.output_names, graph.outputs, strict=True))
    producer, uses = graph.producer(), graph.uses()
    found: dict[int, int] = {}
    for out, source in in_place:
        if out not in outputs or source not in inputs:
            raise InputError(f"in_place names output {out!r} and input {source!r}: the graph has {[*outputs]} and {[*inputs]}")
        v, x = outputs[out], inputs[source]
        node = producer.get(v)
        if node is None or node.op.name != "slice_update_at" or node.inputs[0] != x:
            raise InputError(f"output {out!r} cannot lie in input {source!r}: it is not made from it by slice_update_at")
        if v in found or uses[x] != [node] or x in graph.outputs or x in node.inputs[1:] or graph.outputs.count(v) > 1:
            raise InputError(f"output {out!r} cannot lie in input {source!r}: that input is read elsewhere too, or named twice")
        found[v] = x
    last = set(graph.inputs[len(graph.inputs) - len(found) :])
    if set(found.values()) != last:
        raise InputError("inputs that are updated in place must come after all other inputs, each of them once")
    return found


def lower_update_at(ctx: Context, group: Group) -> None:
    """slice_update_at: the rows alone where the result lies in the input, else after a copy of it."""
    node = group.anchor
    assert node is not None
    data, update, start = (ctx.view(v) for v in node.inputs)
    out = ctx.result(node.outputs[0])
    axis = attributes(node.op)["axis"] % len(out.shape)
    if data != out:
        ctx.call(make_copy(data.operand, out.operand, ctx.target), (data, out))
    if 0 not in update.shape:
        ctx.call(make_update_at(update.operand, start.operand, axis, out.operand, ctx.target), (update, start, out))
