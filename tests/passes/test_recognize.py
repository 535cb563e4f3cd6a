"""Written-out operators are found again, and products keep their rows: the same numbers from fewer kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from diptych import compiler
from diptych.compiled import Compiled
from diptych.ir import Graph, TensorType, Value, verify
from diptych.ops import OPS, Builder
from diptych.options import Options
from diptych.passes.products import keep_rows
from diptych.passes.recognize import recognize
from diptych.targets import host
from diptych.targets.numpy import interpret

Array = np.ndarray[Any, Any]
GAMMA = np.linspace(0.5, 1.5, 16).astype(np.float32)
WEIGHT = np.random.default_rng(2).standard_normal((16, 24)).astype(np.float32)


def rms(g: Builder, x: Value, swapped: bool = False, axes: tuple[int, ...] = (2,)) -> Value:
    mean = g.mean(g.mul(x, x), axes, keepdims=True)
    inverse = g.rsqrt(g.add(1e-5, mean) if swapped else g.add(mean, 1e-5))
    inner, gamma = (g.mul(inverse, x), g.constant(GAMMA)) if swapped else (g.mul(x, inverse), g.constant(GAMMA))
    return g.mul(inner, gamma) if swapped else g.mul(gamma, inner)


def rotated(g: Builder, x: Value, start: int = 8) -> Value:
    lead = (0,) * (x.rank - 1)
    low = g.slice(x, (*lead, 0), (*x.shape[:-1], start))
    high = g.slice(x, (*lead, start), x.shape)
    return g.concat([g.neg(high), low], x.rank - 1)


def rotary(g: Builder, x: Value, start: int = 8) -> Value:
    angles = np.random.default_rng(1).standard_normal((1, x.shape[1], 16)).astype(np.float32)
    return g.add(g.mul(x, g.constant(np.cos(angles))), g.mul(rotated(g, x, start), g.constant(np.sin(angles))))


def build(body: Callable[[Builder, Value], Value], *shape: int) -> Graph:
    g = Builder("g")
    return verify(g.finish({"y": body(g, g.input("x", TensorType(shape or (2, 5, 16))))}))


def names(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def check(graph: Graph, other: Graph, exact: bool = False) -> None:
    x = np.random.default_rng(0).standard_normal(graph.types[graph.inputs[0]].shape).astype(np.float32)
    want, got = (interpret(verify(g), {"x": x})["y"] for g in (graph, other))
    native = Compiled(lambda: graph, lambda g: None, Options(threads=2), None).call(x)
    np.testing.assert_allclose(got, want, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-6)
    np.testing.assert_allclose(native, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("swapped", [False, True])
def test_rms_norm(swapped: bool) -> None:
    graph = build(lambda g, x: rms(g, x, swapped))
    found = recognize(graph)
    assert names(found) == ["rms_norm"] and found.nodes[0].op == OPS["rms_norm"](eps=float(np.float32(1e-5)))
    check(graph, found)


def test_what_is_no_rms_norm() -> None:
    for body in (
        lambda g, x: rms(g, x, axes=(1, 2)),
        lambda g, x: g.mul(g.constant(GAMMA), g.mul(g.exp(x), g.rsqrt(g.add(g.mean(g.mul(x, x), 2, keepdims=True), 1e-5)))),
    ):
        graph = build(body)
        assert "rms_norm" not in names(recognize(graph))
        check(graph, recognize(graph))


def test_rotary_moves_no_halves() -> None:
    graph = build(rotary)
    found = recognize(graph)
    assert "concat" not in names(found) and "neg" not in names(found)
    check(graph, found, exact=True)
    plan = compiler.compile_plan(graph, Options(), host.find(None))
    assert plan.fused == (("mul", "mul", "add"), ("copy",)), "one kernel, and the output is a view of its result"


def test_what_is_no_rotary() -> None:
    graph = build(lambda g, x: rotary(g, x, 5))  # not halves
    assert "concat" in names(recognize(graph))
    check(graph, recognize(graph))


def flattened(g: Builder, x: Value) -> Value:
    rows = g.reshape(x, (10, 16))
    y = g.add(g.matmul(rows, g.constant(WEIGHT)), g.constant(WEIGHT[0]))
    z = g.reshape(g.mul(g.tanh(y), y), (2, 5, 24))
    return g.add(z, g.mul(z, 0.5))


def test_rows_are_kept() -> None:
    graph = build(flattened)
    found = keep_rows(graph)
    assert "reshape" not in names(found)
    check(graph, found, exact=True)
    plan = compiler.compile_plan(graph, Options(), host.find(None))
    assert [k.kind for k in plan.kernels] == ["contract"], "all that follows is part of the product"


def test_rows_of_merged_heads() -> None:
    def body(g: Builder, x: Value) -> Value:
        heads = g.transpose(g.reshape(x, (2, 5, 4, 4)), (0, 1, 3, 2))
        y = g.matmul(g.reshape(heads, (10, 16)), g.constant(WEIGHT[:, :16]))
        return g.add(g.reshape(y, (2, 5, 16)), x)

    graph = build(body)
    check(graph, keep_rows(graph), exact=True)
    assert names(keep_rows(graph)).count("reshape") == 2


def test_rows_with_another_shape_between() -> None:
    def body(g: Builder, x: Value) -> Value:
        rows = g.matmul(g.reshape(x, (10, 16)), g.constant(WEIGHT))
        return g.reshape(g.mul(rows, g.constant(np.arange(10, dtype=np.float32).reshape(10, 1))), (5, 2, 24))

    graph = build(body)
    check(graph, keep_rows(graph), exact=True)
