"""Train the demonstration network in PyTorch and write it as an exported program.

    python scripts/train_digits_torch.py --out digits.pt2
    diptych compare digits.pt2

Needs PyTorch and scikit-learn. Same network, same split of the data as `train_digits_mxnet.py`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from diptych.compare.demo.network import Digits

HELD_OUT = 360
SEED = 2026


def main() -> int:
    """Train, report the held-out accuracy, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1, help="images in a call of the exported program")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.pt2")
    args = parser.parse_args()
    torch.manual_seed(SEED)

    digits = load_digits()
    images = torch.from_numpy((digits.images / 16).astype(np.float32)[:, None])
    labels = torch.from_numpy(digits.target.astype(np.int64))
    order = torch.from_numpy(np.random.RandomState(SEED).permutation(len(images)))
    train, held = order[:-HELD_OUT], order[-HELD_OUT:]

    net = Digits().train()
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3, weight_decay=1e-4)
    for _ in range(args.epochs):
        for index in train[torch.randperm(len(train))].split(32):
            probabilities = net(images[index])
            loss = torch.nn.functional.nll_loss(probabilities.clamp_min(1e-12).log(), labels[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    net.eval()
    with torch.inference_mode():
        right = int((net(images[held]).argmax(1) == labels[held]).sum())
    print(f"held out: {right} of {HELD_OUT} right")
    torch.export.save(torch.export.export(net, (images[held][: args.batch],)), args.out)
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
