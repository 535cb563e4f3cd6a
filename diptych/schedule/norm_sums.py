"""A normalisation whose rows products read becomes one kernel with the first step of those products.

Strassen's scheme multiplies sums of quarters of row pairs (kernels/strassen_rows.py). Where a LayerNorm comes before, its
kernel makes them while the rows are in L1, and gathers the rows first where their order changes (passes/rows.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diptych.kernels.strassen_rows import Norm, make_strassen_rows
from diptych.ops.base import attributes
from diptych.schedule.groups import ForProducts
from diptych.schedule.strassen import empty_sums, strassen_shape

if TYPE_CHECKING:
    from diptych.ir import Graph, Node
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group
    from diptych.schedule.views import View

__all__ = ["join_norms", "lower_norm_sums"]


def join_norms(graph: Graph, groups: list[Group], strict: bool) -> list[Group]:
    """The groups with `for_products` of normalisations filled in, and without the gathers that became part of them."""
    if strict:
        return groups
    uses, producer = graph.uses(), graph.producer()
    takes = {g.anchor.outputs[0]: g for g in groups if g.anchor is not None and g.anchor.op.name == "take"}
    gone: set[int] = set()
    for at, group in enumerate(groups):
        node = group.anchor
        if node is None or not _by_rows(graph, node) or group.prologue or group.epilogue:
            continue
        way, values, kept = _readers(graph, node, uses)
        if way is None:
            continue
        source = node.inputs[0]
        while source not in takes and source in producer and producer[source].op.name == "reshape":
            source = producer[source].inputs[0]
        before = takes.get(source)
        take = before.anchor if before is not None and id(before) not in gone and not before.epilogue else None
        if take is not None and not _gathers_rows(graph, take, way, graph.types[node.inputs[0]].shape[-1]):
            take = None
        others = _others(graph, source, node, uses) if take is not None else []
        earlier = {id(n) for g in groups[:at] for n in g.nodes}
        if any(id(n) in earlier for n in others):
            take, others = None, []
        if take is not None:
            gone.add(id(before))
        gathered = take is not None and bool(others or _is_output(graph, source, uses))
        group.for_products = ForProducts(way, values, take, gathered, kept)
    return [g for g in groups if id(g) not in gone]


def _by_rows(graph: Graph, node: Node) -> bool:
    """Whether a node normalises over its last axis alone, in f32, with one gamma and beta for all rows."""
    if node.op.name not in ("layer_norm", "rms_norm"):
        return False
    x, a = graph.types[node.inputs[0]], attributes(node.op)
    if x.dtype != "f32" or ("axis" in a and a["axis"] % len(x.shape) != len(x.shape) - 1):
        return False
    return all(graph.types[v].shape == x.shape[-1:] and graph.types[v].dtype == "f32" for v in node.inputs[1:])


def _readers(graph: Graph, node: Node, uses: dict[int, list[Node]],
             ) -> tuple[tuple[int, int, int] | None, tuple[int, ...], bool]:  # fmt: skip
    """How products take the rows, the values that they read, and whether anything else reads them."""
    ways: dict[tuple[int, int, int], list[int]] = {}
    besides: list[int] = []
    depth = graph.types[node.outputs[0]].shape[-1]
    fresh = [node.outputs[0]]
    while fresh:
        v = fresh.pop()
        if v in graph.outputs:
            besides.append(v)
        for n in uses.get(v, []):
            out = graph.types[n.outputs[0]].shape
            if n.op.name == "reshape" and out[-1:] == (depth,):
                fresh.append(n.outputs[0])
                continue
            way = _way(graph, n, v)
            if way is None:
                besides.append(v)
            else:
                ways.setdefault(way, []).append(v)
    if not ways:
        return None, (), True
    way = max(ways, key=lambda w: len(ways[w]))
    # A value that is read in two ways is given as rows to the rarer one.
    others = {v for w, vs in ways.items() if w != way for v in vs}
    values = tuple(dict.fromkeys(v for v in ways[way] if v not in others))
    return (way if values else None), values, bool(besides or others)


def _way(graph: Graph, node: Node, value: int) -> tuple[int, int, int] | None:
    """(batch, rows, half stretch) of a product that reads a value as its rows and takes Strassen's scheme."""
    if node.op.name != "mat_mul" or node.inputs[0] != value or node.inputs[1] not in graph.constants:
        return None
    flags, w = attributes(node.op), graph.types[node.inputs[1]].shape
    if len(w) != 2 or flags["transpose_a"] or graph.types[node.outputs[0]].dtype != "f32":
        return None
    return strassen_shape(graph.types[node.outputs[0]].shape, w[::-1] if flags["transpose_b"] else w, False)


def _gathers_rows(graph: Graph, take: Node, way: tuple[int, int, int], depth: int) -> bool:
    """Whether a take gathers whole rows at constant places, as many as there are."""
    data, index = graph.types[take.inputs[0]], graph.constants.get(take.inputs[1])
    if index is None or data.dtype != "f32" or attributes(take.op)["axis"] % len(data.shape) or len(data.shape) != 2:
        return False
    inside = bool(index.size) and index.min() >= 0 and index.max() < data.shape[0]
    return inside and data.shape[1] == depth and index.size == way[0] * way[1]


def _others(graph: Graph, value: int, node: Node, uses: dict[int, list[Node]]) -> list[Node]:
    """Who but `node` reads a value, as it is or reshaped."""
    found: list[Node] = []
    for n in uses.get(value, []):
        if n.op.name == "reshape":
            found += _others(graph, n.outputs[0], node, uses)
        elif n is not node:
            found.append(n)
    return found


def _is_output(graph: Graph, value: int, uses: dict[int, list[Node]]) -> bool:
    """Whether a value is a graph output, as it is or reshaped."""
    return value in graph.outputs or any(
        _is_output(graph, n.outputs[0], uses) for n in uses.get(value, []) if n.op.name == "reshape"
    )


def lower_norm_sums(ctx: Context, group: Group, wanted: ForProducts) -> None:
    """A normalisation with the gather before it and the sums for the products behind it."""
    node = group.anchor
    assert node is not None
    a = attributes(node.op)
    batch, rows, half = wanted.way
    depth = ctx.graph.types[node.inputs[0]].shape[-1]
    affine = [_dense(ctx, ctx.view(v)) for v in node.inputs[1:]]
    if wanted.take is not None:
        index = ctx.constant(wanted.take.inputs[1])
        assert index is not None
        count = ctx.graph.types[wanted.take.inputs[0]].shape[0]
        x = _rows(ctx, ctx.view(wanted.take.inputs[0]), (1, count, depth))
        inputs = [x, ctx.weights(index.astype("i4").reshape(batch, rows), "i32"), *affine]
    else:
        inputs = [_rows(ctx, ctx.view(node.inputs[0]), (batch, rows, depth)), *affine]
    outs, late = [], []
    for value, stored in ((wanted.take.outputs[0] if wanted.take else -1, wanted.gathered), (node.outputs[0], wanted.kept)):
        if not stored:
            continue
        out = ctx.result(value)
        written = out.reshape((batch, rows, depth))
        if written is None or written.strides[-1] != 1:
            written = ctx.temp((batch, rows, depth))
            late.append((written, out))
        outs.append(written)
    made = empty_sums(ctx, batch, rows, depth, half)
    outs += [made.sums, made.scales]
    norm = Norm(node.op.name, a["eps"], len(affine), wanted.take is not None, wanted.gathered, wanted.kept)
    kernel = make_strassen_rows([v.operand for v in inputs], [v.operand for v in outs], rows, half, norm=norm)
    ctx.call(kernel, [*inputs, *outs])
    for written, out in late:
        again = written.reshape(out.shape)
        assert again is not None
        ctx.copy_to(again, out)
    for v in wanted.values:
        ctx.row_sums[v] = made


def _rows(ctx: Context, view: View, shape: tuple[int, int, int]) -> View:
    """A view as rows with a dense last axis."""
    again = view.reshape(shape)
    if again is None or again.strides[-1] != 1:
        again = ctx.copy(view, "rows").reshape(shape)
    assert again is not None
    return again


def _dense(ctx: Context, view: View) -> View:
    return view if view.strides[-1] == 1 else ctx.copy(view, "scale of a normalisation")
