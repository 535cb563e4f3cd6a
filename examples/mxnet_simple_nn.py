"""The smallest network in MXNet's gluon: define it, train it for a hundred epochs, infer.

    python examples/mxnet_simple_nn.py

Written for Apache MXNet 1.x; only the import differs (`import mxnet as mx` there). `run` takes the module, so that a test can
compare the numbers with those of MXNet itself.
"""

from __future__ import annotations

import sys
from typing import Any


def run(mx: Any, weight: Any = None, epochs: int = 100) -> dict[str, Any]:
    """Train from `weight` (drawn when None); the losses, the parameters and the output afterwards."""
    gluon = mx.gluon

    class SimpleNN(gluon.HybridBlock):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            with self.name_scope():
                self.fc = gluon.nn.Dense(1)

        def forward(self, x: Any) -> Any:
            return self.fc(x)

    input_data = mx.nd.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]])
    target = mx.nd.array([[3.0], [2.0], [0.75]])

    model = SimpleNN()
    model.initialize()
    model(input_data)  # the first call tells the shape of the weight
    if weight is not None:
        model.fc.weight.set_data(mx.nd.array(weight))

    trainer = gluon.Trainer(model.collect_params(), "sgd", {"learning_rate": 0.01})
    criterion = gluon.loss.L2Loss()
    losses = []
    for _ in range(epochs):
        with mx.autograd.record():
            output = model(input_data)
            loss = criterion(output, target)
        loss.backward()
        trainer.step(batch_size=input_data.shape[0])
        losses.append(float(loss.mean().asscalar()))

    with mx.autograd.predict_mode():
        output = model(input_data)
    return {"losses": losses, "weight": model.fc.weight.data().asnumpy().tolist(), "bias": model.fc.bias.data().asnumpy().tolist(),
            "output": output.asnumpy().tolist()}  # fmt: skip


if __name__ == "__main__":
    import diptych.mxnet as mx

    result = run(mx)
    sys.stdout.write(f"loss {result['losses'][0]:.4f} -> {result['losses'][-1]:.4f}, output {result['output']}\n")
