"""Converters by family: small functions of tensors against torch eager."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional


class Fn(torch.nn.Module):
    """A function as a module."""

    def __init__(self, f: Any) -> None:
        super().__init__()
        self.f = f

    def forward(self, *xs: Any) -> Any:
        return self.f(*xs)


def f32(*shape: int) -> Any:
    return torch.randn(*shape)


def i64(*shape: int, high: int = 5, low: int = 0) -> Any:
    return torch.randint(low, high, shape)


def positive(*shape: int) -> Any:
    return torch.rand(*shape) + 0.1


T = torch.tensor
POINTWISE = {
    "unary chain": (lambda x: torch.exp(-x.abs()).log1p().sqrt().rsqrt().tanh(), f32(3, 4)),
    "float function of integers": (lambda x: (x.sqrt(), x.exp(), torch.sigmoid(x)), i64(6, low=1)),
    "rounding": (lambda x: (x.floor(), x.ceil(), x.trunc(), x.round(), torch.round(x, decimals=1)), f32(7) * 3),
    "rounding of integers": (lambda x: (x.floor(), x.ceil()), i64(4)),
    "scalar keeps f32": (lambda x: (x + 1, 2 * x, 1 - x, x / 3, 3 / x, x**2, x**-0.5, 2**x), positive(5)),
    "int with float scalar": (lambda x: (x + 1.5, x * 2, x / 2, x // 2, x % 3), i64(6, low=-5)),
    "mixed dtypes": (lambda x, y, z: (x + y, y * z, torch.where(z, x, y)), f32(3, 2), i64(3, 2), f32(3, 2) > 0),
    "zero-dimensional operand": (lambda x: x + T(2.5, dtype=torch.float64), f32(3)),
    "i32 and i64": (lambda x, y: x + y, i64(4).int(), i64(4)),
    "f64": (lambda x: (x.exp() + 1, x.softmax(-1)), f32(3, 4).double()),
    "division modes": (lambda x, y: (torch.div(x, y, rounding_mode="floor"), torch.div(x, y, rounding_mode="trunc"),
                                     torch.remainder(x, y), torch.fmod(x, y)), f32(9) * 5, positive(9)),
    "integer division": (lambda x, y: (x // y, torch.div(x, y, rounding_mode="trunc"), x / y, x % y, torch.fmod(x, y)),
                         i64(9, low=-7, high=8), i64(9, low=1)),
    "bool arithmetic": (lambda a, b: (a & b, a | b, a ^ b, ~a, a * b, a + b, a.sum(), a.any(), a.all()),
                        f32(5) > 0, f32(5) > 0),
    "bits": (lambda a, b: (a & b, a | 1, a ^ b, ~a, a << 1, a >> 1), i64(5), i64(5)),
    "comparisons": (lambda x, y: (x < y, x <= 0, x == y, x != 0.5, x > y, x >= y), f32(4), i64(4)),
    "logic": (lambda x, y: (torch.logical_and(x, y), torch.logical_not(x), torch.logical_xor(x, y)), i64(6, high=2),
              f32(6)),
    "tests for nan": (lambda x: (x.isnan(), x.isinf(), x.isfinite(), torch.nan_to_num(x)), T([1.0, math.nan, math.inf,
                                                                                             -math.inf])),
    "tests for nan on integers": (lambda x: (x.isnan(), x.isinf(), x.isfinite()), i64(3)),
    "clamp": (lambda x: (x.clamp(-1, 1), x.clamp(min=0.2), x.clamp(max=0), F.hardtanh(x), F.relu6(x * 8)), f32(9)),
    "clamp integers": (lambda x: (x.clamp(1, 3), x.clamp(min=2)), i64(9)),
    "clamp by tensors": (lambda x, a, b: torch.clamp(x, a, b), f32(4), f32(4) - 1, f32(4) + 1),
    "masked fill": (lambda x, m: x.masked_fill(m, -math.inf).softmax(-1), f32(3, 4), T([True, False, False, True])),
    "casts": (lambda x: (x.int(), x.bool(), x.double(), x.to(torch.int8), x.half().float()), T([1.5, -2.5, 0.0, 7.0])),
    "alpha": (lambda x, y: (torch.add(x, y, alpha=2), torch.sub(x, y, alpha=0.5), torch.rsub(x, y)), f32(3), f32(3)),
    "like": (lambda x: (torch.zeros_like(x) + x, torch.full_like(x, 3.0), x.new_ones(2, 2), x.new_zeros(3)), f32(2, 3)),
    "fma family": (lambda x, y: (torch.addcmul(x, x, y, value=2), torch.addcdiv(x, x, y), torch.lerp(x, y, 0.3)),
                   f32(4), positive(4)),
    "sign of zero": (lambda x: (torch.copysign(T(2.0), x), torch.signbit(x)), T([0.0, -0.0, 3.0, -3.0])),
}  # fmt: skip
ACTIVATIONS = {
    name: (f, f32(4, 7) * 3)
    for name, f in {
        "gelu": F.gelu, "gelu tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "mish": F.mish,
        "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "elu": lambda x: F.elu(x, 0.7), "selu": F.selu,
        "celu": lambda x: F.celu(x, 1.3), "leaky": lambda x: F.leaky_relu(x, 0.2), "softplus": lambda x: F.softplus(x, 2, 5),
        "softsign": F.softsign, "logsigmoid": F.logsigmoid, "tanhshrink": F.tanhshrink, "hardshrink": F.hardshrink,
        "softshrink": F.softshrink, "threshold": lambda x: F.threshold(x, 0.1, 20.0), "glu": lambda x: F.glu(x[:, :6]),
        "softmax": lambda x: F.softmax(x, 0), "log softmax": lambda x: F.log_softmax(x, -1),
        "prelu": lambda x: F.prelu(x, T([0.25])), "prelu per channel": lambda x: F.prelu(x, torch.arange(7.0)),
        "relu in place": lambda x: F.relu_(x.clone()), "softmax to f64": lambda x: F.softmax(x, 1, dtype=torch.float64),
    }.items()
}  # fmt: skip
MOVEMENT = {
    "reshapes": (lambda x: (x.view(2, -1), x.flatten(1), x.unsqueeze(-1), x.unsqueeze(0).squeeze(0), x.reshape(6, 4)),
                 f32(2, 3, 4)),
    "transposes": (lambda x: (x.permute(2, 0, 1), x.transpose(0, -1), x.mT, x.movedim(0, 2)), f32(2, 3, 4)),
    "slices": (lambda x: (x[1:, ::2], x[..., -1], x[:, None, 1], x[-2:], x[5:9], x.narrow(1, 1, 2)), f32(4, 5)),
    "splits": (lambda x: (*x.split(2, 1), *x.chunk(3), *x.unbind(0), *torch.tensor_split(x, 2, 1)), f32(4, 5)),
    "joins": (lambda x, y: (torch.cat([x, y], 1), torch.stack([x, x], -1), torch.cat([x, y.double()], 1)), f32(2, 3),
              f32(2, 4)),
    "expand and repeat": (lambda x: (x.expand(4, 3, 5), x.repeat(2, 1, 3), x.repeat_interleave(2, 1), x.tile(2)),
                          f32(1, 3, 1)),
    "flip and roll": (lambda x: (x.flip(0, 2), x.roll(1, 0), x.roll((1, -2), (1, 2)), x.roll(3)), f32(2, 3, 4)),
    "pads": (lambda x: (F.pad(x, (1, 2)), F.pad(x, (1, 0, 2, 1), value=3), F.pad(x, (-1, 2)),
                        F.pad(x, (1, 1, 2, 1), mode="reflect"), F.pad(x, (2, 1, 1, 1), mode="replicate"),
                        F.pad(x, (1, 2, 2, 1), mode="circular")), f32(1, 2, 4, 5)),
    "pixel shuffle": (lambda x: (F.pixel_shuffle(x, 2), F.pixel_unshuffle(x, 2), F.channel_shuffle(x, 4)), f32(2, 8, 4, 6)),
    "triangles": (lambda x: (x.tril(), x.triu(1), x.tril(-1), x.diagonal(), x.diagonal(-1), torch.diag_embed(x[0])),
                  f32(4, 5)),
    "unfold": (lambda x: (x.unfold(1, 3, 2), F.unfold(x.view(1, 1, 4, 6), 2)), f32(4, 6)),
    "fold": (lambda x: F.fold(x, (4, 5), (2, 2), padding=1), f32(2, 12, 30)),
    "constant arithmetic": (lambda x: x + torch.arange(x.shape[1]).float() * torch.eye(3)[0].sum() + torch.linspace(0, 1, 4),
                            f32(2, 4)),
    "scatter by slices": (lambda x, y: (x.select_scatter(y, 0, 1), x.slice_scatter(y[None], 0, 2, 3)), f32(3, 4), f32(4)),
    "write in place": (lambda x: _written(x), f32(3, 4)),
}  # fmt: skip


def _written(x: Any) -> Any:
    y = x.clone()
    y[1] = 0
    y[:, 2:] += 1
    y[0, ::2] = T([5.0, 6.0])
    return y


INDEX = {
    "embedding": (lambda i, w: F.embedding(i, w), i64(2, 3), f32(5, 4)),
    "one index": (lambda x, i: (x[i], x[:, i], x.index_select(1, i[0])), f32(5, 5), i64(2, 3)),
    "negative index": (lambda x, i: x[i], f32(5, 2), i64(4, low=-5, high=5)),
    "two indices": (lambda x, i, j: (x[i, j], x[:, i, j], x[i, :, j]), f32(5, 5, 5), i64(3), i64(2, 1)),
    "constant mask": (lambda x: x[T([True, False, True])], f32(3, 2)),
    "gather": (lambda x, i: (x.gather(1, i), torch.take_along_dim(x, i, 1)), f32(3, 5), i64(3, 2)),
    "short gather": (lambda x, i: x.gather(0, i), f32(5, 4), i64(2, 3)),
    "one hot": (lambda i: F.one_hot(i, 5), i64(2, 3)),
    "scatter constant": (lambda x, y: x.scatter(1, T([[0, 2], [1, 3]]), y), f32(2, 4), f32(2, 2)),
    "scatter": (lambda x, i, y: x.scatter(1, i, y), f32(2, 4), T([[0, 2], [1, 3]]), f32(2, 2)),
    "scatter add": (lambda x, i, y: (x.scatter_add(1, i, y), x.index_add(1, i[0], y)), f32(2, 5), i64(2, 3), f32(2, 3)),
    "mask assignment": (lambda x, m: _mask_set(x, m), f32(3, 4), f32(3, 4) > 0),
    "index assignment": (lambda x, y: _index_set(x, y), f32(4, 3), f32(2, 3)),
    "masked scatter": (lambda x, m, y: x.masked_scatter(m, y), f32(3, 4), f32(3, 4) > 0, f32(12)),
    "searchsorted": (lambda x: (torch.searchsorted(T([0.0, 1.0, 2.0]), x), torch.bucketize(x, T([0.0, 1.0]), right=True)),
                     f32(3, 2)),
    "grid sample": (lambda x, g: (F.grid_sample(x, g, align_corners=False), F.grid_sample(
        x, g, padding_mode="border", align_corners=True)), f32(2, 3, 4, 5), f32(2, 6, 3, 2)),
    "embedding bag": (lambda i, w: F.embedding_bag(i, w, mode="mean"), i64(3, 4), f32(5, 2)),
}  # fmt: skip


def _mask_set(x: Any, m: Any) -> Any:
    y = x.clone()
    y[m] = -1.0
    return y


def _index_set(x: Any, y: Any) -> Any:
    z = x.clone()
    z[T([3, 1])] = y
    z[:, T([0, 2])] = 1.0
    return z


REDUCE = {
    "sums": (lambda x: (x.sum(), x.sum(1), x.sum((0, 2), keepdim=True), x.mean(-1), x.prod(0)), f32(2, 3, 4)),
    "integer sums": (lambda x: (x.sum(), x.sum(0), x.prod(), x.float().mean(), x.int().sum()), i64(3, 4)),
    "extrema": (lambda x: (x.amax(1), x.amin((0, 1)), x.max(), x.min(), *x.max(1), *x.min(0, keepdim=True)), f32(3, 4)),
    "arg extrema": (lambda x: (x.argmax(), x.argmax(1), x.argmin(0, keepdim=True)), f32(3, 4)),
    "moments": (lambda x: (x.var(), x.var(1, unbiased=False), x.std(0), *torch.var_mean(x, 1, correction=2)), f32(3, 5)),
    "norms": (lambda x: (x.norm(), x.norm(1, 1), x.norm(3, 0), F.normalize(x), torch.linalg.vector_norm(x, math.inf, 1),
                         x.logsumexp(1)), f32(3, 4)),
    "scans": (lambda x: (x.cumsum(1), x.cumprod(0), x.cumsum(0, dtype=torch.float64)), f32(3, 4)),
    "sorting": (lambda x: (*x.sort(), *x.sort(0, descending=True), *x.topk(2), *x.topk(3, 0, largest=False),
                           x.argsort(1), *x.kthvalue(2), *x.median(1), x.median()), f32(4, 5)),
    "similarity": (lambda x, y: (F.cosine_similarity(x, y), F.pairwise_distance(x, y), torch.cdist(x, y)), f32(4, 5),
                   f32(4, 5)),
}  # fmt: skip
PRODUCTS = {
    "matmul ranks": (lambda a, b, v: (a @ b, a[0, 0] @ v, v @ b[0, 0, :4], a @ v, torch.dot(v, v), torch.mv(a[0, 0], v)),
                     f32(2, 3, 5, 4), f32(2, 1, 4, 6), f32(4)),
    "linear": (lambda x, w, b: (F.linear(x, w, b), F.linear(x, w), F.linear(x[0, 0], w, b)), f32(2, 3, 4), f32(5, 4), f32(5)),
    "addmm": (lambda m, a, b: (torch.addmm(m, a, b), torch.addmm(m, a, b, beta=0.5, alpha=2)), f32(5), f32(3, 4), f32(4, 5)),
    "bmm": (lambda a, b: (torch.bmm(a, b), torch.baddbmm(a[:, :, :1], a, b, beta=2)), f32(2, 3, 4), f32(2, 4, 5)),
    "einsum": (lambda a, b: (torch.einsum("bij,bjk->bik", a, b), torch.einsum("bij,bjk->ik", a, b), torch.outer(
        a[0, 0], b[0, 0])), f32(2, 3, 4), f32(2, 4, 5)),
    "bilinear": (lambda a, b, w: F.bilinear(a, b, w), f32(2, 3), f32(2, 4), f32(5, 3, 4)),
    "conv1d": (lambda x, w, b: (F.conv1d(x, w, b, stride=2, padding=1), F.conv1d(x, w, padding="same")), f32(2, 4, 9),
               f32(6, 4, 3), f32(6)),
    "conv2d": (lambda x, w: (F.conv2d(x, w, padding=(1, 2), groups=2), F.conv2d(x, w, dilation=2, groups=2, stride=2)),
               f32(2, 4, 9, 8), f32(6, 2, 3, 3)),
    "conv3d": (lambda x, w: F.conv3d(x, w, padding=1), f32(1, 2, 4, 5, 6), f32(3, 2, 3, 3, 3)),
    "conv without batch": (lambda x, w: F.conv2d(x, w), f32(4, 6, 5), f32(3, 4, 3, 3)),
    "transposed conv": (lambda x, w: (F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1), F.conv_transpose2d(
        x, w.reshape(4, 3, 3, 3), groups=2)), f32(2, 4, 5, 4), f32(4, 3, 3, 3)),
    "attention": (lambda q, k, v: (F.scaled_dot_product_attention(q, k, v), F.scaled_dot_product_attention(
        q, q, q, is_causal=True, scale=0.3)), f32(2, 3, 5, 4), f32(2, 3, 7, 4), f32(2, 3, 7, 6)),
    "attention masks": (lambda q, m, b: (F.scaled_dot_product_attention(q, q, q, m), F.scaled_dot_product_attention(
        q[:, 0], q[:, 0], q[:, 0], b)), f32(2, 3, 5, 4), f32(2, 1, 5, 5), torch.ones(5, 5).tril().bool()),
    "grouped attention": (lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True), f32(2, 4, 5, 4), f32(2, 2, 5, 4)),
}  # fmt: skip
POOLS = {
    "max pool": (lambda x: (F.max_pool2d(x, 3, 2, 1), F.max_pool2d(x, (2, 3), ceil_mode=True), F.max_pool2d(x, 2, dilation=2)),
                 f32(2, 3, 7, 8)),
    "avg pool": (lambda x: (F.avg_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), F.avg_pool2d(
        x, 3, 2, 1, count_include_pad=False), F.avg_pool2d(x, 2, 2, 0, True, True, 3)), f32(2, 3, 8, 7)),
    "one and three axes": (lambda x: (F.max_pool1d(x[:, :, 0, 0], 2), F.avg_pool1d(x[:, :, 0, 0], 3, 1, 1), F.max_pool3d(x, 2),
                                      F.avg_pool3d(x, 2)), f32(1, 2, 4, 6, 5)),
    "adaptive": (lambda x: (F.adaptive_avg_pool2d(x, 1), F.adaptive_avg_pool2d(x, (3, 2)), F.adaptive_max_pool2d(x, (2, 3)),
                            F.adaptive_avg_pool1d(x[:, :, 0], 3)), f32(2, 3, 7, 8)),
    "lp pool": (lambda x: F.lp_pool2d(x, 2, 3, 2), positive(1, 2, 7, 7)),
    "resize nearest": (lambda x: (F.interpolate(x, scale_factor=2), F.interpolate(x, size=(7, 3)), F.interpolate(
        x, scale_factor=1.7), F.interpolate(x, size=(9, 4), mode="nearest-exact")), f32(1, 2, 4, 5)),
    "resize linear": (lambda x: (F.interpolate(x, scale_factor=2, mode="bilinear"), F.interpolate(
        x, size=(7, 3), mode="bilinear", align_corners=True), F.interpolate(x, scale_factor=(1.5, 0.7), mode="bilinear"),
        F.interpolate(x[:, :, 0], size=9, mode="linear")), f32(1, 2, 4, 5)),
    "resize cubic": (lambda x: F.interpolate(x, size=(7, 9), mode="bicubic"), f32(1, 2, 4, 5)),
}  # fmt: skip
NORMS = {
    "layer norm": (lambda x, w: (F.layer_norm(x, (4,)), F.layer_norm(x, (4,), w), F.layer_norm(x, (3, 4), eps=1e-3)),
                   f32(2, 3, 4), f32(4)),
    "rms norm": (lambda x, w: (F.rms_norm(x, (4,), w), F.rms_norm(x, (3, 4), eps=1e-3)), f32(2, 3, 4), f32(4)),
    "group norm": (lambda x, w: (F.group_norm(x, 2, w, w), F.group_norm(x, 4)), f32(2, 4, 5, 3), f32(4)),
    "instance norm": (lambda x, w: (F.instance_norm(x), F.instance_norm(x, weight=w, bias=w)), f32(2, 4, 5, 3), f32(4)),
    "batch norm": (lambda x, w, v: F.batch_norm(x, w, v, w, w), f32(3, 4, 5), f32(4), positive(4)),
    "batch norm of the batch": (lambda x: F.batch_norm(x, None, None, training=True), f32(6, 4)),
    "local response": (lambda x: F.local_response_norm(x, 3), f32(2, 5, 4, 4)),
}  # fmt: skip
CASES = {
    f"{family}: {name}": case
    for family, cases in {
        "pointwise": POINTWISE, "activation": ACTIVATIONS, "movement": MOVEMENT, "index": INDEX, "reduce": REDUCE,
        "product": PRODUCTS, "pool": POOLS, "norm": NORMS,
    }.items()
    for name, case in cases.items()
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_converter(case: str, check: Any) -> None:
    f, *inputs = CASES[case]
    check(Fn(f), tuple(inputs))


RECURRENT = {
    "lstm": (torch.nn.LSTM(5, 7, 2), f32(4, 3, 5)),
    "lstm both ways": (torch.nn.LSTM(5, 7, 2, bidirectional=True, batch_first=True), f32(3, 4, 5)),
    "lstm without bias": (torch.nn.LSTM(5, 7, bias=False), f32(4, 3, 5)),
    "lstm with states": (torch.nn.LSTM(5, 7), f32(4, 3, 5), (f32(1, 3, 7), f32(1, 3, 7))),
    "lstm of one sequence": (torch.nn.LSTM(5, 7), f32(4, 5)),
    "lstm projected": (torch.nn.LSTM(5, 7, 2, bidirectional=True, proj_size=3), f32(4, 3, 5)),
    "lstm projected without bias": (torch.nn.LSTM(5, 7, 2, bias=False, proj_size=3, batch_first=True), f32(1, 4, 5)),
    "gru": (torch.nn.GRU(5, 7, 2, bidirectional=True), f32(4, 3, 5)),
    "gru without bias": (torch.nn.GRU(5, 7, bias=False, batch_first=True), f32(3, 4, 5)),
    "rnn": (torch.nn.RNN(5, 7, 2), f32(4, 3, 5)),
    "relu rnn": (torch.nn.RNN(5, 7, nonlinearity="relu", bidirectional=True), f32(4, 3, 5)),
    "cells": (torch.nn.LSTMCell(5, 7), f32(3, 5)),
    "gru cell": (torch.nn.GRUCell(5, 7), f32(3, 5)),
    "encoder layer": (torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), f32(2, 5, 8)),
    "decoder layer": (torch.nn.TransformerDecoderLayer(8, 2, 16), f32(5, 2, 8), f32(4, 2, 8)),
    "multihead attention": (torch.nn.MultiheadAttention(8, 2), f32(5, 2, 8), f32(4, 2, 8), f32(4, 2, 8)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", RECURRENT)
def test_sequence_layers(name: str, check: Any) -> None:
    module, *inputs = RECURRENT[name]
    check(module, tuple(inputs))


def test_half_precision_is_kept_at_the_borders(check: Any) -> None:
    """bf16 weights and results, computed in f32: at least as good as torch's own bf16."""
    import numpy as np

    from diptych.frontends.torch import source
    from diptych.targets.numpy import interpret

    model = torch.nn.Linear(4, 3).bfloat16()
    src = source(model, (torch.randn(2, 4).bfloat16(),))
    graph = src.graph()
    assert [t.dtype for t in (*graph.input_types().values(), *graph.output_types().values())] == ["bf16", "bf16"]
    x = torch.randn(2, 4).half()
    half = source(torch.nn.Linear(4, 3).half(), (x,))
    got = interpret(half.graph(), {"input": x.numpy()})["output"]
    assert got.dtype == np.float16
