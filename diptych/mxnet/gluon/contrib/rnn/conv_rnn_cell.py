"""Recurrent cells whose products with input and state are convolutions over one, two or three axes."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon.nn.conv_layers import spread
from diptych.mxnet.gluon.rnn.rnn_cell import HybridRecurrentCell

__all__ = [
    "Conv1DGRUCell", "Conv1DLSTMCell", "Conv1DRNNCell", "Conv2DGRUCell", "Conv2DLSTMCell", "Conv2DRNNCell", "Conv3DGRUCell",
    "Conv3DLSTMCell", "Conv3DRNNCell",
]  # fmt: skip


class _ConvCell(HybridRecurrentCell):
    """Parameters, shapes and the two convolutions of these cells.

    `input_shape` is the shape of a step without the batch, its number of channels 0 where unknown. The convolution of the state
    keeps its size, so that its kernel must be odd.
    """

    _dims = 2
    _layout = "NCHW"
    _gate_names: tuple[str, ...] = ("",)
    _states = 1
    _kind = "conv_rnn"

    def __init__(self, input_shape: Any, hidden_channels: int, i2h_kernel: Any, h2h_kernel: Any, i2h_pad: Any = 0, i2h_dilate: Any = 1,
                 h2h_dilate: Any = 1, i2h_weight_initializer: Any = None, h2h_weight_initializer: Any = None,
                 i2h_bias_initializer: Any = "zeros", h2h_bias_initializer: Any = "zeros", conv_layout: str | None = None,
                 activation: Any = "tanh", prefix: str | None = None, params: Any = None) -> None:  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        n, layout = self._dims, conv_layout or self._layout
        kernel, pad, dilate, state_kernel, state_dilate = (
            self._extents(name, value) for name, value in (("i2h_kernel", i2h_kernel), ("i2h_pad", i2h_pad), ("i2h_dilate", i2h_dilate),
                                                           ("h2h_kernel", h2h_kernel), ("h2h_dilate", h2h_dilate)))  # fmt: skip
        if any(k % 2 == 0 for k in state_kernel):
            raise AssertionError(f"{type(self).__name__}: h2h_kernel={h2h_kernel} must be odd: the state keeps its size")
        same = tuple(d * (k - 1) // 2 for d, k in zip(state_dilate, state_kernel))
        self._activation, self._conv_layout, self._channel_axis = activation, layout, layout.find("C")
        self._hidden_channels = hidden_channels
        gates = hidden_channels * len(self._gate_names)
        self._i2h = {"kernel": kernel, "stride": (1,) * n, "pad": pad, "dilate": dilate, "num_filter": gates, "layout": layout}
        self._h2h = {"kernel": state_kernel, "stride": (1,) * n, "pad": same, "dilate": state_dilate, "num_filter": gates, "layout": layout}
        first = self._channel_axis == 1
        in_channels, size = (input_shape[0], input_shape[1:]) if first else (input_shape[-1], input_shape[:-1])
        out = tuple(x + 2 * p - d * (k - 1) if x else 0 for x, k, p, d in zip(size, kernel, pad, dilate))

        def with_channels(channels: int, rest: tuple[int, ...]) -> tuple[int, ...]:
            return (channels, *rest) if first else (*rest, channels)

        self._state_shape = with_channels(hidden_channels, out)
        for name, shape, init in (("i2h_weight", (gates, *with_channels(in_channels, kernel)), i2h_weight_initializer),
                                  ("h2h_weight", (gates, *with_channels(hidden_channels, state_kernel)), h2h_weight_initializer),
                                  ("i2h_bias", (gates,), i2h_bias_initializer), ("h2h_bias", (gates,), h2h_bias_initializer)):  # fmt: skip
            setattr(self, name, self.params.get(name, shape=shape, init=init, allow_deferred_init=True))

    def _extents(self, name: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, int) and len(value) != self._dims:
            raise AssertionError(f"{type(self).__name__}: {name}={value}: one number, or {self._dims}")
        return spread(value, self._dims)

    def _alias(self) -> str:
        return self._kind

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape and layout of each state."""
        return [{"shape": (batch_size, *self._state_shape), "__layout__": self._conv_layout} for _ in range(self._states)]

    def __repr__(self) -> str:
        shape = self.i2h_weight.shape  # type: ignore[attr-defined]
        channels = shape[1 if self._channel_axis == 1 else -1]
        return f"{type(self).__name__}({channels or None} -> {shape[0]}, {self._activation}, {self._conv_layout})"

    def _products(self, F: Any, inputs: Any, state: Any, p: dict[str, Any], prefix: str) -> tuple[Any, Any]:
        return (F.Convolution(inputs, p["i2h_weight"], p["i2h_bias"], name=prefix + "i2h", **self._i2h),
                F.Convolution(state, p["h2h_weight"], p["h2h_bias"], name=prefix + "h2h", **self._h2h))  # fmt: skip

    def _parts(self, F: Any, gates: Any, name: str) -> Any:
        return F.SliceChannel(gates, num_outputs=len(self._gate_names), axis=self._channel_axis, name=name)


class _ConvRNN(_ConvCell):
    def hybrid_forward(self, F: Any, inputs: Any, states: Any, **p: Any) -> Any:  # type: ignore[override]
        """One step."""
        prefix = f"t{self._counter}_"
        i2h, h2h = self._products(F, inputs, states[0], p, prefix)
        out = self._get_activation(F, i2h + h2h, self._activation, name=prefix + "out")
        return out, [out]


class _ConvLSTM(_ConvCell):
    _gate_names = ("_i", "_f", "_c", "_o")
    _states = 2
    _kind = "conv_lstm"

    def hybrid_forward(self, F: Any, inputs: Any, states: Any, **p: Any) -> Any:  # type: ignore[override]
        """One step."""
        prefix = f"t{self._counter}_"
        i2h, h2h = self._products(F, inputs, states[0], p, prefix)
        parts = self._parts(F, i2h + h2h, prefix + "slice")
        i, f, o = (F.Activation(parts[k], act_type="sigmoid", name=prefix + gate) for k, gate in ((0, "i"), (1, "f"), (3, "o")))
        c = self._get_activation(F, parts[2], self._activation, name=prefix + "c")
        memory = F.elemwise_add(f * states[1], i * c, name=prefix + "state")
        out = F.elemwise_mul(o, self._get_activation(F, memory, self._activation), name=prefix + "out")
        return out, [out, memory]


class _ConvGRU(_ConvCell):
    _gate_names = ("_r", "_z", "_o")
    _kind = "conv_gru"

    def hybrid_forward(self, F: Any, inputs: Any, states: Any, **p: Any) -> Any:  # type: ignore[override]
        """One step."""
        prefix = f"t{self._counter}_"
        i2h, h2h = self._products(F, inputs, states[0], p, prefix)
        i_r, i_z, i_h = self._parts(F, i2h, prefix + "i2h_slice")
        h_r, h_z, h_h = self._parts(F, h2h, prefix + "h2h_slice")
        r = F.Activation(i_r + h_r, act_type="sigmoid", name=prefix + "r_act")
        z = F.Activation(i_z + h_z, act_type="sigmoid", name=prefix + "z_act")
        candidate = self._get_activation(F, i_h + r * h_h, self._activation, name=prefix + "h_act")
        out = F.elemwise_add((1.0 - z) * candidate, z * states[0], name=prefix + "out")
        return out, [out]


class Conv1DRNNCell(_ConvRNN):
    """A plain cell on (N, C, W).

    >>> from diptych.mxnet import nd
    >>> cell = Conv1DRNNCell((3, 8), 4, i2h_kernel=3, h2h_kernel=3)
    >>> cell.initialize()
    >>> cell(nd.ones((2, 3, 8)), cell.begin_state(2))[0].shape
    (2, 4, 6)
    """

    _dims, _layout = 1, "NCW"


class Conv2DRNNCell(_ConvRNN):
    """A plain cell on (N, C, H, W)."""


class Conv3DRNNCell(_ConvRNN):
    """A plain cell on (N, C, D, H, W)."""

    _dims, _layout = 3, "NCDHW"


class Conv1DLSTMCell(_ConvLSTM):
    """A long short-term memory (Shi et al. 2015, without peepholes) on (N, C, W)."""

    _dims, _layout = 1, "NCW"


class Conv2DLSTMCell(_ConvLSTM):
    """A long short-term memory (Shi et al. 2015, without peepholes) on (N, C, H, W)."""


class Conv3DLSTMCell(_ConvLSTM):
    """A long short-term memory (Shi et al. 2015, without peepholes) on (N, C, D, H, W)."""

    _dims, _layout = 3, "NCDHW"


class Conv1DGRUCell(_ConvGRU):
    """A gated recurrent unit, its reset gate after the convolution, on (N, C, W)."""

    _dims, _layout = 1, "NCW"


class Conv2DGRUCell(_ConvGRU):
    """A gated recurrent unit, its reset gate after the convolution, on (N, C, H, W)."""


class Conv3DGRUCell(_ConvGRU):
    """A gated recurrent unit, its reset gate after the convolution, on (N, C, D, H, W)."""

    _dims, _layout = 3, "NCDHW"
