"""What every initializer is: its description, how it is called, and the names that initializers are found by."""

from __future__ import annotations

import json
import logging
import warnings
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import random, registry
from diptych.mxnet.ndarray.ndarray import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.ir import Array

__all__ = ["InitDesc", "Initializer", "alias", "bilinear", "create", "register"]


class InitDesc(str):
    """The name of a parameter with its attributes and the initializer that is used where those name none."""

    attrs: dict[str, str]
    global_init: Any

    def __new__(cls, name: str, attrs: dict[str, str] | None = None, global_init: Any = None) -> InitDesc:
        made = super().__new__(cls, name)
        made.attrs = attrs or {}
        made.global_init = global_init
        return made


class Initializer:
    """The base class: chooses by the end of a parameter's name; subclasses say what a weight gets (`_init_weight`)."""

    def __init__(self, **kwargs: Any) -> None:
        self._kwargs = kwargs
        self._verbose = False
        self._print_func: Callable[[NDArray], str] | None = None

    def set_verbosity(self, verbose: bool = False, print_func: Callable[[NDArray], str] | None = None) -> Initializer:
        """Log a statistic (default: the root mean square) of each array that is initialized."""
        self._verbose = verbose
        self._print_func = print_func or (lambda x: str(float(np.linalg.norm(x.asnumpy().ravel()) / sqrt(x.size))))
        return self

    def _verbose_print(self, desc: str, init: str, arr: NDArray) -> None:
        if self._verbose and self._print_func:
            logging.info("%s starts by %s: %s", desc, init, self._print_func(arr))

    def dumps(self) -> str:
        """The initializer as text that `create` reads.

        >>> from diptych.mxnet import init
        >>> init.Normal(0.5).dumps()
        '["normal", {"sigma": 0.5}]'
        """
        return json.dumps([type(self).__name__.lower(), self._kwargs])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Initializer):
            return NotImplemented
        return type(self) is type(other) and self._kwargs == other._kwargs

    __hash__ = object.__hash__

    # Ends of names, first match first. What `InitDesc` names get, and what plain strings got in old versions.
    _BY_END = (("weight", "_init_weight"), ("bias", "_init_bias"), ("gamma", "_init_gamma"), ("beta", "_init_beta"),
               ("min", "_init_zero"), ("max", "_init_one"), ("weight_quantize", "_init_quantized_weight"),
               ("bias_quantize", "_init_quantized_bias"))  # fmt: skip
    _BY_END_LEGACY = (("bias", "_init_bias"), ("gamma", "_init_gamma"), ("beta", "_init_beta"), ("weight", "_init_weight"),
                      ("moving_mean", "_init_zero"), ("moving_var", "_init_one"), ("moving_inv_var", "_init_zero"),
                      ("moving_avg", "_init_zero"), ("min", "_init_zero"), ("max", "_init_one"))  # fmt: skip

    def __call__(self, desc: str, arr: NDArray) -> None:
        """Fill `arr`, the parameter that `desc` names."""
        if not isinstance(desc, InitDesc):
            self._legacy_init(desc, arr)
            return
        if desc.global_init is None:
            desc.global_init = self
        own = desc.attrs.get("__init__", "")
        if own:
            create(own)._init_weight(desc, arr)
            self._verbose_print(desc, own, arr)
            return
        for end, method in self._BY_END:
            if desc.endswith(end):
                getattr(self, method)(desc, arr)
                self._verbose_print(desc, end, arr)
                return
        self._init_default(desc, arr)

    def _legacy_init(self, name: str, arr: NDArray) -> None:
        warnings.warn("an initializer takes mx.init.InitDesc(name) and the array; "
                      "a plain name will not do for ever", DeprecationWarning, stacklevel=3)  # fmt: skip
        if not isinstance(name, str):
            raise TypeError("an initializer takes the name first: a string or InitDesc")
        if not isinstance(arr, NDArray):
            raise TypeError("an initializer takes an NDArray second")
        if name.startswith("upsampling"):
            self._init_bilinear(name, arr)
            return
        if name.startswith("stn_loc") and name.endswith(("weight", "bias")):
            (self._init_zero if name.endswith("weight") else self._init_loc_bias)(name, arr)
            return
        for end, method in self._BY_END_LEGACY:
            if name.endswith(end):
                getattr(self, method)(name, arr)
                return
        self._init_default(name, arr)

    def _init_bilinear(self, _: str, arr: NDArray) -> None:
        arr[:] = bilinear(arr.shape)

    def _init_loc_bias(self, _: str, arr: NDArray) -> None:
        if arr.shape[0] != 6:
            raise AssertionError(f"the bias of an affine transformation has 6 elements, not {arr.shape[0]}")
        arr[:] = np.array([1.0, 0, 0, 0, 1.0, 0])

    def _init_zero(self, _: str, arr: NDArray) -> None:
        arr[:] = 0.0

    def _init_one(self, _: str, arr: NDArray) -> None:
        arr[:] = 1.0

    def _init_bias(self, _: str, arr: NDArray) -> None:
        arr[:] = 0.0

    def _init_quantized_bias(self, _: str, arr: NDArray) -> None:
        arr[:] = 0

    def _init_gamma(self, _: str, arr: NDArray) -> None:
        arr[:] = 1.0

    def _init_beta(self, _: str, arr: NDArray) -> None:
        arr[:] = 0.0

    def _init_weight(self, name: str, arr: NDArray) -> None:
        raise NotImplementedError(f"{type(self).__name__} must override _init_weight to initialize {name}")

    def _init_quantized_weight(self, _: str, arr: NDArray) -> None:
        arr[:] = random.randint(-127, 127, shape=arr.shape, dtype="int32").asnumpy().astype(np.int8)

    def _init_default(self, name: str, _: NDArray) -> None:
        raise ValueError(f"by its name it is not known how {name} should start: names that end in "
                         '"weight", "bias", "gamma" or "beta" are; for others give '
                         "mx.sym.Variable(name, init=mx.init.Normal()) or the like")  # fmt: skip


_register = registry.get_register_func(Initializer, "initializer")
alias = registry.get_alias_func(Initializer, "initializer")
create = registry.get_create_func(Initializer, "initializer")


def register(klass: type) -> type:
    """Register a subclass of Initializer under its lower-case name.

    >>> @register
    ... class Half(Initializer):
    ...     def _init_weight(self, name, arr):
    ...         arr[:] = 0.5
    >>> type(create("half")).__name__
    'Half'
    """
    made: type = _register(klass)
    return made


def bilinear(shape: Sequence[int]) -> Array:
    """The filter of a deconvolution that enlarges images by bilinear interpolation."""
    f = np.ceil(shape[3] / 2.0)
    c = (2 * f - 1 - f % 2) / (2.0 * f)
    y, x = np.ogrid[: shape[2], : shape[3]]
    one = (1 - abs(x / f - c)) * (1 - abs(y / f - c))
    return np.broadcast_to(one.astype(np.float32), tuple(shape))
