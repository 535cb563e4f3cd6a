"""Recurrent layers, compiled, against their references and torch: odd sizes, batches, directions, threads, NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance.assembly_loops import innermost_loops
from harness import ARM, V3, V4, Array, compile_only
from llvmlite import ir

import diptych
from diptych import compiler
from diptych.codegen.object import assembly
from diptych.errors import TypeRuleError
from diptych.ir import Graph, TensorType
from diptych.ir.kernel import Operand
from diptych.kernels.base import emit_kernel
from diptych.kernels.recurrent_params import make_recurrent
from diptych.kernels.recurrent_units import GATES, choose_units
from diptych.ops import OPS, Builder
from diptych.options import Options
from diptych.schedule.views import contiguous
from diptych.targets import host
from diptych.targets.numpy import interpret

KINDS = ["lstm", "gru", "rnn"]
# T, N, I, H: less than a block, whole blocks, a tail, batches that do and do not divide into row tiles
SIZES = [(3, 1, 5, 3), (4, 1, 16, 32), (5, 1, 7, 37), (3, 2, 4, 8), (2, 5, 3, 20), (3, 7, 6, 17), (1, 3, 9, 1), (2, 16, 8, 24)]


def operands(kind: str, sizes: tuple[int, int, int, int], rng: np.random.Generator) -> list[Array]:
    """x, weights, biases, states."""
    t, n, i, h = sizes
    rows = GATES[kind] * h
    shapes = [(t, n, i), (rows, i), (rows, h), (rows,)] + [(rows,)] * (kind == "gru") + [(n, h)] * (1 + (kind == "lstm"))
    scale = min(0.4, h**-0.5)  # larger weights make a wide layer chaotic: rounding errors would grow at every step
    return [(rng.standard_normal(s) * (1 if j == 0 else scale)).astype(np.float32) for j, s in enumerate(shapes)]


def layer(kind: str, arrays: list[Array], constants: bool, dtype: str = "f32", **attrs: Any) -> Graph:
    g = Builder(kind)
    values = [g.input("x0", TensorType(arrays[0].shape, dtype))]
    for j, a in enumerate(arrays[1:], 1):
        values.append(g.constant(a, dtype) if constants else g.input(f"x{j}", TensorType(a.shape, dtype)))
    return g.finish(list(g.emit_all(OPS[kind](**attrs), *values)))


def check(graph: Graph, arrays: list[Array], threads: int = 1, tolerance: float = 3e-6) -> tuple[Array, ...]:
    given = arrays[: len(graph.inputs)]
    expected = interpret(graph, dict(zip(graph.input_names, given, strict=True)), precision="f64").values()
    made = diptych.compile(graph, threads=threads)(*given)
    made = made if isinstance(made, tuple) else (made,)
    for got, want in zip(made, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    return made


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_against_the_reference(kind: str, sizes: tuple[int, int, int, int], rng: np.random.Generator) -> None:
    arrays = operands(kind, sizes, rng)
    check(layer(kind, arrays, True, reverse=bool(sum(sizes) % 2)), arrays)


@pytest.mark.parametrize("sizes", [(3, 2, 5, 19), (4, 1, 3, 16), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_given_at_run_time(kind: str, sizes: tuple[int, int, int, int], rng: np.random.Generator) -> None:
    arrays = operands(kind, sizes, rng)
    check(layer(kind, arrays, False, reverse=True), arrays, threads=2)


@pytest.mark.parametrize(("dtype", "tolerance"), [("f64", 1e-13), ("f16", 3e-3)])
@pytest.mark.parametrize("constants", [True, False])
def test_other_dtypes(dtype: str, tolerance: float, constants: bool, rng: np.random.Generator) -> None:
    for kind in KINDS:
        arrays = [a.astype({"f64": "f8", "f16": "f2"}[dtype]) for a in operands(kind, (3, 2, 5, 11), rng)]
        check(layer(kind, arrays, constants, dtype), arrays, tolerance=tolerance)


def test_relu_activation(rng: np.random.Generator) -> None:
    arrays = operands("rnn", (4, 2, 5, 13), rng)
    y, _ = check(layer("rnn", arrays, True, activation="relu"), arrays)
    assert (y == 0).any()


def test_nothing_in_the_batch(rng: np.random.Generator) -> None:
    arrays = operands("lstm", (2, 0, 4, 8), rng)
    assert [a.shape for a in diptych.compile(layer("lstm", arrays, True))(arrays[0])] == [(2, 0, 8), (0, 8), (0, 8)]


@pytest.mark.parametrize("kind", KINDS)
def test_nan_stays_in_its_row_and_comes_no_sooner(kind: str, rng: np.random.Generator) -> None:
    arrays = operands(kind, (6, 3, 5, 12), rng)
    arrays[0][2, 1, 3] = np.nan
    y = diptych.compile(layer(kind, arrays, True), threads=1)(arrays[0])[0]
    bad = np.isnan(y)
    assert bad[2:, 1].all()
    assert not bad[:2].any()
    assert not bad[:, [0, 2]].any()


@pytest.mark.parametrize("kind", KINDS)
def test_saturated_gates(kind: str, rng: np.random.Generator) -> None:
    arrays = operands(kind, (3, 2, 4, 9), rng)
    arrays[0] *= 1e4
    check(layer(kind, arrays, True), arrays, tolerance=2e-5)


@pytest.mark.parametrize(("kind", "sizes"), [("lstm", (9, 1, 8, 260)), ("gru", (7, 3, 8, 200)), ("rnn", (6, 2, 8, 500))])
def test_threads_that_share_a_layer(kind: str, sizes: tuple[int, int, int, int], rng: np.random.Generator) -> None:
    """The threads read each other's h at every step: the result is that of one thread, bit for bit, every time."""
    arrays = operands(kind, sizes, rng)
    graph = layer(kind, arrays, True, reverse=kind == "gru")
    t, n, _, h = sizes
    assert _kernel(kind, t, n, h).work > 1
    alone = check(graph, arrays, tolerance=1e-5)
    for threads in (2, 3):
        model = diptych.compile(graph, threads=threads)
        for _ in range(10):
            for got, want in zip(model(arrays[0]), alone, strict=True):
                np.testing.assert_array_equal(got, want)


def general(sizes: tuple[int, int, int, int], width: int, lengths: list[int] | None, rng: np.random.Generator,
            reverse: bool = False, **clip: Any) -> tuple[Graph, list[Array]]:  # fmt: skip
    """An LSTM with a projection to `width` (0: none) and rows with lengths of their own (None: of one length)."""
    t, n, i, h = sizes
    shapes = [(t, n, i), (4 * h, i), (4 * h, width or h), (4 * h,)] + [(width, h)] * bool(width) + [(n, width or h), (n, h)]
    scale = min(0.4, h**-0.5)
    arrays = [(rng.standard_normal(s) * (1 if j == 0 else scale)).astype(np.float32) for j, s in enumerate(shapes)]
    g = Builder("general")
    values = [g.input("x", TensorType(arrays[0].shape)), *map(g.constant, arrays[1:])]
    given = [arrays[0]]
    if lengths is not None:
        values.append(g.input("lengths", TensorType((n,), "i64")))
        given.append(np.array(lengths))
    op = OPS["lstm_general"](reverse=reverse, projected=bool(width), ragged=lengths is not None, **clip)
    return g.finish(list(g.emit_all(op, *values))), given


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("sizes", "width"), [((9, 1, 8, 260), 130), ((5, 9, 8, 200), 37), ((5, 3, 8, 200), 0)], ids=str)
def test_projection_and_lengths_shared_by_threads(
    sizes: tuple[int, int, int, int], width: int, reverse: bool, rng: np.random.Generator
) -> None:
    """Two meetings a step; the threads' result is that of one, bit for bit, every time."""
    steps, rows = sizes[:2]
    lengths = [0, steps, 2, steps + 3, 1, 4, 3, 5, 1][:rows] if rows > 1 else None
    graph, given = general(sizes, width, lengths, rng, reverse)
    plan = compiler.compile_plan(graph, Options(threads=2), host.find(None))
    assert next(k for k in plan.kernels if k.kind == "lstm").work > 1
    alone = check(graph, given, tolerance=1e-5)
    for threads in (2, 3):
        model = diptych.compile(graph, threads=threads)
        for _ in range(5):
            for got, want in zip(model(*given), alone, strict=True):
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("sizes", "width", "lengths"), [
    ((9, 1, 8, 260), 0, None), ((40, 1, 6, 96), 0, None), ((5, 9, 8, 37), 11, None), ((5, 3, 8, 200), 0, [5, 0, 3]),
], ids=str)  # fmt: skip
def test_states_within_limits(sizes: tuple[int, int, int, int], width: int, lengths: list[int] | None, rng: np.random.Generator) -> None:
    graph, given = general(sizes, width, lengths, rng, clip_low=-0.125, clip_high=0.0625)
    alone = check(graph, given)
    states = alone[2] if lengths is None else alone[2][[0, 2]]  # a row of no steps keeps the state it was given
    assert states.min() == -0.125
    assert states.max() == 0.0625
    for got, want in zip(diptych.compile(graph, threads=2)(*given), alone, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("stops", [True, False])
def test_a_nan_becomes_the_lower_limit_only_where_asked(stops: bool, rng: np.random.Generator) -> None:
    graph, given = general((4, 3, 5, 21), 0, None, rng, clip_low=-0.25, clip_high=0.25, clip_nan=stops)
    given[0][-1, 1, 2] = np.nan
    y, _, cells = check(graph, given)
    assert np.isnan(y[-1, 1]).all()  # of its own step the output gate is NaN either way
    assert (cells[1] == -0.25).all() if stops else np.isnan(cells[1]).all()
    assert not np.isnan(cells[[0, 2]]).any()


@pytest.mark.parametrize("clip", [{"clip_low": 0.5}, {"clip_high": 0.5}, {"clip_low": 0.5, "clip_high": -0.5},
                                  {"clip_low": float("nan"), "clip_high": 1.0}])  # fmt: skip
def test_limits_come_both_and_in_order(clip: dict[str, float], rng: np.random.Generator) -> None:
    with pytest.raises(TypeRuleError, match="clip_low="):
        general((2, 1, 3, 4), 0, None, rng, **clip)


@pytest.mark.parametrize("kind", ["gru", "rnn"])
def test_rows_with_lengths_of_their_own(kind: str, rng: np.random.Generator) -> None:
    arrays = operands(kind, (6, 4, 5, 21), rng)
    for reverse in (False, True):
        g = Builder(kind)
        values = [g.input("x0", TensorType(arrays[0].shape)), *map(g.constant, arrays[1:])]
        values.append(g.input("x1", TensorType((4,), "i64")))
        graph = g.finish(list(g.emit_all(OPS[kind](reverse=reverse, ragged=True), *values)))
        y, h = check(graph, [arrays[0], np.array([6, 1, 0, 4])])
        np.testing.assert_array_equal(h[2], arrays[-1][2])  # nothing of this row was read
        np.testing.assert_array_equal(h, y[0 if reverse else -1])


@pytest.mark.parametrize("rows", [2, 6, 8, 12, 13, 32])
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_of_rows_stay_in_registers(kind: str, rows: int, rng: np.random.Generator) -> None:
    plan = compiler.compile_plan(layer(kind, operands(kind, (3, rows, 16, 64), rng), True), Options(threads=2), V4)
    (kernel,) = [k for k in plan.kernels if k.kind == kind]
    module = ir.Module("inspected")
    emit_kernel(module, kernel, "kernel", V4).linkage = "external"
    loops = [loop for loop in innermost_loops(assembly(module, V4)) if loop.fmas]
    assert loops
    for loop in loops:
        assert loop.stack == [], "\n".join(loop.lines)


def test_two_directions_side_by_side(rng: np.random.Generator) -> None:
    """Both directions write their halves of one result; the batch comes first outside."""
    t, n, i, h = 5, 3, 6, 10
    forward, backward = (operands("lstm", (t, n, i, h), rng) for _ in range(2))
    g = Builder("bidirectional")
    x = g.input("x", TensorType((n, t, i)))
    by_time = g.transpose(x, (1, 0, 2))
    ys = [
        g.emit_all(OPS["lstm"](reverse=reverse), by_time, *(g.constant(a) for a in arrays[1:]))[0]
        for arrays, reverse in ((forward, False), (backward, True))
    ]
    graph = g.finish([g.transpose(g.concat(ys, 2), (1, 0, 2))])
    check(graph, [np.ascontiguousarray(forward[0].transpose(1, 0, 2))], threads=2)


def test_two_layers_of_512_against_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.LSTM(512, 512, 2).eval()
    weights = {name: p.detach().numpy() for name, p in module.named_parameters()}
    x = rng.standard_normal((12, 1, 512)).astype(np.float32)
    g = Builder("lstm")
    value = g.input("x", TensorType(x.shape))
    zero = g.constant(np.zeros((1, 512), np.float32))
    for k in range(2):
        bias = weights[f"bias_ih_l{k}"] + weights[f"bias_hh_l{k}"]
        arrays = (weights[f"weight_ih_l{k}"], weights[f"weight_hh_l{k}"], bias)
        value = g.emit_all(OPS["lstm"](), value, *map(g.constant, arrays), zero, zero)[0]
    got = diptych.compile(g.finish([value]), threads=2)(x)
    with torch.no_grad():
        exact = module.double()(torch.from_numpy(x).double())[0].numpy()
    np.testing.assert_allclose(got, exact, rtol=0, atol=2e-6)


def _kernel(kind: str, t: int, n: int, h: int, target: Any = V3, dtype: str = "f32") -> Any:
    units = choose_units(kind, n, dtype, target)
    gates, blocks = GATES[kind], -(-h // units.block)

    def dense(*shape: int) -> Operand:
        return Operand(shape, contiguous(shape), dtype)

    states = [dense(n, h)] * (1 + (kind == "lstm"))
    inputs = [dense(t, n, blocks * gates * units.block), dense(blocks, h, gates, units.block)]
    inputs += [dense(blocks, gates, units.block)] * (kind == "gru") + states
    return make_recurrent(kind, inputs, [dense(t, n, h), *states], units, target)


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_for_other_machines(kind: str) -> None:
    for target in (V4, ARM):
        for n, h in ((1, 64), (8, 37)):
            units = choose_units(kind, n, "f32", target)
            sums = units.rows * GATES[kind] * units.block // units.lanes * units.sets
            assert sums < target.registers, "the register tile spills"
            assert compile_only(_kernel(kind, 3, n, h, target), target)
        assert compile_only(_kernel(kind, 3, 2, 9, target, "f64"), target)


def test_a_short_step_is_left_to_one_thread() -> None:
    assert _kernel("lstm", 100, 1, 32).work == 1
    assert _kernel("lstm", 100, 1, 512).work == 32
