"""Symbols: names, composition, inference, files, executors, control flow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import diptych.mxnet as mx
from diptych.mxnet import nd, sym
from diptych.mxnet.base import MXNetError


def mlp() -> Any:
    data = sym.Variable("data")
    net = sym.FullyConnected(data, num_hidden=8, name="fc1")
    net = sym.Activation(sym.BatchNorm(net, name="bn"), act_type="relu", name="act")
    return sym.SoftmaxOutput(sym.FullyConnected(net, num_hidden=3, name="fc2"), name="softmax")


def test_lists_and_inference() -> None:
    net = mlp()
    assert net.list_arguments() == [
        "data", "fc1_weight", "fc1_bias", "bn_gamma", "bn_beta", "fc2_weight", "fc2_bias", "softmax_label",
    ]  # fmt: skip
    assert net.list_auxiliary_states() == ["bn_moving_mean", "bn_moving_var"] and net.list_outputs() == ["softmax_output"]
    arguments, outputs, states = net.infer_shape(data=(4, 5))
    assert arguments == [(4, 5), (8, 5), (8,), (8,), (8,), (3, 8), (3,), (4,)]
    assert outputs == [(4, 3)] and states == [(8,), (8,)]
    with pytest.warns(UserWarning, match="do not follow"):
        assert net.infer_shape() == (None, None, None)
    assert net.infer_type(data="float64")[1] == [np.float64]
    with pytest.raises(MXNetError, match="fc1"):
        net.infer_shape(data=(4, 5), fc1_weight=(8, 6))


def test_shapes_flow_backward() -> None:
    total = sym.Variable("a", shape=(0, 10)) + sym.Variable("b", shape=(12, 0))
    assert total.infer_shape()[0] == [(12, 10), (12, 10)]
    x = sym.Variable("x", shape=(0, 10, 0, 0))
    y = sym.Convolution(x, num_filter=21, kernel=(3, 3), pad=(1, 1)) + sym.Variable("c", shape=(5, 21, 32, 32))
    assert y.infer_shape()[0][0] == (5, 10, 32, 32)


def test_names_attributes_and_files() -> None:
    with mx.AttrScope(ctx_group="dev1"), mx.name.Prefix("net_"):
        x = sym.Variable("x", lr_mult=2)
        y = sym.FullyConnected(x, num_hidden=3)
    assert y.name == "net_fullyconnected0" and y.attr("ctx_group") == "dev1" and x.attr("lr_mult") == "2"
    again = sym.load_json(y.tojson())
    assert again.tojson() == y.tojson() and again.attr_dict() == y.attr_dict()
    with pytest.raises(MXNetError, match="takes no argument 'foo'"):
        sym.clip(x, 0, 1, attr={"foo": "1"})


def test_composition_and_parts() -> None:
    inner = sym.FullyConnected(sym.Variable("z"), num_hidden=2, name="fc")
    outer = inner(z=sym.Variable("q") * 2)
    assert outer.list_arguments() == ["q", "fc_weight", "fc_bias"] and inner.list_arguments()[0] == "z"
    net = mlp()
    assert net.get_internals()["fc1_output"].list_outputs() == ["fc1_output"]
    pair = sym.Group([net, net.get_internals()["act_output"]])
    assert pair.list_outputs() == ["softmax_output", "act_output"] and len(pair) == 2
    with pytest.raises(mx.base.NotImplementedForSymbol):
        bool(net)


def test_executor_in_place_requests_and_reshape() -> None:
    x = sym.Variable("x")
    e = sym.FullyConnected(x, num_hidden=4, name="fc").simple_bind(mx.cpu(), x=(5, 4), grad_req="add")
    for a in e.arg_arrays:
        a[:] = 1
    for _ in range(2):
        e.forward(is_train=True)
        e.backward(nd.ones((5, 4)))
    assert e.grad_dict["fc_bias"].asnumpy().tolist() == [10] * 4
    small = e.reshape(x=(3, 4))
    assert small.arg_dict["fc_weight"] is e.arg_dict["fc_weight"] and small.forward()[0].asnumpy().tolist() == [[5] * 4] * 3
    with pytest.raises(ValueError, match="is bound for"):
        e.forward(x=nd.ones((2, 4)))


def test_bucketed_executors_make_each_graph_once() -> None:
    net = mlp()
    shapes = [(4, 5), (2, 5), (4, 5)]
    for shape in shapes:
        e = net.simple_bind(mx.cpu(), data=shape, grad_req="null")
        assert e.forward()[0].shape == (shape[0], 3)
    assert len(net._prepared) == 2


@pytest.mark.parametrize("steps", [1, 4])
def test_foreach_in_both_interfaces(steps: int) -> None:
    rows, bias = np.random.default_rng(0).normal(size=(steps, 3)).astype("f"), np.ones(3, "f")

    def body(row: Any, state: Any) -> Any:
        return row * state[0], [state[0] + row]

    a, s = nd.array(rows), nd.array(bias)
    for x in (a, s):
        x.attach_grad()
    with mx.autograd.record():
        out, final = nd.contrib.foreach(body, a, [s])
        loss = out.sum() + final[0].sum()
    loss.backward()
    outs, finals = sym.contrib.foreach(body, sym.Variable("a"), [sym.Variable("s")])
    group = sym.load_json(sym.Group([outs, finals[0]]).tojson())
    grads = {"a": nd.zeros((steps, 3)), "s": nd.zeros((3,))}
    e = group.bind(mx.cpu(), {"a": nd.array(rows), "s": nd.array(bias)}, grads)
    got = e.forward(is_train=True)
    np.testing.assert_allclose(got[0].asnumpy(), out.asnumpy(), rtol=1e-6)
    np.testing.assert_allclose(got[1].asnumpy(), bias + rows.sum(0), rtol=1e-5)
    e.backward([nd.ones((steps, 3)), nd.ones((3,))])
    np.testing.assert_allclose(grads["a"].asnumpy(), a.grad.asnumpy(), rtol=1e-5)
    np.testing.assert_allclose(grads["s"].asnumpy(), s.grad.asnumpy(), rtol=1e-5)


def test_while_loop_and_cond_in_both_interfaces() -> None:
    def condition(i: Any, total: Any) -> Any:
        return i <= 3

    def step(i: Any, total: Any) -> Any:
        return total + i, [i + 1, total + i]

    out, final = nd.contrib.while_loop(condition, step, [nd.array([1.0]), nd.array([0.0])], max_iterations=5)
    assert out.asnumpy().ravel().tolist() == [1, 3, 6, 0, 0] and final[1].asscalar() == 6
    outs, finals = sym.contrib.while_loop(condition, step, [sym.Variable("i"), sym.Variable("t")], max_iterations=5)
    got = sym.Group([outs, *finals]).eval(i=nd.array([1.0]), t=nd.array([0.0]))
    assert got[0].asnumpy().ravel().tolist() == [1, 3, 6, 0, 0] and got[2].asscalar() == 6
    a, b = sym.Variable("a"), sym.Variable("b")
    chosen = sym.contrib.cond(a > b, lambda: a * 2, lambda: b * 3)
    for x, y, want in ((3.0, 1.0, 6), (1.0, 3.0, 9)):
        assert chosen.eval(a=nd.array([x]), b=nd.array([y]))[0].asscalar() == want


def test_cached_operator_is_one_step_on_the_tape() -> None:
    net = sym.relu(sym.Variable("x") * 3 - 1) * sym.Variable("y")
    op = nd.CachedOp(net)
    x, y = nd.array([1.0, -1.0]), nd.array([2.0, 2.0])
    x.attach_grad()
    with mx.autograd.record():
        z = op(x, y)
    z.backward()
    assert z.asnumpy().tolist() == [4, 0] and x.grad.asnumpy().tolist() == [6, 0]
    with pytest.raises(MXNetError, match="takes 2 arrays"):
        op(x)
