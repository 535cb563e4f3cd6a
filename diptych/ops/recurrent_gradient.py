"""Gradients of recurrent layers: one operator for what must go step by step, products over all steps for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import TypeRuleError
from diptych.ops.base import Arg, Loops, S, op
from diptych.ops.rules import floats, narrowed, widened

if TYPE_CHECKING:
    from diptych.ir import Array, TensorType, Value
    from diptych.ops.build import Builder

__all__ = ["LstmBackward", "RecurrentBackward", "gru_gradient", "lstm_gradient", "rnn_gradient"]


def _steps(count: int, reverse: bool) -> range:
    return range(count - 1, -1, -1) if reverse else range(count)


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype, copy=False)


@op
class LstmBackward(Loops):
    """Backpropagation through time: gates[T,N,4H] before their activation, w_hh, c0, dy[T,N,H], dh, dc -> dgates, dc0.

    Gates lie in the order i, f, g, o. `reverse` as for lstm; dh and dc arrive at the states after the last step.
    """

    reverse: bool = False

    samples = (
        S((3, 2, 16), (16, 4), (2, 4), (3, 2, 4), (2, 4), (2, 4)),
        S((4, 1, 28), (28, 7), (1, 7), (4, 1, 7), (1, 7), (1, 7), reverse=True),
        S((1, 3, 8), (8, 2), (3, 2), (1, 3, 2), (3, 2), (3, 2)),
        S((5, 9, 132), (132, 33), (9, 33), (5, 9, 33), (9, 33), (9, 33), low=-0.5, high=0.5),
        S((2, 17, 64), (64, 16), (17, 16), (2, 17, 16), (17, 16), (17, 16), low=-0.5, high=0.5),
        S((2, 0, 8), (8, 2), (0, 2), (2, 0, 2), (0, 2), (0, 2), grad=False),
        S(*(Arg(s, "f64") for s in ((2, 3, 8), (8, 2), (3, 2), (2, 3, 2), (3, 2), (3, 2)))),
    )  # fmt: skip

    def infer(self, gates: TensorType, w_hh: TensorType, c0: TensorType, dy: TensorType, dh: TensorType, dc: TensorType
              ) -> tuple[TensorType, TensorType]:  # fmt: skip
        floats(gates, w_hh, c0, dy, dh, dc)
        if gates.rank != 3 or gates.shape[0] == 0 or w_hh.rank != 2 or w_hh.shape[0] != 4 * w_hh.shape[1]:
            raise TypeRuleError(f"gates {gates} must be [T, N, 4H] with at least one step, the weight {w_hh} [4H, H]")
        steps, rows, _ = gates.shape
        hidden = w_hh.shape[1]
        if gates.shape[2] != 4 * hidden or dy.shape != (steps, rows, hidden):
            raise TypeRuleError(f"gates {gates}, weight {w_hh} and gradient {dy} do not fit one another")
        for t in (c0, dh, dc):
            if t.shape != (rows, hidden):
                raise TypeRuleError(f"state {t} must have shape ({rows}, {hidden}) for gates {gates}")
        return gates, c0

    def reference(self, gates: Array, w_hh: Array, c0: Array, dy: Array, dh: Array, dc: Array) -> tuple[Array, Array]:
        x, u, c, back = widened(gates), widened(w_hh), widened(c0), widened(dy)
        order = list(_steps(len(x), self.reverse))
        h_now, c_now = widened(dh), widened(dc)
        cells = []
        for t in order:
            i, f, g, _ = np.split(x[t], 4, 1)
            cells.append(c)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        out = np.empty_like(x)
        for t, before in zip(reversed(order), reversed(cells), strict=True):
            i, f, g, o = np.split(x[t], 4, 1)
            i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
            tanh_c = np.tanh(f * before + i * g)
            d = back[t] + h_now
            dcell = c_now + d * o * (1 - tanh_c * tanh_c)
            parts = dcell * g * i * (1 - i), dcell * before * f * (1 - f), dcell * i * (1 - g * g), d * tanh_c * o * (1 - o)
            out[t] = np.concatenate(parts, 1)
            h_now, c_now = out[t] @ u, dcell * f
        return narrowed(out, gates), narrowed(c_now, gates)

    def decompose(self, g: Builder, gates: Value, w_hh: Value, c0: Value, dy: Value, dh: Value, dc: Value
                  ) -> tuple[Value, Value]:  # fmt: skip
        """All steps unrolled, for gradients of this gradient."""
        steps, _, hidden = dy.shape
        order = list(_steps(steps, self.reverse))

        def at(v: Value, t: int) -> Value:
            return g.reshape(g.slice_axis(v, 0, t, t + 1), v.shape[1:])

        def slope(s: Value) -> Value:
            return g.mul(s, g.sub(1.0, s))

        def flat(s: Value) -> Value:
            return g.sub(1.0, g.mul(s, s))

        active, cells = [], [c0]
        for t in order:
            now = at(gates, t)
            i, f, n, o = (g.slice_axis(now, 1, k * hidden, (k + 1) * hidden) for k in range(4))
            active.append((g.sigmoid(i), g.sigmoid(f), g.tanh(n), g.sigmoid(o)))
            i, f, n, _ = active[-1]
            cells.append(g.add(g.mul(f, cells[-1]), g.mul(i, n)))
        out: dict[int, Value] = {}
        for k in range(steps - 1, -1, -1):
            i, f, n, o = active[k]
            tanh_c = g.tanh(cells[k + 1])
            d = g.add(at(dy, order[k]), dh)
            dcell = g.add(dc, g.mul(g.mul(d, o), flat(tanh_c)))
            parts = [g.mul(g.mul(dcell, n), slope(i)), g.mul(g.mul(dcell, cells[k]), slope(f)),
                     g.mul(g.mul(dcell, i), flat(n)), g.mul(g.mul(d, tanh_c), slope(o))]  # fmt: skip
            out[order[k]] = g.concat(parts, 1)
            dh, dc = g.matmul(out[order[k]], w_hh), g.mul(dcell, f)
        return g.stack([out[t] for t in range(steps)], 0), dc


@op
class RecurrentBackward(Loops):
    """Linear backpropagation through time: slopes[T,N,G*H], w_hh, keep[T,N,H], dy[T,N,H], dh[N,H] -> dgates, d.

    d, what arrives at h of a step, is dy and what the step after hands back, keep * d + dgates w_hh of that step, or dh at
    the last one; dgates is slopes * d for each of the G gates. `reverse` as for gru and rnn.
    """

    reverse: bool = False

    samples = (
        S((3, 2, 12), (12, 4), (3, 2, 4), (3, 2, 4), (2, 4)),
        S((4, 1, 7), (7, 7), (4, 1, 7), (4, 1, 7), (1, 7), reverse=True),
        S((1, 3, 6), (6, 2), (1, 3, 2), (1, 3, 2), (3, 2)),
        S((5, 9, 99), (99, 33), (5, 9, 33), (5, 9, 33), (9, 33), low=-0.5, high=0.5),
        S((2, 17, 48), (48, 16), (2, 17, 16), (2, 17, 16), (17, 16), low=-0.5, high=0.5),
        S((2, 0, 6), (6, 2), (2, 0, 2), (2, 0, 2), (0, 2), grad=False),
        S(*(Arg(s, "f64") for s in ((2, 3, 6), (6, 2), (2, 3, 2), (2, 3, 2), (3, 2)))),
    )  # fmt: skip

    def infer(self, slopes: TensorType, w_hh: TensorType, keep: TensorType, dy: TensorType, dh: TensorType
              ) -> tuple[TensorType, TensorType]:  # fmt: skip
        floats(slopes, w_hh, keep, dy, dh)
        if slopes.rank != 3 or slopes.shape[0] == 0 or w_hh.rank != 2 or w_hh.shape[1] == 0 or w_hh.shape[0] % w_hh.shape[1]:
            raise TypeRuleError(f"slopes {slopes} must be [T, N, G*H] with at least one step, the weight {w_hh} [G*H, H]")
        steps, rows, depth = slopes.shape
        hidden = w_hh.shape[1]
        if depth != w_hh.shape[0] or dy.shape != (steps, rows, hidden) or keep.shape != dy.shape or dh.shape != (rows, hidden):
            raise TypeRuleError(f"slopes {slopes}, weight {w_hh}, keep {keep} and gradients {dy}, {dh} do not fit one another")
        return slopes, dy

    def reference(self, slopes: Array, w_hh: Array, keep: Array, dy: Array, dh: Array) -> tuple[Array, Array]:
        a, u, k, back, arriving = (widened(v) for v in (slopes, w_hh, keep, dy, dh))
        gates = w_hh.shape[0] // w_hh.shape[1]
        out, d = np.empty_like(a), np.empty_like(back)
        for t in reversed(_steps(len(a), self.reverse)):
            d[t] = back[t] + arriving
            out[t] = a[t] * np.tile(d[t], (1, gates))
            arriving = k[t] * d[t] + out[t] @ u
        return narrowed(out, slopes), narrowed(d, dy)

    def decompose(self, g: Builder, slopes: Value, w_hh: Value, keep: Value, dy: Value, dh: Value) -> tuple[Value, Value]:
        """All steps unrolled, for gradients of this gradient."""
        steps, _, hidden = dy.shape

        def at(v: Value, t: int) -> Value:
            return g.reshape(g.slice_axis(v, 0, t, t + 1), v.shape[1:])

        out: dict[int, Value] = {}
        arrived: dict[int, Value] = {}
        for t in reversed(_steps(steps, self.reverse)):
            arrived[t] = g.add(at(dy, t), dh)
            out[t] = g.mul(at(slopes, t), g.concat([arrived[t]] * (w_hh.shape[0] // hidden), 1))
            dh = g.add(g.mul(at(keep, t), arrived[t]), g.matmul(out[t], w_hh))
        return g.stack([out[t] for t in range(steps)], 0), g.stack([arrived[t] for t in range(steps)], 0)


def _before(g: Builder, y: Value, h0: Value, reverse: bool) -> Value:
    """The state that each step started from [T, N, H]."""
    steps, (rows, hidden) = y.shape[0], h0.shape
    first = g.reshape(h0, (1, rows, hidden))
    if steps == 1:
        return first
    if reverse:
        return g.concat([g.slice_axis(y, 0, 1, steps), first], 0)
    return g.concat([first, g.slice_axis(y, 0, 0, steps - 1)], 0)


def _one_minus_square(g: Builder, v: Value) -> Value:
    return g.sub(1.0, g.mul(v, v))


def _alive(g: Builder, lengths: Value, y: Value) -> Value:
    """1 at the steps that a row has, 0 past its length, where the state stays what it was [T, N, 1]."""
    steps, rows, _ = y.shape
    at = g.constant(np.arange(steps).reshape(steps, 1, 1), "i64")
    return g.cast(g.less(at, g.reshape(lengths, (1, rows, 1))), y.dtype)


def gru_gradient(g: Builder, reverse: bool, xs: tuple[Value, ...], y: Value, dys: tuple[Value, ...],
                 lengths: Value | None = None) -> tuple[Value, ...]:  # fmt: skip
    """Gradients of x, w_ih, w_hh, b_ih, b_hh, h0. The gates are worked out again, all steps in two products: y is known."""
    x, w_ih, w_hh, b_ih, b_hh, h0 = xs
    steps, rows, width = x.shape
    hidden = w_hh.shape[1]
    before = _before(g, y, h0, reverse)
    flat_x, flat_h = g.reshape(x, (steps * rows, width)), g.reshape(before, (steps * rows, hidden))

    def gates(flat: Value, w: Value, b: Value) -> list[Value]:
        every = g.reshape(g.add(g.matmul(flat, w, transpose_b=True), b), (steps, rows, 3 * hidden))
        return [g.slice_axis(every, 2, k * hidden, (k + 1) * hidden) for k in range(3)]

    (xr, xz, xn), (hr, hz, hn) = gates(flat_x, w_ih, b_ih), gates(flat_h, w_hh, b_hh)
    r, z = g.sigmoid(g.add(xr, hr)), g.sigmoid(g.add(xz, hz))
    n = g.tanh(g.add(xn, g.mul(r, hn)))
    fresh, keep = g.sub(1.0, z), z
    if lengths is not None:
        alive = _alive(g, lengths, y)
        fresh, keep = g.mul(fresh, alive), g.sub(1.0, g.mul(fresh, alive))
    to_n = g.mul(fresh, _one_minus_square(g, n))  # h to the candidate before its activation
    to_r = g.mul(g.mul(to_n, hn), g.mul(r, g.sub(1.0, r)))
    to_z = g.mul(g.mul(g.sub(before, n), z), fresh)
    slopes = g.concat([to_r, to_z, g.mul(to_n, r)], 2)
    dh_gates, d = g.emit_all(RecurrentBackward(reverse), slopes, w_hh, keep, *dys)
    dx_gates = g.concat([g.slice_axis(dh_gates, 2, 0, 2 * hidden), g.mul(to_n, d)], 2)
    flat, flat_u = (g.reshape(v, (steps * rows, 3 * hidden)) for v in (dx_gates, dh_gates))
    dx = g.reshape(g.matmul(flat, w_ih), x.shape)
    dh0 = _handed_back(g, reverse, dh_gates, w_hh, g.mul(keep, d))
    return (dx, g.matmul(flat, flat_x, transpose_a=True), g.matmul(flat_u, flat_h, transpose_a=True), g.sum(flat, (0,)),
            g.sum(flat_u, (0,)), dh0)  # fmt: skip


def rnn_gradient(g: Builder, reverse: bool, activation: str, xs: tuple[Value, ...], y: Value,
                 dys: tuple[Value, ...], lengths: Value | None = None) -> tuple[Value, ...]:  # fmt: skip
    """Gradients of x, w_ih, w_hh, b, h0; y tells the slopes of tanh and of relu."""
    x, w_ih, w_hh, _, h0 = xs
    steps, rows, width = x.shape
    hidden = w_hh.shape[1]
    slopes = _one_minus_square(g, y) if activation == "tanh" else g.cast(g.greater(y, 0.0), y.dtype)
    keep = g.scalar(0, y.dtype)
    if lengths is not None:
        alive = _alive(g, lengths, y)
        slopes, keep = g.mul(slopes, alive), g.sub(1.0, alive)
    keep = g.broadcast_to(keep, y.shape)
    dgates, d = g.emit_all(RecurrentBackward(reverse), slopes, w_hh, keep, *dys)
    flat = g.reshape(dgates, (steps * rows, hidden))
    flat_x, flat_h = g.reshape(x, (steps * rows, width)), g.reshape(_before(g, y, h0, reverse), (steps * rows, hidden))
    dw_ih, dw_hh = (g.matmul(flat, v, transpose_a=True) for v in (flat_x, flat_h))
    return g.reshape(g.matmul(flat, w_ih), x.shape), dw_ih, dw_hh, g.sum(flat, (0,)), _handed_back(g, reverse, dgates, w_hh, g.mul(keep, d))


def _handed_back(g: Builder, reverse: bool, dgates: Value, w_hh: Value, kept: Value | None = None) -> Value:
    """What the first step hands back to the state it started from."""
    steps, rows, depth = dgates.shape
    at = steps - 1 if reverse else 0
    dh = g.matmul(g.reshape(g.slice_axis(dgates, 0, at, at + 1), (rows, depth)), w_hh)
    return dh if kept is None else g.add(dh, g.reshape(g.slice_axis(kept, 0, at, at + 1), (rows, w_hh.shape[1])))


def lstm_gradient(g: Builder, reverse: bool, xs: tuple[Value, ...], y: Value, dys: tuple[Value, ...]) -> tuple[Value, ...]:
    """Gradients of x, w_ih, w_hh, b, h0, c0. The gates are worked out again, all steps in two products: y is known."""
    x, w_ih, w_hh, b, h0, c0 = xs
    steps, rows, width = x.shape
    hidden = w_hh.shape[1]
    before = _before(g, y, h0, reverse)
    flat_x, flat_h = g.reshape(x, (steps * rows, width)), g.reshape(before, (steps * rows, hidden))
    gates = g.add(g.matmul(flat_x, w_ih, transpose_b=True), g.add(g.matmul(flat_h, w_hh, transpose_b=True), b))
    gates = g.reshape(gates, (steps, rows, 4 * hidden))
    dgates, dc0 = g.emit_all(LstmBackward(reverse), gates, w_hh, c0, *dys)
    flat = g.reshape(dgates, (steps * rows, 4 * hidden))
    dx = g.reshape(g.matmul(flat, w_ih), x.shape)
    dw_ih, dw_hh = (g.matmul(flat, v, transpose_a=True) for v in (flat_x, flat_h))
    return dx, dw_ih, dw_hh, g.sum(flat, (0,)), _handed_back(g, reverse, dgates, w_hh), dc0
