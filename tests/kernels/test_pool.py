"""Pooling kernels against the operators' references, plain and channel-blocked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, expr, misaligned, view
from test_pointwise_pack import blocked as pack

from diptych.kernels.pool import make_adaptive_pool, make_pool
from diptych.ops import OPS

KINDS = {"max": "max_pool", "avg": "avg_pool", "lp": "lp_pool"}


def check(kind: str, x: Array, attrs: dict[str, Any], tolerance: float = 2e-6) -> None:
    """Plain, transposed and blocked views give what the reference gives."""
    op = OPS[KINDS[kind]](**attrs)
    with np.errstate(all="ignore"):
        want = op.reference(x)
    facts = (kind, op.kernel, op.strides, op.pads, attrs.get("dilations", ()))
    more = {"include_pad": attrs.get("count_include_pad", True), "power": attrs.get("p", 2.0)}
    out = misaligned(want.shape, x.dtype)
    build(make_pool(*facts, view(x), view(out), V3, **more))(x, out)
    np.testing.assert_allclose(out, want, rtol=tolerance, atol=tolerance)
    turned = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    out = np.moveaxis(np.zeros((want.shape[0], *want.shape[2:], want.shape[1]), x.dtype), -1, 1)
    build(make_pool(*facts, view(turned), view(out), V3, **more))(turned, out)
    np.testing.assert_allclose(out, want, rtol=tolerance, atol=tolerance)
    b, full = pack(x), pack(want)
    out = misaligned(full.shape, x.dtype)
    build(make_pool(*facts, view(b), view(out), V3, blocked=True, **more))(b, out)
    got = np.moveaxis(out, -1, 2).reshape(want.shape[0], -1, *want.shape[2:])[:, : want.shape[1]]
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["max", "avg", "lp"])
def test_samples_of_the_operators(kind: str, rng: np.random.Generator) -> None:
    for sample in OPS[KINDS[kind]].samples:
        x = sample.args[0].draw(rng)
        if x.size:
            check(kind, x, dict(sample.attrs), 2e-3 if x.dtype == np.float16 else 1e-5 if kind == "lp" else 2e-6)


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(("kernel", "strides", "pads"), [
    ((3, 3), (2, 2), ((1, 1), (1, 1))), ((3, 3), (1, 1), ((1, 1), (1, 1))), ((2, 2), (2, 2), ((0, 0), (0, 0))),
    ((5, 4), (3, 1), ((2, 1), (0, 3))), ((1, 9), (1, 2), ((0, 0), (4, 4))), ((13, 13), (1, 1), ((6, 6), (6, 6))),
])  # fmt: skip
def test_images(kind: str, kernel: Any, strides: Any, pads: Any, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 5, 23, 29)).astype(np.float32)
    check(kind, x, {"kernel": kernel, "strides": strides, "pads": pads})
    if kind == "avg":
        check(kind, x, {"kernel": kernel, "strides": strides, "pads": pads, "count_include_pad": False})


@pytest.mark.parametrize("rounding", ["floor", "ceil_torch", "ceil_mxnet"])
def test_rounding(rounding: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 3, 12, 14)).astype(np.float32)
    for kind in ("max", "avg"):
        for pad in (0, 1):
            check(kind, x, {"kernel": (3, 3), "strides": (2, 2), "pads": ((pad, pad),) * 2, "rounding": rounding})


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("width", [15, 17, 34, 67])
def test_rows_two_columns_apart(kind: str, kernel: int, width: int, rng: np.random.Generator) -> None:
    """Vectors of outputs from even and odd columns: first, inner and last ones, with NaN and -Inf at borders and inside."""
    x = rng.standard_normal((1, 2, 9, width)).astype(np.float32)
    pad = kernel // 2
    for lo, hi in ((pad, pad), (0, 0), (pad, 0), (0, pad)):
        attrs = {"kernel": (3, kernel), "strides": (2, 2), "pads": ((1, 1), (lo, hi))}
        check(kind, x, attrs)
        if kind == "avg":
            check(kind, x, {**attrs, "count_include_pad": False})
            continue
        special = x.copy()
        special[0, 0, :, :3] = -np.inf
        special[0, 0, 4, width // 2] = special[0, 1, 0, 0] = special[0, 1, 8, width - 1] = special[0, 1, 3, width - 2] = np.nan
        check(kind, special, attrs)


def test_volumes_two_columns_apart(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 1, 5, 6, 41)).astype(np.float32)
    check("max", x, {"kernel": (3, 2, 3), "strides": (2, 1, 2), "pads": ((1, 1), (0, 1), (1, 1))})
    check("max", x, {"kernel": (3, 2, 3), "strides": (2, 1, 2), "pads": ((1, 1), (0, 1), (1, 1)), "dilations": (1, 2, 1)})


def test_windows_of_border_alone(rng: np.random.Generator) -> None:
    """Windows that only just meet the input, and with dilations those that step over its edge."""
    x = rng.standard_normal((1, 2, 6, 40)).astype(np.float32)
    check("max", x, {"kernel": (3, 3), "strides": (1, 2), "pads": ((2, 2), (2, 2))})
    check("max", x, {"kernel": (3, 3), "strides": (1, 2), "pads": ((3, 3), (1, 1)), "dilations": (2, 1)})


def test_dilation_and_nan(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 2, 19, 40)).astype(np.float32)
    x[0, 1, 3, 7], x[0, 0, 0, 0] = np.nan, -np.inf
    check("max", x, {"kernel": (3, 2), "strides": (1, 2), "pads": ((2, 2), (1, 1)), "dilations": (2, 3)})


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_adaptive(kind: str, rng: np.random.Generator) -> None:
    for sample in OPS[f"adaptive_{kind}_pool"].samples:
        x = sample.args[0].draw(rng)
        want = OPS[f"adaptive_{kind}_pool"](**sample.attrs).reference(x)
        out = np.zeros_like(want)
        build(make_adaptive_pool(kind, view(x), view(out), V3))(x, out)
        np.testing.assert_allclose(out, want, rtol=2e-6, atol=2e-6)
        if x.size:
            b, full = pack(x), pack(want)
            out = np.zeros_like(full)
            build(make_adaptive_pool(kind, view(b), view(out), V3, blocked=True))(b, out)
            got = np.moveaxis(out, -1, 2).reshape(want.shape[0], -1, *want.shape[2:])[:, : want.shape[1]]
            np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


def test_epilogue(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 2, 9, 9, 16)).astype(np.float32)
    r = rng.standard_normal((1, 2, 4, 4, 16)).astype(np.float32)
    out = np.zeros_like(r)
    facts = ("max", (2, 2), (2, 2), ((0, 0), (0, 0)), ())
    program = expr(2, (OPS["add"](), (0, 1)), (OPS["relu"](), (2,)))
    build(make_pool(*facts, view(x), view(out), V3, blocked=True, epilogue=program, extras=[view(r)]))(x, r, out)
    want = x[:, :, :8, :8].reshape(1, 2, 4, 2, 4, 2, 16).max((3, 5)) + r
    np.testing.assert_array_equal(out, np.maximum(want, 0))


@pytest.mark.parametrize("target", [V4, ARM])
def test_other_machines(target: Any) -> None:
    x, out = np.zeros((1, 2, 9, 9, 16), np.float32), np.zeros((1, 2, 5, 5, 16), np.float32)
    facts = ("max", (3, 3), (2, 2), ((1, 1), (1, 1)), ())
    assert compile_only(make_pool(*facts, view(x), view(out), target, blocked=True), target)
    assert compile_only(make_pool(*facts, view(x[..., 0]), view(out[..., 0]), target), target)
    x, out = np.zeros((1, 2, 9, 70), np.float32), np.zeros((1, 2, 5, 35), np.float32)
    assert compile_only(make_pool(*facts, view(x), view(out), target), target)
