"""Backward shape rules: what an operator's attributes and known shapes say about its weights, states and operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diptych.frontends.mxnet.attributes import Attributes

__all__ = ["LABEL_INPUTS", "RULES", "Partial", "Shapes", "full"]

Partial = tuple[int | None, ...] | None  # None entries: unknown extents; None itself: unknown rank

# Loss layers: how many leading inputs inference needs (what follows is a label).
LABEL_INPUTS: dict[str, int] = {
    "SoftmaxOutput": 1, "LinearRegressionOutput": 1, "LogisticRegressionOutput": 1, "MAERegressionOutput": 1,
    "SVMOutput": 1, "IdentityAttachKLSparseReg": 1,
}  # fmt: skip


@dataclass(slots=True)
class Shapes:
    """What one rule reads and refines in place: operand and result shapes of one node."""

    attrs: Attributes
    ins: list[Partial]
    outs: list[Partial]
    like_data: tuple[int, ...] = ()  # operands whose element type is the first operand's

    def put(self, i: int, shape: Partial) -> None:
        """Refine operand i, if it is there."""
        if i < len(self.ins):
            self.ins[i] = merged(self.ins[i], shape)

    def extent(self, i: int, axis: int) -> int | None:
        """One extent of operand i, if known."""
        shape = self.ins[i] if i < len(self.ins) else None
        return shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None


def full(shape: Partial) -> tuple[int, ...] | None:
    """The shape when nothing in it is unknown."""
    if shape is None or any(d is None for d in shape):
        return None
    return tuple(d for d in shape if d is not None)


def merged(a: Partial, b: Partial) -> Partial:
    """What two partial shapes say together; where they disagree the first wins (the caller reports the conflict)."""
    if a is None or b is None:
        return b if a is None else a
    if len(a) != len(b):
        return b  # a conflict: handed back so that it is seen and reported
    return tuple(y if x is None else (y if y is not None and y != x else x) for x, y in zip(a, b))


RULES: dict[str, Callable[[Shapes], None]] = {}


def _rule(*names: str) -> Callable[[Callable[[Shapes], None]], Callable[[Shapes], None]]:
    def register(f: Callable[[Shapes], None]) -> Callable[[Shapes], None]:
        for name in names:
            RULES[name] = f
        return f

    return register


@_rule(
    "elemwise_add", "elemwise_sub", "elemwise_mul", "elemwise_div", "_grad_add", "add_n", "_maximum", "_minimum",
    "_power", "_mod", "_hypot", "_equal", "_not_equal", "_greater", "_greater_equal", "_lesser", "_lesser_equal",
)  # fmt: skip
def _same(s: Shapes) -> None:
    shape: Partial = None
    for known in (*s.ins, *s.outs):
        shape = merged(shape, known)
    s.ins = [shape] * len(s.ins)
    s.outs = [shape] * len(s.outs)


@_rule(
    "Activation", "relu", "sigmoid", "tanh", "softsign", "exp", "log", "sqrt", "square", "abs", "negative", "erf",
    "clip", "Dropout", "BlockGrad", "_copy", "MakeLoss", "make_loss", "Cast", "softmax", "log_softmax",
    "_plus_scalar", "_minus_scalar", "_rminus_scalar", "_mul_scalar", "_div_scalar", "_rdiv_scalar", "_power_scalar",
    "zeros_like", "ones_like", "SoftmaxActivation",
)  # fmt: skip
def _first(s: Shapes) -> None:
    s.ins[0] = s.outs[0] = merged(s.ins[0], s.outs[0])


def _last(s: Shapes) -> bool:
    return s.attrs.text("layout", "None").endswith("C")


@_rule("Convolution", "Convolution_v1")
def _convolution(s: Shapes) -> None:
    filters, groups = s.attrs.integer("num_filter"), s.attrs.integer("num_group", 1)
    channels = s.extent(0, -1 if _last(s) else 1)
    kernel = s.attrs.shape("kernel")
    inner = None if channels is None else channels // groups
    s.put(1, (filters, *kernel, inner) if _last(s) else (filters, inner, *kernel))
    s.put(2, (filters,))
    s.like_data = (1, 2)


@_rule("Deconvolution")
def _deconvolution(s: Shapes) -> None:
    filters, groups = s.attrs.integer("num_filter"), s.attrs.integer("num_group", 1)
    channels = s.extent(0, -1 if _last(s) else 1)
    kernel = s.attrs.shape("kernel")
    s.put(1, (channels, *kernel, filters // groups) if _last(s) else (channels, filters // groups, *kernel))
    s.put(2, (filters,))
    s.like_data = (1, 2)


@_rule("_contrib_DeformableConvolution", "_contrib_ModulatedDeformableConvolution")
def _deformable(s: Shapes) -> None:
    first = len(s.ins) - (1 if s.attrs.boolean("no_bias", False) else 2)
    filters, channels = s.attrs.integer("num_filter"), s.extent(0, 1)
    inner = None if channels is None else channels // s.attrs.integer("num_group", 1)
    s.put(first, (filters, inner, *s.attrs.shape("kernel")))
    s.put(first + 1, (filters,))
    s.like_data = (first, first + 1)


@_rule("FullyConnected")
def _fully_connected(s: Shapes) -> None:
    hidden = s.attrs.integer("num_hidden")
    flatten = s.attrs.boolean("flatten", True)
    data, out = s.ins[0], s.outs[0]
    width: int | None = None
    if data is not None and len(data) > 0:
        rest = full(data[1:]) if flatten else full(data[-1:])
        width = None if rest is None else prod(rest)
        lead = data[:1] if flatten else data[:-1]
        out = merged(out, (*lead, hidden))
        s.outs[0] = out
        if out is not None and len(out) == len(lead) + 1:  # the batch may be known from the other side
            s.put(0, (*out[:-1], *data[1:]) if flatten else (*out[:-1], data[-1]))
    s.put(1, (hidden, width))
    s.put(2, (hidden,))
    s.like_data = (1, 2)


@_rule("_np_dot")
def _np_dot(s: Shapes) -> None:
    a, b = s.ins
    if a is not None and b is not None and len(a) > 0 and len(b) > 0:
        inner = len(b) - 2 if len(b) > 1 else 0
        s.put(1, tuple(a[-1] if i == inner else None for i in range(len(b))))
        s.put(0, (*[None] * (len(a) - 1), b[inner]))


@_rule("BatchNorm", "BatchNorm_v1", "_contrib_SyncBatchNorm", "_contrib_BatchNormWithReLU")
def _batch_norm(s: Shapes) -> None:
    channels = s.extent(0, s.attrs.integer("axis", 1))
    for i in range(1, 5):
        s.put(i, (channels,))


@_rule("InstanceNorm")
def _instance_norm(s: Shapes) -> None:
    s.put(1, (s.extent(0, 1),))
    s.put(2, (s.extent(0, 1),))
    s.like_data = (1, 2)


@_rule("LayerNorm")
def _layer_norm(s: Shapes) -> None:
    extent = s.extent(0, s.attrs.integer("axis", -1))
    s.put(1, (extent,))
    s.put(2, (extent,))
    s.like_data = (1, 2)


@_rule("GroupNorm")
def _group_norm(s: Shapes) -> None:
    s.put(1, (s.attrs.integer("num_groups", 1),))
    s.put(2, (s.attrs.integer("num_groups", 1),))
    s.like_data = (1, 2)


@_rule("LeakyReLU")
def _leaky_relu(s: Shapes) -> None:
    s.outs[0] = merged(s.outs[0], s.ins[0])
    if len(s.ins) > 1 and s.ins[1] is None:
        s.put(1, (s.extent(0, 1),))
    s.like_data = (1,)


@_rule("Embedding", "_contrib_SparseEmbedding")
def _embedding(s: Shapes) -> None:
    s.put(1, (s.attrs.integer("input_dim"), s.attrs.integer("output_dim")))


@_rule("UpSampling")
def _upsampling(s: Shapes) -> None:
    if s.attrs.text("sample_type") == "bilinear":
        scale = s.attrs.integer("scale")
        kernel = 2 * scale - scale % 2
        s.put(1, (s.extent(0, 1), 1, kernel, kernel))
        s.like_data = (1,)


def rnn_size(inputs: int, hidden: int, layers: int, directions: int, gates: int, projection: int = 0) -> int:
    """The length of RNN's packed parameter vector.

    >>> rnn_size(3, 5, 1, 1, 4)
    200
    """
    size = 0
    recurrent = projection or hidden
    for layer in range(layers):
        width = inputs if layer == 0 else recurrent * directions
        size += directions * (gates * hidden * (width + recurrent + 2) + projection * hidden)
    return size


@_rule("RNN")
def _rnn(s: Shapes) -> None:
    a = s.attrs
    hidden, layers = a.integer("state_size"), a.integer("num_layers")
    directions = 2 if a.boolean("bidirectional", False) else 1
    gates = {"lstm": 4, "gru": 3}.get(a.text("mode"), 1)
    projection = a.optional_integer("projection_size") or 0
    steps, batch, width = (s.extent(0, i) for i in range(3))
    if width is not None:
        s.put(1, (rnn_size(width, hidden, layers, directions, gates, projection),))
    state = (layers * directions, batch, projection or hidden)
    s.put(2, state)
    if gates == 4:
        s.put(3, (layers * directions, batch, hidden))
    s.outs[0] = merged(s.outs[0], (steps, batch, (projection or hidden) * directions))
    s.like_data = (1, 2, 3)


@_rule("_rnn_param_concat")
def _rnn_param_concat(s: Shapes) -> None:
    total = s.outs[0][0] if s.outs[0] is not None and len(s.outs[0]) == 1 else None
    open_ = [i for i, shape in enumerate(s.ins) if full(shape) is None]
    if total is not None and open_ and all(shape is None or len(shape) == 1 for shape in s.ins):
        rest = sum(prod(full(shape) or ()) for i, shape in enumerate(s.ins) if i not in open_)
        if (total - rest) % len(open_) == 0:
            for i in open_:  # the weights from the input of a first layer: one, or one in each direction, of one size
                s.put(i, ((total - rest) // len(open_),))


@_rule("Reshape")
def _reshape(s: Shapes) -> None:
    out, data = full(s.outs[0]), s.ins[0]
    if out is not None and data is not None and sum(d is None for d in data) == 1:
        rest = prod(d for d in data if d is not None)
        if rest and prod(out) % rest == 0:
            s.put(0, tuple(prod(out) // rest if d is None else d for d in data))


@_rule("SliceChannel")
def _slice_channel(s: Shapes) -> None:
    data = s.ins[0]
    if data is None or s.attrs.boolean("squeeze_axis", False):
        return
    axis = s.attrs.integer("axis", 1) % len(data)
    extent, count = data[axis], s.attrs.integer("num_outputs")
    part = tuple(d if i != axis else (None if extent is None else extent // count) for i, d in enumerate(data))
    s.outs = [merged(o, part) for o in s.outs]


@_rule("_zeros", "_ones", "_full", "_zeros_without_dtype")
def _created(s: Shapes) -> None:
    shape = s.attrs.shape("shape", ())
    if shape:
        s.outs[0] = merged(s.outs[0], tuple(d if d > 0 else None for d in shape))


@_rule("SoftmaxOutput")
def _softmax_output(s: Shapes) -> None:
    s.outs[0] = merged(s.outs[0], s.ins[0])
    data = s.ins[0]
    if data is None:
        return
    if s.attrs.boolean("multi_output", False):
        s.put(1, (data[0], *data[2:]))
    else:
        s.put(1, data[:-1])


@_rule("SVMOutput")
def _svm_output(s: Shapes) -> None:
    s.outs[0] = merged(s.outs[0], s.ins[0])
    if s.ins[0] is not None:
        s.put(1, s.ins[0][:1])


@_rule("LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput")
def _regression(s: Shapes) -> None:
    s.outs[0] = merged(s.outs[0], s.ins[0])
    data = s.ins[0]
    if data is not None and len(s.ins) > 1 and s.ins[1] is None:
        s.put(1, data[:1] if len(data) == 2 and data[1] == 1 else data)
