"""Optimizer steps on float32 weights as native code: one pass over weight, gradient and states, in place.

The arithmetic is that of `update.py`, operation by operation.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.ir import TensorType
from diptych.mxnet.profiling import recorder
from diptych.ops.build import Builder
from diptych.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from diptych.ir import Array, Value

__all__ = ["in_place"]

_FEW = 64  # elements: below this NumPy is as quick

Values = list["Value"]
Numbers = dict[str, "Value"]


class _Rule:
    """`numbers(attrs)`: the numbers of a step by name; `step(g, arrays, numbers, scaled)`: the new arrays, weight first."""

    def __init__(self, states: int, numbers: Mapping[str, float | None], step: Callable[..., Values], decay_first: bool = False) -> None:
        self.states, self.numbers, self.step, self.decay_first = states, numbers, step, decay_first


def _sgd(g: Builder, w: Value, d: Value, n: Numbers) -> Values:
    return [g.sub(w, g.mul(n["lr"], g.add(d, g.mul(n["wd"], w))))]


def _momentum(g: Builder, w: Value, d: Value, n: Numbers, mom: Value) -> Values:
    mom = g.sub(g.mul(n["momentum"], mom), g.mul(n["lr"], g.add(d, g.mul(n["wd"], w))))
    return [g.add(w, mom), mom]


def _nag(g: Builder, w: Value, d: Value, n: Numbers, mom: Value) -> Values:
    m, lr, wd = n["momentum"], n["lr"], n["wd"]
    mom = g.mul(mom, m)
    ahead = g.mul(g.add(m, 1.0), g.sub(mom, g.mul(lr, g.add(d, g.mul(wd, w)))))
    new = g.add(g.sub(w, mom), ahead)
    return [new, g.sub(mom, g.mul(lr, g.add(d, g.mul(wd, new))))]


def _adam(g: Builder, w: Value, d: Value, n: Numbers, mean: Value, var: Value) -> Values:
    b1, b2 = n["beta1"], n["beta2"]
    mean = g.add(g.mul(b1, mean), g.mul(g.sub(1.0, b1), d))
    var = g.add(g.mul(b2, var), g.mul(g.mul(g.sub(1.0, b2), d), d))
    return [g.sub(w, g.div(g.mul(n["lr"], mean), g.add(g.sqrt(var), n["epsilon"]))), mean, var]


def _rmsprop(g: Builder, w: Value, d: Value, n: Numbers, mean: Value) -> Values:
    keep = n["gamma1"]
    mean = g.add(g.mul(g.mul(g.sub(1.0, keep), d), d), g.mul(keep, mean))
    return [g.sub(w, g.div(g.mul(n["lr"], d), g.sqrt(g.add(mean, n["epsilon"])))), mean]


def _adagrad(g: Builder, w: Value, d: Value, n: Numbers, history: Value) -> Values:
    history = g.add(history, g.mul(d, d))
    step = g.add(g.div(d, g.sqrt(g.add(history, n["epsilon"]))), g.mul(n["wd"], w))
    return [g.sub(w, g.mul(n["lr"], step)), history]


_COMMON: dict[str, float | None] = {"lr": None, "wd": 0.0}
_RULES = {
    "sgd_update": _Rule(0, _COMMON, _sgd),
    "sgd_mom_update": _Rule(1, {**_COMMON, "momentum": 0.0}, _momentum),
    "nag_mom_update": _Rule(1, {**_COMMON, "momentum": 0.0}, _nag),
    "adam_update": _Rule(2, {**_COMMON, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}, _adam, decay_first=True),
    "rmsprop_update": _Rule(1, {**_COMMON, "gamma1": 0.95, "epsilon": 1e-8}, _rmsprop, decay_first=True),
    "_sparse_adagrad_update": _Rule(1, {**_COMMON, "epsilon": 1e-7}, _adagrad),
}
_TAKEN = {"rescale_grad", "clip_gradient", "lazy_update"}


@cache
def _stream(op: str, clip: bool) -> Stream:
    rule = _RULES[op]
    g = Builder(op)
    arrays = [g.input(name, TensorType((16,))) for name in ("w", "g", *(f"s{i}" for i in range(rule.states)))]
    scalars = ["rescale_grad", *(("low", "high") if clip else ()), *rule.numbers]
    n = {name: g.input(name, TensorType(())) for name in scalars}
    w, d, *states = arrays
    d = g.mul(d, n["rescale_grad"])
    if rule.decay_first:
        d = g.add(d, g.mul(n["wd"], w))
    if clip:
        d = g.minimum(g.maximum(d, n["low"]), n["high"])
    made = rule.step(g, w, d, n, *states)
    return Stream(g.finish({f"y{i}": v for i, v in enumerate(made)}))


def in_place(op: str, arrays: Sequence[Array], attrs: Mapping[str, Any]) -> bool:
    """Carry out a step on [weight, gradient, states ...]; False when it is not one of those that are done here."""
    rule = _RULES.get(op)
    if rule is None or len(arrays) != 2 + rule.states or not set(attrs) <= _TAKEN | set(rule.numbers):
        return False
    size = arrays[0].size
    if size < _FEW or any(a.dtype != np.float32 or a.size != size or not a.flags.c_contiguous for a in arrays):
        return False
    limit = float(attrs.get("clip_gradient", -1.0))
    numbers = [float(attrs.get("rescale_grad", 1.0)), *((-limit, limit) if limit >= 0 else ())]
    for name, default in rule.numbers.items():
        if name not in attrs and default is None:
            return False
        numbers.append(float(attrs.get(name, default)))
    weight, grad, *states = arrays
    with recorder.timed(op):
        _stream(op, limit >= 0)([weight, grad, *states], numbers, [weight, *states])
    return True
