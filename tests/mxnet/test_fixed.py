"""Parameters built into networks for inference: the same numbers, and none of a parameter that has been written to since."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import diptych.mxnet as mx
from diptych.mxnet import autograd, gluon, nd
from diptych.mxnet.ops.fixed import Fixed, Seal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

X = np.random.RandomState(0).randn(2, 3, 9, 9).astype("float32")


def cheap(forms: list[Fixed]) -> None:
    """Compiling cost nothing: what is built in is so at once, and again."""
    for f in forms:
        f._price = 0.0
        if f.prepared.program.seconds is not None:
            f.prepared.program.seconds = 0.0


class Net:
    """A small convolutional network with what its calls are made of, its parameters built in."""

    def __init__(self) -> None:
        mx.random.seed(3)
        self.block = gluon.nn.HybridSequential()
        self.block.add(gluon.nn.Conv2D(8, 3, in_channels=3), gluon.nn.BatchNorm(in_channels=8), gluon.nn.Dense(4, in_units=392))
        self.block.initialize(mx.init.Normal(0.5))
        self.block.hybridize()
        self.x = nd.array(X)
        self.use()

    def use(self) -> None:
        """Call it until its parameters are built in."""
        for _ in range(50):
            cheap(self.forms())
            self.block(self.x).asnumpy()
            if self.built():
                return
        raise AssertionError("the parameters are not built in")

    def forms(self) -> list[Fixed]:
        kept = self.block._cached_op._symbol._prepared.values() if self.block._cached_op is not None else ()
        return [f for p in kept if hasattr(p, "fixed") for f in p.fixed.values()]

    def built(self) -> bool:
        return any(f._program is not None for f in self.forms())

    def check(self) -> None:
        """The results are those of the parameters as they are now."""
        got = self.block(self.x).asnumpy()
        other = gluon.nn.HybridSequential()
        other.add(gluon.nn.Conv2D(8, 3, in_channels=3), gluon.nn.BatchNorm(in_channels=8), gluon.nn.Dense(4, in_units=392))
        other.initialize()
        for p, q in zip(self.block.collect_params().values(), other.collect_params().values()):
            q.set_data(nd.array(p.data().asnumpy()))
        np.testing.assert_allclose(got, other(self.x).asnumpy(), rtol=1e-4, atol=1e-4)


def _trained(net: Net) -> None:
    trainer = gluon.Trainer(net.block.collect_params(), "sgd", {"learning_rate": 0.5})
    with autograd.record():
        loss = net.block(net.x).sum()
    loss.backward()
    trainer.step(1)


def _loaded(net: Net) -> None:
    values = {k: nd.array(np.random.RandomState(5).rand(*v.shape)) for k, v in net.block._collect_params_with_prefix().items()}
    nd.save("given.params", values)
    net.block.load_parameters("given.params")


def _viewed(net: Net) -> None:
    part = net.block[0].weight.data()[1:3]
    net.block(net.x).asnumpy()
    part[:] = 4


def _reshaped_while_recording(net: Net) -> None:
    with autograd.record():
        flat = net.block[0].weight.data().reshape((-1,))
    net.block(net.x).asnumpy()
    flat[:] = 2


def _detached(net: Net) -> None:
    same = net.block[2].weight.data().detach()
    net.block(net.x).asnumpy()
    same[:] = -1


def _statistics(net: Net) -> None:
    with autograd.record():  # moves the averages of BatchNorm
        y = net.block(nd.array(X * 3 + 1))
    y.backward()


CHANGES: dict[str, Callable[[Net], Any]] = {
    "in place": lambda net: net.block[0].weight.data().__setitem__(slice(None), 0.25),
    "a part": lambda net: net.block[0].weight.data().__setitem__((slice(0, 2), 1), 7.0),
    "added": lambda net: net.block[2].bias.data().__iadd__(1.5),
    "out=": lambda net: nd.ones((4,), out=net.block[2].bias.data()),
    "set_data": lambda net: net.block[1].gamma.set_data(nd.ones((8,)) * 3),
    "initialized": lambda net: net.block.initialize(mx.init.Normal(2.0), force_reinit=True),
    "an operator": lambda net: nd.sgd_update(net.block[2].weight.data(), nd.ones((4, 392)), lr=0.5, out=net.block[2].weight.data()),
    "trainer": _trained, "loaded": _loaded, "a view": _viewed, "recorded view": _reshaped_while_recording, "detached": _detached,
    "copied to": lambda net: nd.ones((4,)).copyto(net.block[2].bias.data()), "moving averages": _statistics,
    "cast": lambda net: (net.block.cast("float64"), net.block.cast("float32"), net.block[2].bias.set_data(nd.ones((4,)))),
}  # fmt: skip


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_written_parameter_is_seen(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = Net()
    net.check()
    before = net.block(net.x).asnumpy()
    CHANGES[change](net)
    net.check()
    assert np.abs(net.block(net.x).asnumpy() - before).max() > 1e-3
    net.check()


@pytest.mark.parametrize("change", ["trainer", "loaded", "set_data", "in place", "initialized"])
def test_they_are_built_in_again(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = Net()
    for _ in range(3):
        CHANGES[change](net)
        net.check()
        net.use()
        net.check()


def test_reading_a_parameter_changes_nothing_and_what_is_read_is_right() -> None:
    net = Net()
    weight = net.block[2].weight.data()
    assert weight.shape == (4, 392)
    assert weight.dtype == np.float32
    assert isinstance(weight._pending[0], Seal)
    want = net.block(net.x).asnumpy()
    read = weight.asnumpy()
    assert weight._array is not None
    np.testing.assert_array_equal(read, weight.asnumpy())
    np.testing.assert_allclose(net.block(net.x).asnumpy(), want, rtol=1e-4, atol=1e-4)


def test_two_networks_may_share_a_parameter() -> None:
    net = Net()
    other = gluon.nn.HybridSequential()
    other.add(gluon.nn.Dense(4, in_units=392, params=net.block[2].params))
    other.hybridize()
    y = nd.ones((2, 392))
    want = other(y).asnumpy()
    for _ in range(6):
        np.testing.assert_allclose(other(y).asnumpy(), want, rtol=1e-5, atol=1e-5)
        net.check()
    net.block[2].bias.data()[:] += 2
    np.testing.assert_allclose(other(y).asnumpy(), want + 2, rtol=1e-5, atol=1e-5)
    net.check()


def test_nothing_keeps_a_network_alive() -> None:
    net = Net()
    memory = [x._pending[0].memory for x in (p.data() for p in net.block.collect_params().values())]
    gone = [weakref.ref(m) for m in memory]
    del memory, net
    gc.collect()
    assert all(r() is None for r in gone)


@pytest.mark.parametrize("change", ["set_params", "in place"])
def test_a_module_bound_for_inference(change: str) -> None:
    net = mx.sym.FullyConnected(mx.sym.Activation(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=64), act_type="tanh"), num_hidden=3)
    module = mx.mod.Module(net, label_names=None)
    module.bind([("data", (8, 40))], for_training=False)
    mx.random.seed(1)
    module.init_params(mx.init.Normal(0.3))
    batches = [mx.io.DataBatch([nd.array(np.random.RandomState(i).randn(8, 40))]) for i in range(3)]

    def outputs() -> list[Any]:
        found = []
        for b in batches:
            module.forward(b)
            found.append(module.get_outputs()[0].asnumpy())
        return found

    def forms() -> list[Fixed]:
        return [f for p in net._prepared.values() if hasattr(p, "fixed") for f in p.fixed.values()]

    want = outputs()
    for _ in range(5):
        outputs()
        cheap(forms())
    assert any(f._program is not None for f in forms())
    for a, b in zip(outputs(), want):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    args, aux = module.get_params()
    values = [(args[n] + 0.25).asnumpy() for n in net.list_arguments()[1:]]
    if change == "set_params":
        module.set_params({k: v + 0.25 for k, v in args.items()}, aux)
    else:
        for name in args:
            module._exec_group.execs[0].arg_dict[name][:] += 0.25
    for b, got in zip(batches, outputs()):
        x = np.tanh(b.data[0].asnumpy() @ values[0].T + values[1]) @ values[2].T + values[3]
        np.testing.assert_allclose(got, x, rtol=1e-4, atol=1e-4)
