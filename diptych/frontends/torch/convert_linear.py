"""Products: linear layers, matrix products, convolutions, attention."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.frontends.torch.lower import Context, converts, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.ir import Value

__all__: list[str] = []


@converts("aten.linear.default")
def _linear(c: Context, x: Value, weight: Value, bias: Value | None = None) -> Value:
    if weight.rank == 1:
        y = _matmul(c, x, weight)
    elif x.rank == 1:
        y = c.g.reshape(c.g.matmul(c.g.expand_dims(x, 0), weight, transpose_b=True), (weight.shape[0],))
    else:
        y = c.g.matmul(x, weight, transpose_b=True)
    return y if bias is None else c.g.add(y, bias)


@converts("aten.mm.default", "aten.bmm.default")
def _mm(c: Context, a: Value, b: Value) -> Value:
    return c.g.matmul(a, b)


@converts("aten.matmul.default", "aten.mv.default", "aten.dot.default")
def _matmul(c: Context, a: Value, b: Value) -> Value:
    left = c.g.expand_dims(a, 0) if a.rank == 1 else a
    right = c.g.expand_dims(b, 1) if b.rank == 1 else b
    y = c.g.matmul(left, right)
    if b.rank == 1:
        y = c.g.squeeze(y, (y.rank - 1,))
    if a.rank == 1:
        y = c.g.squeeze(y, (y.rank - (1 if b.rank == 1 else 2),))
    return y


@converts("aten.addmm.default", "aten.baddbmm.default")
def _addmm(c: Context, bias: Value, a: Value, b: Value, beta: Any = 1, alpha: Any = 1) -> Value:
    y = c.g.matmul(a, b)
    if alpha != 1:
        y = c.ew("mul", y, alpha)
    if beta == 0:
        return y
    return c.ew("add", y, bias if beta == 1 else c.ew("mul", bias, beta))


def _each(x: Any, rank: int) -> tuple[int, ...]:
    values = tuple(x) if isinstance(x, (tuple, list)) else (x,)
    return values * rank if len(values) == 1 else values


@converts("aten.convolution.default")
def _convolution(c: Context, x: Value, weight: Value, bias: Value | None, stride: Sequence[int], padding: Sequence[int],
                 dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int) -> Value:  # fmt: skip
    rank = weight.rank - 2
    strides, dilations = _each(stride, rank), _each(dilation, rank)
    pads = tuple((p, p) for p in _each(padding, rank))
    batched = x.rank == rank + 2
    operands = [x if batched else c.g.expand_dims(x, 0), weight] + ([] if bias is None else [bias])
    if transposed:
        y = c.emit("conv_transpose", *operands, strides=strides, pads=pads, dilations=dilations, groups=groups,
                   output_padding=_each(output_padding, rank))  # fmt: skip
    else:
        y = c.emit("conv", *operands, strides=strides, pads=pads, dilations=dilations, groups=groups)
    return y if batched else c.g.squeeze(y, (0,))


@converts("aten.scaled_dot_product_attention.default")
def _attention(c: Context, q: Value, k: Value, v: Value, attn_mask: Value | None = None, dropout_p: float = 0.0,
               is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False) -> Value:  # fmt: skip
    if dropout_p:
        refuse("attention dropout is active; call model.eval() and pass dropout_p=0.0 in eval mode")
    if q.rank < 2:
        refuse("attention takes at least two-dimensional tensors")
    factor = float(scale) if scale is not None else 1.0 / math.sqrt(q.shape[-1])
    mask = None
    if attn_mask is not None:
        if attn_mask.dtype == "bool":
            zero, minus = c.g.scalar(0.0, q.dtype), c.g.scalar(float("-inf"), q.dtype)
            array = c.g.constant_array(attn_mask)
            if array is not None:
                mask = c.g.constant(np.where(array, np.float64(0), -np.inf).astype(np.float32 if q.dtype == "f32" else
                                                                                  np.float64))  # fmt: skip
            else:
                mask = c.emit("where", attn_mask, zero, minus)
        else:
            mask = c.cast(attn_mask, q.dtype)
    lead = c.shape[:-2]
    batch, heads = int(np.prod(lead[:-1])), (lead[-1] if lead else 1)
    four = []
    for x in (q, k, v):
        own = lead if not enable_gqa else (*lead[:-1], x.shape[-3])
        x = c.g.broadcast_to(x, (*own, *x.shape[-2:]))
        four.append(c.g.reshape(x, (batch, own[-1] if own else 1, *x.shape[-2:])))
    if mask is not None and mask.rank > 2 and len(lead) != 2:
        full = (*lead, *mask.shape[-2:])
        mask = c.g.reshape(c.g.broadcast_to(mask, full), (batch, heads, *mask.shape[-2:]))
    if mask is not None and mask.rank < 2:
        mask = c.g.reshape(mask, (1,) * (2 - mask.rank) + mask.shape)
    operands = four if mask is None else [*four, mask]
    y = c.emit("attention", *operands, scale=factor, causal=is_causal)
    return c.g.reshape(y, c.shape)
