"""What shares a kernel, what is made in place, and that a chain of operators makes no more steps than it must."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from diptych import compiler
from diptych.ir import TensorType, Value, verify
from diptych.ops import BatchNorm, Builder, Concat, Conv, LayerNorm, MaxPool, Resize, Silu, Softmax
from diptych.options import Options
from diptych.schedule.groups import partition
from diptych.schedule.plan import Plan
from diptych.targets import host

TARGET = host.find("x86-64-v3")
RNG = np.random.default_rng(0)


def constant(g: Builder, *shape: int) -> Value:
    return g.constant(RNG.standard_normal(shape).astype(np.float32))


def conv(g: Builder, x: Value, o: int, kernel: int = 3, groups: int = 1) -> Value:
    pad = kernel // 2
    op = Conv((1, 1), ((pad, pad), (pad, pad)), (1, 1), groups)
    return g.emit(op, x, constant(g, o, x.shape[1] // groups, kernel, kernel), constant(g, o))


def plan(make: Callable[[Builder], Value], threads: int = 2, **options: bool) -> Plan:
    g = Builder("fusion")
    graph = verify(g.finish({"y": make(g)}))
    return compiler.compile_plan(graph, Options(threads=threads, accuracy="strict", **options), TARGET)  # type: ignore[arg-type]


def image(g: Builder, c: int = 32, size: int = 10) -> Value:
    return g.input("x", TensorType((1, c, size, size)))


def kinds(p: Plan) -> list[str]:
    return [p.kernels[s.kernel].kind for s in p.steps]


def mlp(g: Builder) -> Value:
    x = g.input("x", TensorType((4, 20)))
    hidden = g.emit(Silu(), g.add(g.matmul(x, constant(g, 20, 50)), constant(g, 50)))
    return g.emit(Softmax(1), g.add(g.matmul(hidden, constant(g, 50, 6)), constant(g, 6)))


def residual(g: Builder) -> Value:
    x = image(g)
    y = g.emit(BatchNorm(), conv(g, x, 32), *(g.constant(np.full(32, v, np.float32)) for v in (2.0, 1.0, 0.5, 3.0)))
    return g.relu(g.add(conv(g, g.relu(y), 32), x))


def chain(g: Builder) -> Value:
    x = g.input("x", TensorType((64, 64)))
    for _ in range(5):
        x = g.tanh(g.mul(g.add(x, constant(g, 64)), x))
    return x


def dense_block(g: Builder) -> Value:
    x = g.relu(conv(g, image(g), 32))
    for _ in range(3):
        x = g.emit(Concat(1), x, g.relu(conv(g, g.relu(conv(g, x, 48, kernel=1)), 16)))
    return conv(g, x, 16, kernel=1)


def normalised(g: Builder) -> Value:
    x = g.input("x", TensorType((8, 64)))
    y = g.emit(LayerNorm(1), g.add(x, constant(g, 64)), constant(g, 64), constant(g, 64))
    return g.tanh(y)


def pooled(g: Builder) -> Value:
    y = g.emit(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0))), g.relu(conv(g, image(g), 32)))
    return g.mean(y, (2, 3))


# (network, most steps): each product one kernel with all that follows it, packing at the borders only
@pytest.mark.parametrize(
    ("make", "steps"), [(mlp, 3), (residual, 4), (chain, 1), (normalised, 1), (pooled, 5), (dense_block, 10)]
)
def test_steps(make: Callable[[Builder], Value], steps: int) -> None:
    fused, apart = plan(make), plan(make, fuse=False)
    assert len(fused.steps) <= steps, fused
    assert len(fused.steps) < len(apart.steps)


def test_batch_norm_disappears_into_the_convolution() -> None:
    assert sum(k == "contract" for k in kinds(plan(residual))) == 2
    g = Builder("norm")
    optimized = compiler.optimize(verify(g.finish({"y": residual(g)})), Options())
    assert not any(n.op.name in ("batch_norm", "sqrt", "div") for n in optimized.nodes)


def test_concatenated_values_are_made_in_place() -> None:
    p = plan(dense_block)
    assert kinds(p).count("contract") == 8
    assert not any("copy" in k for k in kinds(p))
    assert [s.name for s in p.steps if "concat" in s.name] == []


def test_padding_is_part_of_the_value_that_is_padded() -> None:
    """Only the graph's input is copied into a padded form; values made inside have their zero border already."""

    def three(g: Builder) -> Value:
        x = image(g)
        for _ in range(3):
            x = g.relu(conv(g, x, 32))
        return x

    pads = [fused for fused in plan(three).fused if "pad" in fused]
    assert len(pads) <= 1


def test_a_value_with_two_readers_is_made_once() -> None:
    def fork(g: Builder) -> Value:
        y = g.relu(conv(g, image(g), 32))
        return g.add(conv(g, y, 32, kernel=1), conv(g, y, 32, kernel=1))

    assert kinds(plan(fork)).count("contract") == 3
    assert "pointwise" not in kinds(plan(fork))  # the sum is fused into the later product


def test_every_refusal_says_why() -> None:
    g = Builder("refusals")
    x = g.input("x", TensorType((4, 20)))
    y = g.matmul(x, constant(g, 20, 8))
    graph = verify(g.finish({"y": y, "z": g.sum(y, (0,)), "t": g.tanh(y)}))
    (group,) = [p for p in partition(graph) if p.anchor is not None and p.anchor.op.name == "mat_mul"]
    assert group.epilogue == []  # y leaves the graph as it is

    g = Builder("shapes")
    x = g.input("x", TensorType((4, 20)))
    y = g.matmul(x, constant(g, 20, 8))
    graph = verify(g.finish({"z": g.add(g.reshape(y, (1, 4, 8)), constant(g, 5, 4, 8))}))
    (group,) = [p for p in partition(graph) if p.anchor is not None]
    assert any("shape" in why for why in group.refused)


def test_operators_that_fuse_are_named_in_the_report() -> None:
    p = plan(mlp)
    assert len(p.fused) == len(p.steps)
    flat = [name for fused in p.fused for name in fused]
    assert flat.count("mat_mul") == 2
    assert "softmax" in flat


def test_pooling_all_pixels_needs_no_unpacking() -> None:
    assert "unpack_channels" not in kinds(plan(pooled))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resampling_between_convolutions_stays_in_blocks(mode: str) -> None:
    """Up-sampled straight into the concatenation that a 3x3 convolution pads, its ReLU with it."""

    def make(g: Builder) -> Value:
        x = conv(g, image(g), 20)
        up = g.relu(g.emit(Resize((20, 20), mode), conv(g, x, 32)))
        skip = g.emit(Resize((20, 20), mode), conv(g, x, 48))
        return conv(g, g.concat([up, skip], 1), 16)

    made = kinds(plan(make))
    assert made.count("resize") == 2
    assert made.count("unpack_channels") == 1  # of the output
    assert "pointwise" not in made
