"""The `lower` of every elementwise operator and the `combine` of every reduction, compiled, against the reference."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np
import pytest
from jit import compiled

from diptych.ir import TensorType, numpy_dtype
from diptych.ops import OPS, Elementwise, Reduction

ELEMENTWISE = [n for n, op in OPS.items() if issubclass(op, Elementwise)]
REDUCTIONS = [n for n, op in OPS.items() if issubclass(op, Reduction)]
TOLERANCE = {2: 2e-3, 4: 2e-6, 8: 4e-15}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_lowering(name: str) -> None:
    rng = np.random.default_rng(crc32(name.encode()))
    seen = set()
    for sample in OPS[name].samples:
        op: Any = OPS[name](**sample.attrs)
        dtypes = [a.dtype for a in sample.args]
        output = op.infer(*(TensorType((), d) for d in dtypes)).dtype
        if (key := (*dtypes, output)) in seen:
            continue  # the shape does not matter here: one loop runs over all elements
        seen.add(key)
        arrays = [type(a)((1, 200), a.dtype, a.low, a.high).draw(rng) for a in sample.args]
        with np.errstate(all="ignore"):
            expected = op.reference(*arrays)
        for lanes in (1, 8):
            got = compiled(op.lower, dtypes, output, lanes)(*arrays)
            if expected.dtype.kind == "f":
                rtol = TOLERANCE[expected.dtype.itemsize]
                np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol, err_msg=f"{key}")
            else:
                np.testing.assert_array_equal(got, expected, err_msg=f"{key}")


@pytest.mark.parametrize("name", REDUCTIONS)
def test_combine_and_identity(name: str) -> None:
    rng = np.random.default_rng(crc32(name.encode()))
    for dtype in {a.dtype for s in OPS[name].samples for a in s.args}:
        op: Any = OPS[name](axes=(0,))
        t = numpy_dtype(dtype)
        x = rng.random((5, 64)) < 0.5 if dtype == "bool" else rng.uniform(0, 3, (5, 64)).astype(t)
        combine = compiled(op.combine, [dtype, dtype], dtype)
        acc = np.full(64, op.identity(dtype), t)
        for row in x:
            acc = combine(acc, row)
        np.testing.assert_allclose(acc, op.reference(x), rtol=2e-6)
