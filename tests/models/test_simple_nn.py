"""The document's own programs: SimpleNN of both worlds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "simple_nn" / "run.py"


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simple_nn_run", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mxnets_checkpoint_gives_mxnets_numbers(example: ModuleType) -> None:
    assert example.mxnet_half() < 1e-6


def test_pytorchs_trained_network_gives_pytorchs_numbers(example: ModuleType) -> None:
    pytest.importorskip("torch")
    loss, difference = example.torch_half()
    assert loss < 0.1  # after 100 steps
    assert difference < 1e-6
