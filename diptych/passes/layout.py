"""Give convolution regions the channel-blocked layout; conversions stand only where the region ends."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.ops.base import Elementwise, attributes
from diptych.ops.blocked import (
    BLOCK,
    BlockedAvgPool,
    BlockedConv,
    BlockedConvTranspose,
    BlockedMaxPool,
    BlockedResize,
    NarrowConv,
    PackChannels,
    UnpackChannels,
    in_block,
)
from diptych.ops.build import Builder
from diptych.ops.conv_gradient import BlockedConvWeightGradient
from diptych.passes.layout_last import channels_inside, channels_last
from diptych.passes.layout_weights import as_convolution, flipped, merge_groups, merged_count, split_groups

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.ir import Graph, Node, Value

__all__ = ["Forms", "block_channels"]

_FEW_CHANNELS = 4  # at most this many input channels: the convolution reads the plain image
_FEW_OUTPUTS = 4  # at most this many output channels: a block of 16 would be mostly zeros
_FEW_PIXELS = 64  # fewer are not worth a result of another layout


@dataclass(slots=True)
class Forms:
    """The forms of one value; at least one is there.

    `blocked` is the blocked form of [N, C, *S]. `last` is that of a channels-last tensor [N, *S, C] of whole blocks: the
    same [N, C/16, *S, 16], so that exchanging the channel axis with the others changes nothing but the name.
    """

    plain: Value | None = None
    blocked: Value | None = None
    last: Value | None = None


def block_channels(graph: Graph) -> Graph:
    """Rewrite f32 convolutions and their gradients, and what lies between them, to [N, C/16, *S, 16]."""
    return _Pass(graph).run()


class _Pass:
    """One walk over one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.g = Builder(graph.name)
        self.env: dict[int, Forms] = {}

    # -- the two forms of a value -------------------------------------------------------------------------------
    def plain(self, v: int) -> Value:
        both = self.env[v]
        if both.plain is None and both.last is not None:
            inside = channels_inside(self.g, both.last)
            both.plain = self.g.reshape(inside, (*inside.shape[:-2], inside.shape[-2] * BLOCK))
        if both.plain is None:
            x = both.blocked
            assert x is not None
            n, c, *spatial = self.graph.types[v].shape
            if prod(spatial) == 1:  # a block of one pixel is a row of channels: a view
                rows = self.g.reshape(x, (n, x.shape[1] * BLOCK))
                both.plain = self.g.reshape(self.g.slice(rows, (0, 0), (n, c)), (n, c, *spatial))
            else:
                both.plain = self.g.emit(UnpackChannels(c), x)
        return both.plain

    def blocked(self, v: int) -> Value:
        both = self.env[v]
        if both.blocked is None:
            assert both.plain is not None
            both.blocked = self.pack(both.plain)
        return both.blocked

    def last(self, v: int) -> Value | None:
        """The blocked form of a channels-last value, if it has one."""
        return self.env[v].last

    def pack(self, x: Value) -> Value:
        array = self.g.constant_array(x)
        if array is not None:
            return self.g.constant(np.asarray(PackChannels().reference(array)), x.dtype)
        n, c, *spatial = x.shape
        if prod(spatial) == 1 and c % BLOCK == 0:
            return self.g.reshape(x, (n, c // BLOCK, *spatial, BLOCK))
        return self.g.emit(PackChannels(), x)

    def is_blocked(self, v: int) -> bool:
        return self.env[v].blocked is not None

    # -- the walk -----------------------------------------------------------------------------------------------
    def run(self) -> Graph:
        graph, g = self.graph, self.g
        for name, v in zip(graph.input_names, graph.inputs, strict=True):
            self.env[v] = Forms(plain=g.input(name, graph.types[v]))
        for v, array in graph.constants.items():
            self.env[v] = Forms(plain=g.constant(array, graph.types[v].dtype, graph.constant_names.get(v, "")))
        for node in graph.nodes:
            g.layer, g.source = node.name, node.source
            rule: Callable[[_Pass, Node], Value | None] | None = _RULES.get(node.op.name)
            if rule is None and isinstance(node.op, Elementwise):
                rule = _Pass.elementwise
            forms = channels_last(self, node) if len(node.outputs) == 1 else None
            if forms is not None:
                self.env[node.outputs[0]] = forms
                continue
            if node.op.name == "conv_weight_gradient" and (dw := self.weight_gradient(node)) is not None:
                self.env[node.outputs[0]] = Forms(plain=dw)
                continue
            if node.op.name == "conv" and (y := self.narrow(node)) is not None:
                self.env[node.outputs[0]] = Forms(plain=y)
                continue
            result = rule(self, node) if rule is not None and len(node.outputs) == 1 else None
            if result is not None:
                self.env[node.outputs[0]] = Forms(blocked=result)
                continue
            pooled = self.pooled(node)
            if pooled is not None:
                self.env[node.outputs[0]] = Forms(plain=pooled)
                continue
            outs = g.emit_all(node.op, *(self.plain(v) for v in node.inputs))
            for v, out in zip(node.outputs, outs, strict=True):
                self.env[v] = Forms(plain=out)
            if node.op.name == "transpose":
                self.channels_first(node)
        return g.finish({n: self.plain(v) for n, v in zip(graph.output_names, graph.outputs, strict=True)})

    def channels_first(self, node: Node) -> None:
        """[N, *S, C] -> [N, C, *S] with whole blocks: the blocked form is a view of the channels-last tensor."""
        x, v = self.plain(node.inputs[0]), node.outputs[0]
        last, c = x.rank - 1, x.shape[-1]
        perm = (0, last, *range(1, last))
        if x.rank in (3, 4, 5) and attributes(node.op)["perm"] == perm and x.dtype == "f32" and c and c % BLOCK == 0:
            split = self.g.reshape(x, (*x.shape[:-1], c // BLOCK, BLOCK))
            self.env[v].blocked = self.g.transpose(split, (*perm, x.rank))

    # -- rules: the blocked result, or None to stay plain ---------------------------------------------------------
    def conv(self, node: Node) -> Value | None:
        if not self.f32_images(node):
            return None
        x, weight, *bias = node.inputs
        a, g = attributes(node.op), self.g
        w, groups = self.plain(weight), a["groups"]
        c = self.graph.types[x].shape[1]
        constant = all(g.constant_array(v) is not None for v in (w, *map(self.plain, bias)))
        if not _depthwise(c, groups, w.shape) and not (constant and in_block(w.shape, groups)):
            w, groups = merge_groups(g, w, groups)
        plain_input = self.reads_plain(x, groups)
        op = BlockedConv(a["strides"], a["pads"], a["dilations"], groups, plain_input)
        return g.emit(op, self.plain(x) if plain_input else self.blocked(x), w, *(self.plain(v) for v in bias))

    def narrow(self, node: Node) -> Value | None:
        """A convolution to a few channels: its result is plain, and so is the input where it is at hand."""
        x, weight, *bias = node.inputs
        a, out = attributes(node.op), self.graph.types[node.outputs[0]]
        if not self.f32_images(node) or a["groups"] != 1 or out.shape[1] > _FEW_OUTPUTS or prod(out.shape[2:]) < _FEW_PIXELS:
            return None
        plain_input = not self.is_blocked(x)
        one_pixel = prod(self.graph.types[weight].shape[2:]) == 1
        if plain_input and (a["strides"][-1] != 1 or not (one_pixel or out.shape[-1] >= BLOCK)):
            return None  # its vectors run along the pixels
        if any(v not in self.graph.constants for v in node.inputs[1:]):
            return None
        op = NarrowConv(a["strides"], a["pads"], a["dilations"], plain_input)
        return self.g.emit(op, self.plain(x) if plain_input else self.blocked(x), self.plain(weight), *(self.plain(v) for v in bias))

    def f32_images(self, node: Node) -> bool:
        """Whether all operands of a convolution are f32 and there are pixels."""
        types = [self.graph.types[v] for v in (*node.inputs, *node.outputs)]
        return all(t.dtype == "f32" and 0 not in t.shape for t in types)

    def reads_plain(self, x: int, groups: int) -> bool:
        """Whether a convolution had better read the plain image."""
        return groups == 1 and self.graph.types[x].shape[1] <= _FEW_CHANNELS and not self.is_blocked(x)

    def conv_transpose(self, node: Node) -> Value | None:
        if not self.f32_images(node):
            return None
        x, weight, *bias = node.inputs
        a, g = attributes(node.op), self.g
        c, groups = self.graph.types[x].shape[1], a["groups"]
        w = as_convolution(g, self.plain(weight), groups)
        arrays = [self.plain(v) for v in bias]
        extra = a["output_padding"] or (0,) * len(a["strides"])
        reach = [d * (k - 1) for d, k in zip(a["dilations"], w.shape[2:], strict=True)]
        pads = tuple((r - lo, r - hi + e) for r, (lo, hi), e in zip(reach, a["pads"], extra, strict=True))
        depthwise = _depthwise(c, groups, w.shape)
        if not depthwise:
            w, groups = merge_groups(g, w, groups)
        # The gradient of a convolution of stride 1 is one of the same kind (constant weights keep to the other form).
        if g.constant_array(w) is None and set(a["strides"]) == {1} and all(min(p) >= 0 for p in pads):
            return g.emit(BlockedConv(a["strides"], pads, a["dilations"], groups), self.blocked(x), flipped(g, w), *arrays)
        if depthwise:
            w, groups = merge_groups(g, w, groups)
        op = BlockedConvTranspose(a["strides"], a["pads"], a["dilations"], groups, a["output_padding"])
        return g.emit(op, self.blocked(x), w, *arrays)

    def weight_gradient(self, node: Node) -> Value | None:
        """The gradient of a convolution's weights; its result is plain."""
        if not self.f32_images(node):
            return None
        x, dy = node.inputs
        a, g, shape = attributes(node.op), self.g, self.graph.types[node.outputs[0]].shape
        c, o, groups = self.graph.types[x].shape[1], shape[0], a["groups"]
        left = groups
        if not _depthwise(c, groups, shape):
            left = merged_count(shape[0] // groups, shape[1], groups)
        plain_input = self.reads_plain(x, groups)
        op = BlockedConvWeightGradient((c, o), a["kernel"], a["strides"], a["pads"], a["dilations"], left, plain_input)
        dw = g.emit(op, self.plain(x) if plain_input else self.blocked(x), self.blocked(dy))
        return split_groups(g, dw, groups, shape)

    def pool(self, node: Node) -> Value | None:
        if not self.is_blocked(node.inputs[0]):
            return None
        cls = BlockedMaxPool if node.op.name == "max_pool" else BlockedAvgPool
        return self.g.emit(cls(**attributes(node.op)), self.blocked(node.inputs[0]))

    def resize(self, node: Node) -> Value | None:
        if not self.is_blocked(node.inputs[0]):
            return None
        return self.g.emit(BlockedResize(**attributes(node.op)), self.blocked(node.inputs[0]))

    def elementwise(self, node: Node) -> Value | None:
        shape = self.graph.types[node.outputs[0]].shape
        full = [v for v in node.inputs if self.graph.types[v].shape == shape]
        if not any(self.is_blocked(v) for v in full):
            return None
        return self.g.emit(node.op, *(self.operand(v, shape) for v in node.inputs))

    def operand(self, v: int, shape: tuple[int, ...]) -> Value:
        """An operand that broadcasts to the plain `shape`, in a form that broadcasts to the blocked one."""
        own = self.graph.types[v].shape
        rank = len(shape)
        if own == shape or (len(own) == rank and own[1] != 1):
            return self.blocked(v)
        x = self.plain(v)
        if x.type.size == 1:
            return self.g.reshape(x, ())
        x = self.g.reshape(x, (1,) * (rank - len(own)) + own)
        if x.shape[1] == 1:
            return self.g.reshape(x, (*x.shape, 1))
        return self.pack(x)

    def reduction(self, node: Node) -> Value | None:
        a, x = attributes(node.op), node.inputs[0]
        if not self.is_blocked(x) or not a["keepdims"] or 1 in a["axes"]:
            return None
        return self.g.emit(node.op, self.blocked(x))

    def pooled(self, node: Node) -> Value | None:
        """A reduction of all pixels to [N, C], or of the batch too: reduced in blocks, then seen as rows of channels."""
        if node.op.name not in ("sum", "max", "min") or not self.is_blocked(node.inputs[0]):
            return None
        n, c, *spatial = self.graph.types[node.inputs[0]].shape
        a = attributes(node.op)
        every = tuple(range(2, 2 + len(spatial)))
        if a["keepdims"] or tuple(a["axes"]) not in (every, (0, *every)):
            return None
        x = self.g.emit(type(node.op)(axes=a["axes"], keepdims=True), self.blocked(node.inputs[0]))
        n = x.shape[0]
        rows = self.g.slice(self.g.reshape(x, (n, x.shape[1] * BLOCK)), (0, 0), (n, c))
        return self.g.reshape(rows, self.graph.types[node.outputs[0]].shape)

    def broadcast(self, node: Node) -> Value | None:
        """Of values per channel."""
        own, shape = (self.graph.types[v].shape for v in (*node.inputs, *node.outputs))
        if len(own) != len(shape) or len(shape) < 3 or own[1] != shape[1] or not self.is_blocked(node.inputs[0]):
            return None
        x = self.blocked(node.inputs[0])
        return self.g.broadcast_to(x, (shape[0], x.shape[1], *shape[2:], BLOCK))

    def concat(self, node: Node) -> Value | None:
        types = [self.graph.types[v] for v in node.inputs]
        if attributes(node.op)["axis"] != 1 or types[0].dtype != "f32":
            return None
        if any(t.shape[1] % BLOCK for t in types[:-1]) or sum(map(self.is_blocked, node.inputs)) * 2 < len(types):
            return None
        return self.g.emit(node.op, *(self.blocked(v) for v in node.inputs))

    def slice(self, node: Node) -> Value | None:
        a, x = attributes(node.op), node.inputs[0]
        c = self.graph.types[x].shape
        if not self.is_blocked(x):
            return None
        start, stop, step = a["starts"][1], a["stops"][1], a["steps"][1]
        if step != 1 or start % BLOCK or (stop % BLOCK and stop != c[1]) or stop <= start:
            return None
        starts = (a["starts"][0], start // BLOCK, *a["starts"][2:], 0)
        stops = (a["stops"][0], -(-stop // BLOCK), *a["stops"][2:], BLOCK)
        return self.g.slice(self.blocked(x), starts, stops, (*a["steps"], 1))


def _depthwise(c: int, groups: int, w: tuple[int, ...]) -> bool:
    """Whether a convolution has one input and one output channel a group, and a kernel of its own."""
    return groups > 1 and groups == c == w[0] and len(w) <= 4


_RULES: dict[str, Callable[[_Pass, Node], Value | None]] = {
    "conv": _Pass.conv,
    "conv_transpose": _Pass.conv_transpose,
    "max_pool": _Pass.pool,
    "avg_pool": _Pass.pool,
    "resize": _Pass.resize,
    "concat": _Pass.concat,
    "slice": _Pass.slice,
    "broadcast_to": _Pass.broadcast,
    **dict.fromkeys(("sum", "max", "min", "mean"), _Pass.reduction),
}
