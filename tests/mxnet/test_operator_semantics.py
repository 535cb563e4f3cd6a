"""Corners of the API that scripts rely on: scopes, errors and when they surface, control flow, symbols of mx.np."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import diptych.mxnet as mx
from diptych.mxnet import autograd, gluon, nd, sym
from diptych.mxnet.base import MXNetError
from diptych.mxnet.symbol.np_symbol import NumpySymbol


def test_current_scopes_may_be_assigned_per_thread() -> None:
    seen: list[Any] = []

    def other() -> None:
        mx.AttrScope.current = mx.AttrScope(x="1")
        mx.Context.default_ctx = mx.cpu(3)
        seen.extend([mx.AttrScope.current.get(None), mx.current_context()])

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [{"x": "1"}, mx.cpu(3)]
    assert mx.AttrScope.current.get(None) == {}
    assert mx.Context.default_ctx == mx.cpu(0)
    with mx.name.Prefix("p_"):
        assert mx.name.NameManager.current.get(None, "fc") == "p_fc0"


def test_gradients_come_as_a_list_and_keep_the_storage_type() -> None:
    x = nd.array([1.0, 2.0])
    x.attach_grad()
    with autograd.record():
        y = x * x
    found = autograd.grad(y, x)
    assert isinstance(found, list)
    assert found[0].asnumpy().tolist() == [2, 4]
    rows = nd.ones((3, 2)).tostype("row_sparse")
    rows.attach_grad()
    assert rows.grad.stype == "row_sparse"


def test_an_index_outside_is_an_error_where_the_value_is_asked_for() -> None:
    x, far = nd.array([[0.0, 1], [2, 3]]), nd.array([[0], [5]])
    x.attach_grad()
    with autograd.record():
        y = nd.gather_nd(x, far)
    z = nd.zeros((2,))
    z[:] = 1  # writes settle what waits, and must not raise for others
    with pytest.raises(IndexError, match="gather_nd"):
        y.asnumpy()
    with pytest.raises(MXNetError, match="gather_nd"):
        y.asnumpy()
    assert nd.gather_nd(x, nd.array([[-1], [0]])).asnumpy().tolist() == [2]


def test_custom_operators_raise_mxnet_errors() -> None:
    class Broken(mx.operator.CustomOp):
        def forward(self, is_train: bool, req: Any, in_data: Any, out_data: Any, aux: Any) -> None:
            raise ZeroDivisionError("broken")

    @mx.operator.register("broken_for_test")
    class BrokenProp(mx.operator.CustomOpProp):
        def create_operator(self, ctx: Any, shapes: Any, dtypes: Any) -> Broken:
            return Broken()

    assert BrokenProp is not None
    with pytest.raises(MXNetError, match=r"broken_for_test.*broken"):
        nd.Custom(nd.ones((2,)), op_type="broken_for_test").wait_to_read()


def test_an_executor_takes_fewer_gradients_and_needs_no_forward_pass() -> None:
    x = sym.Variable("x")
    e = sym.Group([x * 2, x * 3]).bind(mx.cpu(), {"x": nd.array([1.0, 2.0])}, {"x": nd.array([7.0, 7.0])})
    e.backward([nd.array([1.0, 10.0])])  # the second output gets none
    assert e.grad_dict["x"].asnumpy().tolist() == [2, 20]
    y = sym.BlockGrad(x)
    e = y.bind(mx.cpu(), {"x": nd.array([1.0])}, {"x": nd.array([7.0])})
    e.forward(is_train=True)
    e.backward([nd.array([1.0])])
    assert e.grad_dict["x"].asnumpy().tolist() == [0]


def test_shapes_flow_through_loops_both_ways() -> None:
    data, state = sym.var("data", shape=(0, 3)), sym.var("state")
    weight = sym.var("weight")

    def step(x: Any, s: Any) -> Any:
        y = sym.FullyConnected(x, weight, num_hidden=3, no_bias=True) + s[0]
        return y, [y]

    outs, states = sym.contrib.foreach(step, data, [state])
    both = sym.Group([outs, *states])
    arguments, shapes, _ = both.infer_shape(data=(5, 2, 3))
    assert dict(zip(both.list_arguments(), arguments)) == {"data": (5, 2, 3), "state": (2, 3), "weight": (3, 3)}
    assert shapes == [(5, 2, 3), (2, 3)]


def test_a_loop_that_never_runs_gives_zeros() -> None:
    x = sym.var("x")
    outs, final = sym.contrib.while_loop(lambda i: i < 0, lambda i: (i * 2, i + 1), x, max_iterations=4)
    got = sym.Group([outs, final]).bind(mx.cpu(), {"x": nd.array([3.0])}).forward()
    assert got[0].asnumpy().tolist() == [[0]] * 4
    assert got[1].asnumpy().tolist() == [3]
    nothing, after = nd.contrib.while_loop(lambda i: i < 2, lambda i: (None, i + 1), nd.array([0.0]), max_iterations=4)
    assert nothing == []
    assert after.asnumpy().tolist() == [2]


def test_partial_shapes_of_slices_and_transposes() -> None:
    x = sym.var("x", shape=(0, 20))
    assert sym.slice(x, begin=(None, 3), end=(5, 10)).infer_shape_partial()[1] == [(0, 7)]
    assert sym.slice_axis(x, axis=1, begin=-4, end=None).infer_shape_partial()[1] == [(0, 4)]
    y = sym.ones(shape=(2, -1)) + sym.transpose(sym.ones(shape=(3, -1)))
    assert y.bind(mx.cpu(), {}).forward()[0].shape == (2, 3)


class _Mixed(gluon.HybridBlock):
    def hybrid_forward(self, F: Any, x: Any) -> Any:
        parts = F.np.split(F.npx.relu(x), 2, axis=1)
        return F.np.trace(x[:, :2]) + F.np.linalg.det(parts[0]) * F.np.sum(F.np.ones((2,)) * x[0, 1:3])


def test_functions_of_mx_np_on_symbols_give_what_they_give_on_arrays() -> None:
    with mx.np_shape(), mx.np_array():
        x = mx.np.array([[1.0, 2, 3, -4], [5, 6, -7, 8]])
        results = []
        for hybridize in (False, True):
            block = _Mixed()
            if hybridize:
                block.hybridize()
            x.attach_grad()
            with autograd.record():
                y = block(x)
            y.backward()
            assert isinstance(y, mx.np.ndarray)
            results.append((y.asnumpy(), x.grad.asnumpy().copy()))
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_calls_of_mx_np_survive_a_symbol_file() -> None:
    with mx.np_shape(), mx.np_array():
        x = sym.var("x").as_np_ndarray()
        y = sym.np.clip(sym.np.diff(x, n=1, axis=0), -np.inf, 2.0)
        assert isinstance(y, NumpySymbol)
        again = mx.sym.load_json(y.tojson())
        value = mx.np.array([[1.0], [5.0], [4.0]])
        assert again.bind(mx.cpu(), {"x": value}).forward()[0].asnumpy().tolist() == [[2], [-1]]
    with pytest.raises(TypeError, match="cannot be an argument"):
        sym.np.clip(x, object(), 1)


def test_options_of_ufuncs_are_refused() -> None:
    x = mx.np.array([1.0])
    for options in ({"where": False}, {"casting": "safe"}, {"dtype": np.int8}, {"order": "C"}):
        with pytest.raises(NotImplementedError):
            mx.np.exp(x, **options)
    for options in ({"casting": "mxnet"}, {"dtype": "abc"}, {"nonsense": 1}):
        with pytest.raises(TypeError):
            mx.np.add(x, x, **options)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), ()])
def test_movement_of_empty_arrays(shape: tuple[int, ...]) -> None:
    x = mx.np.zeros(shape)
    x.attach_grad()
    with autograd.record():
        y = mx.np.append(x, x)
    y.backward()
    assert y.shape == (2 * x.size,)
    assert x.grad.shape == shape


def test_random_numbers_carry_gradients_to_their_parameters() -> None:
    scale = mx.np.array([2.0, 3.0])
    scale.attach_grad()
    for name, power in (("normal", 1), ("gumbel", 1), ("logistic", 1)):
        mx.random.seed(5)
        with autograd.record():
            y = getattr(mx.np.random, name)(0.0, scale, size=(4, 2))
        y.backward()
        np.testing.assert_allclose(scale.grad.asnumpy(), (y.asnumpy() / scale.asnumpy() ** power).sum(0), rtol=1e-4)
    with pytest.raises(ValueError, match="must be positive"):
        mx.np.random.gamma(mx.np.array([0.0]), 1.0)


def test_zipfian_classes_are_different() -> None:
    classes, tries = nd.op.sample_unique_zipfian(20, shape=(3, 8)) if hasattr(nd.op, "sample_unique_zipfian") else (
        nd._internal._sample_unique_zipfian(20, shape=(3, 8)))  # fmt: skip
    assert all(len(set(row)) == 8 for row in classes.asnumpy().tolist())
    assert (tries.asnumpy() >= 8).all()
    drawn, true, expected = nd.contrib.rand_zipfian(nd.array([3]), 4, 5)
    assert drawn.shape == (4,)
    np.testing.assert_allclose(true.asnumpy(), [np.log(5 / 4) / np.log(6) * 4], rtol=1e-6)
    assert expected.shape == (4,)


@pytest.fixture
def numpy_like():
    mx.npx.set_np()
    yield
    mx.npx.reset_np()


def test_layers_take_symbols_of_the_numpy_interface(numpy_like):
    class Last(mx.gluon.HybridBlock):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            with self.name_scope():
                self.layer = mx.gluon.nn.Dense(5, flatten=False)

        def hybrid_forward(self, F, x, y):
            return self.layer(x[:, -1, :] + y[:, -1, :])

    net = Last()
    net.initialize()
    x = mx.np.random.normal(size=(3, 4, 2))
    expected = net(x, x).asnumpy()
    net.hybridize()
    np.testing.assert_allclose(net(x, x).asnumpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_choice_takes_weights_that_were_rounded(numpy_like, dtype):
    weights = (mx.np.ones(777) / 777).astype(dtype)
    drawn = mx.np.random.choice(777, 50, True, weights).asnumpy()
    assert drawn.min() >= 0
    assert drawn.max() < 777
    with pytest.raises(ValueError, match="sum to 1"):
        mx.np.random.choice(2, 5, True, mx.np.array([0.5, 0.6]))
