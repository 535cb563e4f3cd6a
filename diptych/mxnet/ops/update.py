"""Optimizer steps. They run on arrays in place: rates change with every call, so a graph per call would not pay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet.ops.live import host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.attributes import Attributes
    from diptych.ir import Array


def _f(value: float) -> np.float32:
    return np.float32(value)


def _clipped(a: Attributes, g: Array, key: str = "clip_gradient") -> Array:
    limit = a.real(key, -1.0)
    return np.clip(g, _f(-limit), _f(limit)) if limit >= 0 else g


def _scaled(a: Attributes, g: Array, w: Array, wd_inside: bool = False) -> Array:
    """The gradient rescaled and clipped; with weight decay before clipping where the operator has it so."""
    d: Array = g * _f(a.real("rescale_grad", 1.0))
    if wd_inside:
        d = d + _f(a.real("wd", 0.0)) * w
    return _clipped(a, d)


def _wide(g: Array) -> Array:
    return g.astype(np.float32)


# -- SGD and its relatives --------------------------------------------------------------------------------------------
def _sgd(a: Attributes, w: Array, g: Array, lr: float, wd: float) -> Array:
    moved: Array = w - _f(lr) * (_scaled(a, g, w) + _f(wd) * w)
    return moved


def _momentum(a: Attributes, w: Array, g: Array, mom: Array, lr: float, wd: float) -> Array:
    mom[...] = _f(a.real("momentum", 0.0)) * mom - _f(lr) * (_scaled(a, g, w) + _f(wd) * w)
    moved: Array = w + mom
    return moved


@host("sgd_update")
def sgd_update(a: Attributes, w: Array, g: Array) -> Array:
    return _sgd(a, w, g, a.real("lr"), a.real("wd", 0.0)).astype(w.dtype, copy=False)


@host("sgd_mom_update")
def sgd_mom_update(a: Attributes, w: Array, g: Array, mom: Array) -> Array:
    return _momentum(a, w, g, mom, a.real("lr"), a.real("wd", 0.0)).astype(w.dtype, copy=False)


@host("mp_sgd_update")
def mp_sgd_update(a: Attributes, w: Array, g: Array, w32: Array) -> Array:
    w32[...] = _sgd(a, w32, _wide(g), a.real("lr"), a.real("wd", 0.0))
    return w32.astype(w.dtype)


@host("mp_sgd_mom_update")
def mp_sgd_mom_update(a: Attributes, w: Array, g: Array, mom: Array, w32: Array) -> Array:
    w32[...] = _momentum(a, w32, _wide(g), mom, a.real("lr"), a.real("wd", 0.0))
    return w32.astype(w.dtype)


def _nag(a: Attributes, w: Array, g: Array, mom: Array) -> Array:
    m, lr = _f(a.real("momentum", 0.0)), _f(a.real("lr"))
    d, wd = _scaled(a, g, w), _f(a.real("wd", 0.0))
    mom *= m
    new: Array = w - mom + (m + 1) * (mom - lr * (d + wd * w))
    mom -= lr * (d + wd * new)  # libmxnet reads the weight it has just written
    return new


@host("nag_mom_update")
def nag_mom_update(a: Attributes, w: Array, g: Array, mom: Array) -> Array:
    return _nag(a, w, g, mom).astype(w.dtype, copy=False)


@host("mp_nag_mom_update")
def mp_nag_mom_update(a: Attributes, w: Array, g: Array, mom: Array, w32: Array) -> Array:
    w32[...] = _nag(a, w32, _wide(g), mom)
    return w32.astype(w.dtype)


@host("signsgd_update")
def signsgd_update(a: Attributes, w: Array, g: Array) -> Array:
    lr, wd = _f(a.real("lr")), _f(a.real("wd", 0.0))
    return (1 - lr * wd) * w - lr * np.sign(g)


@host("signum_update")
def signum_update(a: Attributes, w: Array, g: Array, mom: Array) -> Array:
    lr, m = _f(a.real("lr")), _f(a.real("momentum", 0.0))
    mom[...] = m * mom - (1 - m) * (_scaled(a, g, w) + _f(a.real("wd", 0.0)) * w)
    return (1 - lr * _f(a.real("wd_lh", 0.0))) * w + lr * np.sign(mom)


# -- the adaptive ones --------------------------------------------------------------------------------------------------
@host("adam_update")
def adam_update(a: Attributes, w: Array, g: Array, mean: Array, var: Array) -> Array:
    d = _scaled(a, g, w, wd_inside=True)
    b1, b2 = _f(a.real("beta1", 0.9)), _f(a.real("beta2", 0.999))
    mean[...] = b1 * mean + (1 - b1) * d
    var[...] = b2 * var + (1 - b2) * d * d
    return w - _f(a.real("lr")) * mean / (np.sqrt(var) + _f(a.real("epsilon", 1e-8)))


def _adamw(a: Attributes, w: Array, g: Array, mean: Array, var: Array, rescale: float, lr: float, wd: float,
           eta: float) -> Array:  # fmt: skip
    d = _clipped(a, g * _f(rescale))
    b1, b2 = _f(a.real("beta1", 0.9)), _f(a.real("beta2", 0.999))
    mean[...] = b1 * mean + (1 - b1) * d
    var[...] = b2 * var + (1 - b2) * d * d
    return w - _f(eta) * (_f(lr) * mean / (np.sqrt(var) + _f(a.real("epsilon", 1e-8))) + _f(wd) * w)


def _usable(rescale: Array) -> float | None:
    """The scale of mixed-precision training; None (skip the step) when it is 0, infinite or not a number."""
    value = float(rescale.reshape(-1)[0])
    return value if np.isfinite(value) and value != 0 else None


@host("_adamw_update")
def adamw_update(a: Attributes, w: Array, g: Array, mean: Array, var: Array, rescale: Array) -> Array:
    scale = _usable(rescale)
    if scale is None:
        return w.copy()
    return _adamw(a, w, g, mean, var, scale, a.real("lr"), a.real("wd", 0.0), a.real("eta"))


@host("_mp_adamw_update")
def mp_adamw_update(a: Attributes, w: Array, g: Array, mean: Array, var: Array, w32: Array, rescale: Array) -> Array:
    scale = _usable(rescale)
    if scale is not None:
        w32[...] = _adamw(a, w32, _wide(g), mean, var, scale, a.real("lr"), a.real("wd", 0.0), a.real("eta"))
    return w32.astype(w.dtype)


@host("ftrl_update")
def ftrl_update(a: Attributes, w: Array, g: Array, z: Array, n: Array) -> Array:
    lr, beta, lamda = _f(a.real("lr")), _f(a.real("beta", 1.0)), _f(a.real("lamda1", 0.01))
    d = _scaled(a, g, w)
    z[...] += d - (np.sqrt(n + d * d) - np.sqrt(n)) * w / lr
    n[...] += d * d
    return (np.sign(z) * lamda - z) / ((beta + np.sqrt(n)) / lr + _f(a.real("wd", 0.0))) * (np.abs(z) > lamda)


@host("ftml_update")
def ftml_update(a: Attributes, w: Array, g: Array, d: Array, v: Array, z: Array) -> Array:
    b1, b2, t = a.real("beta1", 0.6), a.real("beta2", 0.999), a.integer("t")
    lr, eps = a.real("lr"), _f(a.real("epsilon", 1e-8))
    grad = _clipped(a, g * _f(a.real("rescale_grad", 1.0)) + _f(a.real("wd", 0.0)) * w, "clip_grad")
    v[...] = _f(b2) * v + _f(1 - b2) * grad * grad
    new = _f((1 - b1**t) / lr) * (np.sqrt(v / _f(1 - b2**t)) + eps)
    z[...] = _f(b1) * z + _f(1 - b1) * grad - (new - _f(b1) * d) * w
    d[...] = new
    return -z / d


@host("rmsprop_update")
def rmsprop_update(a: Attributes, w: Array, g: Array, n: Array) -> Array:
    d = _scaled(a, g, w, wd_inside=True)
    keep = _f(a.real("gamma1", 0.95))
    n[...] = (1 - keep) * d * d + keep * n
    return _clipped(a, w - _f(a.real("lr")) * d / np.sqrt(n + _f(a.real("epsilon", 1e-8))), "clip_weights")


@host("rmspropalex_update")
def rmspropalex_update(a: Attributes, w: Array, g: Array, n: Array, mean: Array, delta: Array) -> Array:
    d = _scaled(a, g, w, wd_inside=True)
    keep, push = _f(a.real("gamma1", 0.95)), _f(a.real("gamma2", 0.9))
    n[...] = (1 - keep) * d * d + keep * n
    mean[...] = (1 - keep) * d + keep * mean
    delta[...] = push * delta - _f(a.real("lr")) * d / np.sqrt(n - mean * mean + _f(a.real("epsilon", 1e-8)))
    return _clipped(a, w + delta, "clip_weights")


@host("_sparse_adagrad_update")
def adagrad_update(a: Attributes, w: Array, g: Array, history: Array) -> Array:
    d = _scaled(a, g, w)
    history[...] += d * d
    step = d / np.sqrt(history + _f(a.real("epsilon", 1e-7))) + _f(a.real("wd", 0.0)) * w
    return w - _f(a.real("lr")) * step


@host("_contrib_group_adagrad_update")
def group_adagrad_update(a: Attributes, w: Array, g: Array, history: Array) -> Array:
    d = _scaled(a, g, w)
    history[...] += np.mean(d * d, axis=tuple(range(1, d.ndim)), keepdims=True).reshape(history.shape)
    wide = history.reshape(-1, *(1,) * (d.ndim - 1))
    return w - _f(a.real("lr")) * d / np.sqrt(wide + _f(a.real("epsilon", 1e-5)))


# -- LAMB ---------------------------------------------------------------------------------------------------------------
def _lamb_direction(a: Attributes, w: Array, g: Array, mean: Array, var: Array, t: int, wd: float) -> Array:
    b1, b2 = a.real("beta1", 0.9), a.real("beta2", 0.999)
    d = _scaled(a, g, w)
    mean[...] = _f(b1) * mean + _f(1 - b1) * d
    var[...] = _f(b2) * var + _f(1 - b2) * d * d
    m, v = mean, var
    if a.boolean("bias_correction", True):
        m, v = mean / _f(1 - b1**t), var / _f(1 - b2**t)
    return m / (np.sqrt(v) + _f(a.real("epsilon", 1e-6))) + _f(wd) * w


def _lamb_step(a: Attributes, w: Array, step: Array, r1: float, r2: float, lr: float) -> Array:
    low, high = a.real("lower_bound", -1.0), a.real("upper_bound", -1.0)
    r1 = max(r1, low) if low >= 0 else r1
    r1 = min(r1, high) if high >= 0 else r1
    ratio = 1.0 if r1 == 0 or r2 == 0 else r1 / r2
    return w - _f(lr * ratio) * step


@host("lamb_update_phase1")
def lamb_phase1(a: Attributes, w: Array, g: Array, mean: Array, var: Array) -> Array:
    return _lamb_direction(a, w, g, mean, var, a.integer("t"), a.real("wd"))


@host("lamb_update_phase2")
def lamb_phase2(a: Attributes, w: Array, step: Array, r1: Array, r2: Array) -> Array:
    return _lamb_step(a, w, step, float(r1.reshape(-1)[0]), float(r2.reshape(-1)[0]), a.real("lr"))


@host("mp_lamb_update_phase1")
def mp_lamb_phase1(a: Attributes, w: Array, g: Array, mean: Array, var: Array, w32: Array) -> Array:
    return _lamb_direction(a, w32, _wide(g), mean, var, a.integer("t"), a.real("wd"))


@host("mp_lamb_update_phase2")
def mp_lamb_phase2(a: Attributes, w: Array, step: Array, r1: Array, r2: Array, w32: Array) -> Array:
    w32[...] = _lamb_step(a, w32, step, float(r1.reshape(-1)[0]), float(r2.reshape(-1)[0]), a.real("lr"))
    return w32.astype(w.dtype)


# -- several weights in one call ------------------------------------------------------------------------------------------
def _grouped(arrays: Sequence[Array], size: int, count: int) -> list[tuple[Array, ...]]:
    return [tuple(arrays[i * size : (i + 1) * size]) for i in range(count)]


def _multi(name: str, size: int, step: Any, preloaded: bool) -> None:
    def run(a: Attributes, *arrays: Array) -> list[Array]:
        count = a.integer("num_weights", 1)
        if preloaded:
            rates, decays = arrays[-2].reshape(-1), arrays[-1].reshape(-1)
        else:
            rates, decays = np.array(a.reals("lrs")), np.array(a.reals("wds"))
        return [step(a, float(lr), float(wd), *group)
                for group, lr, wd in zip(_grouped(arrays, size, count), rates, decays)]  # fmt: skip

    host(name)(run)


def _mp_sgd(a: Attributes, lr: float, wd: float, w: Array, g: Array, w32: Array) -> Array:
    w32[...] = _sgd(a, w32, _wide(g), lr, wd)
    return w32.astype(w.dtype)


def _mp_momentum(a: Attributes, lr: float, wd: float, w: Array, g: Array, mom: Array, w32: Array) -> Array:
    w32[...] = _momentum(a, w32, _wide(g), mom, lr, wd)
    return w32.astype(w.dtype)


for _prefix, _loaded in (("", False), ("preloaded_", True)):
    _multi(f"{_prefix}multi_sgd_update", 2, lambda a, lr, wd, w, g: _sgd(a, w, g, lr, wd), _loaded)
    _multi(f"{_prefix}multi_sgd_mom_update", 3, lambda a, lr, wd, w, g, m: _momentum(a, w, g, m, lr, wd), _loaded)
    _multi(f"{_prefix}multi_mp_sgd_update", 3, _mp_sgd, _loaded)
    _multi(f"{_prefix}multi_mp_sgd_mom_update", 4, _mp_momentum, _loaded)


def _multi_adamw(mixed: bool) -> Any:
    size = 5 if mixed else 4

    def run(a: Attributes, *arrays: Array) -> list[Array]:
        count, scale = a.integer("num_weights", 1), _usable(arrays[-1])
        out = []
        for group, lr, wd, eta in zip(_grouped(arrays, size, count), a.reals("lrs"), a.reals("wds"), a.reals("etas")):
            w, target = group[0], group[4] if mixed else group[0]
            if scale is None:
                out.append(w.copy())
                continue
            new = _adamw(a, target, group[1].astype(target.dtype), group[2], group[3], scale, lr, wd, eta)
            if mixed:
                target[...] = new
            out.append(new.astype(w.dtype))
        return out

    return run


host("_multi_adamw_update")(_multi_adamw(False))
host("_multi_mp_adamw_update")(_multi_adamw(True))


def _multi_lamb(mixed: bool) -> Any:
    size = 5 if mixed else 4

    def run(a: Attributes, *arrays: Array) -> list[Array]:
        out = []
        count = a.integer("num_tensors")
        for group, lr, wd, t in zip(_grouped(arrays, size, count), a.reals("learning_rates"), a.reals("wds"),
                                    a.shape("step_count")):  # fmt: skip
            w, target = group[0], group[4] if mixed else group[0]
            step = _lamb_direction(a, target, group[1].astype(target.dtype), group[2], group[3], t, wd)
            new = _lamb_step(a, target, step, float(np.linalg.norm(target)), float(np.linalg.norm(step)), lr)
            if mixed:
                target[...] = new
            out.append(new.astype(w.dtype))
        return out

    return run


host("_multi_lamb_update")(_multi_lamb(False))
host("_multi_mp_lamb_update")(_multi_lamb(True))


@host("multi_sum_sq")
def multi_sum_sq(a: Attributes, *arrays: Array) -> Array:
    return np.array([np.sum(np.square(x, dtype=np.float32)) for x in arrays], np.float32)


@host("multi_lars")
def multi_lars(a: Attributes, lrs: Array, weights: Array, grads: Array, wds: Array) -> Array:
    eta, eps, scale = a.real("eta"), a.real("eps"), a.real("rescale_grad", 1.0)
    w, g = np.sqrt(weights), np.sqrt(grads) * scale
    with np.errstate(all="ignore"):
        ratio = np.where((w > 0) & (g > 0), eta * w / (g + wds * w + eps), 1.0)
    return (lrs * ratio).astype(lrs.dtype)


@host("reset_arrays")
def reset_arrays(a: Attributes, *arrays: Array) -> list[Array]:
    for x in arrays:
        x[...] = 0
    return []


@host("multi_all_finite")
def multi_all_finite(a: Attributes, *arrays: Array) -> Array:
    return np.array([float(all(np.isfinite(x).all() for x in arrays))], np.float32)
