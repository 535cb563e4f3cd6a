"""Cells under gluon.contrib."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon.rnn.modifiers import BidirectionalCell, ModifierCell
from diptych.mxnet.gluon.rnn.sequences import begin_state_of, format_sequence

__all__ = ["VariationalDropoutCell"]


class VariationalDropoutCell(ModifierCell):
    """Dropout with one mask for all steps of a sequence, on inputs, the first state and outputs."""

    def __init__(self, base_cell: Any, drop_inputs: float = 0.0, drop_states: float = 0.0, drop_outputs: float = 0.0) -> None:
        if drop_states and isinstance(base_cell, BidirectionalCell):
            raise AssertionError("BidirectionalCell doesn't support variational state dropout. Please add VariationalDropoutCell to the "
                                 "cells underneath instead.")  # fmt: skip
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
