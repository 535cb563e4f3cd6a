"""What follows a product may read operands that are not float32: bits of another type are never taken for it."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import run, runnable_targets

from diptych.ir import Graph, TensorType, verify
from diptych.ops import Add, Builder, Cast, Conv, Greater, LogicalNot, MatMul, Mul, Where
from diptych.targets import host

RNG = np.random.default_rng(0)
TYPES = {"i32": np.int32, "u8": np.uint8, "bool": np.bool_, "f64": np.float64, "i64": np.int64, "f16": np.float16}


def numbers(dtype: str, *shape: int) -> np.ndarray:
    return RNG.integers(0, 3, shape).astype(TYPES[dtype])


@pytest.mark.parametrize("dtype", sorted(TYPES))
@pytest.mark.parametrize("shape", [(20, 50), (1, 50), (20, 1), ()])
def test_a_product_times_numbers_of_another_type(dtype: str, shape: tuple[int, ...]) -> None:
    a, b = (RNG.standard_normal(s).astype(np.float32) for s in ((20, 30), (30, 50)))
    other = numbers(dtype, *shape)
    g = Builder("scaled")
    x, y, z = g.input("x", TensorType(a.shape)), g.input("y", TensorType(b.shape)), g.input("z", TensorType(other.shape, dtype))
    graph = g.finish({"out": g.emit(Mul(), g.emit(MatMul(), x, y), g.emit(Cast(to="f32"), z))})
    check(graph, [a, b, other], (a @ b) * other.astype(np.float32))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("rows", [2, 20])
@pytest.mark.parametrize("kind", ["mask", "compared", "not compared", "cast"])
def test_a_product_chosen_by_a_condition(rows: int, kind: str, swapped: bool) -> None:
    a, b = (RNG.standard_normal(s).astype(np.float32) for s in ((rows, 3), (3, 5)))
    given = RNG.standard_normal((rows, 5)).astype(np.float32) if "compared" in kind else numbers("bool" if kind == "mask" else "i32", rows, 1)
    g = Builder("chosen")
    x, y = g.input("x", TensorType(a.shape)), g.input("y", TensorType(b.shape))
    z = g.input("z", TensorType(given.shape, {"mask": "bool", "cast": "i32"}.get(kind, "f32")))
    zero = g.constant(np.zeros((), np.float32))
    if "compared" in kind:
        condition, chosen = g.emit(Greater(), z, zero), given > 0
    else:
        condition, chosen = (z, given) if kind == "mask" else (g.emit(Cast(to="bool"), z), given.astype(bool))
    if kind == "not compared":
        condition, chosen = g.emit(LogicalNot(), condition), ~chosen
    product = g.emit(MatMul(), x, y)
    out = g.emit(Where(), condition, *((zero, product) if swapped else (product, zero)))
    graph = g.finish({"out": g.emit(Add(), out, g.constant(np.ones((), np.float32)))})
    check(graph, [a, b, given], np.where(chosen, 0 if swapped else a @ b, a @ b if swapped else 0) + 1)


def test_a_convolution_under_a_mask() -> None:
    image, weight, mask = RNG.standard_normal((1, 32, 9, 9)).astype(np.float32), RNG.standard_normal((32, 32, 3, 3)).astype(np.float32), \
        numbers("bool", 1, 1, 9, 9)  # fmt: skip
    outputs = []
    for masked in (True, False):
        g = Builder("masked")
        x, m = g.input("x", TensorType(image.shape)), g.input("m", TensorType(mask.shape, "bool"))
        y = g.emit(Conv((1, 1), ((1, 1), (1, 1)), (1, 1), 1), x, g.constant(weight), g.constant(np.zeros(32, np.float32)))
        out = g.emit(Where(), m, y, g.constant(np.full((), -7, np.float32))) if masked else g.emit(Add(), y, g.emit(Cast(to="f32"), m))
        outputs.append(result(verify(g.finish({"out": out})), [image, mask]))
    plain = outputs[1] - mask
    np.testing.assert_allclose(outputs[0], np.where(mask, plain, -7), rtol=1e-4, atol=1e-4)


def check(graph: Graph, inputs: list[np.ndarray], expected: np.ndarray) -> None:
    np.testing.assert_allclose(result(verify(graph), inputs), expected, rtol=1e-5, atol=1e-5)


def result(graph: Graph, inputs: list[np.ndarray]) -> np.ndarray:
    given = dict(zip(graph.input_names, inputs, strict=True))
    return run(graph, given, host.find(runnable_targets()[-1]))["out"]
