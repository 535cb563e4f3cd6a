"""Plans: between two barriers no thread touches what another one writes; shares cover all the work exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_networks import Network, skip_connections

from diptych import compiler
from diptych.ir import TensorType
from diptych.ir.kernel import Kernel, Operand, Step
from diptych.ir.types import itemsize
from diptych.ops import Builder, Softmax
from diptych.options import Options
from diptych.schedule.plan import ARENA, WEIGHTS, Plan
from diptych.targets import host

TARGET = host.find("x86-64-v3")


def touched(operand: Operand) -> np.ndarray:  # type: ignore[type-arg]
    """The exact byte offsets that an operand's view covers."""
    at = np.zeros(operand.shape, np.int64)
    for axis, (d, s) in enumerate(zip(operand.shape, operand.strides, strict=True)):
        at = at + (np.arange(d) * s).reshape((-1,) + (1,) * (len(operand.shape) - axis - 1))
    size = itemsize(operand.dtype)
    return np.unique(at.reshape(-1, 1) * size + np.arange(size))


def accesses(plan: Plan, step: Step) -> Iterator[tuple[int, np.ndarray, bool]]:  # type: ignore[type-arg]
    """(buffer, bytes, whether written) of a step."""
    kernel = plan.kernels[step.kernel]
    for i, ((buffer, offset), operand) in enumerate(zip(step.args, kernel.operands, strict=True)):
        at = touched(operand)
        if kernel.kind == "border":  # of its operand it writes the rim
            pixels = [np.arange(first, first + count) for first, count in kernel.params.runs]
            nbytes, planes = operand.shape[-1] * itemsize(operand.dtype), operand.shape[0] * operand.shape[1]
            rim = np.zeros((planes, at.size // planes // nbytes, nbytes), bool)
            rim[:, np.concatenate(pixels)] = True
            at = at[rim.reshape(-1)]
        yield buffer, at + offset, i >= len(kernel.operands) - kernel.outputs


def races(plan: Plan) -> list[str]:
    """Pairs of steps that may run at the same time and touch common bytes, one of them writing."""
    found = []
    epoch: list[Step] = []
    for step in plan.steps:
        if step.barrier:
            epoch = []
        for other in epoch:
            if step.serial and other.serial:
                continue  # thread 0 does them one after the other
            for b1, bytes1, w1 in accesses(plan, step):
                for b2, bytes2, w2 in accesses(plan, other):
                    if b1 == b2 != WEIGHTS and (w1 or w2) and np.intersect1d(bytes1, bytes2).size:
                        found.append(f"{other.name} and {step.name} in buffer {b1}")
        epoch.append(step)
    return found


@pytest.mark.parametrize("seed", range(100, 112))
def test_no_two_threads_meet_in_memory(seed: int) -> None:
    graph = Network(seed).finish(steps=14)
    plan = compiler.compile_plan(graph, Options(threads=2), TARGET)
    assert races(plan) == []
    inside = [(offset, operand) for s in plan.steps
              for (b, offset), operand in zip(s.args, plan.kernels[s.kernel].operands, strict=True) if b == ARENA]  # fmt: skip
    assert all(at >= 0 and at + int(touched(o).max(initial=-1)) < plan.scratch_offset for at, o in inside if 0 not in o.shape)


@pytest.mark.parametrize("batch", [1, 2])
def test_joined_maps_take_memory_part_by_part(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = compiler.compile_plan(skip_connections(batch, size=96), Options(threads=2), TARGET)
    assert plan.over_bound <= 0.1
    joined = 4 * batch * 64 * 96 * 96  # with the first half alive all the time the second one would be empty for long
    assert plan.scratch_offset < 1.6 * joined
    monkeypatch.setattr("diptych.schedule.plan._ENOUGH", (1.0, 0))  # in a small one too
    small = compiler.compile_plan(skip_connections(batch, levels=2, size=16), Options(threads=2), TARGET)
    assert sum(f == ("border",) for f in small.fused) > 4
    assert races(small) == []


def test_the_simulation_sees_a_missing_barrier() -> None:
    g = Builder("two")
    x = g.input("x", TensorType((300, 300)))
    y = g.transpose(g.tanh(x), (1, 0))
    plan = compiler.compile_plan(g.finish({"y": g.emit(Softmax(0), y)}), Options(threads=2, fuse=False), TARGET)
    assert sum(s.barrier for s in plan.steps) >= 1
    assert races(plan) == []
    without = [Step(s.kernel, s.args, s.serial, False, s.name) for s in plan.steps]
    broken = Plan(plan.kernels, tuple(without), plan.arena_bytes, plan.scratch_offset, plan.scratch_bytes,
                  plan.alive_bytes, plan.inputs, plan.outputs, plan.constants)  # fmt: skip
    assert races(broken)


def test_independent_branches_need_no_barrier_between_them() -> None:
    g = Builder("branches")
    x = g.input("x", TensorType((300, 300)))
    outs = {f"y{i}": g.emit(Softmax(1), g.mul(x, g.constant(np.float32(i + 2)))) for i in range(4)}
    plan = compiler.compile_plan(g.finish(outs), Options(threads=2), TARGET)
    assert len(plan.steps) == 4
    assert not any(s.barrier for s in plan.steps)


def test_one_thread_needs_no_barrier() -> None:
    plan = compiler.compile_plan(Network(3).finish(steps=12), Options(threads=1), TARGET)
    assert all(s.serial and not s.barrier for s in plan.steps)


@given(st.integers(1, 1000), st.integers(1, 64))
def test_shares_cover_the_work_once(work: int, threads: int) -> None:
    """The split that the generated code makes: thread i does items [i*work//n, (i+1)*work//n)."""
    edges = [i * work // threads for i in range(threads + 1)]
    assert (edges[0], edges[-1]) == (0, work)
    assert all(a <= b for a, b in pairwise(edges))


def test_equal_models_have_equal_keys() -> None:
    def key(threads: int = 2, value: float = 1.0, size: int = 50) -> str:
        g = Builder("key")
        x = g.input("x", TensorType((size, size)))
        y = g.matmul(x, g.constant(np.full((size, size), value, np.float32)))
        plan = compiler.compile_plan(g.finish({"y": y}), Options(threads=threads), TARGET)
        return compiler.cache_key(plan, TARGET)

    assert key() == key()
    assert key() == key(value=2.0)  # code does not depend on the weights
    assert len({key(), key(threads=1), key(size=51)}) == 3


def test_plans_print() -> None:
    plan = compiler.compile_plan(Network(5).finish(steps=8), Options(threads=2), TARGET)
    assert len(str(plan).splitlines()) == len(plan.steps) + 1
    assert all(isinstance(k, Kernel) for k in plan.kernels)
