"""Sequences as one array or as a list of steps."""

from __future__ import annotations

from typing import Any

from diptych.mxnet import ndarray, symbol
from diptych.mxnet.gluon.parameter import tensor_types
from diptych.mxnet.symbol.symbol import Symbol

__all__ = ["begin_state_of", "format_sequence", "mask_sequence", "reverse_sequences"]


def format_sequence(length: int | None, inputs: Any, layout: str, merge: bool | None, in_layout: str | None = None) -> tuple[Any, int, Any, int]:
    """A sequence as one array (merge=True), a list of steps (False) or as it is; also the time axis, F and the batch size."""
    axis, batch_axis = layout.find("T"), layout.find("N")
    in_axis = axis if in_layout is None else in_layout.find("T")
    batch = 0
    F: Any
    if isinstance(inputs, tensor_types):
        F = symbol if isinstance(inputs, Symbol) else ndarray
        if F is ndarray:
            assert not isinstance(inputs, Symbol)
            batch = inputs.shape[batch_axis]
            if length is not None and merge is False and length != inputs.shape[in_axis]:
                raise AssertionError(f"a sequence of {inputs.shape[in_axis]} steps was given, {length} are to be unrolled")
        if merge is False:
            steps = length if isinstance(inputs, Symbol) else inputs.shape[in_axis]
            parts = F.split(inputs, axis=in_axis, num_outputs=steps, squeeze_axis=1)
            inputs = list(parts) if isinstance(parts, (list, tuple, Symbol)) else [parts]
    else:
        if length is not None and len(inputs) != length:
            raise AssertionError(f"a sequence of {len(inputs)} steps was given, {length} are to be unrolled")
        F = symbol if isinstance(inputs[0], Symbol) else ndarray
        if F is ndarray:
            batch = inputs[0].shape[batch_axis - (axis < batch_axis)]
        if merge:
            inputs = F.stack(*inputs, axis=axis)
            in_axis = axis
    if isinstance(inputs, tensor_types) and axis != in_axis:
        inputs = F.swapaxes(inputs, dim1=axis, dim2=in_axis)
    return inputs, axis, F, batch


def mask_sequence(F: Any, data: Any, length: int, valid_length: Any, time_axis: int, merge: bool) -> Any:
    """A sequence with zeros from step `valid_length` on."""
    if not isinstance(data, tensor_types):
        data = F.stack(*data, axis=time_axis)
    out = F.SequenceMask(data, sequence_length=valid_length, use_sequence_length=True, axis=time_axis)
    if merge:
        return out
    parts = F.split(out, num_outputs=length, axis=time_axis, squeeze_axis=True)
    return list(parts) if isinstance(parts, (list, Symbol)) else [parts]


def reverse_sequences(steps: Any, length: int, valid_length: Any = None) -> list[Any]:
    """The steps in reverse; with `valid_length`, only that many of each sample."""
    if valid_length is None:
        return list(reversed(steps))
    F = symbol if isinstance(steps[0], Symbol) else ndarray
    turned = F.SequenceReverse(F.stack(*steps, axis=0), sequence_length=valid_length, use_sequence_length=True)
    parts = F.split(turned, axis=0, num_outputs=length, squeeze_axis=True)
    return list(parts) if length > 1 else [parts if not isinstance(parts, list) else parts[0]]


def begin_state_of(cell: Any, F: Any, begin_state: Any, inputs: Any, batch: int) -> Any:
    """The state given, or that of zeros."""
    if begin_state is not None:
        return begin_state
    if F is ndarray:
        first: Any = inputs if isinstance(inputs, tensor_types) else inputs[0]
        with first.context:
            return cell.begin_state(func=F.zeros, batch_size=batch)
    return cell.begin_state(func=F.zeros, batch_size=batch)
