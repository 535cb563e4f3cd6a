"""Recurrent layers over whole sequences: the operator RNN."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from diptych.mxnet import ndarray, symbol
from diptych.mxnet.gluon.block import HybridBlock
from diptych.mxnet.gluon.parameter import Parameter, tensor_types
from diptych.mxnet.gluon.rnn.modifiers import BidirectionalCell, DropoutCell
from diptych.mxnet.gluon.rnn.rnn_cell import GRUCell, HybridSequentialRNNCell, LSTMCell, RNNCell
from diptych.mxnet.ndarray.ndarray import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GRU", "LSTM", "RNN"]

_NAME = re.compile(r"(l|r)(\d+)_(i2h|h2h|h2r)_(weight|bias)\Z")


class _RNNLayer(HybridBlock):
    """What the three layers share."""

    def __init__(self, hidden_size: int, num_layers: int, layout: str, dropout: float, bidirectional: bool, input_size: int,
                 i2h_weight_initializer: Any, h2h_weight_initializer: Any, i2h_bias_initializer: Any, h2h_bias_initializer: Any,
                 mode: str, projection_size: int | None = None, h2r_weight_initializer: Any = None,
                 lstm_state_clip_min: float | None = None, lstm_state_clip_max: float | None = None,
                 lstm_state_clip_nan: bool | None = None, dtype: Any = "float32", use_sequence_length: bool = False,
                 **kwargs: Any) -> None:  # fmt: skip
        super().__init__(**kwargs)
        if layout not in ("TNC", "NTC"):
            raise AssertionError(f"layout={layout!r}: there are 'TNC' and 'NTC'")
        self._hidden_size, self._projection_size, self._num_layers = hidden_size, projection_size or None, num_layers
        self._mode, self._layout, self._dropout = mode, layout, dropout
        self._dir = 2 if bidirectional else 1
        self._input_size = input_size
        self._clip = {k: v for k, v in (("lstm_state_clip_min", lstm_state_clip_min), ("lstm_state_clip_max", lstm_state_clip_max),
                                        ("lstm_state_clip_nan", lstm_state_clip_nan)) if v is not None}  # fmt: skip
        self._dtype, self._use_sequence_length = dtype, use_sequence_length
        self._gates = {"rnn_relu": 1, "rnn_tanh": 1, "lstm": 4, "gru": 3}[mode]
        self.skip_states = False
        ng, nh, np_ = self._gates, hidden_size, self._projection_size
        ni = input_size
        for i in range(num_layers):
            for j in ("l", "r")[: self._dir]:
                self._register(f"{j}{i}_i2h_weight", (ng * nh, ni), i2h_weight_initializer)
                self._register(f"{j}{i}_h2h_weight", (ng * nh, np_ or nh), h2h_weight_initializer)
                self._register(f"{j}{i}_i2h_bias", (ng * nh,), i2h_bias_initializer)
                self._register(f"{j}{i}_h2h_bias", (ng * nh,), h2h_bias_initializer)
                if np_:
                    self._register(f"{j}{i}_h2r_weight", (np_, nh), h2r_weight_initializer)
            ni = (np_ or nh) * self._dir

    def _register(self, name: str, shape: tuple[int, ...], init: Any) -> None:
        setattr(self, name, self.params.get(name, shape=shape, init=init, allow_deferred_init=True, dtype=self._dtype))

    def __repr__(self) -> str:
        shape = self.l0_i2h_weight.shape  # type: ignore[attr-defined]
        text = f"{type(self).__name__}({shape[1] or None} -> {shape[0] // self._gates}, {self._layout}"
        if self._num_layers != 1:
            text += f", num_layers={self._num_layers}"
        if self._dropout != 0:
            text += f", dropout={self._dropout}"
        if self._dir == 2:
            text += ", bidirectional"
        return text + ")"

    def _collect_params_with_prefix(self, prefix: str = "") -> dict[str, Parameter]:
        """Files name the parameters as those of a stack of cells, as MXNet's first layers were."""
        prefix = prefix + "." if prefix else ""
        found = {}
        for key, param in self._reg_params.items():
            m = _NAME.match(key)
            assert m is not None
            d, layer, g, t = m.groups()
            found[f"{prefix}_unfused.{layer}.{d}_cell.{g}_{t}" if self._dir == 2 else f"{prefix}_unfused.{layer}.{g}_{t}"] = param
        return found

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape and layout of each state."""
        shape = (self._num_layers * self._dir, batch_size, self._projection_size or self._hidden_size)
        return [{"shape": shape, "__layout__": "LNC", "dtype": self._dtype}]

    def cast(self, dtype: Any) -> None:
        """Change the element type."""
        super().cast(dtype)
        self._dtype = dtype

    def begin_state(self, batch_size: int = 0, func: Callable[..., Any] = ndarray.zeros, **kwargs: Any) -> list[Any]:
        """The first states: what `func` makes of their shapes."""
        return [func(name=f"{self.prefix}h0_{i}", **{**info, **kwargs}) for i, info in enumerate(self.state_info(batch_size))]

    def _unfuse(self) -> HybridSequentialRNNCell:
        """The same layers as a stack of cells that share the parameters."""
        if self._projection_size or self._clip:
            raise AssertionError("cells of a layer with a projection or clipped states are not there")
        make: Any = {"rnn_relu": lambda **kw: RNNCell(self._hidden_size, activation="relu", **kw),
                "rnn_tanh": lambda **kw: RNNCell(self._hidden_size, activation="tanh", **kw),
                "lstm": lambda **kw: LSTMCell(self._hidden_size, **kw),
                "gru": lambda **kw: GRUCell(self._hidden_size, **kw)}[self._mode]  # fmt: skip
        stack = HybridSequentialRNNCell(prefix=self.prefix, params=self.params)
        with stack.name_scope():
            ni = self._input_size
            for i in range(self._num_layers):
                left = make(prefix=f"l{i}_", input_size=ni)
                if self._dir == 2:
                    stack.add(BidirectionalCell(left, make(prefix=f"r{i}_", input_size=ni)))
                else:
                    stack.add(left)
                if self._dropout > 0 and i != self._num_layers - 1:
                    stack.add(DropoutCell(self._dropout))
                ni = self._hidden_size * self._dir
        return stack

    def infer_shape(self, inputs: Any, *args: Any) -> None:
        """The shapes of the parameters from that of the input."""
        if len(inputs.shape) != 3:
            raise AssertionError(f"Input data should be rank-3 tensor of dim [sequence length, batch size, input size], got {inputs.shape}")
        ni = inputs.shape[2]
        for i in range(self._num_layers):
            for j in ("l", "r")[: self._dir]:
                self._reg_params[f"{j}{i}_i2h_weight"].shape = (self._gates * self._hidden_size, ni)
            ni = (self._projection_size or self._hidden_size) * self._dir

    def __call__(  # type: ignore[override]  # the states are an argument by name, as in MXNet
        self, inputs: Any, states: Any = None, sequence_length: Any = None, **kwargs: Any
    ) -> Any:
        self.skip_states = states is None
        if states is None:
            if isinstance(inputs, NDArray):
                batch = inputs.shape[self._layout.find("N")]
                states = self.begin_state(batch, ctx=inputs.context, dtype=inputs.dtype)
            else:
                states = self.begin_state(0, func=symbol.zeros)
        if isinstance(states, tensor_types):
            states = [states]
        if sequence_length is not None:
            return super().__call__(inputs, states, sequence_length, **kwargs)
        return super().__call__(inputs, states, **kwargs)

    def hybrid_forward(self, F: Any, inputs: Any, states: Any, sequence_length: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """The operator RNN."""
        if F is ndarray:
            batch = inputs.shape[self._layout.find("N")]
            for state, info in zip(states, self.state_info(batch)):
                if state.shape != info["shape"]:
                    raise ValueError(f"the state is {state.shape}, the layer has {info['shape']}")
        out = self._run(F, inputs, states, sequence_length, kwargs)
        return out[0] if self.skip_states else out

    def _run(self, F: Any, inputs: Any, states: Any, sequence_length: Any, p: dict[str, Any]) -> tuple[Any, list[Any]]:
        if self._layout == "NTC":
            inputs = F.swapaxes(inputs, dim1=0, dim2=1)
        parts = [p[f"{d}{i}_{g}_{t}"].reshape((-1,)) for t in ("weight", "bias") for i in range(self._num_layers)
                 for d in ("l", "r")[: self._dir]
                 for g in (("i2h", "h2h", "h2r") if self._projection_size and t == "weight" else ("i2h", "h2h"))]  # fmt: skip
        packed = F._internal._rnn_param_concat(*parts, dim=0)
        options: dict[str, Any] = dict(self._clip)
        if self._projection_size:
            options["projection_size"] = self._projection_size
        operands = list(states)
        if self._use_sequence_length:
            operands.append(sequence_length)
            options["use_sequence_length"] = True
        out = F.RNN(inputs, packed, *operands, state_size=self._hidden_size, num_layers=self._num_layers, bidirectional=self._dir == 2,
                    p=self._dropout, state_outputs=True, mode=self._mode, **options)  # fmt: skip
        outputs, states = out[0], [out[1], out[2]] if self._mode == "lstm" else [out[1]]
        if self._layout == "NTC":
            outputs = F.swapaxes(outputs, dim1=0, dim2=1)
        return outputs, states


class RNN(_RNNLayer):
    """Layers of h' = activation(W x + b + U h + c) over a sequence.

    >>> from diptych.mxnet import nd
    >>> layer = RNN(3, num_layers=2)
    >>> layer.initialize()
    >>> layer(nd.ones((5, 2, 4))).shape
    (5, 2, 3)
    """

    def __init__(self, hidden_size: int, num_layers: int = 1, activation: str = "relu", layout: str = "TNC", dropout: float = 0,
                 bidirectional: bool = False, i2h_weight_initializer: Any = None, h2h_weight_initializer: Any = None,
                 i2h_bias_initializer: Any = "zeros", h2h_bias_initializer: Any = "zeros", input_size: int = 0,
                 dtype: Any = "float32", **kwargs: Any) -> None:  # fmt: skip
        super().__init__(hidden_size, num_layers, layout, dropout, bidirectional, input_size, i2h_weight_initializer,
                         h2h_weight_initializer, i2h_bias_initializer, h2h_bias_initializer, "rnn_" + activation, dtype=dtype,
                         **kwargs)  # fmt: skip


class LSTM(_RNNLayer):
    """Layers of long short-term memory over a sequence."""

    def __init__(self, hidden_size: int, num_layers: int = 1, layout: str = "TNC", dropout: float = 0, bidirectional: bool = False,
                 input_size: int = 0, i2h_weight_initializer: Any = None, h2h_weight_initializer: Any = None,
                 i2h_bias_initializer: Any = "zeros", h2h_bias_initializer: Any = "zeros", projection_size: int | None = None,
                 h2r_weight_initializer: Any = None, state_clip_min: float | None = None, state_clip_max: float | None = None,
                 state_clip_nan: bool = False, dtype: Any = "float32", **kwargs: Any) -> None:  # fmt: skip
        super().__init__(hidden_size, num_layers, layout, dropout, bidirectional, input_size, i2h_weight_initializer,
                         h2h_weight_initializer, i2h_bias_initializer, h2h_bias_initializer, "lstm", projection_size,
                         h2r_weight_initializer, state_clip_min, state_clip_max, state_clip_nan or None, dtype=dtype, **kwargs)

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape and layout of h and c."""
        n = self._num_layers * self._dir
        return [{"shape": (n, batch_size, size), "__layout__": "LNC", "dtype": self._dtype}
                for size in (self._projection_size or self._hidden_size, self._hidden_size)]  # fmt: skip


class GRU(_RNNLayer):
    """Layers of gated recurrent units over a sequence."""

    def __init__(self, hidden_size: int, num_layers: int = 1, layout: str = "TNC", dropout: float = 0, bidirectional: bool = False,
                 input_size: int = 0, i2h_weight_initializer: Any = None, h2h_weight_initializer: Any = None,
                 i2h_bias_initializer: Any = "zeros", h2h_bias_initializer: Any = "zeros", dtype: Any = "float32",
                 **kwargs: Any) -> None:  # fmt: skip
        super().__init__(hidden_size, num_layers, layout, dropout, bidirectional, input_size, i2h_weight_initializer,
                         h2h_weight_initializer, i2h_bias_initializer, h2h_bias_initializer, "gru", dtype=dtype, **kwargs)
