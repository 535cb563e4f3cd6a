"""References, decompositions and gradients of the crafted operators, judged by PyTorch over their samples."""

from __future__ import annotations

import numpy as np
import pytest
from torch_twins import TWINS, torch

from diptych.ir import TensorType, dtype_of, verify
from diptych.ops import OPS, Builder
from diptych.targets.numpy import interpret

CASES = [pytest.param(name, s, id=f"{name}-{i}") for name in TWINS for i, s in enumerate(OPS[name].samples)]


def draw(name, sample, dtype=None):
    """The operator and operands of a sample, floating operands as `dtype` where given."""
    rng = np.random.default_rng(11)
    arrays = [a.draw(rng) for a in sample.args]
    return OPS[name](**sample.attrs), [a.astype(dtype) if dtype and a.dtype.kind == "f" else a for a in arrays]


def as_tuple(x):
    return tuple(x) if isinstance(x, tuple | list) else (x,)


def close(got, want, factor):
    """Within `factor` rounding errors of the largest element."""
    assert got.shape == tuple(want.shape)
    want = want.detach().numpy()
    assert got.dtype == want.dtype
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, want)
    elif got.size:
        scale = np.abs(want).max() if np.isfinite(want).all() else 1.0
        np.testing.assert_allclose(got, want, rtol=0, atol=factor * np.finfo(got.dtype).eps * max(1.0, scale))


@pytest.mark.parametrize(("name", "sample"), CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reference(name, sample, dtype):
    op, arrays = draw(name, sample, dtype)
    wanted = as_tuple(TWINS[name](op, *map(torch.from_numpy, arrays)))
    types = as_tuple(op.infer(*(TensorType(a.shape, dtype_of(a)) for a in arrays)))
    got = as_tuple(op.reference(*arrays))
    assert len(got) == len(wanted) == len(types)
    for y, want, t in zip(got, wanted, types, strict=True):
        assert (y.shape, dtype_of(y)) == (t.shape, t.dtype)
        # torch takes resampling positions in the dtype of the data, we take them in float64
        close(y, want, 400 if name == "resize" else 64)


DECOMPOSED = [c for c in CASES if hasattr(OPS[c.values[0]], "decompose")]


@pytest.mark.parametrize(("name", "sample"), DECOMPOSED)
def test_decomposition(name, sample):
    op, arrays = draw(name, sample, "float64")
    g = Builder()
    xs = [g.input(f"x{i}", TensorType(a.shape, dtype_of(a))) for i, a in enumerate(arrays)]
    graph = verify(g.finish(list(as_tuple(op.decompose(g, *xs)))))
    got = interpret(graph, {f"x{i}": a for i, a in enumerate(arrays)}).values()
    for y, want in zip(got, as_tuple(TWINS[name](op, *map(torch.from_numpy, arrays))), strict=True):
        close(y, want, 64)


DIFFERENTIABLE = [c for c in CASES if c.values[1].grad and hasattr(OPS[c.values[0]], "gradient")
                  and (all(a.dtype in ("f32", "f64") for a in c.values[1].args) or c.values[1].attrs.get("ragged"))]  # fmt: skip


@pytest.mark.parametrize(("name", "sample"), DIFFERENTIABLE)
def test_gradient(name, sample):
    op, arrays = draw(name, sample, "float64")
    tensors = [torch.from_numpy(a).requires_grad_(a.dtype.kind == "f") for a in arrays]
    outs = [y for y in as_tuple(TWINS[name](op, *tensors)) if y.is_floating_point()]
    rng = np.random.default_rng(5)
    seeds = [rng.standard_normal(tuple(y.shape)) for y in outs]
    wanted = torch.autograd.grad(outs, [t for t in tensors if t.requires_grad], [torch.from_numpy(s) for s in seeds])
    g = Builder()
    xs = tuple(g.input(f"x{i}", TensorType(a.shape, dtype_of(a))) for i, a in enumerate(arrays))
    ys = g.emit_all(op, *xs)
    dys = tuple(g.input(f"dy{i}", y.type) if y.dtype == "f64" else None for i, y in enumerate(ys))
    found = op.gradient(g, xs, ys, dys)
    assert [d is not None for d in found] == [t.requires_grad for t in tensors]
    graph = verify(g.finish([d for d in found if d is not None]))
    feed = {f"x{i}": a for i, a in enumerate(arrays)} | {f"dy{i}": s for i, s in enumerate(seeds)}
    got = interpret(graph, feed).values()
    for dx, want in zip(got, wanted, strict=True):
        close(dx, want, 400)


def test_every_differentiable_operator_is_covered():
    names = {c.values[0] for c in DIFFERENTIABLE}
    assert names >= {"mat_mul", "conv", "conv_transpose", "max_pool", "avg_pool", "lp_pool", "adaptive_avg_pool", "adaptive_max_pool",
                     "resize", "layer_norm", "softmax", "log_softmax", "sort", "top_k"}  # fmt: skip
