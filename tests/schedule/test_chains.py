"""Convolutions joined with the depthwise ones behind them, and factors that go into weights; refusals have reasons."""

from __future__ import annotations

import numpy as np

from diptych import compiler
from diptych.ir import Graph, TensorType, Value, verify
from diptych.ops import OPS, Builder, Conv
from diptych.options import Options
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
    return join_gates(graph, join_depthwise(graph, partition(graph)))


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
