"""Operators as methods of arrays: `x.exp()`, `x.sum(axis=1)`, ..."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["METHODS", "Fluent"]

METHODS = ["reshape_like", "zeros_like", "ones_like", "broadcast_axes", "repeat", "pad", "swapaxes", "split", "slice", "slice_axis", "slice_like", "take", "one_hot", "pick", "sort", "topk", "argsort", "argmax", "argmax_channel", "argmin", "clip", "abs", "sign", "shape_array", "size_array", "tile", "flip", "depth_to_space", "space_to_depth", "sum", "nansum", "prod", "nanprod", "mean", "max", "min", "norm", "round", "rint", "fix", "floor", "ceil", "trunc", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "degrees", "radians", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "exp", "expm1", "log", "log10", "log2", "log1p", "sqrt", "rsqrt", "cbrt", "rcbrt", "square", "reciprocal", "relu", "sigmoid", "softmax", "log_softmax", "softmin", "broadcast_to", "broadcast_like", "diag"]


class Fluent:
    """The methods; each calls the function of the same name in `mx.nd`, with the array first."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def transpose(self, *axes: Any, **kwargs: Any) -> Any:
        """The array with its axes permuted."""
        from diptych.mxnet.imperative import invoke

        if len(axes) == 1 and isinstance(axes[0], (tuple, list)):
            axes = tuple(axes[0])
        chosen = axes or kwargs.get("axes") or ()
        return invoke("transpose", [self], {"axes": str(tuple(chosen))} if chosen else {})  # type: ignore[list-item]

    def split_v2(self, *args: Any, **kwargs: Any) -> Any:
        """The array in parts along an axis."""
        from diptych.mxnet.ndarray.create import split_v2

        return split_v2(self, *args, **kwargs)


def _method(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        from diptych.mxnet.ndarray.register import function

        return function(name)(self, *args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"NDArray.{name}"
    method.__doc__ = f"`mx.nd.{name}` of this array."
    return method


for _name in METHODS:
    setattr(Fluent, _name, _method(_name))
