"""Constants that programs share: once in memory, once in the cache, never wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.compiled import Compiled
from diptych.fingerprint import of_graph
from diptych.ir import Graph, TensorType
from diptych.ops import Builder
from diptych.options import Options
from diptych.runtime.cache import ObjectCache
from diptych.runtime.shared import SharedWeights

WEIGHT = np.random.default_rng(3).standard_normal((128, 256)).astype(np.float32)


def graph(rows: int) -> Graph:
    g = Builder("product")
    x = g.input("x", TensorType((rows, 128)))
    return g.finish({"y": g.matmul(x, g.constant(WEIGHT)), "z": g.add(x, g.constant(WEIGHT[:, 0]))})


def compiled(rows: int, shared: SharedWeights) -> Compiled:
    made = graph(rows)
    return Compiled(lambda: made, lambda g: None if g is None else of_graph(g), Options(threads=2), None, shared=shared)


def check(rows: int, program: Compiled) -> None:
    x = np.random.default_rng(rows).standard_normal((rows, 128)).astype(np.float32)
    y, z = program.call(x)
    np.testing.assert_allclose(y, x @ WEIGHT, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(z, x + WEIGHT[:, 0])


def test_programs_share_what_is_equal(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    shared = SharedWeights()
    programs = {rows: compiled(rows, shared) for rows in (1, 5, 40)}
    assert shared.nbytes == WEIGHT.nbytes, "packed once for all of them"
    for rows, program in programs.items():
        check(rows, program)
    files = list((tmp_path / "cache").glob("*.weights"))
    assert len(files) == 1
    again = SharedWeights()
    check(5, compiled(5, again))  # from the cache
    assert again.nbytes == WEIGHT.nbytes
    files[0].write_bytes(files[0].read_bytes()[:-1] + b"\x7f")  # damaged: removed and made again
    third = SharedWeights()
    check(5, compiled(5, third))
    check(40, compiled(40, third))
    files[0].unlink()
    check(1, compiled(1, SharedWeights()))
    assert ObjectCache(tmp_path / "cache").clear() > 0
    assert not list((tmp_path / "cache").iterdir())


def test_it_works_without_a_cache(monkeypatch: Any) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", "off")
    shared = SharedWeights()
    for rows in (3, 17):
        check(rows, compiled(rows, shared))
    assert shared.nbytes == WEIGHT.nbytes


def test_constants_by_content() -> None:
    shared = SharedWeights()
    arrays = [np.full(n, v, np.float32) for n, v in ((1, 0), (7, 1), (5 << 20, 2), (7, 1))]
    calls: list[None] = []

    def filling(array: np.ndarray[Any, Any]) -> Any:
        def fill(out: np.ndarray[Any, Any]) -> None:
            assert not out.any()
            out.view(np.float32)[...] = array

        return array.nbytes, fill

    names = shared.pack([filling(a) for a in arrays], 2, lambda: calls.append(None))
    assert len(calls) == len(arrays)
    assert names[1] == names[3] and len(set(names)) == 3
    for name, array in zip(names, arrays, strict=True):
        kept = shared.get(name)
        np.testing.assert_array_equal(kept.view(np.float32), array)
        assert kept.ctypes.data % 64 == 0
    with pytest.raises(KeyError):
        shared.get("no such")
