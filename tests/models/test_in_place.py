"""Outputs that lie in inputs: written where they are, never on a copy, and never by mistake."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diptych.compiled import Compiled
from diptych.errors import InputError
from diptych.ir import Graph, TensorType
from diptych.ops import OPS, Builder
from diptych.options import Options

Array = np.ndarray[Any, Any]


def step(extra: str = "") -> Graph:
    """A cache that takes two rows in at a time, and the sum over what it then holds."""
    g = Builder("step")
    x, at = g.input("x", TensorType((2, 3, 8))), g.input("at", TensorType((), "i64"))
    cache = g.input("cache", TensorType((2, 16, 8)))
    new = g.emit(OPS["slice_update_at"](axis=1), cache, g.slice_axis(g.mul(x, 2.0), 1, 0, 2), at)
    outs = {"total": g.sum(new, 1), "kept": new}
    if extra == "read":
        outs["total"] = g.sum(cache, 1)
    if extra == "made otherwise":
        outs["kept"] = g.mul(new, 1.5)
    return g.finish(outs)


def compiled(pairs: Any = (("kept", "cache"),), target: str | None = None, threads: int = 2, extra: str = "") -> Compiled:
    graph = step(extra)
    return Compiled(lambda: graph, lambda g: None, Options(threads=threads, in_place=pairs), target)


@pytest.mark.parametrize(("target", "threads"), [("numpy", 1), (None, 1), (None, 2)])
def test_the_cache_stays_where_it_is(target: str | None, threads: int, rng: np.random.Generator) -> None:
    made = compiled(target=target, threads=threads)
    assert [n for n, _ in made.outputs] == ["total"]
    cache, want = np.zeros((2, 16, 8), np.float32), np.zeros((2, 16, 8), np.float32)
    for at in (0, 2, 7, 14, 3):
        x = rng.standard_normal((2, 3, 8)).astype(np.float32)
        want[:, at : at + 2] = 2 * x[:, :2]
        total = made.call(x, np.array(at), cache)
        np.testing.assert_array_equal(cache, want)
        np.testing.assert_allclose(total, want.sum(1), rtol=1e-5, atol=1e-5)


def test_nothing_is_copied() -> None:
    made, pure = compiled(), compiled(())
    assert made.plan is not None and pure.plan is not None
    assert made.plan.updated == ("cache",) and pure.plan.updated == ()
    assert sum(k.kind == "update_at" for k in made.plan.kernels) == 1
    assert len(pure.plan.steps) == len(made.plan.steps) + 1, "without in_place the cache is copied once"


def test_without_it_the_input_is_left_alone(rng: np.random.Generator) -> None:
    made = compiled(())
    cache, x = np.zeros((2, 16, 8), np.float32), rng.standard_normal((2, 3, 8)).astype(np.float32)
    _, kept = made.call(x, np.array(5), cache)
    assert not cache.any()
    np.testing.assert_array_equal(kept[:, 5:7], 2 * x[:, :2])


@pytest.mark.parametrize(
    ("pairs", "extra", "why"),
    [
        ((("kept", "x"),), "", "not made from it"),
        ((("nothing", "cache"),), "", "the graph has"),
        ((("total", "cache"),), "", "not made from it"),
        ((("kept", "cache"),), "read", "read elsewhere"),
        ((("kept", "cache"),), "made otherwise", "not made from it"),
        ((("kept", "cache"), ("kept", "cache")), "", "named twice"),
    ],
)
def test_what_cannot_lie_there_is_refused(pairs: Any, extra: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        compiled(pairs, extra=extra)


def test_an_updated_input_is_never_converted(rng: np.random.Generator) -> None:
    made = compiled()
    x, at = rng.standard_normal((2, 3, 8)).astype(np.float32), np.array(0)
    good = np.zeros((2, 16, 8), np.float32)
    locked = good.copy()
    locked.flags.writeable = False
    for bad in (locked, good.astype(np.float64), good[:, :15], np.asfortranarray(good), good.tolist(), np.zeros((2, 32, 8), np.float32)[:, ::2]):
        with pytest.raises(InputError, match="cache"):
            made.call(x, at, bad)
    both = np.zeros(2 * 16 * 8, np.float32)
    with pytest.raises(InputError, match="shares memory"):
        made.call(both[:48].reshape(2, 3, 8), at, both.reshape(2, 16, 8))
    made.call(np.asfortranarray(x), np.int32(3), good)  # the others are converted as ever
    np.testing.assert_array_equal(good[:, 3:5], 2 * x[:, :2])
    assert made.executable is not None
    with pytest.raises(InputError, match="shares memory"):
        made.executable.run_into((x, at, good), (good.reshape(-1)[:16].reshape(2, 8),))
