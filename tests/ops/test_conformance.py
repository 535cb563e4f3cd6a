"""Every operator on every sample: type rule = reference = decomposition = target, gradient = finite differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from diptych.errors import UnsupportedError
from diptych.ir import Graph, Op, TensorType, numpy_dtype, verify
from diptych.ops import OPS, Builder, Composite
from diptych.ops.base import Arg
from diptych.passes.gradient import gradient
from diptych.targets.numpy import interpret

Array = np.ndarray[Any, Any]
Target = Callable[[Graph, Mapping[str, Array]], Mapping[str, Array]]

# Each target that can run a graph: (graph, inputs by name) -> outputs by name.
TARGETS: dict[str, Target] = {"numpy": interpret}

CASES = [(name, i) for name, op in OPS.items() for i in range(len(op.samples))]
every_case = pytest.mark.parametrize(("name", "index"), CASES, ids=[f"{n}-{i}" for n, i in CASES])

# Float operators through which no gradient flows: asking for it must be refused, not answered with zeros.
NO_GRADIENT = {
    "lgamma", "cum_prod",
    "pack_channels", "unpack_channels", "blocked_conv", "blocked_conv_transpose", "blocked_max_pool", "blocked_avg_pool",
    "blocked_resize", "blocked_conv_weight_gradient", "narrow_conv",  # made by passes only
}  # fmt: skip


def case(name: str, index: int, wide: bool = False) -> tuple[Op, list[Arg], list[Array]]:
    """The operator of a sample, its operands' descriptions and drawn arrays; `wide` turns f32 into f64."""
    sample = OPS[name].samples[index]
    rng = np.random.default_rng(crc32(f"{name}{index}".encode()))
    args = [Arg(a.shape, "f64" if wide and a.dtype == "f32" else a.dtype, a.low, a.high) for a in sample.args]
    return OPS[name](**sample.attrs), args, [np.array(a.draw(rng)) for a in args]


def applied(op: Op, args: list[Arg], by_decomposition: bool = False) -> Graph:
    """The graph of one application, `op` itself or what it decomposes into."""
    g = Builder("case")
    xs = [g.input(f"x{i}", TensorType(a.shape, a.dtype)) for i, a in enumerate(args)]
    if by_decomposition:
        assert isinstance(op, Composite) or hasattr(op, "decompose")
        result = op.decompose(g, *xs)
        return verify(g.finish(list(result) if isinstance(result, tuple) else [result]))
    return verify(g.finish(list(g.emit_all(op, *xs))))


def named(arrays: list[Array]) -> dict[str, Array]:
    return {f"x{i}": a for i, a in enumerate(arrays)}


def assert_near(got: Array, expected: Array, slack: float = 1.0) -> None:
    """Equal for integers; for floats within a small multiple of their precision, relative to the largest value."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    eps = {2: 2e-3, 4: 4e-6, 8: 1e-13}[expected.dtype.itemsize] * slack
    finite = np.abs(expected[np.isfinite(expected)])
    np.testing.assert_allclose(got, expected, rtol=eps, atol=eps * float(finite.max(initial=0.0)))


@every_case
def test_reference_follows_the_type_rule_and_leaves_its_operands_alone(name: str, index: int) -> None:
    for wide in (False, True):
        op, args, arrays = case(name, index, wide)
        inferred = op.infer(*(TensorType(a.shape, a.dtype) for a in args))
        types = inferred if isinstance(inferred, tuple) else (inferred,)
        before = [a.copy() for a in arrays]
        for a in arrays:
            a.flags.writeable = False
        with np.errstate(all="ignore"):
            result = op.reference(*arrays)
        for array, copy in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, copy)
        results = result if isinstance(result, tuple) else (result,)
        assert [(np.shape(r), np.asarray(r).dtype) for r in results] == [(t.shape, numpy_dtype(t.dtype)) for t in types]


@every_case
@pytest.mark.parametrize("target", TARGETS)
def test_target_agrees_with_reference(name: str, index: int, target: str) -> None:
    op, args, arrays = case(name, index)
    with np.errstate(all="ignore"):
        result = op.reference(*arrays)
    expected = result if isinstance(result, tuple) else (result,)
    got = TARGETS[target](applied(op, args), named(arrays))
    for a, b in zip(got.values(), expected, strict=True):
        assert_near(a, np.asarray(b), slack=4)


DECOMPOSED = [(n, i) for n, i in CASES if hasattr(OPS[n], "decompose")]


@pytest.mark.parametrize(("name", "index"), DECOMPOSED, ids=[f"{n}-{i}" for n, i in DECOMPOSED])
@pytest.mark.parametrize("wide", [False, True], ids=["f32", "f64"])
def test_decomposition_agrees_with_reference(name: str, index: int, wide: bool) -> None:
    op, args, arrays = case(name, index, wide)
    whole, parts = applied(op, args), applied(op, args, by_decomposition=True)
    assert [whole.types[v] for v in whole.outputs] == [parts.types[v] for v in parts.outputs]
    for a, b in zip(interpret(parts, named(arrays)).values(), interpret(whole, named(arrays)).values(), strict=True):
        assert_near(a, b, slack=4)


def differentiable(name: str, index: int) -> bool:
    """Whether floats go in, floats come out, and the sample says that there are no kinks in between."""
    op, args, _ = case(name, index)
    graph = applied(op, args)
    floats = [any(graph.types[v].dtype in ("f32", "f64") for v in vs) for vs in (graph.inputs, graph.outputs)]
    return OPS[name].samples[index].grad and all(floats)


DIFFERENTIABLE = [(n, i) for n, i in CASES if differentiable(n, i)]


@pytest.mark.parametrize(("name", "index"), DIFFERENTIABLE, ids=[f"{n}-{i}" for n, i in DIFFERENTIABLE])
def test_gradient_agrees_with_finite_differences(name: str, index: int) -> None:
    op, args, arrays = case(name, index, wide=True)
    graph = applied(op, args)
    floats = [i for i, v in enumerate(graph.outputs) if graph.types[v].dtype == "f64"]
    if name in NO_GRADIENT:
        with pytest.raises(UnsupportedError, match=name):
            gradient(graph)
        return
    backward = verify(gradient(graph))
    rng = np.random.default_rng(5)
    weights = {f"d_output{i}": rng.standard_normal(graph.types[graph.outputs[i]].shape) for i in floats}
    slopes = interpret(backward, named(arrays) | weights)

    def value(step: float, direction: list[Array]) -> float:
        moved = [a + step * d if a.dtype == np.float64 else a for a, d in zip(arrays, direction, strict=True)]
        out = interpret(graph, named(moved))
        return float(sum(np.sum(out[k.removeprefix("d_")] * w) for k, w in weights.items()))

    for _ in range(2):
        direction = [rng.standard_normal(a.shape) for a in arrays]
        h = 1e-5
        # central differences at two widths, extrapolated: the error is of order h^4
        near, far = ((value(s, direction) - value(-s, direction)) / (2 * s) for s in (h, 2 * h))
        numeric = (4 * near - far) / 3
        exact = float(sum(np.sum(slopes[f"d_x{i}"] * direction[i]) for i, a in enumerate(args) if a.dtype == "f64"))
        scale = sum(
            float(np.sum(np.abs(slopes[f"d_x{i}"] * direction[i]))) for i, a in enumerate(args) if a.dtype == "f64"
        )
        assert abs(numeric - exact) <= 1e-7 * (1 + scale)


@pytest.mark.parametrize("name", OPS)
def test_every_operator_says_what_it_does_in_a_line(name: str) -> None:
    first = (OPS[name].__doc__ or "").strip().splitlines()[0]
    assert first.endswith((".", ":"))
    assert len(first) <= 116
    assert {len(s.args) for s in OPS[name].samples} != {0}
