"""Peak memory of a process that opens a saved model: its packed weights, one arena, and little else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych.ir import TensorType
from diptych.ops.build import Builder

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no VmHWM here")

OPEN = """
import re, sys
import numpy as np
import diptych
model = diptych.open(sys.argv[1])
model(np.ones((256, 2048), np.float32))
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
print(peak, "llvmlite" in sys.modules)
"""
ALLOWED = 90_000_000  # for Python, NumPy and ourselves


def test_an_open_holds_the_weights_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one, which compiles and packs, and those from the cache."""
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "made"))
    g = Builder("wide")
    x = g.input("x", TensorType((256, 2048)))
    rng = np.random.default_rng(0)
    for _ in range(8):
        x = g.relu(g.matmul(x, g.constant(rng.standard_normal((2048, 2048), np.float32) / 40), transpose_b=True))
    model = diptych.compile(g.finish({"y": x}))
    plan = model.plan
    assert plan is not None
    assert plan.constants.nbytes > 100_000_000
    model.save(tmp_path / "m.diptych")
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    peaks = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", OPEN, str(tmp_path / "m.diptych")], capture_output=True, text=True, check=True,
            cwd=Path(diptych.__file__).parents[1],
        )  # fmt: skip
        peaks.append(done.stdout.split())
    assert peaks[0][1] == "True"
    assert peaks[1][1] == "False"
    for peak, _ in peaks:
        assert int(peak) <= plan.constants.nbytes + plan.arena_bytes + ALLOWED
