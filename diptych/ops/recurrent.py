"""Recurrent layers: one layer, one direction, whole sequences x[T, N, I]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Arg, Loops, S, op
from diptych.ops.rules import floats, narrowed, widened

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["Gru", "Lstm", "LstmGeneral", "Rnn"]


def _check(gates: int, x: TensorType, w_ih: TensorType, w_hh: TensorType, biases: Sequence[TensorType],
           states: Sequence[TensorType], ragged: bool = False, lengths: TensorType | None = None) -> None:  # fmt: skip
    if (lengths is not None) != ragged:
        raise TypeRuleError(f"the last operand must be lengths exactly where ragged is set, and it is {ragged}")
    if lengths is not None and (lengths.shape != x.shape[1:2] or lengths.dtype != "i64"):
        raise TypeRuleError(f"lengths {lengths} must be i64, one for each row of input {x}")
    floats(x, w_ih, w_hh, *biases, *states)
    if x.rank != 3 or x.shape[0] == 0:
        raise TypeRuleError(f"input {x} must be [T, N, I] with at least one step")
    if w_hh.rank != 2 or w_hh.shape[0] != gates * w_hh.shape[1]:
        raise TypeRuleError(f"recurrent weight {w_hh} must be [{gates} * H, H]")
    rows, hidden = w_hh.shape
    if w_ih.shape != (rows, x.shape[2]):
        raise TypeRuleError(f"input weight {w_ih} must be [{rows}, {x.shape[2]}] for input {x} and weight {w_hh}")
    for b in biases:
        if b.shape != (rows,):
            raise TypeRuleError(f"bias {b} must have shape ({rows},) for weight {w_hh}")
    for h in states:
        if h.shape != (x.shape[1], hidden):
            raise TypeRuleError(f"state {h} must have shape ({x.shape[1]}, {hidden}) for input {x} and weight {w_hh}")


def _steps(count: int, reverse: bool) -> range:
    return range(count - 1, -1, -1) if reverse else range(count)


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype, copy=False)


def _live(lengths: Array | None, t: int) -> Array | bool:
    """Which rows step t lies within, as a column."""
    return True if lengths is None else (t < lengths)[:, None]


def _kept(g: Builder, lengths: Value | None, t: int, new: Value, old: Value) -> Value:
    """The new state in rows that step t lies within, else the old one."""
    if lengths is None:
        return new
    return g.where(g.ew("less", g.scalar(t, "i64"), g.reshape(lengths, (lengths.shape[0], 1))), new, old)


def _project(x: Array, w: Array, b: Array) -> Array:
    """The input's share of all gates, for all steps at once."""
    t, n, i = x.shape
    out: Array = np.matmul(x.reshape(t * n, i), w.T).reshape(t, n, len(w)) + b
    return out


def _project_values(g: Builder, x: Value, w: Value, b: Value) -> Value:
    t, n, i = x.shape
    flat = g.matmul(g.reshape(x, (t * n, i)), w, transpose_b=True)
    return g.reshape(g.add(flat, b), (t, n, w.shape[0]))


def _unroll(g: Builder, shares: Value, reverse: bool, step: Callable[[Value, int], Value]) -> Value:
    """Apply `step` to each time step of `shares` in order; the outputs stacked by time."""
    t, n, rows = shares.shape
    outs = {i: step(g.reshape(g.slice_axis(shares, 0, i, i + 1), (n, rows)), i) for i in _steps(t, reverse)}
    return g.stack([outs[i] for i in range(t)], 0)


def _split(g: Builder, gates: Value, count: int) -> list[Value]:
    h = gates.shape[1] // count
    return [g.slice_axis(gates, 1, i * h, (i + 1) * h) for i in range(count)]


class _Clip(NamedTuple):
    """Limits of the cells' states; `nan`: a state that is no number becomes the lower one, and does not stay NaN."""

    low: float
    high: float
    nan: bool


def _lstm_reference(x: Array, w_ih: Array, w_hh: Array, b: Array, h0: Array, c0: Array, reverse: bool, w_hr: Array | None = None,
                    lengths: Array | None = None, clip: _Clip | None = None) -> tuple[Array, Array, Array]:  # fmt: skip
    """Both operators of LSTM in NumPy; w_hr projects h, rows end at `lengths`."""
    shares = _project(widened(x), widened(w_ih), widened(b))
    u, h, c = widened(w_hh).T, widened(h0), widened(c0)
    projection = None if w_hr is None else widened(w_hr).T
    y = np.empty((*x.shape[:2], h.shape[1]), h.dtype)
    for t in _steps(len(x), reverse):
        i, f, n, o = np.split(shares[t] + h @ u, 4, 1)
        cell = _sigmoid(f) * c + _sigmoid(i) * np.tanh(n)
        if clip is not None:
            lower, upper = (np.fmax, np.fmin) if clip.nan else (np.maximum, np.minimum)
            cell = upper(lower(cell, clip.low), clip.high)
        out = _sigmoid(o) * np.tanh(cell)
        out = out if projection is None else out @ projection
        y[t] = h = np.where(_live(lengths, t), out, h)
        c = np.where(_live(lengths, t), cell, c)
    return narrowed(y, x), narrowed(h, x), narrowed(c, x)


def _lstm_values(g: Builder, x: Value, w_ih: Value, w_hh: Value, b: Value, h0: Value, c0: Value, reverse: bool,
                 w_hr: Value | None = None, lengths: Value | None = None, clip: _Clip | None = None
                 ) -> tuple[Value, Value, Value]:  # fmt: skip
    """The same as simpler operators, all steps unrolled."""
    h, c = h0, c0

    def step(share: Value, t: int) -> Value:
        nonlocal h, c
        i, f, n, o = _split(g, g.add(share, g.matmul(h, w_hh, transpose_b=True)), 4)
        cell = g.add(g.mul(g.sigmoid(f), c), g.mul(g.sigmoid(i), g.tanh(n)))
        if clip is not None:
            limited = g.minimum(g.maximum(cell, clip.low), clip.high)
            cell = g.where(g.ew("is_nan", cell), g.scalar(clip.low, cell.dtype), limited) if clip.nan else limited
        out = g.mul(g.sigmoid(o), g.tanh(cell))
        out = out if w_hr is None else g.matmul(out, w_hr, transpose_b=True)
        h, c = _kept(g, lengths, t, out, h), _kept(g, lengths, t, cell, c)
        return h

    return _unroll(g, _project_values(g, x, w_ih, b), reverse, step), h, c


@op
class Lstm(Loops):
    """LSTM (Hochreiter and Schmidhuber, 1997, with forget gate): x, w_ih, w_hh, b, h0, c0 -> y[T,N,H], h, c.

    Gates lie in the order i, f, g, o: c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c').
    With `reverse` the sequence is read from its end; y stays aligned with x and h, c belong to step 0.
    """

    reverse: bool = False

    samples = (
        S((3, 2, 5), (16, 5), (16, 4), (16,), (2, 4), (2, 4)),
        S((4, 1, 3), (28, 3), (28, 7), (28,), (1, 7), (1, 7), reverse=True),
        S((1, 3, 4), (8, 4), (8, 2), (8,), (3, 2), (3, 2)),
        S((2, 0, 4), (8, 4), (8, 2), (8,), (0, 2), (0, 2), grad=False),
        S((5, 2, 16), (64, 16), (64, 16), (64,), (2, 16), (2, 16), low=-0.5, high=0.5),
    )

    def infer(self, x: TensorType, w_ih: TensorType, w_hh: TensorType, b: TensorType, h0: TensorType, c0: TensorType
              ) -> tuple[TensorType, TensorType, TensorType]:  # fmt: skip
        _check(4, x, w_ih, w_hh, (b,), (h0, c0))
        return x.with_shape((*x.shape[:2], w_hh.shape[1])), h0, c0

    def reference(self, x: Array, w_ih: Array, w_hh: Array, b: Array, h0: Array, c0: Array
                  ) -> tuple[Array, Array, Array]:  # fmt: skip
        return _lstm_reference(x, w_ih, w_hh, b, h0, c0, self.reverse)

    def decompose(self, g: Builder, x: Value, w_ih: Value, w_hh: Value, b: Value, h0: Value, c0: Value
                  ) -> tuple[Value, Value, Value]:  # fmt: skip
        """All steps unrolled, for gradients and for targets without a kernel of it."""
        return _lstm_values(g, x, w_ih, w_hh, b, h0, c0, self.reverse)

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        from diptych.ops.recurrent_gradient import lstm_gradient

        if xs[0].type.size == 0 or xs[4].type.size == 0:
            return tuple(g.constant(np.zeros(v.shape), v.dtype) for v in xs)
        return lstm_gradient(g, self.reverse, xs, ys[0], dys)


@op
class LstmGeneral(Loops):
    """lstm with a projection (LSTMP; Sak et al., 2014), lengths, limits of the cells' states, or several of them.

    x[T,N,I], w_ih[4H,I], w_hh[4H,P], b, (projected: w_hr[P,H]), h0[N,P], c0[N,H], (ragged: lengths[N]) -> y[T,N,P], h, c.
    Projected, h' = w_hr (sigmoid(o) tanh(c')), otherwise P = H. Past a row's length its state stays what it was. With
    clip_low and clip_high each c' is limited to that range before anything is made of it (c0 is not): cuDNN's clipping.
    A NaN stays one unless clip_nan is set, then it becomes clip_low.
    """

    reverse: bool = False
    projected: bool = False
    ragged: bool = False
    clip_low: float | None = None
    clip_high: float | None = None
    clip_nan: bool = False

    samples = (
        S((3, 2, 5), (16, 5), (16, 3), (16,), (3, 4), (2, 3), (2, 4), projected=True),
        S((4, 1, 3), (28, 3), (28, 9), (28,), (9, 7), (1, 9), (1, 7), projected=True, reverse=True),
        S((4, 3, 5), (16, 5), (16, 4), (16,), (3, 4), (3, 4), Arg((3,), "i64", 0, 6), ragged=True),
        S((4, 3, 5), (16, 5), (16, 4), (16,), (3, 4), (3, 4), Arg((3,), "i64", 0, 6), ragged=True, reverse=True),
        S((4, 3, 5), (16, 5), (16, 3), (16,), (3, 4), (3, 3), (3, 4), Arg((3,), "i64", 0, 6), projected=True, ragged=True),
        S((4, 2, 5), (16, 5), (16, 4), (16,), (2, 4), (2, 4), clip_low=-0.5, clip_high=0.25, grad=False),
        S((3, 2, 5), (16, 5), (16, 4), (16,), (2, 4), (2, 4), clip_low=-9.0, clip_high=9.0, clip_nan=True),
        S((4, 3, 5), (16, 5), (16, 3), (16,), (3, 4), (3, 3), (3, 4), Arg((3,), "i64", 0, 6), projected=True, ragged=True,
          reverse=True, clip_low=-0.25, clip_high=0.5, grad=False),
    )

    def _named(self, rest: tuple[Any, ...]) -> tuple[Any, Any, Any, Any]:
        """w_hr or None, h0, c0, lengths or None."""
        if len(rest) != 2 + self.projected + self.ragged:
            raise TypeRuleError(f"{len(rest)} operands after the bias do not fit projected={self.projected}, ragged={self.ragged}")
        w_hr = rest[0] if self.projected else None
        h0, c0 = rest[self.projected : self.projected + 2]
        return w_hr, h0, c0, rest[-1] if self.ragged else None

    def infer(self, x: TensorType, w_ih: TensorType, w_hh: TensorType, b: TensorType, *rest: TensorType
              ) -> tuple[TensorType, TensorType, TensorType]:  # fmt: skip
        w_hr, h0, c0, lengths = self._named(rest)
        low, high = self.clip_low, self.clip_high
        if (low is None) != (high is None) or (low is not None and high is not None and not low <= high):
            raise TypeRuleError(f"the cells' states are limited from clip_low={low} to clip_high={high}: give both, in this order, or none")
        if w_hr is None:
            _check(4, x, w_ih, w_hh, (b,), (h0, c0), self.ragged, lengths)
            return x.with_shape((*x.shape[:2], w_hh.shape[1])), h0, c0
        if w_hr.rank != 2 or w_hh.rank != 2 or w_hh.shape != (4 * w_hr.shape[1], w_hr.shape[0]):
            raise TypeRuleError(f"projection {w_hr} must be [P, H] for the recurrent weight [4H, P], which is {w_hh}")
        width, hidden = w_hr.shape
        _check(4, x, w_ih, w_hh.with_shape((4 * hidden, hidden)), (b,), (c0,), self.ragged, lengths)
        floats(w_hr, h0, x)
        if h0.shape != (x.shape[1], width):
            raise TypeRuleError(f"state {h0} must have shape ({x.shape[1]}, {width}) for input {x} and projection {w_hr}")
        return x.with_shape((*x.shape[:2], width)), h0, c0

    @property
    def clip(self) -> _Clip | None:
        """The limits of the cells' states."""
        if self.clip_low is None or self.clip_high is None:
            return None
        return _Clip(self.clip_low, self.clip_high, self.clip_nan)

    def reference(self, x: Array, w_ih: Array, w_hh: Array, b: Array, *rest: Array) -> tuple[Array, Array, Array]:
        w_hr, h0, c0, lengths = self._named(rest)
        return _lstm_reference(x, w_ih, w_hh, b, h0, c0, self.reverse, w_hr, lengths, self.clip)

    def decompose(self, g: Builder, x: Value, w_ih: Value, w_hh: Value, b: Value, *rest: Value
                  ) -> tuple[Value, Value, Value]:  # fmt: skip
        """All steps unrolled, for gradients and for targets without a kernel of it."""
        w_hr, h0, c0, lengths = self._named(rest)
        return _lstm_values(g, x, w_ih, w_hh, b, h0, c0, self.reverse, w_hr, lengths, self.clip)


@op
class Gru(Loops):
    """GRU (Cho et al., 2014; reset after the product, as cuDNN): x, w_ih, w_hh, b_ih, b_hh, h0 -> y[T,N,H], h.

    Gates lie in the order r, z, n: n = tanh(W x + b_ih + r (U h + b_hh)), h' = (1 - z) n + z h. With `ragged`, lengths
    [N] come last: past a row's length its state stays what it was.
    """

    reverse: bool = False
    ragged: bool = False

    samples = (
        S((3, 2, 5), (12, 5), (12, 4), (12,), (12,), (2, 4)),
        S((4, 1, 3), (21, 3), (21, 7), (21,), (21,), (1, 7), reverse=True),
        S((1, 3, 4), (6, 4), (6, 2), (6,), (6,), (3, 2)),
        S((5, 2, 16), (48, 16), (48, 16), (48,), (48,), (2, 16), low=-0.5, high=0.5),
        S((4, 3, 5), (12, 5), (12, 4), (12,), (12,), (3, 4), Arg((3,), "i64", 0, 6), ragged=True),
        S((4, 3, 5), (12, 5), (12, 4), (12,), (12,), (3, 4), Arg((3,), "i64", 0, 6), ragged=True, reverse=True),
    )

    def infer(self, x: TensorType, w_ih: TensorType, w_hh: TensorType, b_ih: TensorType, b_hh: TensorType,
              h0: TensorType, lengths: TensorType | None = None) -> tuple[TensorType, TensorType]:  # fmt: skip
        _check(3, x, w_ih, w_hh, (b_ih, b_hh), (h0,), self.ragged, lengths)
        return x.with_shape((*x.shape[:2], w_hh.shape[1])), h0

    def reference(self, x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, h0: Array,
                  lengths: Array | None = None) -> tuple[Array, Array]:  # fmt: skip
        shares = _project(widened(x), widened(w_ih), widened(b_ih))
        u, b, h = widened(w_hh).T, widened(b_hh), widened(h0)
        y = np.empty((*x.shape[:2], h.shape[1]), h.dtype)
        for t in _steps(len(x), self.reverse):
            (xr, xz, xn), (hr, hz, hn) = np.split(shares[t], 3, 1), np.split(h @ u + b, 3, 1)
            z = _sigmoid(xz + hz)
            fresh = (1 - z) * np.tanh(xn + _sigmoid(xr + hr) * hn) + z * h
            y[t] = h = np.where(_live(lengths, t), fresh, h)
        return narrowed(y, x), narrowed(h, x)

    def decompose(self, g: Builder, x: Value, w_ih: Value, w_hh: Value, b_ih: Value, b_hh: Value, h0: Value,
                  lengths: Value | None = None) -> tuple[Value, Value]:  # fmt: skip
        """All steps unrolled, for gradients and for targets without a kernel of it."""
        h = h0

        def step(share: Value, t: int) -> Value:
            nonlocal h
            xr, xz, xn = _split(g, share, 3)
            hr, hz, hn = _split(g, g.add(g.matmul(h, w_hh, transpose_b=True), b_hh), 3)
            z = g.sigmoid(g.add(xz, hz))
            n = g.tanh(g.add(xn, g.mul(g.sigmoid(g.add(xr, hr)), hn)))
            h = _kept(g, lengths, t, g.add(g.mul(g.sub(1.0, z), n), g.mul(z, h)), h)
            return h

        return _unroll(g, _project_values(g, x, w_ih, b_ih), self.reverse, step), h

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        from diptych.ops.recurrent_gradient import gru_gradient

        if xs[0].type.size == 0 or xs[5].type.size == 0:
            return tuple(g.constant(np.zeros(v.shape), v.dtype) for v in xs)
        return (*gru_gradient(g, self.reverse, xs[:6], ys[0], dys, xs[6] if self.ragged else None), *(None,) * self.ragged)


@op
class Rnn(Loops):
    """Elman network: x, w_ih, w_hh, b, h0 -> y[T,N,H], h with h' = tanh (or relu) of W x + b + U h.

    With `ragged`, lengths [N] come last: past a row's length its state stays what it was.
    """

    activation: str = "tanh"
    reverse: bool = False
    ragged: bool = False

    samples = (
        S((3, 2, 5), (4, 5), (4, 4), (4,), (2, 4)),
        S((4, 1, 3), (7, 3), (7, 7), (7,), (1, 7), reverse=True),
        S((3, 2, 5), (4, 5), (4, 4), (4,), (2, 4), activation="relu", grad=False),
        S((4, 3, 5), (4, 5), (4, 4), (4,), (3, 4), Arg((3,), "i64", 0, 6), ragged=True),
        S((4, 3, 5), (4, 5), (4, 4), (4,), (3, 4), Arg((3,), "i64", 0, 6), ragged=True, reverse=True),
        S(Arg((2, 2, 3), "f64"), Arg((3, 3), "f64"), Arg((3, 3), "f64"), Arg((3,), "f64"), Arg((2, 3), "f64")),
    )

    def infer(self, x: TensorType, w_ih: TensorType, w_hh: TensorType, b: TensorType, h0: TensorType,
              lengths: TensorType | None = None) -> tuple[TensorType, TensorType]:  # fmt: skip
        _check(1, x, w_ih, w_hh, (b,), (h0,), self.ragged, lengths)
        if self.activation not in ("tanh", "relu"):
            raise TypeRuleError(f"activation={self.activation!r} is neither 'tanh' nor 'relu'")
        return x.with_shape((*x.shape[:2], w_hh.shape[1])), h0

    def reference(self, x: Array, w_ih: Array, w_hh: Array, b: Array, h0: Array, lengths: Array | None = None
                  ) -> tuple[Array, Array]:  # fmt: skip
        shares = _project(widened(x), widened(w_ih), widened(b))
        u, h = widened(w_hh).T, widened(h0)
        y = np.empty((*x.shape[:2], h.shape[1]), h.dtype)
        for t in _steps(len(x), self.reverse):
            total = shares[t] + h @ u
            fresh = np.tanh(total) if self.activation == "tanh" else np.maximum(total, 0)
            y[t] = h = np.where(_live(lengths, t), fresh, h)
        return narrowed(y, x), narrowed(h, x)

    def decompose(self, g: Builder, x: Value, w_ih: Value, w_hh: Value, b: Value, h0: Value,
                  lengths: Value | None = None) -> tuple[Value, Value]:  # fmt: skip
        """All steps unrolled, for gradients and for targets without a kernel of it."""
        h = h0

        def step(share: Value, t: int) -> Value:
            nonlocal h
            total = g.add(share, g.matmul(h, w_hh, transpose_b=True))
            h = _kept(g, lengths, t, g.tanh(total) if self.activation == "tanh" else g.relu(total), h)
            return h

        return _unroll(g, _project_values(g, x, w_ih, b), self.reverse, step), h

    def gradient(self, g: Builder, xs: tuple[Value, ...], ys: tuple[Value, ...], dys: tuple[Value, ...]
                 ) -> tuple[Value | None, ...]:  # fmt: skip
        from diptych.ops.recurrent_gradient import rnn_gradient

        if xs[0].type.size == 0 or xs[4].type.size == 0:
            return tuple(g.constant(np.zeros(v.shape), v.dtype) for v in xs)
        found = rnn_gradient(g, self.reverse, self.activation, xs[:5], ys[0], dys, xs[5] if self.ragged else None)
        return (*found, *(None,) * self.ragged)
