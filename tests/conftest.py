"""Shared fixtures: where optional test data lies, and seeded randomness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def mxnet_models() -> Path:
    """The folder of published MXNet checkpoints with the outputs of real MXNet; skips when absent."""
    folder = SHARED / "models" / "mxnet"
    if not folder.is_dir():
        pytest.skip("../shared/models/mxnet (published MXNet checkpoints) is not there")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
