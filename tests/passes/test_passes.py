"""Graph -> Graph passes: the same function before and after, and the nodes that should have gone are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from random_networks import Network

from diptych import compiler
from diptych.ir import Graph, TensorType, Value, verify
from diptych.ops import (
    OPS,
    AvgPool,
    BatchNorm,
    Builder,
    Composite,
    Concat,
    Conv,
    Gelu,
    HardSwish,
    LayerNorm,
    MaxPool,
    Silu,
)
from diptych.options import Options
from diptych.passes.affine import fold_affine
from diptych.passes.batch import mixing_node
from diptych.passes.commute import pool_before_pointwise
from diptych.passes.decompose import decompose
from diptych.passes.fold import cse, fold_constants, simplify
from diptych.passes.layout import block_channels
from diptych.passes.rebuild import rebuild
from diptych.passes.rows import order_rows
from diptych.targets.numpy import interpret

Pass = Callable[[Graph], Graph]
PASSES: dict[str, Pass] = {
    "fold_constants": fold_constants,
    "decompose": decompose,
    "fold_affine": fold_affine,
    "simplify": simplify,
    "cse": cse,
    "pool_before_pointwise": pool_before_pointwise,
    "block_channels": block_channels,
    "order_rows": order_rows,
    "rebuild": lambda g: rebuild(g, lambda *_: None),
    "all": lambda g: compiler.optimize(g, Options()),
}
RNG = np.random.default_rng(0)


def constant(g: Builder, *shape: int) -> Value:
    return g.constant(RNG.standard_normal(shape).astype(np.float32))


def same(before: Graph, after: Graph) -> None:
    """Equal names and types, equal values in float64."""
    verify(after)
    assert after.input_types() == before.input_types()
    assert after.output_types() == before.output_types()
    rng = np.random.default_rng(1)
    given = {n: rng.standard_normal(t.shape).astype(np.float32) for n, t in before.input_types().items()}
    old, new = (interpret(g, given, precision="f64") for g in (before, after))
    for name, expected in old.items():
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        # folded constants are stored in f32, so float64 results agree to f32's precision only
        np.testing.assert_allclose(new[name], expected, rtol=2e-6, atol=2e-6 * scale, err_msg=name)


def count(graph: Graph) -> Counter[str]:
    return Counter(n.op.name for n in graph.nodes)


def graph(make: Callable[[Builder], Value | dict[str, Value]]) -> Graph:
    g = Builder("case")
    made = make(g)
    return verify(g.finish(made if isinstance(made, dict) else {"y": made}))


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("seed", range(200, 212))
def test_random_networks_keep_their_meaning(name: str, seed: int) -> None:
    before = Network(seed).finish(steps=16)
    same(before, PASSES[name](before))


@pytest.mark.parametrize("name", PASSES)
def test_a_second_time_changes_nothing(name: str) -> None:
    once = PASSES[name](Network(300).finish(steps=16))
    assert count(PASSES[name](once)) == count(once)


def test_constants_fold_but_do_not_blow_up() -> None:
    def make(g: Builder) -> Value:
        a = g.add(constant(g, 8), constant(g, 8))  # folds
        b = g.broadcast_to(constant(g, 1), (1000, 1000))  # would become 4 MB
        return g.add(g.mul(g.input("x", TensorType((1000, 8))), a), g.slice(b, (0, 0), (1000, 8)))

    before = graph(make)
    after = fold_constants(before)
    same(before, after)
    assert count(after)["add"] == 1
    assert count(after)["broadcast_to"] == 1
    assert sum(a.nbytes for a in after.constants.values()) < 100_000


def conv(g: Builder, x: Value, o: int, groups: int = 1, bias: bool = True) -> Value:
    w = constant(g, o, x.shape[1] // groups, 3, 3)
    return g.emit(Conv((1, 1), ((1, 1), (1, 1)), (1, 1), groups), x, w, *([constant(g, o)] if bias else []))


def batch_norm(g: Builder, x: Value) -> Value:
    c = x.shape[1]
    parts = [constant(g, c), constant(g, c), constant(g, c), g.constant(RNG.uniform(0.5, 2, c).astype(np.float32))]
    return g.emit(BatchNorm(eps=1e-3), x, *parts)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_norms_and_scales_fold_into_convolutions(groups: int, bias: bool) -> None:
    def make(g: Builder) -> Value:
        y = batch_norm(g, conv(g, g.input("x", TensorType((2, 8, 6, 6))), 12, groups, bias))
        y = g.add(g.mul(y, constant(g, 12, 1, 1)), constant(g, 1, 12, 1, 1))
        return g.sub(y, g.constant(np.float32(0.25).reshape(1)))

    before = graph(make)
    after = fold_affine(before)
    same(before, after)
    assert count(after) == {"conv": 1}


def test_a_value_that_others_read_is_not_folded_away() -> None:
    def make(g: Builder) -> dict[str, Value]:
        y = conv(g, g.input("x", TensorType((1, 4, 5, 5))), 8)
        return {"y": y, "z": batch_norm(g, y)}

    before = graph(make)
    after = fold_affine(before)
    same(before, after)
    assert count(after)["batch_norm"] == 1


def test_spatial_scales_stay() -> None:
    before = graph(lambda g: g.mul(conv(g, g.input("x", TensorType((1, 4, 5, 5))), 8), constant(g, 5, 5)))
    after = fold_affine(before)
    same(before, after)
    assert count(after) == {"conv": 1, "mul": 1}


def test_views_of_views_become_one() -> None:
    def make(g: Builder) -> Value:
        x = g.input("x", TensorType((2, 3, 4)))
        y = g.transpose(g.transpose(x, (2, 0, 1)), (1, 2, 0))  # back where it was
        y = g.reshape(g.reshape(y, (6, 4)), (2, 12))
        return g.mul(g.add(y, g.constant(np.float32(-0.0))), g.constant(np.float32(1.0)))

    before = graph(make)
    after = simplify(before)
    same(before, after)
    assert count(after) == {"reshape": 1}


def test_adding_plus_zero_stays_because_of_minus_zero() -> None:
    before = graph(lambda g: g.add(g.input("x", TensorType((2,))), g.constant(np.float32(0.0))))
    assert count(simplify(before)) == {"add": 1}


def test_equal_nodes_merge() -> None:
    def make(g: Builder) -> Value:
        x = g.input("x", TensorType((3, 3)))
        a = g.tanh(g.mul(x, g.constant(np.full(3, 2, np.float32))))
        b = g.tanh(g.mul(x, g.constant(np.full(3, 2, np.float32))))
        return g.add(a, b)

    before = graph(make)
    after = cse(before)
    same(before, after)
    assert count(after) == {"mul": 1, "tanh": 1, "add": 1}


def test_decomposition_leaves_primitives() -> None:
    def make(g: Builder) -> Value:
        x = g.input("x", TensorType((4, 16)))
        return g.emit(LayerNorm(1), g.emit(Gelu(), g.emit(Silu(), g.emit(HardSwish(), x))), constant(g, 16), constant(g, 16))

    before = graph(make)
    after = decompose(before)
    same(before, after)
    assert not any(issubclass(OPS[n], Composite) for n in count(after))
    assert count(decompose(before, keep={"silu"}))["silu"] == 1


def stages() -> Graph:
    def make(g: Builder) -> Value:
        x = g.input("x", TensorType((1, 3, 16, 16)))
        a = g.relu(conv(g, x, 32))
        b = g.emit(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0))), g.emit(Concat(1), a, g.sigmoid(conv(g, a, 16))))
        return g.mean(g.relu(batch_norm(g, conv(g, b, 48))), (2, 3))

    return graph(make)


def test_layouts_change_at_the_borders_only() -> None:
    before = stages()
    after = compiler.optimize(before, Options())
    same(before, after)
    names = count(after)
    assert names["blocked_conv"] == 3
    assert names["blocked_max_pool"] == 1
    assert names["pack_channels"] == names["unpack_channels"] == 0  # a stem reads the image, pooling gives rows
    plain = compiler.optimize(before, Options(layout=False))
    same(before, plain)
    assert count(plain)["blocked_conv"] == 0


def test_channels_that_no_block_divides() -> None:
    def make(g: Builder) -> Value:
        x = g.input("x", TensorType((2, 5, 7, 7)))
        y = conv(g, g.relu(conv(g, x, 17)), 17)
        y = g.mul(y, g.sigmoid(g.mean(y, (2, 3), keepdims=True)))
        return g.emit(Concat(1), y, x)

    before = graph(make)
    same(before, block_channels(decompose(before)))


def test_every_stage_of_the_pipeline_is_verified_and_keeps_the_meaning() -> None:
    before = stages()
    seen: list[str] = []

    def on_stage(name: str, after: Graph) -> None:
        seen.append(name)
        same(before, after)

    compiler.optimize(before, Options(), on_stage)
    assert seen[:2] == ["recognize", "fold constants"]
    assert "channel blocks" in seen


@pytest.mark.parametrize(
    ("make", "independent"),
    [
        (lambda g, x: g.relu(g.matmul(x, g.constant(np.ones((6, 3), np.float32)))), True),
        (lambda g, x: g.reshape(x, (4, 2, 3)), True),
        (lambda g, x: g.sub(x, g.mean(x, (1,), keepdims=True)), True),
        (lambda g, x: g.mul(x, g.constant(np.ones((1, 6), np.float32))), True),
        (lambda g, x: g.sum(x, (0,)), False),
        (lambda g, x: g.transpose(x, (1, 0)), False),
        (lambda g, x: g.slice(x, (1, 0), (3, 6)), False),
        (lambda g, x: g.matmul(x, g.transpose(x, (1, 0))), False),
        (lambda g, x: g.mul(x, g.constant(np.arange(4, dtype=np.float32).reshape(4, 1))), False),
        (lambda g, x: g.reshape(x, (24,)), False),
        (lambda g, x: g.emit(Concat(0), x, x), False),
    ],
)
def test_rows_of_a_batch(make: Callable[[Builder, Value], Value], independent: bool) -> None:
    g = Builder("batch")
    found = mixing_node(verify(g.finish({"y": make(g, g.input("x", TensorType((4, 6))))})))
    assert (found is None) == independent, found


@pytest.mark.parametrize("bias", [False, True])
def test_averages_are_taken_before_pointwise_convolutions(bias: bool) -> None:
    def make(g: Builder, pads: int = 0, kernel: int = 1) -> Value:
        x = g.relu(g.input("x", TensorType((2, 6, 9, 8))))
        y = g.emit(Conv((1, 1), ((0, 0), (0, 0)), (1, 1)), x, constant(g, 5, 6, kernel, kernel),
                   *([constant(g, 5)] if bias else []))  # fmt: skip
        return g.emit(AvgPool((2, 2), (2, 2), ((pads, pads), (pads, pads))), y)

    before = graph(make)
    after = pool_before_pointwise(before)
    same(before, after)
    assert [n.op.name for n in after.nodes] == ["relu", "avg_pool", "conv"]
    for refused in (lambda g: make(g, pads=1), lambda g: make(g, kernel=2)):
        kept = graph(refused)
        assert [n.op.name for n in pool_before_pointwise(kept).nodes][-1] == "avg_pool"
