"""Cells around cells: dropout, zoneout, residual connections, both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.mxnet import ndarray
from diptych.mxnet.gluon.parameter import tensor_types
from diptych.mxnet.gluon.rnn.rnn_cell import HybridRecurrentCell, begin_states, states_of
from diptych.mxnet.gluon.rnn.sequences import begin_state_of, format_sequence, mask_sequence, reverse_sequences

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BidirectionalCell", "DropoutCell", "ModifierCell", "ResidualCell", "ZoneoutCell"]


class DropoutCell(HybridRecurrentCell):
    """Dropout between cells; the same along `axes`."""

    def __init__(self, rate: float, axes: Any = (), prefix: str | None = None, params: Any = None) -> None:
        super().__init__(prefix, params)
        if not isinstance(rate, (int, float)):
            raise AssertionError("the rate of dropout is one number")
        self._rate, self._axes = rate, axes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rate={self._rate}, axes={self._axes})"

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """No states."""
        return []

    def _alias(self) -> str:
        return "dropout"

    def hybrid_forward(self, F: Any, inputs: Any, states: Any) -> Any:
        """The operator Dropout."""
        if self._rate > 0:
            inputs = F.Dropout(data=inputs, p=self._rate, axes=self._axes, name=f"t{self._counter}_fwd")
        return inputs, states

    def unroll(self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC", merge_outputs: bool | None = None,
               valid_length: Any = None) -> tuple[Any, Any]:  # fmt: skip
        """Dropout on the whole sequence at once where it is one array."""
        self.reset()
        inputs, _, F, _ = format_sequence(length, inputs, layout, merge_outputs)
        if isinstance(inputs, tensor_types):
            return self.hybrid_forward(F, inputs, begin_state if begin_state else [])  # type: ignore[no-any-return]
        return super().unroll(length, inputs, begin_state=begin_state, layout=layout, merge_outputs=merge_outputs, valid_length=None)


class ModifierCell(HybridRecurrentCell):
    """A cell that changes what another cell gives; the parameters are those of the other."""

    def __init__(self, base_cell: Any) -> None:
        if base_cell._modified:
            raise AssertionError(f"Cell {base_cell.name} has a modifier around it already")
        base_cell._modified = True
        super().__init__(prefix=base_cell.prefix + self._alias(), params=None)
        self.base_cell = base_cell

    @property
    def params(self) -> Any:
        """The parameters of the cell inside."""
        return self.base_cell.params

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """The states of the cell inside."""
        return self.base_cell.state_info(batch_size)  # type: ignore[no-any-return]

    def begin_state(self, batch_size: int = 0, func: Callable[..., Any] = ndarray.zeros, **kwargs: Any) -> list[Any]:
        """The first states of the cell inside."""
        self._not_modified()
        self.base_cell._modified = False
        try:
            return self.base_cell.begin_state(batch_size=batch_size, func=func, **kwargs)  # type: ignore[no-any-return]
        finally:
            self.base_cell._modified = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_cell!r})"


class ZoneoutCell(ModifierCell):
    """While training, keeps parts of the former output and states."""

    def __init__(self, base_cell: Any, zoneout_outputs: float = 0.0, zoneout_states: float = 0.0) -> None:
        if isinstance(base_cell, BidirectionalCell):
            raise AssertionError("a BidirectionalCell cannot be stepped, hence no zoneout around it: wrap the "
                                 "cells inside of it")  # fmt: skip
        if type(base_cell).__name__ in ("SequentialRNNCell", "HybridSequentialRNNCell") and getattr(base_cell, "_bidirectional", False):
            raise AssertionError("no zoneout around a stack with a bidirectional cell: wrap the cells inside of it")
        super().__init__(base_cell)
        self.zoneout_outputs, self.zoneout_states = zoneout_outputs, zoneout_states
        self._prev_output: Any = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p_out={self.zoneout_outputs}, p_state={self.zoneout_states}, {self.base_cell!r})"

    def _alias(self) -> str:
        return "zoneout"

    def reset(self) -> None:
        """Begin a new sequence."""
        super().reset()
        self._prev_output = None

    def hybrid_forward(self, F: Any, inputs: Any, states: Any) -> Any:
        """One step."""
        new, new_states = self.base_cell(inputs, states)

        def keep(p: float, fresh: Any, old: Any) -> Any:
            return F.where(F.Dropout(F.ones_like(fresh), p=p), fresh, old)

        out = new
        if self.zoneout_outputs:
            out = keep(self.zoneout_outputs, new, self._prev_output if self._prev_output is not None else F.zeros_like(new))
        if self.zoneout_states:
            new_states = [keep(self.zoneout_states, s, old) for s, old in zip(new_states, states)]
        self._prev_output = out
        return out, new_states


class ResidualCell(ModifierCell):
    """Adds the input to the output."""

    def _alias(self) -> str:
        return "residual"

    def hybrid_forward(self, F: Any, inputs: Any, states: Any) -> Any:
        """One step."""
        out, states = self.base_cell(inputs, states)
        return F.elemwise_add(out, inputs, name=f"t{self._counter}_fwd"), states

    def unroll(self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC", merge_outputs: bool | None = None,
               valid_length: Any = None) -> tuple[Any, Any]:  # fmt: skip
        """Outputs and final states of a sequence."""
        self.reset()
        self.base_cell._modified = False
        try:
            outputs, states = self.base_cell.unroll(length, inputs=inputs, begin_state=begin_state, layout=layout,
                                                    merge_outputs=merge_outputs, valid_length=valid_length)  # fmt: skip
        finally:
            self.base_cell._modified = True
        merge = isinstance(outputs, tensor_types) if merge_outputs is None else merge_outputs
        inputs, axis, F, _ = format_sequence(length, inputs, layout, merge)
        if valid_length is not None:
            inputs = mask_sequence(F, inputs, length, valid_length, axis, merge)
        if merge:
            return F.elemwise_add(outputs, inputs), states
        return [F.elemwise_add(a, b) for a, b in zip(outputs, inputs)], states


class BidirectionalCell(HybridRecurrentCell):
    """A cell forward and a cell backward over a sequence, their outputs side by side; it can only be unrolled."""

    def __init__(self, l_cell: Any, r_cell: Any, output_prefix: str = "bi_") -> None:
        super().__init__(prefix="", params=None)
        self.register_child(l_cell, "l_cell")
        self.register_child(r_cell, "r_cell")
        self._output_prefix = output_prefix

    def __call__(self, inputs: Any, states: Any) -> Any:
        raise NotImplementedError("a BidirectionalCell reads whole sequences: call unroll")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(forward={self._children['l_cell']!r}, backward={self._children['r_cell']!r})"

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """The states of both cells."""
        return states_of(self._children.values(), batch_size)

    def begin_state(self, batch_size: int = 0, func: Callable[..., Any] = ndarray.zeros, **kwargs: Any) -> list[Any]:
        """The first states of both cells."""
        self._not_modified()
        return begin_states(self._children.values(), batch_size=batch_size, func=func, **kwargs)

    def unroll(self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC", merge_outputs: bool | None = None,
               valid_length: Any = None) -> tuple[Any, Any]:  # fmt: skip
        """Outputs and final states of a sequence."""
        self.reset()
        steps, axis, F, batch = format_sequence(length, inputs, layout, False)
        states = begin_state_of(self, F, begin_state, steps, batch)
        left, right = self._children.values()
        n = len(left.state_info(batch))  # type: ignore[attr-defined]
        l_out, l_states = left.unroll(length, inputs=steps, begin_state=states[:n], layout=layout,  # type: ignore[attr-defined]
                                      merge_outputs=merge_outputs, valid_length=valid_length)  # fmt: skip
        r_out, r_states = right.unroll(length, inputs=reverse_sequences(steps, length, valid_length),  # type: ignore[attr-defined]
                                       begin_state=states[n:], layout=layout, merge_outputs=False, valid_length=valid_length)  # fmt: skip
        turned = reverse_sequences(r_out, length, valid_length)
        if merge_outputs is None:
            merge_outputs = isinstance(l_out, tensor_types)
        l_out = format_sequence(None, l_out, layout, merge_outputs)[0]
        if merge_outputs:
            outputs = F.concat(l_out, F.stack(*turned, axis=axis), dim=2, name=self._output_prefix + "out")
        else:
            outputs = [F.concat(a, b, dim=1, name=f"{self._output_prefix}t{i}") for i, (a, b) in enumerate(zip(l_out, turned))]
        if valid_length is not None:
            outputs = mask_sequence(F, outputs, length, valid_length, axis, merge_outputs)
        return outputs, [*l_states, *r_states]
