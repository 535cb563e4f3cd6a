"""Prove that the rows of a batch are independent: what lets any batch size run in pieces of compiled sizes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.ops.base import Composite, Contraction, Elementwise, Reduction, attributes, normalize_axis
from diptych.passes.decompose import decompose

if TYPE_CHECKING:
    from diptych.ir import Graph, Node

__all__ = ["mixing_node"]

_NAMED = {  # operators whose axis 0 (a batch of images, of sequences ...) is independent by definition
    "conv", "conv_transpose", "max_pool", "avg_pool", "lp_pool", "adaptive_avg_pool", "adaptive_max_pool", "resize",
}  # fmt: skip
_ALONG_AXIS = {"softmax", "log_softmax", "cum_sum", "cum_prod", "arg_max", "arg_min", "sort", "top_k", "gather"}
# Time-major recurrent layers: which operands and results carry the batch on axis 1 (of x, y) or axis 0 (of states).
_RECURRENT = {"lstm": ((0, 4, 5), (1, 0, 0)), "gru": ((0, 5, 6), (1, 0)), "rnn": ((0, 4, 5), (1, 0))}


class _Mixed(Exception):
    """A node makes a row depend on another, or is not known to keep them apart."""


def mixing_node(graph: Graph) -> str | None:
    """Why the rows of axis 0 of the inputs are not shown to be independent; None when they are.

    Every value is followed by the axis its batch lies on, and by how many rows of that axis belong to one entry (a
    reshape may merge [batch, time] to one axis). Every graph input must have the batch on axis 0.
    """
    graph = decompose(graph)
    sizes = {graph.types[v].shape[:1] for v in graph.inputs}
    if len(sizes) != 1 or () in sizes:
        return "the inputs do not share one extent of axis 0"
    batch = sizes.pop()[0]
    where: dict[int, int | None] = dict.fromkeys(graph.inputs, 0)  # axis; None: the same for every entry
    where |= dict.fromkeys(graph.constants, None)
    for node in graph.nodes:
        axes = [where[v] for v in node.inputs]
        if all(a is None for a in axes):
            where |= dict.fromkeys(node.outputs, None)
            continue
        try:
            result = _follow(graph, node, axes, batch)
        except _Mixed as e:
            return f"{node.op.name} {node.name}: {e}"
        where |= dict(zip(node.outputs, result, strict=True))
    for name, v in zip(graph.output_names, graph.outputs, strict=True):
        if where[v] != 0 or graph.types[v].shape[0] != batch:
            return f"output {name!r} does not have the batch on axis 0"
    return None


def _follow(graph: Graph, node: Node, axes: list[int | None], batch: int) -> list[int | None]:
    op, a = node.op, attributes(node.op)
    shapes = [graph.types[v].shape for v in node.inputs]
    out = graph.types[node.outputs[0]].shape
    x = axes[0]
    assert not isinstance(op, Composite)
    if isinstance(op, Elementwise):
        found = set()
        for axis, shape in zip(axes, shapes, strict=True):
            if axis is not None:
                found.add(axis + len(out) - len(shape))
        if len(found) != 1:
            raise _Mixed("operands have the batch on different axes")
        at = found.pop()
        for v, axis, shape in zip(node.inputs, axes, shapes, strict=True):
            own = at - (len(out) - len(shape))
            if axis is None and own >= 0 and shape[own] != 1 and not _uniform(graph, v, own):
                raise _Mixed("a constant operand differs from one batch entry to the next")
        return [at]
    if op.name == "reshape":
        assert x is not None
        before = prod(shapes[0][:x])
        at = 0
        while at < len(out) and prod(out[:at]) != before:
            at += 1
        if at == len(out) or prod(out[:at]) != before or out[at] % batch or shapes[0][x] % batch:
            raise _Mixed(f"the batch axis is cut up by the reshape {shapes[0]} -> {out}")
        return [at]
    if op.name == "transpose":
        return [a["perm"].index(x)]
    if op.name == "broadcast_to":
        assert x is not None
        return [x + len(out) - len(shapes[0])]
    if op.name == "slice":
        assert x is not None
        if (a["starts"][x], a["stops"][x], a["steps"][x]) != (0, shapes[0][x], 1):
            raise _Mixed("it slices the batch axis")
        return [x]
    if op.name in ("concat", "pad"):
        present = {axis for axis in axes if axis is not None}
        axis = a.get("axis")
        if len(present) != 1 or axis in present or (op.name == "pad" and a["pads"][x] != (0, 0)):
            raise _Mixed("it joins or pads along the batch axis")
        at = present.pop()
        if any(w is None and not _uniform(graph, v, at) for v, w in zip(node.inputs, axes, strict=True)):
            raise _Mixed("a constant operand differs from one batch entry to the next")
        return [at]
    if isinstance(op, Reduction):
        if x in a["axes"]:
            raise _Mixed("it reduces over the batch axis")
        assert x is not None
        return [x if a["keepdims"] else x - sum(r < x for r in a["axes"])]
    if op.name == "mat_mul":
        return [_matmul(axes, shapes, out, a)]
    if op.name in _NAMED or (isinstance(op, Contraction) and op.name != "mat_mul"):
        if x != 0 or any(w is not None for w in axes[1:]):
            raise _Mixed("its batch is not on axis 0, or its weights depend on the input")
        return [0] * len(node.outputs)
    if op.name == "layer_norm" or op.name in _ALONG_AXIS:
        along = normalize_axis(a["axis"], len(shapes[0]))
        bad = x is None or (x >= along if op.name == "layer_norm" else x == along)
        if bad or any(w is not None and w != x for w in axes[1:]):
            raise _Mixed("it works along the batch axis")
        assert x is not None
        dropped = op.name in ("arg_max", "arg_min") and not a["keepdims"] and along < x
        return [x - dropped] * len(node.outputs)
    if op.name == "take":
        if x is not None or axes[1] is None:
            raise _Mixed("it picks from data that depends on the input")
        return [axes[1] + a["axis"]]
    if op.name == "one_hot":
        return [x]
    if op.name in (*_RECURRENT, "lstm_general"):
        if op.name == "lstm_general":
            states = 4 + a["projected"]
            carried: tuple[int, ...] = (0, *range(states, len(axes)))
            lies: tuple[int, ...] = (1, 0, 0)
        else:
            carried, lies = _RECURRENT[op.name]
        for i, w in enumerate(axes):
            expected = (1 if i == 0 else 0) if i in carried else None
            if w != expected and not (w is None and i in carried and _uniform(graph, node.inputs[i], expected or 0)):
                raise _Mixed("its batch is not on axis 1 of a time-major sequence")
        return list(lies)
    raise _Mixed("this operator is not known to keep batch entries apart")


def _matmul(axes: list[int | None], shapes: list[tuple[int, ...]], out: tuple[int, ...], a: dict[str, bool]) -> int:
    left, right = (
        None if w is None else w + len(out) - len(s) for w, s in zip(axes, shapes, strict=True)
    )  # counted in the result's axes
    rank = len(out)
    if left is not None and left >= rank - 2:
        row = rank - (1 if a["transpose_a"] else 2)
        if left != row or right is not None:
            raise _Mixed("it sums over the batch axis")
        return rank - 2
    if right is not None and right >= rank - 2:
        raise _Mixed("the batch lies on a matrix axis of the right operand")
    if left is not None and right is not None and left != right:
        raise _Mixed("operands have the batch on different axes")
    found = left if left is not None else right
    assert found is not None
    return found


def _uniform(graph: Graph, value: int, axis: int) -> bool:
    """Whether a value that no input reaches is the same at every position of `axis`."""
    array = graph.constants.get(value)
    if array is None:
        node = next(n for n in graph.nodes if value in n.outputs)
        if node.op.name != "broadcast_to":
            return False
        own = graph.types[node.inputs[0]].shape
        at = axis - (graph.types[value].rank - len(own))
        return at < 0 or own[at] == 1 or _uniform(graph, node.inputs[0], at)
    return axis >= array.ndim or bool(np.all(array == np.take(array, [0], axis)))
