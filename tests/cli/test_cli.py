"""The command line, as a user calls it: `python -m diptych.cli ...` on tiny models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diptych.compare.demo import subject as demo_subject

ROOT = Path(__file__).resolve().parents[2]
DEMO = Path(demo_subject.__file__).parent
SYMBOL, PARAMS = str(DEMO / "digits-symbol.json"), str(DEMO / "digits-0000.params")
SHAPE = ("--input", "data=2x1x8x8")


def cli(*arguments: str, status: int = 0, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command and hold it to its exit status; a traceback is never an answer."""
    done = subprocess.run(
        [sys.executable, "-m", "diptych.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env},
        timeout=300,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    with np.load(DEMO / "digits_held_out.npz") as data:
        return (data["pixels"][:2].astype(np.float32) / 16)[:, None]


@pytest.fixture(scope="module")
def labels() -> list[int]:
    with np.load(DEMO / "digits_held_out.npz") as data:
        return [int(v) for v in data["labels"][:2]]


def test_help_names_every_command() -> None:
    text = cli("--help").stdout
    assert all(name in text for name in ("compare", "run", "inspect", "check", "engines"))


@pytest.mark.parametrize("command", ["compare", "run", "inspect", "check"])
def test_each_command_says_what_a_model_is(command: str) -> None:
    assert "package.module:factory" in cli(command, "--help").stdout


def test_importing_the_command_line_imports_no_framework() -> None:
    code = (
        "import sys, diptych.cli, diptych.cli.compare_command, diptych.cli.run_command;"
        "print([m for m in ('torch', 'onnxruntime', 'openvino', 'mxnet', 'psutil') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_inspect_shows_what_the_model_is_made_of() -> None:
    made = json.loads(cli("inspect", SYMBOL, *SHAPE, "--json").stdout)
    assert made["inputs"]["data"] == "f32[2,1,8,8]"
    assert list(made["outputs"].values()) == ["f32[2,10]"]
    assert made["operators"]["conv"]["uses"] == 3
    # 2 images x (64 places x 9 x (16 + 16*32) + 16 places x 9 x 32*64 + 256*64 + 64*10) multiply-adds, two flops each
    assert made["flops"] == 2 * 2 * (64 * 9 * (16 + 16 * 32) + 16 * 9 * 32 * 64 + 256 * 64 + 640)
    assert made["parameters"] >= 40_000
    text = cli("inspect", SYMBOL, *SHAPE).stdout
    assert "GFLOP a call" in text and "conv" in text


def test_inspect_graph_prints_every_node() -> None:
    assert "conv1" in cli("inspect", SYMBOL, *SHAPE, "--graph").stdout


def test_check_says_yes() -> None:
    assert "will run" in cli("check", SYMBOL, *SHAPE).stdout
    assert json.loads(cli("check", SYMBOL, *SHAPE, "--json").stdout)["runs"] is True


def test_check_says_no_and_names_the_layer(tmp_path: Path) -> None:
    symbol = json.loads(Path(SYMBOL).read_text())
    node = next(n for n in symbol["nodes"] if n["name"] == "relu2")
    node["op"], node["attrs"] = "_contrib_TimeMachine", {}
    (tmp_path / "odd-symbol.json").write_text(json.dumps(symbol))
    shutil.copy(PARAMS, tmp_path / "odd-0000.params")
    text = cli("check", str(tmp_path / "odd-symbol.json"), *SHAPE, status=1).stdout
    assert "will not run" in text and "TimeMachine" in text and "relu2" in text
    made = json.loads(cli("check", str(tmp_path / "odd-symbol.json"), *SHAPE, "--json", status=1).stdout)
    assert made["runs"] is False and any("TimeMachine" in p for p in made["problems"])


def test_run_recognises_real_digits(tmp_path: Path, images: np.ndarray, labels: list[int]) -> None:
    np.save(tmp_path / "x.npy", images)
    out = tmp_path / "y.npz"
    made = json.loads(
        cli(
            "run", SYMBOL, "--data", f"data={tmp_path / 'x.npy'}", "--top-k", "3", "--output", str(out), "--json"
        ).stdout
    )
    (summary,) = made["outputs"]
    assert summary["shape"] == [2, 10]
    assert [row[0]["index"] for row in summary["top"]] == labels
    with np.load(out) as saved:
        (y,) = (saved[k] for k in saved.files)
    assert y.shape == (2, 10) and np.allclose(y.sum(1), 1, atol=1e-5)


def test_run_on_random_inputs_is_repeatable() -> None:
    first, again = (json.loads(cli("run", SYMBOL, *SHAPE, "--random", "--json").stdout)["outputs"] for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "name a model"),
        (["run", "nowhere-symbol.json"], "no such file"),
        (["run", SYMBOL, "--symbol", SYMBOL], "name the model once"),
        (["run", SYMBOL, *SHAPE], "--random"),
        (["run", SYMBOL, "--input", "wrong=1x2", "--random"], "no input 'wrong'"),
        (["run", SYMBOL, "--input", "data:1x2", "--random"], "write NAME=SHAPE"),
        (["run", SYMBOL, "--data", PARAMS], "not an array file"),
        (["run", "no.such.module:factory"], "cannot build the PyTorch model"),
        (["check", "--params", PARAMS], "--symbol"),
        (["compare", "--engines", "tensorflow"], "no engine is named 'tensorflow'"),
        (["compare", "--input", "x=1x2"], "name one"),
        (["engines", "install"], "install which engine"),
        (["engines", "install", "tensorflow"], "cannot be installed"),
    ],
)
def test_errors_are_one_clear_line_and_status_2(arguments: list[str], words: str) -> None:
    if "no.such.module:factory" in arguments:
        pytest.importorskip("torch", reason="PyTorch is not installed")
    done = cli(*arguments, status=2)
    assert words in done.stderr
    assert done.stderr.startswith(f"diptych {arguments[0]}: ")


def test_debug_shows_the_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "diptych.cli", "run", "nowhere.pt2"],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "DIPTYCH_DEBUG": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_parameters_are_found_beside_the_symbol_or_asked_for(tmp_path: Path) -> None:
    shutil.copy(SYMBOL, tmp_path / "m-symbol.json")
    assert "--params" in cli("check", str(tmp_path / "m-symbol.json"), *SHAPE, status=2).stderr
    shutil.copy(PARAMS, tmp_path / "m-0003.params")
    cli("check", str(tmp_path / "m-symbol.json"), *SHAPE)


def test_engines_lists_what_is_absent_and_how_to_get_it(tmp_path: Path) -> None:
    made = json.loads(cli("engines", "--json", DIPTYCH_MXNET_PYTHON=str(tmp_path / "none")).stdout)
    rows = {r["name"]: r for r in made["engines"]}
    assert rows["diptych"]["state"] == "here"
    assert rows["mxnet"]["state"] == "absent" and "engines install mxnet" in rows["mxnet"]["remedy"]


def test_a_reader_that_leaves_is_no_error() -> None:
    pipe = f"{sys.executable} -m diptych.cli inspect {SYMBOL} data --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    (tmp_path / "tiny.py").write_text(
        "import torch\n"
        "def net():\n"
        "    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)), torch.ones(2, 4)\n"
        "def bare():\n"
        "    return net()[0]\n"
    )
    return tmp_path


def test_a_torch_factory_runs_from_a_file_and_from_a_module(factory: Path) -> None:
    from_file = json.loads(cli("run", str(factory / "tiny.py") + ":net", "--json").stdout)
    from_module = json.loads(cli("run", "tiny:net", "--json", cwd=factory).stdout)
    assert from_file["outputs"] == from_module["outputs"]
    assert from_file["outputs"][0]["shape"] == [2, 3]
    assert "example inputs" in cli("run", str(factory / "tiny.py") + ":bare", status=2).stderr
    stated = json.loads(cli("inspect", str(factory / "tiny.py") + ":bare", "--input", "x=5x4", "--json").stdout)
    assert list(stated["outputs"].values()) == ["f32[5,3]"]


def test_compare_judges_and_times_a_torch_model(factory: Path) -> None:
    out = factory / "report.json"
    text = cli(
        "compare", str(factory / "tiny.py") + ":net", "--engines", "diptych,torch,mxnet", "--quick", "--rounds", "1",
        "--threads", "1", "--json", str(out),
    ).stdout  # fmt: skip
    made = json.loads(out.read_text())
    rows = {r["engine"]: r for r in made["rows"]}
    assert rows["diptych"]["state"] == rows["torch"]["state"] == "measured", rows
    assert rows["diptych"]["passed"] and rows["torch"]["passed"]
    assert rows["mxnet"]["state"] in ("unfit", "absent")
    assert made["base"] == "diptych" and rows["torch"]["ratio"]["value"] > 0
    assert "which engine fits which use" in text and "start of a fresh process" in text
    assert made["verdicts"]
