"""Convolutions joined with the depthwise ones behind them, and factors that go into weights; refusals have reasons."""

from __future__ import annotations

import numpy as np

import diptych
from diptych import compiler
from diptych.ir import Graph, TensorType, Value, verify
from diptych.ops import OPS, Builder, Conv
from diptych.options import Options
from diptych.schedule.chain import join_chains, pays
from diptych.schedule.conv_pool import join_pools
from diptych.schedule.expand import join_depthwise
from diptych.schedule.gate import join_gates
from diptych.schedule.groups import Group, partition
from diptych.targets import host

TARGET = host.find("x86-64-v4")


def weight(g: Builder, *shape: int) -> Value:
    return g.constant(np.ones(shape, np.float32))


def conv(g: Builder, x: Value, o: int, kernel: int = 1, depthwise: bool = False, dilation: int = 1) -> Value:
    pad, c = kernel // 2 * dilation, x.shape[1]
    op = Conv((1, 1), ((pad, pad), (pad, pad)), (dilation, dilation), c if depthwise else 1)
    return g.emit(op, x, weight(g, o, 1 if depthwise else c, kernel, kernel), weight(g, o))


def image(g: Builder, c: int = 32, size: int = 20) -> Value:
    return g.input("x", TensorType((1, c, size, size)))


def blocked(g: Builder, *ys: Value) -> Graph:
    return compiler.optimize(verify(g.finish({f"y{i}": y for i, y in enumerate(ys)})), Options())


def joined(graph: Graph) -> list[Group]:
    groups = join_chains(graph, join_depthwise(graph, partition(graph)), lambda before, group: True)
    return join_pools(graph, join_gates(graph, groups))


def kinds(graph: Graph) -> list[str]:
    plan = compiler.compile_plan(graph, Options(threads=2), TARGET)
    return [plan.kernels[s.kernel].kind for s in plan.steps]


def reasons(graph: Graph) -> str:
    return "; ".join(r for g in joined(graph) for r in g.refused)


def test_block_is_two_kernels() -> None:
    g = Builder("block")
    x = image(g)
    y = g.relu(conv(g, g.relu(conv(g, x, 96)), 96, 3, depthwise=True))
    graph = g.finish({"y": g.add(conv(g, y, 32), x)})
    assert [k for k in kinds(graph) if "pack" not in k] == ["expand", "contract"]


def test_block_over_a_large_image_is_one_kernel() -> None:
    g = Builder("block")
    x = image(g, 24, 56)
    y = g.relu(conv(g, g.relu(conv(g, x, 144)), 144, 3, depthwise=True))
    graph = g.finish({"y": g.add(conv(g, y, 24), x)})
    plan = compiler.compile_plan(graph, Options(threads=2), TARGET)
    kernels = [plan.kernels[s.kernel] for s in plan.steps if "pack" not in plan.kernels[s.kernel].kind]
    assert [k.kind for k in kernels] == ["chain"]
    assert kernels[0].work == 2  # one cut, between the two threads


def test_a_chain_of_three_gives_the_numbers_of_the_reference() -> None:
    rng = np.random.default_rng(3)
    g = Builder("stem and block")

    def step(x: Value, o: int, kernel: int, stride: int = 1, groups: int = 1) -> Value:
        w = rng.standard_normal((o, x.shape[1] // groups, kernel, kernel)) / kernel / (x.shape[1] // groups) ** 0.5
        op = Conv((stride, stride), ((kernel // 2, kernel // 2),) * 2, (1, 1), groups)
        return g.emit(op, x, g.constant(w.astype(np.float32)), g.constant(rng.standard_normal(o).astype(np.float32)))

    x = g.input("x", TensorType((1, 3, 161, 150)))
    y = g.relu(step(x, 32, 7, 2))
    y = g.emit(OPS["max_pool"](kernel=(3, 3), strides=(1, 1), pads=((1, 1), (1, 1))), y)
    z = step(g.relu(step(g.relu(step(y, 72, 1)), 72, 5, 1, 72)), 24, 1)
    z = g.add(step(g.relu(step(g.relu(step(z, 80, 1)), 80, 3, 1, 80)), 24, 1), z)
    graph = g.finish({"z": z})
    found = kinds(graph)
    assert found.count("chain") == 2 and found.count("conv_pool") == 1
    given = rng.standard_normal((1, 3, 161, 150)).astype(np.float32)
    want = diptych.compile(graph, target="numpy")(given)
    for threads in (1, 2, 3):
        np.testing.assert_allclose(diptych.compile(graph, threads=threads)(given), want, rtol=1e-4, atol=1e-4)


def test_projections_that_stay_apart_say_why() -> None:
    def block(g: Builder) -> tuple[Value, Value]:
        y = g.relu(conv(g, g.relu(conv(g, image(g), 96)), 96, 3, depthwise=True))
        return y, conv(g, y, 32)

    g = Builder("read twice")
    assert "read elsewhere" in reasons(blocked(g, *block(g)))
    g = Builder("window")
    y = g.relu(conv(g, g.relu(conv(g, image(g), 96)), 96, 3, depthwise=True))
    assert "not a dense 1x1" in reasons(blocked(g, conv(g, y, 32, 3)))
    g = Builder("small")
    graph = blocked(g, block(g)[1])
    groups = join_chains(graph, join_depthwise(graph, partition(graph)), lambda before, group: False)
    assert "no faster" in "; ".join(r for group in groups for r in group.refused)


def test_what_pays_is_a_large_image_little_of_which_is_made_twice() -> None:
    def estimate(channels: int, size: int, threads: int = 2) -> bool:
        g = Builder("block")
        y = g.relu(conv(g, g.relu(conv(g, image(g, 32, size), channels)), channels, 3, depthwise=True))
        graph = blocked(g, conv(g, y, 32))
        found: list[bool] = []
        join_chains(graph, join_depthwise(graph, partition(graph)),
                    lambda before, group: bool(found.append(pays(graph, before, group, threads, TARGET))))  # fmt: skip
        return found[0]

    assert estimate(144, 56) and estimate(96, 112)
    assert not estimate(192, 28)  # stays in L2
    assert not estimate(1024, 56)  # the ring would not
    assert not estimate(144, 56, threads=16)


def test_stem_and_pool_are_one_kernel_or_say_why() -> None:
    def stem(g: Builder) -> Value:
        return g.relu(g.emit(Conv((2, 2), ((3, 3), (3, 3)), (1, 1), 1), image(g, 3, 40), weight(g, 32, 3, 7, 7), weight(g, 32)))

    def pool(g: Builder, y: Value, kernel: int = 3, dilation: int = 1) -> Value:
        op = OPS["max_pool"](kernel=(kernel,) * 2, strides=(2, 2), pads=((0, 0), (0, 0)), dilations=(dilation,) * 2)
        return g.emit(op, y)

    g = Builder("one")
    assert [k for k in kinds(g.finish({"y": conv(g, pool(g, stem(g)), 32)})) if "pack" not in k] == ["conv_pool", "contract"]
    g = Builder("read twice")
    y = stem(g)
    assert "read elsewhere" in reasons(blocked(g, conv(g, pool(g, y), 32), conv(g, y, 32)))
    g = Builder("dilated")
    assert "dilated" in reasons(blocked(g, conv(g, pool(g, stem(g), dilation=2), 32)))
    g = Builder("holes")
    assert "leave rows or columns out" in reasons(blocked(g, conv(g, pool(g, stem(g), 1), 32)))


def test_squeeze_and_excite_makes_no_pass_over_the_image() -> None:
    g = Builder("excite")
    y = g.relu(conv(g, g.relu(conv(g, image(g), 96)), 96, 3, depthwise=True))
    mean = g.emit(OPS["mean"](axes=(2, 3), keepdims=True), y)
    gate = g.sigmoid(conv(g, g.relu(conv(g, mean, 16)), 96))
    graph = g.finish({"y": conv(g, g.mul(y, gate), 32)})
    plan = compiler.compile_plan(graph, Options(threads=2), TARGET)
    kernels = [plan.kernels[s.kernel] for s in plan.steps]
    size = 96 * 20 * 20
    reading = [k.kind for k in kernels if any(np.prod(o.shape) == size for o in k.operands)]
    assert sorted(reading) == ["contract", "expand"]  # the one that makes it, the one that projects it
    fresh = [k for k in kernels if k.kind == "reduce"]
    assert len(fresh) == 1 and np.prod(fresh[0].operands[0].shape) < size / 20


def test_refusals_say_why() -> None:
    g = Builder("read twice")
    given = image(g)
    x = g.relu(conv(g, given, 32))
    assert "read elsewhere" in reasons(blocked(g, conv(g, x, 32, 3, depthwise=True), g.add(x, given)))
    g = Builder("dilated")
    x = g.relu(conv(g, image(g), 32))
    assert "dilated" in reasons(blocked(g, conv(g, x, 32, 3, depthwise=True, dilation=2)))
    g = Builder("window")
    x = g.relu(conv(g, image(g), 32, 3))
    assert "window over many channels" in reasons(blocked(g, conv(g, x, 32, 3, depthwise=True)))
    g = Builder("narrow")
    x = g.relu(conv(g, image(g, size=3), 32))
    assert "too short" in reasons(blocked(g, conv(g, x, 32, 3, depthwise=True)))
    g = Builder("residual inside")
    given = image(g)
    x = g.add(conv(g, given, 32), given)
    assert "another operand" in reasons(blocked(g, conv(g, x, 32, 3, depthwise=True)))


def test_factors_stay_outside_where_they_cost_less_or_would_be_wrong() -> None:
    g = Builder("padded")  # the image is an output too, or the product would be made with it
    x, s = image(g), g.input("s", TensorType((1, 32, 1, 1)))
    y = g.relu(conv(g, x, 32))
    assert "larger than one pixel" in reasons(blocked(g, conv(g, g.mul(y, s), 16, 3), y))
    g = Builder("few pixels")
    x, s = image(g, size=6), g.input("s", TensorType((1, 32, 1, 1)))
    y = g.relu(conv(g, x, 32))
    assert "36 pixels are fewer than the 160" in reasons(blocked(g, conv(g, g.mul(y, s), 160), y))
