"""Rows written at a computed place, against NumPy; all else stays."""

from __future__ import annotations

import numpy as np
import pytest
from harness import ARM, V3, V4, build, compile_only, view

from diptych.kernels.update import make_update_at
from diptych.ops import OPS


@pytest.mark.parametrize("lanes", ["V3", "V4"])
def test_samples_of_the_operator(lanes: str, rng: np.random.Generator) -> None:
    for sample in OPS["slice_update_at"].samples:
        data, update, start = (a.draw(rng) for a in sample.args)
        op = OPS["slice_update_at"](**sample.attrs)
        want = op.reference(data, update, start)
        for turned in (False, True):
            out, rows = (np.array(x, order="F" if turned else "C") for x in (data, update))
            axis = sample.attrs.get("axis", 0) % data.ndim
            if update.size:
                build(make_update_at(view(rows), view(start), axis, view(out), {"V3": V3, "V4": V4}[lanes]))(rows, start, out)
            np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("start", [-5, 0, 3, 60, 61, 1000])
def test_part_of_a_larger_buffer(start: int, rng: np.random.Generator) -> None:
    out = rng.standard_normal((1, 3, 64, 40)).astype(np.float32)
    whole, update = out.copy(), rng.standard_normal((1, 3, 4, 40)).astype(np.float32)
    part = out[:, 1:, :, 3:36]
    rows = update[:, 1:, :, 5:38]
    build(make_update_at(view(rows), view(np.array(start)), 2, view(part), V3))(rows, np.array(start), part)
    at = min(max(start, 0), 60)
    whole[:, 1:, at : at + 4, 3:36] = rows
    np.testing.assert_array_equal(out, whole)


def test_arm_compiles() -> None:
    x = np.zeros((2, 9, 16), np.float32)
    compile_only(make_update_at(view(x[:, :2]), view(np.array(0)), 1, view(x), ARM), ARM)
