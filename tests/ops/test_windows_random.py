"""Operators that slide windows or resample, on random attributes, judged by PyTorch; what they refuse; NaN."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch_twins import TWINS, F, torch

from diptych.errors import TypeRuleError
from diptych.ir import TensorType, verify
from diptych.ops import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    Attention,
    AvgPool,
    Builder,
    Conv,
    ConvTranspose,
    LayerNorm,
    Lstm,
    MatMul,
    MaxPool,
    Resize,
    RmsNorm,
    Softmax,
    Sort,
    TopK,
)
from diptych.targets.numpy import interpret

RANDOM = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def windows(draw, max_pad=3):
    """(shape, kernel, strides, pads, dilations) of one to three spatial axes."""
    n = draw(st.integers(1, 3))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(n))

    pads = tuple((draw(st.integers(0, max_pad)), draw(st.integers(0, max_pad))) for _ in range(n))
    return each(1, 9), each(1, 4), each(1, 3), pads, each(1, 3)


def check(op, *arrays, gradients=True):
    """Reference, decomposition and gradients against PyTorch in float64."""
    tensors = [torch.from_numpy(a).requires_grad_() for a in arrays]
    wanted = TWINS[op.name](op, *tensors)
    got = op.reference(*arrays)
    assert got.shape == op.infer(*(TensorType(a.shape, "f64") for a in arrays)).shape == tuple(wanted.shape)
    np.testing.assert_allclose(got, wanted.detach().numpy(), rtol=1e-11, atol=1e-12)
    g = Builder()
    xs = tuple(g.input(f"x{i}", TensorType(a.shape, "f64")) for i, a in enumerate(arrays))
    outs = {}
    feed = {f"x{i}": a for i, a in enumerate(arrays)}
    if hasattr(op, "decompose"):
        outs["y"] = op.decompose(g, *xs)
    y = g.emit(op, *xs)
    feed["dy"] = np.random.default_rng(4).standard_normal(y.shape)
    if y.type.size and gradients:
        outs |= {f"d{i}": dx for i, dx in enumerate(op.gradient(g, xs, (y,), (g.input("dy", y.type),)))}
        grads = torch.autograd.grad(wanted, tensors, torch.from_numpy(feed["dy"]))
    else:
        del feed["dy"]
    results = interpret(verify(g.finish(outs)), feed)
    for name, result in results.items():
        want = wanted if name == "y" else grads[int(name[1:])]
        np.testing.assert_allclose(result, want.detach().numpy(), rtol=1e-9, atol=1e-10)


@RANDOM
@given(windows(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.booleans())
def test_conv(w, groups, per_group, outs, batch, with_bias):
    size, kernel, strides, pads, dilations = w
    assume(all(s + sum(p) > d * (k - 1) for s, p, d, k in zip(size, pads, dilations, kernel, strict=True)))
    rng = np.random.default_rng(3)
    x = rng.standard_normal((batch, groups * per_group, *size))
    weight = rng.standard_normal((groups * outs, per_group, *kernel))
    bias = [rng.standard_normal(groups * outs)] if with_bias else []
    check(Conv(strides, pads, dilations, groups), x, weight, *bias)


@RANDOM
@given(windows(max_pad=2), st.integers(1, 3), st.integers(1, 2), st.integers(1, 3), st.booleans(), st.integers(0, 1))
def test_conv_transpose(w, groups, per_group, outs, with_bias, extra):
    size, kernel, strides, pads, dilations = w
    op = ConvTranspose(strides, pads, dilations, groups, (extra,) * len(size))
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, groups * per_group, *size))
    weight = rng.standard_normal((groups * per_group, outs, *kernel))
    bias = [rng.standard_normal(groups * outs)] if with_bias else []
    try:
        op.infer(TensorType(x.shape, "f64"), TensorType(weight.shape, "f64"))
    except TypeRuleError:
        assume(False)
    check(op, x, weight, *bias)


@RANDOM
@given(windows(max_pad=2), st.sampled_from(["floor", "ceil_torch", "ceil_mxnet"]), st.booleans(), st.booleans())
def test_pools(w, rounding, largest, count_include_pad):
    size, kernel, strides, pads, dilations = w
    if largest:
        op = MaxPool(kernel, strides, pads, dilations, rounding)
    else:
        op = AvgPool(kernel, strides, pads, rounding, count_include_pad)
    x = np.random.default_rng(3).standard_normal((2, 3, *size))
    try:
        op.infer(TensorType(x.shape, "f64"))
    except TypeRuleError:
        assume(False)
    check(op, x)


@RANDOM
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 7)), min_size=1, max_size=3), st.booleans())
def test_adaptive_pools(axes, largest):
    x = np.random.default_rng(3).standard_normal((2, 3, *(a for a, _ in axes)))
    check((AdaptiveMaxPool if largest else AdaptiveAvgPool)(tuple(b for _, b in axes)), x)


@RANDOM
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 30)), min_size=1, max_size=3),
       st.sampled_from(["nearest", "linear", "cubic"]), st.sampled_from(["half_pixel", "align_corners", "asymmetric"]))  # fmt: skip
def test_resize(axes, mode, coordinates):
    assume(coordinates != "align_corners" if mode == "nearest" else coordinates != "asymmetric")  # not in PyTorch
    assume(mode != "cubic" or len(axes) == 2)
    x = np.random.default_rng(3).standard_normal((1, 2, *(a for a, _ in axes)))
    check(Resize(tuple(b for _, b in axes), mode, coordinates), x)


@RANDOM
@given(
    st.lists(st.tuples(st.integers(1, 12), st.floats(0.2, 4.0)), min_size=1, max_size=3),
    st.sampled_from([("nearest", "asymmetric"), ("nearest", "half_pixel"), ("linear", "half_pixel")]),
)
def test_resize_by_scale(axes, how):
    out = tuple(int(np.floor(size * scale)) for size, scale in axes)
    assume(min(out) > 0)
    x = np.random.default_rng(3).standard_normal((1, 2, *(size for size, _ in axes)))
    # given a scale, PyTorch's gradient of "nearest" is not that of its own forward pass
    check(Resize(out, *how, tuple(scale for _, scale in axes)), x, gradients=how[0] != "nearest")


def test_resize_asymmetric_linear():
    x = np.array([[[0.0, 1.0, 4.0]]])
    np.testing.assert_allclose(Resize((6,), "linear", "asymmetric").reference(x)[0, 0], [0, 0.5, 1, 2.5, 4, 4])
    np.testing.assert_array_equal(Resize((5,), "nearest", "align_corners").reference(x)[0, 0], [0, 1, 1, 4, 4])


def test_nan_spreads_as_in_torch():
    x = np.ones((1, 1, 4, 4), np.float32)
    x[0, 0, 1, 1] = np.nan
    for op in (
        MaxPool((2, 2), (2, 2), ((0, 0), (0, 0))),
        AvgPool((2, 2), (2, 2), ((0, 0), (0, 0))),
        AdaptiveMaxPool((2, 2)),
        Softmax(-1),
    ):
        want = TWINS[op.name](op, torch.from_numpy(x)).numpy()
        assert np.isnan(want).any()
        np.testing.assert_allclose(op.reference(x), want, rtol=1e-6)
    row = np.array([[1.0, np.nan, -np.inf, 3.0, np.nan, np.inf]], np.float32)
    for op in (Sort(), Sort(descending=True), TopK(3), TopK(4, largest=False)):
        for got, want in zip(op.reference(row), TWINS[op.name](op, torch.from_numpy(row)), strict=True):
            np.testing.assert_array_equal(got, want.numpy())


def test_softmax_of_only_minus_infinity_is_nan():
    x = np.array([[-np.inf, -np.inf], [0.0, -np.inf]], np.float32)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(Softmax().reference(x), F.softmax(torch.from_numpy(x), -1).numpy())


def test_a_query_that_sees_no_key_gets_zeros():
    rng = np.random.default_rng(3)
    q, k, v = (rng.standard_normal((1, 2, 3, 4)) for _ in range(3))
    mask = np.zeros((3, 3))
    mask[1] = -np.inf
    op = Attention(0.5)
    got = op.reference(q, k, v, mask)
    assert not got[:, :, 1].any()
    np.testing.assert_allclose(got, TWINS["attention"](op, *map(torch.from_numpy, (q, k, v, mask))).numpy(), rtol=1e-12)


def test_half_precision_sums_in_single():
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((1, 64, 5, 5)), rng.standard_normal((4, 64, 3, 3))
    op = Conv((1, 1), ((1, 1), (1, 1)), (1, 1))
    got = op.reference(x.astype(np.float16), w.astype(np.float16))
    want = op.reference(x.astype(np.float16).astype(float), w.astype(np.float16).astype(float))
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-2)


def t(*shape, dtype="f32"):
    return TensorType(shape, dtype)


_2D = {"strides": (1, 1), "pads": ((0, 0), (0, 0)), "dilations": (1, 1)}
REFUSED = {
    "conv channels": (Conv(**_2D), (t(1, 4, 8, 8), t(8, 3, 3, 3)), "4 channels"),
    "conv groups": (Conv(**_2D, groups=2), (t(1, 4, 8, 8), t(9, 2, 3, 3)), "groups=2"),
    "conv rank": (Conv(**_2D), (t(4, 8, 8), t(8, 4, 3, 3)), "rank"),
    "conv strides": (Conv((1,), ((0, 0), (0, 0)), (1, 1)), (t(1, 4, 8, 8), t(8, 4, 3, 3)), "strides"),
    "conv pads": (Conv((1, 1), ((0, -1), (0, 0)), (1, 1)), (t(1, 4, 8, 8), t(8, 4, 3, 3)), "pads"),
    "conv kernel": (Conv(**_2D), (t(1, 4, 2, 8), t(8, 4, 3, 3)), "shorter than the kernel"),
    "conv bias": (Conv(**_2D), (t(1, 4, 8, 8), t(8, 4, 3, 3), t(4)), "bias"),
    "conv dtypes": (Conv(**_2D), (t(1, 4, 8, 8), t(8, 4, 3, 3, dtype="f64")), "one dtype"),
    "conv ints": (Conv(**_2D), (t(1, 4, 8, 8, dtype="i32"), t(8, 4, 3, 3, dtype="i32")), "cast"),
    "transposed": (ConvTranspose(**_2D), (t(1, 4, 8, 8), t(8, 3, 3, 3)), "input channels"),
    "transposed pads": (ConvTranspose((1, 1), ((2, 2), (0, 0)), (1, 1)), (t(1, 4, 1, 8), t(4, 3, 3, 3)), "output"),
    "matmul": (MatMul(), (t(3, 4), t(5, 6)), "4 of f32.3,4. and 5"),
    "matmul flag": (MatMul(transpose_b=True), (t(3, 4), t(4, 6)), "transpose_b=True"),
    "matmul batch": (MatMul(), (t(2, 3, 4), t(3, 4, 5)), "broadcast"),
    "matmul vector": (MatMul(), (t(4), t(4, 5)), "rank >= 2"),
    "pool window": (MaxPool((5, 5), (1, 1), ((0, 0), (0, 0))), (t(1, 2, 4, 8),), "longer than"),
    "pool outside": (MaxPool((1, 1), (2, 2), ((0, 0), (0, 0)), (), "ceil_mxnet"), (t(1, 2, 4, 4),), "outside"),
    "pool rounding": (AvgPool((1, 1), (2, 2), ((0, 0), (0, 0)), "up"), (t(1, 2, 4, 4),), "rounding"),
    "pool rank": (MaxPool((2,), (2,), ((0, 0),)), (t(2, 4),), "spatial"),
    "adaptive": (AdaptiveAvgPool((2,)), (t(1, 2, 4, 4),), "output_size"),
    "resize mode": (Resize((4, 4), "bilinear"), (t(1, 2, 4, 4),), "mode"),
    "layer norm": (LayerNorm(), (t(3, 8), t(3)), "gamma"),
    "rms norm": (RmsNorm(), (t(3, 8), t(3)), "gamma"),
    "softmax": (Softmax(2), (t(3, 8),), "axis 2"),
    "attention heads": (Attention(1.0), (t(1, 3, 4, 8), t(1, 2, 4, 8), t(1, 2, 4, 8)), "multiple"),
    "attention mask": (Attention(1.0), (t(1, 2, 4, 8), t(1, 2, 4, 8), t(1, 2, 4, 8), t(3, 4)), "broadcast"),
    "lstm": (Lstm(), (t(3, 2, 5), t(16, 6), t(16, 4), t(16), t(2, 4), t(2, 4)), "input weight"),
    "lstm state": (Lstm(), (t(3, 2, 5), t(16, 5), t(16, 4), t(16), t(2, 4), t(1, 4)), "state"),
    "top k": (TopK(9), (t(3, 8),), "k=9"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_reason(case):
    op, types, why = REFUSED[case]
    with pytest.raises(TypeRuleError, match=why):
        op.infer(*types)
