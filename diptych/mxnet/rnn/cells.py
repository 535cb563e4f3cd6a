"""Cells: one step of a recurrent network as symbols."""

from __future__ import annotations

from typing import Any

from diptych.mxnet import ndarray as nd
from diptych.mxnet import symbol as sym
from diptych.mxnet.initializer import LSTMBias
from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["BaseRNNCell", "GRUCell", "GRUStep", "GatedCell", "LSTMCell", "LSTMStep", "PlainStep", "RNNCell", "RNNParams", "sequence"]


def sequence(length: int | None, inputs: Any, layout: str, merge: bool | None, in_layout: str | None = None) -> tuple[Any, int]:
    """Inputs as one symbol (merge=True), as a list by step (False), or as they are (None); and the axis of time."""
    if inputs is None:
        raise AssertionError("unroll needs inputs: make variables for them before")
    axis = layout.find("T")
    in_axis = in_layout.find("T") if in_layout is not None else axis
    if isinstance(inputs, Symbol):
        if merge is False:
            if len(inputs.list_outputs()) != 1:
                raise AssertionError("unroll takes one symbol or a list, not a group: list(inputs) makes one")
            return list(sym.split(inputs, axis=in_axis, num_outputs=length, squeeze_axis=1)), axis
    else:
        if length is not None and len(inputs) != length:
            raise AssertionError(f"{len(inputs)} inputs for {length} steps")
        if merge is True:
            inputs = sym.Concat(*[sym.expand_dims(i, axis=axis) for i in inputs], dim=axis)
            in_axis = axis
    if isinstance(inputs, Symbol) and axis != in_axis:
        inputs = sym.swapaxes(inputs, dim1=axis, dim2=in_axis)
    return inputs, axis


class RNNParams:
    """Variables by name with a prefix; cells that share it share weights."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._params: dict[str, Any] = {}

    def get(self, name: str, **kwargs: Any) -> Any:
        """The variable of this name, made on first use."""
        name = self._prefix + name
        if name not in self._params:
            self._params[name] = sym.Variable(name, **kwargs)
        return self._params[name]


class BaseRNNCell:
    """The base class of cells: `cell(input, states)` gives (output, states); `unroll` gives those of all steps."""

    _num_hidden: int = 0
    _gate_names: tuple[str, ...] = ()
    _cells: list[Any] = []

    def __init__(self, prefix: str = "", params: RNNParams | None = None) -> None:
        self._own_params = params is None
        self._prefix = prefix
        self._params = RNNParams(prefix) if params is None else params
        self._modified = False
        self.reset()

    def reset(self) -> None:
        """Begin another unrolling: names count from 0 again."""
        self._init_counter = -1
        self._counter = -1
        for cell in self._cells:
            cell.reset()

    def __call__(self, inputs: Any, states: Any) -> Any:
        """One step."""
        raise NotImplementedError

    @property
    def params(self) -> RNNParams:
        """The variables."""
        self._own_params = False
        return self._params

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """Shape and layout of each state; 0 for the size of the batch."""
        raise NotImplementedError

    @property
    def state_shape(self) -> list[Any]:
        """Shapes of the states."""
        return [info["shape"] for info in self.state_info]

    def _check_free(self) -> None:
        if self._modified:
            raise AssertionError("this cell has a modifier (ZoneoutCell or the like) around it: call the modifier")

    def _step(self) -> str:
        self._counter += 1
        return f"{self._prefix}t{self._counter}_"

    def _get_activation(self, inputs: Any, activation: Any, **kwargs: Any) -> Any:
        if isinstance(activation, str):
            return sym.Activation(inputs, act_type=activation, **kwargs)
        return activation(inputs, **kwargs)

    def begin_state(self, func: Any = None, **kwargs: Any) -> list[Any]:
        """The states before the first step: zeros, or `func(name=, shape=, ...)`."""
        self._check_free()
        func = func or sym.zeros
        out = []
        for info in self.state_info:
            self._init_counter += 1
            out.append(func(name=f"{self._prefix}begin_state_{self._init_counter}", **{**kwargs, **(info or {})}))
        return out

    def unpack_weights(self, args: dict[str, Any]) -> dict[str, Any]:
        """Parameters with the weights of each gate on their own."""
        args, h = dict(args), self._num_hidden
        if not self._gate_names:
            return args
        for group in ("i2h", "h2h"):
            for kind in ("weight", "bias"):
                whole = args.pop(f"{self._prefix}{group}_{kind}")
                for j, gate in enumerate(self._gate_names):
                    args[f"{self._prefix}{group}{gate}_{kind}"] = whole[j * h : (j + 1) * h].copy()
        return args

    def pack_weights(self, args: dict[str, Any]) -> dict[str, Any]:
        """Parameters with the weights of all gates in one array, as the cell has them."""
        args = dict(args)
        if not self._gate_names:
            return args
        for group in ("i2h", "h2h"):
            for kind in ("weight", "bias"):
                parts = [args.pop(f"{self._prefix}{group}{gate}_{kind}") for gate in self._gate_names]
                args[f"{self._prefix}{group}_{kind}"] = nd.concatenate(parts)
        return args

    def unroll(self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC", merge_outputs: bool | None = None) -> Any:
        """(outputs, states) of `length` steps; outputs as one symbol if merge_outputs, else a list."""
        self.reset()
        steps, _ = sequence(length, inputs, layout, False)
        states = self.begin_state() if begin_state is None else begin_state
        outputs = []
        for i in range(length):
            output, states = self(steps[i], states)
            outputs.append(output)
        merged, _ = sequence(length, outputs, layout, merge_outputs)
        return merged, states


class GatedCell(BaseRNNCell):
    """Cells with weights from the input and from the state, as products or convolutions."""

    _states = 1
    _gate_names: tuple[str, ...] = ("",)
    _activation: Any = "tanh"
    _state_shape: tuple[int, ...] = ()
    _state_layout = "NC"

    def _make_weights(self, weights: tuple[Any, Any] = (None, None), biases: tuple[Any, Any] = (None, None)) -> None:
        """The variables of input and of state, each with its initializer."""
        self._iW, self._hW = (self.params.get(f"{g}_weight", init=w) for g, w in zip(("i2h", "h2h"), weights))
        self._iB, self._hB = (self.params.get(f"{g}_bias", init=b) for g, b in zip(("i2h", "h2h"), biases))

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """Shape and layout of the states."""
        return [{"shape": self._state_shape, "__layout__": self._state_layout}] * self._states

    def _products(self, inputs: Any, state: Any, name: str) -> tuple[Any, Any]:
        raise NotImplementedError

    def _parts(self, gates: Any, name: str) -> Any:
        axis = self._state_layout.find("C")
        return sym.SliceChannel(gates, num_outputs=len(self._gate_names), axis=axis, name=name)


class PlainStep(GatedCell):
    """The step of a plain recurrent cell."""

    def __call__(self, inputs: Any, states: Any) -> Any:
        """One step."""
        name = self._step()
        i2h, h2h = self._products(inputs, states[0], name)
        output = self._get_activation(i2h + h2h, self._activation, name=f"{name}out")
        return output, [output]


class LSTMStep(GatedCell):
    """The step of a long short-term memory cell."""

    _states = 2
    _gate_names = ("_i", "_f", "_c", "_o")

    def __call__(self, inputs: Any, states: Any) -> Any:
        """One step."""
        name = self._step()
        i2h, h2h = self._products(inputs, states[0], name)
        i, f, c, o = self._parts(i2h + h2h, f"{name}slice")
        i, f, o = (sym.Activation(x, act_type="sigmoid", name=name + gate) for x, gate in ((i, "i"), (f, "f"), (o, "o")))
        memory = sym._internal._plus(f * states[1], i * self._get_activation(c, self._activation, name=f"{name}c"), name=f"{name}state")
        output = sym._internal._mul(o, self._get_activation(memory, self._activation), name=f"{name}out")
        return output, [output, memory]


class GRUStep(GatedCell):
    """The step of a gated recurrent unit, with the reset gate after the product (as cuDNN has it)."""

    _gate_names = ("_r", "_z", "_o")

    def __call__(self, inputs: Any, states: Any) -> Any:
        """One step."""
        name = self._step()
        i2h, h2h = self._products(inputs, states[0], name)
        ir, iz, io = self._parts(i2h, f"{name}_i2h_slice")
        hr, hz, ho = self._parts(h2h, f"{name}_h2h_slice")
        reset = sym.Activation(ir + hr, act_type="sigmoid", name=f"{name}_r_act")
        keep = sym.Activation(iz + hz, act_type="sigmoid", name=f"{name}_z_act")
        new = self._get_activation(io + reset * ho, self._activation, name=f"{name}_h_act")
        output = sym._internal._plus((1.0 - keep) * new, keep * states[0], name=f"{name}out")
        return output, [output]


class _Dense(GatedCell):
    """Cells whose products are matrix products."""

    def __init__(self, num_hidden: int, prefix: str, params: RNNParams | None, bias: Any = None) -> None:
        super().__init__(prefix, params)
        self._num_hidden, self._state_shape = num_hidden, (0, num_hidden)
        self._make_weights(biases=(bias, None))

    def _products(self, inputs: Any, state: Any, name: str) -> tuple[Any, Any]:
        size = self._num_hidden * len(self._gate_names)
        return (sym.FullyConnected(inputs, self._iW, self._iB, num_hidden=size, name=f"{name}i2h"),
                sym.FullyConnected(state, self._hW, self._hB, num_hidden=size, name=f"{name}h2h"))  # fmt: skip


class RNNCell(PlainStep, _Dense):
    """A plain recurrent cell."""

    def __init__(self, num_hidden: int, activation: Any = "tanh", prefix: str = "rnn_", params: RNNParams | None = None) -> None:
        super().__init__(num_hidden, prefix, params)
        self._activation = activation


class LSTMCell(LSTMStep, _Dense):
    """A long short-term memory cell."""

    def __init__(self, num_hidden: int, prefix: str = "lstm_", params: RNNParams | None = None, forget_bias: float = 1.0) -> None:
        super().__init__(num_hidden, prefix, params, LSTMBias(forget_bias=forget_bias))


class GRUCell(GRUStep, _Dense):
    """A gated recurrent unit, with the reset gate after the product (as cuDNN has it)."""

    def __init__(self, num_hidden: int, prefix: str = "gru_", params: RNNParams | None = None) -> None:
        super().__init__(num_hidden, prefix, params)

    def _products(self, inputs: Any, state: Any, name: str) -> tuple[Any, Any]:
        return super()._products(inputs, state, f"{name}_")  # MXNet's names of this cell have two strokes
