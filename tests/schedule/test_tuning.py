"""Tuning: a plan is a function of graph, options and record; the search is bounded, kept, and never makes numbers wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych import compiler
from diptych.ir import Graph, TensorType
from diptych.ir.tuning import Tried, Tuning
from diptych.knowledge import kept_tuning
from diptych.ops import Builder, Conv
from diptych.options import Options
from diptych.profile import Stopwatch
from diptych.runtime.cache import default_cache
from diptych.targets import host
from diptych.targets.base import Rates
from diptych.targets.figures import Figures

TARGET = host.find("x86-64-v3")


def network(channels: int = 32, size: int = 20) -> Graph:
    """A window, a point-wise convolution with an elementwise operator before it, a pair that can be joined, a product."""
    g, rng = Builder("tuned"), np.random.default_rng(0)

    def conv(x: diptych.ir.Value, out: int, k: int, groups: int = 1) -> diptych.ir.Value:
        w = (rng.standard_normal((out, x.shape[1] // groups, k, k)) / k / (x.shape[1] // groups) ** 0.5).astype(np.float32)
        return g.emit(Conv((1, 1), ((k // 2, k // 2),) * 2, (1, 1), groups), x, g.constant(w))

    x = g.input("x", TensorType((1, channels, size, size)))
    y = g.relu(conv(x, channels, 3))
    y = conv(g.relu(g.add(y, x)), 2 * channels, 1)
    y = g.relu(conv(g.relu(y), 2 * channels, 3, 2 * channels))
    z = g.matmul(g.reshape(y, (2 * channels, size * size)), g.constant(rng.standard_normal((size * size, 48)).astype(np.float32)))
    return g.finish({"z": z})


def test_every_option_gives_the_same_numbers() -> None:
    graph = network()
    x = np.random.default_rng(1).standard_normal((1, 32, 20, 20)).astype(np.float32)
    reference = diptych.compile(graph, target="numpy")(x)
    default = compiler.compile_plan(graph, Options(threads=2), host.find(None))
    assert any(k.startswith("conv") for k in default.offered)
    assert any(k.startswith("expand") for k in default.offered)
    assert any(k.startswith("product") for k in default.offered)
    plans = {default.kernels}
    for i in range(1, max(map(len, default.offered.values()))):
        tuning = Tuning().taking({k: o[i] for k, o in default.offered.items() if i < len(o)})
        plan = compiler.compile_plan(graph, Options(threads=2), host.find(None), tuning)
        plans.add(plan.kernels)
        watch = Stopwatch(plan, host.find(None), default_cache(), 2)
        np.testing.assert_allclose(watch.run(x)[0], reference, rtol=1e-3, atol=1e-3)
    assert len(plans) > 5


def test_a_plan_follows_the_record_and_nothing_else() -> None:
    graph = network()
    default = compiler.compile_plan(graph, Options(threads=2), TARGET)
    key, options = next((k, o) for k, o in default.offered.items() if k.startswith("conv") and "x3x3" in k)
    same = Tuning({key: Tried(options[0], {options[0]: 5.0, options[1]: 7.0})})
    plan = compiler.compile_plan(graph, Options(threads=2), TARGET, same)
    assert (plan.kernels, plan.steps) == (default.kernels, default.steps)
    assert any("tuned to" in note and "7.0" in note for notes in plan.notes for note in notes)
    other = same.taking({key: options[1]})
    assert compiler.compile_plan(graph, Options(threads=2), TARGET, other).kernels != default.kernels
    unknown = same.taking({key: "a schedule of another version"})
    assert compiler.compile_plan(graph, Options(threads=2), TARGET, unknown).kernels == default.kernels
    steps = [s.name for s, keys in zip(plan.steps, plan.choices, strict=True) if key in keys]
    assert steps


def test_strict_never_goes_the_winograd_way() -> None:
    plan = compiler.compile_plan(network(), Options(accuracy="strict"), TARGET)
    assert not any("F(" in option for options in plan.offered.values() for option in options)


def test_the_text_form() -> None:
    tuning = Tuning({"b": Tried("x", {"y": 1.5, "x": 1.0}), "a": Tried("z", {})})
    again = Tuning.from_text(tuning.to_text())
    assert again == tuning
    assert again.to_text() == tuning.to_text() == Tuning(dict(reversed(tuning.entries.items()))).to_text()
    with pytest.raises(KeyError):
        Tuning.from_text('{"a": {}}')


def test_a_search_is_kept_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    g, seen = Builder("one"), []
    x_in = g.input("x", TensorType((1, 32, 12, 12)))
    w = np.random.default_rng(0).standard_normal((32, 32, 3, 3)).astype(np.float32) / 17
    graph = g.finish({"y": g.relu(g.emit(Conv((1, 1), ((1, 1), (1, 1)), (1, 1)), x_in, g.constant(w)))})
    x = np.random.default_rng(1).standard_normal((1, 32, 12, 12)).astype(np.float32)
    plain = diptych.compile(graph, threads=1)
    tuned = diptych.compile(graph, threads=1, tune=300, progress=lambda what, done, total: seen.append((what, done, total)))
    np.testing.assert_allclose(tuned(x), plain(x), rtol=1e-3, atol=1e-3)
    rounds = [done for what, done, _ in seen if what == "tuning"]
    assert rounds == sorted(rounds)
    assert len(rounds) > 3
    record = kept_tuning(host.find(None), 1)
    assert tuned.plan is not None
    assert set(record.entries) == {k for k, o in tuned.plan.offered.items() if len(o) > 1}
    for key, tried in record.entries.items():
        assert tried.taken in tried.microseconds
        assert set(tried.microseconds) == set(tuned.plan.offered[key])
        assert all(t > 0 for t in tried.microseconds.values())
    seen.clear()
    again = diptych.compile(graph, threads=1, tune=300, progress=lambda what, done, total: seen.append((what, done, total)))
    assert not [s for s in seen if s[0] == "tuning"]
    assert again.plan is not None
    assert again.plan.kernels == tuned.plan.kernels == diptych.compile(graph, threads=1).plan.kernels  # type: ignore[union-attr]
    assert {e.kind for e in default_cache().entries()} >= {"tuning", "figures", "object"}
    default_cache().clear()
    assert kept_tuning(host.find(None), 1) == Tuning()


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_bounds_must_be_bounds(seconds: float) -> None:
    with pytest.raises(diptych.InputError, match="number of seconds"):
        diptych.compile(network(16, 8), tune=seconds)


def test_estimates_go_by_measured_rates() -> None:
    v4 = host.find("x86-64-v4")
    f = Figures(2, 2 * 32 * 3e9, 2 * 30e9 * 4, 2 * 30e9, 27e9, 100.0, 2.5e9, True)
    found = v4.measured(f)
    assert found.rates == Rates(32.0, 4.2, 7.65, 1.0)
    assert repr(found) == repr(v4)
    assert found != v4
    assert v4.measured(None) == v4 == v4.measured(Figures())
    two_units = Figures(1, 64 * 3e9, 90e9, 40e9, 25e9, 0.0, 2.5e9, True)
    assert v4.measured(two_units).fma_per_cycle == 2.0


def test_slow_memory_speaks_against_winograd() -> None:
    """256 -> 256 channels at 14 x 14: four times the weights, which slow memory cannot deliver."""
    g = Builder("layer")
    x = g.input("x", TensorType((1, 256, 14, 14)))
    g_out = g.emit(Conv((1, 1), ((1, 1), (1, 1)), (1, 1)), x, g.constant(np.ones((256, 256, 3, 3), np.float32)))
    graph = g.finish({"y": g_out})
    target = host.find("x86-64-v4")
    kinds = []
    for dram in (100e9, 1e9):
        f = Figures(1, 96e9, 90e9, 40e9, dram, 0.0, 2.5e9, True)
        plan = compiler.compile_plan(graph, Options(threads=1), target.measured(f))
        kinds.append({k.kind for k in plan.kernels})
    assert any("winograd" in k for k in kinds[0])
    assert not any("winograd" in k for k in kinds[1])
