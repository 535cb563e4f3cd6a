"""Softmax and the normalisations against their references: axes, strides, fused programs, hard values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, expr, misaligned, view

from diptych.kernels.rows import make_l2_norm, make_layer_norm, make_log_softmax, make_rms_norm, make_softmax
from diptych.ops import OPS

SHAPES = [((3, 5), (1,)), ((4, 33), (1,)), ((2, 1000), (1,)), ((7, 2), (0,)), ((2, 3, 17, 5), (1,)), ((5, 1), (1,)),
          ((2, 3, 4, 5), (2, 3)), ((3, 6, 41), (1,)), ((1, 3001), (1,)), ((0, 4), (1,)), ((13, 8), (1,)), ((6, 12, 19), (2,))]  # fmt: skip


def exact(kind: str, x: Array, axes: tuple[int, ...], eps: float = 0.0, mode: str = "") -> Array:
    x = x.astype(np.float64)
    if x.size == 0:
        return x
    if kind.endswith("softmax"):
        e = x - x.max(axes, keepdims=True)
        total = np.exp(e).sum(axes, keepdims=True)
        return np.exp(e) / total if kind == "softmax" else e - np.log(total)
    if kind == "layer_norm":
        return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
    if kind == "rms_norm":
        return x / np.sqrt((x * x).mean(axes, keepdims=True) + eps)
    total = (x * x).sum(axes, keepdims=True)
    return x / (np.sqrt(total + eps) if mode == "add" else np.maximum(np.sqrt(total), eps))


def run(kind: str, x: Array, axes: tuple[int, ...], out: Array, **more: Any) -> None:
    made = {
        "softmax": lambda: make_softmax(x.shape, axes, [view(x)], [view(out)], V3),
        "log_softmax": lambda: make_log_softmax(x.shape, axes, [view(x)], [view(out)], V3),
        "layer_norm": lambda: make_layer_norm(x.shape, axes, [view(x)], (), [view(out)], more["eps"], V3),
        "rms_norm": lambda: make_rms_norm(x.shape, axes, [view(x)], (), [view(out)], more["eps"], V3),
        "l2_norm": lambda: make_l2_norm(x.shape, axes, [view(x)], [view(out)], more["eps"], more["mode"], V3),
    }[kind]()  # fmt: skip
    build(made)(x, out)


@pytest.mark.parametrize(("shape", "axes"), SHAPES)
@pytest.mark.parametrize("kind", ["softmax", "log_softmax", "layer_norm", "rms_norm", "l2_norm"])
def test_every_axis(kind: str, shape: tuple[int, ...], axes: tuple[int, ...], rng: np.random.Generator) -> None:
    x = (rng.standard_normal(shape) * 5).astype(np.float32)
    out = misaligned(shape)
    more = {"eps": 1e-5, "mode": "max" if shape[0] == 3 else "add"}
    run(kind, x, axes, out, **more)
    np.testing.assert_allclose(out, exact(kind, x, axes, **more), rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("kind", ["softmax", "log_softmax", "layer_norm"])
@pytest.mark.parametrize("dtype", ["f8", "f2"])
def test_other_floats(kind: str, dtype: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 37)).astype(dtype)
    for axes in ((0,), (1,)):
        out = np.zeros(x.shape, dtype)
        run(kind, x, axes, out, eps=1e-5)
        np.testing.assert_allclose(out, exact(kind, x, axes, 1e-5), rtol=2e-3 if dtype == "f2" else 1e-12, atol=2e-3 if dtype == "f2" else 1e-12)


def test_strided_rows(rng: np.random.Generator) -> None:
    x = rng.standard_normal((40, 66)).astype(np.float32)
    for v, axes in ((x.T, (1,)), (x[::2, ::-1], (1,)), (x[:, ::3], (0,)), (np.broadcast_to(x[0], (3, 66)), (1,))):
        out = np.zeros((*v.shape, 2), np.float32)[..., 0]
        run("softmax", v, axes, out)
        np.testing.assert_allclose(out, exact("softmax", v, axes), rtol=3e-6, atol=1e-7)


def test_infinities_and_nan() -> None:
    x = np.zeros((5, 21), np.float32)
    x[0], x[1, 3], x[2, 20], x[3, :15] = -np.inf, np.nan, np.inf, -np.inf
    x[4] = 1e30
    for axes, v in (((1,), x), ((0,), np.ascontiguousarray(x.T))):
        for kind in ("softmax", "log_softmax"):
            out = np.zeros(v.shape, np.float32)
            run(kind, v, axes, out)
            with np.errstate(all="ignore"):
                np.testing.assert_allclose(out, exact(kind, v, axes), rtol=1e-5, atol=1e-6)


def test_scaled_masked_softmax(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 9, 31)).astype(np.float32)
    mask = np.where(rng.random((2, 1, 1, 31)) < 0.3, -np.inf, 0).astype(np.float32)
    wide = np.broadcast_to(mask, x.shape)
    program = expr(2, (OPS["mul"](), (0, 2)), (OPS["add"](), (3, 1)), consts=((0.125, "f32"),))
    out = np.zeros(x.shape, np.float32)
    kernel = make_softmax(x.shape, (3,), [view(x), view(wide)], [view(out)], V3, prologue=program)
    build(kernel)(x, wide, out)
    np.testing.assert_allclose(out, exact("softmax", x * 0.125 + mask, (3,)), rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("along", [True, False])
def test_residual_layer_norm_with_everything(along: bool, rng: np.random.Generator) -> None:
    a, b, more = (rng.standard_normal((6, 45)).astype(np.float32) for _ in range(3))
    if not along:
        a, b, more = (np.ascontiguousarray(v.T).T for v in (a, b, more))
    gamma, beta = (rng.standard_normal(45).astype(np.float32) for _ in range(2))
    affine = [np.broadcast_to(v, a.shape) for v in (gamma, beta)]
    outs = [np.zeros_like(a) for _ in range(2)]
    epilogue = expr(2, (OPS["mul"](), (0, 1)), (OPS["relu"](), (2,)))
    kernel = make_layer_norm(a.shape, (1,), [view(a), view(b)], [view(v) for v in affine], [view(o) for o in outs], 1e-5, V3,
                             prologue=expr(2, (OPS["add"](), (0, 1))), epilogue=epilogue, extras=[view(more)])  # fmt: skip
    assert kernel.params.along is along
    build(kernel)(a, b, *affine, more, *outs)
    want = exact("layer_norm", a + b, (1,), 1e-5) * gamma + beta
    np.testing.assert_allclose(outs[0], np.maximum(want * more, 0), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(outs[1], a + b)


def test_group_norm_is_a_row_of_two_dims(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 2, 21)).astype(np.float32)
    gamma = np.broadcast_to(rng.standard_normal((1, 3, 2, 1)).astype(np.float32), x.shape)
    out = np.zeros_like(x)
    build(make_layer_norm(x.shape, (2, 3), [view(x)], [view(gamma)], [view(out)], 1e-5, V3))(x, gamma, out)
    np.testing.assert_allclose(out, exact("layer_norm", x, (2, 3), 1e-5) * gamma, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", [V4, ARM])
def test_other_machines(target: Any) -> None:
    x = np.zeros((20, 300), np.float32)
    assert compile_only(make_softmax(x.shape, (1,), [view(x)], [view(x)], target), target)
    assert compile_only(make_layer_norm(x.shape, (0,), [view(x)], (), [view(x)], 1e-5, target), target)
