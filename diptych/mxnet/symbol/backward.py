"""Shape rules beside those of reading checkpoints: what results and other operands say about operands in part."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TypeVar

from diptych.frontends.mxnet.shape_rules import RULES as READING
from diptych.frontends.mxnet.shape_rules import Partial, Shapes, full, merged

__all__ = ["RULES"]

Rule = Callable[[Shapes], None]
RULES: dict[str, Rule] = dict(READING)
F = TypeVar("F", bound=Rule)


def _rule(*names: str) -> Callable[[F], F]:
    def register(f: F) -> F:
        for name in names:
            RULES[name] = f
        return f

    return register


@_rule("FullyConnected")
def _fully_connected(s: Shapes) -> None:
    if s.ins[0] is None:  # as in MXNet, nothing is said before the rank of the data is known
        s.outs[0] = None
        return
    READING["FullyConnected"](s)


@_rule("Convolution", "Convolution_v1")
def _convolution(s: Shapes) -> None:
    data = s.ins[0]
    if data is None:
        return
    READING["Convolution"](s)
    kernel = s.attrs.shape("kernel")
    n = len(kernel)
    if s.attrs.text("layout", "None").endswith("C") or len(data) != n + 2:
        return
    strides, pads, dilations = (s.attrs.shape(k, ()) or (d,) * n for k, d in (("stride", 1), ("pad", 0), ("dilate", 1)))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    outer = [None if e is None else (e + 2 * p - r) // t + 1 for e, p, r, t in zip(data[2:], pads, reach, strides)]
    out = s.outs[0] = merged(s.outs[0], (data[0], s.attrs.integer("num_filter"), *outer))
    if out is not None and len(out) == n + 2:
        inner = [None if e is None else (e - 1) * t + r - 2 * p for e, p, r, t in zip(out[2:], pads, reach, strides)]
        s.put(0, (out[0], None, *(i if t == 1 else None for i, t in zip(inner, strides))))


def _kept(extent: int | None, begin: int | None, end: int | None, step: int | None) -> int | None:
    """How many elements a slice takes of an axis; None where that is not known."""
    if extent is None:
        return None
    return len(range(*slice(begin, end, step).indices(extent)))


@_rule("slice")
def _slice(s: Shapes) -> None:
    data = s.ins[0]
    if data is None:
        return
    begin, end = s.attrs.optional_integers("begin"), s.attrs.optional_integers("end")
    step = (*s.attrs.optional_integers("step", ()), *(None,) * len(data))
    found = [_kept(d, b, e, t) for d, b, e, t in zip(data, begin, end, step)]
    s.outs[0] = merged(s.outs[0], (*found, *data[len(found) :]))


@_rule("slice_axis")
def _slice_axis(s: Shapes) -> None:
    data = s.ins[0]
    if data is None:
        return
    axis = s.attrs.integer("axis") % len(data)
    out = list(data)
    out[axis] = _kept(data[axis], s.attrs.integer("begin"), s.attrs.optional_integer("end", None), 1)
    s.outs[0] = merged(s.outs[0], tuple(out))


@_rule("SliceChannel")
def _slice_channel(s: Shapes) -> None:
    data, count = s.ins[0], s.attrs.integer("num_outputs")
    squeeze = s.attrs.boolean("squeeze_axis", False)
    part: Partial = None
    for o in s.outs:
        part = merged(part, o)
    rank = len(data) if data is not None else len(part) + squeeze if part is not None else None
    if rank is None:
        return
    axis = s.attrs.integer("axis", 1) % rank
    if data is not None:
        extent = data[axis]
        own = [d if i != axis else (None if extent is None else extent // count) for i, d in enumerate(data)]
        if squeeze:
            del own[axis]
        part = merged(part, tuple(own))
    if part is not None:
        s.outs = [part] * len(s.outs)
        back = list(part)
        if squeeze:
            back.insert(axis, count)
        else:
            size = back[axis]
            back[axis] = None if size is None else size * count
        s.put(0, tuple(back))


@_rule("Concat")
def _concat(s: Shapes) -> None:
    known = next((x for x in (*s.ins, *s.outs) if x is not None), None)
    if known is None:
        return
    axis = s.attrs.integer("dim", 1) % len(known)
    rest: Partial = None
    for x in (*s.ins, *s.outs):
        if x is not None:
            rest = merged(rest, tuple(None if i == axis else d for i, d in enumerate(x)))
    assert rest is not None
    for i in range(len(s.ins)):
        s.put(i, rest)
    along = [x[axis] if x is not None and len(x) > axis else None for x in s.ins]
    total = None if any(a is None for a in along) else sum(a for a in along if a is not None)
    s.outs[0] = merged(s.outs[0], tuple(total if i == axis else d for i, d in enumerate(rest)))
    out = s.outs[0]
    if out is not None and out[axis] is not None and along.count(None) == 1:
        missing = out[axis] - sum(a for a in along if a is not None)  # type: ignore[operator]
        s.put(along.index(None), tuple(missing if i == axis else d for i, d in enumerate(rest)))


@_rule("_identity_with_attr_like_rhs")
def _like_rhs(s: Shapes) -> None:
    shape: Partial = None
    for known in (*s.ins, *s.outs):
        shape = merged(shape, known)
    s.ins, s.outs = [shape] * len(s.ins), [shape]


@_rule("dot")
def _dot(s: Shapes) -> None:
    a, b = s.ins[0], s.ins[1]
    if a is None or b is None:
        return
    left = a[1:] if s.attrs.boolean("transpose_a", False) and len(a) > 1 else a[:-1]
    right = b[:-1] if s.attrs.boolean("transpose_b", False) and len(b) > 1 else b[1:]
    s.outs[0] = merged(s.outs[0], (left + right) or (1,))


@_rule("batch_dot")
def _batch_dot(s: Shapes) -> None:
    a, b = s.ins[0], s.ins[1]
    if a is None or b is None or len(a) < 3 or len(b) < 3:
        return
    row, inner = (a[-1], a[-2]) if s.attrs.boolean("transpose_a", False) else (a[-2], a[-1])
    column, other = (b[-2], b[-1]) if s.attrs.boolean("transpose_b", False) else (b[-1], b[-2])
    if inner is None or other is None:
        return
    lead = merged(a[:-2], b[:-2]) or a[:-2]
    s.outs[0] = merged(s.outs[0], (*lead, row, column))


@_rule("Embedding", "_contrib_SparseEmbedding")
def _embedding(s: Shapes) -> None:
    READING["Embedding"](s)
    if s.ins[0] is not None:
        s.outs[0] = merged(s.outs[0], (*s.ins[0], s.attrs.integer("output_dim")))


@_rule("transpose")
def _transpose(s: Shapes) -> None:
    axes = s.attrs.shape("axes", ())
    if s.ins[0] is not None:
        axes = axes or tuple(reversed(range(len(s.ins[0]))))
        s.outs[0] = merged(s.outs[0], tuple(s.ins[0][a] for a in axes))
    out = s.outs[0]
    if out is not None:
        axes = axes or tuple(reversed(range(len(out))))
        s.put(0, tuple(out[[x % len(out) for x in axes].index(i)] for i in range(len(out))))


@_rule("pick")
def _pick(s: Shapes) -> None:
    data = s.ins[0]
    if data is None or s.attrs.text("axis", "-1") == "None":
        return
    axis = s.attrs.integer("axis", -1) % len(data)
    keep = s.attrs.boolean("keepdims", False)
    out = tuple(1 if i == axis else d for i, d in enumerate(data) if keep or i != axis)
    s.outs[0] = merged(s.outs[0], out or (1,))


@_rule("Flatten")
def _flatten(s: Shapes) -> None:
    data = s.ins[0]
    if data is not None:
        rest = full(data[1:])
        s.outs[0] = merged(s.outs[0], (data[0], None if rest is None else prod(rest)))


@_rule("SoftmaxOutput")
def _softmax_output(s: Shapes) -> None:
    s.outs[0] = merged(s.outs[0], s.ins[0])
    s.put(0, s.outs[0])
    data = s.ins[0]
    if data is None or len(s.ins) < 2 or s.ins[1] is not None:
        return
    if s.attrs.boolean("multi_output", False):
        s.put(1, (data[0], *data[2:]))
    elif s.attrs.boolean("preserve_shape", False):
        s.put(1, data[:-1])
    else:
        s.put(1, data[:1])


@_rule("LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput")
def _regression(s: Shapes) -> None:
    s.outs[0] = merged(s.outs[0], s.ins[0])
    data = full(s.ins[0])
    if data is not None and len(s.ins) > 1 and s.ins[1] is None:
        s.put(1, data[:1] if len(data) == 2 and data[1] == 1 else data)


@_rule("SVMOutput")
def _svm(s: Shapes) -> None:
    s.outs[0] = merged(s.outs[0], s.ins[0])
    if s.ins[0] is not None:
        s.put(1, s.ins[0][:1])


@_rule("softmax_cross_entropy")
def _cross_entropy(s: Shapes) -> None:
    if s.ins[0] is not None:
        s.put(1, s.ins[0][:1])


def _elementwise(s: Shapes) -> None:
    shape: Partial = None
    for known in (*s.ins, *s.outs):
        shape = merged(shape, known)
    s.ins, s.outs = [shape] * len(s.ins), [shape] * len(s.outs)


for _name in ("_logical_and", "_logical_or", "_logical_xor"):
    RULES[_name] = _elementwise
for _name in ["log2", "log10", "log1p", "expm1", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "arcsinh", "arccosh", "arctanh", "degrees", "radians", "floor", "ceil", "trunc", "fix", "rint", "round", "sign", "rsqrt", "cbrt", "rcbrt", "reciprocal", "gamma", "gammaln", "erfinv", "hard_sigmoid", "log_sigmoid", "mish", "softmin", "_mod_scalar", "_rmod_scalar", "_rpower_scalar", "_maximum_scalar", "_minimum_scalar", "_hypot_scalar", "_equal_scalar", "_not_equal_scalar", "_greater_scalar", "_greater_equal_scalar", "_lesser_scalar", "_lesser_equal_scalar", "smooth_l1", "L2Normalization", "LRN"]:
    RULES.setdefault(_name, READING["relu"])
