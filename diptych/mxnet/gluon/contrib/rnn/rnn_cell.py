"""Variational dropout, the LSTM with a projection, and unrolling by a loop."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon.rnn.modifiers import BidirectionalCell, ModifierCell
from diptych.mxnet.gluon.rnn.rnn_cell import HybridRecurrentCell
from diptych.mxnet.gluon.rnn.sequences import begin_state_of, format_sequence

__all__ = ["LSTMPCell", "VariationalDropoutCell", "dynamic_unroll"]


class VariationalDropoutCell(ModifierCell):
    """Dropout with one mask for all steps of a sequence, on inputs, the first state and outputs."""

    def __init__(self, base_cell: Any, drop_inputs: float = 0.0, drop_states: float = 0.0, drop_outputs: float = 0.0) -> None:
        if drop_states and isinstance(base_cell, BidirectionalCell):
            raise AssertionError("a BidirectionalCell has no steps to drop states in: wrap the "
                                 "cells inside of it")  # fmt: skip
        super().__init__(base_cell)
        self.drop_inputs, self.drop_states, self.drop_outputs = drop_inputs, drop_states, drop_outputs
        self._masks: dict[str, Any] = {}

    def _alias(self) -> str:
        return "vardrop"

    def reset(self) -> None:
        """Begin a new sequence, with new masks."""
        super().reset()
        self._masks = {}

    def _mask(self, F: Any, what: str, p: float, like: Any) -> Any:
        if what not in self._masks:
            self._masks[what] = F.Dropout(F.ones_like(like), p=p)
        return self._masks[what]

    def hybrid_forward(self, F: Any, inputs: Any, states: Any) -> Any:
        """One step."""
        if self.drop_states:
            states = [states[0] * self._mask(F, "states", self.drop_states, states[0]), *states[1:]]
        if self.drop_inputs:
            inputs = inputs * self._mask(F, "inputs", self.drop_inputs, inputs)
        out, states = self.base_cell(inputs, states)
        if self.drop_outputs:
            out = out * self._mask(F, "outputs", self.drop_outputs, out)
        return out, states

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p_out = {self.drop_outputs}, p_state = {self.drop_states})"

    def unroll(self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC", merge_outputs: bool | None = None,
               valid_length: Any = None) -> tuple[Any, Any]:  # fmt: skip
        """Outputs and final states of a sequence; masks on whole sequences where the states have none."""
        if self.drop_states:
            return super().unroll(length, inputs, begin_state, layout, merge_outputs, valid_length=valid_length)
        self.reset()
        inputs, axis, F, batch = format_sequence(length, inputs, layout, True)
        states = begin_state_of(self, F, begin_state, inputs, batch)
        if self.drop_inputs:
            inputs = F.Dropout(inputs, p=self.drop_inputs, axes=(axis,))
        self.base_cell._modified = False
        try:
            outputs, states = self.base_cell.unroll(length, inputs, states, layout, True, valid_length=valid_length)
        finally:
            self.base_cell._modified = True
        if self.drop_outputs:
            outputs = F.Dropout(outputs, p=self.drop_outputs, axes=(axis,))
        return format_sequence(length, outputs, layout, merge_outputs)[0], states


class LSTMPCell(HybridRecurrentCell):
    """A long short-term memory whose output is projected to fewer numbers (Sak et al. 2014, arXiv:1402.1128).

    >>> from diptych.mxnet import nd
    >>> cell = LSTMPCell(8, 3)
    >>> cell.initialize()
    >>> out, states = cell(nd.ones((2, 5)), cell.begin_state(2))
    >>> out.shape, [s.shape for s in states]
    ((2, 3), [(2, 3), (2, 8)])
    """

    def __init__(self, hidden_size: int, projection_size: int, i2h_weight_initializer: Any = None, h2h_weight_initializer: Any = None,
                 h2r_weight_initializer: Any = None, i2h_bias_initializer: Any = "zeros", h2h_bias_initializer: Any = "zeros",
                 input_size: int = 0, prefix: str | None = None, params: Any = None) -> None:  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        self._hidden_size, self._input_size, self._projection_size = hidden_size, input_size, projection_size
        gates = 4 * hidden_size
        for name, shape, init in (("i2h_weight", (gates, input_size), i2h_weight_initializer),
                                  ("h2h_weight", (gates, projection_size), h2h_weight_initializer),
                                  ("h2r_weight", (projection_size, hidden_size), h2r_weight_initializer),
                                  ("i2h_bias", (gates,), i2h_bias_initializer), ("h2h_bias", (gates,), h2h_bias_initializer)):  # fmt: skip
            setattr(self, name, self.params.get(name, shape=shape, init=init, allow_deferred_init=True))

    def _alias(self) -> str:
        return "lstmp"

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape and layout of the projected output and of the memory."""
        return [{"shape": (batch_size, n), "__layout__": "NC"} for n in (self._projection_size, self._hidden_size)]

    def __repr__(self) -> str:
        gates, inputs = self.i2h_weight.shape  # type: ignore[attr-defined]
        return f"{type(self).__name__}({inputs or None} -> {gates} -> {self._projection_size})"

    def hybrid_forward(self, F: Any, inputs: Any, states: Any, **p: Any) -> Any:  # type: ignore[override]
        """One step."""
        prefix, n = f"t{self._counter}_", 4 * self._hidden_size
        i2h = F.FullyConnected(inputs, p["i2h_weight"], p["i2h_bias"], num_hidden=n, name=prefix + "i2h")
        h2h = F.FullyConnected(states[0], p["h2h_weight"], p["h2h_bias"], num_hidden=n, name=prefix + "h2h")
        parts = F.SliceChannel(i2h + h2h, num_outputs=4, name=prefix + "slice")
        i, f, c, o = (F.Activation(parts[k], act_type="tanh" if gate == "c" else "sigmoid", name=prefix + gate)
                      for k, gate in enumerate("ifco"))  # fmt: skip
        memory = F.elemwise_add(f * states[1], i * c, name=prefix + "state")
        hidden = F.elemwise_mul(o, F.Activation(memory, act_type="tanh"), name=prefix + "hidden")
        out = F.FullyConnected(hidden, p["h2r_weight"], num_hidden=self._projection_size, no_bias=True, name=prefix + "out")
        return out, [out, memory]


def dynamic_unroll(cell: Any, inputs: Any, begin_state: Any, drop_inputs: float = 0, drop_outputs: float = 0, layout: str = "TNC",
                   valid_length: Any = None) -> tuple[Any, Any]:  # fmt: skip
    """Outputs and final states of a sequence of any length, by the operator `foreach`; fastest with layout "TNC".

    >>> from diptych.mxnet import gluon, nd
    >>> cell = gluon.rnn.LSTMCell(4)
    >>> cell.initialize()
    >>> dynamic_unroll(cell, nd.ones((5, 2, 3)), cell.begin_state(2))[0].shape
    (5, 2, 4)

    With `valid_length`, outputs beyond a sequence's length are 0 and its states are those of its last step.
    """
    inputs, axis, F, _ = format_sequence(0, inputs, layout, True)
    if axis != 0:
        inputs = F.swapaxes(inputs, dim1=0, dim2=axis)
    if drop_inputs:
        inputs = F.Dropout(inputs, p=drop_inputs, axes=(0,))

    def step(x: Any, states: Any) -> Any:
        if valid_length is None:
            return cell(x, states)
        *before, count = states
        out, after = cell(x, before)
        goes_on = F.broadcast_greater(valid_length, count)
        return out, [*(F.where(goes_on, new, old) for new, old in zip(after, before)), count + 1]

    first = list(begin_state) if isinstance(begin_state, (list, tuple)) else [begin_state]
    outputs, states = F.contrib.foreach(step, inputs, first if valid_length is None else [*first, F.zeros((1,))])
    if drop_outputs:
        outputs = F.Dropout(outputs, p=drop_outputs, axes=(0,))
    if valid_length is not None:
        states = states[:-1]  # the last one counts the steps
        outputs = F.SequenceMask(outputs, sequence_length=valid_length, use_sequence_length=True, axis=0)
    return (outputs if axis == 0 else F.swapaxes(outputs, dim1=0, dim2=axis)), states
