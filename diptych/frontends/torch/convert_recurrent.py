"""LSTM, GRU and plain recurrent layers: torch's stacked, bidirectional modules as single-layer operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.frontends.torch.lower import Context, converts, refuse
from diptych.ir import TensorType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.ir import Value

    Step = Callable[[Value, list[Value], bool, list[Value]], tuple[Value, list[Value]]]

__all__: list[str] = []


def _stacked(c: Context, x: Value, states: list[Value], params: Sequence[Value], has_biases: bool, layers: int,
             bidirectional: bool, batch_first: bool, step: Step, projected: bool = False) -> tuple[Value, ...]:  # fmt: skip
    """Run `step` for every layer and direction; states are stacked [layers * directions, N, H] as torch has them."""
    batched = x.rank == 3
    if not batched:
        x = c.g.expand_dims(x, 1)
        states = [c.g.expand_dims(s, 1) for s in states]
    elif batch_first:
        x = c.g.transpose(x, (1, 0, 2))
    directions = 2 if bidirectional else 1
    per_cell = len(params) // (layers * directions)
    assert per_cell == (4 if has_biases else 2) + projected
    finals: list[list[Value]] = [[] for _ in states]
    for layer in range(layers):
        outs = []
        for direction in range(directions):
            cell = layer * directions + direction
            own = list(params[cell * per_cell : (cell + 1) * per_cell])
            initial = [c.g.squeeze(c.g.slice_axis(s, 0, cell, cell + 1), (0,)) for s in states]
            y, last = step(x, own, direction == 1, initial)
            outs.append(y)
            for final, value in zip(finals, last):
                final.append(c.g.expand_dims(value, 0))
        x = c.g.concat(outs, 2)
    stacked = [c.g.concat(final, 0) for final in finals]
    if not batched:
        return c.g.squeeze(x, (1,)), *(c.g.squeeze(s, (1,)) for s in stacked)
    return c.g.transpose(x, (1, 0, 2)) if batch_first else x, *stacked


def _zeros(c: Context, size: int, dtype: str) -> Value:
    return c.full(0.0, TensorType((size,), dtype))


def _bias_sum(c: Context, own: list[Value]) -> Value:
    """b_ih + b_hh, added here and now: both are weights."""
    if len(own) < 4:
        return _zeros(c, own[0].shape[0], own[0].dtype)
    arrays = [c.g.constant_array(b) for b in own[2:4]]
    if arrays[0] is not None and arrays[1] is not None:
        return c.g.constant(arrays[0] + arrays[1], own[2].dtype)
    return c.g.add(own[2], own[3])


@converts("aten.lstm.input")
def _lstm(c: Context, x: Value, hx: Sequence[Value], params: Sequence[Value], has_biases: bool, layers: int,
          dropout: float, train: bool, bidirectional: bool, batch_first: bool, *lengths: Value) -> tuple[Value, ...]:  # fmt: skip
    projected = len(params) // (layers * (2 if bidirectional else 1)) in (3, 5)

    def step(x: Value, own: list[Value], reverse: bool, initial: list[Value]) -> tuple[Value, list[Value]]:
        operands = [x, own[0], own[1], _bias_sum(c, own)]
        if not projected and not lengths:
            y, h, cell = c.emit_all("lstm", *operands, *initial, reverse=reverse)
        else:
            operands += [own[-1]] if projected else []
            y, h, cell = c.emit_all("lstm_general", *operands, *initial, *lengths, reverse=reverse, projected=projected, ragged=bool(lengths))
        return y, [h, cell]

    _check(train, dropout)
    return _stacked(c, x, list(hx), params, has_biases, layers, bidirectional, batch_first, step, projected)


@converts("aten.gru.input")
def _gru(c: Context, x: Value, hx: Value, params: Sequence[Value], has_biases: bool, layers: int, dropout: float,
         train: bool, bidirectional: bool, batch_first: bool, *lengths: Value) -> tuple[Value, ...]:  # fmt: skip
    def step(x: Value, own: list[Value], reverse: bool, initial: list[Value]) -> tuple[Value, list[Value]]:
        zeros = _zeros(c, own[0].shape[0], x.dtype) if len(own) == 2 else None
        biases = [zeros, zeros] if zeros is not None else own[2:]
        y, h = c.emit_all("gru", x, own[0], own[1], *biases, *initial, *lengths, reverse=reverse, ragged=bool(lengths))
        return y, [h]

    _check(train, dropout)
    return _stacked(c, x, [hx], params, has_biases, layers, bidirectional, batch_first, step)


def _rnn(activation: str) -> Callable[..., tuple[Value, ...]]:
    def convert(c: Context, x: Value, hx: Value, params: Sequence[Value], has_biases: bool, layers: int, dropout: float,
                train: bool, bidirectional: bool, batch_first: bool, *lengths: Value) -> tuple[Value, ...]:  # fmt: skip
        def step(x: Value, own: list[Value], reverse: bool, initial: list[Value]) -> tuple[Value, list[Value]]:
            y, h = c.emit_all("rnn", x, own[0], own[1], _bias_sum(c, own), *initial, *lengths, activation=activation,
                              reverse=reverse, ragged=bool(lengths))  # fmt: skip
            return y, [h]

        _check(train, dropout)
        return _stacked(c, x, [hx], params, has_biases, layers, bidirectional, batch_first, step)

    return convert


_rnn_tanh = converts("aten.rnn_tanh.input")(_rnn("tanh"))
_rnn_relu = converts("aten.rnn_relu.input")(_rnn("relu"))
_MODES: dict[str, Callable[..., tuple[Value, ...]]] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn_tanh, "rnn_relu": _rnn_relu}


def _check(train: bool, dropout: float) -> None:
    if train and dropout:
        refuse("dropout between recurrent layers is active; call model.eval() before exporting")


@converts("aten.lstm.data", "aten.gru.data", "aten.rnn_tanh.data", "aten.rnn_relu.data")
def _packed(c: Context, *args: Any, **options: Any) -> Any:
    return refuse("packed sequences have shapes that depend on lengths; give the module to diptych, not an exported program")


# -- packed sequences: `packed.py` exports them padded, with their lengths -------------------------------------------
@converts("diptych.pack.default")
def _pack(c: Context, x: Value, lengths: Value) -> Value:
    return c.g.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))


@converts("diptych.recurrent.default")
def _recurrent(c: Context, data: Value, lengths: Value, hx: Sequence[Value], params: Sequence[Value], mode: str,
               has_biases: bool, layers: int, bidirectional: bool) -> tuple[Value, ...]:  # fmt: skip
    rows = lengths.shape[0]
    x = c.g.reshape(data, (data.shape[0] // rows, rows, *data.shape[1:]))
    states: Any = list(hx) if mode == "lstm" else hx[0]
    y, *ends = _MODES[mode](c, x, states, params, has_biases, layers, 0.0, False, bidirectional, False, c.cast(lengths, "i64"))
    return c.g.reshape(y, (data.shape[0], y.shape[2])), *ends


@converts("diptych.unpack.default")
def _unpack(c: Context, data: Value, lengths: Value, batch_first: bool, padding: float) -> Value:
    rows = lengths.shape[0]
    x = c.g.reshape(data, (data.shape[0] // rows, rows, *data.shape[1:]))
    x = c.emit("sequence_mask", x, lengths, value=float(padding), axis=0)
    return c.g.transpose(x, (1, 0, *range(2, x.rank))) if batch_first else x
