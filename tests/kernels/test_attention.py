"""Attention, compiled, against its reference: odd sizes, masks of every form, causal, shared heads, layouts, threads, NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import V3, V4, Array, Compiled, build, compile_only, view

import diptych
from diptych.ir import Graph, TensorType
from diptych.ir.kernel import Expr
from diptych.kernels.attention import make_attention
from diptych.ops import Attention, Builder
from diptych.ops.base import OPS
from diptych.targets import host
from diptych.targets.base import Target
from diptych.targets.numpy import interpret

TOLERANCE = 2e-6
Shape = tuple[int, ...]


def graph_of(op: Attention, *arrays: Array) -> Graph:
    g = Builder("attention")
    values = [g.input(f"x{i}", TensorType(a.shape)) for i, a in enumerate(arrays)]
    return g.finish([g.emit(op, *values)])


def exact(op: Attention, *arrays: Array) -> Array:
    with np.errstate(all="ignore"):
        return op.reference(*(a.astype(np.float64) for a in arrays))


def check(op: Attention, *arrays: Array, threads: int = 1, kinds: set[str] | None = None) -> Array:
    model = diptych.compile(graph_of(op, *arrays), threads=threads)
    assert {k.kind for k in model.plan.kernels} <= (kinds or {"attention", "attention_few", "attention_join"})
    got: Array = model(*arrays)
    np.testing.assert_allclose(got, exact(op, *arrays), rtol=TOLERANCE, atol=TOLERANCE)
    return got


def qkv(rng: np.random.Generator, b: int, h: int, s: int, t: int, d: int, dv: int | None = None, shared: int | None = None) -> list[Array]:
    shapes = [(b, h, s, d), (b, shared or h, t, d), (b, shared or h, t, dv or d)]
    return [rng.standard_normal(x).astype(np.float32) for x in shapes]


# B, H, S, T, D, Dv: less than a vector, tails of every kind, several chunks of keys
SIZES = [
    (1, 1, 1, 1, 1, 1), (1, 2, 5, 5, 8, 8), (2, 3, 20, 17, 1, 3), (1, 2, 33, 50, 7, 7), (1, 2, 16, 48, 32, 80), (3, 1, 49, 49, 32, 32),
    (1, 2, 29, 129, 64, 64), (1, 1, 3, 700, 16, 128), (2, 2, 70, 333, 20, 33), (1, 1, 300, 301, 80, 80), (1, 1, 13, 16, 128, 1),
]  # fmt: skip


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_against_the_reference(sizes: tuple[int, ...], causal: bool, rng: np.random.Generator) -> None:
    arrays = qkv(rng, *sizes)
    check(Attention(scale=sizes[4] ** -0.5, causal=causal), *arrays, threads=1 + sum(sizes) % 3)


@pytest.mark.parametrize("offset", [0, 3, 40, 1000])
@pytest.mark.parametrize(("s", "t"), [(20, 60), (60, 20), (1, 50), (290, 600)])
def test_causal_with_keys_before_the_first_query(s: int, t: int, offset: int, rng: np.random.Generator) -> None:
    check(Attention(scale=0.3, causal=True, offset=offset), *qkv(rng, 1, 2, s, t, 16), threads=2)


MASKS: list[Shape] = [
    (19, 37), (1, 37), (19, 1), (1, 1), (37,), (2, 4, 19, 37), (1, 4, 19, 37), (2, 1, 1, 37), (2, 4, 1, 1), (1, 1, 19, 37), (4, 19, 1), (2, 1, 19, 1),
]  # fmt: skip


@pytest.mark.parametrize("shape", MASKS, ids=str)
def test_masks_broadcast_in_every_way(shape: Shape, rng: np.random.Generator) -> None:
    arrays = qkv(rng, 2, 4, 19, 37, 16)
    check(Attention(scale=0.25), *arrays, (3 * rng.standard_normal(shape)).astype(np.float32), threads=2)


@pytest.mark.parametrize("s", [1, 3, 30])
@pytest.mark.parametrize(("heads", "shared"), [(8, 2), (6, 1), (4, 4), (12, 3)])
@pytest.mark.parametrize("causal", [False, True])
def test_heads_that_share_keys(heads: int, shared: int, s: int, causal: bool, rng: np.random.Generator) -> None:
    arrays = qkv(rng, 2, heads, s, 41, 24, shared=shared)
    mask = rng.standard_normal((2, heads, s, 41)).astype(np.float32)
    check(Attention(scale=0.25, causal=causal), *arrays, mask, threads=2)


def test_many_keys_and_shared_heads(rng: np.random.Generator) -> None:
    check(Attention(scale=0.2), *qkv(rng, 1, 6, 25, 1000, 32, shared=2), threads=2)


@pytest.mark.parametrize("t", [40, 900])
@pytest.mark.parametrize("s", [1, 21])
@pytest.mark.parametrize("unseen", ["zeros", "nan"])
def test_queries_that_see_nothing(unseen: str, s: int, t: int, rng: np.random.Generator) -> None:
    arrays = qkv(rng, 1, 2, s, t, 8)
    mask = np.zeros((1, 2, s, t), np.float32)
    mask[0, 1, s // 2] = -np.inf
    mask[0, 0, :, t // 3 :] = -np.inf
    got = check(Attention(scale=0.3, unseen=unseen), *arrays, mask)
    hidden = got[0, 1, s // 2]
    assert (hidden == 0).all() if unseen == "zeros" else np.isnan(hidden).all()


def test_the_lowest_float_as_mask_is_not_infinity(rng: np.random.Generator) -> None:
    """A padding row masked with the lowest float everywhere attends evenly, as softmax written out does."""
    arrays = qkv(rng, 1, 1, 4, 30, 8)
    mask = np.full((1, 1, 4, 30), np.finfo(np.float32).min)
    mask[0, 0, :2, :9] = 0
    got = check(Attention(scale=0.3), *arrays, mask)
    np.testing.assert_allclose(got[0, 0, 3], arrays[2][0, 0].mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("t", [37, 650])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_nan_and_infinity_go_where_the_reference_has_them(which: int, value: float, t: int, rng: np.random.Generator) -> None:
    arrays = qkv(rng, 1, 2, 17, t, 8)
    arrays[which][0, 1, 3, 2] = value
    op = Attention(scale=0.3)
    expected = exact(op, *arrays)
    assert not np.isfinite(expected[0, 1]).all()
    np.testing.assert_allclose(diptych.compile(graph_of(op, *arrays), threads=1)(*arrays), expected, rtol=TOLERANCE, atol=TOLERANCE)


# B, H, Hk, S, T, D, Dv, threads: few queries, whole vectors of keys and tails, heads split between threads
FEW = [
    (1, 12, 12, 1, 128, 64, 64, 2), (1, 2, 2, 1, 1, 1, 1, 1), (2, 3, 3, 1, 17, 7, 5, 2), (1, 8, 2, 1, 300, 80, 80, 2), (1, 3, 3, 4, 515, 32, 48, 2),
    (1, 1, 1, 1, 1000, 64, 64, 3), (1, 4, 1, 1, 777, 128, 128, 2), (3, 1, 1, 8, 33, 16, 130, 2), (1, 1, 1, 2, 640, 20, 12, 4),
]  # fmt: skip


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", FEW, ids=str)
def test_few_queries(sizes: tuple[int, ...], causal: bool, rng: np.random.Generator) -> None:
    b, h, shared, s, t, d, dv, threads = sizes
    arrays = qkv(rng, b, h, s, t, d, dv, shared)
    op = Attention(scale=0.3, causal=causal, offset=t // 2)
    check(op, *arrays, threads=threads, kinds={"attention_few", "attention_join"} if not causal or h == shared else None)
    mask = np.where(rng.random((b, 1, s, t)) < 0.3, -np.inf, rng.standard_normal((b, h, s, t))).astype(np.float32)
    check(op, *arrays, mask, threads=threads)


@pytest.mark.parametrize("unseen", ["zeros", "nan"])
def test_a_part_of_the_keys_may_see_nothing(unseen: str, rng: np.random.Generator) -> None:
    """Few queries, split keys: the last parts are hidden from one row, all of them from another."""
    arrays = qkv(rng, 1, 1, 3, 1024, 16)
    mask = np.zeros((1, 1, 3, 1024), np.float32)
    mask[..., 0, 100:] = -np.inf
    mask[..., 1, :] = -np.inf
    got = check(Attention(scale=0.3, unseen=unseen), *arrays, mask, threads=4, kinds={"attention_few", "attention_join"})
    assert (got[0, 0, 1] == 0).all() if unseen == "zeros" else np.isnan(got[0, 0, 1]).all()


def test_large_scores_do_not_overflow(rng: np.random.Generator) -> None:
    q, k, v = qkv(rng, 1, 2, 21, 500, 16)
    op = Attention(scale=1.0)
    np.testing.assert_allclose(
        diptych.compile(graph_of(op, 300 * q, 300 * k, v), threads=1)(300 * q, 300 * k, v), exact(op, 300 * q, 300 * k, v), rtol=0, atol=0.05
    )  # scores of 1e6 are known to 0.1: their weights no better


@pytest.mark.parametrize("dtype", ["f64", "f16"])
def test_other_dtypes_decompose(dtype: str, rng: np.random.Generator) -> None:
    arrays = [a.astype({"f64": "f8", "f16": "f2"}[dtype]) for a in qkv(rng, 1, 2, 5, 7, 8)]
    g = Builder("attention")
    graph = g.finish([g.emit(Attention(scale=0.3), *(g.input(f"x{i}", TensorType(a.shape, dtype)) for i, a in enumerate(arrays)))])
    model = diptych.compile(graph, threads=1)
    assert "attention" not in {k.kind for k in model.plan.kernels}
    np.testing.assert_allclose(model(*arrays), exact(Attention(scale=0.3), *arrays), atol=1e-12 if dtype == "f64" else 4e-3)


def test_nothing_to_attend(rng: np.random.Generator) -> None:
    op = Attention(scale=0.3)
    for b, h, s, dv in ((0, 2, 3, 4), (1, 2, 0, 4)):
        arrays = [np.ones(x, np.float32) for x in ((b, h, s, 4), (b, h, 5, 4), (b, h, 5, dv))]
        assert diptych.compile(graph_of(op, *arrays), threads=1)(*arrays).shape == (b, h, s, dv)


@pytest.mark.parametrize(("s", "t", "causal"), [(61, 61, True), (100, 700, False), (300, 1024, True)])
def test_threads_share_the_work_bit_for_bit(s: int, t: int, causal: bool, rng: np.random.Generator) -> None:
    arrays = qkv(rng, 1, 3, s, t, 32)
    graph = graph_of(Attention(scale=0.2, causal=causal), *arrays)
    alone = diptych.compile(graph, threads=1)(*arrays)
    for threads in (2, 3):
        model = diptych.compile(graph, threads=threads)
        assert model.plan.kernels[0].work >= threads
        for _ in range(3):
            np.testing.assert_array_equal(model(*arrays), alone)


def test_projections_are_read_and_written_in_place(rng: np.random.Generator) -> None:
    """Packed q, k, v as a projection leaves them; heads side by side as the next one wants them: two kernels, no copy."""
    b, s, h, d = 2, 21, 3, 32
    x = rng.standard_normal((b, s, 3 * h * d)).astype(np.float32)
    w = rng.standard_normal((h * d, 16)).astype(np.float32)
    g = Builder("layer")
    value = g.input("x", TensorType(x.shape))
    parts = [
        g.transpose(g.reshape(g.slice_axis(value, 2, i * h * d, (i + 1) * h * d), (b, s, h, d)), (0, 2, 1, 3)) for i in range(3)
    ]
    y = g.reshape(g.transpose(g.emit(Attention(scale=0.2), *parts), (0, 2, 1, 3)), (b, s, h * d))
    graph = g.finish([g.matmul(y, g.constant(w))])
    model = diptych.compile(graph, threads=2)
    assert [k.kind for k in model.plan.kernels] == ["attention", "contract"]
    expected = interpret(graph, {"x": x}, precision="f64")
    np.testing.assert_allclose(model(x), next(iter(expected.values())), rtol=1e-5, atol=1e-5)


def test_what_makes_a_mask_is_worked_out_on_the_way(rng: np.random.Generator) -> None:
    """A bias and a mask of windows with other broadcasts, added, regrouped; and a boolean mask."""
    arrays = qkv(rng, 4, 3, 20, 20, 8)
    bias = rng.standard_normal((1, 1, 3, 20, 20)).astype(np.float32)
    shift = np.where(rng.random((1, 4, 1, 20, 20)) < 0.3, -np.inf, 0.0).astype(np.float32)
    seen = rng.random((4, 1, 20, 20)) < 0.8
    g = Builder("windows")
    values = [g.input(f"x{i}", TensorType(a.shape)) for i, a in enumerate(arrays)]
    more = [g.input("bias", TensorType(bias.shape)), g.input("shift", TensorType(shift.shape)), g.input("seen", TensorType(seen.shape, "bool"))]
    added = g.reshape(g.add(more[0], more[1]), (4, 3, 20, 20))
    hidden = g.where(more[2], 0.0, float("-inf"))
    graph = g.finish([g.emit(Attention(scale=0.3), *values, added), g.emit(Attention(scale=0.3), *values, hidden)])
    model = diptych.compile(graph, threads=2)
    assert [k.kind for k in model.plan.kernels] == ["attention"] * 2
    given = (*arrays, bias, shift, seen)
    expected = interpret(graph, dict(zip(graph.input_names, given, strict=True)), precision="f64")
    for got, want in zip(model(*given), expected.values(), strict=True):
        np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_small_mask_is_made_once(rng: np.random.Generator) -> None:
    """Of padding: worked out for the keys, not for every score."""
    arrays = qkv(rng, 2, 3, 20, 30, 8)
    keep = (rng.random((2, 1, 1, 30)) < 0.7).astype(np.float32)
    g = Builder("padding")
    values = [g.input(f"x{i}", TensorType(a.shape)) for i, a in enumerate(arrays)]
    k = g.input("keep", TensorType(keep.shape))
    graph = g.finish([g.emit(Attention(scale=0.3), *values, g.mul(g.sub(1.0, k), -1e9))])
    model = diptych.compile(graph, threads=2)
    assert [x.kind for x in model.plan.kernels] == ["pointwise", "attention"]
    expected = interpret(graph, dict(zip(graph.input_names, (*arrays, keep), strict=True)), precision="f64")
    np.testing.assert_allclose(model(*arrays, keep), next(iter(expected.values())), rtol=TOLERANCE, atol=TOLERANCE)


def test_a_mask_that_strides_cannot_say(rng: np.random.Generator) -> None:
    arrays = qkv(rng, 4, 3, 16, 16, 8)
    bias, shift = rng.standard_normal((3, 16, 16)).astype(np.float32), rng.standard_normal((2, 1, 16, 16)).astype(np.float32)
    g = Builder("windows of two images")
    values = [g.input(f"x{i}", TensorType(a.shape)) for i, a in enumerate(arrays)]
    b, s = g.input("bias", TensorType(bias.shape)), g.input("shift", TensorType(shift.shape))
    five = g.broadcast_to(g.add(b, s), (2, 2, 3, 16, 16))
    graph = g.finish([g.emit(Attention(scale=0.3), *values, g.reshape(five, (4, 3, 16, 16)))])
    given = (*arrays, bias, shift)
    expected = interpret(graph, dict(zip(graph.input_names, given, strict=True)), precision="f64")
    np.testing.assert_allclose(diptych.compile(graph, threads=2)(*given), next(iter(expected.values())), rtol=TOLERANCE, atol=TOLERANCE)


# -- the kernel alone, over strides that graphs seldom make --------------------------------------------------------------
def targets() -> list[Target]:
    return [V3, *([host.host()] if host.host().name == "x86-64-v4" else [])]


def alone(q: Array, k: Array, v: Array, out: Array, target: Target, mask: Array | None = None, **options: Any) -> tuple[Compiled, list[Array]]:
    """The kernel on [B, H, G, S, D] views."""
    arrays = [q, k, v, *([] if mask is None else [mask]), out]
    expr = None if mask is None else Expr.identity()
    kernel = make_attention(view(q), view(k), view(v), [view(a) for a in arrays[3:-1]], view(out), 0.3, target, mask_expr=expr, **options)
    return build(kernel, target), arrays


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 1, 3, 2), (3, 2, 1, 0), (2, 3, 0, 1)])
@pytest.mark.parametrize("target", targets(), ids=lambda t: t.name)
def test_any_strides(order: tuple[int, ...], target: Target, rng: np.random.Generator) -> None:
    if not target.is_host:
        pytest.skip("another machine")
    shapes = [(2, 2, 19, 12), (2, 2, 35, 12), (2, 2, 35, 20)]
    back = tuple(order.index(i) for i in range(4))
    q, k, v = (rng.standard_normal(tuple(s[i] for i in order)).astype(np.float32).transpose(back) for s in shapes)
    mask = rng.standard_normal((2, 1, 35, 19)).astype(np.float32).transpose(0, 1, 3, 2)
    whole = np.broadcast_to(mask, (2, 2, 19, 35))[:, :, None]
    memory = np.full((2, 19, 2, 20), np.nan, np.float32)
    out = memory.transpose(0, 2, 1, 3)
    kernel, arrays = alone(q[:, :, None], k, v, out[:, :, None], target, whole)
    kernel(*arrays)
    np.testing.assert_allclose(out, exact(Attention(scale=0.3), q, k, v, mask), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("target", targets(), ids=lambda t: t.name)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_cut_into_work_items(threads: int, target: Target, rng: np.random.Generator) -> None:
    """Blocks of queries for any number of threads; nothing outside of the result is touched."""
    if not target.is_host:
        pytest.skip("another machine")
    q, k, v = (rng.standard_normal((1, 1, n, 16)).astype(np.float32) for n in (75, 400, 400))
    memory = np.full((77, 18), 7.0, np.float32)
    out = memory[1:-1, 1:-1][None, None]
    kernel, arrays = alone(q[:, :, None], k, v, out[:, :, None], target, threads=threads, causal=300)
    assert kernel.kernel.work >= min(threads, 3)  # of six tiles of queries, five threads do no better than three
    for item in range(kernel.kernel.work):
        kernel(*arrays, ranges=[(item, item + 1)])
    np.testing.assert_allclose(out, exact(Attention(scale=0.3, causal=True, offset=300), q, k, v), rtol=TOLERANCE, atol=TOLERANCE)
    memory[1:-1, 1:-1] = 7.0
    assert (memory == 7.0).all()


def test_compiles_for_other_machines() -> None:
    for target in (V4, host.find("aarch64")):
        for s, t, causal in ((128, 128, None), (1, 600, None), (40, 900, 3)):
            arrays = [np.zeros(x, np.float32) for x in ((1, 2, 1, s, 64), (1, 2, t, 64), (1, 2, t, 64), (1, 2, 1, s, 64))]
            q, k, v, out = map(view, arrays)
            assert compile_only(make_attention(q, k, v, [], out, 0.1, target, causal=causal, threads=2), target)


def test_type_rule_names_what_is_wrong() -> None:
    with pytest.raises(diptych.DiptychError, match="offset"):
        OPS["attention"](scale=1.0, causal=True, offset=-1).infer(*[TensorType((1, 1, 2, 4))] * 3)
    with pytest.raises(diptych.DiptychError, match="unseen"):
        OPS["attention"](scale=1.0, unseen="ones").infer(*[TensorType((1, 1, 2, 4))] * 3)
