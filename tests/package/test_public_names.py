"""The package as its users meet it: names, docstrings, the cost of importing it."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import diptych

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(diptych.__path__, "diptych.")
    if ".workers" not in m.name and not m.name.endswith("__main__") and m.name != "diptych.compare.demo.network"
)


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_is_promised_is_there_and_no_more() -> None:
    public = {
        name
        for name, value in vars(diptych).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public | {"__version__"} == set(diptych.__all__)
    assert list(diptych.__all__) == sorted(diptych.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_modules_keep_their_promises(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip() or name.endswith("_version"), "a module says what it is for"
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        own = inspect.isfunction(value) or inspect.isclass(value)
        if own and value.__module__ == name:
            assert (value.__doc__ or "").strip(), f"{name}.{public} has no docstring"


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    if name.startswith("diptych.frontends.torch"):
        pytest.importorskip("torch")
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_import_is_cheap() -> None:
    loaded = fresh(
        "import sys, numpy; before = set(sys.modules); import diptych\n"
        "print('\\n'.join(sorted(set(sys.modules) - before)))"
    ).splitlines()
    heavy = ("torch", "llvmlite", "mxnet", "onnx", "scipy", "multiprocessing", "asyncio", "diptych.ops")
    assert [m for m in loaded if m.split(".")[0] in heavy or m in heavy] == []
    assert len([m for m in loaded if m.startswith("diptych")]) <= 20
    assert len(loaded) <= 60  # beyond NumPy: a few of the standard library's


def test_a_model_that_is_cached_needs_no_llvm(tmp_path: Path) -> None:
    code = (
        "import sys, os; os.environ['DIPTYCH_CACHE'] = {cache!r}\n"
        "import numpy as np, diptych\n"
        "from importlib.resources import files; here = files('diptych') / 'compare' / 'demo'\n"
        "net = diptych.load(here / 'digits-symbol.json', here / 'digits-0000.params')\n"
        "model = diptych.compile(net, {{net.input_names[0]: (1, 1, 8, 8)}})\n"
        "print(float(np.sum(model(np.ones((1, 1, 8, 8), np.float32)))), 'llvmlite.binding' in sys.modules)\n"
    ).format(cache=str(tmp_path / "cache"))
    first, second = fresh(code).split(), fresh(code).split()
    assert first[0] == second[0]
    assert (first[1], second[1]) == ("True", "False")


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert diptych.__version__ == project["version"]


def test_nothing_of_the_kitchen_is_in_the_repository() -> None:
    """No private paths in what we publish."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".json", "") and path.is_file() and path.stat().st_size < 1 << 20:
            text = path.read_text(encoding="utf-8", errors="replace")
            found += [f"{name}: {m}" for m in re.findall(r"/(?:work|root|tmp)/\w[\w./-]*", text)]
    assert found == []
