"""Programs for `test_against_mxnet.py`: ways to train, with the losses of each step and the parameters they end in."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

_RNG = np.random.RandomState(3)
IMAGES = _RNG.standard_normal((40, 8)).astype(np.float32)
LABELS = (IMAGES @ _RNG.standard_normal((8, 3))).argmax(1).astype(np.float32)


def _network(mx: Any, contexts: Any = None, norm: bool = False, hybrid: bool = True) -> Any:
    """Two dense layers from a known start."""
    nn = mx.gluon.nn
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(nn.Dense(16, activation="relu", in_units=8))
        if norm:
            net.add(nn.BatchNorm(in_channels=16))
        net.add(nn.Dense(3, in_units=16))
    net.initialize(mx.init.One(), ctx=contexts)
    rng = np.random.RandomState(5)
    for p in net.collect_params().values():
        if p.name.endswith(("weight", "bias")):
            p.set_data(mx.nd.array(0.3 * rng.standard_normal(p.shape)))
        elif p.name.endswith(("mean", "beta")):
            p.set_data(mx.nd.zeros(p.shape))
    if hybrid:
        net.hybridize(static_alloc=True, static_shape=True)
    return net


def _step(mx: Any, net: Any, trainer: Any, before_update: Any = None) -> float:
    with mx.autograd.record():
        loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()(net(mx.nd.array(IMAGES)), mx.nd.array(LABELS))
    loss.backward()
    if before_update is not None:
        before_update()
    trainer.step(len(LABELS))
    return float(loss.mean().asscalar())


def _ends(net: Any, context: Any = None) -> dict[str, Any]:
    return {p.name: p.data(context).asnumpy() for p in net.collect_params().values()}


def data_parallel(mx: Any) -> dict[str, Any]:
    """Batches split over contexts, each with its own copy of the parameters, under every local kvstore."""
    out = {}
    for store, hybrid, on_store, count in (
        ("local", True, None, 2),
        ("device", False, None, 2),
        ("device", True, False, 4),
        (None, True, None, 2),
    ):
        contexts = [mx.cpu(i) for i in range(count)]
        net = _network(mx, contexts, hybrid=hybrid)
        trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.2, "momentum": 0.9}, kvstore=store,
                                   update_on_kvstore=on_store)  # fmt: skip
        losses = []
        for _ in range(6):
            parts = zip(*(mx.gluon.utils.split_and_load(mx.nd.array(a), contexts) for a in (IMAGES, LABELS)))
            with mx.autograd.record():
                found = [mx.gluon.loss.SoftmaxCrossEntropyLoss()(net(x), y) for x, y in parts]
            for loss in found:
                loss.backward()
            trainer.step(len(LABELS))
            losses.append(sum(float(loss.sum().asscalar()) for loss in found))
        name = f"{store} {hybrid} {on_store} {count}"
        out[f"{name} losses"] = np.array(losses)
        for i, context in enumerate(contexts):
            out |= {f"{name} {k} {i}": v for k, v in _ends(net, context).items()}
    return out


def clipping(mx: Any) -> dict[str, Any]:
    """Gradients clipped by their norm together, and each number by the optimizer."""
    out: dict[str, Any] = {}
    for hybrid in (False, True):
        net = _network(mx, hybrid=hybrid)
        trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5})
        norms: list[float] = []

        def clip(net: Any = net, norms: list[float] = norms) -> None:
            norms.append(float(mx.gluon.utils.clip_global_norm([p.grad() for p in net.collect_params().values()], 2.0)))

        out[f"norm {hybrid}"] = np.array([_step(mx, net, trainer, clip) for _ in range(6)])
        out[f"norms {hybrid}"] = np.array(norms)
        net = _network(mx, hybrid=hybrid)
        trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5, "clip_gradient": 0.02})
        out[f"value {hybrid}"] = np.array([_step(mx, net, trainer) for _ in range(6)])
    return out


def schedules(mx: Any) -> dict[str, Any]:
    """Learning rates that change with the steps."""
    kinds = mx.lr_scheduler
    out = {}
    for name, schedule in (
        ("factor", kinds.FactorScheduler(3, 0.5, base_lr=0.3, warmup_steps=4, warmup_begin_lr=0.01)),
        ("several", kinds.MultiFactorScheduler([3, 7], 0.1, base_lr=0.3)),
        ("polynomial", kinds.PolyScheduler(12, base_lr=0.3, pwr=2, final_lr=0.001, warmup_steps=2)),
        ("cosine", kinds.CosineScheduler(12, base_lr=0.3, final_lr=0.001)),
    ):
        net = _network(mx)
        trainer = mx.gluon.Trainer(
            net.collect_params(), "nag", {"learning_rate": 0.3, "momentum": 0.9, "lr_scheduler": schedule}
        )
        out[name] = np.array([(_step(mx, net, trainer), trainer.learning_rate) for _ in range(14)])
    return out


def resumed(mx: Any) -> dict[str, Any]:
    """Parameters and states of the trainer written in the middle, and read by others that go on."""
    out = {}
    for name, options in (("sgd", {"learning_rate": 0.1, "momentum": 0.9}), ("adam", {"learning_rate": 0.02}),
                          ("rmsprop", {"learning_rate": 0.01, "centered": True}), ("lamb", {"learning_rate": 0.02})):  # fmt: skip
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            net = _network(mx, norm=True)
            trainer = mx.gluon.Trainer(net.collect_params(), name, dict(options))
            losses = [_step(mx, net, trainer) for _ in range(5)]
            mx.nd.waitall()
            net.save_parameters(str(folder / "parameters"))
            trainer.save_states(str(folder / "states"))
            losses += [_step(mx, net, trainer) for _ in range(4)]
            again = _network(mx, norm=True)
            again.load_parameters(str(folder / "parameters"))
            trainer = mx.gluon.Trainer(again.collect_params(), name, dict(options))
            trainer.load_states(str(folder / "states"))
            out[name] = np.array(losses + [_step(mx, again, trainer) for _ in range(4)])
    return out


def accumulated(mx: Any) -> dict[str, Any]:
    """Gradients of several batches added up before a step; rates and decays by parameter; a parameter that stands still."""
    net = _network(mx, norm=True)
    parameters = net.collect_params()
    net[0].weight.lr_mult, net[2].bias.wd_mult = 0.1, 0.0
    for p in parameters.values():
        if p.grad_req != "null":
            p.grad_req = "add"
    net[0].bias.grad_req = "null"
    trainer = mx.gluon.Trainer(parameters, "sgd", {"learning_rate": 0.3, "momentum": 0.9, "wd": 0.01})
    losses = []
    for step in range(6):
        if step == 4:
            trainer.set_learning_rate(0.03)
        for k in range(4):
            with mx.autograd.record():
                loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()(
                    net(mx.nd.array(IMAGES[k::4])), mx.nd.array(LABELS[k::4])
                )
            loss.backward()
            losses.append(float(loss.mean().asscalar()))
        trainer.step(len(LABELS))
        for p in parameters.values():
            p.zero_grad()
    return {"losses": np.array(losses), **_ends(net)}


def recurrent_training(mx: Any) -> dict[str, Any]:
    """GRU, LSTM and plain RNN layers, in one direction and both."""
    out = {}
    for kind in ("GRU", "LSTM", "RNN"):
        for both in (False, True):
            net = getattr(mx.gluon.rnn, kind)(7, 2, input_size=8, bidirectional=both, prefix="r_")
            net.initialize(mx.init.One())
            rng = np.random.RandomState(5)
            for p in net.collect_params().values():
                p.set_data(mx.nd.array(0.3 * rng.standard_normal(p.shape)))
            net.hybridize(static_alloc=True)
            trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.02})
            losses = []
            for _ in range(6):
                with mx.autograd.record():
                    y, _states = net(mx.nd.array(IMAGES.reshape(10, 4, 8)), net.begin_state(4))
                    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss(axis=-1)(y, mx.nd.array(LABELS.reshape(10, 4)))
                loss.backward()
                trainer.step(4)
                losses.append(float(loss.mean().asscalar()))
            out[f"{kind} {both}"] = np.array(losses)
    return out


WAYS = {f.__name__: f for f in (data_parallel, clipping, schedules, resumed, accumulated, recurrent_training)}
