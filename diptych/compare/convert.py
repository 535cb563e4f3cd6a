"""PyTorch to ncnn: a traced module through pnnx, with its memory bounded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from diptych.compare.process import EngineError
from diptych.ir import Array

__all__ = ["to_ncnn"]

MEMORY = 8 << 30  # one conversion of a language model grew to 17 GB


def _bounded() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def to_ncnn(python: str, traced: Path, inputs: Mapping[str, Array]) -> str:
    """Convert; returns the path of the result without its endings (`.param`, `.bin`)."""
    find = "import importlib.util as u; print(u.find_spec('pnnx').submodule_search_locations[0])"
    where = subprocess.run([python, "-c", find], capture_output=True, text=True, check=False)
    if where.returncode:
        raise EngineError("ncnn: pnnx, which converts PyTorch models, is not installed beside it")
    tool = Path(where.stdout.strip()) / ("pnnx.exe" if sys.platform == "win32" else "pnnx")
    shapes = ",".join(
        f"[{','.join(map(str, (1, *a.shape[1:])))}]{'i64' if a.dtype.kind in 'iu' else 'f32'}" for a in inputs.values()
    )
    command = [str(tool), str(traced), f"inputshape={shapes}", "fp16=0"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=traced.parent, timeout=600, check=False,
            preexec_fn=None if sys.platform == "win32" else _bounded,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise EngineError("ncnn: pnnx did not finish within 10 minutes") from None
    stem = traced.with_suffix("")
    made = Path(f"{stem}.ncnn.param")
    if not made.exists():
        lines = [s for s in (done.stderr + done.stdout).splitlines() if s.strip()]
        raise EngineError(f"ncnn: pnnx cannot convert the model: {lines[-1] if lines else f'status {done.returncode}'}")
    return f"{stem}.ncnn"
