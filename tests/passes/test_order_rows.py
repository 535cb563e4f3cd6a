"""Orders of rows: windows that are cut, shifted and put together again leave one gather each and no copy."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import diptych
from diptych.ir import Graph, TensorType, Value, verify
from diptych.ops import LayerNorm, Take
from diptych.ops.build import Builder
from diptych.passes.rows import order_rows
from diptych.targets.numpy import interpret

RNG = np.random.default_rng(5)
WIDTH = 48


def _c(g: Builder, *shape: int) -> Value:
    return g.constant(RNG.standard_normal(shape).astype(np.float32))


def _norm(g: Builder, x: Value) -> Value:
    return g.emit(LayerNorm(axis=x.rank - 1, eps=1e-5), x, _c(g, WIDTH), _c(g, WIDTH))


def _roll(g: Builder, x: Value, by: int) -> Value:
    for axis in (1, 2):
        n = x.shape[axis]
        x = g.concat([g.slice_axis(x, axis, by % n, n), g.slice_axis(x, axis, 0, by % n)], axis)
    return x


def _cut(g: Builder, x: Value, size: int) -> Value:
    b, h, w, c = x.shape
    x = g.transpose(g.reshape(x, (b, h // size, size, w // size, size, c)), (0, 1, 3, 2, 4, 5))
    return g.reshape(x, (b * h * w // size**2, size * size, c))


def _join(g: Builder, x: Value, shape: tuple[int, ...], size: int) -> Value:
    b, h, w, c = shape
    x = g.transpose(g.reshape(x, (b, h // size, w // size, size, size, c)), (0, 1, 3, 2, 4, 5))
    return g.reshape(x, shape)


def _mix(g: Builder, x: Value) -> Value:
    """What no order may pass: rows of a window are mixed."""
    qkv = g.add(g.matmul(x, _c(g, WIDTH, 3 * WIDTH)), _c(g, 3 * WIDTH))
    q, k, v = (g.slice_axis(qkv, 2, i * WIDTH, (i + 1) * WIDTH) for i in range(3))
    return g.add(g.matmul(g.matmul(q, k, transpose_b=True), g.mul(v, 0.01)), _c(g, WIDTH))


def _block(g: Builder, x: Value, shift: int, size: int) -> Value:
    """One block of a windowed transformer on x [batch, rows, columns, channels]."""
    y = _norm(g, x)
    y = _roll(g, y, shift) if shift else y
    y = _join(g, _mix(g, _cut(g, y, size)), x.shape, size)
    x = g.add(x, _roll(g, y, -shift) if shift else y)
    flat = g.reshape(x, (x.shape[0], -1, WIDTH))
    hidden = g.relu(g.add(g.matmul(_norm(g, flat), _c(g, WIDTH, 64)), _c(g, 64)))
    return g.reshape(g.add(flat, g.add(g.matmul(hidden, _c(g, 64, WIDTH)), _c(g, WIDTH))), x.shape)


def _same(graph: Graph, tol: float = 1e-5) -> Graph:
    """The graph in its new form, which must give the same numbers."""
    out = order_rows(graph)
    verify(out)
    inputs = {n: RNG.standard_normal(t.shape).astype(np.float32) for n, t in graph.input_types().items()}
    before, after = interpret(graph, inputs, "f64"), interpret(out, inputs, "f64")
    for name, expected in before.items():
        np.testing.assert_allclose(after[name], expected, rtol=1e-9, atol=1e-9)
        compiled = np.asarray(diptych.compile(graph, threads=2)(**inputs)) if len(before) == 1 else expected
        assert np.abs(compiled - expected).max() < tol * np.abs(expected).max()
    return out


def _kinds(graph: Graph) -> Counter[str]:
    return Counter(n.op.name for n in graph.nodes)


@pytest.mark.parametrize(("batch", "side", "size"), [(1, 6, 3), (2, 6, 2), (3, 8, 4)])
def test_a_block_gathers_its_rows_once(batch: int, side: int, size: int) -> None:
    g = Builder("windows")
    x = g.input("x", TensorType((batch, side, side, WIDTH)))
    y = x
    for i in range(4):
        y = _block(g, y, (size // 2) * (i % 2), size)
    graph = g.finish({"y": g.sum(y, (1, 2))})
    kinds = _kinds(_same(graph))
    assert kinds["concat"] == kinds["transpose"] == 0
    # One for each block, and one that puts the last one's rows in order.
    assert kinds["take"] == 5


def test_windows_as_large_as_the_image_need_no_gather() -> None:
    g = Builder("windows")
    x = g.input("x", TensorType((2, 4, 4, WIDTH)))
    graph = g.finish({"y": _block(g, x, 0, 4)})
    assert _kinds(_same(graph))["take"] == 0


def test_what_strides_can_say_stays_a_view() -> None:
    g = Builder("heads")
    x = g.input("x", TensorType((2, 50, 4 * WIDTH)))
    heads = g.transpose(g.reshape(x, (2, 50, 4, WIDTH)), (0, 2, 1, 3))
    y = g.matmul(g.mul(heads, 0.5), g.transpose(heads, (0, 1, 3, 2)))
    graph = g.finish({"y": g.matmul(y, heads)})
    assert _kinds(_same(graph)) == _kinds(graph)


def test_rows_that_are_left_out_or_repeated_are_no_order() -> None:
    g = Builder("part")
    x = g.input("x", TensorType((6, 6, WIDTH)))
    part = g.reshape(g.transpose(g.slice(x, (0, 0, 0), (6, 4, WIDTH)), (1, 0, 2)), (24, WIDTH))
    twice = g.reshape(g.transpose(g.concat([x, x], 0), (1, 0, 2)), (72, WIDTH))
    graph = g.finish({"a": _norm(g, part), "b": g.relu(g.matmul(_norm(g, twice), _c(g, WIDTH, WIDTH)))})
    _same(graph)


def test_two_orders_meet() -> None:
    g = Builder("two")
    x, z = g.input("x", TensorType((1, 6, 6, WIDTH))), g.input("z", TensorType((1, 6, 6, WIDTH)))
    a, b = (_join(g, _mix(g, _cut(g, v, s)), x.shape, s) for v, s in ((x, 2), (z, 3)))
    graph = g.finish({"y": g.add(_norm(g, a), g.mul(b, a))})
    _same(graph)


def test_an_ordered_value_is_an_output_and_read_besides() -> None:
    g = Builder("outputs")
    x = g.input("x", TensorType((1, 6, 6, WIDTH)))
    y = _block(g, x, 1, 3)
    normed = _norm(g, y)
    graph = g.finish({"y": y, "n": normed, "m": g.mean(normed, -1), "z": _block(g, y, 0, 2)})
    _same(graph)


def test_steps_backwards_and_a_normalisation_over_two_axes() -> None:
    g = Builder("back")
    x = g.input("x", TensorType((5, 4, WIDTH)))
    back = g.slice(x, (4, 3, 0), (-1, -1, WIDTH), (-1, -1, 1))
    mixed = g.reshape(g.transpose(back, (1, 0, 2)), (20, WIDTH))
    both = g.emit(LayerNorm(axis=1, eps=1e-5), back, _c(g, 4, WIDTH), _c(g, 4, WIDTH))
    graph = g.finish({"y": g.relu(mixed), "z": both})
    _same(graph)


def test_short_rows_and_other_types_are_left_alone() -> None:
    g = Builder("short")
    x, i = g.input("x", TensorType((6, 8, 16))), g.input("i", TensorType((6, 8, 64), "f64"))
    outs = {n: g.neg(g.reshape(g.transpose(v, (1, 0, 2)), (48, v.shape[-1]))) for n, v in (("x", x), ("i", i))}
    graph = g.finish(outs)
    assert _kinds(order_rows(graph)) == _kinds(graph)
    assert not any(isinstance(n.op, Take) for n in order_rows(graph).nodes)
