"""The examples do what they say."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = {
    "mxnet_checkpoint.py": "357 of 360 right; probabilities sum to 1: True",
    "torch_module.py": "same answers as PyTorch",
    "save_and_open.py": "opened and answered in",
    "mxnet_module_lenet.py": "loss by epoch: 1.50",
    "mxnet_simple_nn.py": "-> 0.0",
    "generate_tokens.py": "the same 64 tokens as transformers: True",
    "sentence_lengths.py": "equal for every length, with 4 programs: True",
}


def run(name: str) -> str:
    path = str(ROOT / "examples" / name)
    start = [path]
    if name == "generate_tokens.py":  # transformers imports torchvision, whose build may be for another PyTorch
        start = ["-c", f"import runpy, torchvision_build as b; b.torchvision(); runpy.run_path({path!r}, run_name='__main__')"]
    done = subprocess.run(
        [sys.executable, *start],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str) -> None:
    if name == "torch_module.py":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    if name == "sentence_lengths.py":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    if name == "generate_tokens.py" and importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    if name == "mxnet_module_lenet.py":
        pytest.importorskip("sklearn", reason="scikit-learn gives the digits")
    assert EXAMPLES[name] in run(name)


def test_every_example_is_listed() -> None:
    listed = (ROOT / "examples" / "README.md").read_text()
    files = {p.name for p in (ROOT / "examples").glob("*.py")}
    assert all(f"`{name}`" in listed for name in files)
    assert files == {*EXAMPLES, "compare_engines.py"}  # the last one is what tests/compare measures
