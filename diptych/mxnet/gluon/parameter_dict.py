"""ParameterDict: the parameters of a block by name."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from diptych.mxnet import initializer, ndarray
from diptych.mxnet.base import dtype_name
from diptych.mxnet.gluon.parameter import Constant, Parameter

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator, KeysView, ValuesView

    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["ParameterDict"]


def _brief(names: Any, limit: int = 7) -> str:
    names = [f"'{n}'" for n in names]
    if len(names) > limit:
        names = [*names[: limit // 2], "...", *names[-limit // 2 :]]
    return ", ".join(names)


class ParameterDict:
    """Parameters by their full names; `get` makes those that do not exist.

    >>> from diptych.mxnet import gluon
    >>> params = gluon.ParameterDict("net_")
    >>> params.get("w", shape=(2, 2)).name, list(params.keys())
    ('net_w', ['net_w'])
    """

    def __init__(self, prefix: str = "", shared: ParameterDict | None = None) -> None:
        self._prefix = prefix
        self._params: OrderedDict[str, Parameter] = OrderedDict()
        self._shared = shared

    def __repr__(self) -> str:
        name = self._prefix + " " if self._prefix else ""
        content = "\n".join(f"  {v!r}" for v in self.values())
        return f"{name}(\n{content}\n)"

    def __getitem__(self, key: str) -> Parameter:
        return self._params[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)

    def __contains__(self, key: object) -> bool:
        return key in self._params

    def items(self) -> ItemsView[str, Parameter]:
        """Names and parameters."""
        return self._params.items()

    def keys(self) -> KeysView[str]:
        """The full names."""
        return self._params.keys()

    def values(self) -> ValuesView[Parameter]:
        """The parameters."""
        return self._params.values()

    @property
    def prefix(self) -> str:
        """What the names of parameters made by `get` begin with."""
        return self._prefix

    def _find(self, name: str) -> Parameter | None:
        if name in self._params:
            return self._params[name]
        if self._shared is not None and name in self._shared._params:
            self._params[name] = self._shared._params[name]
            return self._shared._params[name]
        return None

    def get(self, name: str, **kwargs: Any) -> Parameter:
        """The parameter of that name (the prefix goes before it), made from `kwargs` when there is none.

        AssertionError when there is one already that differs from what `kwargs` say.
        """
        name = self.prefix + name
        param = self._find(name)
        if param is None:
            param = self._params[name] = Parameter(name, **kwargs)
            return param
        for key, value in kwargs.items():
            existing = getattr(param, key, None)
            if existing is None:
                setattr(param, key, value)
                continue
            if key == "shape" and value is not None:
                if isinstance(value, int):
                    value = (value,)
                if len(value) == len(existing):
                    merged = []
                    for a, b in zip(value, existing):
                        if a == b or b in (0, -1):
                            merged.append(a)
                        elif a in (0, -1):
                            merged.append(b)
                    if len(merged) == len(value):
                        param._shape = tuple(merged)
                        continue
            elif key == "dtype" and dtype_name(value) == dtype_name(existing):
                continue
            if value is not None and value != existing:
                raise AssertionError(
                    f"Parameter '{name}' exists with another '{key}': "
                    f"asked for is '{value}', there is '{existing}'")  # fmt: skip
        return param

    def get_constant(self, name: str, value: Any = None) -> Constant:
        """The constant of that name, made from `value` when there is none."""
        import numpy as np

        name = self.prefix + name
        param = self._find(name)
        if param is None:
            if value is None:
                raise KeyError(f"No constant named '{name}'; give its value to make one")
            made = Constant(name, value)
            self._params[name] = made
            return made
        if value is not None:
            if not isinstance(param, Constant):
                raise AssertionError(f"'{name}' is there already, as a parameter that is trained")
            given = value.asnumpy() if isinstance(value, ndarray.NDArray) else np.asarray(value)
            if param.shape != given.shape or not (param.value.asnumpy() == given).all():
                raise AssertionError(f"the constant '{name}' is there already, with another value")
        return param  # type: ignore[return-value]

    def update(self, other: ParameterDict) -> None:
        """Take over all parameters of another dictionary."""
        for k, v in other.items():
            if k in self._params:
                if self._params[k] is not v:
                    raise AssertionError(f"both dictionaries have a Parameter of their own named '{k}'")
            else:
                self._params[k] = v

    def initialize(self, init: Any = None, ctx: Any = None, verbose: bool = False, force_reinit: bool = False) -> None:
        """Initialise all parameters."""
        init = initializer.Uniform() if init is None else init
        if verbose and not isinstance(init, str):
            init.set_verbosity(verbose=verbose)
        for v in self.values():
            v.initialize(None, ctx, init, force_reinit=force_reinit)

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        for p in self.values():
            p.zero_grad()

    def reset_ctx(self, ctx: Any) -> None:
        """Move all parameters to other contexts."""
        for p in self.values():
            p.reset_ctx(ctx)

    def list_ctx(self) -> list[Any]:
        """The contexts that parameters have arrays in."""
        return list(dict.fromkeys(c for p in self.values() for c in p.list_ctx()))

    def setattr(self, name: str, value: Any) -> None:
        """Set an attribute of all parameters, as in `setattr("grad_req", "null")`."""
        for p in self.values():
            setattr(p, name, value)

    def save(self, filename: str, strip_prefix: str = "") -> None:
        """Write all parameters to a file of MXNet's format, without `strip_prefix` before the names."""
        out = {}
        for p in self.values():
            if not p.name.startswith(strip_prefix):
                raise ValueError(
                    f"save(strip_prefix='{strip_prefix}'): the name '{p.name}' does not begin so. A block that shares parameters "
                    "of another, or whose children were not made within name_scope(), has such names; "
                    "save_parameters does not go by names")  # fmt: skip
            out[p.name[len(strip_prefix) :]] = p._reduce()
        ndarray.save(filename, out)

    def load(self, filename: str, ctx: Any = None, allow_missing: bool = False, ignore_extra: bool = False,
             restore_prefix: str = "", cast_dtype: bool = False, dtype_source: str = "current") -> None:  # fmt: skip
        """Read parameters from a file; `restore_prefix` goes before the names there."""
        loaded = ndarray.load(filename)
        if not isinstance(loaded, dict):
            raise ValueError(f"{filename} holds arrays without names")
        self.load_dict(loaded, ctx, allow_missing, ignore_extra, restore_prefix, filename, cast_dtype, dtype_source)

    def load_dict(self, param_dict: dict[str, NDArray], ctx: Any = None, allow_missing: bool = False, ignore_extra: bool = False,
                  restore_prefix: str = "", filename: str | None = None, cast_dtype: bool = False,
                  dtype_source: str = "current") -> None:  # fmt: skip
        """Take parameters from a dictionary of arrays."""
        if restore_prefix:
            for name in self.keys():
                if not name.startswith(restore_prefix):
                    raise AssertionError(f"restore_prefix is '{restore_prefix}' but Parameters name '{name}' does not start with it")
        source = f"file '{filename}'" if filename else "param_dict"
        given = {restore_prefix + (k[4:] if k.startswith(("arg:", "aux:")) else k): v for k, v in param_dict.items()}
        if not allow_missing:
            for name in self.keys():
                if name not in given:
                    raise AssertionError(
                        f"{source} has no '{name[len(restore_prefix):]}'. It has "
                        f"{_brief(k[len(restore_prefix):] for k in given)}. Were both networks made with one prefix? "
                        "allow_missing=True leaves such parameters as they are")  # fmt: skip
        for name, value in given.items():
            if name not in self._params:
                if not ignore_extra:
                    raise AssertionError(
                        f"{source} has '{name[len(restore_prefix):]}', which is none of "
                        f"{_brief(self._params)}. Were both networks made with one prefix? "
                        "ignore_extra=True passes over such parameters")  # fmt: skip
                continue
            if value is None:
                warnings.warn(f"{source} holds no value for {name}", stacklevel=2)
                continue
            self._params[name]._load_init(value, ctx, cast_dtype, dtype_source)
