"""Activations, normalisation and softmax."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.frontends.mxnet.convert import Call, converts

if TYPE_CHECKING:
    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value

_ACTIVATIONS = {"relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh", "softrelu": "softplus", "softsign": "softsign",
                "log_sigmoid": "log_sigmoid", "mish": "mish"}  # fmt: skip


@converts("Activation")
def _activation(c: Call) -> Result:
    kind = c.attrs.text("act_type")
    if kind not in _ACTIVATIONS:
        raise c.fail(f"act_type={kind!r} is unknown", f"known: {', '.join(_ACTIVATIONS)}")
    return c.emit(_ACTIVATIONS[kind], c.x)


def per_channel(c: Call, v: Value, axis: int, rank: int) -> Value:
    """A vector reshaped to broadcast along one axis of a rank-`rank` tensor."""
    return c.reshape(v, tuple(v.type.size if i == axis else 1 for i in range(rank)))


@converts("LeakyReLU")
def _leaky_relu(c: Call) -> Result:
    x, kind = c.x, c.attrs.text("act_type", "leaky")
    slope = c.attrs.real("slope", 0.25)
    if kind == "leaky":
        return c.emit("leaky_relu", x, slope=slope)
    if kind == "elu":
        return c.emit("elu", x, alpha=slope)
    if kind == "selu":
        return c.emit("selu", x)
    if kind == "gelu":
        return c.emit("gelu", x)
    if kind == "rrelu":  # at inference the random slope is its mean
        low, high = c.attrs.real("lower_bound", 0.125), c.attrs.real("upper_bound", 0.334)
        return c.emit("leaky_relu", x, slope=(low + high) / 2)
    if kind != "prelu":
        raise c.fail(f"act_type={kind!r} is unknown", "known: leaky, prelu, elu, selu, gelu, rrelu")
    gamma = c.arg(1)
    if gamma.type.size == 1:
        gamma = c.reshape(gamma, (1,) * x.rank)
    elif gamma.rank == 1:  # one slope per channel
        gamma = per_channel(c, gamma, min(1, x.rank - 1), x.rank)
    elif gamma.rank < x.rank:  # one slope per image and channel
        gamma = c.reshape(gamma, (*gamma.shape, *(1,) * (x.rank - gamma.rank)))
    return c.emit("prelu", x, gamma)


# -- normalisation ------------------------------------------------------------------------------------------------
@converts("BatchNorm", "BatchNorm_v1", "_contrib_SyncBatchNorm")
def _batch_norm(c: Call) -> Result:
    x, gamma, beta, mean, var = (c.arg(i) for i in range(5))
    axis = c.axis(c.attrs.integer("axis", 1))
    eps = c.attrs.real("eps", 1e-3)
    if c.attrs.boolean("fix_gamma", True):  # whatever gamma the file holds is not used
        gamma = c.const(np.ones(gamma.shape), gamma.dtype)
    if x.dtype == "f16":  # statistics and weights stay f32 in half-precision models
        x = c.cast(x, mean.dtype)
    y = c.cast(c.emit("batch_norm", x, gamma, beta, mean, var, eps=eps, axis=axis), c.x.dtype)
    if c.outputs == 1:
        return y
    return y, mean, c.emit("rsqrt", c.emit("add", var, eps))  # the third result is 1/std, its name says var


@converts("_contrib_BatchNormWithReLU")
def _batch_norm_relu(c: Call) -> Result:
    y = _batch_norm(c)
    return c.emit("relu", y[0] if isinstance(y, tuple) else y)


@converts("LayerNorm")
def _layer_norm(c: Call) -> Result:
    axis = c.axis(c.attrs.integer("axis", -1))
    eps = c.attrs.real("eps", 1e-5)
    if axis == c.x.rank - 1:
        y = c.emit("layer_norm", c.x, c.arg(1), c.arg(2), axis=-1, eps=eps)
    else:
        perm = [i for i in range(c.x.rank) if i != axis] + [axis]
        y = c.emit("layer_norm", c.transpose(c.x, perm), c.arg(1), c.arg(2), axis=-1, eps=eps)
        y = c.transpose(y, [perm.index(i) for i in range(c.x.rank)])
    if c.outputs == 1:
        return y
    var = c.emit("var", c.x, axes=(axis,), keepdims=True)
    return y, c.g.mean(c.x, axis, keepdims=True), c.emit("sqrt", c.emit("add", var, eps))


@converts("InstanceNorm")
def _instance_norm(c: Call) -> Result:
    return c.emit("instance_norm", c.x, c.arg(1), c.arg(2), eps=c.attrs.real("eps", 1e-3))


@converts("GroupNorm")
def _group_norm(c: Call) -> Result:
    groups = c.attrs.integer("num_groups", 1)
    channels = c.x.shape[1]

    def spread(v: Value) -> Value:  # MXNet 1.x keeps one gamma and beta per group
        if v.shape == (channels,):
            return v
        wide = c.g.broadcast_to(c.reshape(v, (groups, 1)), (groups, channels // groups))
        return c.reshape(wide, (channels,))

    eps = c.attrs.real("eps", 1e-5)
    y = c.emit("group_norm", c.x, spread(c.arg(1)), spread(c.arg(2)), groups=groups, eps=eps)
    if c.outputs == 1:
        return y
    rows = c.reshape(c.x, (c.x.shape[0], groups, -1))
    var = c.emit("var", rows, axes=(2,), keepdims=False)
    return y, c.emit("mean", rows, axes=(2,), keepdims=False), c.emit("sqrt", c.emit("add", var, eps))


@converts("L2Normalization")
def _l2_normalization(c: Call) -> Result:
    mode = c.attrs.text("mode", "instance", ("instance", "channel", "spatial"))
    axes = {"instance": tuple(range(1, c.x.rank)), "channel": (1,), "spatial": tuple(range(2, c.x.rank))}[mode]
    return c.emit("l2_normalize", c.x, axes=axes, eps=c.attrs.real("eps", 1e-10), mode="add")


@converts("LRN")
def _lrn(c: Call) -> Result:
    a = c.attrs
    return c.emit("lrn", c.x, size=a.integer("nsize"), alpha=a.real("alpha", 1e-4), beta=a.real("beta", 0.75),
                  k=a.real("knorm", 2.0))  # fmt: skip


# -- softmax ------------------------------------------------------------------------------------------------------
def _rows(c: Call, x: Value) -> Value:
    """Softmax over everything but the first axis."""
    flat = c.reshape(x, (x.shape[0], prod(x.shape[1:])))
    return c.reshape(c.emit("softmax", flat, axis=-1), x.shape)


@converts("SoftmaxOutput")
def _softmax_output(c: Call) -> Result:
    if c.attrs.boolean("multi_output", False):
        return c.emit("softmax", c.x, axis=1)
    if c.attrs.boolean("preserve_shape", False):
        return c.emit("softmax", c.x, axis=-1)
    return _rows(c, c.x)


@converts("SoftmaxActivation")
def _softmax_activation(c: Call) -> Result:
    if c.attrs.text("mode", "instance", ("instance", "channel")) == "channel":
        return c.emit("softmax", c.x, axis=1)
    return c.emit("softmax", c.x, axis=-1)  # libmxnet flattens to rows of the last axis, whatever its manual says


def _softmax(c: Call, op: str, sign: float) -> Value:
    axis = c.axis(c.attrs.integer("axis", -1))
    temperature = c.attrs.optional_real("temperature") or 1.0
    x = c.cast(c.x, c.dtype("dtype", c.x.dtype))
    if sign != temperature:
        x = c.emit("mul", x, sign / temperature)
    if not c.attrs.boolean("use_length", False):
        return c.emit(op, x, axis=axis)
    if op != "softmax":
        raise c.fail("use_length is supported for softmax only", "mask the input before it")
    length = c.g.expand_dims(c.indices(c.arg(1)), axis)
    steps = per_channel(c, c.const(np.arange(x.shape[axis]), length.dtype), axis, x.rank)
    inside = c.emit("less", steps, length)
    y = c.emit("softmax", c.g.where(inside, x, c.g.scalar(float("-inf"), x.dtype)), axis=axis)
    return c.g.where(inside, y, c.g.scalar(0.0, x.dtype))


@converts("softmax")
def _softmax_op(c: Call) -> Result:
    return _softmax(c, "softmax", 1.0)


@converts("log_softmax")
def _log_softmax(c: Call) -> Result:
    return _softmax(c, "log_softmax", 1.0)


@converts("softmin")
def _softmin(c: Call) -> Result:
    return _softmax(c, "softmax", -1.0)
