"""Which nodes share a kernel: fusion. Every refusal carries its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diptych.ops.base import Contraction, Elementwise, Reduction
from diptych.schedule.prologue import takes_prologue

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.ir import Graph, Node

__all__ = ["VIEWS", "ForProducts", "Group", "partition"]

VIEWS = frozenset({"reshape", "transpose", "broadcast_to", "slice"})
# Anchors whose kernels can apply an expression to their input / to their result.
PROLOGUE = frozenset({"softmax", "log_softmax", "layer_norm", "rms_norm"})
EPILOGUE = frozenset(
    {"blocked_conv", "blocked_conv_transpose", "narrow_conv", "mat_mul", "max_pool", "avg_pool", "lp_pool", "blocked_max_pool", "blocked_avg_pool", "resize", "blocked_resize", *PROLOGUE}
)
_REGION = 40  # nodes in one fused region at most


@dataclass(frozen=True, slots=True)
class ForProducts:
    """Products that take Strassen's scheme read a normalisation's rows: (batch, rows, half stretch) of the scheme, the
    values that they read, the gather before it, and whether the rows themselves are read besides."""

    way: tuple[int, int, int]
    values: tuple[int, ...]
    take: Node | None
    gathered: bool
    kept: bool


@dataclass(slots=True)
class Group:
    """Nodes that become one kernel: prologue -> anchor -> epilogue, or elementwise nodes alone (anchor None).

    `before` is a whole group whose result only this one reads, row by row as it is made (schedule/expand.py);
    `gate` is (image, factors): the anchor reads their product, and its weights take the factors (schedule/gate.py);
    `for_products` says what products make of a normalisation's rows, which its kernel then does (schedule/norm_sums.py).
    """

    anchor: Node | None
    prologue: list[Node] = field(default_factory=list)
    epilogue: list[Node] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    before: Group | None = None
    gate: tuple[int, int] | None = None
    for_products: ForProducts | None = None

    @property
    def nodes(self) -> list[Node]:
        taken = [self.for_products.take] if self.for_products is not None and self.for_products.take is not None else []
        return [*(self.before.nodes if self.before else []), *taken, *self.prologue, *([self.anchor] if self.anchor else []), *self.epilogue]

    @property
    def results(self) -> tuple[int, ...]:
        """The values that leave the group."""
        return (self.epilogue[-1] if self.epilogue else self.anchor).outputs  # type: ignore[union-attr]

    @property
    def name(self) -> str:
        names = dict.fromkeys(n.name for n in self.nodes if n.name)
        return " + ".join(names) or "+".join(n.op.name for n in self.nodes)


def partition(graph: Graph, fuse: bool = True, wanted: Callable[[Node, Node], bool] = lambda before, anchor: True) -> list[Group]:
    """Cut a graph into groups, in an order in which they can run.

    `wanted` has the last word on an elementwise node that could become part of the convolution after it.
    """
    return _Partition(graph, fuse, wanted).run()


class _Partition:
    def __init__(self, graph: Graph, fuse: bool, wanted: Callable[[Node, Node], bool]) -> None:
        self.graph = graph
        self.wanted = wanted
        self.fuse = fuse
        self.order = {id(n): i for i, n in enumerate(graph.nodes)}
        self.uses = graph.uses()
        self.outputs = set(graph.outputs)
        self.producer = graph.producer()
        self.taken: set[int] = set()  # id(node)

    def run(self) -> list[Group]:
        nodes = [n for n in self.graph.nodes if n.op.name not in VIEWS]
        anchors = [n for n in nodes if not isinstance(n.op, Elementwise)]
        for n in anchors:
            self.taken.add(id(n))
        # Contractions first: their epilogue saves a pass over memory, a row kernel's prologue only shares one.
        anchors.sort(key=lambda n: (not isinstance(n.op, Contraction), self.order[id(n)]))
        groups = [self.around(n) for n in anchors]
        for n in reversed(nodes):
            if id(n) not in self.taken:
                self.taken.add(id(n))
                group = Group(None, epilogue=[n])
                self.absorb(group, group.epilogue, self.graph.types[n.outputs[0]].shape)
                groups.append(group)
        groups.sort(key=lambda g: self.order[id(g.nodes[-1])])
        return groups

    def around(self, anchor: Node) -> Group:
        group = Group(anchor)
        if not self.fuse:
            return group
        shape = self.graph.types[anchor.outputs[0]].shape
        if (anchor.op.name in EPILOGUE or isinstance(anchor.op, Reduction)) and self.graph.types[anchor.outputs[0]].dtype == "f32":
            value = anchor.outputs[0]
            while (region := self.region(value, group)) is not None:
                group.epilogue += region
                value = region[-1].outputs[0]
            if group.epilogue:
                self.absorb(group, group.epilogue, shape, f32_operands=isinstance(anchor.op, Contraction))
        if anchor.op.name == "attention":
            group.prologue = self.mask_of(anchor)
            return group
        x = anchor.inputs[0] if anchor.inputs else -1
        node = self.producer.get(x)
        if node is None or not self.fusable(node, self.graph.types[x].shape) or not self.only_in(x, [anchor]):
            return group
        if anchor.op.name == "blocked_conv":
            why = takes_prologue(self.graph, anchor) or self.not_f32([node])
            if why is None and not self.wanted(node, anchor):
                why = "apart they were measured to be faster"
            if why is not None:
                group.refused.append(f"{node.op.name} {node.name} before {anchor.op.name}: {why}")
                return group
        elif anchor.op.name not in PROLOGUE and not isinstance(anchor.op, Reduction):
            return group
        self.taken.add(id(node))
        group.prologue = [node]
        self.absorb(group, group.prologue, self.graph.types[x].shape, only_f32=anchor.op.name == "blocked_conv")
        return group

    def mask_of(self, attention: Node) -> list[Node]:
        """The few operators that make the mask of an attention, if they make as much as there are scores of a head.

        A smaller one, as of padding, is better worked out once for all queries and heads.
        """
        if len(attention.inputs) < 4:
            return []
        value, reader = attention.inputs[3], attention
        while (node := self.producer.get(value)) is not None and self.only_in(value, [reader]) and node.op.name in VIEWS:
            value, reader = node.inputs[0], node
        (_, _, s, _), (_, _, t, _) = (self.graph.types[v].shape for v in attention.inputs[:2])
        out = self.graph.types[value]
        if node is None or not self.fusable(node, out.shape) or not self.only_in(value, [reader]):
            return []
        if out.size < s * t or out.dtype != "f32":
            return []
        nodes = [node]
        self.taken.add(id(node))
        self.absorb(Group(None), nodes, out.shape)
        return nodes

    def not_f32(self, nodes: list[Node]) -> str | None:
        """Why a kernel whose operands are all f32 cannot work these out."""
        types = [self.graph.types[v] for n in nodes for v in (*n.inputs, *n.outputs)]
        return next((f"{t} is not f32" for t in types if t.dtype != "f32"), None)

    def fusable(self, node: Node, shape: tuple[int, ...]) -> bool:
        out = self.graph.types[node.outputs[0]]
        return isinstance(node.op, Elementwise) and id(node) not in self.taken and out.shape == shape

    def only_in(self, value: int, nodes: list[Node]) -> bool:
        """Whether all readers of a value are among `nodes`."""
        return value not in self.outputs and all(any(u is n for n in nodes) for u in self.uses.get(value, []))

    def region(self, value: int, group: Group) -> list[Node] | None:
        """The smallest set of elementwise nodes that takes in all uses of `value` and has one exit."""
        shape = self.graph.types[value].shape
        if value in self.outputs:
            return None
        region: dict[int, Node] = {}
        fresh = list(self.uses.get(value, []))
        while fresh:
            for n in fresh:
                if not self.fusable(n, shape):
                    group.refused.append(
                        f"{n.op.name} {n.name}: " + ("not elementwise over the same shape" if id(n) not in self.taken
                                                     else "already part of another kernel"))  # fmt: skip
                    return None
                region[id(n)] = n
            if len(region) > _REGION:
                group.refused.append(f"more than {_REGION} elementwise operators")
                return None
            ordered = sorted(region.values(), key=lambda n: self.order[id(n)])
            exits = [n for n in ordered if not self.only_in(n.outputs[0], ordered)]
            if len(exits) == 1 and exits[0] is ordered[-1]:
                if self.graph.types[ordered[-1].outputs[0]].dtype != "f32":
                    group.refused.append(f"{ordered[-1].op.name}: result is not f32")
                    return None
                why = self.foreign(value, ordered) if group.anchor is not None and isinstance(group.anchor.op, Contraction) else None
                if why is not None:
                    group.refused.append(why)
                    return None
                self.taken.update(region)
                return ordered
            if any(n.outputs[0] in self.outputs for n in exits[:-1]):
                group.refused.append(f"{exits[0].op.name} {exits[0].name}: is a graph output too")
                return None
            fresh = [u for n in exits[:-1] for u in self.uses.get(n.outputs[0], []) if id(u) not in region]
        return None

    def read_as_f32(self, value: int) -> bool:
        """Whether a contraction's epilogue can read a value: it loads f32, and has single constants in its code."""
        t, constant = self.graph.types[value], self.graph.constants.get(value)
        return t.dtype == "f32" or (constant is not None and constant.size == 1 and t.dtype != "bf16")

    def foreign(self, value: int, region: list[Node]) -> str | None:
        """Why a contraction that makes `value` cannot work out a region: an operand that is not f32, nor made of such inside."""
        made = {value, *(n.outputs[0] for n in region)}
        for n in region:
            for v in n.inputs:
                if v in made or self.read_as_f32(v):
                    continue
                p = self.producer.get(v)
                if (p is None or not self.fusable(p, self.graph.types[value].shape) or not self.only_in(v, region)
                        or not all(self.read_as_f32(u) for u in p.inputs)):  # fmt: skip
                    return f"{n.op.name} {n.name}: an operand is {self.graph.types[v]}, not f32"
        return None

    def absorb(self, group: Group, nodes: list[Node], shape: tuple[int, ...], only_f32: bool = False,
               f32_operands: bool = False) -> None:  # fmt: skip
        """Draw elementwise producers into `nodes` whose every reader is there already."""
        if not self.fuse:
            return
        changed = True
        while changed and len(nodes) < _REGION:
            changed = False
            for v in list(dict.fromkeys(v for n in nodes for v in n.inputs)):
                p = self.producer.get(v)
                if p is not None and only_f32 and self.not_f32([p]):
                    continue
                if p is not None and f32_operands and not all(self.read_as_f32(u) for u in p.inputs):
                    continue
                if p is not None and self.fusable(p, shape) and self.only_in(v, nodes):
                    self.taken.add(id(p))
                    nodes.append(p)
                    nodes.sort(key=lambda n: self.order[id(n)])
                    changed = True
