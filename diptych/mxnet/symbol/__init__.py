"""`mx.sym`: expressions that are built first and run later."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.base import dtype_name
from diptych.mxnet.ndarray.arithmetic import FUNCTIONS
from diptych.mxnet.ndarray.register import public_names_of
from diptych.mxnet.symbol import _internal, contrib, image, linalg, op, random, sparse
from diptych.mxnet.symbol.arithmetic import binary
from diptych.mxnet.symbol.register import function
from diptych.mxnet.symbol.symbol import Group, Symbol, Variable, fromjson, load, load_json, var

__all__ = [
    "Group", "Symbol", "Variable", "_internal", "arange", "contrib", "eye", "fromjson", "full", "histogram", "hypot",
    "image", "linalg", "linspace", "load", "load_json", "maximum", "minimum", "ones", "op", "pow", "power", "random",
    "sparse", "split_v2", "var", "zeros", *FUNCTIONS,
]  # fmt: skip


def zeros(shape: Any, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Zeros."""
    return function("_zeros")(shape=shape, dtype=dtype_name(dtype or "float32"), **kwargs)  # type: ignore[no-any-return]


def ones(shape: Any, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Ones."""
    return function("_ones")(shape=shape, dtype=dtype_name(dtype or "float32"), **kwargs)  # type: ignore[no-any-return]


def full(shape: Any, val: float, dtype: Any = None, **kwargs: Any) -> Symbol:
    """One value everywhere."""
    return function("_full")(shape=shape, value=float(val), dtype=dtype_name(dtype or "float32"), **kwargs)  # type: ignore[no-any-return]


def eye(N: int, M: int = 0, k: int = 0, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Ones on the k-th diagonal."""
    return function("_eye")(N=N, M=M, k=k, dtype=dtype_name(dtype or "float32"), **kwargs)  # type: ignore[no-any-return]


def arange(start: float, stop: float | None = None, step: float = 1.0, repeat: int = 1, infer_range: bool = False,
           name: str | None = None, dtype: Any = None) -> Symbol:  # fmt: skip
    """Evenly spaced values."""
    attrs = {"start": start, "stop": stop, "step": step, "repeat": repeat, "infer_range": infer_range}
    return function("_arange")(**attrs, name=name, dtype=dtype_name(dtype or "float32"))  # type: ignore[no-any-return]


def linspace(start: float, stop: float, num: int, endpoint: bool = True, name: str | None = None, dtype: Any = None) -> Symbol:
    """`num` evenly spaced values from start to stop."""
    attrs = {"start": start, "stop": stop, "num": num, "endpoint": endpoint}
    return function("_linspace")(**attrs, name=name, dtype=dtype_name(dtype or "float32"))  # type: ignore[no-any-return]


def histogram(a: Symbol, bins: Any = 10, range: Any = None, **kwargs: Any) -> Symbol:
    """Counts per bin and the bin edges."""
    if isinstance(bins, Symbol):
        return function("_histogram")(data=a, bins=bins, **kwargs)  # type: ignore[no-any-return]
    if range is None:
        raise ValueError("arange of a symbol needs its stop")
    return function("_histogram")(data=a, bin_cnt=bins, range=range, **kwargs)  # type: ignore[no-any-return]


def split_v2(ary: Symbol, indices_or_sections: Any, axis: int = 0, squeeze_axis: bool = False) -> Symbol:
    """The symbol in parts along an axis."""
    if isinstance(indices_or_sections, int):
        return function("_split_v2")(ary, (), axis, squeeze_axis, indices_or_sections)  # type: ignore[no-any-return]
    return function("_split_v2")(ary, (0, *indices_or_sections), axis, squeeze_axis)  # type: ignore[no-any-return]


def _arithmetic(name: str, op_name: str) -> Any:
    def call(lhs: Any, rhs: Any) -> Any:
        return binary(op_name, lhs, rhs)

    call.__name__ = name
    call.__doc__ = f"Elementwise {name} of symbols and numbers."
    return call


for _name, _op in (*FUNCTIONS.items(), ("pow", "pow"), ("hypot", "hypot")):
    globals()[_name] = _arithmetic(_name, _op)


def __getattr__(name: str) -> Any:
    if name in ("np", "npx"):
        import importlib

        made = importlib.import_module("diptych.mxnet.symbol.numpy" if name == "np" else "diptych.mxnet.symbol.numpy_extension")
        globals()[name] = made
        return made
    found = public_names_of("op").get(name) or public_names_of("_internal").get(name)
    if found is None:
        raise AttributeError(f"module 'diptych.mxnet.symbol' has no attribute {name!r}")
    return function(found)


def __dir__() -> list[str]:
    return sorted({*globals(), *public_names_of("op")})
