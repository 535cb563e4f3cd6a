"""The support code: what importing costs, that a warm start needs no llvmlite, that it links for every machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diptych.errors import __file__ as errors_file
from diptych.runtime.elf import AARCH64, X86_64, parse_object
from diptych.runtime.link import Layout, link
from diptych.runtime.native import compile_support
from diptych.runtime.support_ir import support_ir

_START = """
import sys
sys.path.insert(0, {root!r})
import diptych.runtime
assert "llvmlite" not in sys.modules, "imported by diptych.runtime"
from diptych.runtime.native import support
support()
print("llvmlite" in sys.modules)
"""


def test_a_warm_start_does_not_import_llvmlite(tmp_path: Path) -> None:
    code = _START.format(root=os.fspath(Path(errors_file).parents[1]))
    environment = os.environ | {"DIPTYCH_CACHE": str(tmp_path / "cache")}
    for expected in ("True", "False"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
        assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


@pytest.mark.parametrize("machine", [X86_64, AARCH64])
@pytest.mark.parametrize("linux", [True, False])
def test_the_support_code_links(machine: int, linux: bool) -> None:
    wanted: set[str] = set()

    def resolve(name: str) -> int:
        wanted.add(name)
        return 0x7FFF_0000_1000

    obj = parse_object(compile_support(machine, linux))
    image = link(obj, Layout(obj), 0x5555_0000_0000, resolve)
    assert {"diptych_barrier", "diptych_worker", "diptych_call_def", "diptych_stop"} <= set(image.names)
    assert {"PyArray_NewFromDescr", "sched_yield", "syscall" if linux else "usleep"} <= wanted
    assert not wanted & ({"usleep"} if linux else {"syscall"})
    assert support_ir(machine, linux) != support_ir(machine, not linux)
