"""Activations that have an operator of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.frontends.torch.lower import Context, converts

if TYPE_CHECKING:
    from diptych.ir import Value

__all__: list[str] = []


@converts("aten.silu.default")
def _silu(c: Context, x: Value) -> Value:
    return c.emit("silu", x)


@converts("aten.hardswish.default")
def _hardswish(c: Context, x: Value) -> Value:
    return c.emit("hard_swish", x)


@converts("aten.hardsigmoid.default")
def _hardsigmoid(c: Context, x: Value) -> Value:
    return c.emit("hard_sigmoid", x)


@converts("aten.mish.default")
def _mish(c: Context, x: Value) -> Value:
    return c.emit("mish", x)


@converts("aten.selu.default")
def _selu(c: Context, x: Value) -> Value:
    return c.emit("selu", x)


@converts("aten.log_sigmoid.default")
def _log_sigmoid(c: Context, x: Value) -> Value:
    return c.emit("log_sigmoid", x)


@converts("aten.gelu.default")
def _gelu(c: Context, x: Value, approximate: str = "none") -> Value:
    return c.emit("gelu", x, approximate=approximate)


@converts("aten.elu.default")
def _elu(c: Context, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    if input_scale != 1 and alpha:
        # elu(x) = scale * (x if x > 0 else alpha * expm1(x * input_scale)): the kink stays at 0
        low = c.ew("mul", c.emit("expm1", c.ew("mul", x, input_scale)), alpha)
        y = c.emit("where", c.ew("greater", x, 0.0, dtype=x.dtype), x, low)
    else:
        y = c.emit("elu", x, alpha=float(alpha))
    return y if scale == 1 else c.ew("mul", y, scale)


@converts("aten.celu.default")
def _celu(c: Context, x: Value, alpha: float = 1.0) -> Value:
    return c.emit("celu", x, alpha=float(alpha))


@converts("aten.leaky_relu.default")
def _leaky_relu(c: Context, x: Value, negative_slope: float = 0.01) -> Value:
    return c.emit("leaky_relu", x, slope=float(negative_slope))


@converts("aten.softplus.default")
def _softplus(c: Context, x: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    return c.emit("softplus", x, beta=float(beta), threshold=float(threshold))


@converts("aten.prelu.default")
def _prelu(c: Context, x: Value, weight: Value) -> Value:
    if weight.type.size == 1 or x.rank < 2:
        slope = c.g.reshape(weight, (1,) * x.rank)
    else:
        slope = c.g.reshape(weight, (1, weight.type.size) + (1,) * (x.rank - 2))
    return c.emit("prelu", x, slope)


@converts("aten._softmax.default", "aten.softmax.int")
def _softmax(c: Context, x: Value, dim: int, dtype: Any = None) -> Value:
    return _along(c, "softmax", x, dim)


@converts("aten._log_softmax.default", "aten.log_softmax.int")
def _log_softmax(c: Context, x: Value, dim: int, dtype: Any = None) -> Value:
    return _along(c, "log_softmax", x, dim)


def _along(c: Context, op: str, x: Value, dim: int) -> Value:
    if x.rank == 0:  # one element: its softmax is 1
        return c.g.reshape(c.emit(op, c.g.reshape(c.value(x), (1,)), axis=0), ())
    return c.emit(op, c.value(x), axis=dim % x.rank)
