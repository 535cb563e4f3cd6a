"""Small programs of the MXNet API. The same file runs on `diptych.mxnet` and, as a script, on MXNet itself: the judge.

usage: python programs.py NAME OUT.npz     (with the interpreter that has MXNet)
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from more_programs import MORE
from training_programs import WAYS

Arrays = dict[str, Any]


def _random(mx: Any, seed: int = 0) -> Any:
    rng = np.random.RandomState(seed)
    return lambda *shape: mx.nd.array(rng.randn(*shape).astype("float32"))


def losses(mx: Any) -> Arrays:
    """Loss layers, whose gradients are their own, and gradient switches."""
    nd, autograd, draw = mx.nd, mx.autograd, _random(mx)
    out: Arrays = {}

    def keep(name: str, f: Any, *xs: Any) -> None:
        xs[0].attach_grad()
        with autograd.record():
            y = f(*xs)
        y.backward()
        out[f"{name}_y"], out[f"{name}_dx"] = y.asnumpy(), xs[0].grad.asnumpy()

    label = nd.array([0, 2, -1, 4])
    for i, kw in enumerate([{}, {"grad_scale": 2.0}, {"normalization": "batch"}, {"normalization": "valid", "use_ignore": True},
                            {"use_ignore": True, "ignore_label": 2, "smooth_alpha": 0.1}]):  # fmt: skip
        keep(f"softmax{i}", lambda x, t, kw=kw: nd.SoftmaxOutput(x, t, **kw), draw(4, 5), label)
    for how in ("null", "batch", "valid"):
        keep(f"multi_{how}", lambda x, t, how=how: nd.SoftmaxOutput(x, t, multi_output=True, normalization=how), draw(2, 3, 4),
             nd.array([[0, 1, 2, 0], [1, 1, 0, 2]]))  # fmt: skip
    for name in ("LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput"):
        keep(name, lambda x, t, name=name: getattr(nd, name)(x, t, grad_scale=2.0), draw(4, 5), draw(4, 5))
    for linear in (True, False):
        keep(f"svm{linear}", lambda x, t, v=linear: nd.SVMOutput(x, t, use_linear=v, margin=0.5, regularization_coefficient=0.7),
             draw(4, 5), nd.array([0, 2, 1, 4]))  # fmt: skip
    keep("make_loss", lambda x: nd.MakeLoss(x * 2, normalization="valid", valid_thresh=0.1), draw(4, 5))
    keep("block", lambda x: nd.BlockGrad(x * 2) * x, draw(4, 5))
    keep("multiplier", lambda x: nd.contrib.gradientmultiplier(x * 2, scalar=-0.5), draw(4, 5))
    keep("ctc", lambda x, t: nd.CTCLoss(x, t), draw(7, 3, 5), nd.array([[1, 2, 0], [3, 3, 2], [4, 0, 0]]))
    return out


def batch_norm(mx: Any) -> Arrays:
    """Batch statistics in training, moving averages that move with the backward pass, inference."""
    nd, autograd, draw = mx.nd, mx.autograd, _random(mx)
    out: Arrays = {}
    x, gamma, beta, mean, var = draw(2, 3, 4, 4), draw(3), draw(3), draw(3), nd.abs(draw(3))
    for a in (x, gamma, beta):
        a.attach_grad()
    for i, kw in enumerate([{"fix_gamma": False}, {"fix_gamma": False, "use_global_stats": True}, {"fix_gamma": True}]):
        with autograd.record():
            y = nd.BatchNorm(x, gamma, beta, mean, var, **kw)
            z = (y * y * y).sum()
        out[f"mean_before{i}"] = mean.asnumpy()
        z.backward()
        for name, a in (("y", y), ("dx", x.grad), ("dgamma", gamma.grad), ("dbeta", beta.grad), ("mean", mean), ("var", var),
                        ("gamma", gamma), ("inference", nd.BatchNorm(x, gamma, beta, mean, var, **kw))):  # fmt: skip
            out[f"{name}{i}"] = a.asnumpy()
    return out


def steps(mx: Any) -> Arrays:
    """Optimizer steps, in place."""
    nd, draw = mx.nd, _random(mx)
    out: Arrays = {}
    w, g, m, v = draw(5), draw(5), draw(5), nd.abs(draw(5))
    calls = {
        "sgd": lambda: nd.sgd_update(w, g, lr=0.1, wd=0.01, clip_gradient=0.5, out=w),
        "sgd_mom": lambda: nd.sgd_mom_update(w, g, m, lr=0.1, momentum=0.9, wd=0.01, rescale_grad=0.5, out=w),
        "nag": lambda: nd.nag_mom_update(w, g, m, lr=0.1, momentum=0.9, wd=0.01, out=w),
        "adam": lambda: nd.adam_update(w, g, m, v, lr=0.1, wd=0.01, clip_gradient=0.3, out=w),
        "rmsprop": lambda: nd.rmsprop_update(w, g, v, lr=0.1, wd=0.01, out=w),
        "signum": lambda: nd.signum_update(w, g, m, lr=0.1, wd=0.01, momentum=0.9, wd_lh=0.1, out=w),
        "multi": lambda: nd.multi_sgd_update(w, g, m, g, lrs=(0.1, 0.2), wds=(0.01, 0.02), num_weights=2, out=[w, m]),
        "adamw": lambda: nd._internal._adamw_update(w, g, m, v, nd.ones(1) * 2, lr=0.1, eta=0.5, wd=0.01, out=w),
    }
    for name, call in calls.items():
        call()
        out.update({f"{name}_{k}": a.asnumpy() for k, a in (("w", w), ("m", m), ("v", v))})
    return out


def matrices(mx: Any) -> Arrays:
    """Factorisations with their gradients."""
    nd, autograd, draw = mx.nd, mx.autograd, _random(mx)
    out: Arrays = {}
    base = nd.array(np.eye(4) * 3) + draw(4, 4) * 0.1
    spd = nd.dot(base, base.T)

    def keep(name: str, f: Any, *xs: Any) -> None:
        for x in xs:
            x.attach_grad()
        with autograd.record():
            y = f(*xs)
            loss = (nd.sin(y) * y).sum()
        loss.backward()
        out[f"{name}_y"] = y.asnumpy()
        out.update({f"{name}_d{i}": x.grad.asnumpy() for i, x in enumerate(xs)})

    keep("potrf", nd.linalg.potrf, spd)
    keep("potri", nd.linalg.potri, nd.linalg.potrf(spd))
    for i, kw in enumerate([{}, {"transpose": True}, {"rightside": True, "alpha": 2.0}, {"lower": False}]):
        keep(f"trmm{i}", lambda a, b, kw=kw: nd.linalg.trmm(a, b, **kw), base, draw(4, 4))
        keep(f"trsm{i}", lambda a, b, kw=kw: nd.linalg.trsm(a, b, **kw), base, draw(4, 4))
    keep("gelqf", lambda x: nd.linalg.gelqf(x)[1], draw(3, 4))
    keep("eigenvalues", lambda x: nd.linalg.syevd(x)[1], spd)
    keep("inverse", nd.linalg.inverse, base)
    for i, kw in enumerate([{}, {"offset": 1}, {"offset": -1}, {"lower": False}]):
        keep(f"extract{i}", lambda x, kw=kw: nd.linalg.extracttrian(x, **kw), base)
        keep(f"make{i}", lambda x, kw=kw: nd.linalg.maketrian(x, **kw), draw(2, 6))
    return out


def recurrent(mx: Any) -> Arrays:
    """The fused recurrent layer, forward and backward, with states."""
    nd, autograd, draw = mx.nd, mx.autograd, _random(mx)
    x, packed, h, c = draw(3, 2, 4), draw(4 * 5 * (4 + 5 + 2)), draw(1, 2, 5), draw(1, 2, 5)
    for a in (x, packed, h, c):
        a.attach_grad()
    with autograd.record():
        y = nd.RNN(x, packed, h, c, state_size=5, num_layers=1, mode="lstm", state_outputs=True)
        loss = (y[0] * y[0]).sum() + y[2].sum()
    loss.backward()
    return {f"y{i}": a.asnumpy() for i, a in enumerate(y)} | {
        n: a.grad.asnumpy() for n, a in (("dx", x), ("dp", packed), ("dh", h), ("dc", c))
    }


def training(mx: Any) -> Arrays:
    """Twelve steps of a small convolutional network, by hand; from the third on a step is one program."""
    nd, autograd, draw = mx.nd, mx.autograd, _random(mx)
    p = {"w1": draw(4, 1, 3, 3) * 0.3, "b1": nd.zeros(4), "g": nd.ones(4), "b": nd.zeros(4), "w2": draw(3, 4 * 3 * 3) * 0.3,
         "b2": nd.zeros(3)}  # fmt: skip
    mean, var = nd.zeros(4), nd.ones(4)
    momentum = {k: nd.zeros(a.shape) for k, a in p.items()}
    for a in p.values():
        a.attach_grad()
    x, label = draw(8, 1, 8, 8), nd.array([0, 1, 2, 0, 1, 2, 0, 1])
    losses = []
    for _ in range(12):
        with autograd.record():
            y = nd.Convolution(x, p["w1"], p["b1"], kernel=(3, 3), num_filter=4)
            y = nd.relu(nd.BatchNorm(y, p["g"], p["b"], mean, var, fix_gamma=False))
            y = nd.Pooling(y, kernel=(2, 2), stride=(2, 2), pool_type="max")
            y = nd.FullyConnected(y, p["w2"], p["b2"], num_hidden=3)
            loss = -nd.pick(nd.log_softmax(y), label)
        loss.backward()
        for k, w in p.items():
            nd.sgd_mom_update(w, w.grad, momentum[k], lr=0.1, momentum=0.9, rescale_grad=1 / 8, out=w)
        losses.append(loss.mean().asscalar())
    return {"losses": np.array(losses), "mean": mean.asnumpy(), "var": var.asnumpy(), **{k: w.asnumpy() for k, w in p.items()}}


def executor(mx: Any) -> Arrays:
    """A symbol bound to arrays, trained for two steps, then used."""
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=8, name="fc1")
    net = mx.sym.Activation(mx.sym.BatchNorm(net, name="bn", fix_gamma=False), act_type="relu")
    net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(net, num_hidden=3, name="fc2"), name="softmax")
    e = net.simple_bind(mx.cpu(), data=(4, 5), grad_req={n: "add" if n == "fc2_bias" else "write" for n in net.list_arguments()})
    rng = np.random.RandomState(0)
    for name in sorted(e.arg_dict):
        e.arg_dict[name][:] = rng.randn(*e.arg_dict[name].shape)
    e.arg_dict["softmax_label"][:] = np.array([0, 1, 2, 1])
    e.aux_dict["bn_moving_var"][:] = 1
    for _ in range(2):
        e.forward(is_train=True)
        e.backward()
    out = {f"d_{k}": v.asnumpy() for k, v in e.grad_dict.items()} | {k: v.asnumpy() for k, v in e.aux_dict.items()}
    out["train"] = e.outputs[0].asnumpy()
    out["use"] = e.forward(is_train=False)[0].asnumpy()
    return out


PROGRAMS = {f.__name__: f for f in (losses, batch_norm, steps, matrices, recurrent, training, executor)} | MORE | WAYS

if __name__ == "__main__":
    import mxnet

    np.savez(sys.argv[2], **PROGRAMS[sys.argv[1]](mxnet))
