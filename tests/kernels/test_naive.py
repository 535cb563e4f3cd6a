"""Products without a crafted kernel: every dtype, run-time weights, groups, dilation, ranks, batches, NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V4, Array, compile_only, misaligned, view

import diptych
from diptych.ir import TensorType, dtype_of
from diptych.kernels.naive import make_naive_conv, make_naive_matmul
from diptych.ops import OPS, Builder
from diptych.targets.numpy import interpret


def run(name: str, arrays: list[Array], threads: int = 2, **attrs: Any) -> tuple[Array, Array]:
    """(compiled, reference)."""
    g = Builder(name)
    values = [g.input(f"x{i}", TensorType(a.shape, dtype_of(a))) for i, a in enumerate(arrays)]
    graph = g.finish([g.emit(OPS[name](**attrs), *values)])
    expected = interpret(graph, {f"x{i}": a for i, a in enumerate(arrays)})
    return diptych.compile(graph, threads=threads)(*arrays), next(iter(expected.values()))


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    if dtype[0] in "iu":
        info = np.iinfo(dtype)
        return rng.integers(max(info.min, -(1 << 40)), min(info.max, 1 << 40), shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


SHAPES = [((3, 4), (4, 5)), ((9, 33), (33, 70)), ((1, 1), (1, 1)), ((2, 1, 5, 6), (3, 6, 7)), ((4, 13, 8), (8, 3)),
          ((6, 8), (2, 3, 8, 17)), ((3, 0), (0, 5)), ((0, 4), (4, 5)), ((5, 7), (7, 1))]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "int32", "int16", "uint8", "int8", "uint64"])
def test_products_of_every_dtype(dtype: str, rng: np.random.Generator) -> None:
    """Integers wrap around as NumPy's do; half precision is summed in f32."""
    for sa, sb in SHAPES:
        got, want = run("mat_mul", [draw(rng, sa, dtype), draw(rng, sb, dtype)])
        assert got.dtype == want.dtype
        if dtype[0] == "f":
            tolerance = 1e-12 if dtype == "float64" else 4e-3
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_transposed_products(transpose_a: bool, transpose_b: bool, rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 7, 11)), rng.standard_normal((2, 11, 19))
    a, b = (np.ascontiguousarray(np.swapaxes(v, 1, 2)) if t else v for v, t in ((a, transpose_a), (b, transpose_b)))
    got, want = run("mat_mul", [a, b], transpose_a=transpose_a, transpose_b=transpose_b)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


def test_what_follows_a_product_of_doubles(rng: np.random.Generator) -> None:
    g = Builder("f64")
    a, b = (g.input(n, TensorType(s, "f64")) for n, s in (("a", (5, 6)), ("b", (6, 7))))
    graph = g.finish([g.relu(g.add(g.matmul(a, b), 1.0))])
    x, y = rng.standard_normal((5, 6)), rng.standard_normal((6, 7))
    np.testing.assert_allclose(diptych.compile(graph)(x, y), np.maximum(x @ y + 1, 0), rtol=1e-12, atol=1e-13)


# x, w, strides, pads, dilations, groups
CONVOLUTIONS = [
    ((2, 3, 9, 20), (5, 3, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    ((1, 4, 11, 37), (8, 2, 3, 5), (2, 2), ((1, 0), (2, 3)), (1, 2), 2),
    ((1, 6, 7, 7), (6, 1, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 6),
    ((2, 3, 6, 6), (6, 1, 2, 2), (3, 3), ((0, 0), (0, 0)), (2, 2), 3),
    ((2, 5, 40), (7, 5, 4), (3,), ((1, 2),), (2,), 1),
    ((1, 2, 4, 5, 19), (4, 2, 2, 3, 3), (1, 2, 1), ((0, 1), (1, 1), (1, 0)), (1, 1, 2), 1),
    ((2, 8, 1, 1), (12, 8, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ((0, 3, 5, 5), (4, 3, 3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
]


@pytest.mark.parametrize(("x", "w", "strides", "pads", "dilations", "groups"), CONVOLUTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_weights_at_run_time(x: tuple[int, ...], w: tuple[int, ...], strides: tuple[int, ...], pads: Any,
                             dilations: tuple[int, ...], groups: int, dtype: str, rng: np.random.Generator) -> None:  # fmt: skip
    arrays = [draw(rng, x, dtype), draw(rng, w, dtype), draw(rng, (w[0],), dtype)]
    tolerance = {"float32": 2e-5, "float64": 1e-12, "float16": 2e-2}[dtype]
    for count in (2, 3):
        got, want = run("conv", arrays[:count], strides=strides, pads=pads, dilations=dilations, groups=groups)
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def test_constant_weights_in_double_precision(rng: np.random.Generator) -> None:
    g = Builder("f64")
    w = rng.standard_normal((4, 3, 3, 3))
    x = g.input("x", TensorType((1, 3, 8, 9), "f64"))
    graph = g.finish([g.relu(g.emit(OPS["conv"]((1, 1), ((1, 1), (1, 1)), (1, 1)), x, g.constant(w, "f64")))])
    data = rng.standard_normal((1, 3, 8, 9))
    np.testing.assert_allclose(diptych.compile(graph)(data), interpret(graph, {"x": data})[graph.output_names[0]], rtol=1e-12, atol=1e-12)


def test_transposed_convolution_with_run_time_weights(rng: np.random.Generator) -> None:
    arrays = [draw(rng, (1, 4, 5, 6), "float32"), draw(rng, (4, 3, 3, 3), "float32")]
    got, want = run("conv_transpose", arrays, strides=(2, 2), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=1,
                    output_padding=(0, 0))  # fmt: skip
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_nan_goes_where_it_is_read(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((6, 9)), rng.standard_normal((9, 21))
    a[4, 2] = np.nan
    got, _ = run("mat_mul", [a, b])
    assert np.isnan(got[4]).all()
    assert not np.isnan(np.delete(got, 4, 0)).any()
    x, w = draw(rng, (1, 1, 8, 24), "float32"), draw(rng, (3, 1, 3, 3), "float32")
    x[0, 0, 4, 10] = np.nan
    got, want = run("conv", [x, w], strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    assert np.isnan(got).sum() == 27


def test_compiles_for_other_machines() -> None:
    for target in (V4, ARM):
        for dtype in ("f4", "f8", "i8", "f2"):
            a, b, out = (misaligned(s, np.dtype(dtype)) for s in ((9, 5), (5, 37), (9, 37)))
            assert compile_only(make_naive_matmul(view(a), view(b), view(out), target), target)
        x, w, out = (misaligned(s) for s in ((1, 4, 9, 40), (4, 2, 3, 3), (1, 4, 7, 19)))
        assert compile_only(make_naive_conv(view(x), view(w), [], view(out), (1, 2), (1, 1), 2, target), target)
