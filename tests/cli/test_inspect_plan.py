"""`diptych inspect --plan`: every step, with a reason, a share and a fraction of the roof."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych.calibrate import figures
from diptych.cli import main
from diptych.explain import step_bytes
from diptych.ir import TensorType
from diptych.ir.kernel import Kernel, Operand
from diptych.ops.build import Builder
from diptych.ops.conv import Conv


def saved(folder: Path) -> Path:
    g = Builder("net")
    rng = np.random.default_rng(0)
    x = g.input("x", TensorType((1, 32, 28, 28)))
    w = g.constant(rng.standard_normal((32, 32, 3, 3), np.float32))
    conv = Conv((1, 1), ((1, 1), (1, 1)), (1, 1))
    y = g.relu(g.emit(conv, x, w))
    z = g.emit(conv, y, w)
    path = folder / "net.diptych"
    diptych.compile(g.finish({"y": y, "z": z}), threads=1).save(path)
    return path


def test_the_plan_with_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DIPTYCH_NUM_THREADS", "1")
    path = str(saved(tmp_path))
    assert main(["inspect", path, "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    steps = plan["steps"]
    assert sum(s["share"] for s in steps) == pytest.approx(1)
    convs = [s for s in steps if any("Mcycles" in n for n in s["notes"])]
    assert len(convs) == 2
    for s in convs:
        assert "direct" in s["notes"][0]
        assert "F(4,3)" in s["notes"][0]
        assert s["flops"] == 2 * 9 * 32 * 32 * 28 * 28
        assert 0.02 < s["of_roof"] < 10
    assert plan["figures"]["measured"]
    assert 0 < plan["alive_bytes"] <= plan["arena_bytes"] - plan["scratch_bytes"] <= plan["alive_bytes"] + (1 << 18)
    assert main(["inspect", path, "--plan"]) == 0
    out = capsys.readouterr().out
    assert "GFLOP/s" in out
    assert "estimated Mcycles" in out
    assert "that live at the same time" in out


def test_figures_are_kept_and_make_sense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    f = figures(2)
    assert figures(2) == f  # measured twice they would differ
    assert f.flops > 1e9
    assert f.l2 > f.dram > 1e8
    assert f.barrier_ns > 0
    assert 1e8 < f.ticks < 1e10


def test_broadcast_operands_count_once() -> None:
    shape = (4, 8)
    operands = (Operand(shape, (8, 1)), Operand(shape, (0, 1)), Operand(shape, (8, 1), "f64"))
    assert step_bytes(Kernel("pointwise", None, operands), (2, 1, 3)) == (32, 128 + 256)
