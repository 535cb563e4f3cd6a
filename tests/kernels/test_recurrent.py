"""Recurrent kernels against the operators' references: sizes, batches, directions, split batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, view

from diptych.ir.kernel import Kernel
from diptych.kernels.recurrent import make_gru, make_lstm, make_rnn, pack_recurrent_weights
from diptych.ops import OPS
from diptych.targets.base import Target

GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def made(cell: str, attrs: dict[str, Any], xs: list[Array], outs: list[Array], target: Target = V3) -> tuple[Kernel, list[Array]]:
    x, w_ih, w_hh, b, *rest = xs
    xw = (x @ w_ih.T + b).astype(x.dtype)
    inputs = [xw, pack_recurrent_weights(w_hh, GATES[cell]), *rest]
    reverse = attrs.get("reverse", False)
    v, o = [view(a) for a in inputs], [view(a) for a in outs]
    if cell == "lstm":
        return make_lstm(*v, *o, reverse, target), inputs
    if cell == "gru":
        return make_gru(*v, *o, reverse, target), inputs
    return make_rnn(*v, *o, attrs.get("activation", "tanh"), reverse, target), inputs


def draw(cell: str, t: int, n: int, i: int, h: int, rng: np.random.Generator, dtype: Any = np.float32) -> list[Array]:
    g = GATES[cell]
    shapes = [(t, n, i), (g * h, i), (g * h, h), (g * h,), *([(g * h,)] if cell == "gru" else []), (n, h), *([(n, h)] if cell == "lstm" else [])]
    return [rng.uniform(-0.5, 0.5, s).astype(dtype) for s in shapes]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(("t", "n", "i", "h"), [(3, 1, 5, 16), (7, 1, 3, 20), (2, 2, 4, 33), (5, 3, 2, 8), (4, 11, 3, 48), (1, 37, 2, 5), (6, 4, 3, 1)])
def test_sizes_and_directions(cell: str, t: int, n: int, i: int, h: int, rng: np.random.Generator) -> None:
    for reverse in (False, True):
        xs = draw(cell, t, n, i, h, rng)
        wants = OPS[cell](reverse=reverse).reference(*xs)
        outs = [np.full(w.shape, 9, np.float32) for w in wants]
        kernel, inputs = made(cell, {"reverse": reverse}, xs, outs)
        build(kernel)(*inputs, *outs)
        for out, want in zip(outs, wants, strict=True):
            np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-6)


def test_relu_double_and_strided_result(rng: np.random.Generator) -> None:
    xs = draw("rnn", 4, 2, 3, 19, rng, np.float64)
    wants = OPS["rnn"](activation="relu").reference(*xs)
    outs = [np.zeros((2, 4, 40)).transpose(1, 0, 2)[..., 3:22], np.zeros((2, 19))]
    kernel, inputs = made("rnn", {"activation": "relu"}, xs, outs)
    build(kernel)(*inputs, *outs)
    for out, want in zip(outs, wants, strict=True):
        np.testing.assert_allclose(out, want, rtol=1e-12, atol=1e-12)


def test_unpacked_weights_are_refused(rng: np.random.Generator) -> None:
    xs = draw("rnn", 1, 1, 1, 4, rng)
    o = [view(np.zeros((1, 1, 4), np.float32)), view(np.zeros((1, 4), np.float32))]
    with pytest.raises(ValueError, match="pack_recurrent_weights"):
        make_rnn(view(xs[0]), view(xs[2]), view(xs[4]), *o, "tanh", False, V3)


@pytest.mark.parametrize("target", [V4, ARM])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_other_machines(cell: str, target: Any, rng: np.random.Generator) -> None:
    xs = draw(cell, 2, 7, 3, 20, rng)
    outs = [np.asarray(w) for w in OPS[cell]().reference(*xs)]
    assert compile_only(made(cell, {}, xs, outs, target)[0], target)
