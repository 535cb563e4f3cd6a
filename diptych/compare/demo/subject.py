"""The demonstration as a subject: a checkpoint of real MXNet, its PyTorch twin, and real images it has not seen."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from diptych.compare.subject import Samples, Subject

__all__ = ["demo"]

FOLDER = Path(__file__).parent


def demo(batch: int = 1) -> Subject:
    """The digits network, to be answered in batches of `batch` images; without PyTorch its twin is left out."""
    with np.load(FOLDER / "digits_held_out.npz") as data:
        images = (data["pixels"].astype(np.float32) / 16)[:, None]
        labels = data["labels"].astype(np.int64)
    return Subject(
        name="digits",
        inputs={"data": np.ascontiguousarray(images[np.arange(batch) % len(images)])},
        torch="diptych.compare.demo.network:digits" if find_spec("torch") else "",
        arguments={"batch": batch},
        symbol=str(FOLDER / "digits-symbol.json"),
        params=str(FOLDER / "digits-0000.params"),
        samples=Samples({"data": images}, labels, "handwritten digits of scikit-learn that training did not see"),
    )
