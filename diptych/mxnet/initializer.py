"""Initializers: what parameters hold before training. `mx.init` is this module.

>>> import diptych.mxnet as mx
>>> w = mx.nd.zeros((2, 2))
>>> mx.init.One()(mx.init.InitDesc("fc_weight"), w)
>>> float(w.sum().asscalar())
4.0
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import random
from diptych.mxnet.initializer_base import InitDesc, Initializer, _register, alias, bilinear, create, register
from diptych.mxnet.ndarray.ndarray import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = [
    "Bilinear", "Constant", "FusedRNN", "InitDesc", "Initializer", "LSTMBias", "Load", "MSRAPrelu", "Mixed", "Normal", "One",
    "Orthogonal", "Uniform", "Xavier", "Zero", "alias", "create", "register",
]  # fmt: skip


class Load:
    """Take parameters from a file or dict by name; those not in it go to `default_init`."""

    def __init__(self, param: Any, default_init: Any = None, verbose: bool = False) -> None:
        if isinstance(param, str):
            from diptych.mxnet.ndarray.serialize import load

            param = load(param)
        if not isinstance(param, dict):
            raise AssertionError("Load takes a dict of arrays or the name of a file with named arrays")
        self.param = {k[4:] if k.startswith(("arg:", "aux:")) else k: v for k, v in param.items()}
        self.default_init = default_init
        self.verbose = verbose

    def __call__(self, name: str, arr: NDArray) -> None:
        """Fill `arr`, the parameter of this name."""
        if name in self.param:
            found = self.param[name]
            if arr.shape != found.shape:
                raise AssertionError(f"{name} is "
                                     f"{arr.shape}, what was loaded under that name {found.shape}")  # fmt: skip
            arr[:] = found
            if self.verbose:
                logging.info("%s starts as loaded", name)
            return
        if self.default_init is None:
            raise AssertionError(f"Parameter {name}: it is not in the file, and there is no default_init")
        self.default_init(name, arr)
        if self.verbose:
            logging.info("%s starts by the default", name)


class Mixed:
    """Choose among initializers by patterns that names match.

    >>> mixed = Mixed(["bias", ".*"], [Zero(), Uniform(0.1)])
    """

    def __init__(self, patterns: Sequence[str], initializers: Sequence[Any]) -> None:
        if len(patterns) != len(initializers):
            raise AssertionError(f"{len(patterns)} patterns for {len(initializers)} initializers")
        self.map = [(re.compile(p), i) for p, i in zip(patterns, initializers)]

    def __call__(self, name: str, arr: NDArray) -> None:
        """Fill `arr` by the initializer of the first pattern that the name matches."""
        for pattern, init in self.map:
            if pattern.match(name):
                init(name, arr)
                return
        raise ValueError(f'Parameter name {name} did not match any pattern. Consider adding a ".*" pattern at the end with '
                         "default Initializer.")  # fmt: skip


@_register
@alias("zeros")
class Zero(Initializer):
    """Zeros."""

    def __init__(self) -> None:
        super().__init__()

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr[:] = 0


@_register
@alias("ones")
class One(Initializer):
    """Ones."""

    def __init__(self) -> None:
        super().__init__()

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr[:] = 1


@_register
class Constant(Initializer):
    """One value everywhere, or the values of an array."""

    def __init__(self, value: Any) -> None:
        super().__init__(value=value)
        self.value = value

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr[:] = self.value

    def dumps(self) -> str:
        """The initializer as text that `create` reads; arrays become lists."""
        value = self._kwargs["value"]
        if isinstance(value, NDArray):
            value = value.asnumpy()
        if isinstance(value, (np.ndarray, np.generic)):
            value = value.tolist()
        self._kwargs["value"] = value
        return super().dumps()


@_register
class Uniform(Initializer):
    """Uniform between -scale and scale."""

    def __init__(self, scale: float = 0.07) -> None:
        super().__init__(scale=scale)
        self.scale = scale

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr[:] = random.uniform(-self.scale, self.scale, shape=arr.shape).asnumpy()


@_register
class Normal(Initializer):
    """Normal with mean 0 and standard deviation sigma."""

    def __init__(self, sigma: float = 0.01) -> None:
        super().__init__(sigma=sigma)
        self.sigma = sigma

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr[:] = random.normal(0, self.sigma, shape=arr.shape).asnumpy()


@_register
class Orthogonal(Initializer):
    """An orthogonal matrix times `scale` (Saxe, McClelland, Ganguli: arXiv 1312.6120)."""

    def __init__(self, scale: float = 1.414, rand_type: str = "uniform") -> None:
        super().__init__(scale=scale, rand_type=rand_type)
        self.scale = scale
        self.rand_type = rand_type

    def _init_weight(self, name: str, arr: NDArray) -> None:
        shape = (arr.shape[0], int(np.prod(arr.shape[1:])))
        if self.rand_type == "uniform":
            start = random.uniform(-1.0, 1.0, shape=shape).asnumpy()
        elif self.rand_type == "normal":
            start = random.normal(0.0, 1.0, shape=shape).asnumpy()
        else:
            raise ValueError(f"rand_type={self.rand_type!r}; use uniform or normal")
        u, _, v = np.linalg.svd(start, full_matrices=False)
        arr[:] = self.scale * (u if u.shape == shape else v).reshape(arr.shape)


@_register
class Xavier(Initializer):
    """Random values whose scale depends on the fans of the layer (Glorot, Bengio 2010).

    rnd_type: uniform or gaussian. factor_type: avg, in or out. The scale is sqrt(magnitude / fan).
    """

    def __init__(self, rnd_type: str = "uniform", factor_type: str = "avg", magnitude: float = 3) -> None:
        super().__init__(rnd_type=rnd_type, factor_type=factor_type, magnitude=magnitude)
        self.rnd_type = rnd_type
        self.factor_type = factor_type
        self.magnitude = float(magnitude)

    def _init_weight(self, name: str, arr: NDArray) -> None:
        shape = arr.shape
        if len(shape) < 2:
            raise ValueError(f"Xavier needs two axes or more, for inputs and outputs: {name} is {arr.shape}")
        area = float(np.prod(shape[2:])) if len(shape) > 2 else 1.0
        fan_in, fan_out = shape[1] * area, shape[0] * area
        fans = {"avg": (fan_in + fan_out) / 2.0, "in": fan_in, "out": fan_out}
        if self.factor_type not in fans:
            raise ValueError(f"Incorrect factor type {self.factor_type!r}; use avg, in or out")
        scale = float(np.sqrt(self.magnitude / fans[self.factor_type]))
        if self.rnd_type == "uniform":
            arr[:] = random.uniform(-scale, scale, shape=shape).asnumpy()
        elif self.rnd_type == "gaussian":
            arr[:] = random.normal(0, scale, shape=shape).asnumpy()
        else:
            raise ValueError(f"Unknown random type {self.rnd_type!r}; use uniform or gaussian")


@_register
class MSRAPrelu(Xavier):
    """Normal values for layers followed by PReLU of this slope (He et al.: arXiv 1502.01852)."""

    def __init__(self, factor_type: str = "avg", slope: float = 0.25) -> None:
        super().__init__("gaussian", factor_type, 2.0 / (1 + slope**2))
        self._kwargs = {"factor_type": factor_type, "slope": slope}


@_register
class Bilinear(Initializer):
    """The filter of an enlarging deconvolution."""

    def __init__(self) -> None:
        super().__init__()

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr[:] = bilinear(arr.shape)


@_register
class LSTMBias(Initializer):
    """Zeros but for the forget gate of an LSTM cell."""

    def __init__(self, forget_bias: float = 1.0) -> None:
        super().__init__(forget_bias=forget_bias)
        self.forget_bias = forget_bias

    def _init_weight(self, name: str, arr: NDArray) -> None:
        hidden = arr.shape[0] // 4
        arr[:] = 0.0
        arr[hidden : 2 * hidden] = self.forget_bias  # gates i, f, c, o


# How many gates the blocks of a packed vector have, and which of an LSTM's is the forget gate.
_GATES = {"rnn_relu": ("",), "rnn_tanh": ("",), "lstm": ("_i", "_f", "_c", "_o"), "gru": ("_r", "_z", "_o")}


@_register
class FusedRNN(Initializer):
    """The packed vector of a fused recurrent layer, each part by `init` (or the global initializer when None)."""

    def __init__(self, init: Any, num_hidden: int, num_layers: int, mode: str, bidirectional: bool = False,
                 forget_bias: float = 1.0) -> None:  # fmt: skip
        if isinstance(init, str):
            init = create(init)
        super().__init__(init=init.dumps() if init is not None else None, num_hidden=num_hidden, num_layers=num_layers,
                         mode=mode, bidirectional=bidirectional, forget_bias=forget_bias)  # fmt: skip
        if mode not in _GATES:
            raise ValueError(f"mode={mode!r}; use {', '.join(_GATES)}")
        self._init, self._num_hidden, self._num_layers, self._mode = init, num_hidden, num_layers, mode
        self._bidirectional, self._forget_bias = bidirectional, forget_bias

    def _init_weight(self, desc: str, arr: NDArray) -> None:
        from diptych.mxnet import ndarray as nd

        gates, h = _GATES[self._mode], self._num_hidden
        sides = ("l", "r") if self._bidirectional else ("l",)
        b, m = len(sides), len(gates)
        # the size is m*h*b*(x + h + 2) for the first layer and m*h*b*(b*h + h + 2) for each of the others
        inputs = arr.size // (b * h * m) - (self._num_layers - 1) * (h + b * h + 2) - h - 2
        parts: list[tuple[str, tuple[int, ...]]] = []
        for layer in range(self._num_layers):
            for side in sides:
                for kind, width in (("i2h", inputs if layer == 0 else b * h), ("h2h", h)):
                    parts += [(f"{side}{layer}_{kind}{g}_weight", (h, width)) for g in gates]
        for layer in range(self._num_layers):
            for side in sides:
                for kind in ("i2h", "h2h"):
                    parts += [(f"{side}{layer}_{kind}{g}_bias", (h,)) for g in gates]
        if sum(int(np.prod(s)) for _, s in parts) != arr.size:
            raise ValueError(f"{desc}: {arr.size} values do not fit a {self._mode} of {self._num_layers} layers with {h} units")
        whole, at = np.empty(arr.size, arr.dtype), 0
        for name, shape in parts:
            part = nd.zeros(shape, dtype=arr.dtype)
            inner = InitDesc(name, global_init=getattr(desc, "global_init", None))
            if self._mode == "lstm" and name.endswith("_f_bias"):
                part[:] = self._forget_bias
            elif self._init is not None:
                self._init(inner, part)
            elif inner.global_init is not None:
                inner.global_init(inner, part)
            else:
                raise ValueError(f"{desc}: no initializer for {name}; give one to FusedRNN")
            whole[at : at + part.size] = part._data.ravel()
            at += part.size
        arr[:] = whole.reshape(arr.shape)
