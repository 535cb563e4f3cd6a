"""The check every test of the PyTorch frontend makes: convert, verify, interpret, compare with torch's own result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torchvision_build import torchvision


def _check(model: Any, inputs: Any, rtol: float = 1e-4, atol: float = 2e-5, **options: Any) -> Any:
    import torch
    import torch.utils._pytree as pytree

    from diptych.frontends.torch import source
    from diptych.ir import verify
    from diptych.targets.numpy import interpret

    model.eval()
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    with torch.no_grad():
        # models may write to their inputs; the expectation must not see that
        clone = [x.clone() if isinstance(x, torch.Tensor) else x for x in pytree.tree_leaves((args, kwargs))]
        a, k = pytree.tree_unflatten(clone, pytree.tree_flatten((args, kwargs))[1])
        expected = model(*a, **k)
    src = source(model, inputs, **options)
    graph = verify(src.graph())
    feed = dict(zip(src.input_names, (np.asarray(x) for x in src.flatten_inputs(args, kwargs)), strict=True))
    results = [torch.from_numpy(np.array(v)) for v in interpret(graph, feed).values()]
    got = src.unflatten_outputs(results)
    assert type(got) is type(expected)
    ours, theirs = pytree.tree_leaves(got), pytree.tree_leaves(expected)
    assert len(ours) == len(theirs)
    for x, y in zip(ours, theirs, strict=True):
        if isinstance(y, torch.Tensor):
            torch.testing.assert_close(x, y, rtol=rtol, atol=atol, equal_nan=True)
        else:
            assert x == y
    return src


@pytest.fixture(scope="session", autouse=True)
def importable_torchvision() -> None:
    """timm imports torchvision: make sure that it can before the first test tries."""
    torchvision()


@pytest.fixture
def check() -> Callable[..., Any]:
    """check(model, inputs): the model through the NumPy target equals torch; returns the source."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return _check
