"""Find attention written out as products and a softmax, and bring attention operators into the form with the least work."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.ops.attention import Attention
from diptych.ops.base import attributes
from diptych.passes.fold import simplify
from diptych.passes.rebuild import rebuild

if TYPE_CHECKING:
    from diptych.ir import Array, Graph, Node, Value
    from diptych.ops.build import Builder

__all__ = ["find_attention"]

_HIDDEN = -1e30  # a finite mask value at or below this hides a key: no score that means anything can outweigh it


def find_attention(graph: Graph) -> Graph:
    """softmax(q k^T * scale + masks) v in single nodes; their repeated key heads and constant masks made plain.

    The forms are those that transformers, timm, torch.nn and GluonNLP write: a scale on the query, on the key or on the
    scores, as factor or divisor; masks that are added or filled in, also in another grouping of the leading axes.
    A graph where the weights themselves are wanted keeps them.
    """
    return simplify(_plain(simplify(_found(simplify(graph)))))


# -- finding ----------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Match:
    """What a written-out attention consists of (values of the old graph)."""

    q: int
    k: int
    v: int
    k_transposed: bool  # k is [..., D, T]
    v_transposed: bool
    scale: float = 1.0
    added: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)  # masks, and the scores' shape where they are
    moves: dict[int, tuple[int, list[Node]]] = field(default_factory=dict)  # what a value is made of without its factors, and how
    filled: list[tuple[int, bool, float, tuple[int, ...]]] = field(default_factory=list)  # condition, where it hides, value


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.producer, self.uses = graph, graph.producer(), graph.uses()

    def node(self, value: int, *names: str) -> Node | None:
        """The node of one of these operators that makes `value` for one reader alone."""
        n = self.producer.get(value)
        if n is None or n.op.name not in names or len(self.uses.get(value, [])) != 1 or value in self.graph.outputs:
            return None
        return n

    def number(self, value: int) -> float | None:
        array = self.graph.constants.get(value)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def match(self, last: Node) -> _Match | None:
        """The attention whose last product is `last`."""
        graph = self.graph
        flags = attributes(last.op)
        weights, v = last.inputs
        softmax = self.node(weights, "softmax")
        if flags["transpose_a"] or softmax is None or graph.types[last.outputs[0]].dtype != "f32":
            return None
        scores = softmax.inputs[0]
        rank = len(graph.types[scores].shape)
        if rank < 3 or attributes(softmax.op)["axis"] % rank != rank - 1:
            return None
        found = _Match(-1, -1, v, False, flags["transpose_b"])
        product = self.peel(scores, found)
        if product is None:
            return None
        flags = attributes(product.op)
        found.q, found.k = product.inputs
        found.k_transposed = not flags["transpose_b"]
        if flags["transpose_a"] or not self.fits(found):
            return None
        for x in (found.q, found.k):
            found.moves[x] = self.scaled(x, found)
        return found

    def fits(self, m: _Match) -> bool:
        """Whether the operands have the same leading axes (key heads may be one)."""
        q, k, v = (self.graph.types[x].shape for x in (m.q, m.k, m.v))
        if len(q) < 3 or len(k) != len(q) or len(v) != len(q) or 0 in (*q, *k, *v):
            return False
        return k[:-2] == v[:-2] and k[:-3] == q[:-3] and k[-3] in (1, q[-3])

    def peel(self, value: int, m: _Match) -> Node | None:
        """Take scale and masks off the scores; the product that is left."""
        while (n := self.node(value, "mat_mul", "mul", "div", "add", "where", "reshape")) is not None:
            own = self.graph.types[value].shape
            if n.op.name == "mat_mul":
                return n
            if n.op.name == "reshape":
                value = n.inputs[0]
                if self.graph.types[value].shape[-2:] != own[-2:]:
                    return None
            elif n.op.name in ("mul", "div"):
                factor, x = self.factor(n)
                if factor is None:
                    return None
                m.scale *= factor
                value = x
            elif m.scale != 1.0:
                return None  # a mask that is scaled too
            elif n.op.name == "add":
                side = next((i for i in (0, 1) if self.leads(n.inputs[i]) and self.graph.types[n.inputs[i]].shape == own), None)
                if side is None:
                    return None
                m.added.append((n.inputs[1 - side], own))
                value = n.inputs[side]
            else:
                cond, yes, no = n.inputs
                low, x, hides = (self.number(yes), no, True) if self.number(yes) is not None else (self.number(no), yes, False)
                if low is None or low > _HIDDEN or self.graph.types[x].shape != own:
                    return None
                m.filled.append((cond, hides, low, own))
                value = x
        return None

    def leads(self, value: int) -> bool:
        """Whether a value is scores: a product, scaled or masked."""
        n = self.node(value, "mat_mul", "mul", "div", "add", "where", "reshape")
        if n is None:
            return False
        if n.op.name == "mat_mul":
            return n.inputs[1] not in self.graph.constants
        return any(self.leads(v) for v in (n.inputs[1:] if n.op.name == "where" else n.inputs))

    def factor(self, n: Node) -> tuple[float | None, int]:
        """(c, x) of x * c, c * x or x / c."""
        a, b = n.inputs
        number, x = (self.number(b), a) if self.number(b) is not None or n.op.name == "div" else (self.number(a), b)
        if number is None or self.graph.types[x].shape != self.graph.types[n.outputs[0]].shape:
            return None, x
        if n.op.name == "div":
            return (1.0 / number if number else None), x
        return number, x

    def scaled(self, value: int, m: _Match) -> tuple[int, list[Node]]:
        """Factors on a query or key go to the scale: what is left of the value, and the movements from there."""
        left = value
        moves: list[Node] = []
        passed: list[Node] = []
        while (n := self.node(value, "mul", "div", "reshape", "transpose")) is not None:
            if n.op.name in ("reshape", "transpose"):
                passed.insert(0, n)
                value = n.inputs[0]
                continue
            factor, value = self.factor(n)
            if factor is None:
                break
            m.scale *= factor
            left, moves = value, list(passed)
        return left, moves


def _found(graph: Graph) -> Graph:
    finder = _Finder(graph)
    fresh: dict[int, Value] = {}  # values of the old graph that nodes read -> the same in the new one

    def visit(g: Builder, node: Node, xs: tuple[Value, ...]) -> Value | None:
        fresh.update(zip(node.inputs, xs, strict=True))
        m = finder.match(node) if node.op.name == "mat_mul" else None
        return None if m is None else _emit(g, m, fresh, graph.types[node.outputs[0]].shape, finder)

    return rebuild(graph, visit)


def _emit(g: Builder, m: _Match, fresh: dict[int, Value], shape: tuple[int, ...], finder: _Finder) -> Value:
    q, k = (_moved(g, fresh[m.moves[x][0]], m.moves[x][1]) for x in (m.q, m.k))
    v = fresh[m.v]
    if m.k_transposed:
        k = _swapped(g, k)
    if m.v_transposed:
        v = _swapped(g, v)
    lead = q.shape[:-2]
    batch, heads = _split(m, finder, lead)
    scores = (batch, heads, q.shape[-2], k.shape[-2])
    mask: Value | None = None
    for value, own in m.added:
        part = _mask(g, fresh[value], own, scores)
        mask = part if mask is None else g.add(mask, part)
    for cond, hides, low, own in m.filled:
        c = _mask(g, fresh[cond], own, scores)
        part = g.where(c, low, 0.0) if hides else g.where(c, 0.0, low)
        mask = part if mask is None else g.add(mask, part)
    operands = [g.reshape(q, (batch, heads, *q.shape[-2:]))]
    operands += [g.reshape(x, (batch, x.shape[-3] if x.shape[-3] != lead[-1] else heads, *x.shape[-2:])) for x in (k, v)]
    if mask is not None:
        operands.append(mask)
    # softmax of nothing but -inf is NaN
    out = g.emit(Attention(scale=m.scale, unseen="nan" if mask is not None else "zeros"), *operands)
    return g.reshape(out, shape)


def _split(m: _Match, finder: _Finder, lead: tuple[int, ...]) -> tuple[int, int]:
    """Batch and heads. Where they come as one axis, the operand may still know what was joined."""
    if len(lead) > 1:
        return prod(lead[:-1]), lead[-1]
    types, value = finder.graph.types, m.q
    after = types[value].shape
    while (n := finder.producer.get(value)) is not None and n.op.name in ("mul", "div", "reshape"):
        before = types[n.inputs[0]].shape
        if len(before) == 4 and before[2:] == after[1:] and types[m.k].shape[0] == lead[0]:
            return before[0], before[1]
        if n.op.name != "reshape" and before != after:
            break
        value = n.inputs[0]
    return lead[0], 1


def _moved(g: Builder, x: Value, moves: list[Node]) -> Value:
    for node in moves:
        x = g.emit(node.op, x)
    return x


def _swapped(g: Builder, x: Value) -> Value:
    return g.transpose(x, (*range(x.rank - 2), x.rank - 1, x.rank - 2))


def _mask(g: Builder, mask: Value, own: tuple[int, ...], scores: tuple[int, ...]) -> Value:
    """A mask that broadcasts to scores of shape `own`, for scores[B, H, S, T] of the same elements."""
    padded = (1,) * (len(own) - mask.rank) + mask.shape
    if all(d == 1 for d in padded[:-2]):
        return g.reshape(mask, (1, 1, *padded[-2:]))
    if len(own) == 4 and own == scores:
        return g.reshape(mask, padded)
    return g.reshape(g.broadcast_to(mask, (*own[:-2], *padded[-2:])), (*scores[:2], *padded[-2:]))


# -- what found attention is really about -----------------------------------------------------------------------------
def _plain(graph: Graph) -> Graph:
    """Attention without repeated key heads, and with constant masks as attributes where attributes can say them."""
    producer = graph.producer()
    fresh: dict[int, Value] = {}

    def visit(g: Builder, node: Node, xs: tuple[Value, ...]) -> Value | None:
        fresh.update(zip(node.inputs, xs, strict=True))
        if node.op.name != "attention":
            return None
        q, k, v, *masks = xs
        sources = [_unrepeated(graph, producer, value) for value in node.inputs[1:3]]
        if sources[0] is not None and sources[1] is not None:
            one, other = fresh[sources[0]], fresh[sources[1]]
            if one.shape[1] == other.shape[1]:
                k, v = (g.reshape(s, (x.shape[0], s.shape[1], *x.shape[2:])) for s, x in ((one, k), (other, v)))
        a = dict(attributes(node.op))
        if masks:
            array = g.constant_array(masks[0])
            if array is not None:
                scores = (q.shape[2], k.shape[2])
                offset = _causal(array, scores) if not a["causal"] else None
                if not array.any():
                    masks = []
                elif offset is not None:
                    a["causal"], a["offset"], masks = True, offset, []
                if not masks or not np.isneginf(array).all(-1).any():
                    a["unseen"] = "zeros"  # there is no such row
        return g.emit(Attention(**a), q, k, v, *masks)

    return rebuild(graph, visit)


def _causal(mask: Array, scores: tuple[int, int]) -> int | None:
    """The offset with which a causal attention sees what this mask leaves to be seen."""
    s, t = scores
    if mask.shape[-2:] != (s, t):
        return None
    grids = mask.reshape(-1, s, t)
    grid = grids[0]
    if not (grids == grid).all():
        return None
    offset = int((grid[0] == 0).sum()) - 1
    seen = np.tri(s, t, offset, dtype=np.bool_)
    if offset < 0 or not np.array_equal(grid == 0, seen) or not (grid[~seen] <= _HIDDEN).all():
        return None
    return offset


def _unrepeated(graph: Graph, producer: dict[int, Node], value: int) -> int | None:
    """What [B, H, T, D] repeats along its heads: the source of [B, Hk, n, T, D] read as [B, Hk * n, T, D]."""
    joined = producer.get(value)
    if joined is None or joined.op.name != "reshape":
        return None
    wide = producer.get(joined.inputs[0])
    if wide is None or wide.op.name != "broadcast_to":
        return None
    out, five, before = (graph.types[v].shape for v in (value, joined.inputs[0], wide.inputs[0]))
    if len(five) != 5 or (five[0], *five[3:]) != (out[0], *out[2:]):
        return None
    return wide.inputs[0] if before == (*five[:2], 1, *five[3:]) else None
