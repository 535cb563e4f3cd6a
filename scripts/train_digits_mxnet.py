"""Train the demonstration network in real MXNet 1.9.1 and write it, with its held-out data, to diptych/compare/demo.

Run under an interpreter that has mxnet 1.9.1, NumPy 1.23 and scikit-learn: `python scripts/train_digits_mxnet.py`.
The data are the 1,797 handwritten digits that come with scikit-learn; the last 360 of a seeded permutation are held out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
from sklearn.datasets import load_digits

HELD_OUT = 360
SEED = 2026
FOLDER = Path(__file__).resolve().parents[1] / "diptych" / "compare" / "demo"


def network():
    """The symbol: three convolutions (two with BatchNorm), two dense layers, a softmax head."""
    x = mx.sym.Variable("data")
    for i, (channels, norm, pool) in enumerate([(16, True, False), (32, True, True), (64, False, True)], 1):
        x = mx.sym.Convolution(x, kernel=(3, 3), pad=(1, 1), num_filter=channels, name=f"conv{i}")
        if norm:
            x = mx.sym.BatchNorm(x, fix_gamma=False, eps=1e-5, momentum=0.9, name=f"bn{i}")
        x = mx.sym.Activation(x, act_type="relu", name=f"relu{i}")
        if pool:
            x = mx.sym.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max", name=f"pool{i}")
    x = mx.sym.FullyConnected(mx.sym.Flatten(x, name="flatten"), num_hidden=64, name="fc1")
    x = mx.sym.Activation(x, act_type="relu", name="relu4")
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=10, name="fc2"), name="softmax")


def main() -> int:
    """Train, report the held-out accuracy, write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    mx.random.seed(SEED)
    np.random.seed(SEED)

    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    order = np.random.RandomState(SEED).permutation(len(images))
    train, held = order[:-HELD_OUT], order[-HELD_OUT:]

    batches = mx.io.NDArrayIter(images[train], labels[train], batch_size=32, shuffle=True)
    module = mx.mod.Module(network(), context=mx.cpu())
    module.fit(
        batches,
        num_epoch=args.epochs,
        optimizer="adam",
        optimizer_params={"learning_rate": 2e-3, "wd": 1e-4},
        initializer=mx.init.Xavier(),
    )
    test = mx.io.NDArrayIter(images[held], labels[held], batch_size=32)
    right = int((module.predict(test).asnumpy().argmax(1) == labels[held]).sum())
    print(f"held out: {right} of {HELD_OUT} right")

    args.out.mkdir(parents=True, exist_ok=True)
    module.save_checkpoint(str(args.out / "digits"), 0)
    weights, states = module.get_params()
    np.savez_compressed(
        args.out / "digits_weights.npz", **{k: v.asnumpy() for k, v in sorted({**weights, **states}.items())}
    )
    pixels = (digits.images[held]).astype(np.uint8)  # 0..16, so bytes hold them exactly
    np.savez_compressed(
        args.out / "digits_held_out.npz", pixels=pixels, labels=labels[held].astype(np.uint8), index=held
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
