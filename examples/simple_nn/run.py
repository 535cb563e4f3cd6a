"""The document's SimpleNN (2 -> 1) of both worlds on diptych: PyTorch's is trained here, MXNet's comes as a checkpoint.

python examples/simple_nn/run.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import diptych

HERE = Path(__file__).parent


def mxnet_half() -> float:
    """The checkpoint that real MXNet wrote (train_mxnet.py); returns the largest difference to its own outputs."""
    golden = np.load(HERE / "simple_nn_golden.npz")
    net = diptych.load(HERE / "simple_nn-symbol.json", HERE / "simple_nn-0100.params")
    model = diptych.compile(net, {"data": golden["inputs"]})
    return float(np.abs(model(golden["inputs"]) - golden["outputs"]).max())


def torch_half() -> tuple[float, float]:
    """Train by SGD as the document does, compile, run; returns the last loss and the difference to PyTorch."""
    import torch
    from torch import nn

    class SimpleNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x)

    torch.manual_seed(0)
    golden = np.load(HERE / "simple_nn_golden.npz")
    inputs = torch.from_numpy(golden["inputs"])
    target = inputs @ torch.tensor([[1.0], [2.0]]) + 0.5
    net = SimpleNN()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    criterion = nn.MSELoss()
    for _ in range(100):
        optimizer.zero_grad()
        loss = criterion(net(inputs), target)
        loss.backward()
        optimizer.step()
    net.eval()
    model = diptych.compile(net, (inputs,))
    with torch.no_grad():
        difference = float((model(inputs) - net(inputs)).abs().max())
    return loss.item(), difference


if __name__ == "__main__":
    print(f"MXNet's SimpleNN on diptych: largest difference to MXNet {mxnet_half():.1e}")
    loss, difference = torch_half()
    print(f"PyTorch's SimpleNN: loss {loss:.4f} after 100 steps; compiled, largest difference {difference:.1e}")
