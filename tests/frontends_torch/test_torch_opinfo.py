"""torch's own operator samples through the frontend and the NumPy target, against torch eager.

What does not pass is listed, with the reason, in opinfo_expected.json: an operator that fails without being listed is
a regression, and one that is listed but passes must be taken off the list. `python test_torch_opinfo.py` rewrites it.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

EXPECTED = Path(__file__).with_name("opinfo_expected.json")
CHUNKS = 8
SAMPLES = 2


class Call(torch.nn.Module):
    """An operator applied to the tensors of a sample; its other arguments are fixed."""

    def __init__(self, function: Any, leaves: list[Any], spec: Any) -> None:
        super().__init__()
        self.function, self.leaves, self.spec = function, leaves, spec

    def forward(self, *tensors: Any) -> Any:
        import torch.utils._pytree as pytree

        feed = iter(tensors)
        leaves = [next(feed) if isinstance(x, torch.Tensor) else x for x in self.leaves]
        first, args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return self.function(first, *args, **kwargs)


def entries() -> list[Any]:
    """The entries of op_db that take f32 on a CPU."""
    pytest.importorskip("expecttest")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return [o for o in op_db if o.supports_dtype(torch.float32, "cpu")]


def key(entry: Any) -> str:
    return ".".join(filter(None, [entry.name, entry.variant_test_name]))


def failure(entry: Any) -> str:
    """ "" if the picked samples of the operator pass, else why not."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(entry.sample_inputs("cpu", torch.float32))
        picked = samples[:: max(1, len(samples) // SAMPLES)][:SAMPLES]
        return next(filter(None, (_sample_failure(entry.get_op(), s) for s in picked)), "")


def _sample_failure(function: Any, sample: Any) -> str:
    import torch.utils._pytree as pytree

    from diptych.errors import UnsupportedError
    from diptych.frontends.torch import source
    from diptych.targets.numpy import interpret

    leaves, spec = pytree.tree_flatten((sample.input, tuple(sample.args), dict(sample.kwargs)))
    tensors = [x.detach().clone() for x in leaves if isinstance(x, torch.Tensor)]
    model = Call(function, leaves, spec)
    try:
        with torch.no_grad():
            expected = pytree.tree_leaves(model(*[t.clone() for t in tensors]))
    except Exception as e:
        return f"torch eager: {type(e).__name__}"
    if any(isinstance(x, torch.Tensor) and (x.dtype.is_complex or x.layout is not torch.strided) for x in expected):
        return "complex or sparse results"
    if not tensors or not any(isinstance(x, torch.Tensor) for x in expected):
        return "" if tensors else "no tensor goes in"
    try:
        src = source(model, tuple(tensors))
        graph = src.graph()
    except UnsupportedError as e:
        found = re.findall(r"- ([\w.:<>-]+)", str(e))
        return "unsupported: " + (", ".join(found) or str(e).splitlines()[0])[:120]
    feed = dict(zip(src.input_names, (t.numpy() for t in src.flatten_inputs(tensors, {})), strict=True))
    results = [torch.from_numpy(np.array(a)) for a in interpret(graph, feed).values()]
    got = pytree.tree_leaves(src.unflatten_outputs(results))
    try:
        for x, y in zip(got, expected, strict=True):
            if isinstance(y, torch.Tensor):
                tolerance = {"rtol": 3e-5, "atol": 2e-5} if y.dtype is torch.float32 else {}
                torch.testing.assert_close(x, y, equal_nan=True, **tolerance)
            elif x != y:
                return "wrong"
    except (AssertionError, TypeError, ValueError):
        return "wrong"
    return ""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_samples_of_torch(chunk: int) -> None:
    listed = json.loads(EXPECTED.read_text())
    version = ".".join(torch.__version__.split(".")[:2])
    if listed["torch"] != version:
        pytest.skip(f"the list of expected failures is for torch {listed['torch']}, this is {version}")
    failures, passes = {}, []
    for entry in entries()[chunk::CHUNKS]:
        name = key(entry)
        why = failure(entry)
        if why and name not in listed["failures"]:
            failures[name] = why
        elif not why and name in listed["failures"]:
            passes.append(name)
    assert not failures, "these fail and are not listed"
    assert not passes, "these are listed and pass: take them off the list"


def test_no_listed_failure_is_a_wrong_result() -> None:
    """A refusal may be listed; a wrong number only where torch's own result is not defined, which is said here."""
    undefined = {
        "empty_like", "new_empty", "new_empty_strided",  # uninitialised memory
        "bfloat16",  # NumPy has no bf16, so the harness sees its bits
        "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu",  # torch's decomposition returns something else
    }  # fmt: skip
    listed = json.loads(EXPECTED.read_text())["failures"]
    assert {name for name, why in listed.items() if why == "wrong"} <= undefined


if __name__ == "__main__":
    part, parts = (int(x) for x in (sys.argv[1:] or ["0", "1"]))
    found = {}
    for entry in entries()[part::parts]:
        why = failure(entry)
        if why:
            found[key(entry)] = why
            print(f"{key(entry)}: {why}", flush=True)
    known = json.loads(EXPECTED.read_text())["failures"] if EXPECTED.exists() and parts > 1 else {}
    names = {key(e) for e in entries()[part::parts]}
    merged = {k: v for k, v in known.items() if k not in names} | found
    EXPECTED.write_text(
        json.dumps(
            {"torch": ".".join(torch.__version__.split(".")[:2]), "failures": dict(sorted(merged.items()))}, indent=1
        )
        + "\n"
    )
