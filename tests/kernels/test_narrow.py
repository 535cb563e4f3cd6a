"""Convolutions to a few channels against a direct sum: both layouts, tails of pixels and channels, windows, epilogues."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, expr, misaligned, view

import diptych
from diptych.ir import TensorType
from diptych.kernels.narrow import make_narrow_conv
from diptych.ops import OPS, Builder, Conv
from diptych.ops.blocked import PackChannels

Pads = tuple[tuple[int, int], ...]


def taps(x: Array, kernel: tuple[int, ...], dil: tuple[int, ...]) -> list[int]:
    strides = [s // 4 for s in x.strides[2:]]
    return [sum(i * d * s for i, d, s in zip(at, dil, strides, strict=False)) for at in np.ndindex(*kernel)]


CASES = [  # input, outputs, kernel, strides, pads, dilations
    ((1, 32, 16, 16), 1, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    ((2, 20, 5, 37), 1, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    ((1, 7, 3, 21), 3, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    ((2, 33, 9, 50), 4, (3, 3), (2, 1), ((1, 0), (2, 2)), (1, 2)),
    ((1, 16, 4, 130), 2, (1, 5), (1, 1), ((0, 0), (2, 2)), (1, 1)),
    ((1, 1, 70), 1, (3,), (1,), ((1, 1),), (1,)),
    ((1, 18, 3, 4, 19), 2, (2, 3, 3), (1, 2, 1), ((0, 1), (1, 1), (1, 1)), (1, 1, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "outputs", "kernel", "strides", "pads", "dil"), CASES)
@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_direct(shape: Any, outputs: int, kernel: Any, strides: Any, pads: Any, dil: Any, blocked: bool, bias: bool,
                rng: np.random.Generator) -> None:  # fmt: skip
    x = rng.standard_normal(shape).astype(np.float32)
    w = rng.standard_normal((outputs, shape[1], *kernel)).astype(np.float32)
    b = rng.standard_normal(outputs).astype(np.float32)
    rest = (b,) if bias else ()
    want = Conv(strides, pads, dil, 1).reference(x.astype(np.float64), w.astype(np.float64), *(r.astype(np.float64) for r in rest))
    padded = np.pad(x, ((0, 0), (0, 0), *pads))
    weights = w
    if blocked:
        weights, padded = (np.ascontiguousarray(PackChannels().reference(a)) for a in (w, padded))
        lanes = padded.reshape(*padded.shape[:-1], 16)
        lanes[:, -1, ..., shape[1] % 16 or 16 :] = np.nan  # what lies past the last channel must not matter
    out = misaligned(np.shape(want))
    made = make_narrow_conv(view(padded), view(weights), view(b) if bias else None, view(out), strides,
                            taps(padded, kernel, dil), shape[1], V3, blocked=blocked)  # fmt: skip
    build(made)(padded, weights, *rest, out)
    np.testing.assert_allclose(out, want, rtol=2e-5, atol=2e-5 * np.sqrt(shape[1]))


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("target", [V3, V4, ARM], ids=lambda t: t.name)
def test_compiles_elsewhere(target: Any, blocked: bool) -> None:
    x = np.zeros((1, 3, 8, 8, 16) if blocked else (1, 40, 8, 8), np.float32)
    w = np.zeros((2, 3, 1, 1, 16) if blocked else (2, 40, 1, 1), np.float32)
    out = np.zeros((1, 2, 8, 8), np.float32)
    made = make_narrow_conv(view(x), view(w), None, view(out), (1, 1), [0], 40, target, blocked=blocked)
    assert compile_only(made, target)


def test_epilogue_reads_operands(rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((2, 24, 6, 11)).astype(np.float32), rng.standard_normal((2, 24, 1, 1)).astype(np.float32)
    other, scale = rng.standard_normal((2, 2, 6, 11)).astype(np.float32), rng.standard_normal((2, 1, 1)).astype(np.float32)
    e = expr(3, (OPS["mul"](), (0, 2)), (OPS["add"](), (3, 1)), (OPS["relu"](), (4,)))
    out = misaligned((2, 2, 6, 11))
    wide = np.broadcast_to(scale, out.shape)
    made = make_narrow_conv(view(x), view(w), None, view(out), (1, 1), [0], 24, V3, blocked=False, epilogue=e,
                            extras=[view(other), view(wide)])  # fmt: skip
    build(made)(x, w, other, wide, out)
    want = np.maximum(np.einsum("nchw,oc->nohw", x, w[..., 0, 0]) * scale + other, 0)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-4)


def network(outputs: int) -> Any:
    """A head on top of a convolution, with what follows it."""
    g, rng = Builder("net"), np.random.default_rng(3)
    x = g.input("x", TensorType((1, 8, 21, 19)))
    conv = Conv((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    w1, w2 = (rng.standard_normal(s).astype(np.float32) for s in ((24, 8, 3, 3), (outputs, 24, 3, 3)))
    h = g.relu(g.emit(conv, x, g.constant(w1)))
    y = g.emit(conv, h, g.constant(w2), g.constant(rng.standard_normal(outputs).astype(np.float32)))
    return g.finish({"y": g.sigmoid(y)})


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_head_reads_blocks_and_takes_what_follows(threads: int, rng: np.random.Generator) -> None:
    graph = network(1)
    x = rng.standard_normal((1, 8, 21, 19)).astype(np.float32)
    model = diptych.compile(graph, threads=threads)
    narrow = [k for k in model.plan.kernels if k.kind == "narrow_conv"]
    assert len(narrow) == 1
    assert narrow[0].params.blocked
    assert model.plan.kernels[-1].kind == "narrow_conv", "the sigmoid is part of it, nothing is unpacked"
    want = diptych.compile(graph, target="numpy")(x)
    np.testing.assert_allclose(model(x), want, rtol=1e-5, atol=1e-5)
