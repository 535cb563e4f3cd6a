"""What the samples do not show: special values, ties, indices outside, rounding, and where gradients go."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from diptych.errors import InputError, UnsupportedError
from diptych.ir import Op, TensorType
from diptych.ops import (
    ArgMax,
    ArgMin,
    Builder,
    Cast,
    Clip,
    CumProd,
    Div,
    Elu,
    FloorDiv,
    Fmod,
    Gelu,
    LogSigmoid,
    LogSumExp,
    Max,
    Maximum,
    Mean,
    Mod,
    NormL2,
    OneHot,
    Pow,
    Prod,
    Relu,
    Round,
    ScatterAdd,
    ScatterNd,
    Sigmoid,
    Sign,
    SliceUpdate,
    Softplus,
    Take,
    Var,
    special,
)  # fmt: skip
from diptych.passes.gradient import gradient
from diptych.targets.numpy import interpret

Array = np.ndarray[Any, Any]
NAN, INF = math.nan, math.inf


def f32(*values: float) -> Array:
    return np.array(values, np.float32)


def slopes(op: Op, *arrays: Array) -> list[Array]:
    """The gradients of the sum of an operator's (only) result, in float64."""
    g = Builder()
    xs = [g.input(f"x{i}", TensorType(a.shape, "f64")) for i, a in enumerate(arrays)]
    y = g.emit(op, *xs)
    back = gradient(g.finish({"y": y}))
    inputs = {f"x{i}": a for i, a in enumerate(arrays)} | {"d_y": np.ones(y.shape)}
    return list(interpret(back, inputs).values())


def test_nan_comes_through() -> None:
    for op in (Relu(), Sign(), Clip(-1.0, 1.0), Sigmoid(), Gelu(), Elu()):
        assert np.isnan(op.reference(f32(NAN))[0]), op
    np.testing.assert_array_equal(Maximum().reference(f32(NAN, 1), f32(2, NAN)), f32(NAN, NAN))
    assert np.isnan(Max((0,)).reference(f32(1, NAN, 3)))
    assert ArgMax(0).reference(f32(1, NAN, 3)) == 1
    assert ArgMin(0).reference(f32(1, NAN, -3)) == 1


def test_ties_go_to_the_first() -> None:
    assert ArgMax(0).reference(f32(1, 5, 5)) == 1
    assert ArgMin(0).reference(f32(7, 2, 2)) == 1


def test_halves_round_to_even() -> None:
    np.testing.assert_array_equal(Round().reference(f32(0.5, 1.5, 2.5, -0.5, -1.5)), f32(0, 2, 2, 0, -2))


def test_integer_division_in_its_three_kinds() -> None:
    a, b = np.array([7, -7, 7, -7, 5]), np.array([2, 2, -2, -2, 0])
    np.testing.assert_array_equal(Div().reference(a, b), [3, -3, -3, 3, 0])
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(FloorDiv().reference(a, b), [3, -4, -4, 3, 0])
        np.testing.assert_array_equal(Mod().reference(a, b), [1, 1, -1, -1, 0])
        np.testing.assert_array_equal(Fmod().reference(a, b), [1, -1, 1, -1, 0])


def test_integer_powers() -> None:
    a, b = np.array([2, -3, -1, 1, 5, 0]), np.array([10, 3, -3, -9, -1, 0])
    np.testing.assert_array_equal(Pow().reference(a, b), [1024, -27, -1, 1, 0, 1])


def test_nothing_overflows_that_need_not() -> None:
    np.testing.assert_allclose(LogSumExp((0,)).reference(f32(1000, 1000)), 1000 + math.log(2), rtol=1e-6)
    with np.errstate(divide="ignore"):
        assert LogSumExp((0,)).reference(f32(-INF, -INF)) == -INF
    np.testing.assert_allclose(NormL2((0,)).reference(f32(3e30, 4e30)), 5e30, rtol=1e-6)
    np.testing.assert_allclose(NormL2((0,)).reference(f32(3e-30, 4e-30)), 5e-30, rtol=1e-6)
    np.testing.assert_array_equal(Sigmoid().reference(f32(-1000, 1000)), f32(0, 1))
    np.testing.assert_array_equal(Softplus().reference(f32(-1000, 1000)), f32(0, 1000))
    np.testing.assert_array_equal(LogSigmoid().reference(f32(-1000, 1000)), f32(-1000, 0))
    # a mean far from zero does not swamp the variance
    x = (np.arange(1000) % 2 + 10000.0).astype(np.float32)
    np.testing.assert_allclose(Var((0,)).reference(x), 0.25, rtol=1e-6)


def test_moments_of_too_few_are_nan() -> None:
    with np.errstate(all="ignore"):
        assert np.isnan(Mean((0,)).reference(f32()))
        assert np.isnan(Var((0,), ddof=1).reference(f32(1)))


def test_clip_rounds_the_limits_of_integers_inwards() -> None:
    x = np.arange(-5, 6)
    np.testing.assert_array_equal(Clip(-2.5, 2.5).reference(x), np.clip(x, -2, 2))
    np.testing.assert_array_equal(Clip(-INF, INF).reference(x), x)
    np.testing.assert_array_equal(Clip(-1e30, 3.0).reference(x.astype(np.uint8)), np.minimum(x.astype(np.uint8), 3))


def test_bf16_is_rounded_to_nearest_even() -> None:
    x = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-12, -INF, NAN], np.float32)
    back = Cast("f32", "bf16").reference(Cast("bf16").reference(x))
    np.testing.assert_array_equal(back, np.array([1.0, 1.0, 1 + 2**-6, 1 + 2**-7, -INF, NAN], np.float32))


def test_take_outside() -> None:
    data, indices = np.arange(4.0), np.array([-1, 4, 9])
    np.testing.assert_array_equal(Take(0, "clip").reference(data, indices), [0, 3, 3])
    np.testing.assert_array_equal(Take(0, "wrap").reference(data, indices), [3, 0, 1])
    with pytest.raises(InputError, match=r"indices from -1 to 9 .* \[0, 4\)"):
        Take(0, "raise").reference(data, indices)


def test_scatters_add_up() -> None:
    where = np.array([1, 1, 0])
    np.testing.assert_array_equal(ScatterAdd(0).reference(np.zeros(3), where, np.array([1.0, 2, 4])), [4, 3, 0])
    np.testing.assert_array_equal(ScatterNd((3,)).reference(np.array([1.0, 2, 4]), where[:, None]), [4, 3, 0])


def test_slice_update_backwards() -> None:
    got = SliceUpdate((4,), (-2,)).reference(np.zeros(5), np.array([1.0, 2, 3]))
    np.testing.assert_array_equal(got, [3, 0, 2, 0, 1])


def test_one_hot_outside_is_off_everywhere() -> None:
    got = OneHot(3, on=2.0, off=-1.0).reference(np.array([1, 7, -1]))
    np.testing.assert_array_equal(got, [[-1, 2, -1], [-1, -1, -1], [-1, -1, -1]])


@pytest.mark.parametrize(("name", "fn"), [("erf", math.erf), ("lgamma", math.lgamma)])
def test_special_functions(name: str, fn: Any, rng: np.random.Generator) -> None:
    x = np.concatenate([rng.uniform(0.01, 7, 500), np.exp(rng.uniform(-600, 1, 200)), [1e-320, 5.99999, 6.0, 1 / 128]])
    exact = np.array([fn(v) for v in x])
    np.testing.assert_allclose(getattr(special, name)(x), exact, rtol=4e-16 * 3, atol=1e-300)


def test_erf_and_its_inverse_at_the_ends() -> None:
    np.testing.assert_array_equal(special.erf(np.array([INF, -INF, NAN, 0.0, 30.0])), [1, -1, NAN, 0, 1])
    np.testing.assert_array_equal(special.erfinv(np.array([1, -1, 1.5, NAN, 0.0])), [INF, -INF, NAN, NAN, 0])
    np.testing.assert_array_equal(special.lgamma(np.array([0.0, -2.0, INF])), [INF, INF, INF])
    x = np.concatenate([np.linspace(-0.999, 0.999, 301), 1 - np.exp2(-np.arange(10, 50.0))])
    np.testing.assert_allclose(special.erf(special.erfinv(x)), x, rtol=3e-16)
    assert special.erf(np.float32(0.5)).dtype == np.float32


def test_gradients_at_kinks() -> None:
    zero = np.zeros(1)
    assert slopes(Relu(), zero)[0] == 0
    np.testing.assert_allclose(slopes(Softplus(), zero)[0], 0.5)
    np.testing.assert_allclose(slopes(LogSigmoid(), zero)[0], 0.5)
    assert slopes(NormL2((0,)), zero)[0] == 0
    np.testing.assert_array_equal(slopes(Maximum(), np.ones(2), np.ones(2)), [[1, 1], [0, 0]])
    np.testing.assert_array_equal(slopes(Max((0,)), np.array([3.0, 1, 3]))[0], [0.5, 0, 0.5])


def test_gradient_of_a_product_with_zeros() -> None:
    np.testing.assert_array_equal(slopes(Prod((0,)), np.array([2.0, 0, 3]))[0], [0, 6, 0])
    np.testing.assert_array_equal(slopes(Prod((0,)), np.array([2.0, 0, 0]))[0], [0, 0, 0])


def test_gradient_graph_shares_values_and_keeps_outputs() -> None:
    g = Builder()
    x, n = g.input("x", TensorType((3,), "f64")), g.input("n", TensorType((3,), "i64"))
    s = g.mul(x, x)
    graph = g.finish({"y": g.add(s, g.mul(s, x)), "count": g.add(n, 1)})
    back = gradient(graph, ["x"], keep_outputs=True)
    assert back.input_names == ("x", "n", "d_y")
    assert back.output_names == ("y", "count", "d_x")
    x_ = np.array([1.0, 2, -3])
    out = interpret(back, {"x": x_, "n": np.zeros(3, np.int64), "d_y": np.ones(3)})
    np.testing.assert_allclose(out["d_x"], 2 * x_ + 3 * x_**2)
    np.testing.assert_allclose(out["y"], x_**2 + x_**3)


def test_gradient_refuses_what_it_cannot_do() -> None:
    g = Builder()
    x, n = g.input("x", TensorType((3,))), g.input("n", TensorType((3,), "i64"))
    graph = g.finish({"y": g.emit_all(CumProd(0), x, name="block.3")[0], "z": n})
    with pytest.raises(UnsupportedError, match=r"cum_prod \[layer block.3\]"):
        gradient(graph)
    with pytest.raises(InputError, match="no inputs named w"):
        gradient(graph, ["w"])
    with pytest.raises(InputError, match="not of float type"):
        gradient(graph, ["n"])


def test_an_input_that_matters_nowhere_has_gradient_zero() -> None:
    g = Builder()
    x, y = g.input("x", TensorType((2,))), g.input("y", TensorType((3,)))
    back = gradient(g.finish({"z": g.neg(x)}), ["y"])
    assert y.shape == (3,)
    inputs = {"x": f32(1, 2), "y": f32(1, 2, 3), "d_z": f32(1, 1)}
    np.testing.assert_array_equal(interpret(back, inputs)["d_y"], f32(0, 0, 0))
