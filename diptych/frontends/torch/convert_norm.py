"""Normalisation layers, in inference form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.frontends.torch.lower import Context, converts, refuse
from diptych.ir import TensorType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.ir import Value

__all__: list[str] = []


def _or_full(c: Context, x: Value | None, size: int, number: float, dtype: str) -> Value:
    return x if x is not None else c.full(number, TensorType((size,), dtype))


@converts("aten.layer_norm.default")
def _layer_norm(c: Context, x: Value, normalized: Sequence[int], weight: Value | None = None, bias: Value | None = None,
                eps: float = 1e-5, cudnn: bool = True) -> Value:  # fmt: skip
    axis = x.rank - len(normalized)
    if weight is None and bias is None:
        return c.emit("layer_norm", x, axis=axis, eps=float(eps))
    type = TensorType(tuple(normalized), x.dtype)
    gamma = weight if weight is not None else c.full(1.0, type)
    beta = bias if bias is not None else c.full(0.0, type)
    return c.emit("layer_norm", x, gamma, beta, axis=axis, eps=float(eps))


@converts("aten.native_layer_norm.default")
def _native_layer_norm(c: Context, x: Value, normalized: Sequence[int], weight: Value | None, bias: Value | None,
                       eps: float) -> tuple[Value, Value, Value]:  # fmt: skip
    axes = tuple(range(x.rank - len(normalized), x.rank))
    y = _layer_norm(c, x, normalized, weight, bias, eps)
    variance = c.emit("var", x, axes=axes, keepdims=True, ddof=0)
    return y, c.g.mean(x, axes, True), c.g.rsqrt(c.g.add(variance, float(eps)))


@converts("aten.rms_norm.default")
def _rms_norm(
    c: Context, x: Value, normalized: Sequence[int], weight: Value | None = None, eps: float | None = None
) -> Value:
    value = float(eps) if eps is not None else float(np.finfo(np.float64 if x.dtype == "f64" else np.float32).eps)
    if len(normalized) != 1:
        rows = x.shape[: x.rank - len(normalized)]
        flat = c.g.reshape(x, (*rows, int(np.prod(normalized))))
        gamma = None if weight is None else c.g.reshape(weight, (flat.shape[-1],))
        return c.g.reshape(_rms_norm(c, flat, flat.shape[-1:], gamma, value), x.shape)
    return c.emit("rms_norm", x, _or_full(c, weight, x.shape[-1], 1.0, x.dtype), eps=value)


def _batch(c: Context, x: Value, weight: Value | None, bias: Value | None, mean: Value | None, var: Value | None,
           eps: float) -> Value:  # fmt: skip
    if mean is None or var is None:
        axes = (0, *range(2, x.rank))
        mean = c.g.mean(x, axes)
        var = c.emit("var", x, axes=axes, keepdims=False, ddof=0)
    depth = x.shape[1]
    gamma, beta = _or_full(c, weight, depth, 1.0, x.dtype), _or_full(c, bias, depth, 0.0, x.dtype)
    return c.emit("batch_norm", x, gamma, beta, mean, var, eps=float(eps), axis=1)


@converts("aten.batch_norm.default")
def _batch_norm(c: Context, x: Value, weight: Value | None, bias: Value | None, mean: Value | None, var: Value | None,
                training: bool, momentum: float, eps: float, cudnn: bool = True) -> Value:  # fmt: skip
    if training and mean is not None:
        refuse("this batch norm updates its statistics; call model.eval() before exporting")
    return _batch(c, x, weight, bias, mean, var, eps)


@converts("aten._native_batch_norm_legit_no_training.default")
def _native_batch_norm(c: Context, x: Value, weight: Value | None, bias: Value | None, mean: Value, var: Value,
                       momentum: float, eps: float) -> tuple[Value, Value, Value]:  # fmt: skip
    empty = c.g.constant(np.zeros(0, np.float32))
    return _batch(c, x, weight, bias, mean, var, eps), empty, empty


@converts("aten._native_batch_norm_legit.no_stats")
def _batch_norm_of_batch(c: Context, x: Value, weight: Value | None, bias: Value | None, training: bool, momentum: float,
                         eps: float) -> tuple[Value, Value, Value]:  # fmt: skip
    axes = (0, *range(2, x.rank))
    mean = c.g.mean(x, axes)
    var = c.emit("var", x, axes=axes, keepdims=False, ddof=0)
    return _batch(c, x, weight, bias, mean, var, eps), mean, c.g.rsqrt(c.g.add(var, float(eps)))


@converts("aten._native_batch_norm_legit_functional.default", "aten._native_batch_norm_legit.default")
def _batch_norm_functional(c: Context, x: Value, weight: Value | None, bias: Value | None, mean: Value, var: Value,
                           training: bool, momentum: float, eps: float) -> tuple[Any, ...]:  # fmt: skip
    if training:
        refuse("this batch norm updates its statistics; call model.eval() before exporting")
    empty = c.g.constant(np.zeros(0, np.float32))
    return (_batch(c, x, weight, bias, mean, var, eps), empty, empty, mean, var)[: len(c.out)]


@converts("aten.instance_norm.default")
def _instance_norm(c: Context, x: Value, weight: Value | None, bias: Value | None, mean: Value | None,
                   var: Value | None, use_input_stats: bool, momentum: float, eps: float, cudnn: bool = True) -> Value:  # fmt: skip
    if not use_input_stats:
        return _batch(c, x, weight, bias, mean, var, eps)
    if mean is not None:
        refuse("this instance norm tracks statistics; call model.eval() before exporting")
    depth = x.shape[1]
    gamma, beta = _or_full(c, weight, depth, 1.0, x.dtype), _or_full(c, bias, depth, 0.0, x.dtype)
    return c.emit("instance_norm", x, gamma, beta, eps=float(eps))


@converts("aten.group_norm.default")
def _group_norm(c: Context, x: Value, groups: int, weight: Value | None = None, bias: Value | None = None,
                eps: float = 1e-5, cudnn: bool = True) -> Value:  # fmt: skip
    depth = x.shape[1]
    gamma, beta = _or_full(c, weight, depth, 1.0, x.dtype), _or_full(c, bias, depth, 0.0, x.dtype)
    return c.emit("group_norm", x, gamma, beta, groups=groups, eps=float(eps))


@converts("aten.native_group_norm.default")
def _native_group_norm(c: Context, x: Value, weight: Value | None, bias: Value | None, n: int, depth: int, space: int,
                       groups: int, eps: float) -> tuple[Value, Value, Value]:  # fmt: skip
    y = _group_norm(c, x, groups, weight, bias, eps)
    rows = c.g.reshape(x, (n, groups, -1))
    variance = c.emit("var", rows, axes=(2,), keepdims=False, ddof=0)
    return y, c.g.mean(rows, 2), c.g.rsqrt(c.g.add(variance, float(eps)))
