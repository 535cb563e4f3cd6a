"""`diptych engines install NAME`: pip for engines of this interpreter, an environment of their own for real MXNet and ncnn."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from diptych.compare.engines import data_folder
from diptych.errors import DiptychError, InputError, UnsupportedError

__all__ = ["INSTALLABLE", "install"]

PIP = {
    "torch": ["torch"],
    "onnxruntime": ["onnxruntime", "onnx", "onnxscript", "torch"],
    "openvino": ["openvino", "onnx", "onnxscript", "torch"],
}
OWN = {
    "mxnet": ["mxnet==1.9.1", "numpy==1.23.5"],
    "ncnn": ["--no-deps", "ncnn", "pnnx", "numpy"],  # pnnx asks for PyTorch, which its converter does not need
}
WORKS = {"mxnet": "import mxnet; mxnet.nd.ones((2, 2)).asnumpy()", "ncnn": "import ncnn; ncnn.Net()"}
MXNET_PYTHONS = ["3.11", "3.10", "3.9", "3.8"]
INSTALLABLE = (*OWN, *PIP)


def _run(command: list[str], say: Callable[[str], None]) -> None:
    say("$ " + " ".join(command))
    result = subprocess.run(command, stdout=sys.stderr, check=False)
    if result.returncode:
        raise DiptychError(f"`{' '.join(command)}` failed with status {result.returncode}")


def _old_python() -> str:
    """A CPython that NumPy 1.23 and MXNet 1.9.1 run on."""
    if sys.version_info[:2] <= (3, 11):
        return sys.executable
    for version in MXNET_PYTHONS:
        found = shutil.which(f"python{version}")
        if found:
            return found
    raise UnsupportedError(
        f"MXNet 1.9.1 needs CPython {MXNET_PYTHONS[-1]} to {MXNET_PYTHONS[0]}, this is {platform.python_version()} and no "
        "older one is on PATH; install one (`uv python install 3.11`), or set DIPTYCH_MXNET_PYTHON to an interpreter "
        "that has mxnet"
    )


def install(name: str, say: Callable[[str], None]) -> Path | None:
    """Install an engine; returns the folder of its environment when it has one of its own."""
    if name in PIP:
        _run([sys.executable, "-m", "pip", "install", *PIP[name]], say)
        return None
    if name not in OWN:
        raise InputError(f"{name!r} cannot be installed from here; these can: {', '.join(INSTALLABLE)}")
    if name == "mxnet" and sys.platform == "win32":
        raise UnsupportedError("there is no MXNet 1.9.1 wheel for Windows; use Linux or WSL")
    folder = data_folder() / "engines" / name
    unfinished = folder.with_name(f"{name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    _run([_old_python() if name == "mxnet" else sys.executable, "-m", "venv", str(unfinished)], say)
    python = str(unfinished / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    _run([python, "-m", "pip", "install", "--disable-pip-version-check", *OWN[name]], say)
    _run([python, "-c", WORKS[name]], say)
    # Published only when complete. The interpreter of a venv finds itself by its own path, so it survives the move.
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)
    say(f"{name} is in {folder}")
    return folder
