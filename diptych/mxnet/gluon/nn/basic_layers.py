"""Containers, Dense, Dropout, Embedding, Flatten and layers made from functions."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from diptych.mxnet import ndarray, symbol
from diptych.mxnet.gluon.block import Block, HybridBlock
from diptych.mxnet.gluon.nn.activations import Activation
from diptych.mxnet.gluon.utils import indent

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Dense", "Dropout", "Embedding", "Flatten", "HybridLambda", "HybridSequential", "Lambda", "Sequential"]


class _Container(Block):
    """What both kinds of Sequential share."""

    def add(self, *blocks: Block) -> None:
        """Put blocks at the end."""
        for block in blocks:
            self.register_child(block)

    def __repr__(self) -> str:
        inner = "\n".join(f"  ({k}): {indent(repr(b), 2)}" for k, b in self._children.items())
        return f"{type(self).__name__}(\n{inner}\n)"

    def __getitem__(self, key: Any) -> Any:
        layers = list(self._children.values())[key]
        if isinstance(layers, list):
            net = type(self)(prefix=self._prefix)
            with net.name_scope():
                net.add(*layers)
            return net
        return layers

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Block]:
        return iter(list(self._children.values()))

    def _run(self, x: Any, args: Any) -> Any:
        for block in self._children.values():
            x = block(x, *args)
            args = ()
            if isinstance(x, (tuple, list)):
                x, args = x[0], x[1:]
        return [x, *args] if args else x


class Sequential(_Container):
    """Blocks one after another.

    >>> from diptych.mxnet import nd
    >>> net = Sequential()
    >>> net.add(Dense(10, activation="relu"), Dense(2))
    >>> net.initialize()
    >>> net(nd.ones((3, 4))).shape
    (3, 2)
    """

    def forward(self, x: Any, *args: Any) -> Any:
        """Each block on what the one before gave."""
        return self._run(x, args)

    def hybridize(self, active: bool = True, **kwargs: Any) -> None:
        """Hybridize the children."""
        if self._children and all(isinstance(c, HybridBlock) for c in self._children.values()):
            warnings.warn(f"all layers of '{self.prefix}' can be hybridized: HybridSequential "
                          "would make them one compiled graph", stacklevel=2)  # fmt: skip
        super().hybridize(active, **kwargs)


class HybridSequential(_Container, HybridBlock):
    """HybridBlocks one after another, as one graph when hybridized."""

    def hybrid_forward(self, F: Any, x: Any, *args: Any) -> Any:
        """Each block on what the one before gave."""
        return self._run(x, args)


class Dense(HybridBlock):
    """activation(x W^T + b); x is flattened to (batch, in_units) unless flatten=False."""

    def __init__(self, units: int, activation: str | None = None, use_bias: bool = True, flatten: bool = True,
                 dtype: Any = "float32", weight_initializer: Any = None, bias_initializer: Any = "zeros", in_units: int = 0,
                 **kwargs: Any) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self._flatten = flatten
        with self.name_scope():
            self._units, self._in_units = units, in_units
            self.weight = self.params.get("weight", shape=(units, in_units), init=weight_initializer, dtype=dtype,
                                          allow_deferred_init=True)  # fmt: skip
            self.bias = self.params.get("bias", shape=(units,), init=bias_initializer, dtype=dtype,
                                        allow_deferred_init=True) if use_bias else None  # fmt: skip
            self.act = Activation(activation, prefix=activation + "_") if activation is not None else None

    def hybrid_forward(self, F: Any, x: Any, weight: Any, bias: Any = None) -> Any:
        """The operator FullyConnected, and the activation."""
        y = F.FullyConnected(x, weight, bias, no_bias=bias is None, num_hidden=self._units, flatten=self._flatten, name="fwd")
        return y if self.act is None else self.act(y)

    def __repr__(self) -> str:
        shape = self.weight.shape
        return f"{type(self).__name__}({shape[1] or None} -> {shape[0]}, {self.act or 'linear'})"


class Dropout(HybridBlock):
    """While training, zeros a part `rate` of x and scales up the rest; the same along `axes`."""

    def __init__(self, rate: float, axes: Any = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rate, self._axes = rate, axes

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The operator Dropout."""
        if self._rate > 0:
            return F.Dropout(x, p=self._rate, axes=self._axes, name="fwd", cudnn_off=False)
        return F.identity(x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p = {self._rate}, axes={self._axes})"


class Embedding(HybridBlock):
    """Rows of a matrix (input_dim, output_dim) by the integers in x."""

    def __init__(self, input_dim: int, output_dim: int, dtype: Any = "float32", weight_initializer: Any = None,
                 sparse_grad: bool = False, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self._kwargs = {"input_dim": input_dim, "output_dim": output_dim, "dtype": dtype, "sparse_grad": sparse_grad}
        self.weight = self.params.get("weight", shape=(input_dim, output_dim), init=weight_initializer, dtype=dtype,
                                      allow_deferred_init=True, grad_stype="row_sparse" if sparse_grad else "default")  # fmt: skip

    def hybrid_forward(self, F: Any, x: Any, weight: Any) -> Any:
        """The operator Embedding."""
        return F.Embedding(x, weight, name="fwd", **self._kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._kwargs['input_dim']} -> {self._kwargs['output_dim']}, {self._kwargs['dtype']})"


class Flatten(HybridBlock):
    """x as (batch, everything else)."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The operator Flatten."""
        return F.Flatten(x)

    def __repr__(self) -> str:
        return type(self).__name__


class Lambda(Block):
    """A function of arrays, or the name of an operator, as a Block."""

    def __init__(self, function: Any, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        if isinstance(function, str):
            if not hasattr(ndarray, function):
                raise AssertionError(f"Lambda: mx.nd has no function {function}")
            self._func_impl = getattr(ndarray, function)
        elif callable(function):
            self._func_impl = function
        else:
            raise ValueError(f"a lambda layer takes a function or the name of one, not {function} of {type(function)}")

    def forward(self, *args: Any) -> Any:
        """The function."""
        return self._func_impl(*args)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._func_impl.__name__})"


class HybridLambda(HybridBlock):
    """A function `f(F, x, ...)`, or the name of an operator, as a HybridBlock."""

    def __init__(self, function: Any, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        if isinstance(function, str):
            if not hasattr(ndarray, function) or not hasattr(symbol, function):
                raise AssertionError(f"HybridLambda: mx.nd and mx.sym have no function {function}")
            self._func_name = function
            self._func: Any = lambda F, *args: getattr(F, function)(*args)
        elif callable(function):
            self._func, self._func_name = function, function.__name__
        else:
            raise ValueError(f"a lambda layer takes a function or the name of one, not {function} of {type(function)}")

    def hybrid_forward(self, F: Any, x: Any, *args: Any) -> Any:
        """The function."""
        return self._func(F, x, *args)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._func_name})"
