"""A cache folder that takes nothing: the model runs, one message says why it will start slowly, nothing half-written stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import diptych
from diptych.runtime.cache import ObjectCache

RUN = """
import resource, sys
import numpy as np
import diptych
from diptych.ir import TensorType
from diptych.ops.build import Builder

if int(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
g = Builder("product")
x = g.input("x", TensorType((2, 256)))
w = np.random.default_rng(0).standard_normal((256, 1024)).astype(np.float32)
graph = g.finish({"y": g.matmul(x, g.constant(w))})
given = np.ones((2, 256), np.float32)
for _ in range(2):
    found = diptych.compile(graph, threads=1)(given)
    np.testing.assert_allclose(found, given @ w, rtol=1e-4, atol=1e-4)
"""


def run(cache: str, limit: int = 0, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(limit)], capture_output=True, text=True, cwd=Path(diptych.__file__).parents[1],
        env={**os.environ, "DIPTYCH_CACHE": cache, **more},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files there")
@pytest.mark.parametrize("limit", [100, 200_000], ids=["nothing fits", "code fits, weights do not"])
def test_no_room(tmp_path: Path, limit: int) -> None:
    """A file may have so many bytes: writing more fails in the middle, as on a full disk."""
    said = run(str(tmp_path / "cache"), limit)
    assert said.count("cannot be written to") == 1 and str(tmp_path / "cache") in said and "DIPTYCH_CACHE" in said
    names = sorted(p.name for p in (tmp_path / "cache").iterdir())
    assert not [n for n in names if not n.endswith(".obj")], names
    assert bool(names) == (limit > 100)
    assert run(str(tmp_path / "cache")) == "", "with room again, what is there is used and the rest kept"
    assert list((tmp_path / "cache").glob("*.model"))


def test_a_folder_that_cannot_be_made() -> None:
    said = run("/proc/diptych-cache" if Path("/proc").exists() else "/dev/null/cache")
    assert said.count("cannot be made") == 1 and "'off'" in said


def test_an_entry_over_the_limit(tmp_path: Path) -> None:
    said = run(str(tmp_path / "cache"), DIPTYCH_CACHE_LIMIT="500K")
    assert said.count("DIPTYCH_CACHE_LIMIT") == 1
    assert not list((tmp_path / "cache").glob("*.model"))


def test_caching_that_is_off_is_no_matter() -> None:
    assert run("off") == ""


def test_a_folder_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Removed, or made read-only, after it was looked at."""
    cache = ObjectCache(tmp_path / "cache")
    assert cache.put("key", b"one")
    for entry in (tmp_path / "cache").iterdir():
        entry.unlink()
    (tmp_path / "cache").rmdir()
    assert not cache.put("key", b"two") and cache.get("key") is None
    assert not cache.put("other", b"three")
    assert [r.levelname for r in caplog.records if "cannot be written to" in r.message] == ["WARNING"]
