"""A graph with room for more positions gives, for every length, what the graph made for that length gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from diptych.ir import Graph, TensorType, Value
from diptych.ops import OPS, Builder
from diptych.passes.fold import fold_constants
from diptych.passes.length import LENGTH, Unpaddable, pad_length, same_program
from diptych.targets.numpy import interpret

Array = np.ndarray[Any, Any]
Body = Callable[[Builder, Value], Value]
WIDTH = 6
RNG = np.random.default_rng(5)
MATRIX = RNG.standard_normal((WIDTH, WIDTH)).astype(np.float32)
TABLE = RNG.standard_normal((64, WIDTH)).astype(np.float32)


def heads(g: Builder, x: Value) -> Value:
    """[B, L, W] as [B, 2, L, W / 2]."""
    b, n, w = x.shape
    return g.transpose(g.reshape(x, (b, n, 2, w // 2)), (0, 2, 1, 3))


def attend(g: Builder, x: Value, causal: bool = False, mask: Value | None = None) -> Value:
    h = heads(g, x)
    out = g.emit(OPS["attention"](scale=0.5, causal=causal), h, h, h, *([] if mask is None else [mask]))
    return g.reshape(g.transpose(out, (0, 2, 1, 3)), x.shape)


def written_out(g: Builder, x: Value) -> Value:
    h = heads(g, x)
    weights = g.emit(OPS["softmax"](axis=-1), g.matmul(h, h, transpose_b=True))
    return g.reshape(g.transpose(g.matmul(weights, h), (0, 2, 1, 3)), x.shape)


def masked(g: Builder, x: Value) -> Value:
    """A mask worked out from constants and from the input: axes 2 and 3 both hold the sequence."""
    n = x.shape[1]
    yes = g.constant(np.ones((1, 1, n, 1), np.bool_))
    own = g.reshape(g.greater(g.max(x, 2), 0.5), (x.shape[0], 1, 1, n))
    seen = g.emit(OPS["logical_and"](), yes, own)
    return attend(g, x, mask=g.where(seen, g.scalar(0.0), g.scalar(-3.0)))


def positions(g: Builder, x: Value) -> Value:
    return g.add(x, g.constant(TABLE[: x.shape[1]]))


SAFE: dict[str, Body] = {
    "elementwise": lambda g, x: g.tanh(g.mul(x, 2.0)),
    "product": lambda g, x: g.matmul(x, g.constant(MATRIX)),
    "positions": positions,
    "attention": attend,
    "causal attention": lambda g, x: attend(g, x, causal=True),
    "masked attention": masked,
    "attention written out": written_out,
    "layers": lambda g, x: attend(g, g.emit(OPS["layer_norm"](axis=2), attend(g, positions(g, x)), g.constant(MATRIX[0]))),
    "mean over it": lambda g, x: g.mean(g.exp(x), 1),
    "mean over all": lambda g, x: g.mean(g.exp(x), (1, 2), keepdims=True),
    "sum": lambda g, x: g.sum(x, 1, keepdims=True),
    "max": lambda g, x: g.max(x, 1),
    "min": lambda g, x: g.reduce("min", x, 1),
    "instance norm over it": lambda g, x: g.sub(x, g.mean(x, 1, keepdims=True)),
    "variance": lambda g, x: g.reduce("var", x, 1),
    "variance over all": lambda g, x: g.emit(OPS["var"]((1, 2), True, ddof=-1), x),
    "contraction over it": lambda g, x: g.matmul(x, x, transpose_a=True),
    "contraction with positions": lambda g, x: g.matmul(
        g.constant(np.ascontiguousarray(TABLE[: x.shape[1]].T)), x),
    "first position": lambda g, x: g.slice_axis(x, 1, 0, 1),
    "running sum": lambda g, x: g.emit(OPS["cum_sum"](axis=1), x),
    "sort beside it": lambda g, x: g.emit_all(OPS["sort"](axis=2), x)[0],
    "all in order": lambda g, x: g.emit(OPS["take"](axis=1), x, g.constant(np.arange(x.shape[1]))),
    "scores of a query": lambda g, x: g.emit(OPS["softmax"](axis=1), g.reshape(g.sum(x, 2), x.shape[:2])),
}  # fmt: skip
UNSAFE: dict[str, tuple[Body, str]] = {
    "last position": (lambda g, x: g.slice_axis(x, 1, x.shape[1] - 1, x.shape[1]), "takes positions"),
    "reversed": (lambda g, x: g.slice(x, (0, x.shape[1] - 1, 0), (x.shape[0], -1, WIDTH), (1, -1, 1)), "takes positions"),
    "joined": (lambda g, x: g.concat([x, x], 1), "joins"),
    "padded": (lambda g, x: g.pad(x, [(0, 0), (1, 0), (0, 0)]), "pads"),
    "sorted": (lambda g, x: g.emit_all(OPS["sort"](axis=1), x)[0], "orders"),
    "merged": (lambda g, x: g.sum(g.reshape(x, (x.shape[0], x.shape[1] * WIDTH)), 0), "merges or cuts"),
    "normalised": (lambda g, x: g.emit(OPS["layer_norm"](axis=1), x), "normalises"),
    "picked": (lambda g, x: g.emit(OPS["take"](axis=1), x, g.constant(np.array([1, 0]))), "other than the first"),
    "convolved": (
        lambda g, x: g.emit(OPS["conv"]((1,), ((1, 1),), (1,)), x, g.constant(np.ones((4, 8, 3), np.float32))), "not known"),
}  # fmt: skip


def build(body: Body, length: int, batch: int = 2) -> Graph:
    g = Builder("g")
    return g.finish({"y": body(g, g.input("x", TensorType((batch, length, WIDTH))))})


def run(graph: Graph, x: Array, count: int | None = None) -> Array:
    given = {"x": x} if count is None else {"x": x, LENGTH: np.array(count)}
    return interpret(graph, given)["y"]


@pytest.mark.parametrize("name", SAFE)
def test_every_length_is_exact(name: str, rng: np.random.Generator) -> None:
    body, room = SAFE[name], 9
    padded = pad_length(build(body, room), {"x": (1,)})
    assert padded.graph.input_names == ("x", LENGTH)
    for n in range(1, room + 1):
        x = rng.standard_normal((2, n, WIDTH)).astype(np.float32)
        filled = np.full((2, room, WIDTH), 1e6, np.float32)  # what is past the length must not matter
        filled[:, :n] = x
        got = run(padded.graph, filled, n)
        for axis in padded.outputs["y"]:
            got = got.take(np.arange(n), axis)
        np.testing.assert_allclose(got, run(build(body, n), x), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", SAFE)
def test_a_graph_is_cut_to_a_smaller_room(name: str) -> None:
    body = SAFE[name]
    cut = pad_length(build(body, 9), {"x": (1,)}, 5, masked=False)
    assert same_program(fold_constants(cut.graph), fold_constants(pad_length(build(body, 5), {"x": (1,)}, masked=False).graph))


def test_what_differs_is_seen() -> None:
    def body(g: Builder, x: Value) -> Value:  # no beginning of one for a larger length
        return g.add(x, g.constant(np.linspace(0, 1, x.shape[1], dtype=np.float32).reshape(-1, 1)))

    cut = pad_length(build(body, 9), {"x": (1,)}, 5, masked=False)
    assert not same_program(fold_constants(cut.graph), build(body, 5))
    assert not same_program(build(SAFE["sum"], 5), build(SAFE["max"], 5))
    assert not same_program(build(SAFE["sum"], 5), build(SAFE["sum"], 6))


@pytest.mark.parametrize("name", UNSAFE)
def test_what_could_see_the_rest_is_refused(name: str) -> None:
    body, why = UNSAFE[name]
    with pytest.raises(Unpaddable, match=why):
        pad_length(build(body, 8), {"x": (1,)})


def test_lengths_must_agree_and_be_told_from_one() -> None:
    with pytest.raises(Unpaddable, match="must be one length"):
        pad_length(build(SAFE["sum"], 8), {"x": (1, 2)})
    with pytest.raises(Unpaddable, match="extents of 1"):
        pad_length(build(SAFE["sum"], 1), {"x": (1,)})
    with pytest.raises(Unpaddable, match="cannot serve 12"):
        pad_length(build(SAFE["sum"], 8), {"x": (1,)}, 12)


def test_not_even_nan_past_the_length_shows(rng: np.random.Generator) -> None:
    for name in ("sum", "max", "mean over it", "scores of a query"):
        x = np.full((2, 9, WIDTH), np.nan, np.float32)
        x[:, :4] = rng.standard_normal((2, 4, WIDTH))
        assert np.isfinite(run(pad_length(build(SAFE[name], 9), {"x": (1,)}).graph, x, 4)[:, :4]).all()
