"""Cells whose products with input and state are convolutions, for sequences of images."""

from __future__ import annotations

from functools import partial
from typing import Any

from diptych.mxnet import symbol as sym
from diptych.mxnet.rnn.cells import GatedCell, GRUStep, LSTMStep, PlainStep, RNNParams

__all__ = ["BaseConvRNNCell", "ConvGRUCell", "ConvLSTMCell", "ConvRNNCell"]

_leaky = partial(sym.LeakyReLU, act_type="leaky", slope=0.2)


class BaseConvRNNCell(GatedCell):
    """The base class of convolutional cells.

    The state has `num_hidden` channels and the size of the convolved input. The convolution of the state keeps its size, so
    that its kernel must be odd.
    """

    _default_prefix = ""

    def __init__(self, input_shape: Any, num_hidden: int, h2h_kernel: Any = (3, 3), h2h_dilate: Any = (1, 1), i2h_kernel: Any = (3, 3),
                 i2h_stride: Any = (1, 1), i2h_pad: Any = (1, 1), i2h_dilate: Any = (1, 1), i2h_weight_initializer: Any = None,
                 h2h_weight_initializer: Any = None, i2h_bias_initializer: Any = "zeros", h2h_bias_initializer: Any = "zeros",
                 activation: Any = _leaky, prefix: str | None = None, params: RNNParams | None = None,
                 conv_layout: str = "NCHW") -> None:  # fmt: skip
        super().__init__(self._default_prefix if prefix is None else prefix, params)
        if any(k % 2 == 0 for k in h2h_kernel):
            raise AssertionError(f"{type(self).__name__}: h2h_kernel={h2h_kernel} must be odd: the state keeps its size")
        self._num_hidden, self._state_layout, self._activation = num_hidden, conv_layout, activation
        self._i2h = {"kernel": i2h_kernel, "stride": i2h_stride, "pad": i2h_pad, "dilate": i2h_dilate, "layout": conv_layout}
        same = tuple(d * (k - 1) // 2 for k, d in zip(h2h_kernel, h2h_dilate))
        self._h2h = {"kernel": h2h_kernel, "stride": (1,) * len(same), "pad": same, "dilate": h2h_dilate, "layout": conv_layout}
        once = sym.Convolution(sym.Variable("data"), num_filter=num_hidden, **self._i2h)
        self._state_shape = (0, *once.infer_shape(data=input_shape)[1][0][1:])
        self._make_weights((i2h_weight_initializer, h2h_weight_initializer), (i2h_bias_initializer, h2h_bias_initializer))

    def _products(self, inputs: Any, state: Any, name: str) -> tuple[Any, Any]:
        channels = self._num_hidden * len(self._gate_names)
        return (sym.Convolution(inputs, self._iW, self._iB, num_filter=channels, name=f"{name}i2h", **self._i2h),
                sym.Convolution(state, self._hW, self._hB, num_filter=channels, name=f"{name}h2h", **self._h2h))  # fmt: skip


class ConvRNNCell(PlainStep, BaseConvRNNCell):
    """A plain convolutional cell.

    >>> import diptych.mxnet as mx
    >>> cell = mx.rnn.ConvRNNCell((1, 3, 16, 10), num_hidden=4)
    >>> outputs, _ = cell.unroll(2, [mx.sym.Variable("a"), mx.sym.Variable("b")])
    >>> mx.sym.Group(outputs).infer_shape(a=(1, 3, 16, 10), b=(1, 3, 16, 10))[1]
    [(1, 4, 16, 10), (1, 4, 16, 10)]
    """

    _default_prefix = "ConvRNN_"


class ConvLSTMCell(LSTMStep, BaseConvRNNCell):
    """A convolutional long short-term memory cell (Shi et al. 2015, without peepholes)."""

    _default_prefix = "ConvLSTM_"


class ConvGRUCell(GRUStep, BaseConvRNNCell):
    """A convolutional gated recurrent unit, with the reset gate after the convolution."""

    _default_prefix = "ConvGRU_"
