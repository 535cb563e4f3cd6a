"""The same programs on `diptych.mxnet` and on MXNet 1.9.1, which is the judge."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import programs
import pytest

import diptych.mxnet as mx
from diptych.mxnet import fused

PYTHON = os.environ.get("DIPTYCH_MXNET_PYTHON", "")


@pytest.fixture(params=sorted(programs.PROGRAMS))
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.skipif(not PYTHON, reason="DIPTYCH_MXNET_PYTHON names no interpreter with MXNet 1.9.1")
def test_programs_give_the_numbers_of_mxnet(program: str, tmp_path: Path) -> None:
    target = tmp_path / "real.npz"
    run = [PYTHON, str(Path(programs.__file__)), program, str(target)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(run, check=True, capture_output=True, env=environment, cwd=tmp_path)
    ours = programs.PROGRAMS[program](mx)
    with np.load(target) as real:
        assert set(real.files) == set(ours)
        for name in real.files:
            np.testing.assert_allclose(ours[name], real[name], rtol=2e-4, atol=2e-4 * max(1.0, np.abs(real[name]).max()),
                                       err_msg=f"{program}: {name}")  # fmt: skip


def test_a_step_made_one_program_gives_the_numbers_of_single_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_steps", {})
    monkeypatch.setattr(fused, "AFTER", 10**9)
    single = programs.training(mx)
    assert not any(isinstance(s, fused._Step) for s in fused._steps.values())
    monkeypatch.setattr(fused, "_steps", {})
    monkeypatch.setattr(fused, "AFTER", 2)
    together = programs.training(mx)
    assert any(isinstance(s, fused._Step) for s in fused._steps.values())
    for name, value in single.items():
        np.testing.assert_allclose(together[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
