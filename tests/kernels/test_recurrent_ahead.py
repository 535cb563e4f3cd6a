"""Recurrent layers that work out their input's shares along the way: depths, directions, group ends, threads, NaN."""

from __future__ import annotations

import numpy as np
import pytest
from conformance.assembly_loops import innermost_loops
from llvmlite import ir
from test_recurrent import check, layer, operands

import diptych
from diptych import compiler
from diptych.codegen.object import assembly
from diptych.ir import Graph
from diptych.kernels.base import emit_kernel
from diptych.kernels.recurrent_ahead import choose_ahead
from diptych.options import Options
from diptych.targets import host

KINDS = {"lstm": 100, "gru": 112, "rnn": 190}  # with hidden sizes whose last block is and is not whole
V4 = host.find("x86-64-v4")
wide = pytest.mark.skipif(host.find(None).lanes(4) != 16, reason="only 512-bit vectors have the registers for it")


def kinds(graph: Graph, threads: int = 2) -> list[str]:
    return [k.kind for k in compiler.compile_plan(graph, Options(threads=threads), V4).kernels]


# T: whole groups of 16 steps, one more, one less. I: one part of the depth, whole parts, a short last part, H and 2 H.
@wide
@pytest.mark.parametrize(("t", "i"), [(32, 3), (33, 25), (47, 60), (40, 100), (64, 200), (35, 301)])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_against_the_reference(kind: str, reverse: bool, t: int, i: int, rng: np.random.Generator) -> None:
    arrays = operands(kind, (t, 1, i, KINDS[kind]), rng)
    graph = layer(kind, arrays, True, reverse=reverse)
    assert f"{kind}_ahead" in kinds(graph)
    check(graph, arrays, threads=2, tolerance=2e-5)


@wide
@pytest.mark.parametrize("kind", KINDS)
def test_threads_give_the_same_bits(kind: str, rng: np.random.Generator) -> None:
    arrays = operands(kind, (37, 1, 70, KINDS[kind] + 100), rng)
    graph = layer(kind, arrays, True, reverse=kind == "gru")
    alone = check(graph, arrays, tolerance=2e-5)
    for threads in (2, 3):
        model = diptych.compile(graph, threads=threads)
        for _ in range(5):
            for got, want in zip(model(arrays[0]), alone, strict=True):
                np.testing.assert_array_equal(got, want)


@wide
@pytest.mark.parametrize("kind", KINDS)
def test_nan_comes_no_sooner(kind: str, rng: np.random.Generator) -> None:
    arrays = operands(kind, (40, 1, 50, KINDS[kind]), rng)
    arrays[0][18, 0, 3] = np.nan
    y = diptych.compile(layer(kind, arrays, True), threads=2)(arrays[0])[0]
    assert not np.isnan(y[:18]).any()
    assert np.isnan(y[18:]).all()


def test_when_it_is_chosen() -> None:
    assert choose_ahead("lstm", 100, 1, 512, 512, "f32", V4) is not None
    assert choose_ahead("lstm", 100, 1, 2048, 512, "f32", V4) is not None
    assert choose_ahead("lstm", 100, 1, 2049, 512, "f32", V4) is None  # more of it than there are blocks to go with
    assert choose_ahead("lstm", 31, 1, 512, 512, "f32", V4) is None
    assert choose_ahead("lstm", 100, 2, 512, 512, "f32", V4) is None
    assert choose_ahead("lstm", 100, 1, 64, 64, "f32", V4) is None  # the weights lie in L1
    for target in ("x86-64-v3", "aarch64"):
        assert choose_ahead("lstm", 100, 1, 512, 512, "f32", host.find(target)) is None


def test_weights_given_at_run_time_take_the_product(rng: np.random.Generator) -> None:
    arrays = operands("lstm", (40, 1, 20, 100), rng)
    assert "lstm" in kinds(layer("lstm", arrays, False))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loops_stay_in_registers(kind: str, rng: np.random.Generator) -> None:
    graph = layer(kind, operands(kind, (40, 1, 256, 256), rng), True)
    plan = compiler.compile_plan(graph, Options(threads=2), V4)
    (kernel,) = [k for k in plan.kernels if k.kind == f"{kind}_ahead"]
    module = ir.Module("inspected")
    emit_kernel(module, kernel, "kernel", V4).linkage = "external"
    loops = [loop for loop in innermost_loops(assembly(module, V4)) if loop.fmas]
    assert max(len(loop.fmas) for loop in loops) >= 24  # the product and the recurrence in one
    for loop in loops:
        assert loop.stack == [], "\n".join(loop.lines)
