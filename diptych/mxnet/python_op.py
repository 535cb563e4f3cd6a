"""Operators written in Python as before MXNet 0.9: `NumpyOp` and `NDArrayOp`. `CustomOp` has taken their place."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

from diptych.mxnet.operator import CustomOp, CustomOpProp, register

__all__ = ["NDArrayOp", "NumpyOp", "PythonOp"]

_count = itertools.count()


class PythonOp:
    """The base of both; subclasses give `forward`, `backward`, and where they differ `infer_shape` and the lists of names."""

    def __init__(self, need_top_grad: bool = True) -> None:
        self.need_top_grad_ = need_top_grad
        warnings.warn(f"{type(self).__name__}: PythonOp has been deprecated. Please use CustomOp", stacklevel=3)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.get_symbol(*args, **kwargs)

    def get_symbol(self, *args: Any, **kwargs: Any) -> Any:
        """The symbol of this operator on symbols."""
        raise NotImplementedError("Must override this")

    def forward(self, in_data: list[Any], out_data: list[Any]) -> None:
        """Write the results."""
        out_data[0][:] = in_data[0]

    def backward(self, out_grad: list[Any], in_data: list[Any], out_data: list[Any], in_grad: list[Any]) -> None:
        """Write the gradients of the operands."""
        in_grad[0][:] = 1.0

    def infer_shape(self, in_shape: list[Any]) -> Any:
        """Shapes of operands and results."""
        return in_shape, [in_shape[0]]

    def list_outputs(self) -> list[str]:
        """Names of the results."""
        return ["output"]

    def list_arguments(self) -> list[str]:
        """Names of the operands."""
        return ["data"]

    def need_top_grad(self) -> bool:
        """Whether the gradient that arrives is asked for; False for losses."""
        return self.need_top_grad_

    def _symbol(self, args: Any, kwargs: dict[str, Any], seen: Any) -> Any:
        """The symbol of a custom operator that calls this one, on arrays as `seen` shows them."""
        from diptych.mxnet import symbol

        inner = self

        class Operator(CustomOp):
            def forward(self, is_train: bool, req: list[str], in_data: list[Any], out_data: list[Any], aux: list[Any]) -> None:
                inner.forward(in_data=seen(in_data), out_data=seen(out_data))

            def backward(self, req: list[str], out_grad: list[Any], in_data: list[Any], out_data: list[Any], in_grad: list[Any],
                         aux: list[Any]) -> None:  # fmt: skip
                heads = seen(out_grad) if inner.need_top_grad() else []
                inner.backward(out_grad=heads, in_data=seen(in_data), out_data=seen(out_data), in_grad=seen(in_grad))

        class Property(CustomOpProp):
            def __init__(self) -> None:
                super().__init__(need_top_grad=inner.need_top_grad())

            def infer_shape(self, in_shape: list[Any]) -> Any:
                operands, results = inner.infer_shape(in_shape)
                return operands, results, []

            def list_outputs(self) -> list[str]:
                return inner.list_outputs()

            def list_arguments(self) -> list[str]:
                return inner.list_arguments()

            def create_operator(self, ctx: Any, in_shapes: list[Any], in_dtypes: list[Any]) -> CustomOp:
                return Operator()

        name = f"_native_{next(_count)}"
        register(name)(Property)
        custom: Any = symbol.Custom
        return custom(*args, op_type=name, **kwargs)


class NumpyOp(PythonOp):
    """An operator on NumPy arrays, written to in place.

    >>> import warnings, diptych.mxnet as mx
    >>> class Double(mx.operator.NumpyOp):
    ...     def forward(self, in_data, out_data):
    ...         out_data[0][:] = 2 * in_data[0]
    >>> with warnings.catch_warnings(action="ignore"):
    ...     y = Double()(mx.sym.Variable("x"), name="y")
    >>> y.eval(x=mx.nd.ones((2,)))[0].asnumpy()
    array([2., 2.], dtype=float32)
    """

    def get_symbol(self, *args: Any, **kwargs: Any) -> Any:
        """The symbol of this operator on symbols."""
        return self._symbol(args, kwargs, lambda arrays: [x._data for x in arrays])


class NDArrayOp(PythonOp):
    """An operator on NDArrays, written to in place."""

    def get_symbol(self, *args: Any, **kwargs: Any) -> Any:
        """The symbol of this operator on symbols."""
        return self._symbol(args, kwargs, list)

    def declare_backward_dependency(self, out_grad: list[int], in_data: list[int], out_data: list[int]) -> list[int]:
        """What `backward` reads; everything is at hand anyway."""
        return [*(out_grad if self.need_top_grad() else []), *in_data, *out_data]
