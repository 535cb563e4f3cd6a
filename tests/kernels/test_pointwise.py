"""Pointwise kernels against NumPy: strides, tails, transposes, dtypes, split work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, expr, misaligned, view

from diptych.ir.kernel import Expr
from diptych.kernels.pointwise import make_copy, make_pointwise
from diptych.ops import OPS

Add, Mul, Relu, Less, Where, Cast = (OPS[n] for n in ("add", "mul", "relu", "less", "where", "cast"))


def copy(source: Array, out: Array) -> None:
    build(make_copy(view(source), view(out), V3))(source, out)


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (31,), (32,), (33,), (1000,), (20011,), (3, 5), (17, 33), (2, 3, 4, 5), ()])
def test_copy_of_any_extent(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x = np.asarray(rng.standard_normal(shape), np.float32)
    y = misaligned(shape)
    copy(x, y)
    np.testing.assert_array_equal(x, y)


def test_nothing_to_do() -> None:
    x = np.zeros((3, 0, 5), np.float32)
    kernel = make_copy(view(x), view(x), V3)
    assert kernel.work == 0
    build(kernel)(x, x)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i1", "u1", "i2", "i4", "i8", "?"])
@pytest.mark.parametrize("case", ["plain", "transpose", "reverse", "step", "broadcast"])
def test_views_of_every_dtype(dtype: str, case: str, rng: np.random.Generator) -> None:
    x = np.asarray(rng.integers(0, 2 if dtype == "?" else 100, (37, 43))).astype(dtype)
    source = {
        "plain": x, "transpose": x.T, "reverse": x[::-1, ::-1], "step": x[::2, 1::3],
        "broadcast": np.broadcast_to(x[:, :1], (37, 43)),
    }[case]  # fmt: skip
    out = np.zeros(source.shape, dtype)
    copy(source, out)
    np.testing.assert_array_equal(source, out)


@pytest.mark.parametrize("perm", [(1, 0, 2), (0, 2, 1), (2, 1, 0), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("shape", [(3, 50, 19), (16, 24, 40), (1, 9, 64), (33, 8, 8)])
def test_transposes(perm: tuple[int, ...], shape: tuple[int, ...], rng: np.random.Generator) -> None:
    for dtype in (np.float32, np.float64):
        x = rng.standard_normal(shape).astype(dtype).transpose(perm)
        out = misaligned(x.shape, dtype)
        copy(x, out)
        np.testing.assert_array_equal(x, out)


def test_output_may_be_a_strided_view(rng: np.random.Generator) -> None:
    x = rng.standard_normal((20, 30)).astype(np.float32)
    out = np.full((20, 90), 7, np.float32)
    copy(x, out[:, 10:40])
    np.testing.assert_array_equal(out[:, 10:40], x)
    assert (out[:, :10] == 7).all() and (out[:, 40:] == 7).all()
    copy(x, out[:, ::3])
    np.testing.assert_array_equal(out[:, ::3], x)
    copy(x, out[::-1, 29::-1])
    np.testing.assert_array_equal(out[::-1, 29::-1], x)


def test_expression_with_broadcasts_and_several_outputs(rng: np.random.Generator) -> None:
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((6, 11, 13), (11, 1)))
    wide = np.broadcast_to(b, a.shape)
    program = expr(2, (Add(), (0, 1)), (Mul(), (3, 2)), (Relu(), (4,)), (Less(), (3, 0)), consts=((0.5, "f32"),), results=(5, 6, 3))
    outs = [np.zeros(a.shape, np.float32), np.zeros(a.shape, bool), np.zeros(a.shape, np.float32)]
    kernel = make_pointwise(a.shape, program, [view(a), view(wide)], [view(o) for o in outs], V3)
    build(kernel)(a, wide, *outs)
    np.testing.assert_array_equal(outs[0], np.maximum((a + b) * np.float32(0.5), 0))
    np.testing.assert_array_equal(outs[1], a + b < a)
    np.testing.assert_array_equal(outs[2], a + b)


def test_transposed_operand_fused_with_arithmetic(rng: np.random.Generator) -> None:
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((4, 45, 35), (4, 35, 45)))
    bt = b.transpose(0, 2, 1)
    out = np.zeros(a.shape, np.float32)
    kernel = make_pointwise(a.shape, expr(2, (Add(), (0, 1))), [view(a), view(bt)], [view(out)], V3)
    assert kernel.params.tiled
    build(kernel)(a, bt, out)
    np.testing.assert_array_equal(out, a + bt)


def test_casts_between_widths(rng: np.random.Generator) -> None:
    x = rng.standard_normal((9, 21)) * 50
    for source, to in (("f4", "i4"), ("f4", "f8"), ("f8", "f4"), ("i1", "f4"), ("f4", "i1"), ("i8", "f4"), ("?", "f4"), ("f4", "f2"), ("f2", "f4")):
        a = (x > 0) if source == "?" else x.astype(source)
        out = np.zeros(a.shape, to)
        name = view(out).dtype
        build(make_pointwise(a.shape, expr(1, (Cast(name), (0,))), [view(a)], [view(out)], V3))(a, out)
        np.testing.assert_array_equal(out, a.astype(to))


def test_select_on_bool_operand(rng: np.random.Generator) -> None:
    c, a, b = rng.random((5, 19)) < 0.5, *rng.standard_normal((2, 5, 19)).astype(np.float32)
    out = np.zeros(a.shape, np.float32)
    kernel = make_pointwise(a.shape, expr(3, (Where(), (0, 1, 2))), [view(c), view(a), view(b)], [view(out)], V3)
    build(kernel)(c, a, b, out)
    np.testing.assert_array_equal(out, np.where(c, a, b))


@pytest.mark.parametrize("target", [V4, ARM])
def test_other_machines(target: Any) -> None:
    x, out = np.zeros((50, 70), np.float32), np.zeros((70, 50), np.float32)
    assert compile_only(make_copy(view(x.T), view(out), target), target)
    assert compile_only(make_pointwise((50, 70), expr(2, (Add(), (0, 1))), [view(x)] * 2, [view(x)], target), target)


def test_work_is_chunky_and_enough_for_many_threads() -> None:
    x = np.zeros(1 << 20, np.float32)
    assert 16 <= make_copy(view(x), view(x), V3).work <= 64
    assert make_copy(view(x[:100]), view(x[:100]), V3).work == 1
    assert Expr.identity().is_identity
