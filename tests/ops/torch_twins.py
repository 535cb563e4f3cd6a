"""What PyTorch computes for an operator of ours: TWINS[name](op, *tensors) -> tensor or tuple of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch, the judge of these tests, is not installed")
F = torch.nn.functional

Twin = Callable[..., Any]
TWINS: dict[str, Twin] = {}


def twin(fn: Twin) -> Twin:
    TWINS[fn.__name__] = fn
    return fn


def flat_pads(pads: tuple[tuple[int, int], ...]) -> list[int]:
    return [p for pair in reversed(pads) for p in pair]


@twin
def mat_mul(op, a, b):
    return torch.matmul(a.mT if op.transpose_a else a, b.mT if op.transpose_b else b)


@twin
def conv(op, x, w, bias=None):
    fn = (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3]
    return fn(F.pad(x, flat_pads(op.pads)), w, bias, op.strides, 0, op.dilations, op.groups)


@twin
def conv_transpose(op, x, w, bias=None):
    fn = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[x.ndim - 3]
    y = fn(x, w, None, op.strides, 0, 0, op.groups, op.dilations)
    extra = op.output_padding or (0,) * len(op.pads)
    y = F.pad(y, flat_pads(tuple((-lo, e - hi) for (lo, hi), e in zip(op.pads, extra, strict=True))))
    return y if bias is None else y + bias.reshape(-1, *(1,) * (x.ndim - 2))


def _ceil_pads(op, x):
    """Explicit padding at the high end that makes every window of `op` whole."""
    extents = op.infer(_type(x)).shape[2:]
    dilations = getattr(op, "dilations", ()) or (1,) * len(op.kernel)
    return tuple(
        (lo, max(0, (o - 1) * s + d * (k - 1) + 1 - lo - n))
        for n, o, k, s, (lo, _), d in zip(x.shape[2:], extents, op.kernel, op.strides, op.pads, dilations, strict=True)
    )


def _type(x):
    from diptych.ir import TensorType

    return TensorType(tuple(x.shape), {torch.float32: "f32", torch.float64: "f64"}[x.dtype])


def _windows(op, x, fill):
    """Every window, flattened: [N, C, *out, elements]."""
    y = F.pad(x, flat_pads(_ceil_pads(op, x)), value=fill)
    extents = op.infer(_type(x)).shape[2:]
    dilations = getattr(op, "dilations", ()) or (1,) * len(op.kernel)
    for axis, (k, s, d, o) in enumerate(zip(op.kernel, op.strides, dilations, extents, strict=True), 2):
        y = y.unfold(axis, d * (k - 1) + 1, s).narrow(axis, 0, o)[..., ::d]
    return y.flatten(2 + len(op.kernel))


@twin
def max_pool(op, x):
    # PyTorch has it with equal padding of at most half a kernel only; the rest is its definition on explicit windows
    if op.rounding != "ceil_mxnet" and all(lo == hi <= k // 2 for (lo, hi), k in zip(op.pads, op.kernel, strict=True)):
        fn = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[x.ndim - 3]
        dilations = op.dilations or (1,) * len(op.kernel)
        return fn(x, op.kernel, op.strides, [lo for lo, _ in op.pads], dilations, op.rounding == "ceil_torch")
    return _windows(op, x, float("-inf")).amax(-1)


@twin
def avg_pool(op, x):
    if op.rounding != "ceil_mxnet" and all(lo == hi <= k // 2 for (lo, hi), k in zip(op.pads, op.kernel, strict=True)):
        fn = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[x.ndim - 3]
        ceil = op.rounding == "ceil_torch"
        return fn(x, op.kernel, op.strides, [lo for lo, _ in op.pads], ceil, op.count_include_pad)
    ones = torch.ones_like(x)
    if op.count_include_pad:
        ones = F.pad(ones, flat_pads(op.pads), value=1.0)
        wide = _ceil_pads(op, x)
        more = tuple((0, max(0, b - hi)) for (_, b), (_, hi) in zip(wide, op.pads, strict=True))
        ones = F.pad(ones, flat_pads(more))
        for axis, (k, s) in enumerate(zip(op.kernel, op.strides, strict=True), 2):
            ones = ones.unfold(axis, k, s)
        counts = ones.flatten(2 + len(op.kernel)).sum(-1)
        counts = counts[(slice(None), slice(None), *(slice(o) for o in op.infer(_type(x)).shape[2:]))]
    else:
        counts = _windows(op, ones, 0.0).sum(-1)
    return _windows(op, x, 0.0).sum(-1) / counts


@twin
def lp_pool(op, x):
    return _windows(op, x, 0.0).abs().pow(op.p).sum(-1).pow(1 / op.p)


@twin
def adaptive_avg_pool(op, x):
    fn = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[x.ndim - 3]
    return fn(x, op.output_size)


@twin
def adaptive_max_pool(op, x):
    fn = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[x.ndim - 3]
    return fn(x, op.output_size)


@twin
def resize(op, x):
    linear = ("linear", "bilinear", "trilinear")[x.ndim - 3]
    mode = {"linear": linear, "cubic": "bicubic", "nearest": "nearest"}[op.mode]
    if op.mode == "nearest" and op.coordinates == "half_pixel":
        mode = "nearest-exact"
    align = None if op.mode == "nearest" else op.coordinates == "align_corners"
    if op.scales is not None:
        y = F.interpolate(x, scale_factor=op.scales, mode=mode, align_corners=align, recompute_scale_factor=False)
        assert tuple(y.shape[2:]) == op.size
        return y
    return F.interpolate(x, op.size, mode=mode, align_corners=align)


@twin
def batch_norm(op, x, gamma, beta, mean, var):
    return F.batch_norm(x.movedim(op.axis, 1), mean, var, gamma, beta, eps=op.eps).movedim(1, op.axis)


@twin
def layer_norm(op, x, gamma=None, beta=None):
    return F.layer_norm(x, x.shape[op.axis % x.ndim :], gamma, beta, op.eps)


@twin
def rms_norm(op, x, gamma):
    return F.rms_norm(x, gamma.shape, gamma, op.eps)


@twin
def group_norm(op, x, gamma, beta):
    if x.numel() == 0:
        return x
    return F.group_norm(x, op.groups, gamma, beta, op.eps)


@twin
def instance_norm(op, x, gamma, beta):
    if x.numel() == 0:
        return x
    return F.instance_norm(x, weight=gamma, bias=beta, eps=op.eps)


@twin
def l2_normalize(op, x):
    if op.mode == "max":
        return F.normalize(x, dim=op.axes, eps=op.eps)
    return x / (x.square().sum(op.axes, keepdim=True) + op.eps).sqrt()


@twin
def lrn(op, x):
    return F.local_response_norm(x, op.size, op.alpha, op.beta, op.k)


@twin
def softmax(op, x):
    return F.softmax(x, op.axis)


@twin
def log_softmax(op, x):
    return F.log_softmax(x, op.axis)


@twin
def attention(op, q, k, v, mask=None):
    if op.causal and (mask is not None or op.offset):
        unseen = torch.full((q.shape[2], k.shape[2]), float("-inf"), dtype=q.dtype).triu(1 + op.offset)
        mask = unseen if mask is None else mask + unseen
    causal = op.causal and mask is None
    return F.scaled_dot_product_attention(
        q, k, v, mask, is_causal=causal, scale=op.scale, enable_gqa=q.shape[1] != k.shape[1]
    )


def _recurrent(kind, op, x, weights, *states, lengths=None):
    if lengths is not None:
        return _ragged(kind, op, x, weights, states, lengths)
    hidden = states[0].shape[1]
    extra = {"nonlinearity": op.activation} if kind is torch.nn.RNN else {}
    layer = kind(x.shape[2], hidden, bidirectional=False, dtype=x.dtype, **extra)
    names = dict(zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), weights, strict=True))
    state = tuple(s[None] for s in states)
    data = x.flip(0) if op.reverse else x
    y, last = torch.func.functional_call(layer, names, (data, state if len(state) > 1 else state[0]))
    y = y.flip(0) if op.reverse else y
    return (y, *(s[0] for s in (last if isinstance(last, tuple) else (last,))))


def _ragged(kind, op, x, weights, states, lengths):
    """Row by row, each as long as it is; past its end y holds the state that was reached."""
    rows = []
    for n, length in enumerate(lengths.tolist()):
        length = min(length, len(x))
        own = [s[n : n + 1] for s in states]
        y, *last = _recurrent(kind, op, x[:length, n : n + 1], weights, *own) if length else (x.new_empty(0, 1, own[0].shape[1]), *own)
        rest = own[0] if op.reverse else last[0]
        rows.append((torch.cat([y, rest[None].expand(len(x) - length, -1, -1)]), *last))
    y, *last = zip(*rows, strict=True)
    return (torch.cat(y, 1), *(torch.cat(s) for s in last))


@twin
def lstm(op, x, w_ih, w_hh, b, h0, c0):
    return _recurrent(torch.nn.LSTM, op, x, (w_ih, w_hh, b, torch.zeros_like(b)), h0, c0)


@twin
def gru(op, x, w_ih, w_hh, b_ih, b_hh, h0, lengths=None):
    return _recurrent(torch.nn.GRU, op, x, (w_ih, w_hh, b_ih, b_hh), h0, lengths=lengths)


@twin
def rnn(op, x, w_ih, w_hh, b, h0, lengths=None):
    return _recurrent(torch.nn.RNN, op, x, (w_ih, w_hh, b, torch.zeros_like(b)), h0, lengths=lengths)


@twin
def sort(op, x):
    return tuple(torch.sort(x, dim=op.axis, descending=op.descending, stable=True))


@twin
def top_k(op, x):
    values, indices = torch.sort(x, dim=op.axis, descending=op.largest, stable=True)
    return values.narrow(op.axis, 0, op.k), indices.narrow(op.axis, 0, op.k)
