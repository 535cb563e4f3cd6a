"""Pooling as layers."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon.block import HybridBlock
from diptych.mxnet.gluon.nn.conv_layers import _1D, _2D, _3D, _checked, spread

__all__ = [
    "AvgPool1D", "AvgPool2D", "AvgPool3D", "GlobalAvgPool1D", "GlobalAvgPool2D", "GlobalAvgPool3D", "GlobalMaxPool1D",
    "GlobalMaxPool2D", "GlobalMaxPool3D", "MaxPool1D", "MaxPool2D", "MaxPool3D",
]  # fmt: skip


class _Pooling(HybridBlock):
    """What all poolings share."""

    def __init__(self, pool_size: tuple[int, ...], strides: Any, padding: Any, ceil_mode: bool, global_pool: bool, pool_type: str,
                 layout: str, count_include_pad: bool | None = None, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(**kwargs)
        n = len(pool_size)
        self._kwargs: dict[str, Any] = {
            "kernel": pool_size, "stride": spread(pool_size if strides is None else strides, n), "pad": spread(padding, n),
            "global_pool": global_pool, "pool_type": pool_type, "layout": layout,
            "pooling_convention": "full" if ceil_mode else "valid",
        }  # fmt: skip
        if count_include_pad is not None:
            self._kwargs["count_include_pad"] = count_include_pad

    def _alias(self) -> str:
        return "pool"

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The operator Pooling."""
        return F.Pooling(x, name="fwd", **self._kwargs)

    def __repr__(self) -> str:
        k = self._kwargs
        return (f"{type(self).__name__}(size={k['kernel']}, stride={k['stride']}, padding={k['pad']}, "
                f"ceil_mode={k['pooling_convention'] == 'full'}, global_pool={k['global_pool']}, pool_type={k['pool_type']}, "
                f"layout={k['layout']})")  # fmt: skip


def _pool(name: str, n: int, layouts: tuple[str, ...], kind: str) -> Any:
    def size_of(pool_size: Any) -> tuple[int, ...]:
        size = spread(pool_size, n)
        if len(size) != n:
            raise AssertionError(f"pool_size={pool_size}: one number, or {n}")
        return size

    if kind == "max":

        def init(self: Any, pool_size: Any = 2, strides: Any = None, padding: Any = 0, layout: str = layouts[0],
                 ceil_mode: bool = False, **kwargs: Any) -> None:  # fmt: skip
            _Pooling.__init__(self, size_of(pool_size), strides, padding, ceil_mode, False, "max", _checked(layout, layouts, name),
                              **kwargs)  # fmt: skip
    else:

        def init(self: Any, pool_size: Any = 2, strides: Any = None, padding: Any = 0,  # type: ignore[misc]
                 ceil_mode: bool = False, layout: str = layouts[0], count_include_pad: bool = True, **kwargs: Any) -> None:  # fmt: skip
            _Pooling.__init__(self, size_of(pool_size), strides, padding, ceil_mode, False, "avg", _checked(layout, layouts, name),
                              count_include_pad, **kwargs)  # fmt: skip

    what = "The largest" if kind == "max" else "The mean"
    return type(name, (_Pooling,), {"__init__": init, "__module__": __name__,
                                    "__doc__": f"{what} value of each window over {n} axes of x, laid out as {layouts[0]}."})  # fmt: skip


def _global(name: str, n: int, layouts: tuple[str, ...], kind: str) -> Any:
    def init(self: Any, layout: str = layouts[0], **kwargs: Any) -> None:
        _Pooling.__init__(self, (1,) * n, None, 0, True, True, kind, _checked(layout, layouts, name), **kwargs)

    what = "The largest" if kind == "max" else "The mean"
    return type(name, (_Pooling,), {"__init__": init, "__module__": __name__,
                                    "__doc__": f"{what} value of each channel over {n} axes of x, laid out as {layouts[0]}."})  # fmt: skip


MaxPool1D, MaxPool2D, MaxPool3D = _pool("MaxPool1D", 1, _1D, "max"), _pool("MaxPool2D", 2, _2D, "max"), _pool("MaxPool3D", 3, _3D, "max")
AvgPool1D, AvgPool2D, AvgPool3D = _pool("AvgPool1D", 1, _1D, "avg"), _pool("AvgPool2D", 2, _2D, "avg"), _pool("AvgPool3D", 3, _3D, "avg")
GlobalMaxPool1D, GlobalMaxPool2D = _global("GlobalMaxPool1D", 1, _1D, "max"), _global("GlobalMaxPool2D", 2, _2D, "max")
GlobalMaxPool3D = _global("GlobalMaxPool3D", 3, _3D, "max")
GlobalAvgPool1D, GlobalAvgPool2D = _global("GlobalAvgPool1D", 1, _1D, "avg"), _global("GlobalAvgPool2D", 2, _2D, "avg")
GlobalAvgPool3D = _global("GlobalAvgPool3D", 3, _3D, "avg")
