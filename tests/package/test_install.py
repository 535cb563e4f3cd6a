"""The package as it installs: a fresh environment with only NumPy and llvmlite compiles and runs an MXNet checkpoint."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
RUN = """
import sys
from importlib.resources import files
import numpy as np
import diptych

demo = files("diptych") / "compare" / "demo"
assert "site-packages" in str(demo), demo
with np.load(demo / "digits_held_out.npz") as held_out:
    images, labels = held_out["pixels"].reshape(-1, 1, 8, 8).astype(np.float32) / 16, held_out["labels"]
net = diptych.load(demo / "digits-symbol.json", demo / "digits-0000.params")
model = diptych.compile(net, {net.input_names[0]: images.shape})
accuracy = float(np.mean(np.argmax(model(images), 1) == labels))
print("digits accuracy", accuracy)
assert accuracy > 0.99
if len(sys.argv) > 1:  # a published checkpoint and what real MXNet made of it
    symbol, params, golden = sys.argv[1:]
    with np.load(golden) as arrays:
        given = {n[3:]: arrays[n] for n in arrays.files if n.startswith("in:")}
        wanted = [arrays[n] for n in arrays.files if n.startswith("out:")]
    model = diptych.compile(diptych.load(symbol, params), {n: a.shape for n, a in given.items()})
    got = model(**given)
    for ours, theirs in zip(got if isinstance(got, tuple) else (got,), wanted, strict=True):
        error = float(np.abs(ours - theirs).max() / np.sqrt(np.mean(theirs**2)))
        print("error against real MXNet", error)
        assert error < 1e-4
assert not {"torch", "mxnet", "onnx", "scipy"} & set(sys.modules)
"""


def pip(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", *arguments], capture_output=True, text=True,
        check=False, timeout=600, cwd=ROOT,
    )  # fmt: skip


def test_a_fresh_environment_runs_a_checkpoint(tmp_path: Path) -> None:
    venv.create(tmp_path / "v", with_pip=True)
    python = tmp_path / "v" / ("Scripts" if os.name == "nt" else "bin") / "python"
    # A copy of the sources, so that nothing is built inside the checkout.
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: the list of files to install is not known")
    source = tmp_path / "source"
    for name in filter(None, listed.stdout.split("\0")):
        if name.startswith(("diptych/", "pyproject", "README", "LICENSE")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    done = pip(python, "install", "--quiet", "--no-compile", str(source))
    if done.returncode and "Could not find a version" in done.stderr:
        pytest.skip("no package index within reach")
    assert done.returncode == 0, done.stderr
    there = {line.split("==")[0].lower() for line in pip(python, "freeze").stdout.splitlines()}
    assert {n for n in there if not n.startswith("diptych")} == {"numpy", "llvmlite"}
    env = {**os.environ, "DIPTYCH_CACHE": str(tmp_path / "cache")}
    env.pop("PYTHONPATH", None)
    models = ROOT.parent / "shared" / "models" / "mxnet"  # optional test data
    published = [str(models / n) for n in ("mtcnn/det1-symbol.json", "mtcnn/det1-0001.params", "golden/mtcnn_det1.npz")]
    ran = subprocess.run(
        [str(python), "-c", RUN, *(published if models.is_dir() else [])], capture_output=True, text=True,
        check=False, timeout=300, cwd=tmp_path, env=env,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    tool = subprocess.run(
        [str(python.with_name("diptych")), "engines"], capture_output=True, text=True, check=False, timeout=120,
        cwd=tmp_path, env=env,
    )  # fmt: skip
    assert tool.returncode == 0, tool.stderr
    assert "pip install" in tool.stdout or "diptych engines install" in tool.stdout  # how to get what is absent
