"""Sampling kernels against the operators' references, with positions far outside and not numbers at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, view

from diptych.ir.kernel import Kernel
from diptych.kernels.sampling import make_deformable_columns, make_grid_sample, make_roi_align, make_roi_pool
from diptych.ops import OPS
from diptych.targets.base import Target

NAMES = ["grid_sample", "deformable_columns", "roi_align", "roi_pool"]


def made(op: Any, xs: list[Array], out: Array, target: Target = V3) -> Kernel:
    v, o = [view(x) for x in xs], view(out)
    if op.name == "grid_sample":
        return make_grid_sample(v[0], v[1], o, op.align_corners, target)
    if op.name == "deformable_columns":
        facts = (op.kernel, op.strides, op.pads, op.dilations, op.groups, op.border)
        return make_deformable_columns(v[0], v[1], v[2] if len(v) > 2 else None, o, *facts, target)
    if op.name == "roi_align":
        return make_roi_align(v[0], v[1], o, op.scale, op.samples_per_cell, op.aligned, op.by_position, target)
    return make_roi_pool(v[0], v[1], o, op.scale, target)


def check(op: Any, xs: list[Array]) -> None:
    want = op.reference(*xs)
    out = np.full(want.shape, 7, want.dtype)
    build(made(op, xs, out))(*xs, out)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_the_operators(name: str, rng: np.random.Generator) -> None:
    for sample in OPS[name].samples:
        xs = [a.draw(rng) for a in sample.args]
        check(OPS[name](**sample.attrs), xs)
        check(OPS[name](**sample.attrs), [x.astype(np.float64) for x in xs])


def test_regions_of_all_kinds(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 6, 11, 9)).astype(np.float32)
    rois = np.array([[0, 1, 1, 7, 6], [1, -5, -5, 3, 3], [1, 6, 6, 30, 30], [-1, 0, 0, 5, 5], [0, 4, 4, 4, 4], [0, 40, 40, 50, 50]], np.float32)
    for size in ((1, 1), (2, 3), (7, 7)):
        check(OPS["roi_pool"](size=size, scale=1.0), [x, rois])
        for samples in (-1, 2):
            for aligned in (False, True):
                check(OPS["roi_align"](size=size, scale=0.7, samples_per_cell=samples, aligned=aligned), [x, rois])


def test_wild_positions_read_nothing_outside(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 2, 4, 5)).astype(np.float32)
    grid = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 5.0], np.float32).reshape(1, 1, 1, 6).repeat(2, 1)
    out = np.zeros((1, 2, 1, 6), np.float32)
    build(made(OPS["grid_sample"](), [x, grid], out))(x, grid, out)
    assert (out[..., 3:] == 0).all()


@pytest.mark.parametrize("target", [V4, ARM])
@pytest.mark.parametrize("name", NAMES)
def test_other_machines(name: str, target: Any, rng: np.random.Generator) -> None:
    sample = OPS[name].samples[0]
    op, xs = OPS[name](**sample.attrs), [a.draw(rng) for a in sample.args]
    assert compile_only(made(op, xs, np.asarray(op.reference(*xs)), target), target)
