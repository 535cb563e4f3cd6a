"""Recurrent layers, sequences of different lengths, and the interleaved attention products of GluonNLP."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import FormatError
from diptych.frontends.mxnet.convert import Call, converts
from diptych.frontends.mxnet.convert_slice import cut

if TYPE_CHECKING:
    from diptych.frontends.mxnet.convert import Result
    from diptych.ir import Value

_GATES = {"rnn_relu": 1, "rnn_tanh": 1, "lstm": 4, "gru": 3}


class _Packed:
    """Reads weights one after another from RNN's packed parameter vector."""

    def __init__(self, c: Call, vector: Value) -> None:
        self.c = c
        self.vector = c.reshape(vector, (vector.type.size,))
        self.at = 0

    def take(self, *shape: int) -> Value:
        size = math.prod(shape)
        if self.at + size > self.vector.type.size:
            raise FormatError(
                f"{self.c.op} (layer {self.c.layer}): the parameter vector has {self.vector.type.size} elements, too few"
            )
        part = cut(self.c, self.vector, 0, self.at, self.at + size)
        self.at += size
        return self.c.reshape(part, shape)


@converts("RNN")
def _rnn(c: Call) -> Result:
    a = c.attrs
    mode = a.text("mode", choices=tuple(_GATES))
    hidden, layers = a.integer("state_size"), a.integer("num_layers")
    directions = 2 if a.boolean("bidirectional", False) else 1
    clip = _clip(c, mode)
    projection = a.optional_integer("projection_size") or 0
    if projection and mode != "lstm":
        raise c.fail(f"projection_size with mode {mode}", "only LSTM has a projection")
    gates, lengths = _GATES[mode], None
    if a.boolean("use_sequence_length", False):
        lengths = c.indices(c.inputs[-1])
    packed = _Packed(c, c.arg(1))
    width = c.x.shape[2]
    weights, biases = [], []
    for layer in range(layers):
        for _ in range(directions):
            outer = projection or hidden
            inner = width if layer == 0 else outer * directions
            own = [packed.take(gates * hidden, inner), packed.take(gates * hidden, outer)]
            weights.append([*own, packed.take(projection, hidden)] if projection else own)
    for _ in weights:
        biases.append((packed.take(gates * hidden), packed.take(gates * hidden)))
    if packed.at != packed.vector.type.size:
        raise FormatError(f"{c.op} (layer {c.layer}): {packed.vector.type.size} parameters, {packed.at} expected")
    y, ends, cells = c.x, [], []
    for layer in range(layers):
        results = []
        for direction in range(directions):
            i = layer * directions + direction
            out, h, cell = _one(c, mode, y, weights[i], biases[i], i, direction == 1, lengths, clip)
            results.append(out)
            ends.append(h)
            cells.append(cell)
        y = c.g.concat(results, 2)
    if c.outputs == 1:
        return y
    states = [c.g.stack(ends, 0)]
    if mode == "lstm":
        states.append(c.g.stack([v for v in cells if v is not None], 0))
    return (y, *states)


def _clip(c: Call, mode: str) -> dict[str, float | bool]:
    """The limits of an LSTM's cells: what MXNet documents and cuDNN does; MXNet 1.9.1 takes no notice of it on a CPU."""
    low, high = (c.attrs.optional_real(f"lstm_state_clip_{end}") for end in ("min", "max"))
    nan = c.attrs.boolean("lstm_state_clip_nan", False)
    if low is None and high is None:
        return {}
    if mode != "lstm":
        raise c.fail(f"lstm_state_clip_min and lstm_state_clip_max with mode {mode}", "only LSTM has cells to clip: leave them out")
    if low is None or high is None or not low <= high:
        raise c.fail(f"lstm_state_clip_min={low} with lstm_state_clip_max={high}", "give both, the minimum first, or none")
    return {"clip_low": low, "clip_high": high, "clip_nan": nan}


def _one(c: Call, mode: str, x: Value, w: list[Value], b: tuple[Value, Value], index: int, reverse: bool,
         lengths: Value | None, clip: dict[str, float | bool]) -> tuple[Value, Value, Value | None]:  # fmt: skip
    """One layer in one direction: the sequence, the last hidden state, the last cell state (LSTM)."""

    def state(k: int) -> Value:
        return c.reshape(cut(c, c.arg(k), 0, index, index + 1), c.arg(k).shape[1:])

    def both() -> Value:
        arrays = [c.g.constant_array(v) for v in b]
        if arrays[0] is not None and arrays[1] is not None:
            return c.const(arrays[0] + arrays[1], b[0].dtype)
        return c.emit("add", *b)

    # Forwards and without final states what lies past a row's end has no influence.
    ragged = lengths is not None and (reverse or c.outputs > 1)
    ends = [c.cast(lengths, "i64")] if ragged and lengths is not None else []
    cell: Value | None = None
    if mode == "lstm" and not ragged and len(w) == 2 and not clip:
        y, h, cell = c.emit_all("lstm", x, *w, both(), state(2), state(3), reverse=reverse)
    elif mode == "lstm":
        y, h, cell = c.emit_all("lstm_general", x, *w[:2], both(), *w[2:], state(2), state(3), *ends,
                                reverse=reverse, projected=len(w) > 2, ragged=ragged, **clip)  # fmt: skip
    elif mode == "gru":
        y, h = c.emit_all("gru", x, *w, *b, state(2), *ends, reverse=reverse, ragged=ragged)
    else:
        activation = mode.removeprefix("rnn_")
        y, h = c.emit_all("rnn", x, *w, both(), state(2), *ends, activation=activation, reverse=reverse, ragged=ragged)
    if lengths is not None:
        y = c.emit("sequence_mask", y, lengths, value=0.0, axis=0)
    return y, h, cell


# -- sequences of different lengths -------------------------------------------------------------------------------
def _lengths(c: Call) -> Value | None:
    return c.indices(c.arg(1)) if c.attrs.boolean("use_sequence_length", False) else None


@converts("SequenceMask")
def _sequence_mask(c: Call) -> Result:
    lengths = _lengths(c)
    if lengths is None:
        return c.x
    return c.emit("sequence_mask", c.x, lengths, value=c.attrs.real("value", 0.0), axis=c.attrs.integer("axis", 0))


@converts("SequenceLast")
def _sequence_last(c: Call) -> Result:
    axis, lengths = c.attrs.integer("axis", 0), _lengths(c)
    rest = c.x.shape[:axis] + c.x.shape[axis + 1 :]
    if lengths is None:
        return c.reshape(cut(c, c.x, axis, c.x.shape[axis] - 1, c.x.shape[axis]), rest)
    x = c.x if axis == 0 else c.transpose(c.x, (1, 0, *range(2, c.x.rank)))
    last = c.reshape(c.emit("sub", lengths, 1), (1, x.shape[1]) + (1,) * (x.rank - 2))
    return c.reshape(c.emit("gather", x, c.g.broadcast_to(last, (1, *x.shape[1:])), axis=0), rest)


def _reversed(c: Call, x: Value, lengths: Value) -> Value:
    """x[T, N, ...] with the first length[n] steps of each sequence n turned around."""
    steps = c.const(np.arange(x.shape[0]).reshape(-1, 1), lengths.dtype)
    ends = c.reshape(lengths, (1, x.shape[1]))
    mirrored = c.emit("sub", c.emit("sub", ends, 1), steps)
    index = c.emit("where", c.emit("less", steps, ends), mirrored, c.g.broadcast_to(steps, mirrored.shape))
    wide = c.g.broadcast_to(c.reshape(index, index.shape + (1,) * (x.rank - 2)), x.shape)
    return c.emit("gather", x, wide, axis=0)


@converts("SequenceReverse")
def _sequence_reverse(c: Call) -> Result:
    lengths = _lengths(c)
    if lengths is None:
        return c.emit("flip", c.x, axes=(0,))
    return _reversed(c, c.x, lengths)


# -- interleaved attention products -------------------------------------------------------------------------------
def _heads(c: Call, x: Value, parts: int, which: int) -> Value:
    """[L, B, heads * parts * D] -> part `which` as [B * heads, L, D]."""
    heads = c.attrs.integer("heads")
    steps, batch, width = x.shape
    if width % (heads * parts):
        raise FormatError(f"{c.op} (layer {c.layer}): width {width} does not divide into {heads} heads x {parts}")
    size = width // (heads * parts)
    split = c.reshape(x, (steps, batch, heads, parts, size))
    one = c.reshape(cut(c, split, 3, which, which + 1), (steps, batch, heads, size))
    return c.reshape(c.transpose(one, (1, 2, 0, 3)), (batch * heads, steps, size))


def _scores(c: Call, q: Value, k: Value) -> Value:
    scaled = c.emit("mul", q, 1.0 / math.sqrt(q.shape[-1]))
    return c.emit("mat_mul", scaled, k, transpose_b=True)


def _weighted(c: Call, v: Value, batch: int) -> Value:
    """Attention weights (operand 1) times values, back as [L, B, heads * D]."""
    heads = c.attrs.integer("heads")
    y = c.emit("mat_mul", c.arg(1), v)
    _, steps, size = y.shape
    y = c.transpose(c.reshape(y, (batch, heads, steps, size)), (2, 0, 1, 3))
    return c.reshape(y, (steps, batch, heads * size))


@converts("_contrib_interleaved_matmul_selfatt_qk")
def _selfatt_qk(c: Call) -> Result:
    return _scores(c, _heads(c, c.x, 3, 0), _heads(c, c.x, 3, 1))


@converts("_contrib_interleaved_matmul_selfatt_valatt")
def _selfatt_valatt(c: Call) -> Result:
    return _weighted(c, _heads(c, c.x, 3, 2), c.x.shape[1])


@converts("_contrib_interleaved_matmul_encdec_qk")
def _encdec_qk(c: Call) -> Result:
    return _scores(c, _heads(c, c.x, 1, 0), _heads(c, c.arg(1), 2, 0))


@converts("_contrib_interleaved_matmul_encdec_valatt")
def _encdec_valatt(c: Call) -> Result:
    return _weighted(c, _heads(c, c.x, 2, 1), c.x.shape[1])
