"""The engines there are, which of them are here, and how to get the others."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from diptych.errors import InputError

__all__ = ["ENGINES", "Engine", "State", "data_folder", "engine", "own_python"]

Form = Literal["mxnet", "torch", "onnx", "saved", "traced"]


@dataclass(frozen=True, slots=True)
class State:
    """Whether an engine can run here: its interpreter and version, or what is missing and what to do."""

    python: str = ""
    version: str = ""
    problem: str = ""
    remedy: str = ""

    @property
    def present(self) -> bool:
        return not self.problem


@dataclass(frozen=True, slots=True)
class Engine:
    """One row of the comparison: which worker runs it and which form of the model it takes."""

    name: str
    title: str
    adapter: str
    form: Form
    package: str
    options: Mapping[str, Any] = field(default_factory=dict)
    default: bool = True  # whether it runs when no engines are named
    needs: tuple[str, ...] = ()  # further packages
    compiler: bool = False
    own: bool = False  # lives in an environment of its own

    def state(self) -> State:
        """Look for the engine without importing it."""
        if self.own:
            return _own_state(self.package)
        missing = [p for p in (self.package, *self.needs) if importlib.util.find_spec(p) is None]
        if missing:
            command = f"diptych engines install {self.package}"
            return State(problem=f"not installed: {', '.join(missing)}", remedy=command)
        if self.compiler and not _compiler():
            return State(problem="needs a C++ compiler", remedy="install g++ or clang++, or set CXX")
        return State(sys.executable, _version(self.package))


def _compiler() -> str | None:
    named = os.environ.get("CXX")
    return next((p for p in (named, "g++", "clang++") if p and shutil.which(p)), None)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "source"


def data_folder() -> Path:
    """Where engines of their own environment live: $DIPTYCH_DATA, or the user's data folder."""
    if os.environ.get("DIPTYCH_DATA"):
        return Path(os.environ["DIPTYCH_DATA"])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "diptych"
    base = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_DATA_HOME")
    return Path(base or Path.home() / ".local" / "share") / "diptych"


def own_python(package: str) -> str | None:
    """The interpreter of an engine with an environment of its own.

    That is $DIPTYCH_MXNET_PYTHON (for mxnet, likewise for others), the one diptych installed, or this one.
    """
    named = os.environ.get(f"DIPTYCH_{package.upper()}_PYTHON")
    if named:
        return named
    inside = Path("Scripts/python.exe" if os.name == "nt" else "bin/python")
    own = data_folder() / "engines" / package / inside
    if own.exists():
        return str(own)
    return sys.executable if importlib.util.find_spec(package) else None


def _own_state(package: str) -> State:
    remedy = f"diptych engines install {package} (or set DIPTYCH_{package.upper()}_PYTHON)"
    python = own_python(package)
    if python is None:
        return State(problem=f"not installed: {package}", remedy=remedy)
    code = f"import importlib.metadata as m, numpy; print(m.version('{package}'), numpy.__version__)"
    try:
        found = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        return State(problem=f"{python} does not start: {e}", remedy=remedy)
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["no message"])[-1]
        return State(problem=f"{python} has no working {package}: {last}", remedy=remedy)
    version, numpy = found.stdout.split()
    if package == "mxnet" and tuple(int(p) for p in numpy.split(".")[:2]) >= (1, 24):
        return State(problem=f"mxnet {version} cannot import under NumPy {numpy}", remedy=remedy)
    return State(python, version)


ENGINES: dict[str, Engine] = {
    e.name: e
    for e in (
        Engine("diptych", "diptych", "diptych_engine", "mxnet", "diptych"),
        Engine("diptych-torch", "diptych (torch)", "diptych_engine", "torch", "diptych", needs=("torch",)),
        Engine("diptych-saved", "diptych (saved)", "diptych_engine", "saved", "diptych"),
        Engine("torch", "PyTorch eager", "torch_engine", "torch", "torch", {"mode": "eager"}),
        Engine("inductor", "PyTorch compiled", "torch_engine", "torch", "torch", {"mode": "inductor"}, compiler=True),
        Engine("mxnet", "MXNet", "mxnet_engine", "mxnet", "mxnet", own=True),
        Engine("onnxruntime", "ONNX Runtime", "onnxruntime_engine", "onnx", "onnxruntime", needs=("torch", "onnx")),
        Engine("openvino", "OpenVINO f32", "openvino_engine", "onnx", "openvino", needs=("torch", "onnx")),
        Engine(
            "openvino-default",
            "OpenVINO default",
            "openvino_engine",
            "onnx",
            "openvino",
            {"precision": "default"},
            default=False,
            needs=("torch", "onnx"),
        ),
        Engine("ncnn", "ncnn", "ncnn_engine", "traced", "ncnn", default=False, own=True),
    )
}


def engine(name: str) -> Engine:
    """The engine of that name."""
    if name not in ENGINES:
        raise InputError(f"no engine is named {name!r}; there are {', '.join(ENGINES)}")
    return ENGINES[name]
