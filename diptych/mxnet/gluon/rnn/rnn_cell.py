"""Recurrent cells: one step each, or unrolled over a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.mxnet import ndarray
from diptych.mxnet.gluon.block import Block, HybridBlock
from diptych.mxnet.gluon.nn.activations import LeakyReLU
from diptych.mxnet.gluon.rnn.sequences import begin_state_of, format_sequence, mask_sequence, reverse_sequences
from diptych.mxnet.gluon.utils import indent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "GRUCell", "HybridRecurrentCell", "HybridSequentialRNNCell", "LSTMCell", "RNNCell", "RecurrentCell", "SequentialRNNCell",
]  # fmt: skip

# The names that scripts know.
_format_sequence, _mask_sequence_variable_length, _reverse_sequences = format_sequence, mask_sequence, reverse_sequences
_get_begin_state = begin_state_of


def states_of(cells: Any, batch_size: int) -> list[dict[str, Any]]:
    """The descriptions of the states of cells, one after another."""
    return [info for c in cells for info in c.state_info(batch_size)]


def begin_states(cells: Any, **kwargs: Any) -> list[Any]:
    """The first states of cells, one after another."""
    return [s for c in cells for s in c.begin_state(**kwargs)]


class RecurrentCell(Block):
    """A cell: `cell(input, states)` gives output and new states, `unroll` a whole sequence."""

    def __init__(self, prefix: str | None = None, params: Any = None) -> None:
        super().__init__(prefix=prefix, params=params)
        self._modified = False
        self.reset()

    def reset(self) -> None:
        """Begin a new sequence."""
        self._init_counter = self._counter = -1
        for cell in self._children.values():
            if isinstance(cell, RecurrentCell):
                cell.reset()

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape and layout of each state."""
        raise NotImplementedError

    def begin_state(self, batch_size: int = 0, func: Callable[..., Any] = ndarray.zeros, **kwargs: Any) -> list[Any]:
        """The first states: what `func` (zeros unless told otherwise) makes of their shapes."""
        self._not_modified()
        states = []
        for info in self.state_info(batch_size):
            self._init_counter += 1
            states.append(func(name=f"{self._prefix}begin_state_{self._init_counter}", **{**info, **kwargs}))
        return states

    def _not_modified(self) -> None:
        if self._modified:
            raise AssertionError("this cell has a modifier (ZoneoutCell or the like) around it: call the modifier")

    def unroll(self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC", merge_outputs: bool | None = None,
               valid_length: Any = None) -> tuple[Any, Any]:  # fmt: skip
        """Outputs (one array, or a list when merge_outputs is False) and final states of a sequence."""
        self.reset()
        steps, axis, F, batch = format_sequence(length, inputs, layout, False)
        states = begin_state_of(self, F, begin_state, steps, batch)
        outputs, history = [], []
        for i in range(length):
            output, states = self(steps[i], states)
            outputs.append(output)
            if valid_length is not None:
                history.append(states)
        if valid_length is not None:
            states = [F.SequenceLast(F.stack(*s, axis=0), sequence_length=valid_length, use_sequence_length=True, axis=0)
                      for s in zip(*history)]  # fmt: skip
            outputs = mask_sequence(F, outputs, length, valid_length, axis, True)
        return format_sequence(length, outputs, layout, merge_outputs)[0], states

    def _get_activation(self, F: Any, inputs: Any, activation: Any, **kwargs: Any) -> Any:
        if isinstance(activation, str):
            simple = {"tanh": F.tanh, "relu": F.relu, "sigmoid": F.sigmoid, "softsign": F.softsign}.get(activation)
            if simple is not None:
                return simple(inputs, **kwargs)
            return F.Activation(inputs, act_type=activation, **kwargs)
        if isinstance(activation, LeakyReLU):
            return F.LeakyReLU(inputs, act_type="leaky", slope=activation._alpha, **kwargs)
        return activation(inputs, **kwargs)

    def forward(self, inputs: Any, states: Any) -> Any:
        """One step."""
        self._counter += 1
        return super().forward(inputs, states)


class HybridRecurrentCell(RecurrentCell, HybridBlock):
    """A RecurrentCell that is a HybridBlock."""

    def hybrid_forward(self, F: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        """One step; subclasses define it."""
        raise NotImplementedError


class _GatedCell(HybridRecurrentCell):
    """The parameters and the two products that the basic cells share."""

    _gates = 1
    _kind = "rnn"

    def _make(self, hidden_size: int, input_size: int, i2h_weight: Any, h2h_weight: Any, i2h_bias: Any, h2h_bias: Any) -> None:
        self._hidden_size, self._input_size = hidden_size, input_size
        n = self._gates * hidden_size
        for name, shape, init in (("i2h_weight", (n, input_size), i2h_weight), ("h2h_weight", (n, hidden_size), h2h_weight),
                                  ("i2h_bias", (n,), i2h_bias), ("h2h_bias", (n,), h2h_bias)):  # fmt: skip
            setattr(self, name, self.params.get(name, shape=shape, init=init, allow_deferred_init=True))

    def _alias(self) -> str:
        return self._kind

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape and layout of each state."""
        return [{"shape": (batch_size, self._hidden_size), "__layout__": "NC"}]

    def _products(self, F: Any, inputs: Any, state: Any, p: dict[str, Any], prefix: str) -> tuple[Any, Any]:
        n = self._gates * self._hidden_size
        return (F.FullyConnected(data=inputs, weight=p["i2h_weight"], bias=p["i2h_bias"], num_hidden=n, name=prefix + "i2h"),
                F.FullyConnected(data=state, weight=p["h2h_weight"], bias=p["h2h_bias"], num_hidden=n, name=prefix + "h2h"))  # fmt: skip

    def __repr__(self) -> str:
        shape = self.i2h_weight.shape  # type: ignore[attr-defined]
        active = f", {self._activation}" if hasattr(self, "_activation") else ""
        return f"{type(self).__name__}({shape[1] or None} -> {shape[0]}{active})"


class RNNCell(_GatedCell):
    """h' = activation(W x + b + U h + c).

    >>> from diptych.mxnet import nd
    >>> cell = RNNCell(3)
    >>> cell.initialize()
    >>> y, states = cell(nd.ones((2, 4)), cell.begin_state(2))
    >>> y.shape, len(states)
    ((2, 3), 1)
    """

    def __init__(self, hidden_size: int, activation: Any = "tanh", i2h_weight_initializer: Any = None,
                 h2h_weight_initializer: Any = None, i2h_bias_initializer: Any = "zeros", h2h_bias_initializer: Any = "zeros",
                 input_size: int = 0, prefix: str | None = None, params: Any = None) -> None:  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        self._activation = activation
        self._make(hidden_size, input_size, i2h_weight_initializer, h2h_weight_initializer, i2h_bias_initializer, h2h_bias_initializer)

    def hybrid_forward(self, F: Any, inputs: Any, states: Any, **p: Any) -> Any:  # type: ignore[override]
        """One step."""
        prefix = f"t{self._counter}_"
        i2h, h2h = self._products(F, inputs, states[0], p, prefix)
        out = self._get_activation(F, F.elemwise_add(i2h, h2h, name=prefix + "plus0"), self._activation, name=prefix + "out")
        return out, [out]


class _TwoActivations(_GatedCell):
    """A cell with one activation for its gates and one for its content."""

    def __init__(self, hidden_size: int, i2h_weight_initializer: Any = None, h2h_weight_initializer: Any = None,
                 i2h_bias_initializer: Any = "zeros", h2h_bias_initializer: Any = "zeros", input_size: int = 0,
                 prefix: str | None = None, params: Any = None, activation: Any = "tanh",
                 recurrent_activation: Any = "sigmoid") -> None:  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        self._inner, self._gate = activation, recurrent_activation
        self._make(hidden_size, input_size, i2h_weight_initializer, h2h_weight_initializer, i2h_bias_initializer, h2h_bias_initializer)


class LSTMCell(_TwoActivations):
    """The long short-term memory; gates in the order in, forget, candidate, out."""

    _gates, _kind = 4, "lstm"

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape and layout of h and c."""
        return [{"shape": (batch_size, self._hidden_size), "__layout__": "NC"} for _ in range(2)]

    def hybrid_forward(self, F: Any, inputs: Any, states: Any, **p: Any) -> Any:  # type: ignore[override]
        """One step."""
        prefix = f"t{self._counter}_"
        i2h, h2h = self._products(F, inputs, states[0], p, prefix)
        parts = F.SliceChannel(F.elemwise_add(i2h, h2h, name=prefix + "plus0"), num_outputs=4, name=prefix + "slice")
        act = self._get_activation
        i, f = act(F, parts[0], self._gate, name=prefix + "i"), act(F, parts[1], self._gate, name=prefix + "f")
        c, o = act(F, parts[2], self._inner, name=prefix + "c"), act(F, parts[3], self._gate, name=prefix + "o")
        new_c = F.elemwise_add(F.elemwise_mul(f, states[1], name=prefix + "mul0"), F.elemwise_mul(i, c, name=prefix + "mul1"),
                               name=prefix + "state")  # fmt: skip
        new_h = F.elemwise_mul(o, act(F, new_c, self._inner, name=prefix + "activation0"), name=prefix + "out")
        return new_h, [new_h, new_c]


class GRUCell(_TwoActivations):
    """The gated recurrent unit, with the reset gate after the product (as cuDNN has it)."""

    _gates, _kind = 3, "gru"

    def hybrid_forward(self, F: Any, inputs: Any, states: Any, **p: Any) -> Any:  # type: ignore[override]
        """One step."""
        prefix = f"t{self._counter}_"
        h = states[0]
        i2h, h2h = self._products(F, inputs, h, p, prefix)
        i_r, i_z, i_h = F.SliceChannel(i2h, num_outputs=3, name=prefix + "i2h_slice")
        h_r, h_z, h_h = F.SliceChannel(h2h, num_outputs=3, name=prefix + "h2h_slice")
        act = self._get_activation
        r = act(F, F.elemwise_add(i_r, h_r, name=prefix + "plus0"), self._gate, name=prefix + "r_act")
        z = act(F, F.elemwise_add(i_z, h_z, name=prefix + "plus1"), self._gate, name=prefix + "z_act")
        candidate = act(F, F.elemwise_add(i_h, F.elemwise_mul(r, h_h, name=prefix + "mul0"), name=prefix + "plus2"), self._inner,
                        name=prefix + "h_act")  # fmt: skip
        rest = F.elemwise_sub(F.ones_like(z, name=prefix + "ones_like0"), z, name=prefix + "minus0")
        out = F.elemwise_add(F.elemwise_mul(rest, candidate, name=prefix + "mul1"), F.elemwise_mul(z, h, name=prefix + "mul2"),
                             name=prefix + "out")  # fmt: skip
        return out, [out]


class _Stack(RecurrentCell):
    """What both stacks of cells share."""

    def add(self, cell: Any) -> None:
        """Put a cell on top."""
        self.register_child(cell)

    def __repr__(self) -> str:
        inner = "\n".join(f"({i}): {indent(repr(c), 2)}" for i, c in self._children.items())
        return f"{type(self).__name__}(\n{inner}\n)"

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape and layout of each state."""
        return states_of(self._children.values(), batch_size)

    def begin_state(self, batch_size: int = 0, func: Callable[..., Any] = ndarray.zeros, **kwargs: Any) -> list[Any]:
        """The first states of all cells."""
        self._not_modified()
        return begin_states(self._children.values(), batch_size=batch_size, func=func, **kwargs)

    def _step(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        self._counter += 1
        out: list[Any] = []
        p = 0
        for cell in self._children.values():
            n = len(cell.state_info())  # type: ignore[attr-defined]
            inputs, state = cell(inputs, states[p : p + n])
            p += n
            out += state
        return inputs, out

    def unroll(self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC", merge_outputs: bool | None = None,
               valid_length: Any = None) -> tuple[Any, Any]:  # fmt: skip
        """Outputs and final states of a sequence."""
        self.reset()
        inputs, _, F, batch = format_sequence(length, inputs, layout, None)
        begin_state = begin_state_of(self, F, begin_state, inputs, batch)
        out: list[Any] = []
        p = 0
        for i, cell in enumerate(self._children.values()):
            n = len(cell.state_info())  # type: ignore[attr-defined]
            inputs, states = cell.unroll(length, inputs=inputs, begin_state=begin_state[p : p + n], layout=layout,  # type: ignore[attr-defined]
                                         merge_outputs=None if i < len(self._children) - 1 else merge_outputs,
                                         valid_length=valid_length)  # fmt: skip
            p += n
            out.extend(states)
        return inputs, out

    def __getitem__(self, i: int) -> Any:
        return list(self._children.values())[i]

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._children.values()))


class SequentialRNNCell(_Stack):
    """Cells on top of one another."""

    def __call__(self, inputs: Any, states: Any) -> Any:
        return self._step(inputs, states)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Not used: calling the stack steps its cells."""
        raise NotImplementedError


class HybridSequentialRNNCell(_Stack, HybridRecurrentCell):
    """Hybrid cells on top of one another."""

    def __call__(self, inputs: Any, states: Any) -> Any:
        return HybridRecurrentCell.__call__(self, inputs, states)

    def hybrid_forward(self, F: Any, inputs: Any, states: Any) -> Any:
        """One step."""
        return self._step(inputs, states)
