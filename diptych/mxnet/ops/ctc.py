"""Connectionist temporal classification: the loss of all alignments of a label sequence, and its gradient.

Graves, Fernandez, Gomez and Schmidhuber, "Connectionist Temporal Classification" (2006), in logarithms, all sequences of
the batch at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diptych.mxnet.ops.live import host, host_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.frontends.mxnet.attributes import Attributes
    from diptych.ir import Array

_NONE = -1e30  # the logarithm of 0, finite so that differences are


def _problem(a: Attributes, arrays: Sequence[Array]) -> tuple[Array, Array, Array, Array, int]:
    """Log-probabilities [T, N, C], labels with blanks between [N, 2L+1], label and data lengths, the blank's number."""
    data, label = arrays[0].astype(np.float64), arrays[1].astype(np.int64)
    steps, batch, classes = data.shape
    rest = list(arrays[2:])
    lengths = np.full(batch, steps)
    if a.boolean("use_data_lengths", False):
        lengths = rest.pop(0).astype(np.int64)
    last = a.text("blank_label", "first", ("first", "last")) == "last"
    blank = classes - 1 if last else 0
    if a.boolean("use_label_lengths", False):
        counts = rest.pop(0).astype(np.int64)
    else:  # labels end at the first padding value
        padding = label == (-1 if last else 0)
        counts = np.where(padding.any(1), padding.argmax(1), label.shape[1])
    extended = np.full((batch, 2 * label.shape[1] + 1), blank)
    extended[:, 1::2] = np.where(np.arange(label.shape[1]) < counts[:, None], label, blank)
    shifted = data - data.max(2, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(2, keepdims=True))
    return logs, extended, counts, lengths, blank


def _sum(*parts: Array) -> Array:
    top = np.maximum.reduce(parts)
    found: Array = top + np.log(sum(np.exp(p - top) for p in parts))
    return found


def _forward(emit: Array, skip: Array) -> Array:
    """Log-probabilities of all prefixes, [T, N, S]."""
    steps, batch, states = emit.shape
    alpha = np.full((steps, batch, states), _NONE)
    alpha[0, :, :2] = emit[0, :, :2]
    for t in range(1, steps):
        one = np.concatenate([np.full((batch, 1), _NONE), alpha[t - 1, :, :-1]], 1)
        two = np.concatenate([np.full((batch, 2), _NONE), alpha[t - 1, :, :-2]], 1)
        alpha[t] = _sum(alpha[t - 1], one, np.where(skip, two, _NONE)) + emit[t]
    return alpha


def _solve(a: Attributes, arrays: Sequence[Array], posterior: bool) -> tuple[Array, Array | None]:
    logs, extended, counts, lengths, blank = _problem(a, arrays)
    steps, batch = logs.shape[:2]
    states = extended.shape[1]
    rows = np.arange(batch)
    emit = np.take_along_axis(logs, np.broadcast_to(extended, (steps, batch, states)), 2)
    skip = np.zeros((batch, states), bool)
    skip[:, 2:] = (extended[:, 2:] != blank) & (extended[:, 2:] != extended[:, :-2])
    alpha = _forward(emit, skip)
    end = 2 * counts
    final = alpha[lengths - 1, rows]
    before = np.where(counts > 0, final[rows, np.maximum(end - 1, 0)], _NONE)
    total = _sum(final[rows, end], before)
    if not posterior:
        return -total, None
    beta = np.full((steps, batch, states), _NONE)
    later = np.full((batch, states), _NONE)
    ends = np.full((batch, states), _NONE)
    ends[rows, end] = 0.0
    ends[rows[counts > 0], end[counts > 0] - 1] = 0.0
    skip_on = np.concatenate([skip[:, 2:], np.zeros((batch, 2), bool)], 1)
    for t in range(steps - 1, -1, -1):
        one = np.concatenate([later[:, 1:], np.full((batch, 1), _NONE)], 1)
        two = np.concatenate([later[:, 2:], np.full((batch, 2), _NONE)], 1)
        inner = _sum(later, one, np.where(skip_on, two, _NONE))
        beta[t] = np.where(np.equal(t, lengths - 1)[:, None], ends, np.where(np.less(t, lengths - 1)[:, None], inner, _NONE))
        later = beta[t] + emit[t]
    share: Array = alpha + beta - total[None, :, None]
    weight = np.where(np.less(share, -600), 0.0, np.exp(np.maximum(share, -700.0)))
    d = np.exp(logs)
    index = (np.arange(steps)[:, None, None], rows[None, :, None], np.broadcast_to(extended, (steps, batch, states)))
    np.subtract.at(d, index, weight)
    d[np.arange(steps)[:, None] >= lengths[None, :]] = 0.0
    return -total, d


@host("CTCLoss", shape=lambda a, data, *rest: [data[1:2]])
def ctc_loss(a: Attributes, *arrays: Array) -> Array:
    return _solve(a, arrays, False)[0].astype(arrays[0].dtype)


@host_gradient("CTCLoss")
def ctc_gradient(a: Attributes, xs: Sequence[Array], ys: Sequence[Array], ds: Sequence[Array]) -> list[Array | None]:
    d = _solve(a, xs, True)[1]
    assert d is not None
    return [d * ds[0][None, :, None], *[None] * (len(xs) - 1)]
