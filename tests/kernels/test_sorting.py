"""Sorting and selection against the operators' references: ties, NaN, both orders, every axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, view

from diptych.kernels.sorting import make_sort, make_topk
from diptych.ops import OPS


def check(x: Array, axis: int, k: int | None, descending: bool) -> None:
    if k is None:
        values, indices = OPS["sort"](axis=axis, descending=descending).reference(x)
    else:
        values, indices = OPS["top_k"](k=k, axis=axis, largest=descending).reference(x)
    got, where = np.zeros_like(values), np.full(indices.shape, -1)
    if k is None:
        kernel = make_sort(view(x), axis, descending, view(got), view(where), V3)
    else:
        kernel = make_topk(view(x), axis, k, descending, view(got), view(where), V3)
    build(kernel)(x, got, where)
    np.testing.assert_array_equal(where, indices)
    np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (100,), (3, 37), (37, 3), (2, 65, 4), (1, 1000)])
@pytest.mark.parametrize("descending", [False, True])
def test_sort(shape: tuple[int, ...], descending: bool, rng: np.random.Generator) -> None:
    for dtype in ("f4", "f2", "i8", "u1"):
        x = rng.integers(0, 20, shape).astype(dtype)
        for axis in range(len(shape)):
            check(x, axis, None, descending)
    check(rng.standard_normal(shape), -1, None, descending)


@pytest.mark.parametrize("k", [1, 2, 5, 64, 65, 99, 100])
@pytest.mark.parametrize("largest", [False, True])
def test_topk(k: int, largest: bool, rng: np.random.Generator) -> None:
    for x in (rng.integers(0, 30, (3, 100)).astype(np.float32), rng.standard_normal((100, 2)).astype(np.float32).T):
        check(x, 1, k, largest)


@pytest.mark.parametrize("descending", [False, True])
def test_nan_and_infinities(descending: bool, rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 30)).astype(np.float32)
    x[0, [3, 17, 18]], x[1, 5], x[1, 6], x[2] = np.nan, np.inf, -np.inf, np.nan
    check(x, 1, None, descending)
    check(x, 1, 6, descending)
    check(x, 0, 2, descending)


@pytest.mark.parametrize("target", [V4, ARM])
def test_other_machines(target: Any) -> None:
    x, v, i = np.zeros((3, 100), np.float32), np.zeros((3, 5), np.float32), np.zeros((3, 5), np.int64)
    assert compile_only(make_topk(view(x), 1, 5, True, view(v), view(i), target), target)
    assert compile_only(make_sort(view(x), 1, True, view(x), view(np.zeros((3, 100), np.int64)), target), target)
