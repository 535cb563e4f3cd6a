"""Box suppression against the operator's reference."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest
from harness import ARM, V3, V4, Array, build, compile_only, view

from diptych.kernels.nms import NmsParams, make_box_nms
from diptych.ops import OPS
from diptych.ops.base import attributes


def check(x: Array, **attrs: Any) -> None:
    op = OPS["box_nms"](**attrs)
    want = op.reference(x)
    flat = x.reshape(prod(x.shape[:-2]), *x.shape[-2:])
    out = np.full(flat.shape, 7, x.dtype)
    build(make_box_nms(view(flat), view(out), NmsParams(**attributes(op)), V3))(flat, out)
    np.testing.assert_allclose(out.reshape(want.shape), want, rtol=1e-6, atol=1e-6)


def boxes(rng: np.random.Generator, images: int, n: int) -> Array:
    corner = rng.uniform(0, 1, (images, n, 2))
    size = rng.uniform(0.05, 0.5, (images, n, 2))
    label, score = rng.integers(-1, 3, (images, n, 1)), rng.uniform(0, 1, (images, n, 1)).round(1)
    return np.concatenate([label, score, corner, corner + size], -1).astype(np.float32)


def test_samples_of_the_operator(rng: np.random.Generator) -> None:
    for sample in OPS["box_nms"].samples:
        check(sample.args[0].draw(rng), **sample.attrs)


@pytest.mark.parametrize(("compact", "force", "topk"), list(product((True, False), (True, False), (-1, 0, 3, 20))))
def test_options(compact: bool, force: bool, topk: int, rng: np.random.Generator) -> None:
    x = boxes(rng, 3, 41)
    check(x, compact=compact, force=force, topk=topk, class_at=0, overlap=0.3, valid=0.2)
    check(x, compact=compact, force=force, topk=topk, class_at=0, centers_in=True, background=1)
    check(x, compact=compact, force=force, topk=topk, class_at=0, centers_out=True)


@pytest.mark.parametrize("target", [V4, ARM])
def test_other_machines(target: Any, rng: np.random.Generator) -> None:
    x = boxes(rng, 1, 9)
    assert compile_only(make_box_nms(view(x), view(x), NmsParams(**attributes(OPS["box_nms"]())), target), target)
