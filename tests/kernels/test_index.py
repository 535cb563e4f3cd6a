"""Kernels that read or write at computed positions, against the operators' references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, view

from diptych.ir.kernel import Kernel
from diptych.kernels import index
from diptych.ops import OPS
from diptych.targets.base import Target


def made(name: str, a: dict[str, Any], xs: list[Array], out: Array, target: Target = V3) -> tuple[Kernel, list[Array]]:
    """The kernel of an operator and its operands in the kernel's order."""
    v, o = [view(x) for x in xs], view(out)
    if name == "take":
        return index.make_take(v[0], v[1], a.get("axis", 0), a.get("mode", "clip"), o, target), xs
    if name == "gather":
        return index.make_gather(v[0], v[1], a["axis"], o, target), xs
    if name == "gather_nd":
        return index.make_gather_nd(v[0], v[1], o, target), xs
    if name == "scatter_nd":
        return index.make_scatter_nd(v[0], v[1], o, target), [xs[1], xs[0]]
    if name == "scatter_add":
        return index.make_scatter_add(v[0], v[1], v[2], a["axis"], o, target), xs
    return index.make_slice_update(v[0], v[1], a["starts"], a["steps"], o, target), xs


NAMES = ["take", "gather", "gather_nd", "scatter_nd", "scatter_add", "slice_update"]


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_the_operators(name: str, rng: np.random.Generator) -> None:
    for sample in OPS[name].samples:
        xs = [a.draw(rng) for a in sample.args]
        want = OPS[name](**sample.attrs).reference(*xs)
        for turned in (False, True):
            out = np.full(want.shape, 3, want.dtype)
            if turned:
                xs = [np.array(x, order="F") for x in xs]
                out = np.array(out, order="F")
            kernel, operands = made(name, dict(sample.attrs), xs, out)
            build(kernel)(*operands, out)
            np.testing.assert_allclose(out, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["i4", "i8", "u1"])
def test_embedding(dtype: str, rng: np.random.Generator) -> None:
    table = rng.standard_normal((200, 77)).astype(np.float32)
    where = rng.integers(0, 200, (5, 13)).astype(dtype)
    out = np.zeros((5, 13, 77), np.float32)
    kernel, operands = made("take", {}, [table, where], out)
    build(kernel)(*operands, out)
    np.testing.assert_array_equal(out, table[where])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_indices_outside_are_clipped_or_wrapped(axis: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 6, 7)).astype(np.float32)
    where = rng.integers(-30, 30, (4, 3))
    for mode in ("clip", "wrap"):
        want = OPS["take"](axis=axis, mode=mode).reference(x, where)
        out = np.zeros_like(want)
        kernel, operands = made("take", {"axis": axis, "mode": mode}, [x, where], out)
        build(kernel)(*operands, out)
        np.testing.assert_array_equal(out, want)


def test_repeated_updates_add_up(rng: np.random.Generator) -> None:
    updates = rng.standard_normal((50, 9)).astype(np.float32)
    where = rng.integers(0, 3, (50, 1))
    out = np.full((3, 9), 5, np.float32)
    kernel, operands = made("scatter_nd", {}, [updates, where], out)
    build(kernel)(*operands, out)
    np.testing.assert_allclose(out, OPS["scatter_nd"](shape=(3, 9)).reference(updates, where), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("target", [V4, ARM])
@pytest.mark.parametrize("name", NAMES)
def test_other_machines(name: str, target: Any, rng: np.random.Generator) -> None:
    sample = OPS[name].samples[0]
    xs = [a.draw(rng) for a in sample.args]
    out = np.asarray(OPS[name](**sample.attrs).reference(*xs))
    assert compile_only(made(name, dict(sample.attrs), xs, out, target)[0], target)
