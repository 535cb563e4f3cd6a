"""autograd: modes, requests, higher orders, functions of one's own, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import diptych.mxnet as mx
from diptych.mxnet import autograd, nd
from diptych.mxnet.base import MXNetError


def test_requests_write_add_null() -> None:
    x, y, z = nd.array([2.0]), nd.array([3.0]), nd.array([4.0])
    x.attach_grad("write")
    y.attach_grad("add")
    z.attach_grad("null")
    assert z.grad.asscalar() == 0  # as in MXNet, until a backward pass has come by
    for _ in range(3):
        with autograd.record():
            out = x * y * z
        out.backward()
    assert [a.grad.asscalar() for a in (x, y)] == [12, 24]
    assert z.grad is None  # as in MXNet


def test_higher_orders() -> None:
    x = nd.array([0.3, -0.7])
    x.attach_grad()
    with autograd.record():
        first = autograd.grad(nd.sin(x) * x, [x], create_graph=True)[0]
        second = autograd.grad(first, [x], create_graph=True)[0]
    second.backward()
    v = x.asnumpy()
    np.testing.assert_allclose(second.asnumpy(), 2 * np.cos(v) - v * np.sin(v), rtol=1e-5)
    np.testing.assert_allclose(x.grad.asnumpy(), -3 * np.sin(v) - v * np.cos(v), rtol=1e-5)


def test_modes() -> None:
    assert not autograd.is_recording() and not autograd.is_training()
    with autograd.record():
        assert autograd.is_recording() and autograd.is_training()
        with autograd.predict_mode():
            assert autograd.is_recording() and not autograd.is_training()
        with autograd.pause():
            assert not autograd.is_recording() and not autograd.is_training()
    x = nd.ones((100,))
    assert nd.Dropout(x, p=0.5).asnumpy().tolist() == [1] * 100
    with autograd.train_mode():
        dropped = nd.Dropout(x, p=0.5).asnumpy()
    assert set(dropped) == {0, 2}
    assert set(nd.Dropout(x, p=0.5, mode="always").asnumpy()) == {0, 2}


def test_recorded_values_are_those_of_the_call_whatever_is_written_later() -> None:
    x, scale = nd.array([1.0, 2.0]), nd.array([3.0, 3.0])
    x.attach_grad()
    with autograd.record():
        y = x * scale
    scale[:] = 100  # y waits to be computed: it must have been before the memory changed
    assert y.asnumpy().tolist() == [3, 6]


def test_in_place_writes_to_what_is_on_the_tape_are_refused() -> None:
    x = nd.ones((2,))
    x.attach_grad()
    with autograd.record():
        y = x * 2
        for write in (lambda: y.__iadd__(1), lambda: y.__setitem__(0, 1.0), lambda: x.__setitem__(slice(None), 0.0)):
            with pytest.raises(MXNetError, match="cannot be written"):
                write()


def test_a_graph_is_used_once_unless_retained() -> None:
    x = nd.ones((2,))
    x.attach_grad()
    with autograd.record():
        y = x * x
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(MXNetError, match="retain_graph"):
        y.backward()
    with pytest.raises(MXNetError, match="was not computed under"):
        nd.ones((2,)).backward()


def test_slices_pieces_and_assignments_on_the_tape() -> None:
    x, w = nd.arange(6).reshape((2, 3)), nd.ones((3,))
    x.attach_grad()
    w.attach_grad()
    with autograd.record():
        out = nd.zeros((2, 3))
        out[1] = w * 2
        y = (x[0] * x[1]).sum() + (x[nd.array([0, 0]), nd.array([1, 2])] * 10).sum() + (x[:, ::2] * 1).sum() + (out * x).sum()
    y.backward()
    assert x.grad.asnumpy().tolist() == [[3 + 1, 4 + 10, 5 + 10 + 1], [0 + 1 + 2, 1 + 2, 2 + 1 + 2]]
    assert w.grad.asnumpy().tolist() == [6, 8, 10]


class Cube(autograd.Function):
    def forward(self, x: Any) -> Any:
        self.save_for_backward(x)
        return x * x * x

    def backward(self, dy: Any) -> Any:
        (x,) = self.saved_tensors
        return 3 * x * x * dy


def test_functions_of_ones_own() -> None:
    x = nd.array([2.0])
    x.attach_grad()
    with autograd.record():
        y = Cube()(x * 2) + x
    y.backward()
    assert x.grad.asscalar() == 3 * 16 * 2 + 1


@mx.operator.register("test_scaled")
class ScaledProp(mx.operator.CustomOpProp):  # type: ignore[misc]
    def __init__(self, factor: str = "2") -> None:
        super().__init__(need_top_grad=True)
        self.factor = float(factor)

    def create_operator(self, ctx: Any, shapes: Any, dtypes: Any) -> Any:
        factor = self.factor

        class Scaled(mx.operator.CustomOp):  # type: ignore[misc]
            def forward(self, is_train: bool, req: Any, in_data: Any, out_data: Any, aux: Any) -> None:
                self.assign(out_data[0], req[0], in_data[0] * factor)

            def backward(self, req: Any, out_grad: Any, in_data: Any, out_data: Any, in_grad: Any, aux: Any) -> None:
                self.assign(in_grad[0], req[0], out_grad[0] * factor)

        return Scaled()


def test_custom_operators_in_both_interfaces() -> None:
    x = nd.array([[1.0, 2.0]])
    x.attach_grad()
    with autograd.record():
        y = (nd.Custom(x, op_type="test_scaled", factor=3) * x).sum()
    y.backward()
    assert x.grad.asnumpy().tolist() == [[6, 12]]
    s = mx.sym.Custom(mx.sym.Variable("data"), op_type="test_scaled", factor=3, name="c") * 2
    assert s.infer_shape(data=(1, 2))[1] == [(1, 2)] and s.list_arguments() == ["data"]
    e = s.simple_bind(mx.cpu(), data=(1, 2))
    assert e.forward(is_train=True, data=x)[0].asnumpy().tolist() == [[6, 12]]
    e.backward(nd.ones((1, 2)))
    assert e.grad_dict["data"].asnumpy().tolist() == [[6, 6]]
    with pytest.raises(MXNetError, match="register"):
        nd.Custom(x, op_type="never_registered")


def test_operators_without_a_gradient_say_so() -> None:
    x = nd.ones((2, 2))
    x.attach_grad()
    with autograd.record():
        y = nd.contrib.fft(x)
    with pytest.raises(MXNetError, match="has no gradient"):
        y.backward()


def test_values_beside_the_loss_outlive_the_backward_pass() -> None:
    """A metric computed while recording waits for values that the backward pass lets go of, step by step and fused alike."""
    rng = np.random.default_rng(0)
    for step in range(5):
        x, w = rng.normal(size=(3, 4)).astype(np.float32), mx.nd.array(rng.normal(size=(4, 2)))
        w.attach_grad()
        with mx.autograd.record():
            y = mx.nd.tanh(mx.nd.dot(mx.nd.array(x), w)) * 3
            loss = (y * y).sum()
            beside = mx.nd.exp(y)
            further = (beside + y).sum()
        del beside
        loss.backward()
        expected = np.tanh(x @ w.asnumpy()) * 3
        assert_allclose(further.asnumpy(), (np.exp(expected) + expected).sum(), rtol=1e-5, err_msg=f"step {step}")
        assert_allclose(loss.asnumpy(), (expected**2).sum(), rtol=1e-5)
        assert_allclose(w.grad.asnumpy(), x.T @ (2 * expected * 3 * (1 - (expected / 3) ** 2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_recurrent_layer_has_the_gradients_of_its_cells(layer: str, bidirectional: bool) -> None:
    """One operator going back through all steps, against cells unrolled step by step."""
    options: dict[str, Any] = {"activation": "tanh"} if layer == "RNN" else {}
    fused = getattr(mx.gluon.rnn, layer)(5, 2, input_size=3, bidirectional=bidirectional, prefix="a_", **options)
    fused.initialize(mx.init.Uniform(0.6))
    cells = mx.gluon.rnn.SequentialRNNCell(prefix="b_")
    cell = getattr(mx.gluon.rnn, {"RNN": "RNNCell"}.get(layer, f"{layer}Cell"))
    for i, width in enumerate((3, 10 if bidirectional else 5)):
        made = [cell(5, input_size=width, prefix=f"{d}{i}_", **options) for d in "lr"[: 1 + bidirectional]]
        cells.add(mx.gluon.rnn.BidirectionalCell(*made) if bidirectional else made[0])
    cells.initialize()
    theirs = {k.removeprefix("a_"): p for k, p in fused.collect_params().items()}
    ours = {k.removeprefix("b_"): p for k, p in cells.collect_params().items()}
    assert set(theirs) == set(ours)
    for name, p in ours.items():
        p.set_data(theirs[name].data())
    x = nd.random.normal(shape=(6, 4, 3))
    found = []
    for run in (lambda v: fused(v), lambda v: cells.unroll(6, v, layout="TNC", merge_outputs=True)[0]):
        v = x.copy()
        v.attach_grad()
        with autograd.record():
            loss = (run(v) * nd.arange(6).reshape((6, 1, 1)).sin()).sum()
        loss.backward()
        found.append((loss, v.grad))
    for one, other in zip(*found, strict=True):
        assert_allclose(one.asnumpy(), other.asnumpy(), rtol=1e-4, atol=1e-5)
    for name, p in ours.items():
        assert_allclose(theirs[name].grad().asnumpy(), p.grad().asnumpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_gradient_penalty_has_the_slope_of_its_loss() -> None:
    """The norm of the gradient for the data is part of the loss, so that its own gradient goes through a gradient."""
    rng = np.random.default_rng(0)
    x, w, v = (nd.array(rng.standard_normal(s), dtype="float64") for s in ((5, 4), (6, 4), (1, 6)))

    def loss() -> Any:
        data = x.copy()
        data.attach_grad()
        with autograd.record():
            y = nd.FullyConnected(nd.sigmoid(nd.FullyConnected(data, w, no_bias=True, num_hidden=6)), v, no_bias=True, num_hidden=1)
            slope = autograd.grad(y, [data], create_graph=True, retain_graph=True)[0]
            return (y**2).mean() + 10 * ((((slope**2).sum(axis=1) + 1e-6) ** 0.5 - 1) ** 2).mean()

    for p in (w, v):
        p.attach_grad()
    loss().backward()
    for p in (w, v):
        for at in np.ndindex(p.shape):
            start, ends = p[at].asscalar(), []
            for step in (1e-5, -1e-5):
                p[at] = start + step
                ends.append(loss().asscalar())
            p[at] = start
            assert_allclose(p.grad[at].asscalar(), (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-8)
