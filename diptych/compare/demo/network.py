"""The PyTorch twin of the demonstration network: the same weights, so the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["Digits", "digits"]

FOLDER = Path(__file__).parent


class Digits(torch.nn.Module):  # type: ignore[misc]  # PyTorch is optional, so mypy does not follow it
    """Three convolutions, two with BatchNorm, two dense layers, softmax: 8x8 images in, 10 probabilities out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 16, 3, padding=1)
        self.bn1 = torch.nn.BatchNorm2d(16)
        self.conv2 = torch.nn.Conv2d(16, 32, 3, padding=1)
        self.bn2 = torch.nn.BatchNorm2d(32)
        self.conv3 = torch.nn.Conv2d(32, 64, 3, padding=1)
        self.fc1 = torch.nn.Linear(256, 64)
        self.fc2 = torch.nn.Linear(64, 10)

    def forward(self, data: Any) -> Any:
        """Probabilities of the ten digits."""
        x = torch.relu(self.bn1(self.conv1(data)))
        x = torch.max_pool2d(torch.relu(self.bn2(self.conv2(x))), 2)
        x = torch.max_pool2d(torch.relu(self.conv3(x)), 2)
        x = torch.relu(self.fc1(x.flatten(1)))
        return torch.softmax(self.fc2(x), 1)


def digits(batch: int = 1) -> tuple[Digits, tuple[Any, ...]]:
    """The trained twin and an example input of `batch` images."""
    spelling = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_var": "running_var"}
    state = {}
    with np.load(FOLDER / "digits_weights.npz") as weights:
        for name in weights.files:
            layer, _, kind = name.partition("_")
            state[f"{layer}.{spelling.get(kind, kind)}"] = torch.from_numpy(weights[name])
    module = Digits()
    module.load_state_dict(state, strict=False)  # BatchNorm's batch counter has no counterpart in MXNet
    return module.eval(), (torch.zeros(batch, 1, 8, 8),)
