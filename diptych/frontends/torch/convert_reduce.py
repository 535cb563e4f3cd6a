"""Reductions, extremum searches, scans and sorting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.frontends.torch.lower import Context, converts, refuse
from diptych.ops.base import normalize_axes, normalize_axis

if TYPE_CHECKING:
    from diptych.ir import Value

__all__: list[str] = []


def _axes(x: Value, dims: Any) -> tuple[int, ...]:
    """Sorted axes; torch takes None and () for all of them, and axis 0 or -1 of a scalar for none."""
    if isinstance(dims, int):
        dims = (dims,)
    if x.rank == 0:
        return ()
    return normalize_axes(tuple(dims) if dims else None, x.rank)


def _reduce(c: Context, op: str, x: Value, dims: Any, keepdim: bool, **attrs: object) -> Value:
    axes = _axes(x, dims)
    return c.emit(op, x, axes=axes, keepdims=keepdim, **attrs) if axes else x


@converts("aten.sum.default", "aten.sum.dim_IntList")
def _sum(c: Context, x: Value, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return _reduce(c, "sum", c.value(x), dims, keepdim)


@converts("aten.mean.default", "aten.mean.dim")
def _mean(c: Context, x: Value, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return _reduce(c, "mean", c.value(x), dims, keepdim)


@converts("aten.prod.default")
def _prod(c: Context, x: Value, dtype: Any = None) -> Value:
    return _reduce(c, "prod", c.value(x), None, False)


@converts("aten.prod.dim_int")
def _prod_dim(c: Context, x: Value, dim: int, keepdim: bool = False, dtype: Any = None) -> Value:
    return _reduce(c, "prod", c.value(x), (dim,), keepdim)


@converts("aten.amax.default")
def _amax(c: Context, x: Value, dims: Any = (), keepdim: bool = False) -> Value:
    return _extremum(c, "max", x, dims, keepdim)


@converts("aten.amin.default")
def _amin(c: Context, x: Value, dims: Any = (), keepdim: bool = False) -> Value:
    return _extremum(c, "min", x, dims, keepdim)


@converts("aten.max.default")
def _max(c: Context, x: Value) -> Value:
    return _extremum(c, "max", x, None, False)


@converts("aten.min.default")
def _min(c: Context, x: Value) -> Value:
    return _extremum(c, "min", x, None, False)


def _extremum(c: Context, op: str, x: Value, dims: Any, keepdim: bool) -> Value:
    if x.dtype == "bool":
        return _reduce(c, "any" if op == "max" else "all", x, dims, keepdim)
    return _reduce(c, op, x, dims, keepdim)


@converts("aten.any.default", "aten.any.dim", "aten.any.dims")
def _any(c: Context, x: Value, dims: Any = None, keepdim: bool = False) -> Value:
    return c.cast(_reduce(c, "any", c.cast(x, "bool"), dims, keepdim), c.dtype)


@converts("aten.all.default", "aten.all.dim", "aten.all.dims")
def _all(c: Context, x: Value, dims: Any = None, keepdim: bool = False) -> Value:
    return c.cast(_reduce(c, "all", c.cast(x, "bool"), dims, keepdim), c.dtype)


@converts("aten.var.correction")
def _var(c: Context, x: Value, dims: Any = None, correction: Any = None, keepdim: bool = False) -> Value:
    return _variance(c, x, dims, 1 if correction is None else correction, keepdim)


@converts("aten.var.dim")
def _var_dim(c: Context, x: Value, dims: Any, unbiased: bool = True, keepdim: bool = False) -> Value:
    return _variance(c, x, dims, int(unbiased), keepdim)


@converts("aten.std.correction")
def _std(c: Context, x: Value, dims: Any = None, correction: Any = None, keepdim: bool = False) -> Value:
    return c.emit("sqrt", _var(c, x, dims, correction, keepdim))


@converts("aten.var_mean.correction")
def _var_mean(c: Context, x: Value, dims: Any = None, correction: Any = None, keepdim: bool = False) -> tuple[
        Value, Value]:  # fmt: skip
    return _var(c, x, dims, correction, keepdim), _reduce(c, "mean", x, dims, keepdim)


def _variance(c: Context, x: Value, dims: Any, correction: Any, keepdim: bool) -> Value:
    axes = _axes(x, dims)
    if not axes:
        refuse("the variance of one number is not defined")
    count = 1
    for a in axes:
        count *= x.shape[a]
    if correction == int(correction) and count > correction:
        return c.emit("var", x, axes=axes, keepdims=keepdim, ddof=int(correction))
    y = c.emit("var", x, axes=axes, keepdims=keepdim, ddof=0)
    divisor = max(count - correction, 0)
    return c.ew("mul", y, count / divisor if divisor else float("inf"))


@converts("aten.logsumexp.default")
def _logsumexp(c: Context, x: Value, dims: Any, keepdim: bool = False) -> Value:
    return _reduce(c, "log_sum_exp", c.value(x), dims, keepdim)


@converts("aten.linalg_vector_norm.default")
def _vector_norm(
    c: Context, x: Value, ord: Any = 2, dims: Any = None, keepdim: bool = False, dtype: Any = None
) -> Value:
    x = c.value(x)
    if not _axes(x, dims):
        return c.ew("not_equal", x, 0, dtype=x.dtype) if ord == 0 else c.emit("abs", x)
    if not x.type.size:
        return c.full(0.0)
    if ord == 2:
        return _reduce(c, "norm_l2", x, dims, keepdim)
    size = c.emit("abs", x)
    if ord == 1:
        return _reduce(c, "sum", size, dims, keepdim)
    if ord in (float("inf"), float("-inf")):
        return _reduce(c, "max" if ord > 0 else "min", size, dims, keepdim)
    if ord == 0:
        return _reduce(c, "sum", c.cast(c.ew("not_equal", x, 0, dtype=x.dtype), x.dtype), dims, keepdim)
    return c.ew("pow", _reduce(c, "sum", c.g.pow(size, c.value(ord, x.dtype)), dims, keepdim), 1.0 / ord)


@converts("aten.argmax.default")
def _argmax(c: Context, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _arg_extremum(c, "arg_max", x, dim, keepdim)


@converts("aten.argmin.default")
def _argmin(c: Context, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _arg_extremum(c, "arg_min", x, dim, keepdim)


def _arg_extremum(c: Context, op: str, x: Value, dim: int | None, keepdim: bool) -> Value:
    if dim is None or x.rank == 0:
        return c.g.reshape(c.emit(op, c.g.reshape(x, (x.type.size,)), axis=0, keepdims=False), c.shape)
    return c.emit(op, x, axis=normalize_axis(dim, x.rank), keepdims=keepdim)


@converts("aten.max.dim")
def _max_dim(c: Context, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _extremum(c, "max", x, dim, keepdim), _arg_extremum(c, "arg_max", _ordered(c, x), dim, keepdim)


@converts("aten.min.dim")
def _min_dim(c: Context, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _extremum(c, "min", x, dim, keepdim), _arg_extremum(c, "arg_min", _ordered(c, x), dim, keepdim)


def _ordered(c: Context, x: Value) -> Value:
    return c.cast(x, "u8") if x.dtype == "bool" else x


@converts("aten.cumsum.default")
def _cumsum(c: Context, x: Value, dim: int, dtype: Any = None) -> Value:
    return c.emit("cum_sum", c.value(x), axis=normalize_axis(dim, x.rank)) if x.rank else c.value(x)


@converts("aten.cumprod.default")
def _cumprod(c: Context, x: Value, dim: int, dtype: Any = None) -> Value:
    return c.emit("cum_prod", c.value(x), axis=normalize_axis(dim, x.rank)) if x.rank else c.value(x)


@converts("aten.sort.default")
def _sort(c: Context, x: Value, dim: int = -1, descending: bool = False) -> tuple[Value, ...]:
    if x.rank == 0:
        return x, c.g.scalar(0, "i64")
    return c.emit_all("sort", x, axis=normalize_axis(dim, x.rank), descending=descending)


@converts("aten.sort.stable")
def _sort_stable(c: Context, x: Value, stable: bool | None = None, dim: int = -1, descending: bool = False) -> tuple[
        Value, ...]:  # fmt: skip
    return _sort(c, x, dim, descending)


@converts("aten.argsort.default")
def _argsort(c: Context, x: Value, dim: int = -1, descending: bool = False) -> Value:
    return _sort(c, x, dim, descending)[1]


@converts("aten.topk.default")
def _topk(c: Context, x: Value, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Value, ...]:
    if x.rank == 0:
        return x, c.g.scalar(0, "i64")
    return c.emit_all("top_k", x, k=k, axis=normalize_axis(dim, x.rank), largest=largest)


@converts("aten.kthvalue.default")
def _kthvalue(c: Context, x: Value, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    if x.rank == 0:
        return x, c.g.scalar(0, "i64")
    axis = normalize_axis(dim, x.rank)
    values, indices = c.emit_all("sort", x, axis=axis, descending=False)
    picked = (c.g.slice_axis(v, axis, k - 1, k) for v in (values, indices))
    first, second = (v if keepdim else c.g.squeeze(v, (axis,)) for v in picked)
    return first, second
