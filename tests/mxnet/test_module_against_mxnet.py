"""Optimizers, metrics, iterators, checkpoints and training on `diptych.mxnet` and on MXNet 1.9.1, which is the judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import module_programs
import numpy as np
import pytest

import diptych.mxnet as mx

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("DIPTYCH_MXNET_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="DIPTYCH_MXNET_PYTHON names no interpreter with MXNet 1.9.1")


def real(*arguments: str | Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([PYTHON, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def on_mxnet(program: str, target: Path, argument: Path) -> dict[str, Any]:
    real(module_programs.__file__, program, target, argument)
    with np.load(target) as found:
        return dict(found)


def same(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float = 1e-5) -> None:
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.filterwarnings("ignore:Data provided by label_shapes")
@pytest.mark.parametrize("program", ["optimizers", "schedulers", "metrics", "iterators"])
def test_programs_give_the_numbers_of_mxnet(program: str, tmp_path: Path) -> None:
    theirs = on_mxnet(program, tmp_path / "real.npz", tmp_path)
    ours = module_programs.PROGRAMS[program](mx, str(tmp_path))
    if program == "optimizers":  # a step of float16 may round to its neighbour
        half = {k for k in ours if "float16" in k}
        same({k: ours[k] for k in half}, {k: theirs[k] for k in half}, 2e-3)
        ours, theirs = ({k: v for k, v in d.items() if k not in half} for d in (ours, theirs))
    same(ours, theirs)


def test_a_checkpoint_is_read_both_ways_and_training_goes_on_alike(tmp_path: Path) -> None:
    for writer in ("ours", "theirs"):
        folder = tmp_path / writer
        folder.mkdir()
        if writer == "ours":
            module_programs.checkpoint(mx, str(folder))
        else:
            on_mxnet("checkpoint", tmp_path / "written.npz", folder)
        same(module_programs.resume(mx, str(folder)), on_mxnet("resume", tmp_path / f"{writer}.npz", folder), 2e-4)


def test_lenet_trains_to_the_losses_of_mxnet(tmp_path: Path) -> None:
    digits = pytest.importorskip("sklearn.datasets", reason="scikit-learn gives the digits").load_digits()
    np.savez(tmp_path / "digits.npz", images=digits.images, labels=digits.target)
    script = ROOT / "examples" / "mxnet_module_lenet.py"
    text = script.read_text(encoding="utf-8")
    assert text.count("import diptych.mxnet as mx") == 1
    (tmp_path / "real.py").write_text(text.replace("import diptych.mxnet as mx", "import mxnet as mx"), encoding="utf-8")
    real(tmp_path / "real.py", tmp_path / "digits.npz", tmp_path / "real.json")
    ours = [sys.executable, str(script), str(tmp_path / "digits.npz"), str(tmp_path / "ours.json")]
    subprocess.run(ours, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    a, b = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("ours", "real"))
    np.testing.assert_allclose(a["losses"], b["losses"], rtol=1e-3)
    assert a["losses"][-1] < 0.05 and a["accuracy"] == pytest.approx(b["accuracy"], abs=0.01)


@pytest.mark.parametrize("option", [{"rotate": 10}, {"max_random_scale": 1.5}, {"mean_img": "mean.bin"}, {"random_h": 36}])
def test_record_iterator_refuses_what_it_would_not_do(option: dict[str, object]) -> None:
    import diptych.mxnet as mx

    with pytest.raises(mx.MXNetError, match=next(iter(option))):
        mx.io.ImageRecordIter("none.rec", (3, 8, 8), 1, **option)
