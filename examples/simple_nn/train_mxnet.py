"""The MXNet half of the document's program, for real MXNet 1.9.1: define SimpleNN, train it by SGD, export it.

Run with an interpreter that has MXNet: python examples/simple_nn/train_mxnet.py. Two lines differ from the document,
which could not run as printed: the trainer is gluon.Trainer, and hybrid_forward makes the block exportable.
"""

from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

HERE = Path(__file__).parent


class SimpleNN(gluon.HybridBlock):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.fc = gluon.nn.Dense(1)

    def hybrid_forward(self, F, x):
        return self.fc(x)


def main() -> None:
    mx.random.seed(0)
    inputs = mx.nd.array([[1.0, 2.0], [2.0, 0.5], [-1.0, 1.0], [0.0, -2.0]])
    target = mx.nd.array([[5.0], [3.5], [1.5], [-3.5]])  # 1 * a + 2 * b + 0.5, but for noise
    model = SimpleNN()
    model.initialize(mx.init.Normal(0.1))
    model.hybridize()
    trainer = gluon.Trainer(model.collect_params(), "sgd", {"learning_rate": 0.1})
    criterion = gluon.loss.L2Loss()
    for _ in range(100):
        with autograd.record():
            loss = criterion(model(inputs), target)
        loss.backward()
        trainer.step(len(inputs))
    model.export(str(HERE / "simple_nn"), epoch=100)
    np.savez(HERE / "simple_nn_golden.npz", inputs=inputs.asnumpy(), outputs=model(inputs).asnumpy())
    print("loss", float(loss.mean().asscalar()))


if __name__ == "__main__":
    main()
