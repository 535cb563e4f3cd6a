"""The training forms of operators: batch statistics, dropout masks, gradients of loss layers."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from diptych.frontends.mxnet.convert import CONVERTERS, Call
from diptych.frontends.mxnet.convert_norm import per_channel
from diptych.mxnet.ops.live import live, training

if TYPE_CHECKING:
    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value


# -- normalisation ------------------------------------------------------------------------------------------------
@training("BatchNorm", "BatchNorm_v1", "_contrib_SyncBatchNorm", "_contrib_BatchNormWithReLU")
def _batch_norm(c: Call) -> Result:
    """Normalise by the batch's own mean and variance; the moving ones follow with the backward pass."""
    if c.attrs.boolean("use_global_stats", False):
        return CONVERTERS[c.op](c)
    x, gamma, beta, moving_mean, moving_var = (c.arg(i) for i in range(5))
    axis = c.axis(c.attrs.integer("axis", 1))
    eps, momentum = c.attrs.real("eps", 1e-3), c.attrs.real("momentum", 0.9)
    if x.dtype == "f16":
        x = c.cast(x, gamma.dtype)
    others = tuple(i for i in range(x.rank) if i != axis)
    if others:
        mean = c.emit("mean", x, axes=others, keepdims=True)
        centred = c.emit("sub", x, mean)
        var = c.emit("mean", c.emit("mul", centred, centred), axes=others, keepdims=True)
    else:
        mean, centred, var = x, c.emit("sub", x, x), c.emit("sub", x, x)
    scale = c.emit("rsqrt", c.emit("add", var, eps))
    y = c.emit("mul", centred, scale)
    if c.attrs.boolean("fix_gamma", True):
        c.update(1, c.full(gamma.shape, 1.0, gamma.dtype))  # as in MXNet, gamma itself is set to one
    else:
        y = c.emit("mul", y, per_channel(c, gamma, axis, x.rank))
    y = c.emit("add", y, per_channel(c, beta, axis, x.rank))
    if c.op.endswith("WithReLU"):
        y = c.emit("relu", y)
    flat_mean, flat_var = c.reshape(mean, moving_mean.shape), c.reshape(var, moving_var.shape)
    for i, old, new in ((3, moving_mean, flat_mean), (4, moving_var, flat_var)):
        moved = c.emit("add", c.emit("mul", old, momentum), c.emit("mul", c.cast(new, old.dtype), 1.0 - momentum))
        c.update(i, moved, later=True)
    y = c.cast(y, c.x.dtype)
    third = flat_var if c.op == "_contrib_SyncBatchNorm" else c.reshape(scale, moving_var.shape)  # as in MXNet
    return y if c.outputs == 1 else (y, flat_mean, third)


# -- noise ----------------------------------------------------------------------------------------------------------
def _dropped(c: Call) -> Value:
    p = c.attrs.real("p", 0.5)
    if p <= 0:
        return c.x
    axes = {c.axis(a) for a in c.attrs.shape("axes", ())}
    shape = tuple(1 if i in axes else d for i, d in enumerate(c.x.shape))
    kept = c.emit("less", c.noise("uniform", shape), 1.0 - p)
    mask = c.emit("mul", c.cast(kept, c.x.dtype), 1.0 / (1.0 - p) if p < 1 else 0.0)
    return c.emit("mul", c.x, mask)


@training("Dropout")
def _dropout(c: Call) -> Result:
    return _dropped(c)


@live("Dropout")
def _dropout_always(c: Call) -> Result:
    return _dropped(c) if c.attrs.text("mode", "training") == "always" else c.x


@training("LeakyReLU")
def _random_slope(c: Call) -> Result:
    if c.attrs.text("act_type", "leaky") != "rrelu":
        return CONVERTERS["LeakyReLU"](c)
    low, high = c.attrs.real("lower_bound", 0.125), c.attrs.real("upper_bound", 0.334)
    slope = c.emit("add", c.emit("mul", c.noise("uniform", c.x.shape, c.x.dtype), high - low), low)
    return c.g.where(c.emit("greater", c.x, 0.0), c.x, c.emit("mul", c.x, slope))


# -- gradients of their own -------------------------------------------------------------------------------------------
def surrogate(c: Call, x: Value, y: Value, d: Value, chain: bool = False) -> Value:
    """y with the stated gradient d for x."""
    return c.emit("surrogate", x, y, d, chain=chain)


@live("BlockGrad")
def _stopped(c: Call) -> Result:
    return surrogate(c, c.x, c.x, c.full(c.x.shape, 0.0, c.x.dtype))


@live("make_loss")
def _make_loss(c: Call) -> Result:
    return surrogate(c, c.x, c.x, c.full(c.x.shape, 1.0, c.x.dtype))


@live("MakeLoss")
def _make_loss_layer(c: Call) -> Result:
    scale = c.attrs.real("grad_scale", 1.0)
    how = c.attrs.text("normalization", "null")
    d = c.full(c.x.shape, scale / (c.x.shape[0] if how == "batch" else 1), c.x.dtype)
    if how == "valid":
        count = _count(c, c.emit("greater", c.x, c.attrs.real("valid_thresh", 0.0)), c.x.dtype)
        d = c.emit("div", d, count)
    return surrogate(c, c.x, c.x, d)


@live("_contrib_gradientmultiplier")
def _multiplied(c: Call) -> Result:
    return surrogate(c, c.x, c.x, c.full(c.x.shape, c.attrs.real("scalar", 1.0), c.x.dtype), chain=True)


@live("_contrib_round_ste", "_contrib_sign_ste")
def _straight_through(c: Call) -> Result:
    y = CONVERTERS["round"](c) if "round" in c.op else c.emit("sign", c.x)
    assert not isinstance(y, tuple)
    return surrogate(c, c.x, y, c.full(c.x.shape, 1.0, c.x.dtype), chain=True)


def _count(c: Call, which: Value, dtype: str) -> Value:
    """How many are true, 1 at least."""
    total = c.emit("sum", c.cast(which, dtype), axes=tuple(range(which.rank)), keepdims=False)
    return c.emit("maximum", total, 1.0)


@live("SoftmaxOutput")
def _softmax_output(c: Call) -> Result:
    """Softmax; the gradient is that of the cross entropy with the label, whatever arrives (unless out_grad)."""
    y = CONVERTERS["SoftmaxOutput"](c)
    assert not isinstance(y, tuple)
    if len(c.inputs) < 2:
        return y
    a, label = c.attrs, c.arg(1)
    scale, norm = a.real("grad_scale", 1.0), a.text("normalization", "null")
    ignored = a.real("ignore_label", -1.0) if a.boolean("use_ignore", False) else None
    if label.shape == c.x.shape:  # the label is a distribution
        d = c.emit("mul", c.emit("sub", y, c.cast(label, y.dtype)), scale)
    else:
        multi = a.boolean("multi_output", False)
        if multi:
            n, k, rest = c.x.shape[0], c.x.shape[1], prod(c.x.shape[2:])
        elif a.boolean("preserve_shape", False):
            n, k, rest = prod(c.x.shape[:-1]), c.x.shape[-1], 1
        else:
            n, k, rest = c.x.shape[0], prod(c.x.shape[1:]), 1
        y3, label3 = c.reshape(y, (n, k, rest)), c.reshape(label, (n, 1, rest))
        smooth = a.real("smooth_alpha", 0.0)
        classes = per_channel(c, c.const(np.arange(k), label.dtype), 1, 3)
        hit = c.emit("equal", label3, classes)
        target = c.g.where(hit, c.g.scalar(1.0 - smooth, y.dtype), c.g.scalar(smooth / max(k - 1, 1), y.dtype))
        d = c.emit("sub", y3, target)
        if ignored is not None:
            kept = c.emit("not_equal", label3, ignored if label.dtype[0] == "f" else int(ignored))
            d = c.emit("mul", d, c.cast(kept, y.dtype))
        if norm == "batch":
            scale /= label.shape[0] if multi else label3.shape[0]
        if multi and norm != "valid":
            scale /= rest
        d = c.emit("mul", d, scale)
        if norm == "valid":
            unwanted = a.real("ignore_label", -1.0)
            valid = c.emit("not_equal", label, unwanted if label.dtype[0] == "f" else int(unwanted))
            d = c.emit("div", d, _count(c, valid, y.dtype))
        d = c.reshape(d, c.x.shape)
    return surrogate(c, c.x, y, d, chain=a.boolean("out_grad", False))


def _regression(op: str) -> None:
    @live(op)
    def convert(c: Call) -> Result:
        y = CONVERTERS[op](c)
        assert not isinstance(y, tuple)
        if len(c.inputs) < 2:
            return y
        label = c.reshape(c.cast(c.arg(1), y.dtype), y.shape)
        d = c.emit("sub", y, label)
        if op == "MAERegressionOutput":
            d = c.emit("sign", d)
        per_row = max(1, label.type.size // c.arg(1).shape[0])
        return surrogate(c, c.x, y, c.emit("mul", d, c.attrs.real("grad_scale", 1.0) / per_row))


for _op in ("LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput"):
    _regression(_op)


@live("SVMOutput")
def _svm_output(c: Call) -> Result:
    if len(c.inputs) < 2:
        return c.x
    margin, weight = c.attrs.real("margin", 1.0), c.attrs.real("regularization_coefficient", 1.0)
    classes = c.const(np.arange(c.x.shape[1]), c.arg(1).dtype)
    hit = c.emit("equal", c.reshape(c.arg(1), (c.x.shape[0], 1)), c.reshape(classes, (1, -1)))
    side = c.g.where(hit, c.g.scalar(-1.0, c.x.dtype), c.g.scalar(1.0, c.x.dtype))
    room = c.emit("add", c.emit("mul", c.x, side), margin)  # margin - x for the label's class, margin + x for others
    if c.attrs.boolean("use_linear", False):
        d = c.emit("mul", side, c.cast(c.emit("greater", room, 0.0), c.x.dtype))
    else:
        d = c.emit("mul", side, c.emit("mul", c.emit("relu", room), 2.0))
    return surrogate(c, c.x, c.x, c.emit("mul", d, weight))


@live("IdentityAttachKLSparseReg")
def _kl_sparse(c: Call) -> Result:
    raise c.fail("is not supported in running programs", "add the sparseness penalty to the loss")
