"""Pooling and resizing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.frontends.torch.lower import Context, NotComputed, converts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.ir import Value

__all__: list[str] = []


def _each(x: Any, rank: int) -> tuple[int, ...]:
    values = tuple(x) if isinstance(x, (tuple, list)) else (x,)
    return values * rank if len(values) == 1 else values


def _batched(c: Context, x: Value, rank: int, f: Callable[[Value], Value]) -> Value:
    """Apply f to x[N, C, *S], making the batch axis torch lets one leave out."""
    if x.rank == rank + 2:
        return f(x)
    return c.g.squeeze(f(c.g.expand_dims(x, 0)), (0,))


def _max_pool(rank: int) -> Callable[..., Value]:
    def convert(c: Context, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
                ceil_mode: bool = False) -> Value:  # fmt: skip
        size = _each(kernel, rank)
        strides = _each(stride, rank) if stride or isinstance(stride, int) else size
        pads = tuple((p, p) for p in _each(padding, rank))
        rounding = "ceil_torch" if ceil_mode else "floor"
        return _batched(c, x, rank, lambda y: c.emit(
            "max_pool", y, kernel=size, strides=strides, pads=pads, dilations=_each(dilation, rank), rounding=rounding
        ))  # fmt: skip

    return convert


def _max_pool_with_indices(rank: int) -> Callable[..., Any]:
    pool = _max_pool(rank)

    def convert(c: Context, *args: Any, **options: Any) -> Any:
        return pool(c, *args, **options), _NO_INDICES

    return convert


_NO_INDICES = NotComputed()


def _avg_pool(rank: int) -> Callable[..., Value]:
    def convert(c: Context, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
                count_include_pad: bool = True, divisor_override: int | None = None) -> Value:  # fmt: skip
        size = _each(kernel, rank)
        strides = _each(stride, rank) if stride or isinstance(stride, int) else size
        pads = tuple((p, p) for p in _each(padding, rank))
        if divisor_override is not None:
            # windows over zeros written out: each is divided by its full size, which is corrected below
            at = x.rank - rank
            ends = [(o - 1) * s + k - d - lo for o, s, k, d, (lo, _) in
                    zip(c.shape[at:], strides, size, x.shape[at:], pads)]  # fmt: skip
            widths = [(0, 0)] * at + [(lo, max(hi, 0)) for (lo, _), hi in zip(pads, ends)]
            x, pads, ceil_mode, count_include_pad = c.g.pad(x, widths), ((0, 0),) * rank, False, True
        rounding = "ceil_torch" if ceil_mode else "floor"
        y = _batched(c, x, rank, lambda v: c.emit(
            "avg_pool", v, kernel=size, strides=strides, pads=pads, rounding=rounding,
            count_include_pad=count_include_pad
        ))  # fmt: skip
        return y if divisor_override is None else c.ew("mul", y, float(np.prod(size)) / divisor_override)

    return convert


def _adaptive(op: str, reduce: str, rank: int) -> Callable[..., Value]:
    def convert(c: Context, x: Value, size: Any) -> Value:
        wanted = c.shape[-rank:]
        if all(d == 1 for d in wanted):
            return c.g.reduce(reduce, x, tuple(range(x.rank - rank, x.rank)), True)
        if wanted == x.shape[-rank:]:
            return x
        return _batched(c, x, rank, lambda y: c.emit(op, y, output_size=tuple(wanted)))

    return convert


def _adaptive_max(rank: int) -> Callable[..., Any]:
    pool = _adaptive("adaptive_max_pool", "max", rank)

    def convert(c: Context, x: Value, size: Any) -> Any:
        return pool(c, x, size), _NO_INDICES

    return convert


for _rank in (1, 2, 3):
    converts(f"aten.max_pool{_rank}d.default")(_max_pool(_rank))
    converts(f"aten.max_pool{_rank}d_with_indices.default")(_max_pool_with_indices(_rank))
    converts(f"aten.avg_pool{_rank}d.default")(_avg_pool(_rank))
    converts(f"aten.adaptive_avg_pool{_rank}d.default")(_adaptive("adaptive_avg_pool", "mean", _rank))
    converts(f"aten.adaptive_max_pool{_rank}d.default")(_adaptive_max(_rank))
for _rank in (2, 3):
    converts(f"aten._adaptive_avg_pool{_rank}d.default")(_adaptive("adaptive_avg_pool", "mean", _rank))


def _resize(mode: str, rank: int, per_axis: bool, exact: bool = False) -> Callable[..., Value]:
    """`upsample_*.vec` takes a size or factors; `.default` a size and a factor per axis."""

    def run(c: Context, x: Value, align: bool, scales: Sequence[float | None]) -> Value:
        size = c.shape[-rank:]
        coordinates = "align_corners" if align else ("asymmetric" if mode == "nearest" and not exact else "half_pixel")
        known = None
        if not align and all(s is not None for s in scales) and len(scales) == rank:
            known = tuple(float(s) for s in scales if s is not None)
            if all(round(i * s) == o and i * s == o for i, s, o in zip(x.shape[-rank:], known, size)):
                known = None  # the factors say no more than the sizes
        return c.emit("resize", x, size=tuple(size), mode=mode, coordinates=coordinates, scales=known)

    def vec(c: Context, x: Value, size: Any, *rest: Any, **options: Any) -> Value:
        align = bool(rest[0]) if mode != "nearest" else False
        factors = rest[-1] if rest else options.get("scale_factors")
        return run(c, x, align, tuple(factors or ()))

    def default(c: Context, x: Value, size: Any, *rest: Any, **options: Any) -> Value:
        align = bool(rest[0]) if mode != "nearest" else False
        scales = rest[1:] if mode != "nearest" else rest
        return run(c, x, align, tuple(scales))

    return default if per_axis else vec


for _name, _mode, _rank in (
    ("upsample_nearest1d", "nearest", 1), ("upsample_nearest2d", "nearest", 2), ("upsample_nearest3d", "nearest", 3),
    ("upsample_linear1d", "linear", 1), ("upsample_bilinear2d", "linear", 2), ("upsample_trilinear3d", "linear", 3),
    ("upsample_bicubic2d", "cubic", 2),
):  # fmt: skip
    converts(f"aten.{_name}.vec")(_resize(_mode, _rank, per_axis=False))
    converts(f"aten.{_name}.default")(_resize(_mode, _rank, per_axis=True))
for _rank in (1, 2, 3):
    converts(f"aten._upsample_nearest_exact{_rank}d.vec")(_resize("nearest", _rank, False, exact=True))
    converts(f"aten._upsample_nearest_exact{_rank}d.default")(_resize("nearest", _rank, True, exact=True))
