"""Targets that this machine need not be able to run: everything compiles, and the contraction's inner loop is tight."""

from __future__ import annotations

import numpy as np
import pytest
from assembly_loops import Loop, innermost_loops
from compiled import cases, graph_of, plan_of, refusal
from llvmlite import ir

from diptych import compiler
from diptych.codegen.object import assembly
from diptych.ir import TensorType, Value
from diptych.kernels.base import emit_kernel
from diptych.kernels.worker import is_plain
from diptych.ops import OPS, Attention, Builder, Conv
from diptych.targets import host

TARGETS = ("x86-64-v4", "aarch64")
PARTS = 8  # operators are compiled together, in so many graphs


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("target", TARGETS)
def test_operators_compile(target: str, part: int) -> None:
    machine = host.find(target)
    some = [
        c
        for name in list(OPS)[part::PARTS]
        for c in cases(name, weights=False)[:2]
        if refusal(c, machine) is None
    ]
    graph, _ = graph_of(some)
    code = compiler.object_of(plan_of(graph, machine, threads=2), machine)
    assert code[:4] == b"\x7fELF"
    assert int.from_bytes(code[18:20], "little") == {"x86-64-v4": 62, "aarch64": 183}[target]


def conv(g: Builder, size: int, kernel: int, channels: int = 64) -> Value:
    rng = np.random.default_rng(0)
    x = g.input("x", TensorType((1, channels, size, size)))
    w = g.constant(rng.standard_normal((64, channels, kernel, kernel)).astype(np.float32))
    pad = kernel // 2
    op = Conv(strides=(1, 1), pads=((pad, pad), (pad, pad)), dilations=(1, 1))
    return g.emit(op, x, w, g.constant(np.ones(64, np.float32)))


def matmul(g: Builder, m: int, n: int, k: int) -> Value:
    return g.matmul(g.input("x", TensorType((m, k))), g.constant(np.ones((k, n), np.float32)))


SHAPES = {
    "conv3x3": lambda g: conv(g, 28, 3),
    "conv1x1": lambda g: conv(g, 28, 1),
    "small image": lambda g: conv(g, 7, 3),
    "stem": lambda g: conv(g, 32, 7, channels=3),
    "matrix": lambda g: matmul(g, 128, 256, 256),
    "row": lambda g: matmul(g, 1, 256, 256),
    "row with zeros": lambda g: g.matmul(g.relu(g.input("x", TensorType((1, 256)))), g.constant(np.ones((256, 256), np.float32))),
    "two rows": lambda g: matmul(g, 2, 256, 256),
    "four rows": lambda g: matmul(g, 4, 256, 256),
    "eight rows": lambda g: matmul(g, 8, 256, 256),
}


def contraction_loops(target: str, shape: str) -> list[Loop]:
    """The innermost loops of a contraction fused with a relu that multiply."""
    machine = host.find(target)
    g = Builder(shape)
    y = SHAPES[shape](g)
    plan = plan_of(g.finish({"y": g.relu(y)}), machine, accuracy="strict")  # no Winograd
    module = ir.Module("inspected")
    (kernel,) = [k for k in plan.kernels if k.kind in ("contract", "skinny", "skinny_zeros")]
    emit_kernel(module, kernel, "kernel", machine).linkage = "external"
    return [loop for loop in innermost_loops(assembly(module, machine, is_plain(kernel, machine))) if loop.fmas]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3", "aarch64"])
def test_the_inner_loop_of_a_contraction_stays_in_registers(target: str, shape: str) -> None:
    loops = contraction_loops(target, shape)
    assert loops
    for loop in loops:
        assert loop.stack == [], "\n".join(loop.lines)
        register = {"x86-64-v4": "%zmm", "x86-64-v3": "%ymm", "aarch64": ".4s"}[target]
        assert all(register in f for f in loop.fmas)
    best = max(loops, key=lambda loop: len(loop.fmas))
    assert len(best.fmas) >= 8  # enough independent sums to hide the latency of an FMA
    # Of what is issued, most is arithmetic; the rest are loads that the load ports do meanwhile.
    assert len(best.fmas) >= 0.45 * len(best.lines)
    if target == "x86-64-v4" and "row" not in shape:
        accumulators = {f.split(",")[-1].strip() for f in best.fmas}
        assert len(accumulators) == 28  # 14 pixels x 2 panels, of 32 registers


def test_few_addresses_are_fetched_from_the_stack_in_the_inner_loop() -> None:
    for shape in SHAPES:
        assert max(len(loop.reloads) for loop in contraction_loops("x86-64-v4", shape)) <= 3, shape


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3", "aarch64"])
def test_strassen_compiles_and_multiplies_in_registers(target: str) -> None:
    machine = host.find(target)
    g = Builder("product")
    plan = plan_of(g.finish({"y": matmul(g, 128, 768, 768)}), machine, threads=2)
    assert compiler.object_of(plan, machine)[:4] == b"\x7fELF"
    module = ir.Module("inspected")
    (kernel,) = [k for k in plan.kernels if k.kind == "strassen"]
    emit_kernel(module, kernel, "kernel", machine).linkage = "external"
    loops = [loop for loop in innermost_loops(assembly(module, machine, is_plain(kernel, machine))) if len(loop.fmas) >= 8]
    assert loops
    for loop in loops:
        assert loop.stack == [], "\n".join(loop.lines)


def attention_loops(target: str, queries: int, keys: int) -> list[Loop]:
    """The innermost loops of a causal attention with a mask that multiply."""
    machine = host.find(target)
    g = Builder("attention")
    q, k, v = (g.input(n, TensorType((1, 4, length, 64))) for n, length in (("q", queries), ("k", keys), ("v", keys)))
    mask = g.input("mask", TensorType((1, 1, 1, keys)))
    plan = plan_of(g.finish([g.emit(Attention(scale=0.125, causal=True, offset=keys // 2), q, k, v, mask)]), machine)
    (kernel,) = plan.kernels
    assert kernel.kind == ("attention_few" if queries == 1 else "attention")
    module = ir.Module("inspected")
    emit_kernel(module, kernel, "kernel", machine).linkage = "external"
    return [loop for loop in innermost_loops(assembly(module, machine, is_plain(kernel, machine))) if loop.fmas]


@pytest.mark.parametrize("keys", [128, 1000])
@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3", "aarch64"])
def test_the_products_of_attention_stay_in_registers(target: str, keys: int) -> None:
    loops = attention_loops(target, 128, keys)
    products = [loop for loop in loops if len({f.split(",")[-1 if "x86" in target else 0].strip() for f in loop.fmas}) >= 8]
    assert len(products) >= 2  # scores, and weights by values
    for loop in products:
        assert loop.stack == [], "\n".join(loop.lines)
    if target == "x86-64-v4":
        assert max(len(loop.fmas) for loop in products) == 28  # 14 queries x 2 panels, of 32 registers
        best = max(products, key=lambda loop: len(loop.fmas))
        assert len(best.fmas) >= 0.55 * len(best.lines)  # beside them one load for two: queries broadcast, keys and values


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3"])
def test_what_makes_weights_stays_in_registers(target: str) -> None:
    """The loops with the exponential: nothing but polynomials on whole vectors."""
    loops = attention_loops(target, 128, 1000)
    weights = [loop for loop in loops if any("vmax" in x for x in loop.lines)]
    assert weights
    for loop in weights:
        assert loop.stack == [], "\n".join(loop.lines)
        assert not any("call" in x for x in loop.lines)


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3"])
def test_few_queries_stay_in_registers(target: str) -> None:
    loops = [loop for loop in attention_loops(target, 1, 1000) if len(loop.fmas) >= 0.2 * len(loop.lines)]
    assert len(loops) >= 3  # scores, weights, weights by values
    for loop in loops:
        assert loop.stack == [], "\n".join(loop.lines)


# The first number of rows whose register tiles are so many pairs wide, odd ones with a pair of one row.
@pytest.mark.parametrize("rows", [48, 49, 51, 53, 58, 62, 65, 67, 69, 89])
def test_strassen_tiles_of_every_width_stay_in_registers(rows: int) -> None:
    machine = host.find("x86-64-v4")
    g = Builder("product")
    plan = plan_of(g.finish({"y": matmul(g, rows, 256, 256)}), machine, threads=2)
    module = ir.Module("inspected")
    (kernel,) = [k for k in plan.kernels if k.kind == "strassen"]
    emit_kernel(module, kernel, "kernel", machine).linkage = "external"
    loops = [loop for loop in innermost_loops(assembly(module, machine, is_plain(kernel, machine))) if loop.fmas]
    for width, _ in kernel.params.tiles:
        assert any(len(loop.fmas) == 2 * width for loop in loops)
    for loop in loops:
        assert loop.stack == [], "\n".join(loop.lines)
        assert loop.reloads == [], "\n".join(loop.lines)
